//! Guardrails: checks of what callers send and get.

mod kinds;

use serde_json::Value;

use super::rule::{Review, repeated};
use super::{Identity, ResourceKind};
use crate::schema::{Fault, Fields, Format, Kind, Path, Problem, Seg, Union, def, opt, req};
use crate::tree::Node;

pub(crate) static KIND: ResourceKind = ResourceKind {
    rules,
    schema: SCHEMA,
    ..ResourceKind::new(
        "guardrails",
        "guardrail",
        "Checks of what callers send and get. Without attachments one applies to everything.",
        Kind::Union(&SHAPE),
        Identity::Field("name"),
    )
};

static SHAPE: Union = Union { tag: "kind", doc: "What checks.", common: COMMON, variants: kinds::VARIANTS };

const COMMON: Fields = &[
    req("name", Kind::LABEL, "Unique name; callers see it when they are blocked."),
    def("enabled", Kind::Bool, "true", "false = it never runs."),
    def("hook_point", Kind::Enum(&["input", "output", "both"]), r#""both""#, "Which side it looks at."),
    def(
        "fail_open",
        Kind::Bool,
        "true",
        "Whether requests pass when a remote check of the input cannot answer.",
    ),
    def(
        "enforcement_mode",
        Kind::text(0, Format::Words(&["block", "monitor"])),
        r#""block""#,
        "`monitor` only tells what would have happened.",
    ),
    def("mandatory", Kind::Bool, "false", "A remote check that cannot answer blocks, whatever else is set."),
    def(
        "direction",
        Kind::text(0, Format::Words(&["input", "output", "both"])),
        r#""both""#,
        "Informational; `hook_point` decides.",
    ),
    opt(
        "created_at",
        Kind::text(0, Format::DateTime),
        "Order of guardrails that are not attached, oldest first.",
    ),
];

const SCHEMA: &str = r#"[{
    "if": {"required": ["kind"], "properties": {"kind": {"const": "semantic"}}},
    "then": {"properties": {"fail_open": {"const": true}}}
}]"#;

fn rules(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
    let mut review = Review::new(node, problems);
    let items = |field: &str| document[field].as_array().map(Vec::as_slice).unwrap_or_default();
    match document["kind"].as_str() {
        Some("pii") => {
            for (index, pattern) in items("custom_patterns").iter().enumerate() {
                let action = pattern["action"].as_str().or(document["default_action"].as_str());
                if action == Some("block") && pattern.get("replacement").is_some() {
                    let path = at("custom_patterns", index, "replacement");
                    review.add(path, Fault::Advice("has no effect with the action `block`".into()));
                }
            }
        }
        Some("openai_moderation") => {
            let share = |limit: f64| (0.0..=1.0).contains(&limit);
            limits(&mut review, &document["category_thresholds"], "category_thresholds", share, "0 to 1");
        }
        Some("azure_content_safety_text_moderation") => {
            let field = "severity_threshold_by_category";
            limits(&mut review, &document[field], field, |limit| limit <= 7.0, "0 to 7");
        }
        Some("semantic") => {
            if document["fail_open"] == false {
                review.refuse("fail_open", "can only be true with `kind: semantic`");
            }
            let names = items("categories").iter().filter_map(|category| category["name"].as_str());
            for index in repeated(names) {
                let why = "is the name of an earlier category too";
                review.add(at("categories", index, "name"), Fault::Advice(why.into()));
            }
        }
        _ => {}
    }
    let size = |field: &str| document[field].as_u64();
    if let (Some(size), Some(overlap)) = (size("window_size"), size("window_overlap_size"))
        && overlap >= size
    {
        let field = if review.has("window_overlap_size") { "window_overlap_size" } else { "window_size" };
        review.advise(field, "`window_overlap_size` must be smaller than `window_size`");
    }
}

fn at(list: &str, index: usize, field: &str) -> Path {
    Path::of(list).with(Seg::Index(index)).with(Seg::Key(field.into()))
}

/// Thresholds by category that nothing could reach.
fn limits(review: &mut Review<'_>, map: &Value, field: &str, holds: fn(f64) -> bool, range: &str) {
    for (category, limit) in map.as_object().into_iter().flatten() {
        if limit.as_f64().is_some_and(|limit| !holds(limit)) {
            let path = Path::of(field).with(Seg::Key(category.clone()));
            review.add(path, Fault::Advice(format!("value is not in the range {range}")));
        }
    }
}
