//! Caller keys.

use std::time::SystemTime;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::model::RATE_LIMIT;
use crate::schema::{Fields, Format, Kind, List, Map, NAMES, Off, TEXTS, def, opt, parse_time, req};

/// A caller key. The plaintext is never stored.
#[derive(Clone, Debug, Deserialize)]
pub struct ApiKey {
    /// The label; in a resources file every key has one.
    pub display_name: Option<String>,
    /// SHA-256 of the plaintext, 64 lower-case hexadecimal digits.
    pub key_hash: String,
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

pub(crate) const TABLE: Fields = &[
    opt("display_name", Kind::NAME, "Unique label. Required in a resources file."),
    req(
        "key_hash",
        Kind::text(1, Format::KeyHash),
        "SHA-256 of the key in lower-case hex. In a resources file `key_env: <VARIABLE>` computes it from the environment instead.",
    ),
    req(
        "allowed_models",
        Kind::List(&List::of(Kind::text(0, Format::Pattern))),
        "Models the caller may use: names or patterns with one `*`; `[]` = none.",
    ),
    opt("rate_limit", Kind::Object(RATE_LIMIT), "Limits.").later(Off::Hollow),
    opt("team_id", Kind::NAME, "Team, for telemetry."),
    opt("user_id", Kind::NAME, "User, for telemetry."),
    opt("user_name", Kind::TEXT, "Name of the user, for telemetry."),
    opt("jwt_subject", Kind::NAME, "JWT binding.").later(Off::Never),
    opt("jwt_provider", Kind::NAME, "JWT binding.").later(Off::Never),
    opt("mcp_access", Kind::Object(MCP_ACCESS), "MCP tools.").later(Off::Hollow),
    opt(
        "mcp_rate_limits",
        Kind::Map(&Map { key: Format::Any, value: Kind::Object(MCP_LIMIT), secret: false }),
        "Limits per MCP server.",
    )
    .later(Off::Hollow),
    opt("allowed_agents", TEXTS, "A2A agents.").later(Off::Hollow),
    opt("allowed_routes", TEXTS, "Passthrough routes.").later(Off::Hollow),
    opt("expires_at", Kind::text(0, Format::DateTime), "The key is refused after this moment."),
    def("disabled", Kind::Bool, "false", "true = the key is refused."),
];

const MCP_ACCESS: Fields =
    &[req("allow", NAMES, "Patterns of allowed tools."), opt("deny", NAMES, "Patterns of refused tools.")];

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
