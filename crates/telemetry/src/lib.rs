//! The record of a request and everything made of it: the access log, the
//! metrics, and the health of models as seen on real traffic.
//!
//! Each worker thread owns a [`Shard`]; a [`Record`] is opened on it when a
//! request arrives and closed on it exactly once. Labels are interned while
//! the configuration is compiled, so a record only carries small ids. All
//! text is made when somebody scrapes.

mod client_type;
mod clock;
mod endpoint;
mod health;
pub mod log;
pub mod metrics;
mod record;
mod text;

pub use client_type::ClientTypeRule;
pub use clock::{Clock, SystemClock};
pub use endpoint::EndpointInfo;
pub use health::{AttemptFailure, CooldownPolicy, EpochTime, HealthTable, HealthView, ModelHealth};
pub use metrics::{
    AuthDecision, Buckets, CallerId, CallerLabels, ModelId, Shard, TargetId, TargetLabels, Telemetry,
    TelemetryConfig,
};
pub use record::{End, Record, RecordStart, RecordedError};
