//! Where a guardrail applies.

use serde_json::Value;

use super::rule::Review;
use super::{By, Identity, Ref, ResourceKind, Site};
use crate::schema::{Fields, Kind, Nulls, Problem, def, opt, req};
use crate::tree::Node;

pub(crate) static KIND: ResourceKind = ResourceKind {
    nulls: Nulls::Optional,
    refs: &[Ref::id("guardrail_id", "guardrails", "guardrail")],
    more_refs,
    sugar: &[("scope", "scope_id")],
    rules,
    schema: SCHEMA,
    ..ResourceKind::new(
        "guardrail_attachments",
        "guardrail attachment",
        "Where guardrails apply. A guardrail without any attachment applies everywhere.",
        Kind::Object(TABLE),
        Identity::Made(|document| {
            let part = |field: &str| document[field].as_str().unwrap_or_default();
            [part("guardrail_id"), part("scope_type"), part("scope_id")].join("/")
        }),
    )
};

const TABLE: Fields = &[
    req(
        "guardrail_id",
        Kind::NAME,
        "Id of the guardrail. In a resources file write `guardrail: <name>` instead.",
    ),
    req(
        "scope_type",
        Kind::Enum(&["env", "model", "mcp_server", "api_key", "team", "passthrough_route"]),
        "What it is attached to; `env` is everything.",
    ),
    opt(
        "scope_id",
        Kind::TEXT,
        "Id of what it is attached to; absent for `env`. In a resources file write `scope: <name>` instead, except for `team`.",
    ),
    req("priority", Kind::I32, "Higher runs earlier."),
    def(
        "enabled",
        Kind::Bool,
        "true",
        "false = as if it were not there, but the guardrail counts as attached.",
    ),
    opt("env_id", Kind::TEXT, "Accepted without effect."),
];

const SCHEMA: &str = r#"[{
    "if": {"properties": {"scope_type": {"const": "env"}}},
    "then": {"properties": {"scope_id": {"type": "null"}}},
    "else": {"required": ["scope_id"], "properties": {"scope_id": {"type": "string", "minLength": 1}}}
}]"#;

fn rules(node: &Node, _: &Value, problems: &mut Vec<Problem>) {
    let mut review = Review::new(node, problems);
    match review.text("scope_type") {
        Some("env") if review.has("scope_id") => {
            review.advise("scope_id", "has no effect with `scope_type: env`");
        }
        None | Some("env") => {}
        Some(_) if review.text("scope_id").is_none_or(str::is_empty) => {
            let ways = "is required unless `scope_type` is `env`: it would match nothing";
            review.advise("scope_id", ways);
        }
        Some(_) => {}
    }
}

fn more_refs(document: &mut Value, visit: &mut dyn FnMut(Site<'_>)) {
    let kind = match document["scope_type"].as_str() {
        Some("model") => "models",
        Some("api_key") => "api_keys",
        Some("mcp_server") => "mcp_servers",
        Some("passthrough_route") => "passthrough_routes",
        _ => return,
    };
    if let Some(Value::String(target)) = document.get_mut("scope_id") {
        visit(Site { path: "scope_id".into(), kind, by: By::Id, checked: true, target });
    }
}
