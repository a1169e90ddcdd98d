//! Configuration changes while requests are served: what they do to the latency of the requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::Api;
use crate::load::{Schedule, percentile};
use crate::payload::CALLER_KEY;
use crate::plane::Plane;
use crate::rows::{
    KEY_KNOWN, MODEL_KNOWN, SERVED, Size, hash, key_id, model_id, model_name, question, secret,
};

/// Changes a second.
pub(crate) const RATE: f64 = 200.0;
/// The resources that serve the load, and some to be looked at.
pub(crate) const SMALL: Size = Size { api_keys: 1 + LANES, models: 1 + LANES, provider_keys: 1 };
pub(crate) const BIG: Size = Size { api_keys: 10_000, models: 1_000, provider_keys: 100 };
/// Kept connections, each with models and keys of its own.
const LANES: usize = 2;
/// An operation fails this often before the run ends.
const FAILURES_MAX: u64 = 20;

/// What was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Changes {
    /// Changes that were answered with 200.
    pub(crate) made: u64,
    pub(crate) per_second: f64,
    /// Answers that differ, and changes that were not in force when they were answered.
    pub(crate) failures: u64,
    pub(crate) first_failure: Option<String>,
    /// From the moment a change was due to its answer.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Looks at the gateway from the caller's side, each of which found what was expected.
    pub(crate) seen: u64,
    /// Time that the threads which do not serve ran for a change; nothing to tell without one.
    pub(crate) others_us: f64,
    /// Time that the threads which serve ran for a request of the load; the looks are in it.
    pub(crate) workers_us: f64,
}

/// One connection's work.
struct Lane {
    admin: Api,
    serving: Api,
    probing: Api,
    number: usize,
    size: Size,
    steps: u32,
    changes: bool,
    /// Of its last change.
    revision: u64,
    /// Secrets and names as they are now, by number of changes.
    generations: Vec<(u32, u32)>,
    latencies: Vec<u64>,
    made: u64,
    seen: u64,
    failures: u64,
    first_failure: Option<String>,
}

/// Writes at [`RATE`] for some time, or, without `changes`, only looks as often.
pub(crate) struct Writer {
    lanes: Vec<Lane>,
}

impl Writer {
    pub(crate) fn new(plane: &Plane, size: Size) -> Self {
        let lane = |number| Lane {
            admin: plane.admin(),
            serving: plane.caller(CALLER_KEY),
            probing: plane.caller(""),
            number,
            size,
            steps: 0,
            changes: true,
            revision: 0,
            generations: vec![(0, 0); size.api_keys],
            latencies: Vec::new(),
            made: 0,
            seen: 0,
            failures: 0,
            first_failure: None,
        };
        Self { lanes: (0..LANES).map(lane).collect() }
    }

    /// Works for some time.
    pub(crate) async fn run(&mut self, plane: &Plane, seconds: f64, changes: bool) -> Result<Changes> {
        let before = plane.ran()?.others;
        let started = Instant::now();
        let period = Duration::from_secs_f64(1.0 / RATE);
        let schedule = Arc::new(Schedule::paced((RATE * seconds) as u64, period));
        let mut tasks = tokio::task::JoinSet::new();
        for mut lane in self.lanes.drain(..) {
            let schedule = Arc::clone(&schedule);
            lane.begin(changes);
            tasks.spawn(async move {
                while let Some(due) = schedule.next().await {
                    // What cannot be done in time is left, and missing in the rate.
                    if started.elapsed().as_secs_f64() > seconds {
                        break;
                    }
                    lane.step(due).await;
                    if lane.failures > FAILURES_MAX {
                        break;
                    }
                }
                lane
            });
        }
        schedule.release(LANES).await?;
        let mut done = Changes::default();
        let mut latencies = Vec::new();
        while let Some(lane) = tasks.join_next().await {
            let mut lane = lane?;
            done.made += lane.made;
            done.seen += lane.seen;
            done.failures += lane.failures;
            done.first_failure = done.first_failure.or(lane.first_failure.take());
            latencies.append(&mut lane.latencies);
            self.lanes.push(lane);
        }
        let (seconds, others) = (started.elapsed().as_secs_f64(), plane.ran()?.others - before);
        latencies.sort_unstable();
        done.per_second = done.made as f64 / seconds;
        done.p50_us = percentile(&latencies, 0.50);
        done.p99_us = percentile(&latencies, 0.99);
        done.others_us = others.as_secs_f64() * 1e6 / done.made as f64;
        Ok(done)
    }
}

impl Lane {
    fn begin(&mut self, changes: bool) {
        self.changes = changes;
        (self.made, self.seen, self.failures) = (0, 0, 0);
        self.latencies.clear();
    }

    /// The resources of this lane take turns.
    fn own(&self, count: usize) -> usize {
        let (first, turns) = (1 + self.number, (count - 1) / LANES);
        first + (self.steps as usize / 4 % turns) * LANES
    }

    async fn step(&mut self, due: Instant) {
        if let Err(error) = self.change(due).await {
            self.failures += 1;
            self.first_failure.get_or_insert_with(|| format!("{error:#}"));
        }
        self.steps += 1;
    }

    /// Every other change is of the pair that serves. It is in force with the next one, since changes
    /// take effect in their order.
    async fn change(&mut self, due: Instant) -> Result<()> {
        let steps = self.steps;
        match steps % 4 {
            0 => {
                let patch = json!({"timeout": 60_000 + steps as usize * LANES + self.number});
                self.patch("models", SERVED, patch, due).await
            }
            1 => {
                let at = self.own(self.size.models);
                let generation = self.generations[at].0 + u32::from(self.changes);
                let name = model_name(at, generation);
                self.patch("models", &model_id(at), json!({"display_name": name}), due).await?;
                self.generations[at].0 = generation;
                let path = question(Some(&name));
                let (status, _) = self.serving.call("POST", CHAT, Some(&path)).await?;
                ensure!(status == MODEL_KNOWN, "{name} is not in force: status {status}");
                self.seen += 1;
                Ok(())
            }
            2 => {
                let patch = json!({"user_name": format!("user {}-{}", self.number, steps / 4 % 4)});
                self.patch("api_keys", SERVED, patch, due).await
            }
            _ => {
                let at = self.own(self.size.api_keys);
                let generation = self.generations[at].1 + u32::from(self.changes);
                let secret = secret(at, generation);
                self.patch("api_keys", &key_id(at), json!({"key_hash": hash(&secret)}), due).await?;
                self.generations[at].1 = generation;
                self.probing.use_key(&secret);
                let (status, _) = self.probing.call("POST", CHAT, Some(&question(None))).await?;
                ensure!(status == KEY_KNOWN, "the secret of {} is not in force: status {status}", key_id(at));
                self.seen += 1;
                Ok(())
            }
        }
    }

    async fn patch(&mut self, kind: &str, id: &str, patch: Value, due: Instant) -> Result<()> {
        if !self.changes {
            return Ok(());
        }
        let path = format!("/admin/v1/{kind}/{id}");
        let (status, reply) = self.admin.call("PATCH", &path, Some(&patch)).await?;
        ensure!(status == 200, "PATCH {path}: status {status}: {}", String::from_utf8_lossy(&reply));
        let revision = serde_json::from_slice::<Value>(&reply)?["revision"].as_u64().unwrap_or(0);
        ensure!(revision > self.revision, "PATCH {path}: revision {revision} after {}", self.revision);
        self.revision = revision;
        self.made += 1;
        self.latencies.push(due.elapsed().as_nanos() as u64);
        Ok(())
    }
}

const CHAT: &str = "/v1/chat/completions";
