//! Checks of the message itself, before anything else is looked at: its host and
//! the declared length of its body.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use aisix_core::{Error, Reason};
use aisix_telemetry::Shard;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Version,
    header::{CONTENT_LENGTH, EXPECT, HOST},
};
use hyper::body::Body;

use super::Accepted;
use crate::gateway::Settings;

/// Name that the connection layer gives a header that contradicts the framing
/// of the body, so that the refusal is an ordinary response. It is as long as
/// `content-length`.
pub const CONFLICTING_LENGTH: &str = "x-bad-framing-";
/// The first byte of the value of [`CONFLICTING_LENGTH`] when nothing
/// contradicts, but the transfer coding is none that the gateway reads.
pub const UNSUPPORTED_CODING: u8 = b'?';

/// How much of a refused body is read, so that the client gets to read the answer.
const DRAIN_BYTES: u64 = 32 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// What is wrong with the host of a request: HTTP/1.1 names it once, HTTP/1.0 at
/// most once (RFC 9112, 3.2).
pub fn host_problem(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    match (version, headers.get_all(HOST).iter().take(2).count()) {
        (Version::HTTP_11, 0) => Some("missing Host header"),
        (Version::HTTP_10 | Version::HTTP_11, 2) => Some("more than one Host header"),
        _ => None,
    }
}

/// Refuses a request without a clear host.
pub(crate) fn check_host(accepted: &Accepted) -> Result<(), Error> {
    let problem = host_problem(accepted.version, &accepted.headers);
    problem.map_or(Ok(()), |text| Err(Error::new(Reason::BadRequest, text)))
}

/// Refuses conflicting lengths (400) and lengths over the limit (413).
pub(crate) async fn check_length<B>(
    accepted: &mut Accepted,
    body: &mut B,
    settings: &Settings,
    shard: &Shard,
) -> Result<(), Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let other_coding = |value: &HeaderValue| value.as_bytes().first() == Some(&UNSUPPORTED_CODING);
    if accepted.headers.get(CONFLICTING_LENGTH).is_some_and(other_coding) {
        return Err(Error::new(Reason::BadRequest, "Transfer-Encoding has to be `chunked`, once"));
    }
    if accepted.headers.contains_key(CONFLICTING_LENGTH)
        || accepted.headers.get_all(CONTENT_LENGTH).iter().count() > 1
    {
        return Err(Error::new(Reason::BadRequest, "conflicting Content-Length headers"));
    }
    let Some(limit) = settings.body_limit else {
        return Ok(());
    };
    match declared(&accepted.headers) {
        Some(length) if length > limit => {
            let started = Instant::now();
            let (drained, outcome) = drain(accepted, body).await;
            shard.body_limit_rejected(accepted.info(), outcome);
            log_refusal(accepted, Refusal { length, limit, drained, outcome, elapsed: started.elapsed() });
            Err(too_large(limit))
        }
        _ => Ok(()),
    }
}

/// The refusal of a body that is over the limit.
pub(super) fn too_large(limit: u64) -> Error {
    Error::new(Reason::BodyTooLarge, format!("request body exceeds {limit}-byte limit"))
}

pub(super) fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Reads and discards the rest of a refused body, so that the client gets to
/// read the answer instead of a broken connection. Says how much came and how it
/// ended.
pub(crate) async fn drain<B: Body<Data = Bytes> + Unpin>(
    accepted: &mut Accepted,
    body: B,
) -> (u64, &'static str) {
    // A client that waits for "100 Continue" has sent nothing yet and need not.
    if accepted.headers.contains_key(EXPECT) {
        return (0, "completed");
    }
    let (drained, outcome) = Box::pin(read_off(body)).await;
    accepted.unfinished = outcome != "completed";
    (drained, outcome)
}

/// Reads what a client still sends, within bounds, so that it can read the
/// answer. Says how many bytes came and how it ended.
pub async fn read_off<B: Body<Data = Bytes> + Unpin>(mut body: B) -> (u64, &'static str) {
    let mut drained = 0;
    let read = async {
        loop {
            match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                None => return "completed",
                Some(Err(_)) => return "client_read_error",
                Some(Ok(frame)) => drained += frame.data_ref().map_or(0, |data| data.len() as u64),
            }
            if drained >= DRAIN_BYTES {
                return "cap_reached";
            }
        }
    };
    let outcome = tokio::time::timeout(DRAIN_TIME, read).await.unwrap_or("timeout");
    (drained, outcome)
}

struct Refusal {
    length: u64,
    limit: u64,
    drained: u64,
    outcome: &'static str,
    elapsed: Duration,
}

/// One line; those of unfinished drains at most once a second for each outcome.
fn log_refusal(accepted: &Accepted, refusal: Refusal) {
    let Refusal { length, limit, drained, outcome, elapsed } = refusal;
    let endpoint = accepted.info().label;
    let elapsed_ms = elapsed.as_millis() as u64;
    let request_id = accepted.record.request_id().as_str();
    let method = accepted.method.as_str();
    accepted.record.scope(|| {
        if outcome == "completed" {
            tracing::info!(
                target: "aisix::body_limit", request_id, endpoint, method, status = 413,
                declared_content_length = length, configured_limit_bytes = limit,
                drained_bytes = drained, drain_outcome = outcome, elapsed_ms,
                "request body exceeded the configured limit"
            );
        } else if once_a_second(outcome) {
            tracing::warn!(
                target: "aisix::body_limit", request_id, endpoint, method, status = 413,
                declared_content_length = length, configured_limit_bytes = limit,
                drained_bytes = drained, drain_outcome = outcome, elapsed_ms,
                "request body exceeded the configured limit and was not read to its end"
            );
        }
    });
}

fn once_a_second(outcome: &str) -> bool {
    static LAST: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    let slot = match outcome {
        "cap_reached" => &LAST[0],
        "timeout" => &LAST[1],
        _ => &LAST[2],
    };
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    slot.swap(now, Ordering::Relaxed) != now
}
