//! Reply: what the stages answer and how it becomes a response.

mod count;
pub(crate) mod fault;
mod stream;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use aisix_core::{Dialect, Error, Lifecycle, Price, RequestId, Usage, probe::Probe};
use aisix_telemetry::{End, Record};
use aisix_wire::{ReplyFacts, formats};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use serde_json::json;

pub(crate) use count::Sent;
use count::{Output, Uncounted};
use stream::StreamBody;
pub(crate) use stream::StreamReply;

use crate::{
    snapshot::{Caller, Snapshot},
    stages::Accepted,
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-aisix-request-id");
const CALL_ID: HeaderName = HeaderName::from_static("x-aisix-call-id");

/// A request counts as in flight while this lives.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Lifecycle>);

impl InFlight {
    pub(crate) fn new(lifecycle: Arc<Lifecycle>) -> Self {
        lifecycle.request_started();
        Self(lifecycle)
    }

    fn is_cut_off(&self) -> bool {
        self.0.is_cut_off()
    }
}

impl Clone for InFlight {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// What the stages answer.
pub(crate) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
}

enum Content {
    Whole { bytes: Bytes, answer: Option<Answer> },
    Stream(Box<StreamReply>),
}

/// What is known of a complete answer of an upstream.
pub(crate) struct Answer {
    pub(crate) facts: ReplyFacts,
    pub(crate) price: Option<Price>,
    /// What to count from when the facts lack counts.
    pub(crate) sent: Option<Box<Sent>>,
}

impl Reply {
    fn whole(status: StatusCode, kind: HeaderValue, bytes: Bytes) -> Self {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, kind);
        Self { status, headers, content: Content::Whole { bytes, answer: None } }
    }

    /// An error in the caller's dialect.
    pub(crate) fn error(error: &Error, dialect: Dialect) -> Self {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = Self::whole(status, JSON, formats::of_dialect(dialect).encode_error(error));
        // Waiting helps against "too many requests" only.
        if let Some(seconds) = error.retry_after().filter(|_| error.status() == 429) {
            reply.headers.insert(header::RETRY_AFTER, seconds.into());
        }
        reply
    }

    /// A probe.
    pub(crate) fn probe(
        probe: fn(&Lifecycle, bool) -> Probe,
        lifecycle: &Lifecycle,
        accepted: &Accepted,
    ) -> Self {
        let Probe { status, body } = probe(lifecycle, accepted.verbose());
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        let mut reply = Self::whole(status, text, body.into());
        reply.headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        reply
    }

    /// The models a caller may use.
    pub(crate) fn models(snapshot: &Snapshot, caller: &Caller) -> Self {
        let data: Vec<_> = snapshot
            .listing()
            .iter()
            .filter(|model| caller.key.may_use(&model.id))
            .map(|model| {
                json!({"id": model.id, "object": "model", "created": snapshot.since, "owned_by": model.owned_by})
            })
            .collect();
        let body = json!({"object": "list", "data": data}).to_string();
        Self::whole(StatusCode::OK, JSON, body.into())
    }

    /// A complete answer of an upstream.
    pub(crate) fn answer(bytes: Bytes, answer: Answer) -> Self {
        let mut reply = Self::whole(StatusCode::OK, JSON, Bytes::new());
        reply.content = Content::Whole { bytes, answer: Some(answer) };
        reply
    }

    /// A streamed answer of an upstream.
    pub(crate) fn stream(stream: StreamReply) -> Self {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Self { status: StatusCode::OK, headers, content: Content::Stream(Box::new(stream)) }
    }

    /// Whether an upstream's answer is in it.
    fn answers(&self) -> bool {
        match &self.content {
            Content::Whole { answer, .. } => answer.is_some(),
            Content::Stream(_) => true,
        }
    }

    /// The body; it owns the record from here on.
    pub(crate) fn into_body(self, mut record: Record, in_flight: InFlight) -> ReplyBody {
        let kind = match self.content {
            Content::Whole { bytes, answer } => {
                let uncounted = answer.and_then(|answer| {
                    note(&mut record, &answer.facts, answer.price);
                    let (sent, output) = (*answer.sent?, Output::Reply(bytes.clone()));
                    Some(Box::new(Uncounted { sent, output, price: answer.price }))
                });
                Kind::Whole { bytes: Some(bytes), record: Some((record, in_flight)), uncounted }
            }
            Content::Stream(stream) => Kind::Stream(Box::new(StreamBody::new(*stream, record, in_flight))),
        };
        ReplyBody { kind }
    }

    /// The bytes of a buffered reply.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self.content {
            Content::Whole { bytes, .. } => bytes,
            Content::Stream(_) => Bytes::new(),
        }
    }

    /// The body of a request whose record is gone.
    pub(crate) fn unrecorded(self) -> ReplyBody {
        ReplyBody { kind: Kind::Whole { bytes: Some(self.into_bytes()), record: None, uncounted: None } }
    }
}

/// Writes what an answer taught into the record.
fn note(record: &mut Record, facts: &ReplyFacts, price: Option<Price>) {
    charge(record, facts.usage, price);
    record.provider_request_id.clone_from(&facts.response_id);
    record.provider_model_version.clone_from(&facts.model_version);
}

fn charge(record: &mut Record, usage: Usage, price: Option<Price>) {
    record.usage = usage;
    record.cost_micro_usd = price.map_or(0, |price| price.micro_usd(&usage));
}

/// Status and headers of a response.
pub(crate) struct ReplyHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

impl ReplyHead {
    /// Adds what every response carries.
    pub(crate) fn new(reply: &Reply, id: &RequestId, draining: bool) -> Self {
        let mut headers = reply.headers.clone();
        headers.insert(header::SERVER, SERVER);
        // A request id is visible ASCII, which is always a legal value.
        if let Ok(id) = HeaderValue::try_from(id.as_str()) {
            if reply.answers() {
                headers.insert(CALL_ID, id.clone());
            }
            headers.insert(REQUEST_ID, id);
        }
        if draining {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Self { status: reply.status, headers }
    }

    pub(crate) fn response<B>(self, body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// The `Server` header.
const SERVER: HeaderValue = HeaderValue::from_static(concat!("AISIX/", env!("CARGO_PKG_VERSION")));

/// The body of every response. It owns the record; however it ends, the record
/// is closed once.
pub struct ReplyBody {
    kind: Kind,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the common one and must not cost an allocation"
)]
enum Kind {
    Whole {
        bytes: Option<Bytes>,
        record: Option<(Record, InFlight)>,
        /// What to count before the record is closed.
        uncounted: Option<Box<Uncounted>>,
    },
    Stream(Box<StreamBody>),
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        // A buffered response is complete once it was handed over: also for
        // HEAD, where nobody asks for the bytes.
        let Kind::Whole { record, uncounted, .. } = &mut self.kind else { return };
        let Some((record, in_flight)) = record.take() else { return };
        match uncounted.take() {
            None => record.close(End::Complete),
            Some(uncounted) => uncounted.close(record, End::Complete, in_flight),
        }
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let data = match &mut self.kind {
            Kind::Whole { bytes, .. } => bytes.take().filter(|bytes| !bytes.is_empty()),
            Kind::Stream(stream) => std::task::ready!(stream.poll_data(cx)),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole { bytes, .. } => bytes.as_ref().is_none_or(Bytes::is_empty),
            Kind::Stream(stream) => stream.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aisix_core::VERSION;

    #[test]
    fn the_server_header_names_the_version() {
        assert_eq!(SERVER, format!("AISIX/{VERSION}"));
    }
}
