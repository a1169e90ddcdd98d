//! The metrics of one worker thread.
//!
//! A closed record costs one lock that nobody else holds (but for moments
//! during a scrape) and one lookup under a small copyable key. Families are
//! derived from these cells at scrape time.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use aisix_core::Usage;
use foldhash::{HashMap, HashMapExt};

use super::{
    histogram::{Buckets, Histogram},
    labels::{CallerId, ModelId, TargetId},
    lock,
    sketch::{SPAN_SECS, Summary, View},
};
use crate::{
    client_type::{ClientType, ClientTypeCache, ClientTypes},
    clock::Clock,
    endpoint::{EndpointInfo, EndpointRef},
};

/// Cells folded per lock during a scrape, so that a worker waits for at most
/// this many.
const FOLD_CHUNK: usize = 64;

/// What all shards of a process have in common.
pub(crate) struct Shared {
    pub(crate) buckets: Buckets,
    pub(crate) clients: Arc<ClientTypes>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) origin: Instant,
}

impl Shared {
    /// The span of time that `now` falls into.
    pub(crate) fn epoch(&self, now: Instant) -> u32 {
        (now.saturating_duration_since(self.origin).as_secs() / SPAN_SECS) as u32
    }
}

/// One judgement on a credential. All values come from the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuthDecision {
    /// `api_key`, `none`, ...
    pub method: &'static str,
    /// `allowed` or `denied`.
    pub result: &'static str,
    /// Why it was denied; `none` when allowed.
    pub reason: &'static str,
}

/// What the request families of one answered (or abandoned) request depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RequestKey {
    pub(crate) endpoint: EndpointRef,
    pub(crate) model: ModelId,
    pub(crate) target: Option<TargetId>,
    pub(crate) caller: Option<CallerId>,
    /// Only set when tokens were used: no other family has this label.
    pub(crate) client: ClientType,
    pub(crate) status: u16,
    pub(crate) stream: bool,
    pub(crate) fallback: bool,
    /// The client left before the response head.
    pub(crate) cancelled: bool,
}

/// Token counts and cost.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tokens {
    pub(crate) consumed: u64,
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) total: u64,
    pub(crate) micro_usd: u64,
}

impl Tokens {
    pub(crate) fn new(usage: &Usage, micro_usd: u64) -> Self {
        Self {
            consumed: usage.total_or_sum(),
            input: usage.input,
            output: usage.output,
            total: usage.processed(),
            micro_usd,
        }
    }

    fn add(&mut self, other: &Self) {
        // Counts come from upstreams, which may say anything.
        self.consumed = self.consumed.saturating_add(other.consumed);
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.total = self.total.saturating_add(other.total);
        self.micro_usd = self.micro_usd.saturating_add(other.micro_usd);
    }
}

/// How a record ended, as far as metrics care.
pub(crate) struct Closing {
    pub(crate) endpoint: &'static EndpointInfo,
    /// Whether the request still counts as in flight.
    pub(crate) in_flight: bool,
    /// Absent when the request families leave the request out.
    pub(crate) observed: Option<Observed>,
}

/// The numbers of a closed record.
pub(crate) struct Observed {
    pub(crate) key: RequestKey,
    pub(crate) now: Instant,
    /// From request to response head.
    pub(crate) handler: Duration,
    /// From request to the end of the response.
    pub(crate) total: Duration,
    pub(crate) ttft: Option<Duration>,
    pub(crate) tokens: Tokens,
}

