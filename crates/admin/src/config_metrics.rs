//! The `aisix_config_*` families of the scrape. Those of watched sources do
//! not exist with a resources file.

use std::collections::BTreeMap;

use aisix_config::ConfigMetrics;
use aisix_telemetry::metrics::{Exposition, Kind, names};

/// Appends the families to an exposition.
pub(crate) fn append(text: &mut String, metrics: &ConfigMetrics) {
    let mut out = Exposition::append_to(text);
    for (name, kind, value) in [
        (names::CONFIG_LAST_RELOAD_SUCCESSFUL, Kind::Gauge, metrics.last_reload_successful.into()),
        (names::CONFIG_LAST_RELOAD_TIMESTAMP, Kind::Gauge, metrics.last_reload_success_timestamp_seconds),
        (names::CONFIG_RELOADS, Kind::Counter, metrics.reloads),
    ] {
        out.family(name, kind);
        out.sample(name, &[], value);
    }
    by_label(&mut out, (names::CONFIG_RELOAD_FAILURES, Kind::Counter, "reason"), &metrics.reload_failures);
    by_label(&mut out, (names::CONFIG_REJECTED, Kind::Gauge, "kind"), &metrics.rejected_resources);
    out.family(names::CONFIG_HASH, Kind::Gauge);
    out.sample(names::CONFIG_HASH, &[("hash", &metrics.config_hash)], 1_u64);
    if let Some(previous) = &metrics.previous_config_hash {
        out.sample(names::CONFIG_HASH, &[("hash", previous)], 0_u64);
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
            last_reload_success_timestamp_seconds: 1_700_000_000,
            reloads: 3,
            reload_failures: [("fetch", 0), ("parse", 0), ("validate", 1)].into(),
            rejected_resources: [("api_keys", 0), ("models", 2)].into(),
            config_hash: "b".repeat(64),
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
}
