//! The plan of a run: what is measured, in which order, how often.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::changes::{self, Writer};
use crate::load::Report;
use crate::payload::{CALLER_MODEL, Kind, UPSTREAM_MODEL};
use crate::plane::{Plane, Store};
use crate::process::{self, StopWith};
use crate::report::{self, Machine, Results};
use crate::rows::{Size, rows};
use crate::scale::{Scale, Setup};
use crate::subject::{Subject, Upstream, nginx_version};

const LOAD_WITHIN: Duration = Duration::from_secs(120);
const REWRITE_EVERY: Duration = Duration::from_millis(250);
/// Seconds that changes go on longer than the load that is measured.
const CHANGES_AROUND: f64 = 1.2;
const RELOAD_WITHIN: Duration = Duration::from_secs(10);

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// What to compare with nginx; `nginx` (a second nginx) checks the benchmark itself: ratios about 1.
    #[arg(long, value_enum, default_value_t = Which::Gateway)]
    subject: Which,
    /// Fewer and shorter rounds: under 30 seconds, with more noise.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Install nginx with apt-get when it is missing.
    #[arg(long)]
    install: bool,
    /// Exit with 1 when a target is missed, not only when a request failed.
    #[arg(long)]
    strict: bool,
    /// The gateway binary.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/aisix"), hide_default_value = true)]
    gateway: PathBuf,
    /// The core of the proxies and the core of load and upstream.
    #[arg(long, num_args = 2, value_delimiter = ',', value_name = "PROXY,LOAD")]
    cpus: Option<Vec<usize>>,
    /// Where the JSON goes.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results/latest.json"), hide_default_value = true)]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Gateway,
    Nginx,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Buffered,
    Streamed,
    Burst,
    Open,
    Half,
    Reload,
    Changes,
    Scale,
}

/// How much of everything.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Plan {
    rounds: usize,
    connections: usize,
    buffered_requests: u64,
    streamed_requests: u64,
    burst_requests: u64,
    open_rounds: usize,
    pub(crate) open_streams: usize,
    open_pause_ms: u64,
    open_seconds: f64,
    half_rounds: usize,
    half_seconds: f64,
    reload_rounds: usize,
    reload_seconds: f64,
    changes_rounds: usize,
    changes_seconds: f64,
    pub(crate) changes_load: f64,
    scale_starts: usize,
    scale_changes: usize,
}

pub(crate) const FULL: Plan = Plan {
    rounds: 7,
    connections: 32,
    buffered_requests: 50_000,
    streamed_requests: 2_500,
    burst_requests: 12_000,
    open_rounds: 2,
    open_streams: 1000,
    open_pause_ms: 90,
    open_seconds: 4.0,
    half_rounds: 4,
    half_seconds: 1.5,
    reload_rounds: 2,
    reload_seconds: 3.0,
    changes_rounds: 7,
    changes_seconds: 3.0,
    changes_load: 4_000.0,
    scale_starts: 5,
    scale_changes: 200,
};

const QUICK: Plan = Plan {
    rounds: 2,
    buffered_requests: 20_000,
    streamed_requests: 1_000,
    burst_requests: 5_000,
    open_rounds: 1,
    open_streams: 300,
    open_pause_ms: 35,
    open_seconds: 1.0,
    half_rounds: 2,
    half_seconds: 0.7,
    reload_rounds: 1,
    reload_seconds: 1.0,
    changes_rounds: 2,
    changes_seconds: 1.5,
    scale_starts: 2,
    scale_changes: 50,
    ..FULL
};

/// Runs until done or until a signal asks to end; what was started ends with it.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        done = measure(options) => done,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

/// What all measurements need.
struct Bench {
    plan: Plan,
    proxy_cpu: usize,
    load_cpu: usize,
    upstream: Upstream,
    /// Reports by what was measured and on which subject.
    reports: BTreeMap<String, Vec<Report>>,
    scale: Option<Scale>,
    started: Instant,
    options: Options,
    dir: tempfile::TempDir,
}

