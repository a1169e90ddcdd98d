//! Tests of the export.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::file::Loaded;
use crate::resource::{derived_id, kind_of};
use crate::testing::{canonical, world};

const HASH: &str = "1111111111111111222222222222222233333333333333334444444444444444";

fn document(kind: &str, id: &str, value: Value) -> Document {
    let kind = kind_of(kind).expect("a kind");
    let value = canonical(kind, &value).unwrap_or_else(|| panic!("{value} is in order"));
    Document { kind, id: id.into(), value }
}

fn key(name: &str, secret: &str) -> Document {
    document("provider_keys", &format!("id of {name}"), json!({"display_name": name, "api_key": secret}))
}

fn caller(id: &str, name: Option<&str>, hash: &str) -> Document {
    document("api_keys", id, json!({"display_name": name, "key_hash": hash, "allowed_models": []}))
}

fn clear(documents: &[Document]) -> Export {
    export(documents, ExportOptions { reveal_secrets: true })
}

fn hidden(documents: &[Document]) -> Export {
    export(documents, ExportOptions::default())
}

fn loaded(written: &(Export, Secrets)) -> Loaded {
    load_text(&written.0.yaml, &|name| written.1.value(name))
        .unwrap_or_else(|errors| panic!("{errors}\n{}", written.0.yaml))
}

/// What documents say, without ids.
fn said(documents: &[Document]) -> Vec<(&'static str, String, Value)> {
    let named = by_name(documents, &mut Vec::new());
    named.into_iter().map(|named| (named.kind.name, named.identity, named.value)).collect()
}

/// The same of what operators see.
fn seen(loaded: &Loaded) -> Vec<Document> {
    let kinds = KINDS.iter().copied();
    let seen = kinds
        .flat_map(|kind| loaded.set.views(kind).into_iter().map(move |view| (kind, view.id, view.document)));
    seen.map(|(kind, id, value)| Document { kind, id: id.to_string(), value: (*value).clone() }).collect()
}

#[test]
fn a_file_with_references_and_secrets() {
    let documents = [
        caller("c", Some("team $1"), HASH),
        document(
            "models",
            "m",
            json!({"display_name": "m", "provider": "p", "model_name": "u", "provider_key_id": "id of k"}),
        ),
        document(
            "provider_keys",
            "id of k",
            json!({"display_name": "k", "api_key": "sk-1$", "request": {
                "default_headers": {"x-team": "${request.api_key.team_id}", "x-none": ""},
            }}),
        ),
    ];
    let export = hidden(&documents);
    let expected = format!(
        r#"---
_format_version: "1"

provider_keys:
  - display_name: k
    api_key: ${{AISIXSECRET_PROVIDER_KEY_K_API_KEY}}
    provider: ""
    telemetry_tags:
      featured: false
    request:
      default_headers:
        x-team: ${{AISIXSECRET_PROVIDER_KEY_K_REQUEST_DEFAULT_HEADERS_X_TEAM}}
        x-none: ""
    strip_headers:
      - authorization
      - cookie
      - set-cookie
      - x-api-key

models:
  - display_name: m
    provider: p
    model_name: u
    provider_key: k

api_keys:
  - display_name: team $$1
    key_hash: "{HASH}"
    allowed_models: []
    disabled: false
"#
    );
    assert_eq!(export.yaml, expected);
    assert_eq!((export.count, export.warnings, export.problems), (3, vec![], vec![]));
    let field =
        |placeholder: &Placeholder| (placeholder.kind, placeholder.name.clone(), placeholder.field.clone());
    let fields: Vec<_> = export.placeholders.iter().map(field).collect();
    let row = |field: &str| ("provider_keys", "k".to_owned(), field.to_owned());
    assert_eq!(fields, [row("api_key"), row("request.default_headers.x-team")]);
    let open = clear(&documents);
    assert!(open.yaml.contains("api_key: sk-1$$\n"), "{}", open.yaml);
    assert!(open.yaml.contains("x-team: $${request.api_key.team_id}\n"), "{}", open.yaml);
    assert_eq!(open.warnings, ["2 secret value(s) are written in clear text"]);
    assert_eq!(open.placeholders, []);
}

