//! Agents of the A2A gateway.

use serde_json::Value;

use super::rule::Review;
use super::{Identity, ResourceKind};
use crate::schema::{Fields, Format, Kind, Nulls, Problem, def, opt, req};
use crate::tree::Node;

pub(crate) static KIND: ResourceKind = ResourceKind {
    nulls: Nulls::Optional,
    rules,
    schema: SCHEMA,
    ..ResourceKind::new(
        "a2a_agents",
        "A2A agent",
        "Agents that callers may talk to.",
        Kind::Object(TABLE),
        Identity::Field("name"),
    )
};

const TABLE: Fields = &[
    req("name", Kind::text(1, Format::Segment), "Unique name; a segment of the path `/a2a/<name>`.")
        .alias("display_name"),
    req("url", Kind::text(1, Format::FullUrl), "The JSON-RPC endpoint."),
    def("protocol_version", Kind::Enum(&["1.0", "0.3"]), r#""1.0""#, "The version it speaks."),
    def(
        "auth_type",
        Kind::Enum(&["none", "bearer", "api_key"]),
        r#""none""#,
        "How the gateway identifies itself.",
    ),
    opt("secret", Kind::text(0, Format::Secret), "Token or key; required unless `auth_type` is `none`."),
    def("timeout_ms", Kind::int(1, u64::MAX), "30000", "Limit for a call.").nullable(),
    def("enabled", Kind::Bool, "true", "false = as if it were not there."),
];

const SCHEMA: &str = r#"[{
    "if": {"required": ["auth_type"], "properties": {"auth_type": {"enum": ["bearer", "api_key"]}}},
    "then": {"required": ["secret"], "properties": {"secret": {"type": "string", "minLength": 1}}},
    "else": {"properties": {"secret": {"maxLength": 0}}}
}]"#;

fn rules(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
    let mut review = Review::new(node, problems);
    review.advise_format(if review.has("name") { "name" } else { "display_name" }, Format::Name);
    match document["auth_type"].as_str() {
        Some("none") => review.idle("secret", "has no effect with `auth_type: none`"),
        Some("bearer" | "api_key") => review.require_text("secret"),
        _ => {}
    }
}
