//! The load generator: closed loop, paced (open loop), or many open slow streams. Runs as a process
//! of its own and prints one [`Report`] as JSON.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::changes::Changes;
use crate::http1::Connection;
use crate::pace::Pacer;
use crate::payload::{self, CHUNKS, Kind};
use crate::process;

/// More failures than this end the run: the rest would only repeat them.
const FAILURES_MAX: u64 = 100;

#[derive(Args, Clone, Debug)]
pub(crate) struct Load {
    /// Where to send requests.
    #[arg(long)]
    pub(crate) addr: SocketAddr,
    /// The process whose CPU time and memory are read.
    #[arg(long)]
    pub(crate) pid: u32,
    #[arg(long)]
    pub(crate) kind: Kind,
    /// The model name replies must carry.
    #[arg(long)]
    pub(crate) model: String,
    /// Connections; with `--kind slow` the number of streams.
    #[arg(long)]
    pub(crate) connections: usize,
    /// Requests before measuring starts.
    #[arg(long, default_value_t = 0)]
    pub(crate) warmup: u64,
    /// Requests to measure (closed loop: each connection sends its next request after a reply).
    #[arg(long, default_value_t = 0)]
    pub(crate) requests: u64,
    /// Requests per second, sent when due whatever the replies do; with `--seconds`.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// How long to send at `--rate`, or to watch the slow streams.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) seconds: f64,
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) first_failure: Option<String>,
    pub(crate) reconnects: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// CPU time of the process per request; per chunk with slow streams.
    pub(crate) cpu_us: f64,
    /// Share of one core the process used.
    pub(crate) busy: f64,
    /// Share of the time it was ready to run but another process had its core.
    pub(crate) waited: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Resident memory before the load, and the most seen under it.
    pub(crate) rss_before_kib: u64,
    pub(crate) rss_kib: u64,
    /// Configurations that took effect meanwhile; filled in by the run.
    #[serde(default)]
    pub(crate) reloads: u32,
    /// Changes made meanwhile, one by one; filled in by the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) changes: Option<Changes>,
}

pub(crate) async fn run(load: Load) -> Result<Report> {
    let shared =
        Arc::new(Shared::probe(&load).await.with_context(|| format!("first request to {}", load.addr))?);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let rss_before_kib = process::rss_kib(load.pid)?;
    let mut report = if load.kind == Kind::Slow {
        open_streams(&load, &shared).await?
    } else {
        requests(&load, &shared).await?
    };
    report.rss_before_kib = rss_before_kib;
    report.reconnects = shared.reconnects.load(Relaxed);
    let failures = shared.failures.lock().unwrap_or_else(PoisonError::into_inner);
    report.failures = failures.count;
    report.first_failure.clone_from(&failures.first);
    Ok(report)
}

/// What all connections use.
struct Shared {
    addr: SocketAddr,
    request: Vec<u8>,
    /// The body every reply must have, byte for byte.
    expected: Vec<u8>,
    received: AtomicU64,
    reconnects: AtomicU64,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    count: u64,
    first: Option<String>,
}

impl Shared {
    /// Sends the first request and reads its reply with care.
    async fn probe(load: &Load) -> Result<Self> {
        // A slow stream has the body of a quick one.
        let kind = if load.kind == Kind::Slow { Kind::Streamed } else { load.kind };
        let mut expected = Vec::new();
        let collect = |piece: &[u8]| {
            expected.extend_from_slice(piece);
            Ok(())
        };
        Connection::open(load.addr).await?.exchange(&payload::request(kind, load.addr), collect).await?;
        payload::check(kind, &expected, &load.model)?;
        Ok(Self {
            addr: load.addr,
            request: payload::request(load.kind, load.addr),
            expected,
            received: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            failures: Mutex::default(),
        })
    }

    /// One request on a connection, which is opened where there is none and dropped after a failure.
    async fn exchange(&self, connection: &mut Option<Connection>) -> Result<()> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::open(self.addr).await?,
        };
        let mut at = 0;
        let compare = |piece: &[u8]| {
            let end = at + piece.len();
            ensure!(
                self.expected.get(at..end) == Some(piece),
                "the body differs after byte {at}: {}",
                String::from_utf8_lossy(piece)
            );
            at = end;
            self.received.fetch_add(piece.len() as u64, Relaxed);
            Ok(())
        };
        let keep = open.exchange(&self.request, compare).await?;
        ensure!(at == self.expected.len(), "the body ends after {at} of {} bytes", self.expected.len());
        if keep {
            *connection = Some(open);
        } else {
            self.reconnects.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Notes a failure. `true`: there have been so many that going on is pointless.
    fn failed(&self, error: &anyhow::Error) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        failures.first.get_or_insert_with(|| format!("{error:#}"));
        failures.count >= FAILURES_MAX
    }
}

