//! The record of one request: stages write facts into it, and it closes
//! exactly once, however the request ends.

mod lines;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use aisix_core::{Error, Reason, RequestId, Usage};

use crate::{
    client_type::ClientType,
    endpoint::{EndpointInfo, EndpointRef},
    metrics::{CallerId, Closing, ModelId, Observed, RequestKey, Shard, TargetId, Tokens},
};

/// What is known when a request arrives.
#[derive(Debug)]
pub struct RecordStart<'a> {
    /// The row of the endpoint table.
    pub endpoint: &'static EndpointInfo,
    /// The gateway's id of the request.
    pub request_id: RequestId,
    /// The method.
    pub method: http::Method,
    /// The path without its query.
    pub path: String,
    /// The `User-Agent` header.
    pub user_agent: Option<&'a [u8]>,
    /// The resolved address of the client.
    pub client_ip: Option<IpAddr>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The response is complete; it may be an error response.
    Complete,
    /// The request failed with the error given to [`Record::fail`], possibly
    /// after the response had begun.
    Failed,
    /// The client left.
    ClientGone,
}

/// A failure as the record keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedError {
    /// Value of `error_kind`.
    pub kind: &'static str,
    /// The status the failure stands for.
    pub status: u16,
    /// Text for the operator.
    pub text: String,
}

/// Facts about one request. Dropping it without [`Record::close`] closes it
/// too: as abandoned by the client, or as an internal error during a panic.
pub struct Record {
    /// The caller, once authenticated.
    pub caller: Option<CallerId>,
    /// The id of the caller's API key, once authenticated.
    pub api_key_id: Option<Arc<str>>,
    /// The model name the caller sent. Only for logs.
    pub requested_model: Option<String>,
    /// The configured model it stands for.
    pub model: ModelId,
    /// The target of the last attempt.
    pub target: Option<TargetId>,
    /// The vendor of the target.
    pub provider: Option<Arc<str>>,
    /// Whether the caller asked for a stream.
    pub stream: bool,
    /// Attempts made so far.
    pub attempts: u32,
    /// Attempts that moved to another target.
    pub fallbacks: u32,
    /// Display name of the target that answered a routed request.
    pub served_by: Option<Arc<str>>,
    /// Tokens, as far as they are known.
    pub usage: Usage,
    /// What they cost.
    pub cost_micro_usd: u64,
    /// From the start of the attempt to its first streamed frame.
    pub ttft: Option<Duration>,
    /// The id the provider gave its response.
    pub provider_request_id: Option<String>,
    /// The model the provider says it used.
    pub provider_model_version: Option<String>,
    /// The failure, if there was one.
    pub error: Option<RecordedError>,
    /// The resolved address of the client.
    pub client_ip: Option<IpAddr>,
    shard: Arc<Shard>,
    endpoint: &'static EndpointInfo,
    request_id: RequestId,
    method: http::Method,
    path: String,
    client: ClientType,
    started: Instant,
    head: Option<Head>,
    /// The time until the end, where the record is closed later.
    stopped: Option<Duration>,
    /// The credential was refused: such requests leave no trace here.
    refused: bool,
    closed: bool,
    span: OnceLock<tracing::Span>,
}

/// The response head as the caller saw it.
#[derive(Clone, Copy)]
struct Head {
    status: u16,
    after: Duration,
}

/// How a record is written down.
struct Verdict {
    /// Status in the access log.
    logged: u16,
    /// Status in the request families; absent when the client left before
    /// the response head.
    counted: Option<u16>,
    /// Whether the access log says that the client left.
    client_gone: bool,
}

const CLIENT_GONE: u16 = 499;

impl Record {
    /// Opens a record: the request is in flight from now on.
    pub fn open(shard: Arc<Shard>, start: RecordStart<'_>) -> Self {
        let client = shard.opened(start.endpoint, start.user_agent);
        Self {
            caller: None,
            api_key_id: None,
            requested_model: None,
            model: ModelId::UNRESOLVED,
            target: None,
            provider: None,
            stream: false,
            attempts: 0,
            fallbacks: 0,
            served_by: None,
            usage: Usage::default(),
            cost_micro_usd: 0,
            ttft: None,
            provider_request_id: None,
            provider_model_version: None,
            error: None,
            client_ip: start.client_ip,
            started: shard.now(),
            shard,
            endpoint: start.endpoint,
            request_id: start.request_id,
            method: start.method,
            path: start.path,
            client,
            head: None,
            stopped: None,
            refused: false,
            closed: false,
            span: OnceLock::new(),
        }
    }

