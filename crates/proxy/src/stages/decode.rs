//! Decode: the body becomes a document.

use std::{
    future::poll_fn,
    pin::Pin,
    time::{Duration, Instant},
};

use aisix_core::{Error, Operation, Reason};
use aisix_wire::{Document, Format, Head, formats};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_TYPE};
use hyper::body::Body;

use super::{Accepted, length};
use crate::gateway::Settings;

/// Memory set aside for a body before its bytes have arrived, at the most.
const MAX_RESERVE: usize = 1024 * 1024;

/// A decoded request.
pub(crate) struct Call {
    pub(crate) operation: Operation,
    /// The format the caller speaks.
    pub(crate) format: &'static dyn Format,
    pub(crate) head: Head,
    pub(crate) body: Document,
}

/// Reads the body and what the pipeline needs of it.
pub(crate) async fn decode<B>(
    accepted: &mut Accepted,
    operation: Operation,
    body: &mut B,
    settings: &Settings,
) -> Result<Call, Error>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let format = formats::of_dialect(accepted.endpoint()?.dialect);
    if !is_json(&accepted.headers) {
        return Err(Error::bad_request(
            "invalid JSON request body: header `content-type`: expected application/json",
        ));
    }
    let read = read(body, &accepted.headers, settings).await;
    // Of what is merely too large the rest may still come.
    let bytes = read.inspect_err(|e| accepted.unfinished = e.reason() != Reason::BodyTooLarge)?;
    let body = Document::parse(bytes)
        .map_err(|e| Error::bad_request(format_args!("invalid JSON request body: {e}")))?;
    let head = format.head(&body)?;
    accepted.record.requested_model = Some(head.model.clone());
    accepted.record.stream = head.stream;
    Ok(Call { operation, format, head, body })
}

/// `application/json` or `application/*+json`, with or without parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// A body must keep arriving: the next bytes within the timeout, and the whole
/// within the timeout plus one second for each KiB received.
async fn read<B>(body: &mut B, headers: &HeaderMap, settings: &Settings) -> Result<Bytes, Error>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let limit = settings.body_limit.unwrap_or(u64::MAX);
    let started = Instant::now();
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut received = 0u64;
    loop {
        let next = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        let frame = match settings.body_timeout {
            None => next.await,
            Some(gap) => {
                let whole = gap + Duration::from_secs(received / 1024);
                let left = whole.saturating_sub(started.elapsed()).min(gap);
                tokio::time::timeout(left, next)
                    .await
                    .map_err(|_| Error::new(Reason::BodyTimeout, "request body did not arrive in time"))?
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| {
            Error::bad_request("failed to read request body")
                .with_detail(format!("reading the request body: {e}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        received += data.len() as u64;
        if received > limit {
            return Err(length::too_large(limit));
        }
        match first.take() {
            None if rest.is_empty() => first = Some(data),
            None => rest.extend_from_slice(&data),
            Some(start) => {
                let declared = length::declared(headers).unwrap_or(0).min(MAX_RESERVE as u64) as usize;
                rest.reserve(declared.max(start.len() + data.len()));
                rest.extend_from_slice(&start);
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}
