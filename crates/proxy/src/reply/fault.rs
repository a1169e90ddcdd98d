//! Upstream failures as errors for the caller.

use std::time::Duration;

use aisix_core::{Error, Reason};
use aisix_telemetry::{AttemptFailure, Shard};
use aisix_wire::{ReplyError, UpstreamFault};

use crate::snapshot::Target;

/// An error status: the upstream's words for a 4xx, none of them otherwise.
pub(crate) fn of_status(fault: UpstreamFault, status: u16, target: &Target) -> Error {
    let fault = fault.presentable(target.secret());
    let error = match status {
        400..=499 => Error::new(Reason::UpstreamStatus, fault.message)
            .with_status(status)
            .with_code(fault.code)
            .with_param(fault.param),
        _ => Error::new(Reason::UpstreamStatus, format!("upstream returned {status}"))
            .with_detail(format!("upstream returned {status}: {}", fault.message)),
    };
    error.with_upstream_status(status)
}

/// A bad reply, while the response has not begun.
pub(crate) fn before_commit(error: ReplyError, target: &Target) -> Error {
    match error {
        ReplyError::InBand(fault) => {
            let fault = fault.presentable(target.secret());
            let status = fault.status;
            let shown = of_status(fault.clone(), status.unwrap_or(502), target);
            let error = Error::new(Reason::UpstreamInBand, shown.message().to_owned())
                .with_status(shown.status())
                .with_code(shown.code().map(str::to_owned))
                .with_param(shown.param().map(str::to_owned))
                .with_detail(format!("upstream reported an error in a 2xx response: {}", fault.message));
            match status {
                Some(status) => error.with_upstream_status(status),
                None => error,
            }
        }
        other => in_stream(other, target),
    }
}

/// A bad reply, after the response has begun.
pub(crate) fn in_stream(error: ReplyError, target: &Target) -> Error {
    match error {
        ReplyError::InBand(fault) => {
            let fault = fault.presentable(target.secret());
            let text = format!("upstream reported an in-band stream error: {}", fault.message);
            let error = Error::new(Reason::UpstreamInBand, text).with_code(fault.code);
            match fault.status {
                Some(status) => error.with_upstream_status(status),
                None => error,
            }
        }
        ReplyError::Malformed(what) => malformed(&what),
        ReplyError::Incomplete => {
            Error::new(Reason::StreamAborted, "upstream ended the stream before the answer was complete")
        }
    }
}

/// A reply that cannot be read.
pub(crate) fn malformed(what: &str) -> Error {
    Error::new(Reason::UpstreamDecode, format!("upstream returned an unparseable body: {what}"))
}

/// No answer, or no next chunk, in time.
pub(crate) fn timed_out(limit: Duration) -> Error {
    Error::new(Reason::UpstreamTimeout, format!("upstream request timed out after {}ms", limit.as_millis()))
}

/// The gateway cannot wait for the answer any longer.
pub(crate) fn cut_off() -> Error {
    Error::new(Reason::ShuttingDown, "the gateway is shutting down")
}

/// Counts an attempt that gave a whole answer.
pub(crate) fn succeeded(shard: &Shard, target: &Target) {
    shard.attempt(target.label, true);
    target.health.success();
}

/// Counts an attempt that was answering when it was given up: nobody knows how
/// it would have ended, so it is no news for health.
pub(crate) fn given_up(shard: &Shard, target: &Target) {
    shard.attempt(target.label, true);
}

/// Counts a failed attempt, before or after the response has begun.
pub(crate) fn failed(shard: &Shard, target: &Target, error: &Error) {
    let failure = AttemptFailure {
        reason: error.reason(),
        upstream_status: error.upstream_status(),
        retry_after: error.retry_after(),
        retryable: error.retryable(),
    };
    if target.health.failure(&failure, &target.cooldown) {
        shard.cooled_down(target.label);
    }
    shard.attempt(target.label, false);
}
