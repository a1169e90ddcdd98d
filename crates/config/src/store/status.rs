//! What operators are told about the configuration.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::file::ErrorKind;

/// The JSON of `/status/config`.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigStatus {
    /// `never_loaded`, `out_of_sync`, `degraded`, `empty` or `synced`.
    pub state: &'static str,
    pub(super) source: SourceStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) applied: Option<Applied>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_reload: Option<LastReload>,
    pub(super) last_failure: Option<Failure>,
    pub(super) rejected: Vec<Rejected>,
    pub(super) partially_compatible: Vec<FieldCount>,
    pub(super) not_enforced: Vec<NotEnforced>,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) dangling: Vec<Dangling>,
    /// Models that stand for each other: the names on the way around.
    pub(super) cycles: Vec<Vec<String>>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct SourceStatus {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connected: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observed_revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observed_at: Option<String>,
    /// When the source was last known to hold nothing newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confirmed_at: Option<String>,
    /// Set while what is served comes from the cache file of an earlier run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) from_cache: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Applied {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) applied_revision: Option<u64>,
    pub(super) config_hash: String,
    pub(super) apply_seq: u64,
    pub(super) applied_at: String,
    pub(super) resource_counts: BTreeMap<&'static str, usize>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct LastReload {
    pub(super) successful: bool,
    pub(super) at: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Failure {
    pub(super) at: String,
    pub(super) last_error_kind: ErrorKind,
    pub(super) last_error: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Rejected {
    pub(super) resource_kind: String,
    pub(super) resource_id: String,
    pub(super) last_error_kind: ErrorKind,
    pub(super) last_error: String,
    pub(super) first_seen_at: String,
    pub(super) last_seen_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serving_stale_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serving_stale_age_seconds: Option<u64>,
}

/// A field of served resources that is passed over.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(super) struct FieldCount {
    pub(super) resource_kind: &'static str,
    pub(super) field: String,
    pub(super) count: usize,
}

/// A kind, or a field of one, that is accepted and checked, and that nothing
/// acts on yet.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(super) struct NotEnforced {
    pub(super) resource_kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<&'static str>,
    pub(super) count: usize,
}

/// Resources that share what only one can have.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) resource_kind: &'static str,
    pub(super) field: &'static str,
    pub(super) value: String,
    /// The one that is reached by it.
    pub(super) serving: String,
    pub(super) shadowed: Vec<String>,
}

/// A reference to what is not there.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(super) struct Dangling {
    pub(super) resource_kind: &'static str,
    pub(super) resource_id: String,
    pub(super) field: String,
    pub(super) target_kind: &'static str,
    pub(super) target: String,
}

/// RFC 3339 in UTC, whole seconds.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let seconds = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_secs().try_into().unwrap_or(i64::MAX));
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// The longest text of somebody else that is told whole, in characters.
const MAX_TOLD: usize = 256;

/// A text that may be of any length, as it is told.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TOLD) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
