//! From reports to rows, the table and the JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::changes::{BIG, Changes, RATE, SMALL};
use crate::load::Report;
use crate::payload::CHUNKS;
use crate::rows::Size;
use crate::run::{Plan, key};
use crate::scale::{AFTER_ANSWER, AFTER_SENT, AFTER_WATCH, Scale, Start};

pub(crate) const NGINX: &str = "nginx";
pub(crate) const SUBJECT_NGINX: &str = "nginx-2";
pub(crate) const DIRECT: &str = "direct";
const GATEWAY: &str = "gateway";

/// Other work on the machine above this share deserves a warning.
const BUSY: f64 = 0.10;

/// A proxy that waits for its core for more than this share of the time was disturbed.
const DISTURBED: f64 = 0.05;

/// Where the figures come from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    kernel: String,
    nginx: String,
    gateway: Option<String>,
    /// Share of all cores that other work used just before the run.
    load_before: f64,
}

impl Machine {
    pub(crate) fn read(load_before: f64, nginx: String, gateway: Option<String>) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        Ok(Self {
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            kernel,
            nginx,
            gateway,
            load_before,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Linux {}, {}", self.cpu, self.kernel, self.nginx)?;
        if self.load_before > BUSY {
            let percent = self.load_before * 100.0;
            write!(f, "\nWARNING: other work uses {percent:.0} % of this machine; the figures will suffer")?;
        }
        Ok(())
    }
}

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Target {
    /// The ratio to what the subject is compared with, at most.
    Ratio(f64),
    /// The subject's own figure, at most.
    Value(f64),
    /// The subject's own figure, at least.
    AtLeast(f64),
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    group: String,
    name: String,
    /// What the two figures are of.
    columns: (&'static str, &'static str),
    base: Option<f64>,
    subject: Option<f64>,
    /// Median of the ratios of the rounds; each compares two neighbours in time.
    ratio: Option<f64>,
    /// The lowest and the highest of these ratios.
    ratio_range: Option<(f64, f64)>,
    target: Option<Target>,
    met: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Results {
    machine: Machine,
    plan: Plan,
    subject: &'static str,
    rows: Vec<Row>,
    /// Every single measurement.
    reports: BTreeMap<String, Vec<Report>>,
    scale: Option<Scale>,
}

/// Takes one figure out of a report.
type Figure = fn(&Report) -> f64;

impl Results {
    pub(crate) fn new(
        machine: Machine,
        plan: Plan,
        reports: BTreeMap<String, Vec<Report>>,
        scale: Option<Scale>,
    ) -> Self {
        let subject = if machine.gateway.is_some() { GATEWAY } else { SUBJECT_NGINX };
        let mut results = Self { machine, plan, subject, rows: Vec::new(), reports, scale };
        results.fill();
        results
    }

    fn fill(&mut self) {
        let rss: Figure = |report| report.rss_kib as f64 / 1024.0;
        for (what, group, target) in [
            ("buffered", "buffered relay".to_owned(), 1.4),
            ("streamed", format!("streamed relay, {CHUNKS} chunks one by one"), 1.0),
            ("burst", format!("streamed relay, {CHUNKS} chunks at once"), 1.0),
        ] {
            self.compare(
                what,
                &group,
                "CPU µs per request",
                |report| report.cpu_us,
                Some(Target::Ratio(target)),
            );
            self.compare(what, &group, "requests/s", |report| report.per_second, None);
            self.compare(what, &group, "p50 µs", |report| report.p50_us, None);
            self.compare(what, &group, "p99 µs", |report| report.p99_us, None);
            self.compare(what, &group, "RSS MiB", rss, None);
        }
        let group = format!("{} open slow streams", self.plan.open_streams);
        let idle: Figure = |report| report.rss_before_kib as f64 / 1024.0;
        let per_stream: Figure =
            |report| report.rss_kib.saturating_sub(report.rss_before_kib) as f64 / report.requests as f64;
        self.compare("open", &group, "idle RSS MiB (before)", idle, Some(Target::Value(30.0)));
        self.compare("open", &group, "RSS KiB per stream", per_stream, Some(Target::Value(24.0)));
        self.compare("open", &group, "CPU µs per chunk", |report| report.cpu_us, None);
        self.half_load();
        self.reload();
        self.changes("small", SMALL);
        self.changes("big", BIG);
        if let Some(scale) = self.scale.take() {
            self.scale(&scale);
            self.scale = Some(scale);
        }
    }

    fn of(&self, what: &str, subject: &str) -> &[Report] {
        self.reports.get(&key(what, subject)).map_or(&[], Vec::as_slice)
    }

    /// A row that sets the subject beside nginx.
    fn compare(&mut self, what: &str, group: &str, name: &str, figure: Figure, target: Option<Target>) {
        let figures = |subject| self.of(what, subject).iter().map(figure).collect::<Vec<f64>>();
        let (nginx, subject) = (figures(NGINX), figures(self.subject));
        self.push(group, name, &nginx, &subject, target);
    }

    fn push(&mut self, group: &str, name: &str, nginx: &[f64], subject: &[f64], target: Option<Target>) {
        if nginx.is_empty() && subject.is_empty() {
            return;
        }
        let columns = (NGINX, self.subject);
        self.rows.push(row((group, name), columns, (nginx, subject), target));
    }

    /// Rows of the load without and with changes.
    fn changes(&mut self, name: &str, size: Size) {
        let of = |what| self.of(&format!("{what}-{name}"), GATEWAY).to_vec();
        let (calm, changes) = (of("calm"), of("changes"));
        let group = format!(
            "{RATE:.0} changes/s under {:.0} requests/s, {} keys, {} models",
            self.plan.changes_load, size.api_keys, size.models
        );
        let made = |pick: fn(&Changes) -> f64| -> Vec<f64> {
            changes.iter().filter_map(|report| report.changes.as_ref()).map(pick).collect()
        };
        let of_both = |pick: Figure| -> [Vec<f64>; 2] {
            [calm.iter().map(pick).collect(), changes.iter().map(pick).collect()]
        };
        let busy: Figure = |report| report.changes.as_ref().map_or(f64::NAN, |changes| changes.workers_us);
        let both = [
            ("p50 µs", of_both(|report| report.p50_us), None),
            ("p99 µs", of_both(|report| report.p99_us), Some(Target::Ratio(1.1))),
            ("worker thread, CPU µs per request", of_both(busy), None),
        ];
        let alone = [
            ("changes/s", made(|made| made.per_second), Some(Target::AtLeast(RATE * 0.99))),
            ("answer to a change, p50 µs", made(|made| made.p50_us), None),
            ("answer to a change, p99 µs", made(|made| made.p99_us), None),
            ("other threads, CPU µs per change", made(|made| made.others_us), None),
        ];
        let both = both.map(|(name, [calm, changes], target)| (name, calm, changes, target));
        let alone = alone.map(|(name, figures, target)| (name, Vec::new(), figures, target));
        for (name, calm, changes, target) in both.into_iter().chain(alone) {
            if !changes.is_empty() {
                self.rows.push(row((&group, name), ("without", "with"), (&calm, &changes), target));
            }
        }
    }

    fn scale(&mut self, scale: &Scale) {
        let group = format!(
            "{} keys, {} models, {} rows",
            scale.size.api_keys,
            scale.size.models,
            scale.size.total()
        );
        let mut push = |name: &str, figures: &[f64], most: Option<f64>| {
            self.rows.push(row((&group, name), ("", GATEWAY), (&[], figures), most.map(Target::Value)));
        };
        for (name, starts, most) in [
            ("etcd", &scale.from_etcd, Some(2000.0)),
            ("cache file, etcd down", &scale.from_cache, Some(2000.0)),
            ("embedded store", &scale.from_embedded, Some(2000.0)),
        ] {
            let of = |pick: fn(&Start) -> f64| starts.iter().map(pick).collect::<Vec<f64>>();
            push(&format!("{name}: key known, ms"), &of(|start| start.serves_ms), None);
            push(&format!("{name}: synced, ms"), &of(|start| start.synced_ms), most);
            push(&format!("{name}: peak RSS MiB"), &of(|start| start.peak_kib as f64 / 1024.0), None);
        }
        for (name, applied) in [("", &scale.without_cache), (", cache file", &scale.with_cache)] {
            let at = |share, figure| [applied.percentile(share, figure)];
            push(&format!("change{name}: p50 ms after put"), &at(0.5, AFTER_SENT), None);
            push(&format!("change{name}: p99 ms after put"), &at(0.99, AFTER_SENT), Some(500.0));
            push(&format!("change{name}: p99 ms after answer"), &at(0.99, AFTER_ANSWER), None);
            push(&format!("change{name}: p50 ms after watch"), &at(0.5, AFTER_WATCH), None);
            push(&format!("change{name}: p99 ms after watch"), &at(0.99, AFTER_WATCH), Some(20.0));
            push(&format!("change{name}: CPU µs"), &[applied.cpu_us], None);
        }
        let empty = median(scale.empty_rss_kib.iter().map(|kib| *kib as f64));
        let full: Vec<f64> = scale.from_etcd.iter().map(|start| start.rss_kib as f64).collect();
        let rows = scale.size.total() as f64;
        let per_row: Vec<f64> = full.iter().map(|kib| (kib - empty) * 1024.0 / rows).collect();
        push("RSS MiB, no rows", &[empty / 1024.0], None);
        push("RSS MiB, all rows", &full.iter().map(|kib| kib / 1024.0).collect::<Vec<_>>(), None);
        push("RSS bytes per row", &per_row, None);
    }

    /// Latency the proxy adds: its own less that of requests sent straight to the upstream.
    fn half_load(&mut self) {
        let direct = self.of("half", DIRECT).to_vec();
        let Some(first) = direct.first() else { return };
        let group = format!("half load, {:.0} requests/s", first.per_second);
        for (name, figure, target) in [
            ("added p50 µs", (|report| report.p50_us) as Figure, None),
            ("added p99 µs", |report| report.p99_us, Some(Target::Value(200.0))),
        ] {
            let added = |subject| {
                let pairs = self.of("half", subject).iter().zip(&direct);
                pairs.map(|(proxied, direct)| figure(proxied) - figure(direct)).collect::<Vec<f64>>()
            };
            let (nginx, subject) = (added(NGINX), added(self.subject));
            self.push(&group, name, &nginx, &subject, target);
        }
        self.compare("half", &group, "CPU µs per request", |report| report.cpu_us, None);
        let p99: Vec<f64> = direct.iter().map(|report| report.p99_us).collect();
        self.push(&group, "p99 µs without a proxy", &p99, &[], None);
    }

    fn reload(&mut self) {
        let p99: Figure = |report| report.p99_us;
        let rows = [
            ("p99 µs, no reloads", "steady", p99),
            ("p99 µs, reloads", "reload", p99),
            ("reloads meanwhile", "reload", |report| report.reloads as f64),
        ];
        for (name, what, figure) in rows {
            let figures: Vec<f64> = self.of(what, GATEWAY).iter().map(figure).collect();
            self.push("reload under half load", name, &[], &figures, None);
        }
    }

    /// One line for each measurement with failed requests.
    pub(crate) fn failures(&self) -> Vec<String> {
        let all: Vec<(&String, &Report)> =
            self.reports.iter().flat_map(|(key, reports)| reports.iter().map(move |it| (key, it))).collect();
        let changes = all.iter().filter_map(|(key, report)| {
            let changes = report.changes.as_ref().filter(|changes| changes.failures > 0)?;
            let first = changes.first_failure.as_deref().unwrap_or("unknown");
            Some(format!("{key}: {} changes failed, the first: {first}", changes.failures))
        });
        let requests = all.iter().filter(|(_, report)| report.failures > 0).map(|(key, report)| {
            let first = report.first_failure.as_deref().unwrap_or("unknown");
            format!("{key}: {} requests failed, the first: {first}", report.failures)
        });
        requests.chain(changes).collect()
    }

    /// What to say when proxies had to wait for their core: other work took it, or their own threads
    /// did. (The upstream, seen in the direct rounds, shares its core with the load by design, and so
    /// do the threads that take changes in.)
    pub(crate) fn disturbed(&self) -> Option<String> {
        let by_design =
            |key: &str| key.ends_with(DIRECT) || key.starts_with("calm-") || key.starts_with("changes-");
        let proxies = self.reports.iter().filter(|(key, _)| !by_design(key));
        let reports: Vec<&Report> = proxies.flat_map(|(_, reports)| reports).collect();
        let count = reports.iter().filter(|report| report.waited > DISTURBED).count();
        (count > 0).then(|| {
            format!(
                "in {count} of {} measurements the proxy had to wait for its core; unless its own threads \
                 compete, run it again when the machine is quiet",
                reports.len()
            )
        })
    }

    /// Whether a target is missed.
    pub(crate) fn missed(&self) -> bool {
        self.rows.iter().any(|row| row.met == Some(false))
    }

    pub(crate) fn table(&self) -> String {
        let mut table = String::new();
        let (mut group, mut columns) = ("", None);
        for row in &self.rows {
            if columns.replace(row.columns) != Some(row.columns) {
                let (base, subject) = row.columns;
                let _ = writeln!(
                    table,
                    "\n{:<34} {base:>10} {subject:>10} {:>7} {:>15}  target",
                    "", "ratio", "(range)"
                );
            }
            if row.group != group {
                group = &row.group;
                let _ = writeln!(table, "{group}");
            }
            let range = row.ratio_range.map(|(low, high)| format!("({low:.2}-{high:.2})"));
            let target = row.target.map(|target| match target {
                Target::Ratio(most) => format!("<= {most}x"),
                Target::Value(most) => format!("<= {most}"),
                Target::AtLeast(least) => format!(">= {least}"),
            });
            let met = row.met.map_or("", |met| if met { "ok" } else { "MISSED" });
            let line = format!(
                "  {:<32} {:>10} {:>10} {:>7} {:>15}  {:<8} {met}",
                row.name,
                row.base.map(number).unwrap_or_default(),
                row.subject.map(number).unwrap_or_default(),
                row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
                range.unwrap_or_default(),
                target.unwrap_or_default(),
            );
            let _ = writeln!(table, "{}", line.trim_end());
        }
        table
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// The medians of two lists of figures, and how they compare round by round.
fn row(
    (group, name): (&str, &str),
    columns: (&'static str, &'static str),
    (base, subject): (&[f64], &[f64]),
    target: Option<Target>,
) -> Row {
    let middle = |figures: &[f64]| (!figures.is_empty()).then(|| median(figures.iter().copied()));
    // A difference of latencies can come out negative; a ratio of such says nothing.
    let pairs = base.iter().zip(subject).filter(|(base, subject)| **base > 0.0 && **subject > 0.0);
    let ratios: Vec<f64> = pairs.map(|(base, subject)| subject / base).collect();
    let (ratio, subject) = (middle(&ratios), middle(subject));
    let range = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick);
    let met = target.and_then(|target| match target {
        Target::Ratio(most) => ratio.map(|ratio| ratio <= most),
        Target::Value(most) => subject.map(|subject| subject <= most),
        Target::AtLeast(least) => subject.map(|subject| subject >= least),
    });
    Row {
        group: group.to_owned(),
        name: name.to_owned(),
        columns,
        base: middle(base),
        subject,
        ratio,
        ratio_range: range(f64::min).zip(range(f64::max)),
        target,
        met,
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// The mean of the two middle ones where their number is even; NaN of none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::FULL;

    fn results(reports: &[(&str, &[Report])]) -> Results {
        let machine = Machine {
            cpu: "cpu".to_owned(),
            kernel: "6".to_owned(),
            nginx: "nginx/1".to_owned(),
            gateway: Some("aisix 1".to_owned()),
            load_before: 0.5,
        };
        let reports = reports.iter().map(|(key, reports)| ((*key).to_owned(), reports.to_vec())).collect();
        Results::new(machine, FULL, reports, None)
    }

    fn costs(cpu_us: f64) -> Report {
        Report { cpu_us, ..Report::default() }
    }

    fn row<'a>(results: &'a Results, name: &str) -> &'a Row {
        results.rows.iter().find(|row| row.name == name).expect("the row")
    }

    #[test]
    fn ratios_pair_the_rounds() {
        let nginx = [costs(10.0), costs(20.0), costs(30.0)];
        let gateway = [costs(12.0), costs(30.0), costs(33.0)];
        let results = results(&[("buffered/nginx", &nginx), ("buffered/gateway", &gateway)]);
        let row = row(&results, "CPU µs per request");
        assert_eq!((row.base, row.subject, row.met), (Some(20.0), Some(30.0), Some(true)));
        assert!((row.ratio.expect("a ratio") - 1.2).abs() < 1e-9, "{row:?}");
        assert!(results.table().contains("<= 1.4x"), "{}", results.table());
    }

    #[test]
    fn a_missed_target_is_said() {
        let results = results(&[("streamed/nginx", &[costs(10.0)]), ("streamed/gateway", &[costs(11.0)])]);
        assert!(results.missed());
        assert!(results.table().contains("MISSED"), "{}", results.table());
    }

    #[test]
    fn added_latency_is_the_difference_to_the_direct_way() {
        let at = |p99_us| Report { p99_us, ..Report::default() };
        let results = results(&[
            ("half/direct", &[at(100.0)]),
            ("half/nginx", &[at(90.0)]),
            ("half/gateway", &[at(280.0)]),
        ]);
        let row = row(&results, "added p99 µs");
        assert_eq!((row.base, row.subject, row.ratio, row.met), (Some(-10.0), Some(180.0), None, Some(true)));
    }

    #[test]
    fn failures_and_disturbances_are_named() {
        let failed =
            Report { failures: 3, first_failure: Some("status 500".to_owned()), ..Report::default() };
        let disturbed = Report { waited: 0.2, ..Report::default() };
        let results = results(&[("reload/gateway", &[failed]), ("buffered/nginx", &[disturbed])]);
        assert_eq!(results.failures(), ["reload/gateway: 3 requests failed, the first: status 500"]);
        assert!(results.disturbed().expect("a warning").starts_with("in 1 of 2 "));
    }

    #[test]
    fn changes_are_held_against_the_same_load_without() {
        let load = |p99_us, changes| Report { p99_us, changes: Some(changes), ..Report::default() };
        let made = Changes {
            made: 100,
            per_second: 100.0,
            failures: 1,
            first_failure: Some("status 409".to_owned()),
            ..Changes::default()
        };
        let results = results(&[
            ("calm-small/gateway", &[load(100.0, Changes::default())]),
            ("changes-small/gateway", &[load(105.0, made)]),
        ]);
        let p99 = row(&results, "p99 µs");
        assert_eq!((p99.columns, p99.ratio, p99.met), (("without", "with"), Some(1.05), Some(true)));
        assert_eq!(row(&results, "changes/s").met, Some(false), "half of what is wanted");
        assert_eq!(results.failures(), ["changes-small/gateway: 1 changes failed, the first: status 409"]);
        assert!(results.table().contains(">= 198"), "{}", results.table());
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }
}
