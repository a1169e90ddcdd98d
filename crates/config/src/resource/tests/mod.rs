//! Tests of every kind: documents that are in order, documents that are not
//! and the complaint about them, nulls, masking, and the JSON Schemas.

mod core;
mod guard;
mod mcp;
mod traffic;

use std::collections::BTreeSet;

use jsonschema::Validator;
use proptest::prelude::{any, prop_assert};
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::*;
use crate::schema::{Fields, Format, Need, json_schema};
use crate::testing::{arbitrary, json as json_value};
use crate::tree::parse_json;

/// The documents of a kind.
struct Cases {
    kind: &'static str,
    /// Nothing but what is required.
    minimal: &'static str,
    /// Every field; one document for each form. Secrets are `s3cret`.
    full: &'static [&'static str],
    /// The fields at the top that may be `null`.
    nullable: &'static [&'static str],
    bad: &'static [Bad],
}

/// What a lenient check makes of it.
#[derive(Clone, Copy, PartialEq)]
enum Lenient {
    Refuses,
    /// Passes it over and tells it.
    Tells,
}

/// A document that is not in order.
struct Bad {
    /// Which of the full documents it is made from.
    base: usize,
    /// The JSON merge patch that breaks it.
    patch: &'static str,
    /// The complaint.
    text: &'static str,
    lenient: Lenient,
    /// Whether the JSON Schema refuses it too.
    in_schema: bool,
}

/// A document that is never accepted.
const fn both(base: usize, patch: &'static str, text: &'static str) -> Bad {
    Bad { base, patch, text, lenient: Lenient::Refuses, in_schema: true }
}

/// A document that is only accepted when it is stored already.
const fn told(base: usize, patch: &'static str, text: &'static str) -> Bad {
    Bad { base, patch, text, lenient: Lenient::Tells, in_schema: true }
}

impl Bad {
    /// Nothing that a JSON Schema can say.
    const fn beyond(mut self) -> Self {
        self.in_schema = false;
        self
    }
}