#[test]
fn variables_are_unique_and_fit() {
    let long = "x".repeat(300);
    let names = ["a-b", "a.b", "a_b 2", "a_b", &long];
    let documents: Vec<_> = names.map(|name| key(name, name)).into();
    let written = write(&documents, ExportOptions::default());
    let variables: Vec<_> = written.0.placeholders.iter().map(|p| p.variable.as_str()).collect();
    let stem = "AISIXSECRET_PROVIDER_KEY_A_B";
    let expected = [
        format!("{stem}_API_KEY"),
        format!("{stem}_API_KEY_2"),
        format!("{stem}_API_KEY_3"),
        format!("{stem}_2_API_KEY"),
    ];
    assert_eq!(variables[..4], expected);
    assert!(variables[4].len() <= 203, "{}", variables[4]);
    for key in loaded(&written).set.provider_keys().iter() {
        assert_eq!(*key.value.api_key.expose(), key.value.display_name);
    }
}

#[test]
fn keys_without_a_name_of_their_own() {
    let hash = |digit: &str| format!("{}{}", &HASH[..16], digit.repeat(48));
    let documents = [
        caller("1", None, &hash("a")),
        caller("2", None, &hash("b")),
        caller("3", Some("same"), &"c".repeat(64)),
        caller("4", Some("same"), &"d".repeat(64)),
        caller("5", Some("own"), &"e".repeat(64)),
    ];
    let export = hidden(&documents);
    assert_eq!(
        export.warnings,
        ["several api_keys are called \"same\": they are named after their `key_hash`"]
    );
    assert_eq!(export.problems, [""; 0]);
    let names: Vec<_> =
        export.yaml.lines().filter_map(|line| line.strip_prefix("  - display_name: ")).collect();
    let first = format!("apikey-{}", &HASH[..16]);
    let (c, d) = (format!("apikey-{}", "c".repeat(16)), format!("apikey-{}", "d".repeat(16)));
    assert_eq!(names, [&*first, &format!("{first}-2"), &c, &d, "own"]);
}

#[test]
fn what_cannot_load_is_told() {
    let model = |id: &str, key: &str| {
        let value = json!({"display_name": "m", "provider": "p", "model_name": "u", "provider_key_id": key});
        document("models", id, value)
    };
    let export = hidden(&[model("1", "gone"), model("2", "id of k"), key("k", "x")]);
    assert_eq!(
        export.warnings,
        ["models \"m\": `provider_key_id` refers to the provider key \"gone\", which is not there"]
    );
    assert_eq!(export.problems.len(), 2, "{:?}", export.problems);
    assert!(
        export.problems[0].starts_with("models[0] (\"m\") at line 17: `provider_key_id` references unknown"),
        "{:?}",
        export.problems
    );
    assert!(export.problems[1].contains("duplicate models entry"), "{:?}", export.problems);
    let kind = kind_of("models").unwrap();
    let mut odd = model("1", "id of k");
    odd.value["allowed_cidrs"] = json!(["nowhere"]);
    assert_eq!(odd.kind, kind);
    let export = hidden(&[odd, key("k", "x")]);
    assert!(export.problems[0].contains("`/allowed_cidrs/0`: invalid CIDR/IP"), "{:?}", export.problems);
}