/// The order in which requests are taken and, in an open loop, when each is due.
pub(crate) struct Schedule {
    next: AtomicU64,
    requests: u64,
    pace: Option<(Instant, Duration, Semaphore)>,
}

impl Schedule {
    fn closed(requests: u64) -> Self {
        Self { next: AtomicU64::new(0), requests, pace: None }
    }

    pub(crate) fn paced(requests: u64, period: Duration) -> Self {
        Self { pace: Some((Instant::now(), period, Semaphore::new(0))), ..Self::closed(requests) }
    }

    /// Waits for the next request and says when it was due; `None` after the last. Latency counts
    /// from then, so a server that stalls is charged for every request it kept waiting.
    pub(crate) async fn next(&self) -> Option<Instant> {
        let Some((start, period, due)) = &self.pace else {
            return (self.next.fetch_add(1, Relaxed) < self.requests).then(Instant::now);
        };
        due.acquire().await.ok()?.forget();
        let number = self.next.fetch_add(1, Relaxed);
        (number < self.requests).then(|| *start + period.mul_f64(number as f64))
    }

    /// Releases paced requests as they fall due.
    pub(crate) async fn release(&self, connections: usize) -> Result<()> {
        let Some((start, period, due)) = &self.pace else { return Ok(()) };
        let pacer = Pacer::every(*period)?;
        let mut released = 0;
        while released < self.requests {
            pacer.tick().await?;
            let now = (start.elapsed().as_secs_f64() / period.as_secs_f64()) as u64 + 1;
            let now = now.min(self.requests);
            due.add_permits((now - released) as usize);
            released = now;
        }
        due.add_permits(connections);
        Ok(())
    }
}

type Connections = Vec<Option<Connection>>;

/// Works through a schedule on all connections; gives back the latencies in nanoseconds.
async fn pass(shared: &Arc<Shared>, connections: &mut Connections, schedule: Schedule) -> Result<Vec<u64>> {
    let schedule = Arc::new(schedule);
    let mut tasks = JoinSet::new();
    let count = connections.len();
    for mut connection in connections.drain(..) {
        let (shared, schedule) = (Arc::clone(shared), Arc::clone(&schedule));
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while let Some(due) = schedule.next().await {
                match shared.exchange(&mut connection).await {
                    Ok(()) => latencies.push(due.elapsed().as_nanos() as u64),
                    Err(error) if shared.failed(&error) => break,
                    Err(_) => {}
                }
            }
            (connection, latencies)
        });
    }
    schedule.release(count).await?;
    let mut all = Vec::new();
    while let Some(task) = tasks.join_next().await {
        let (connection, latencies) = task?;
        connections.push(connection);
        all.extend(latencies);
    }
    Ok(all)
}

async fn requests(load: &Load, shared: &Arc<Shared>) -> Result<Report> {
    let mut connections: Connections = (0..load.connections).map(|_| None).collect();
    pass(shared, &mut connections, Schedule::closed(load.warmup)).await?;
    let used = Used::start(load.pid)?;
    let schedule = match load.rate {
        Some(rate) => Schedule::paced((rate * load.seconds) as u64, Duration::from_secs_f64(1.0 / rate)),
        None => Schedule::closed(load.requests),
    };
    let mut latencies = pass(shared, &mut connections, schedule).await?;
    let (seconds, cpu, waited) = used.end()?;
    latencies.sort_unstable();
    let done = latencies.len() as u64;
    Ok(Report {
        requests: done,
        seconds,
        per_second: done as f64 / seconds,
        cpu_us: cpu * 1e6 / done as f64,
        busy: cpu / seconds,
        waited: waited / seconds,
        p50_us: percentile(&latencies, 0.50),
        p99_us: percentile(&latencies, 0.99),
        rss_kib: process::rss_kib(load.pid)?,
        ..Report::default()
    })
}

/// The clocks of a process when measuring began.
struct Used {
    pid: u32,
    started: Instant,
    cpu: Duration,
    waited: Duration,
}

