//! What the workers share, and a worker.

use std::{sync::Arc, time::Duration};

use aisix_core::Lifecycle;
use aisix_telemetry::{HealthTable, Shard, Telemetry};
use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::{
    rewrite::Rewrite,
    snapshot::Snapshot,
    upstream::{ProxyEnv, Trust, Upstream, UpstreamSettings},
};

/// Process settings that the pipeline needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest request body in bytes.
    pub body_limit: Option<u64>,
    /// Longest wait for the next bytes of a request body.
    pub body_timeout: Option<Duration>,
    /// Headers that may carry the caller's request id, in order.
    pub request_id_headers: Vec<http::HeaderName>,
    /// Peers whose forwarded-for header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether trusted hops are skipped from the right.
    pub real_ip_recursive: bool,
    /// The forwarded-for header.
    pub real_ip_header: http::HeaderName,
    /// Rewrite rules.
    pub rewrites: Vec<Rewrite>,
    /// Deployment default deadline of a buffered request.
    pub timeout: Option<Duration>,
    /// Deployment default of the longest gap in a stream.
    pub stream_timeout: Option<Duration>,
    /// Deployment default of retries.
    pub retries: u32,
    /// Silence after which a stream sends a comment.
    pub sse_keepalive: Option<Duration>,
}

/// What the binary hands over to build a gateway.
pub struct GatewayParts {
    /// Process settings.
    pub settings: Settings,
    /// Connection settings.
    pub upstream: UpstreamSettings,
    /// Trusted certificates.
    pub trust: Arc<Trust>,
    /// Forward proxies.
    pub proxies: ProxyEnv,
    /// Metrics and log.
    pub telemetry: Arc<Telemetry>,
    /// Health of models.
    pub health: Arc<HealthTable>,
    /// State of the process.
    pub lifecycle: Arc<Lifecycle>,
    /// The first configuration.
    pub snapshot: Snapshot,
}

/// Everything the workers share.
pub struct Gateway {
    pub(crate) settings: Settings,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    upstream: UpstreamSettings,
    trust: Arc<Trust>,
    proxies: ProxyEnv,
    telemetry: Arc<Telemetry>,
    health: Arc<HealthTable>,
}

impl Gateway {
    /// A gateway that serves the given configuration.
    pub fn new(parts: GatewayParts) -> Arc<Self> {
        Arc::new(Self {
            settings: parts.settings,
            lifecycle: parts.lifecycle,
            snapshot: ArcSwap::from_pointee(parts.snapshot),
            upstream: parts.upstream,
            trust: parts.trust,
            proxies: parts.proxies,
            telemetry: parts.telemetry,
            health: parts.health,
        })
    }

    /// Compiles and applies a configuration. Requests under way keep the one
    /// they began with.
    pub fn apply(&self, resources: &aisix_config::ResourceSet) {
        let previous = self.snapshot.load();
        let next = Snapshot::compile(resources, &self.telemetry, &self.health, Some(&previous));
        self.snapshot.store(Arc::new(next));
    }

    /// A worker: connections and metrics of its own.
    pub fn worker(self: &Arc<Self>) -> Arc<Worker> {
        Arc::new(Worker {
            gateway: self.clone(),
            upstream: Upstream::new(&self.upstream, self.trust.clone(), &self.proxies),
            shard: self.telemetry.shard(),
        })
    }
}

/// Serves requests of one thread.
pub struct Worker {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) upstream: Upstream,
    pub(crate) shard: Arc<Shard>,
}

impl Worker {
    /// Closes upstream connections that have been idle for too long. To be
    /// called every few seconds.
    pub fn sweep(&self) {
        self.upstream.sweep();
    }
}