fn all() -> impl Iterator<Item = (&'static ResourceKind, &'static Cases)> {
    let cases = [core::CASES, guard::CASES, traffic::CASES, mcp::CASES];
    cases.into_iter().flatten().map(|cases| (kind_of(cases.kind).expect(cases.kind), cases))
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn merge(document: &mut Value, patch: Value) {
    match (document, patch) {
        (Value::Object(members), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    members.remove(&name);
                } else {
                    merge(members.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (document, patch) => *document = patch,
    }
}

fn check(kind: &ResourceKind, document: &Value, mode: Mode) -> Checked {
    kind.check(&parse_json(&document.to_string()).expect("JSON"), mode)
}

fn texts(checked: &Checked) -> Vec<String> {
    let prefix = "schema validation failed at ";
    let texts = checked.problems.iter().map(|problem| problem.resource_text());
    texts.map(|text| text.strip_prefix(prefix).map(str::to_owned).unwrap_or(text)).collect()
}

fn validator(kind: &ResourceKind) -> Validator {
    let schema = json_schema(kind);
    jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(&schema).unwrap_or_else(|error| panic!("{}: {error}", kind.name))
}

/// The tables of a kind, one for each form.
fn tables(shape: &Kind) -> Vec<Vec<Fields>> {
    match shape {
        Kind::Object(fields) => vec![vec![fields]],
        Kind::Union(union) => union.variants.iter().map(|(_, own)| vec![union.common, own]).collect(),
        Kind::Forms(forms) => forms.forms.iter().map(|(_, own)| vec![forms.common, own]).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn ids_are_stable() {
    assert_eq!(derived_id("models", "gpt-4o"), "6efd592d-a73b-573d-8e2c-e9e103692f92");
}

#[test]
fn every_kind_has_its_cases_and_its_own_fields_in_them() {
    assert_eq!(all().map(|(kind, _)| kind.name).collect::<BTreeSet<_>>().len(), KINDS.len());
    for (kind, cases) in all() {
        let full: Vec<Value> = cases.full.iter().map(|text| parse(text)).collect();
        for field in tables(&kind.shape).into_iter().flatten().flatten() {
            let given = |document: &Value| document.get(field.name).is_some();
            let gone = matches!(field.need, Need::Gone);
            assert!(gone || full.iter().any(given), "{}: no document has `{}`", kind.name, field.name);
        }
    }
}

#[test]
fn good_documents_are_accepted_as_they_are() {
    for (kind, cases) in all() {
        let schema = validator(kind);
        for text in cases.full.iter().chain([&cases.minimal]) {
            let document = parse(text);
            for mode in [Mode::Strict, Mode::Lenient] {
                let checked = check(kind, &document, mode);
                assert_eq!(texts(&checked), [""; 0], "{}: {text}", kind.name);
                assert_eq!(checked.ignored, [""; 0], "{}: {text}", kind.name);
                // What is written out reads the same again.
                let again = check(kind, &checked.document, mode);
                assert_eq!(texts(&again), [""; 0], "{}: {}", kind.name, checked.document);
                assert_eq!(again.document, checked.document, "{}", kind.name);
                assert!(schema.is_valid(&checked.document), "{}: {}", kind.name, checked.document);
            }
            if let Err(error) = schema.validate(&document) {
                panic!("{}: {error}: {text}", kind.name);
            }
            let mut set = ResourceSet::default();
            let canonical = check(kind, &document, Mode::Strict).document;
            assert!(kind.identity(&canonical).is_some_and(|name| !name.is_empty()), "{}", kind.name);
            set.put(kind, "id", 1, canonical).expect(kind.name);
        }
    }
}

#[test]
fn bad_documents_are_refused_at_the_exact_place() {
    let mut wrong = Vec::new();
    for (kind, cases) in all() {
        let schema = validator(kind);
        for bad in cases.bad {
            let mut document = parse(cases.full[bad.base]);
            merge(&mut document, parse(bad.patch));
            let strict = check(kind, &document, Mode::Strict);
            let lenient = check(kind, &document, Mode::Lenient);
            let loads = bad.lenient == Lenient::Tells;
            let expected = if loads { vec![] } else { vec![bad.text.to_owned()] };
            let found = (texts(&strict), schema.is_valid(&document), texts(&lenient), lenient.ignored.len());
            let expected = (vec![bad.text.to_owned()], !bad.in_schema, expected, usize::from(loads));
            if found != expected {
                wrong.push(format!("{}: {}\n  {found:?}\n  {expected:?}", kind.name, bad.patch));
            }
            let stored = ResourceSet::default().put(kind, "id", 1, lenient.document);
            assert!(stored.is_ok() || !loads, "{}: {}", kind.name, bad.patch);
        }
    }
    assert!(wrong.is_empty(), "(strict, schema, lenient, told)\n{}", wrong.join("\n"));
}

#[test]
fn lenient_checks_say_what_they_pass_over() {
    let told = |kind: &str, document: Value| {
        let checked = check(kind_of(kind).expect("a kind"), &document, Mode::Lenient);
        assert_eq!(texts(&checked), [""; 0]);
        (checked.ignored, checked.document)
    };
    let group = json!({
        "display_name": "g", "retries": 2, "cost": {"input_per_1k": 1, "output_per_1k": 2},
        "routing": {"targets": [{"model": "a", "x": 1}, {"model": "b", "x": 2}]},
    });
    let (ignored, document) = told("models", group);
    let expected =
        ["routing.targets.[].x", "routing.targets.[].x", "inapplicable:retries", "inapplicable:cost"];
    assert_eq!(ignored, expected);
    assert!(document.get("retries").is_none() && document.get("cost").is_none());

    let key = json!({"key_hash": "ABC", "allowed_models": [], "mcp_access": {"mode": "deny"}});
    let (ignored, document) = told("api_keys", key);
    assert_eq!(ignored, ["invalid:key_hash"]);
    assert_eq!(document["mcp_access"], json!({"allow": []}));

    let guardrail = json!({"name": "g", "kind": "keyword", "patterns": [{"kind": "regex", "value": "("}]});
    assert_eq!(told("guardrails", guardrail).0, ["invalid:patterns.[].value"]);
    assert_eq!(told("mcp_policies", json!({"scope": "env"})).1["allow"], json!([]));
    assert_eq!(told("cache_policies", json!({"name": "c", "ttl": 5})).0, ["ttl"]);
}

#[test]
fn null_is_absence_only_where_the_contract_says_so() {
    for (kind, cases) in all() {
        let schema = validator(kind);
        let fields: BTreeSet<_> =
            tables(&kind.shape).into_iter().flatten().flatten().map(|f| f.name).collect();
        for field in fields {
            for text in cases.full.iter().copied().filter(|text| parse(text).get(field).is_some()) {
                let mut document = parse(text);
                document[field] = Value::Null;
                let checked = check(kind, &document, Mode::Strict);
                let pointer = format!("`/{field}`: value is not of type");
                let refused = texts(&checked).iter().any(|text| text.starts_with(&pointer));
                assert_eq!(!refused, cases.nullable.contains(&field), "{}: {field}: {text}", kind.name);
                assert_eq!(schema.is_valid(&document), checked.problems.is_empty(), "{}: {field}", kind.name);
            }
        }
    }
}

/// What is accepted is what the schema accepts, but for rules beyond schemas.
#[test]
fn schemas_admit_whatever_is_accepted() {
    for kind in KINDS {
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(64) });
        let schema = validator(kind);
        let documents = (arbitrary(kind), any::<Index>(), json_value());
        let admitted = runner.run(&documents, |(mut document, at, value)| {
            prop_assert!(schema.is_valid(&document), "{}: {document}", kind.name);
            let members = document.as_object_mut().expect("an object");
            if let Some(name) = members.keys().nth(at.index(members.len().max(1))).cloned() {
                members.insert(name, value);
            }
            let accepted = check(kind, &document, Mode::Strict).problems.is_empty();
            prop_assert!(!accepted || schema.is_valid(&document), "{}: {document}", kind.name);
            Ok(())
        });
        if let Err(error) = admitted {
            panic!("{error}");
        }
    }
}

#[test]
fn masked_documents_hold_no_secret() {
    for (kind, cases) in all() {
        for text in cases.full {
            let checked = check(kind, &parse(text), Mode::Strict);
            let masked = kind.masked(&checked.document).to_string();
            assert!(!masked.contains("s3cret"), "{}: {masked}", kind.name);
            assert_eq!(masked.contains("***"), text.contains("s3cret"), "{}: {masked}", kind.name);
        }
    }
}

#[test]
fn credentials_in_urls_are_not_shown() {
    fn poison(value: &mut Value) -> usize {
        match value {
            Value::String(text) if text.starts_with("http://") || text.starts_with("https://") => {
                *text = "https://user:MARKER@host.example/?key=MARKER&Access-Token=MARKER".into();
                1
            }
            Value::Array(items) => items.iter_mut().map(poison).sum(),
            Value::Object(members) => members.values_mut().map(poison).sum(),
            _ => 0,
        }
    }
    let mut kinds = BTreeSet::new();
    for (kind, cases) in all() {
        for text in cases.full {
            let mut document = parse(text);
            if poison(&mut document) == 0 {
                continue;
            }
            kinds.insert(kind.name);
            // The rules of the kind aside: what matters is what is shown.
            let value =
                schema::check(&kind.shape, &Node::of_json(document), kind.nulls, Mode::Lenient).document;
            assert!(value.to_string().contains("MARKER"), "{value}");
            let masked = kind.masked(&value).to_string();
            assert!(!masked.contains("MARKER"), "{}: {masked}", kind.name);
            let document = Document { kind, id: "x".into(), value };
            let export = crate::export::export(&[document], crate::export::ExportOptions::default());
            let told = format!("{}{:?}{:?}", export.yaml, export.warnings, export.problems);
            assert!(!told.contains("MARKER"), "{}: {told}", kind.name);
        }
    }
    let expected = [
        "a2a_agents",
        "guardrails",
        "mcp_auth_settings",
        "mcp_servers",
        "observability_exporters",
        "oidc_providers",
        "passthrough_routes",
        "provider_keys",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_masked_url_is_not_written() {
    let agent = serde_json::json!({"name": "a", "url": "https://h/?key=***"});
    let kind = kind_of("a2a_agents").expect("a kind");
    let told = texts(&check(kind, &agent, Mode::Strict)).join("");
    assert!(told.contains("`***` in place of a credential"), "{told}");
    assert_eq!(texts(&check(kind, &agent, Mode::Lenient)), [""; 0]);
}

fn walk(fields: Fields, depth: usize, see: &mut dyn FnMut(&crate::schema::Field)) {
    for field in fields {
        see(field);
        inside(&field.kind, depth, see);
    }
}

fn inside(kind: &Kind, depth: usize, see: &mut dyn FnMut(&crate::schema::Field)) {
    // Conditions hold conditions.
    if depth == 0 {
        return;
    }
    match kind {
        Kind::List(list) => inside(&list.item, depth, see),
        Kind::Map(map) => inside(&map.value, depth, see),
        Kind::Either(kinds) => kinds.iter().for_each(|kind| inside(kind, depth, see)),
        shape => tables(shape).into_iter().flatten().for_each(|fields| walk(fields, depth - 1, see)),
    }
}

#[test]
fn every_default_is_a_value_of_its_field() {
    let mut seen = 0;
    for kind in KINDS {
        inside(&kind.shape, 8, &mut |field| {
            let (Need::Default(text) | Need::Written(text)) = field.need else {
                return;
            };
            seen += 1;
            let node = parse_json(text).unwrap_or_else(|_| panic!("{}: {text}", field.name));
            let checked = schema::check(&field.kind, &node, Nulls::Never, Mode::Strict);
            assert_eq!(texts(&checked), [""; 0], "{}: {}", kind.name, field.name);
        });
        let rules: Vec<Value> = serde_json::from_str(kind.schema).expect(kind.name);
        assert_eq!(rules.is_empty(), kind.schema == "[]");
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn fields_that_sound_secret_are() {
    for kind in KINDS {
        inside(&kind.shape, 8, &mut |field| {
            let plain = matches!(field.kind, Kind::Text { format, .. } if format != Format::Secret);
            let names = ["api_key", "secret", "access_key_secret", "secret_access_key", "password"];
            assert!(!(plain && names.contains(&field.name)), "{}: {}", kind.name, field.name);
        });
    }
}

#[test]
fn every_reference_leads_to_a_kind_and_every_path_into_a_document() {
    for (kind, cases) in all() {
        let documents = cases.full.iter().map(|text| check(kind, &parse(text), Mode::Strict).document);
        let mut seen = BTreeSet::new();
        for mut document in documents {
            visit_refs(kind, &mut document, &mut |site| {
                assert!(kind_of(site.kind).is_some(), "{}", site.kind);
                seen.insert(site.path.replace(|c: char| c.is_ascii_digit(), ""));
                site.target.push('x');
            });
        }
        for reference in kind.refs {
            assert!(seen.contains(reference.path), "{}: {}: {seen:?}", kind.name, reference.path);
        }
    }
}

#[test]
fn references_of_a_kind_that_another_field_tells() {
    let refs = |kind: &str, mut document: Value| {
        let mut seen = Vec::new();
        visit_refs(kind_of(kind).expect("a kind"), &mut document, &mut |site| {
            seen.push(format!("{} {} {:?} {}", site.path, site.kind, site.by, site.target));
            site.target.push('!');
        });
        (seen, document)
    };
    let (seen, document) = refs("cache_policies", json!({"applies_to": "api_key:k1"}));
    assert_eq!(
        (seen, &document["applies_to"]),
        (vec!["applies_to api_keys Id k1".into()], &json!("api_key:k1!"))
    );
    let (seen, _) = refs("cache_policies", json!({"applies_to": "model:m:1"}));
    assert_eq!(seen, ["applies_to models Name m:1"]);
    let policy = json!({"conditions": [
        {"dimension": "team", "operator": "==", "value": "t"},
        {"logic": "or", "children": [{"dimension": "model", "operator": "in", "value": ["a", "b"]}]},
        {"dimension": "api_key", "operator": "==", "value": "k"},
    ]});
    let (seen, document) = refs("rate_limit_policies", policy);
    let expected = [
        "conditions[1].children[0].value[0] models Id a",
        "conditions[1].children[0].value[1] models Id b",
        "conditions[2].value api_keys Id k",
    ];
    assert_eq!(seen, expected);
    assert_eq!(document["conditions"][1]["children"][0]["value"], json!(["a!", "b!"]));
    assert_eq!(refs("rate_limit_policies", json!({"scope": "team", "scope_ref": "t"})).0, [""; 0]);
    let scoped = json!({"guardrail_id": "g", "scope_type": "passthrough_route", "scope_id": "r"});
    assert_eq!(refs("guardrail_attachments", scoped).0[1], "scope_id passthrough_routes Id r");
}

#[test]
fn identities_of_kinds_without_names() {
    let identity = |kind: &str, document: Value| kind_of(kind).and_then(|kind| kind.identity(&document));
    let attachment = json!({"guardrail_id": "g", "scope_type": "model", "scope_id": "m"});
    assert_eq!(identity("guardrail_attachments", attachment).as_deref(), Some("g/model/m"));
    assert_eq!(identity("mcp_policies", json!({"scope": "env"})).as_deref(), Some("env"));
    let team = json!({"scope": "team", "scope_ref": "t"});
    assert_eq!(identity("mcp_policies", team).as_deref(), Some("team/t"));
    assert_eq!(identity("mcp_auth_settings", json!({})).as_deref(), Some("mcp_auth_settings"));
}

#[test]
fn collisions_beyond_one_field() {
    let exclusive = |kind: &str, document: Value| (kind_of(kind).expect("a kind").exclusive)(&document);
    let off = json!({"issuer": "i", "enabled": false});
    assert_eq!(exclusive("oidc_providers", off), []);
    let on = json!({"issuer": "i", "enabled": true});
    assert_eq!(exclusive("oidc_providers", on), [("duplicate enabled OIDC issuer", "i".to_owned())]);
    let bound = |provider: &str, subject: &str| {
        exclusive("api_keys", json!({"jwt_provider": provider, "jwt_subject": subject}))
    };
    assert_eq!(bound("a", "b"), bound("a", "b"));
    assert_ne!(bound("a\",\"b", "c"), bound("a", "b\",\"c"));
}
