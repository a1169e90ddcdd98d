//! Which MCP tools everybody, or a team, may use.

use serde_json::Value;

use super::rule::Review;
use super::{Identity, ResourceKind};
use crate::schema::{Fields, Format, Kind, List, Nulls, Problem, def, opt, req, written};
use crate::tree::Node;

pub(crate) static KIND: ResourceKind = ResourceKind {
    nulls: Nulls::Optional,
    rules,
    schema: SCHEMA,
    ..ResourceKind::new(
        "mcp_policies",
        "MCP policy",
        "Which MCP tools everybody, or a team, may use; keys narrow it further.",
        Kind::Object(TABLE),
        Identity::Made(|document| match document["scope_ref"].as_str() {
            Some(team) => format!("team/{team}"),
            None => document["scope"].as_str().unwrap_or_default().to_owned(),
        }),
    )
};

/// Patterns over `<server>__<tool>`.
const TOOLS: Kind = Kind::List(&List::of(Kind::text(0, Format::Pattern)));

const TABLE: Fields = &[
    req("scope", Kind::Enum(&["env", "team"]), "Whom it is for; `env` is everybody."),
    opt("scope_ref", Kind::NAME, "The team; required for `team`."),
    written("allow", TOOLS, "[]", "Patterns with one `*` over `<server>__<tool>`; `[]` allows nothing."),
    def("deny", TOOLS, "[]", "Patterns that win over every permission."),
    def("enabled", Kind::Bool, "true", "false = as if it were not there."),
];

const SCHEMA: &str = r#"[{
    "if": {"properties": {"scope": {"const": "team"}}},
    "then": {"required": ["scope_ref"], "properties": {"scope_ref": {"type": "string"}}},
    "else": {"properties": {"scope_ref": {"type": "null"}}}
}]"#;

fn rules(node: &Node, _: &Value, problems: &mut Vec<Problem>) {
    let mut review = Review::new(node, problems);
    match review.text("scope") {
        Some("team") => review.require("scope_ref"),
        Some("env") => review.idle("scope_ref", "has no effect with `scope: env`"),
        _ => {}
    }
}
