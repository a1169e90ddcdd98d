//! Attempt: tries on the planned target until one succeeds or none may follow.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use aisix_core::{Error, Reason, RequestId};
use aisix_wire::{Document, ReplyContext, Vocabulary, adapters::echo};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header, response};

use super::{Accepted, Call, Plan};
use crate::{
    gateway::Worker,
    reply::{Answer, Reply, Sent, StreamReply, fault},
    snapshot::{Caller, Destination, Prepared, Target},
    upstream::{UpstreamBody, UpstreamResponse},
};

/// How much of an upstream's error body is read.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// Largest buffered reply.
const MAX_REPLY: usize = 256 * 1024 * 1024;
/// Outbound `User-Agent`, unless the provider key sets another.
const USER_AGENT: HeaderValue = HeaderValue::from_static("aisix/0.1");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-aisix-request-id");

/// Runs the plan.
pub(crate) async fn attempt(
    worker: &Worker,
    accepted: &mut Accepted,
    caller: &Caller,
    mut call: Call,
    plan: Plan,
) -> Result<Reply, Error> {
    let target = &plan.target;
    accepted.record.target = Some(target.label);
    accepted.record.provider = Some(target.provider.clone());
    let prepared = target.prepared(call.operation)?;
    prepared.format.prepare(&mut call.body, &call.head, &plan.upstream_model, &target.body);
    let exchange = Exchange {
        worker,
        target,
        prepared,
        headers: request_headers(prepared, target, accepted, caller, call.head.stream)?,
        body: call.body.to_bytes(),
        document: &call.body,
        request_id: accepted.record.request_id().clone(),
    };
    let mut tried = 0;
    loop {
        let started = Instant::now();
        // Counted first: the client may leave in the middle of it.
        accepted.record.attempts += 1;
        let result = if call.head.stream {
            exchange.stream(&call, &plan, started).await
        } else {
            exchange.whole(&call, &plan).await
        };
        let error = match result {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        fault::failed(&worker.shard, target, &error);
        let timed_out = error.reason() == Reason::UpstreamTimeout;
        if tried == plan.retries || !error.retryable() || (timed_out && !plan.explicit_retries) {
            return Err(error);
        }
        tokio::time::sleep(backoff(tried, error.retry_after())).await;
        tried += 1;
    }
}

/// The pause before a retry: 250 ms, doubling up to 2 s, or what the upstream
/// asked for up to 5 s; plus up to 250 ms of jitter.
fn backoff(tried: u32, asked: Option<u64>) -> Duration {
    let base = match asked {
        Some(seconds @ 1..=5) => Duration::from_secs(seconds),
        _ => Duration::from_millis(250 << tried.min(3)),
    };
    let random = uuid::Uuid::new_v4().as_u128() as u64;
    base + Duration::from_millis(random % 251)
}

fn request_headers(
    prepared: &Prepared,
    target: &Target,
    accepted: &Accepted,
    caller: &Caller,
    stream: bool,
) -> Result<HeaderMap, Error> {
    let mut headers = prepared.headers.clone();
    let id = accepted.record.request_id();
    let value = HeaderValue::try_from(id.as_str())
        .map_err(|e| Error::new(Reason::Internal, "internal error").with_detail(e.to_string()))?;
    headers.insert(REQUEST_ID, value);
    if stream {
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    }
    target.headers.apply(&mut headers, &accepted.headers, caller, id);
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    Ok(headers)
}

/// One target and the request for it.
struct Exchange<'a> {
    worker: &'a Worker,
    target: &'a Target,
    prepared: &'a Prepared,
    headers: HeaderMap,
    body: Bytes,
    document: &'a Document,
    request_id: RequestId,
}

