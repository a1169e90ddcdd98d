//! Many resources: how long a start takes, how soon a change in etcd is acted on, and what memory they need.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::changes::BIG;
use crate::etcd::Etcd;
use crate::plane::{Plane, Store, is_whole};
use crate::process;
use crate::rows::{self, KEY_KNOWN, KEY_UNKNOWN, Row, Size, hash, key_id, question, secret};

const PREFIX: &str = "/bench";
const EMPTY_PREFIX: &str = "/empty";
/// Time for a gateway to come to rest before its memory is read.
const REST: Duration = Duration::from_millis(1200);
/// Between the changes of one key.
const CHANGE_EVERY: Duration = Duration::from_millis(20);
const CHANGE_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at a change.
const LOOK_EVERY: Duration = Duration::from_micros(250);
const CHAT: &str = "/v1/chat/completions";

/// A start.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Start {
    /// From the start of the process until the last caller key is known on the proxy listener.
    pub(crate) serves_ms: f64,
    /// Until `/status/config` says so, with all counts.
    pub(crate) synced_ms: f64,
    /// Processor time until then.
    pub(crate) cpu_ms: f64,
    pub(crate) rss_kib: u64,
    pub(crate) peak_kib: u64,
}

/// When one changed key was acted on, in ms.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Change {
    /// After the change was sent to etcd.
    pub(crate) after_sent: f64,
    /// After etcd had answered.
    pub(crate) after_answer: f64,
    /// After the watch of the benchmark had it.
    pub(crate) after_watch: f64,
}

/// Changes of one key under many.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Applied {
    pub(crate) changes: Vec<Change>,
    /// Processor time of the gateway for a change, without the threads that serve.
    pub(crate) cpu_us: f64,
    /// Resident memory afterwards.
    pub(crate) rss_kib: u64,
}

/// Everything of this part.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Scale {
    pub(crate) size: Size,
    pub(crate) etcd: String,
    pub(crate) empty_rss_kib: Vec<u64>,
    pub(crate) from_etcd: Vec<Start>,
    pub(crate) from_embedded: Vec<Start>,
    pub(crate) from_cache: Vec<Start>,
    pub(crate) without_cache: Applied,
    pub(crate) with_cache: Applied,
}

/// What is needed to measure.
pub(crate) struct Setup<'a> {
    pub(crate) gateway: &'a Path,
    pub(crate) dir: &'a Path,
    pub(crate) proxy_cpu: usize,
    pub(crate) load_cpu: usize,
    pub(crate) starts: usize,
    pub(crate) changes: usize,
    pub(crate) say: &'a dyn Fn(&str),
}

