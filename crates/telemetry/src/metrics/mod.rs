//! Metrics: written to per-worker shards, merged and named when scraped.

mod exposition;
mod histogram;
mod labels;
pub mod names;
mod render;
mod shard;
mod sketch;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

pub use self::{
    exposition::{Exposition, Kind, Value},
    histogram::Buckets,
    labels::{CallerId, CallerLabels, ModelId, TargetId, TargetLabels},
    shard::{AuthDecision, Shard},
};
use self::{labels::Interner, shard::Shared};
pub(crate) use self::{
    labels::UNKNOWN,
    shard::{Closing, Observed, RequestKey, Tokens},
};
use crate::{
    client_type::{ClientTypeRule, ClientTypes},
    clock::{Clock, SystemClock},
    health::ModelHealth,
};

/// What telemetry is told at start.
#[derive(Clone, Debug, Default)]
pub struct TelemetryConfig {
    /// Edges of the latency histograms.
    pub buckets: Buckets,
    /// Operator rules for the `client_type` label, in order.
    pub client_type_rules: Vec<ClientTypeRule>,
    /// Value of the `env_id` label; `unknown` when there is none.
    pub env_id: Option<String>,
}

/// All metrics of the process.
pub struct Telemetry {
    shared: Arc<Shared>,
    env_id: String,
    shards: Mutex<Vec<Arc<Shard>>>,
    labels: Mutex<Interner>,
    deployments: Mutex<Vec<(TargetId, Arc<ModelHealth>)>>,
}

impl Telemetry {
    /// Telemetry on the system clock.
    pub fn new(config: TelemetryConfig) -> Self {
        Self::with_clock(config, Arc::new(SystemClock))
    }

    /// Telemetry on a given clock.
    pub fn with_clock(config: TelemetryConfig, clock: Arc<dyn Clock>) -> Self {
        let origin: Instant = clock.now();
        Self {
            shared: Arc::new(Shared {
                buckets: config.buckets,
                clients: Arc::new(ClientTypes::new(config.client_type_rules)),
                clock,
                origin,
            }),
            env_id: config.env_id.unwrap_or_else(|| UNKNOWN.into()),
            shards: Mutex::default(),
            labels: Mutex::new(Interner::new()),
            deployments: Mutex::default(),
        }
    }

    /// A new shard. Each worker thread takes one and keeps it.
    pub fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::new(self.shared.clone()));
        lock(&self.shards).push(shard.clone());
        shard
    }

    /// The id of a configured model name. Names are kept for ever, so never
    /// call this with a name that a caller invented.
    pub fn model(&self, name: &str) -> ModelId {
        lock(&self.labels).model(name)
    }

    /// The id of a configured caller.
    pub fn caller(&self, labels: CallerLabels<'_>) -> CallerId {
        lock(&self.labels).caller(labels)
    }

    /// The id of a configured target.
    pub fn target(&self, labels: TargetLabels<'_>) -> TargetId {
        lock(&self.labels).target(labels)
    }

    /// Says which targets there are and whose health they have. Replaces the
    /// earlier list, so the state of a removed target disappears.
    pub fn set_deployments(&self, deployments: Vec<(TargetId, Arc<ModelHealth>)>) {
        *lock(&self.deployments) = deployments;
    }

    /// The whole exposition of the families kept here.
    pub fn render(&self) -> String {
        render::render(self)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