/// The metrics of one worker. Methods may be called from anywhere, but only
/// stay cheap while one thread does.
pub struct Shard {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

struct State {
    in_flight: HashMap<EndpointRef, u64>,
    request_index: HashMap<RequestKey, usize>,
    /// Append-only, so that a scrape can go through it in pieces.
    requests: Vec<(RequestKey, RequestCell)>,
    latency_index: HashMap<LatencyKey, usize>,
    latencies: Vec<(LatencyKey, LatencyCell)>,
    targets: Vec<TargetCell>,
    auth: HashMap<AuthDecision, u64>,
    body_limit: HashMap<(EndpointRef, &'static str), u64>,
    clients: ClientTypeCache,
}

struct RequestCell {
    requests: u64,
    handler: Summary,
    ttft: Option<Box<Summary>>,
    tokens: Tokens,
    /// Index of the histograms this cell feeds; they have fewer labels.
    latency: usize,
}

/// What the latency histograms depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LatencyKey {
    pub(crate) endpoint: EndpointRef,
    pub(crate) model: ModelId,
    pub(crate) target: Option<TargetId>,
    pub(crate) class: &'static str,
    pub(crate) stream: bool,
}

#[derive(Clone, Default)]
pub(crate) struct LatencyCell {
    pub(crate) e2e: Histogram,
    pub(crate) ttft: Histogram,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct TargetCell {
    pub(crate) successes: u64,
    pub(crate) failures: u64,
    pub(crate) cooled_down: u64,
}

impl Shard {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let clients = ClientTypeCache::new(shared.clients.clone());
        Self {
            shared,
            state: Mutex::new(State {
                in_flight: HashMap::new(),
                request_index: HashMap::new(),
                requests: Vec::new(),
                latency_index: HashMap::new(),
                latencies: Vec::new(),
                targets: Vec::new(),
                auth: HashMap::new(),
                body_limit: HashMap::new(),
                clients,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    /// Counts a judgement on a credential.
    pub fn auth(&self, decision: AuthDecision) {
        *self.state().auth.entry(decision).or_default() += 1;
    }

    /// Counts an upstream attempt that reached the network.
    pub fn attempt(&self, target: TargetId, ok: bool) {
        let mut state = self.state();
        let cell = state.target(target);
        if ok {
            cell.successes += 1;
        } else {
            cell.failures += 1;
        }
    }

    /// Counts an entry into cooldown.
    pub fn cooled_down(&self, target: TargetId) {
        self.state().target(target).cooled_down += 1;
    }

    /// Counts a request refused for its declared length; `outcome` says how
    /// draining its body ended.
    pub fn body_limit_rejected(&self, endpoint: &'static EndpointInfo, outcome: &'static str) {
        let key = (EndpointRef(endpoint), outcome);
        *self.state().body_limit.entry(key).or_default() += 1;
    }

    /// A request has arrived.
    pub(crate) fn opened(&self, endpoint: &'static EndpointInfo, user_agent: Option<&[u8]>) -> ClientType {
        let mut state = self.state();
        *state.in_flight.entry(EndpointRef(endpoint)).or_default() += 1;
        if endpoint.tokens { state.clients.classify(user_agent) } else { ClientType::UNKNOWN }
    }

    /// The handler of a request has returned.
    pub(crate) fn answered(&self, endpoint: &'static EndpointInfo) {
        self.state().left(endpoint);
    }

    /// A record is closed.
    pub(crate) fn closed(&self, closing: &Closing) {
        let mut state = self.state();
        if closing.in_flight {
            state.left(closing.endpoint);
        }
        if let Some(observed) = &closing.observed {
            state.observe(observed, &self.shared);
        }
    }

    /// Adds everything in this shard to `merged`.
    pub(super) fn fold_into(&self, merged: &mut Merged, epoch: u32) {
        {
            let state = self.state();
            for (endpoint, count) in &state.in_flight {
                *merged.in_flight.entry(*endpoint).or_default() += count;
            }
            for (decision, count) in &state.auth {
                *merged.auth.entry(*decision).or_default() += count;
            }
            for (key, count) in &state.body_limit {
                *merged.body_limit.entry(*key).or_default() += count;
            }
            let targets = state.targets.len().max(merged.targets.len());
            merged.targets.resize(targets, TargetCell::default());
            for (mine, theirs) in merged.targets.iter_mut().zip(&state.targets) {
                mine.successes += theirs.successes;
                mine.failures += theirs.failures;
                mine.cooled_down += theirs.cooled_down;
            }
        }
        self.fold_requests(merged, epoch);
        self.fold_latencies(merged);
    }

    fn fold_requests(&self, merged: &mut Merged, epoch: u32) {
        let mut from = 0;
        loop {
            let mut state = self.state();
            let to = state.requests.len().min(from + FOLD_CHUNK);
            if from == to {
                return;
            }
            for (key, cell) in &mut state.requests[from..to] {
                let sum = merged.requests.entry(*key).or_default();
                sum.requests += cell.requests;
                cell.handler.fold_into(&mut sum.handler, epoch);
                if let Some(ttft) = &mut cell.ttft {
                    ttft.fold_into(&mut sum.ttft, epoch);
                }
                sum.tokens.add(&cell.tokens);
            }
            from = to;
        }
    }

    fn fold_latencies(&self, merged: &mut Merged) {
        let mut from = 0;
        loop {
            let state = self.state();
            let to = state.latencies.len().min(from + FOLD_CHUNK);
            if from == to {
                return;
            }
            for (key, cell) in &state.latencies[from..to] {
                let sum = merged.latencies.entry(*key).or_default();
                sum.e2e.merge(&cell.e2e);
                sum.ttft.merge(&cell.ttft);
            }
            from = to;
        }
    }
}

impl State {
    fn left(&mut self, endpoint: &'static EndpointInfo) {
        let count = self.in_flight.entry(EndpointRef(endpoint)).or_default();
        *count = count.saturating_sub(1);
    }

    fn target(&mut self, target: TargetId) -> &mut TargetCell {
        let index = target.index();
        if self.targets.len() <= index {
            self.targets.resize(index + 1, TargetCell::default());
        }
        &mut self.targets[index]
    }

    fn observe(&mut self, observed: &Observed, shared: &Shared) {
        let index = match self.request_index.get(&observed.key) {
            Some(index) => *index,
            None => self.add_request(observed.key),
        };
        let (key, cell) = &mut self.requests[index];
        cell.requests += 1;
        cell.tokens.add(&observed.tokens);
        if key.cancelled {
            return;
        }
        let epoch = shared.epoch(observed.now);
        cell.handler.observe(observed.handler.as_secs_f64(), epoch);
        let endpoint = key.endpoint.0;
        let latency = &mut self.latencies[cell.latency].1;
        if endpoint.e2e {
            latency.e2e.observe(&shared.buckets.request_e2e_latency, observed.total.as_secs_f64());
        }
        let ttft = observed.ttft.filter(|ttft| !ttft.is_zero());
        if let Some(ttft) = ttft.filter(|_| endpoint.ttft && key.stream) {
            let seconds = ttft.as_secs_f64();
            latency.ttft.observe(&shared.buckets.request_ttft, seconds);
            let summary = cell.ttft.get_or_insert_default();
            summary.observe(seconds, epoch);
        }
    }

    fn add_request(&mut self, key: RequestKey) -> usize {
        let latency_key = LatencyKey {
            endpoint: key.endpoint,
            model: key.model,
            target: key.target,
            class: status_class(key.status),
            stream: key.stream,
        };
        let latency = *self.latency_index.entry(latency_key).or_insert_with(|| {
            self.latencies.push((latency_key, LatencyCell::default()));
            self.latencies.len() - 1
        });
        let cell = RequestCell {
            requests: 0,
            handler: Summary::default(),
            ttft: None,
            tokens: Tokens::default(),
            latency,
        };
        self.requests.push((key, cell));
        let index = self.requests.len() - 1;
        self.request_index.insert(key, index);
        index
    }
}

fn status_class(status: u16) -> &'static str {
    match status {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}

/// All shards added up.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) in_flight: HashMap<EndpointRef, u64>,
    pub(super) requests: HashMap<RequestKey, RequestSum>,
    pub(super) latencies: HashMap<LatencyKey, LatencyCell>,
    pub(super) targets: Vec<TargetCell>,
    pub(super) auth: HashMap<AuthDecision, u64>,
    pub(super) body_limit: HashMap<(EndpointRef, &'static str), u64>,
}

#[derive(Default)]
pub(super) struct RequestSum {
    pub(super) requests: u64,
    pub(super) handler: View,
    pub(super) ttft: View,
    pub(super) tokens: Tokens,
}
