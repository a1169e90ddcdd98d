//! Caller keys.

use std::time::SystemTime;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::model::RATE_LIMIT;
use super::rule::Review;
use super::{Identity, Ref, Resource, ResourceKind, rows_of};
use crate::schema::{
    Fields, Format, Kind, List, Map, Nulls, Off, Problem, def, gone, opt, parse_time, req, written,
};
use crate::tree::Node;

/// A caller key. The plaintext is never stored.
#[derive(Clone, Debug, Deserialize)]
pub struct ApiKey {
    /// The label; in a resources file every key has one.
    pub display_name: Option<String>,
    /// SHA-256 of the plaintext, 64 lower-case hexadecimal digits.
    pub key_hash: String,
    /// The first characters of the plaintext, to recognise it by.
    pub key_prefix: Option<String>,
    /// The hash of the key before the last rotation.
    pub previous_key_hash: Option<String>,
    /// The last moment at which the key before is valid; without it, it is not.
    #[serde(default, deserialize_with = "time")]
    pub previous_key_expires_at: Option<SystemTime>,
    /// Names or patterns of models the caller may use; empty = none.
    pub allowed_models: Vec<String>,
    /// The team, for telemetry.
    pub team_id: Option<String>,
    /// The user, for telemetry.
    pub user_id: Option<String>,
    /// The name of the user, for telemetry.
    pub user_name: Option<String>,
    /// The last moment at which the key is valid.
    #[serde(default, deserialize_with = "time")]
    pub expires_at: Option<SystemTime>,
    /// Whether the key is switched off.
    pub disabled: bool,
}

const TABLE: Fields = &[
    opt("display_name", Kind::LABEL, "Unique label. Required in a resources file."),
    req(
        "key_hash",
        Kind::text(1, Format::KeyHash),
        "SHA-256 of the key in lower-case hex. In a resources file `key_env: <VARIABLE>` computes it from the environment instead.",
    ),
    req(
        "allowed_models",
        PATTERNS,
        "Models the caller may use: names or patterns with one `*`; `[]` = none.",
    ),
    opt(
        "key_prefix",
        Kind::Text { min: 1, max: 16, format: Format::Name },
        "First characters of the key, to recognise it by.",
    ),
    opt(
        "previous_key_hash",
        Kind::text(1, Format::KeyHash),
        "Hash of the key before the last rotation, which is accepted for a while.",
    ),
    opt(
        "previous_key_expires_at",
        Kind::text(0, Format::DateTime),
        "The key before is refused after this moment.",
    ),
    opt("rate_limit", Kind::Object(RATE_LIMIT), "Limits.").later(Off::Hollow),
    opt("team_id", Kind::NAME, "Team, for telemetry."),
    opt("user_id", Kind::NAME, "User, for telemetry."),
    opt("user_name", Kind::TEXT, "Name of the user, for telemetry."),
    opt("jwt_subject", Kind::NAME, "JWT binding.").later(Off::Never),
    opt("jwt_provider", Kind::NAME, "JWT binding.").later(Off::Never),
    opt("mcp_access", Kind::Object(MCP_ACCESS), "MCP tools.").later(Off::Hollow),
    opt("mcp_rate_limits", Kind::Map(&Map::to(Kind::Object(MCP_LIMIT))), "Limits per MCP server.")
        .later(Off::Hollow),
    opt("allowed_agents", PATTERNS, "A2A agents that the caller may use: names or patterns; absent = none.")
        .later(Off::Hollow),
    opt(
        "allowed_routes",
        PATTERNS,
        "Passthrough routes that the caller may use: names or patterns; absent = none.",
    )
    .later(Off::Hollow),
    opt("expires_at", Kind::text(0, Format::DateTime), "The key is refused after this moment."),
    def("disabled", Kind::Bool, "false", "true = the key is refused."),
];

pub(crate) static KIND: ResourceKind = ResourceKind {
    nulls: Nulls::Optional,
    unique: &["key_hash"],
    refs: &[
        Ref::pattern("allowed_models[]", "models"),
        Ref::pattern("allowed_routes[]", "passthrough_routes"),
        Ref::pattern("allowed_agents[]", "a2a_agents").unchecked(),
        Ref::name("jwt_provider", "oidc_providers").unchecked(),
    ],
    exclusive,
    rules,
    schema: SCHEMA,
    enforced: true,
    new_rows: rows_of::<ApiKey>,
    ..ResourceKind::new(
        "api_keys",
        "caller key",
        "Keys of callers.",
        Kind::Object(TABLE),
        Identity::Field("display_name"),
    )
};

impl Resource for ApiKey {
    const KIND: &'static ResourceKind = &KIND;
}

const PATTERNS: Kind = Kind::List(&List::of(Kind::text(0, Format::Pattern)));

const MCP_ACCESS: Fields = &[
    written("allow", PATTERNS, "[]", "Patterns with one `*` over `<server>__<tool>`; `[]` allows nothing."),
    opt("deny", PATTERNS, "Patterns that win over every permission."),
    gone("mode"),
];

const SCHEMA: &str = r#"[
    {
        "if": {"required": ["jwt_subject"], "properties": {"jwt_subject": {"type": "string"}}},
        "then": {"required": ["jwt_provider"], "properties": {"jwt_provider": {"type": "string"}}}
    },
    {
        "if": {"required": ["previous_key_hash"], "properties": {"previous_key_hash": {"type": "string"}}},
        "then": {"required": ["previous_key_expires_at"], "properties": {"previous_key_expires_at": {"type": "string"}}},
        "else": {"properties": {"previous_key_expires_at": {"type": "null"}}}
    }
]"#;

/// The rules that the table cannot say.
fn rules(node: &Node, _: &Value, problems: &mut Vec<Problem>) {
    let mut review = Review::new(node, problems);
    if review.has("jwt_subject") && !review.has("jwt_provider") {
        review.advise("jwt_subject", "is set without jwt_provider");
    }
    match (review.has("previous_key_hash"), review.has("previous_key_expires_at")) {
        (true, false) => {
            review.advise("previous_key_hash", "has no effect without `previous_key_expires_at`");
        }
        (false, true) => {
            review.advise("previous_key_expires_at", "has no effect without `previous_key_hash`");
        }
        _ => {}
    }
}

/// A token stands for one key.
fn exclusive(document: &Value) -> Vec<(&'static str, String)> {
    match (document["jwt_provider"].as_str(), document["jwt_subject"].as_str()) {
        (Some(provider), Some(subject)) => {
            vec![("duplicate jwt binding", serde_json::json!([provider, subject]).to_string())]
        }
        _ => Vec::new(),
    }
}

const MCP_LIMIT: Fields = &[
    opt("rps", Kind::UINT, "Requests per second."),
    opt("rpm", Kind::UINT, "Requests per minute."),
    opt("rph", Kind::UINT, "Requests per hour."),
    opt("rpd", Kind::UINT, "Requests per day."),
    opt("concurrency", Kind::U32, "Requests at the same time."),
];

fn time<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<SystemTime>, D::Error> {
    match Option::<String>::deserialize(raw)? {
        None => Ok(None),
        Some(text) => match parse_time(&text) {
            Some(time) => Ok(Some(time.into())),
            None => Err(D::Error::custom("invalid time")),
        },
    }
}