impl Exchange<'_> {
    /// A buffered attempt; the deadline covers the body too.
    async fn whole(&self, call: &Call, plan: &Plan) -> Result<Reply, Error> {
        let work = pin!(async {
            let response = self.send().await?;
            check_encoding(&response.head)?;
            let (bytes, all) =
                response.body.collect(MAX_REPLY).await.map_err(|e| crate::upstream::transport(&e))?;
            if !all {
                return Err(fault::malformed("the reply is larger than 256 MiB"));
            }
            let context = self.context(call);
            let (body, facts) = self
                .prepared
                .format
                .relay(bytes, &context)
                .map_err(|e| fault::before_commit(e, self.target))?;
            fault::succeeded(&self.worker.shard, self.target);
            let sent = (!facts.usage.is_complete()).then(|| Box::new(self.sent(plan)));
            Ok(Reply::answer(body, Answer { facts, price: self.target.price, sent }))
        });
        within(plan.timeout, work).await
    }

    /// A streamed attempt up to the point where the response may begin.
    async fn stream(&self, call: &Call, plan: &Plan, started: Instant) -> Result<Reply, Error> {
        let response = within(plan.stream.gap, pin!(self.send())).await?;
        check_encoding(&response.head)?;
        check_event_stream(&response).map_err(|what| fault::malformed(&what))?;
        let mut stream = StreamReply {
            body: response.body,
            relay: self.prepared.format.relay_stream(self.context(call)),
            format: call.format,
            target: plan.target.clone(),
            sent: self.sent(plan),
            started,
            gap: plan.stream.gap,
            keepalive: self.worker.gateway.settings.sse_keepalive,
            shard: self.worker.shard.clone(),
            ready: bytes::BytesMut::new(),
        };
        if plan.stream.hold {
            within(plan.stream.gap, pin!(stream.first_frame())).await?;
        }
        Ok(Reply::stream(stream))
    }

    fn sent(&self, plan: &Plan) -> Sent {
        Sent {
            format: self.prepared.format,
            vocabulary: Vocabulary::of_model(&plan.upstream_model),
            body: self.body.clone(),
        }
    }

    /// Sends the request; an error status is an error.
    async fn send(&self) -> Result<UpstreamResponse, Error> {
        let response = match &self.prepared.destination {
            Destination::Echo => self.echo(),
            Destination::Server { origin, uri } => {
                let mut request = Request::new(self.body.clone().into());
                *request.method_mut() = Method::POST;
                *request.uri_mut() = uri.clone();
                *request.headers_mut() = self.headers.clone();
                self.worker.upstream.send(origin, request).await?
            }
        };
        if response.head.status.is_success() {
            return Ok(response);
        }
        let status = response.head.status.as_u16();
        let retry_after = retry_after(&response.head.headers);
        // A compressed text was not asked for and would mean nothing to the caller.
        let readable = check_encoding(&response.head).is_ok();
        let read = Box::pin(response.body.collect(MAX_ERROR_BODY)).await;
        let body = read.map(|(bytes, _)| bytes).ok().filter(|_| readable).unwrap_or_default();
        let fault = self.prepared.format.decode_error(status, &body);
        Err(fault::of_status(fault, status, self.target).with_retry_after(retry_after))
    }

    fn echo(&self) -> UpstreamResponse {
        let created = unix_seconds();
        let (kind, frames) = match echo::answer(self.document, self.request_id.as_str(), created) {
            echo::Answer::Whole(body) => ("application/json", vec![body]),
            echo::Answer::Frames(frames) => ("text/event-stream", frames),
        };
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        UpstreamResponse { head, body: UpstreamBody::local(frames) }
    }

    fn context(&self, call: &Call) -> ReplyContext {
        ReplyContext {
            model: call.head.model.as_str().into(),
            stream_usage: call.head.stream_usage,
            reasoning_field: self.target.reasoning_field.clone(),
            fallback_id: format!("chatcmpl-{}", self.request_id),
            created: unix_seconds(),
        }
    }
}

/// Bounds a wait; running out of time is a timeout of the upstream. Callers pin
/// the work themselves: taken by value it would be copied with every call.
async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match limit {
        None => work.await,
        Some(limit) => match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(fault::timed_out(limit)),
        },
    }
}

/// Compressed replies were not asked for and cannot be looked into.
fn check_encoding(head: &response::Parts) -> Result<(), Error> {
    match head.headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            let name: String = String::from_utf8_lossy(encoding.as_bytes()).chars().take(32).collect();
            Err(fault::malformed(&format!("content-encoding {name:?} was not asked for")))
        }
        _ => Ok(()),
    }
}

/// A body that plainly is something else must not be taken for a stream.
fn check_event_stream(response: &UpstreamResponse) -> Result<(), String> {
    let kind = response.head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*kind {
        "application/json" | "text/html" => Err(format!("expected an event stream, got {kind}")),
        _ => Ok(()),
    }
}

/// Whole seconds; an HTTP date is not understood.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}
