//! Connections at rest and the life of an HTTP/1.1 connection.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use foldhash::HashMap;
use http::{HeaderValue, Request, Response, Uri, header::PROXY_AUTHORIZATION};
use hyper::{body::Incoming, client::conn::http1};

use super::{Origin, RequestBody, chain, connect::Io};

/// How a request travels on a connection that leads to a forward proxy.
#[derive(Clone, Debug)]
pub(super) struct ForwardProxy {
    /// Scheme and authority that turn a path into an absolute URI.
    pub(super) target: Uri,
    /// Credential for the proxy itself.
    pub(super) authorization: Option<HeaderValue>,
}

/// One HTTP/1.1 connection, driven by whoever holds it.
pub(super) struct H1 {
    sender: http1::SendRequest<RequestBody>,
    driver: http1::Connection<Io, RequestBody>,
    proxy: Option<ForwardProxy>,
    idle_since: Instant,
    closed: bool,
}

/// Why a request got no response.
pub(super) enum SendFailure {
    /// Not a byte of it was taken; it may go out on another connection.
    NotSent(Box<Request<RequestBody>>),
    /// It may have been processed.
    Failed(String),
}

impl H1 {
    /// Speaks HTTP/1.1 on an open stream.
    pub(super) async fn handshake(io: Io, proxy: Option<ForwardProxy>) -> Result<Box<Self>, String> {
        let (sender, driver) = http1::handshake(io).await.map_err(|e| chain(&e))?;
        Ok(Box::new(Self { sender, driver, proxy, idle_since: Instant::now(), closed: false }))
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendFailure> {
        if let Some(proxy) = &self.proxy {
            absolute_form(&mut request, proxy);
        }
        let mut response = std::pin::pin!(self.sender.try_send_request(request));
        let answer = poll_fn(|cx| {
            if let Poll::Ready(answer) = response.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            if !self.closed && Pin::new(&mut self.driver).poll(cx).is_ready() {
                self.closed = true;
            }
            response.as_mut().poll(cx)
        })
        .await;
        answer.map_err(|mut error| match error.take_message() {
            Some(request) => SendFailure::NotSent(Box::new(request)),
            None => SendFailure::Failed(chain(&error.into_error())),
        })
    }

    /// Moves bytes; `Ready` once the connection is closed.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.closed && Pin::new(&mut self.driver).poll(cx).is_ready() {
            self.closed = true;
        }
        if self.closed { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the connection can take another request right now.
    fn usable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.drive(&mut cx).is_pending() && self.sender.is_ready()
    }
}

/// A forward proxy wants the whole URI in the request line (RFC 9112, 3.2.2).
fn absolute_form(request: &mut Request<RequestBody>, proxy: &ForwardProxy) {
    let mut parts = proxy.target.clone().into_parts();
    parts.path_and_query = request.uri().path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    if let Some(value) = &proxy.authorization {
        request.headers_mut().insert(PROXY_AUTHORIZATION, value.clone());
    }
}

/// The most recently used connection is last.
type Idle = Vec<Box<H1>>;

/// Connections by origin.
pub(super) struct Pool {
    hosts: Mutex<HashMap<Arc<Origin>, Idle>>,
    idle_timeout: Option<Duration>,
    max_idle: usize,
}

impl Pool {
    pub(super) fn new(idle_timeout: Option<Duration>, max_idle: Option<usize>) -> Self {
        Self { hosts: Mutex::default(), idle_timeout, max_idle: max_idle.unwrap_or(usize::MAX) }
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<Arc<Origin>, Idle>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self, connection: &H1, now: Instant) -> bool {
        self.idle_timeout.is_none_or(|limit| now.duration_since(connection.idle_since) <= limit)
    }

    /// A kept connection that is neither too old nor closed by the server.
    pub(super) fn take_h1(&self, origin: &Origin, now: Instant) -> Option<Box<H1>> {
        let mut hosts = self.hosts();
        let idle = hosts.get_mut(origin)?;
        while let Some(mut connection) = idle.pop() {
            if self.fresh(&connection, now) && connection.usable() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose response was read to its end, if it can be used again.
    pub(super) fn put_h1(&self, origin: &Arc<Origin>, mut connection: Box<H1>) {
        if !connection.usable() {
            return;
        }
        connection.idle_since = Instant::now();
        let mut hosts = self.hosts();
        let idle = match hosts.get_mut(origin) {
            Some(idle) => idle,
            None => hosts.entry(origin.clone()).or_default(),
        };
        if idle.len() < self.max_idle {
            idle.push(connection);
        }
    }

    /// Drops connections that are too old, and origins without any.
    pub(super) fn sweep(&self, now: Instant) {
        self.hosts().retain(|_, idle| {
            idle.retain_mut(|connection| self.fresh(connection, now) && connection.usable());
            !idle.is_empty()
        });
    }
}