impl Setup<'_> {
    pub(crate) async fn run(&self) -> Result<Scale> {
        let version = crate::etcd::version().context("etcd is not installed: apt-get install etcd-server")?;
        let rows = rows::rows(BIG, ([127, 0, 0, 1], 9).into());
        let etcd = Etcd::start(self.dir, self.load_cpu).await?;
        let on = |prefix, cache: Option<PathBuf>| Store::Etcd { endpoint: etcd.endpoint, prefix, cache };
        let mut empty_rss_kib = Vec::new();
        for _ in 0..self.starts.min(3) {
            empty_rss_kib.push(self.empty(&on(EMPTY_PREFIX, None)).await?);
        }
        let started = Instant::now();
        etcd.client().put_all(&rows.iter().map(stored).collect::<Result<Vec<_>>>()?).await?;
        (self.say)(&format!("{} rows written to etcd in {} ms", rows.len(), started.elapsed().as_millis()));
        let from_etcd = self.starts("etcd", &on(PREFIX, None), &|_| true).await?;

        let without_cache = self.apply(&etcd, &on(PREFIX, None), 0).await?;
        let cache = self.dir.join("config_cache.json");
        let cached = on(PREFIX, Some(cache.clone()));
        let with_cache = self.apply(&etcd, &cached, 1).await?;
        ensure!(cache.exists(), "the gateway has written no cache file");
        drop(etcd);
        let from_cache = self.starts("cache file", &cached, &|status| {
            status["source"]["from_cache"] == true && status["source"]["connected"] == false
        });
        let from_cache = from_cache.await?;

        let embedded = Store::Embedded(self.dir.join("embedded"));
        let started = Instant::now();
        let mut plane = self.plane(&embedded)?;
        plane.fill(BIG, &rows).await?;
        drop(plane);
        (self.say)(&format!("the embedded store filled in {} ms", started.elapsed().as_millis()));
        let from_embedded = self.starts("embedded store", &embedded, &|_| true).await?;
        Ok(Scale {
            size: BIG,
            etcd: version,
            empty_rss_kib,
            from_etcd,
            from_embedded,
            from_cache,
            without_cache,
            with_cache,
        })
    }

    fn plane(&self, store: &Store) -> Result<Plane> {
        Plane::start(self.gateway, self.dir, self.proxy_cpu, store)
    }

    async fn empty(&self, store: &Store) -> Result<u64> {
        let mut plane = self.plane(store)?;
        plane.reaches(|status| status["state"] == "empty").await?;
        tokio::time::sleep(REST).await;
        let rss = process::rss_kib(plane.pid())?;
        (self.say)(&format!("empty prefix: {rss} KiB resident"));
        Ok(rss)
    }

    async fn starts(
        &self,
        name: &str,
        store: &Store,
        also: &dyn Fn(&serde_json::Value) -> bool,
    ) -> Result<Vec<Start>> {
        let mut starts = Vec::new();
        for _ in 0..self.starts {
            let mut plane = self.plane(store)?;
            let last = secret(BIG.api_keys - 1, 0);
            let serves = plane.knows(&last).await?;
            let synced = plane.reaches(|status| is_whole(status, BIG) && also(status)).await?;
            let cpu = process::cpu_time(plane.pid())?;
            tokio::time::sleep(REST).await;
            let start = Start {
                serves_ms: ms(serves),
                synced_ms: ms(synced),
                cpu_ms: ms(cpu),
                rss_kib: process::rss_kib(plane.pid())?,
                peak_kib: process::peak_kib(plane.pid())?,
            };
            (self.say)(&format!(
                "start from the {name}: serves after {:.0} ms, synced {:.0} ms, {:.0} ms CPU, {} KiB (peak {})",
                start.serves_ms, start.synced_ms, start.cpu_ms, start.rss_kib, start.peak_kib
            ));
            starts.push(start);
        }
        Ok(starts)
    }

    /// Changes one key after another in etcd, and looks at the gateway until it acts.
    async fn apply(&self, etcd: &Etcd, store: &Store, generation: u32) -> Result<Applied> {
        let mut plane = self.plane(store)?;
        plane.reaches(|status| is_whole(status, BIG)).await?;
        // With a cache file: the first one is written.
        tokio::time::sleep(REST).await;
        let (watch, mut client) = (etcd.watch(&format!("{PREFIX}/")).await?, etcd.client());
        let mut caller = plane.caller("");
        let rows = rows::rows(BIG, ([127, 0, 0, 1], 9).into());
        let first = rows.len() - BIG.api_keys;
        let before = plane.ran()?.others;
        let mut changes = Vec::new();
        for turn in 0..self.changes {
            let next = tokio::time::Instant::now() + CHANGE_EVERY;
            // All over the table, and never the last key, by which a start is recognised.
            let at = 1 + turn * 37 % (BIG.api_keys - 2);
            let (old, new) = (secret(at, generation), secret(at, generation + 1));
            let (key, mut document) =
                (format!("{PREFIX}/api_keys/{}", key_id(at)), rows[first + at].2.clone());
            document["key_hash"] = hash(&new).into();
            let sent = Instant::now();
            let revision = client.put(&key, &document.to_string()).await?;
            let answered = Instant::now();
            caller.use_key(&new);
            while caller.call("POST", CHAT, Some(&question(None))).await?.0 != KEY_KNOWN {
                ensure!(answered.elapsed() < CHANGE_WITHIN, "a change in etcd is not acted on");
                precise_sleep(LOOK_EVERY).await?;
            }
            let acted = Instant::now();
            caller.use_key(&old);
            let (status, _) = caller.call("POST", CHAT, Some(&question(None))).await?;
            ensure!(status == KEY_UNKNOWN, "the replaced secret is answered with {status}");
            let watched = watch.seen(revision).await?;
            changes.push(Change {
                after_sent: ms(acted - sent),
                after_answer: ms(acted - answered),
                after_watch: ms(acted.saturating_duration_since(watched)),
            });
            tokio::time::sleep_until(next).await;
        }
        let used = plane.ran()?.others - before;
        tokio::time::sleep(REST).await;
        let applied = Applied {
            cpu_us: used.as_secs_f64() * 1e6 / self.changes as f64,
            changes,
            rss_kib: process::rss_kib(plane.pid())?,
        };
        let (p50, p99) = (applied.percentile(0.5, AFTER_WATCH), applied.percentile(0.99, AFTER_WATCH));
        (self.say)(&format!(
            "{} changes: acted on {p50:.2} ms (p99 {p99:.2}) after the watch, {:.0} µs CPU each, {} KiB",
            applied.changes.len(),
            applied.cpu_us,
            applied.rss_kib
        ));
        Ok(applied)
    }
}

pub(crate) type Figure = fn(&Change) -> f64;
pub(crate) const AFTER_SENT: Figure = |change| change.after_sent;
pub(crate) const AFTER_ANSWER: Figure = |change| change.after_answer;
pub(crate) const AFTER_WATCH: Figure = |change| change.after_watch;

impl Applied {
    /// In ms.
    pub(crate) fn percentile(&self, share: f64, figure: Figure) -> f64 {
        let mut nanos: Vec<u64> = self.changes.iter().map(|change| (figure(change) * 1e6) as u64).collect();
        nanos.sort_unstable();
        crate::load::percentile(&nanos, share) / 1e3
    }
}

fn stored((kind, id, document): &Row) -> Result<(String, String)> {
    Ok((format!("{PREFIX}/{kind}/{id}"), serde_json::to_string(document)?))
}

/// The timer of the runtime counts whole milliseconds.
async fn precise_sleep(time: Duration) -> Result<()> {
    crate::pace::Pacer::every(time)?.tick().await
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
