//! Servers of the MCP gateway.

use serde_json::Value;

use super::rule::Review;
use super::{Identity, ResourceKind};
use crate::schema::{Fields, Format, Kind, NAMES, Nulls, Problem, def, opt, req};
use crate::tree::Node;

pub(crate) static KIND: ResourceKind = ResourceKind {
    nulls: Nulls::Optional,
    rules,
    schema: SCHEMA,
    ..ResourceKind::new(
        "mcp_servers",
        "MCP server",
        "Servers whose tools callers may use.",
        Kind::Object(TABLE),
        Identity::Field("name"),
    )
};

const TABLE: Fields = &[
    req("name", Kind::text(1, Format::ServerName), "Unique name; tools are called `<name>__<tool>`.")
        .alias("display_name"),
    def("type", Kind::Enum(&["mcp", "openapi"]), r#""mcp""#, "`openapi` makes tools of a REST interface."),
    req("url", Kind::text(1, Format::FullUrl), "The MCP endpoint, or the root of the REST interface."),
    opt("spec", Kind::Anything { secret: false }, "OpenAPI 3 document; for `type: openapi`."),
    opt(
        "api_key_header",
        Kind::text(0, Format::Token),
        "Header of the key with `type: openapi` and `auth_type: api_key`. Default: `x-api-key`.",
    ),
    def("transport", Kind::Enum(&["streamable_http"]), r#""streamable_http""#, "How it is spoken to."),
    def(
        "auth_type",
        Kind::Enum(&["none", "bearer", "api_key", "oauth2"]),
        r#""none""#,
        "How the gateway identifies itself; `oauth2` is the client-credentials flow.",
    ),
    opt(
        "secret",
        Kind::text(0, Format::Secret),
        "Token, key or client secret; required unless `auth_type` is `none`.",
    ),
    opt("client_id", Kind::TEXT, "Required for `oauth2`."),
    opt("token_url", Kind::text(0, Format::FullUrl), "Required for `oauth2`."),
    opt("scopes", NAMES, "Scopes to ask for; for `oauth2`."),
    opt("protocol_version", Kind::Enum(&["2026-07-28"]), "Absent = agreed on when connecting."),
    def("timeout_ms", Kind::int(1, u64::MAX), "30000", "Limit for an operation.").nullable(),
    def("enabled", Kind::Bool, "true", "false = as if it were not there."),
];

const SCHEMA: &str = r#"[
    {
        "if": {"required": ["type"], "properties": {"type": {"const": "openapi"}}},
        "then": {"required": ["spec"], "properties": {"spec": {"type": "object", "properties": {"swagger": false}}}},
        "else": {"properties": {"spec": {"type": "null"}, "api_key_header": {"type": "null"}}}
    },
    {
        "if": {"required": ["auth_type"], "properties": {"auth_type": {"const": "api_key"}}},
        "then": true,
        "else": {"properties": {"api_key_header": {"type": "null"}}}
    },
    {
        "if": {"required": ["auth_type"], "properties": {"auth_type": {"enum": ["bearer", "api_key", "oauth2"]}}},
        "then": {"required": ["secret"], "properties": {"secret": {"type": "string", "minLength": 1}}},
        "else": {"properties": {"secret": {"maxLength": 0}}}
    },
    {
        "if": {"required": ["auth_type"], "properties": {"auth_type": {"const": "oauth2"}}},
        "then": {"required": ["client_id", "token_url"], "properties": {
            "client_id": {"type": "string", "minLength": 1},
            "token_url": {"type": "string", "minLength": 1}
        }},
        "else": {"properties": {
            "client_id": {"maxLength": 0}, "token_url": {"type": "null"}, "scopes": {"maxItems": 0}
        }}
    }
]"#;

fn rules(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
    let mut review = Review::new(node, problems);
    review.advise_format(if review.has("name") { "name" } else { "display_name" }, Format::Name);
    let auth = document["auth_type"].as_str().unwrap_or_default();
    match document["type"].as_str() {
        Some("openapi") => {
            review.require("spec");
            if review.has("spec.swagger") {
                review.refuse("spec", "is a Swagger 2 document; OpenAPI 3 is expected");
            }
            if review.has("api_key_header") && auth != "api_key" && !auth.is_empty() {
                review.refuse("api_key_header", "requires `auth_type: api_key`");
            }
        }
        Some("mcp") => {
            for field in ["spec", "api_key_header"] {
                if review.has(field) {
                    review.refuse(field, "is for `type: openapi` only");
                }
            }
        }
        _ => {}
    }
    match auth {
        "" => return,
        "none" => review.idle("secret", "has no effect with `auth_type: none`"),
        _ => review.require_text("secret"),
    }
    if auth == "oauth2" {
        review.require_text("client_id");
        review.require_text("token_url");
        return;
    }
    for field in ["client_id", "token_url", "scopes"] {
        review.idle(field, "has an effect with `auth_type: oauth2` only");
    }
}