    /// The gateway's id of the request.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// When the request arrived.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Remembers why the request failed. The last call counts.
    pub fn fail(&mut self, error: &Error) {
        self.refused = matches!(
            error.reason(),
            Reason::MissingCredential | Reason::UnknownKey | Reason::KeyDisabled | Reason::KeyExpired
        );
        self.error = Some(RecordedError {
            kind: error.kind(),
            status: error.status(),
            text: error.operator_text().to_owned(),
        });
    }

    /// The handler returned the response head: the request is no longer in
    /// flight, and this is the handler's time. Only the first call counts.
    pub fn head(&mut self, status: u16) {
        if self.head.is_none() {
            let after = self.elapsed();
            self.head = Some(Head { status, after });
            self.shard.answered(self.endpoint);
        }
    }

    /// The request is over, but some facts are still to be found out: its time
    /// ends here and not when the record is closed.
    pub fn stop(&mut self) {
        self.stopped = Some(self.elapsed());
    }

    /// Closes the record: writes its log lines and counts it.
    pub fn close(mut self, end: End) {
        self.finish(end);
    }

    /// Runs `f` inside the span of the request, so that its log lines carry
    /// the request id.
    pub fn scope<R>(&self, f: impl FnOnce() -> R) -> R {
        self.span.get_or_init(|| lines::request_span(&self.request_id)).in_scope(f)
    }

    fn elapsed(&self) -> Duration {
        self.shard.now().saturating_duration_since(self.started)
    }

    fn finish(&mut self, end: End) {
        self.closed = true;
        let total = self.stopped.unwrap_or_else(|| self.elapsed());
        let verdict = self.verdict(end);
        let counted = self.endpoint.counted && !self.refused;
        let observed = counted.then(|| self.observed(&verdict, total));
        self.shard.closed(&Closing { endpoint: self.endpoint, in_flight: self.head.is_none(), observed });
        if counted {
            lines::write(self, &verdict, total);
        }
    }

    fn verdict(&mut self, end: End) -> Verdict {
        let settled = |status| Verdict { logged: status, counted: Some(status), client_gone: false };
        let head = self.head.map(|head| head.status);
        match (end, head) {
            (End::ClientGone, None) => Verdict { logged: CLIENT_GONE, counted: None, client_gone: true },
            // The caller saw that it failed; leaving afterwards changes nothing.
            (_, Some(status)) if status >= 400 => settled(status),
            (End::ClientGone, Some(status)) if self.error.is_none() => {
                Verdict { logged: CLIENT_GONE, counted: Some(status), client_gone: true }
            }
            (End::Complete, Some(status)) => settled(status),
            // A good head and then a failure, or no head at all.
            _ => settled(self.error.get_or_insert_with(internal_error).status),
        }
    }

    fn observed(&self, verdict: &Verdict, total: Duration) -> Observed {
        let tokens = if self.endpoint.tokens {
            Tokens::new(&self.usage, self.cost_micro_usd)
        } else {
            Tokens::default()
        };
        let client = if tokens.consumed > 0 || tokens.total > 0 { self.client } else { ClientType::UNKNOWN };
        Observed {
            key: RequestKey {
                endpoint: EndpointRef(self.endpoint),
                model: self.model,
                target: self.target,
                caller: self.caller,
                client,
                status: verdict.counted.unwrap_or(CLIENT_GONE),
                stream: self.stream,
                fallback: self.fallbacks > 0,
                cancelled: verdict.counted.is_none(),
            },
            now: self.started + total,
            handler: self.head.map_or(total, |head| head.after),
            total,
            ttft: self.ttft,
            tokens,
        }
    }
}

fn internal_error() -> RecordedError {
    let row = Reason::Internal.row();
    RecordedError { kind: row.kind, status: row.status, text: "the request ended without an answer".into() }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        if std::thread::panicking() {
            self.error =
                Some(RecordedError { text: "the request handler panicked".into(), ..internal_error() });
            self.finish(End::Failed);
        } else {
            self.finish(End::ClientGone);
        }
    }
}
