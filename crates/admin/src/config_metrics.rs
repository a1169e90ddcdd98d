//! The `aisix_config_*` families of the scrape. Those of watched sources do
//! not exist with a resources file.

use std::collections::BTreeMap;

use aisix_config::ConfigMetrics;
use aisix_telemetry::metrics::{Exposition, Kind, names};

/// Appends the families to an exposition.
pub(crate) fn append(text: &mut String, metrics: &ConfigMetrics) {
    let mut out = Exposition::append_to(text);
    let mut number = |name, kind, value: u64| {
        out.family(name, kind);
        out.sample(name, &[], value);
    };
    number(names::CONFIG_LAST_RELOAD_SUCCESSFUL, Kind::Gauge, metrics.last_reload_successful.into());
    if let Some(at) = metrics.last_reload_success_timestamp_seconds {
        number(names::CONFIG_LAST_RELOAD_TIMESTAMP, Kind::Gauge, at);
    }
    number(names::CONFIG_RELOADS, Kind::Counter, metrics.reloads);
    if let Some((connected, observed, applied)) = metrics.followed {
        number(names::CONFIG_SOURCE_CONNECTED, Kind::Gauge, connected.into());
        number(names::CONFIG_OBSERVED_REVISION, Kind::Gauge, observed);
        number(names::CONFIG_APPLIED_REVISION, Kind::Gauge, applied);
    }
    for (name, kind, label, series) in [
        (names::CONFIG_RELOAD_FAILURES, Kind::Counter, "reason", &metrics.reload_failures),
        (names::CONFIG_REJECTED, Kind::Gauge, "kind", &metrics.rejected_resources),
        (names::CONFIG_PARTIALLY_COMPATIBLE, Kind::Gauge, "kind", &metrics.partially_compatible_resources),
        (names::CONFIG_STALE_SERVED, Kind::Gauge, "kind", &metrics.stale_served_resources),
    ] {
        by_label(&mut out, (name, kind, label), series);
    }
    let hashes = [(&metrics.config_hash, 1_u64), (&metrics.previous_config_hash, 0)];
    for (at, (hash, value)) in hashes.into_iter().enumerate() {
        let Some(hash) = hash else { continue };
        if at == 0 || metrics.config_hash.is_none() {
            out.family(names::CONFIG_HASH, Kind::Gauge);
        }
        out.sample(names::CONFIG_HASH, &[("hash", hash)], value);
    }
}

/// A family with one label. It begins with its first series, and a counter
/// begins when it first counts.
fn by_label(
    out: &mut Exposition<'_>,
    (name, kind, label): (&str, Kind, &str),
    series: &BTreeMap<&'static str, u64>,
) {
    let mut begun = false;
    for (value, count) in series {
        if kind == Kind::Counter && *count == 0 {
            continue;
        }
        if !begun {
            out.family(name, kind);
            begun = true;
        }
        out.sample(name, &[(label, value)], *count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_after_a_refused_reload() {
        let metrics = ConfigMetrics {
            last_reload_successful: false,
            last_reload_success_timestamp_seconds: Some(1_700_000_000),
            reloads: 3,
            reload_failures: [("fetch", 0), ("parse", 0), ("validate", 1)].into(),
            rejected_resources: [("api_keys", 0), ("models", 2)].into(),
            partially_compatible_resources: BTreeMap::new(),
            stale_served_resources: BTreeMap::new(),
            followed: None,
            config_hash: Some("b".repeat(64)),
            previous_config_hash: Some("a".repeat(64)),
        };
        let mut text = String::from("up 1\n");
        append(&mut text, &metrics);
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let expected = [
            "up 1",
            "# TYPE aisix_config_last_reload_successful gauge",
            "aisix_config_last_reload_successful 0",
            "# TYPE aisix_config_last_reload_success_timestamp_seconds gauge",
            "aisix_config_last_reload_success_timestamp_seconds 1700000000",
            "# TYPE aisix_config_reloads_total counter",
            "aisix_config_reloads_total 3",
            "# TYPE aisix_config_reload_failures_total counter",
            "aisix_config_reload_failures_total{reason=\"validate\"} 1",
            "# TYPE aisix_config_rejected_resources gauge",
            "aisix_config_rejected_resources{kind=\"api_keys\"} 0",
            "aisix_config_rejected_resources{kind=\"models\"} 2",
            "# TYPE aisix_config_hash_info gauge",
            &format!("aisix_config_hash_info{{hash=\"{b}\"}} 1"),
            &format!("aisix_config_hash_info{{hash=\"{a}\"}} 0"),
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
    #[test]
    fn families_of_a_followed_store() {
        let metrics = ConfigMetrics {
            last_reload_successful: true,
            last_reload_success_timestamp_seconds: None,
            reloads: 1,
            reload_failures: [("fetch", 0)].into(),
            rejected_resources: [("", 1)].into(),
            partially_compatible_resources: [("models", 2)].into(),
            stale_served_resources: [("models", 0)].into(),
            followed: Some((true, 41, 40)),
            config_hash: None,
            previous_config_hash: None,
        };
        let mut text = String::new();
        append(&mut text, &metrics);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "aisix_config_last_reload_successful 1",
            "aisix_config_reloads_total 1",
            "aisix_config_source_connected 1",
            "aisix_config_observed_revision 41",
            "aisix_config_applied_revision 40",
            "aisix_config_rejected_resources{kind=\"\"} 1",
            "aisix_config_partially_compatible_resources{kind=\"models\"} 2",
            "aisix_config_stale_served_resources{kind=\"models\"} 0",
        ];
        assert_eq!(samples, expected);
        assert_eq!(text.lines().count() - samples.len(), expected.len(), "each family has its type");
    }
}
