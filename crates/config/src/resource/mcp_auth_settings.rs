//! How the MCP gateway tells who calls.

use serde_json::Value;

use super::rule::Review;
use super::{Identity, Ref, ResourceKind};
use crate::schema::{Fields, Format, Kind, List, Problem, def, opt, req};
use crate::tree::Node;

pub(crate) static KIND: ResourceKind = ResourceKind {
    refs: &[
        Ref::id("anonymous.api_key_id", "api_keys", "api_key").unchecked(),
        Ref::name("anonymous.servers[]", "mcp_servers").unchecked(),
    ],
    rules,
    ..ResourceKind::new(
        "mcp_auth_settings",
        "MCP access settings",
        "How the MCP gateway tells who calls. There is at most one.",
        Kind::Object(TABLE),
        Identity::Singleton,
    )
};

const TABLE: Fields = &[
    opt("resource_url", Kind::text(1, Format::FullUrl), "Public URL of `/mcp`, for OAuth discovery."),
    opt("anonymous", Kind::Object(ANONYMOUS), "Calls without any credential."),
];

const ANONYMOUS: Fields = &[
    req(
        "api_key_id",
        Kind::NAME,
        "Id of the key that they count as. In a resources file write `api_key: <display_name>` instead.",
    ),
    req(
        "source_cidrs",
        Kind::List(&List::at_least(Kind::text(0, Format::Net), 1)),
        "Networks that they must come from.",
    ),
    req("servers", Kind::List(&List::at_least(Kind::FILLED, 1)), "MCP servers that they may use at most."),
    def("enabled", Kind::Bool, "true", "false = a credential is always asked for."),
    def("aggregate_entry", Kind::Bool, "false", "Whether `/mcp` is open, besides `/mcp/<server>`."),
];

fn rules(node: &Node, _: &Value, problems: &mut Vec<Problem>) {
    let mut review = Review::new(node, problems);
    if let Some(url) = review.text("resource_url")
        && let Some((_, rest)) = url.split_once("://")
        && rest.find('/').is_none_or(|slash| &rest[slash..] != "/mcp")
    {
        review.advise("resource_url", "must have the path `/mcp` and nothing after it");
    }
}