impl Used {
    fn start(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            started: Instant::now(),
            cpu: process::cpu_time(pid)?,
            waited: process::wait_time(pid)?,
        })
    }

    /// Seconds that have passed, that the process used, and that it waited.
    fn end(&self) -> Result<(f64, f64, f64)> {
        let seconds = self.started.elapsed().as_secs_f64();
        let cpu = process::cpu_time(self.pid)?.saturating_sub(self.cpu);
        let waited = process::wait_time(self.pid)?.saturating_sub(self.waited);
        Ok((seconds, cpu.as_secs_f64(), waited.as_secs_f64()))
    }
}

/// Opens a stream a millisecond, and measures while all of them are open.
async fn open_streams(load: &Load, shared: &Arc<Shared>) -> Result<Report> {
    let opened = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..load.connections {
        let (shared, opened) = (Arc::clone(shared), Arc::clone(&opened));
        tasks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number as u64)).await;
            opened.fetch_add(1, Relaxed);
            if let Err(error) = shared.exchange(&mut None).await {
                shared.failed(&error);
            }
        });
    }
    while opened.load(Relaxed) < load.connections as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Time for the last ones to get going.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (used, received, rss) =
        (Used::start(load.pid)?, shared.received.load(Relaxed), process::rss_kib(load.pid)?);
    tokio::time::sleep(Duration::from_secs_f64(load.seconds)).await;
    let (received, (seconds, cpu, waited)) = (shared.received.load(Relaxed) - received, used.end()?);
    let rss = rss.max(process::rss_kib(load.pid)?);
    if tasks.try_join_next().is_some() && shared.failures.lock().is_ok_and(|failures| failures.count == 0) {
        bail!("streams ended while they were measured; the upstream must pause for longer");
    }
    while let Some(task) = tasks.join_next().await {
        task?;
    }
    let events = memchr::memmem::find_iter(&shared.expected, b"\n\n").count();
    ensure!(events > CHUNKS, "only {events} events in a stream");
    let chunks = received as f64 / shared.expected.len() as f64 * events as f64;
    Ok(Report {
        requests: load.connections as u64,
        seconds,
        per_second: chunks / seconds,
        cpu_us: cpu * 1e6 / chunks,
        busy: cpu / seconds,
        waited: waited / seconds,
        rss_kib: rss,
        ..Report::default()
    })
}

/// Of a sorted list of nanoseconds, in microseconds.
pub(crate) fn percentile(sorted: &[u64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |&nanos| nanos as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{CALLER_MODEL, UPSTREAM_MODEL};
    use crate::upstream;

    async fn load(kind: Kind, change: impl FnOnce(&mut Load)) -> Result<Report> {
        let addr = upstream::spawn(Duration::from_millis(30)).await?;
        let mut load = Load {
            addr,
            pid: std::process::id(),
            kind,
            model: UPSTREAM_MODEL.to_owned(),
            connections: 4,
            warmup: 10,
            requests: 200,
            rate: None,
            seconds: 0.5,
        };
        change(&mut load);
        run(load).await
    }

    #[tokio::test]
    async fn closed_loop_counts_every_request() {
        for kind in [Kind::Buffered, Kind::Streamed, Kind::Burst] {
            let report = load(kind, |_| ()).await.expect("a report");
            assert_eq!((report.requests, report.failures, report.reconnects), (200, 0, 0), "{report:?}");
            assert!(report.p50_us > 0.0 && report.p50_us <= report.p99_us, "{report:?}");
        }
    }

    #[tokio::test]
    async fn the_pace_is_kept() {
        let report = load(Kind::Buffered, |load| load.rate = Some(400.0)).await.expect("a report");
        assert_eq!((report.requests, report.failures), (200, 0), "{report:?}");
        assert!(report.seconds >= 199.0 / 400.0, "{report:?}");
    }

    #[tokio::test]
    async fn slow_streams_are_open_together() {
        let report = load(Kind::Slow, |load| load.connections = 20).await.expect("a report");
        assert_eq!((report.requests, report.failures), (20, 0), "{report:?}");
        assert!(report.per_second > 1.0, "{report:?}");
    }

    #[tokio::test]
    async fn a_reply_that_is_not_as_expected_is_an_error() {
        let error =
            load(Kind::Buffered, |load| load.model = CALLER_MODEL.to_owned()).await.expect_err("wrong model");
        assert!(format!("{error:#}").contains("names model"), "{error:#}");
    }

    #[test]
    fn percentiles() {
        let sorted: Vec<u64> = (1..=100).map(|i| i * 1000).collect();
        assert_eq!((percentile(&sorted, 0.5), percentile(&sorted, 0.99)), (50.0, 99.0));
        assert!(percentile(&[], 0.5).is_nan());
    }
}
