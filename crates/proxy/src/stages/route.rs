//! Route: which targets are tried, and within which limits.

use std::{sync::Arc, time::Duration};

use aisix_core::Error;

use super::Addressed;
use crate::{gateway::Settings, snapshot::Target};

/// The target to try and how.
pub(crate) struct Plan {
    pub(crate) target: Arc<Target>,
    pub(crate) upstream_model: String,
    /// Attempts after the first.
    pub(crate) retries: u32,
    /// Whether retries were asked for, which makes timeouts retryable too.
    pub(crate) explicit_retries: bool,
    /// Deadline of a buffered attempt, its body included.
    pub(crate) timeout: Option<Duration>,
    /// Bound of each wait of a streamed attempt.
    pub(crate) stream: Budget,
}

/// Bound of each wait for a stream: for its head and for each chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) gap: Option<Duration>,
    /// Whether the status is held until the first chunk has arrived. Only a
    /// budget set for the model does that, so that defaults do not delay the
    /// head and its heartbeats.
    pub(crate) hold: bool,
}

/// Plans the attempts.
pub(crate) fn route(addressed: Addressed, settings: &Settings) -> Result<Plan, Error> {
    let target = addressed.entry.target.clone()?;
    let not_zero = |limit: Duration| (!limit.is_zero()).then_some(limit);
    let stream = match (target.stream_timeout, target.timeout) {
        (Some(gap), _) => Budget { gap: Some(gap), hold: true },
        (None, Some(own)) => Budget { gap: not_zero(own), hold: !own.is_zero() },
        (None, None) => Budget { gap: settings.stream_timeout.or(settings.timeout), hold: false },
    };
    Ok(Plan {
        retries: target.retries.unwrap_or(settings.retries),
        explicit_retries: target.retries.is_some(),
        timeout: target.timeout.map_or(settings.timeout, not_zero),
        stream,
        upstream_model: addressed.upstream_model,
        target,
    })
}