#[test]
fn references_of_every_sort_become_names() {
    let route = json!({
        "name": "r", "path_prefix": "/x", "target_url": "https://a.example", "auth_mode": "anonymous",
        "anonymous_key_id": "c", "source_cidrs": ["10.0.0.0/8"], "provider_key_id": "id of k",
    });
    let limits = json!({"name": "l", "limits": {"rpm": 1}, "conditions": [
        {"dimension": "api_key", "operator": "in", "value": ["c"]},
        {"logic": "or", "children": [{"dimension": "model", "operator": "==", "value": "m"}]},
    ]});
    let mapping = json!({
        "name": "cm", "jwt_provider": "o", "match": [{"claim": "g", "op": "exact", "values": ["x"]}],
        "resolve": {"api_key_id": "c"},
    });
    let anonymous =
        json!({"anonymous": {"api_key_id": "c", "source_cidrs": ["10.0.0.0/8"], "servers": ["s"]}});
    let guardrail = json!({"name": "g", "kind": "keyword", "patterns": [{"kind": "literal", "value": "x"}]});
    let documents = [
        key("k", "x"),
        caller("c", Some("team"), HASH),
        document(
            "models",
            "m",
            json!({"display_name": "fast", "provider": "p", "model_name": "u", "provider_key_id": "id of k"}),
        ),
        document("guardrails", "g1", guardrail),
        document(
            "guardrail_attachments",
            "a1",
            json!({"guardrail_id": "g1", "scope_type": "model", "scope_id": "m", "priority": 1}),
        ),
        document(
            "guardrail_attachments",
            "a2",
            json!({"guardrail_id": "g1", "scope_type": "team", "scope_id": "m", "priority": 1}),
        ),
        document("mcp_policies", "p", json!({"scope": "env", "allow": ["*"]})),
        document(
            "oidc_providers",
            "o1",
            json!({"name": "o", "issuer": "https://i.example", "audiences": ["a"]}),
        ),
        document("claim_mappings", "cm", mapping),
        document("cache_policies", "cp", json!({"name": "cp", "applies_to": "api_key:c"})),
        document("rate_limit_policies", "l", limits),
        document(
            "rate_limit_policies",
            "l2",
            json!({"name": "l2", "scope": "model", "scope_ref": "m", "window": "hour", "max_requests": 5}),
        ),
        document("passthrough_routes", "r", route),
        document("mcp_auth_settings", "s", anonymous),
    ];
    let written = write(&documents, ExportOptions::default());
    assert_eq!((&written.0.problems, &written.0.warnings), (&vec![], &vec![]), "{}", written.0.yaml);
    for line in [
        "    provider_key: k",
        "    anonymous_key: team",
        "  - guardrail: g",
        "    scope: fast",
        "    scope_id: m",
        "      api_key: team",
        "    applies_to: api_key:team",
        "    scope_ref: fast",
        "          - team",
        "            value: fast",
    ] {
        assert!(written.0.yaml.lines().any(|known| known == line), "{line}\n{}", written.0.yaml);
    }
    let again = loaded(&written);
    assert_eq!(said(&again.documents), said(&documents));
    let team = derived_id("api_keys", "team");
    let policy = again.documents.iter().find(|document| document.kind.name == "cache_policies");
    assert_eq!(policy.unwrap().value["applies_to"], format!("api_key:{team}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_file_says_what_the_store_says(documents in world(), reveal: bool) {
        let options = ExportOptions { reveal_secrets: reveal };
        let written = write(&documents, options);
        prop_assert_eq!(&written.0.problems, &Vec::<String>::new(), "{}", written.0.yaml);
        let again = loaded(&written);
        prop_assert_eq!(again.count, documents.len());
        prop_assert_eq!(said(&again.documents), said(&documents));
        let masked = |document: &Document| Document {
            value: document.kind.masked(&document.value), ..document.clone()
        };
        let masked: Vec<_> = documents.iter().map(masked).collect();
        prop_assert_eq!(said(&seen(&again)), said(&masked));
        // The file depends on nothing but what is said.
        let mut shuffled = again.documents.clone();
        shuffled.reverse();
        prop_assert_eq!(write(&shuffled, options).0.yaml, written.0.yaml);
    }
}