async fn measure(options: Options) -> Result<ExitCode> {
    let nginx = nginx_version(options.install)?;
    let gateway = match options.subject {
        Which::Gateway => Some(gateway_version(&options.gateway)?),
        Which::Nginx => None,
    };
    let plan = if options.quick { QUICK } else { FULL };
    let cpus = process::allowed_cpus()?;
    let (proxy_cpu, load_cpu) = match (options.cpus.as_deref(), cpus.as_slice()) {
        (Some([proxy, load]), _) | (None, [proxy, load, ..]) => (*proxy, *load),
        _ => bail!("the benchmark needs two cores, this process has {}", cpus.len()),
    };
    raise_file_limit(plan.open_streams as u64 * 2 + 1000)?;
    let machine = Machine::read(process::machine_load(Duration::from_millis(700))?, nginx, gateway)?;
    process::pin_self(load_cpu)?;
    eprintln!("proxies on core {proxy_cpu}, load and upstream on core {load_cpu}; {machine}");
    let pause = Duration::from_millis(plan.open_pause_ms);
    let mut bench = Bench {
        plan,
        proxy_cpu,
        load_cpu,
        upstream: Upstream::start(load_cpu, pause).await?,
        reports: BTreeMap::new(),
        scale: None,
        started: Instant::now(),
        options,
        dir: tempfile::Builder::new().prefix("aisix-bench-").tempdir()?,
    };
    if bench.wants(Part::Scale) && crate::etcd::version().is_none() {
        bail!(
            "etcd is not installed. Run `apt-get install etcd-server` as root, or name other parts with --only"
        );
    }
    bench.all().await?;
    let results = Results::new(machine, plan, bench.reports, bench.scale);
    print!("{}", results.table());
    results.write(&bench.options.out)?;
    eprintln!("{:.0} s; written to {}", bench.started.elapsed().as_secs_f64(), bench.options.out.display());
    if let Some(warning) = results.disturbed() {
        eprintln!("WARNING: {warning}");
    }
    for failure in results.failures() {
        eprintln!("FAILED: {failure}");
    }
    let missed = bench.options.strict && results.missed();
    Ok(if missed || !results.failures().is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Bench {
    fn wants(&self, part: Part) -> bool {
        self.options.only.is_empty() || self.options.only.contains(&part)
    }

    async fn nginx(&self, name: &'static str) -> Result<Subject> {
        Subject::nginx(name, self.dir.path(), self.proxy_cpu, self.upstream.addr).await
    }

    async fn subject(&self) -> Result<Subject> {
        match self.options.subject {
            Which::Nginx => self.nginx(report::SUBJECT_NGINX).await,
            Which::Gateway => {
                let (binary, dir) = (&self.options.gateway, self.dir.path());
                Subject::gateway(binary, dir, self.proxy_cpu, self.upstream.addr).await
            }
        }
    }

    async fn all(&mut self) -> Result<()> {
        if self.wants(Part::Open) {
            for round in 0..self.plan.open_rounds {
                self.open_streams(round).await?;
            }
        }
        if self.wants(Part::Scale) && self.options.subject == Which::Gateway {
            self.scale().await?;
        }
        if self.wants(Part::Changes) && self.options.subject == Which::Gateway {
            self.changes("small", changes::SMALL).await?;
            self.changes("big", changes::BIG).await?;
        }
        if ![Part::Buffered, Part::Streamed, Part::Burst].iter().any(|part| self.wants(*part))
            && !self.paced()
        {
            return Ok(());
        }
        let pair = [self.nginx(report::NGINX).await?, self.subject().await?];
        for round in 0..self.plan.rounds {
            for (part, kind) in [
                (Part::Buffered, Kind::Buffered),
                (Part::Streamed, Kind::Streamed),
                (Part::Burst, Kind::Burst),
            ] {
                // Half load is half of what the buffered rounds reached.
                if self.wants(part) || (part == Part::Buffered && self.paced()) {
                    self.closed_loop(round, kind, &pair).await?;
                }
            }
        }
        if !self.paced() {
            return Ok(());
        }
        let rate = self.half_rate(&pair)?;
        if self.wants(Part::Half) {
            for round in 0..self.plan.half_rounds {
                self.half_load(round, rate, &pair).await?;
            }
        }
        if self.wants(Part::Reload) && self.options.subject == Which::Gateway {
            for round in 0..self.plan.reload_rounds {
                self.reload(round, rate, &pair[1]).await?;
            }
        }
        Ok(())
    }

    fn paced(&self) -> bool {
        self.wants(Part::Half) || self.wants(Part::Reload)
    }

    async fn closed_loop(&mut self, round: usize, kind: Kind, pair: &[Subject; 2]) -> Result<()> {
        let (name, requests) = match kind {
            Kind::Buffered => ("buffered", self.plan.buffered_requests),
            Kind::Burst => ("burst", self.plan.burst_requests),
            Kind::Streamed | Kind::Slow => ("streamed", self.plan.streamed_requests),
        };
        for subject in in_turn(round, pair) {
            let arguments = [
                ("--connections", self.plan.connections.to_string()),
                ("--warmup", (requests / 8).to_string()),
                ("--requests", requests.to_string()),
            ];
            self.load(name, subject, kind, &arguments).await?;
        }
        Ok(())
    }

    /// Fresh processes, because memory once used and kept would hide what the streams need.
    async fn open_streams(&mut self, round: usize) -> Result<()> {
        for turn in 0..2 {
            let subject = if (turn + round).is_multiple_of(2) {
                self.nginx(report::NGINX).await?
            } else {
                self.subject().await?
            };
            let arguments = [
                ("--connections", self.plan.open_streams.to_string()),
                ("--seconds", self.plan.open_seconds.to_string()),
            ];
            self.load("open", &subject, Kind::Slow, &arguments).await?;
        }
        Ok(())
    }

    /// Half of what the slower one did with all connections busy.
    fn half_rate(&self, pair: &[Subject; 2]) -> Result<f64> {
        let reached = pair.iter().map(|subject| {
            let reports = self.reports.get(&key("buffered", subject.name)).context("no buffered rounds")?;
            Ok(report::median(reports.iter().map(|report| report.per_second)))
        });
        let reached: Vec<f64> = reached.collect::<Result<_>>()?;
        Ok((reached[0].min(reached[1]) / 2.0).round())
    }

    async fn half_load(&mut self, round: usize, rate: f64, pair: &[Subject; 2]) -> Result<()> {
        let arguments = self.paced_arguments(rate, self.plan.half_seconds);
        let target = Target { name: report::DIRECT, pid: self.upstream.pid, model: UPSTREAM_MODEL };
        self.load_at("half", target, self.upstream.addr, Kind::Buffered, &arguments).await?;
        for subject in in_turn(round, pair) {
            self.load("half", subject, Kind::Buffered, &arguments).await?;
        }
        Ok(())
    }

    fn paced_arguments(&self, rate: f64, seconds: f64) -> [(&'static str, String); 4] {
        [
            ("--connections", self.plan.connections.to_string()),
            ("--warmup", (rate / 2.0).round().to_string()),
            ("--rate", rate.to_string()),
            ("--seconds", seconds.to_string()),
        ]
    }

    /// The same load without and with the resources file being replaced all the time.
    async fn reload(&mut self, round: usize, rate: f64, gateway: &Subject) -> Result<()> {
        let arguments = self.paced_arguments(rate, self.plan.reload_seconds);
        let resources = gateway.resources(self.upstream.addr);
        for turn in 0..2 {
            if (turn + round).is_multiple_of(2) {
                self.load("steady", gateway, Kind::Buffered, &arguments).await?;
                continue;
            }
            let mut number = round as u32 * 1000;
            let rewrite = async {
                let mut last = Instant::now();
                loop {
                    number += 1;
                    resources.write(number)?;
                    wait_for_generation(gateway, number).await?;
                    self.progress(&format!(
                        "reload {number} applied after {} ms",
                        last.elapsed().as_millis()
                    ));
                    tokio::time::sleep_until((last + REWRITE_EVERY).into()).await;
                    last = Instant::now();
                }
            };
            let mut report = tokio::select! {
                report = self.run_load(target(gateway), gateway.addr, Kind::Buffered, &arguments) => report?,
                error = rewrite => return error,
            };
            // The last one may not have taken effect.
            report.reloads = number % 1000 - 1;
            ensure!(report.reloads > 0, "the load ended before the first reload took effect");
            self.keep("reload", gateway.name, report);
            gateway.truncate_log()?;
        }
        Ok(())
    }

    async fn scale(&mut self) -> Result<()> {
        let setup = Setup {
            gateway: &self.options.gateway,
            dir: self.dir.path(),
            proxy_cpu: self.proxy_cpu,
            load_cpu: self.load_cpu,
            starts: self.plan.scale_starts,
            changes: self.plan.scale_changes,
            say: &|text| self.progress(text),
        };
        self.scale = Some(setup.run().await?);
        Ok(())
    }

    /// A constant load without and with changes of the configuration. What belongs to the load comes
    /// before everything else on its core, so that the changes are felt only through the gateway.
    async fn changes(&mut self, name: &str, size: Size) -> Result<()> {
        let upstream = Upstream::start(self.load_cpu, Duration::ZERO).await?;
        let store = Store::Embedded(self.dir.path().join(format!("changes-{name}")));
        let mut plane = Plane::start(&self.options.gateway, self.dir.path(), self.proxy_cpu, &store)?;
        plane.fill(size, &rows(size, upstream.addr)).await?;
        let urgent = plane.set_apart(self.load_cpu)? && process::make_urgent(i32::try_from(upstream.pid)?);
        if !urgent {
            self.progress("WARNING: not root: writer and control thread hold up the load on its core");
        }
        let mut writer = Writer::new(&plane, size);
        let (rate, seconds) = (self.plan.changes_load, self.plan.changes_seconds);
        let mut arguments = self.paced_arguments(rate, seconds).to_vec();
        arguments.push(("--urgent", String::new()));
        for round in 0..self.plan.changes_rounds {
            for turn in 0..2 {
                let changes = (turn + round) % 2 == 1;
                let what = if changes { format!("changes-{name}") } else { format!("calm-{name}") };
                let target = Target { name: "gateway", pid: plane.pid(), model: CALLER_MODEL };
                let before = plane.ran()?.workers;
                // It begins while the load warms up, and ends after it.
                let (report, made) = tokio::join!(
                    self.run_load(target, plane.proxy, Kind::Buffered, &arguments),
                    writer.run(&plane, seconds + CHANGES_AROUND, changes),
                );
                let (mut report, mut made) = (report?, made?);
                let served = report.requests as f64 + (rate / 2.0).round();
                made.workers_us = (plane.ran()?.workers - before).as_secs_f64() * 1e6 / served;
                if changes {
                    self.progress(&format!(
                        "{what}: {:.0} changes/s, answered after {:.0} µs (p99 {:.0}), {} looked at, {:.0} µs CPU \
                         each; {} failures",
                        made.per_second, made.p50_us, made.p99_us, made.seen, made.others_us, made.failures
                    ));
                }
                report.changes = Some(made);
                self.keep(&what, "gateway", report);
                plane.truncate_log()?;
            }
        }
        Ok(())
    }

    async fn load(
        &mut self,
        what: &str,
        subject: &Subject,
        kind: Kind,
        arguments: &[(&str, String)],
    ) -> Result<()> {
        self.load_at(what, target(subject), subject.addr, kind, arguments).await?;
        subject.truncate_log()
    }

    async fn load_at(
        &mut self,
        what: &str,
        target: Target,
        addr: std::net::SocketAddr,
        kind: Kind,
        arguments: &[(&str, String)],
    ) -> Result<()> {
        let name = target.name;
        let report = self.run_load(target, addr, kind, arguments).await.with_context(|| key(what, name))?;
        self.keep(what, name, report);
        Ok(())
    }

    fn keep(&mut self, what: &str, name: &str, report: Report) {
        let key = key(what, name);
        self.progress(&format!(
            "{key}: {:.1} µs CPU, {:.0}/s, p50 {:.0} µs, p99 {:.0} µs, {:.0} % busy, {:.0} % waiting",
            report.cpu_us,
            report.per_second,
            report.p50_us,
            report.p99_us,
            report.busy * 100.0,
            report.waited * 100.0
        ));
        if let Some(failure) = &report.first_failure {
            self.progress(&format!("{key}: {} requests FAILED: {failure}", report.failures));
        }
        self.reports.entry(key).or_default().push(report);
    }

    fn progress(&self, text: &str) {
        eprintln!("{:5.1} s  {text}", self.started.elapsed().as_secs_f64());
    }

    /// Runs the load generator and reads its report.
    async fn run_load(
        &self,
        target: Target,
        addr: std::net::SocketAddr,
        kind: Kind,
        arguments: &[(&str, String)],
    ) -> Result<Report> {
        let urgent = arguments.iter().any(|(name, _)| *name == "--urgent");
        let mut command = process::pinned_self(self.load_cpu, StopWith::Kill, urgent)?;
        let kind = kind.to_possible_value().context("a kind without a name")?;
        command.args(["load", "--addr", &addr.to_string(), "--pid", &target.pid.to_string()]);
        command.args(["--kind", kind.get_name(), "--model", target.model]);
        for (name, value) in arguments.iter().filter(|(name, _)| *name != "--urgent") {
            command.args([*name, value]);
        }
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let output = tokio::time::timeout(LOAD_WITHIN, command.spawn()?.wait_with_output()).await;
        let output = output.with_context(|| format!("no end after {} s", LOAD_WITHIN.as_secs()))??;
        ensure!(output.status.success(), "the load generator failed ({})", output.status);
        serde_json::from_slice(&output.stdout).context("reading the report of the load generator")
    }
}

/// Whom the load generator watches, and the model name it may expect.
struct Target {
    name: &'static str,
    pid: u32,
    model: &'static str,
}

fn target(subject: &Subject) -> Target {
    Target { name: subject.name, pid: subject.pid, model: subject.model }
}

pub(crate) fn key(what: &str, subject: &str) -> String {
    format!("{what}/{subject}")
}

/// The first goes last in every other round, so that a drift of the machine favours neither.
fn in_turn(round: usize, pair: &[Subject; 2]) -> [&Subject; 2] {
    if round.is_multiple_of(2) { [&pair[0], &pair[1]] } else { [&pair[1], &pair[0]] }
}

async fn wait_for_generation(gateway: &Subject, number: u32) -> Result<()> {
    let deadline = Instant::now() + RELOAD_WITHIN;
    while !gateway.serves(number).await? {
        ensure!(Instant::now() < deadline, "the resources file was replaced, but not loaded");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn gateway_version(binary: &Path) -> Result<String> {
    ensure!(
        binary.exists(),
        "there is no {}: build it with `cargo build --release -p aisix`",
        binary.file_name().unwrap_or_default().to_string_lossy()
    );
    let output =
        std::process::Command::new(binary).arg("--version").output().context("starting the gateway")?;
    ensure!(output.status.success(), "`aisix --version` failed");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn raise_file_limit(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let enough = |value: Option<u64>| value.is_none_or(|value| value >= wanted);
    ensure!(enough(limit.maximum), "at most {:?} open files are allowed, {wanted} are needed", limit.maximum);
    if !enough(limit.current) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(())
}
