//! The numbers of the `aisix_config_*` series.

use std::collections::BTreeMap;

/// The numbers of the `aisix_config_*` series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMetrics {
    /// Whether the last load was applied whole.
    pub last_reload_successful: bool,
    /// When one was last applied whole, in seconds since 1970.
    pub last_reload_success_timestamp_seconds: Option<u64>,
    /// Loads, with the first and the failed ones.
    pub reloads: u64,
    /// Failed loads by reason: `fetch`, `parse`, `validate`.
    pub reload_failures: BTreeMap<&'static str, u64>,
    /// Refused resources by kind (`""` = those of no kind).
    pub rejected_resources: BTreeMap<&'static str, u64>,
    /// Resources with passed-over fields by kind.
    pub partially_compatible_resources: BTreeMap<&'static str, u64>,
    /// Resources served from an older value by kind.
    pub stale_served_resources: BTreeMap<&'static str, u64>,
    /// Whether the store is reached, its revision, and the one in force;
    /// `None` for a file.
    pub followed: Option<(bool, u64, u64)>,
    /// The hash of what is in force, once something is.
    pub config_hash: Option<String>,
    /// The hash of what was in force before.
    pub previous_config_hash: Option<String>,
}
