//! Random resources for property tests, made from the field tables.

mod samples;
mod world;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use crate::resource::ResourceKind;
use crate::schema::{Fields, Format, Kind, Mode, Need};
use crate::tree::Node;

pub(crate) use world::world;

/// How deep tables are followed into optional fields.
const DEPTH: usize = 5;

/// Valid documents of a kind in canonical form. Their references may lead
/// nowhere; see [`world`].
pub(crate) fn arbitrary(kind: &'static ResourceKind) -> BoxedStrategy<Value> {
    let grown = |common: Fields, own: Fields, tag: Map<String, Value>| {
        let bases = match samples::forms(kind.name) {
            forms if forms.is_empty() => object(&[common, own], 0, true),
            forms => select(forms).boxed(),
        };
        (bases, object(&[common, own], 0, false)).prop_map(move |(base, more)| {
            let mut document = tag.clone();
            document.extend(as_members(base));
            grow(kind, document, as_members(more))
        })
    };
    let documents = match &kind.shape {
        Kind::Union(union) => {
            let variants = union.variants.iter().map(|(name, own)| {
                let tag = Map::from_iter([(union.tag.to_owned(), json!(name))]);
                grown(union.common, own, tag).boxed()
            });
            proptest::strategy::Union::new(variants).boxed()
        }
        Kind::Forms(forms) => {
            let forms = forms.forms.iter().map(|(_, own)| grown(forms.common, own, Map::new()).boxed());
            proptest::strategy::Union::new(forms).boxed()
        }
        Kind::Object(fields) => grown(fields, &[], Map::new()).boxed(),
        _ => panic!("{} is no object", kind.name),
    };
    documents.prop_filter_map("the rules of the kind", |document| document).boxed()
}

fn as_members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Adds whatever fits; gives the canonical document.
fn grow(kind: &ResourceKind, mut document: Map<String, Value>, more: Map<String, Value>) -> Option<Value> {
    for (name, value) in more {
        let before = document.clone();
        document.insert(name, value);
        if canonical(kind, &Value::Object(document.clone())).is_none() {
            document = before;
        }
    }
    canonical(kind, &Value::Object(document))
}

/// The canonical form of a document that is in order.
pub(crate) fn canonical(kind: &ResourceKind, document: &Value) -> Option<Value> {
    let checked = kind.check(&Node::of_json(document.clone()), Mode::Strict);
    checked.problems.is_empty().then_some(checked.document)
}

/// An object; only with what it must have, or with any of its fields.
fn object(tables: &[Fields], depth: usize, bare: bool) -> BoxedStrategy<Value> {
    let fields = tables.iter().copied().flatten().filter_map(|field| {
        let required = matches!(field.need, Need::Required | Need::Written(_));
        if matches!(field.need, Need::Gone) || !required && (bare || depth >= DEPTH) {
            return None;
        }
        let value = value(&field.kind, depth + 1).prop_map(|value| (field.name.to_owned(), value));
        Some(if required { value.prop_map(Some).boxed() } else { prop::option::weighted(0.4, value).boxed() })
    });
    let fields: Vec<_> = fields.collect();
    fields.prop_map(|fields| Value::Object(fields.into_iter().flatten().collect())).boxed()
}

fn value(kind: &'static Kind, depth: usize) -> BoxedStrategy<Value> {
    match kind {
        Kind::Bool => any::<bool>().prop_map(Value::from).boxed(),
        Kind::Int { min, max } => {
            let (min, max) = (*min, *max);
            prop_oneof![min..=max.min(min.saturating_add(9)), min..=max].prop_map(Value::from).boxed()
        }
        Kind::Signed { min, max } => (*min..=*max).prop_map(Value::from).boxed(),
        Kind::Number { min, max } => {
            let (min, max) = (min.max(-1e9), max.min(1e9));
            let any = (min..=max).prop_map(Value::from);
            prop_oneof![Just(json!(min)), Just(json!(max as i64)), any].boxed()
        }
        Kind::Text { min, max, format } => text(*format, *min, *max).prop_map(Value::from).boxed(),
        Kind::Secret => text(Format::Any, 1, usize::MAX).prop_map(Value::from).boxed(),
        Kind::Enum(names) => select(*names).prop_map(Value::from).boxed(),
        Kind::List(list) => {
            let most = if depth >= DEPTH { list.min } else { list.max.min(list.min + 3) };
            prop::collection::vec(value(&list.item, depth + 1), list.min..=most).prop_map(Value::from).boxed()
        }
        Kind::Map(map) => {
            let keys = text(map.key, 0, usize::MAX);
            prop::collection::vec((keys, value(&map.value, depth + 1)), 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect()))
                .boxed()
        }
        Kind::Object(fields) => object(&[fields], depth, false),
        Kind::Union(union) => {
            let variants = union.variants.iter().map(|(name, own)| {
                object(&[union.common, own], depth, false).prop_map(move |mut value| {
                    value[union.tag] = json!(name);
                    value
                })
            });
            proptest::strategy::Union::new(variants).boxed()
        }
        Kind::Forms(forms) => {
            // The first form may well hold no further one.
            let few = if depth >= DEPTH { 1 } else { forms.forms.len() };
            let forms = forms.forms[..few].iter().map(|(_, own)| object(&[forms.common, own], depth, false));
            proptest::strategy::Union::new(forms).boxed()
        }
        Kind::Either(kinds) => {
            proptest::strategy::Union::new(kinds.iter().map(|kind| value(kind, depth))).boxed()
        }
        Kind::Anything { .. } => json_object().boxed(),
    }
}

/// Text of a format: hostile if the format lets it pass.
pub(crate) fn text(format: Format, min: usize, max: usize) -> BoxedStrategy<String> {
    if format == Format::KeyHash {
        return "[0-9a-f]{64}".boxed();
    }
    let fits = move |text: &String| (min..=max).contains(&text.chars().count()) && format.check(text).is_ok();
    let mut known = samples::well_formed();
    if let Format::Words(words) = format {
        known.extend(words.iter().map(|word| (*word).to_owned()));
    }
    known.retain(fits);
    assert!(!known.is_empty(), "no sample of {format:?}");
    let known = select(known);
    (hostile(), known).prop_map(move |(hostile, known)| if fits(&hostile) { hostile } else { known }).boxed()
}

/// Text that breaks careless readers and writers.
pub(crate) fn hostile() -> BoxedStrategy<String> {
    prop_oneof![
        4 => select(samples::hostile()),
        2 => "[a-zA-Z0-9_./-]{1,12}",
        2 => "[ -~]{0,24}",
        1 => "(?s).{0,12}",
        1 => "[#:${}\\[\\]'\"\\\\ \n\t-]{0,12}",
    ]
    .boxed()
}

/// Any JSON value with hostile texts.
pub(crate) fn json() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        hostile().prop_map(Value::from),
    ];
    let nested = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((hostile(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    nested.boxed()
}

fn json_object() -> impl Strategy<Value = Value> {
    prop::collection::vec((hostile(), json()), 0..4)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}
