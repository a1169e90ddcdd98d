//! The numbers of the `aisix_config_*` series.

use std::collections::BTreeMap;

/// The numbers of the `aisix_config_*` series. The series of watched sources
/// (`source_connected`, the revisions) do not exist for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMetrics {
    /// Whether the last load was applied.
    pub last_reload_successful: bool,
    /// When one was last applied, in seconds since 1970.
    pub last_reload_success_timestamp_seconds: u64,
    /// Loads, with the first and the failed ones.
    pub reloads: u64,
    /// Failed loads by reason: `fetch`, `parse`, `validate`.
    pub reload_failures: BTreeMap<&'static str, u64>,
    /// Entries refused by the last load, by collection (`""` = the file).
    pub rejected_resources: BTreeMap<&'static str, u64>,
    /// The hash of what is in force.
    pub config_hash: String,
    /// The hash of what was in force before.
    pub previous_config_hash: Option<String>,
}
