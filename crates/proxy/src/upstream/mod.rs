//! The HTTP client side. Every request to an upstream leaves through
//! [`Upstream::send`].
//!
//! Upstreams are spoken to over HTTP/1.1. A connection is polled by the task that
//! serves the request, not by a task of its own: a streamed reply then costs no
//! wake-up between tasks, and a slow client delays nobody else.

mod body;
mod connect;
mod pool;
mod trust;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aisix_core::{Error, Reason};
use bytes::Bytes;
use http::{Request, response};
use http_body_util::Full;

pub use body::UpstreamBody;
use connect::Connector;
pub use connect::ProxyEnv;
use pool::{H1, Pool, SendFailure};
pub use trust::{KeyTrust, Trust, TrustError, TrustFiles};

/// Body of a request to an upstream.
pub type RequestBody = Full<Bytes>;

/// A server that connections are opened to. Connections are shared only
/// between requests whose origins are equal, trust included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether TLS is spoken.
    pub https: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What certificates are trusted.
    pub trust: KeyTrust,
}

/// Settings of all connections.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Bound of name look-up, TCP and TLS together.
    pub connect_timeout: Option<Duration>,
    /// TCP keep-alive: idle time, interval, probes.
    pub tcp_keepalive: (Option<Duration>, Option<Duration>, Option<u32>),
    /// A connection idle for longer is never used again.
    pub pool_idle_timeout: Option<Duration>,
    /// Idle connections kept per origin.
    pub pool_max_idle: Option<usize>,
}

/// A response whose body is still to be read.
#[derive(Debug)]
pub struct UpstreamResponse {
    /// Status and headers.
    pub head: response::Parts,
    /// The body.
    pub body: UpstreamBody,
}

/// The client of one worker: its connections and how new ones are made.
pub struct Upstream {
    connector: Connector,
    pool: Arc<Pool>,
}

impl Upstream {
    /// A client without connections.
    pub fn new(settings: &UpstreamSettings, trust: Arc<Trust>, proxies: &ProxyEnv) -> Self {
        Self {
            connector: Connector::new(settings, trust, proxies),
            pool: Arc::new(Pool::new(settings.pool_idle_timeout, settings.pool_max_idle)),
        }
    }

    /// Sends a request whose URI is in origin form and waits for the head of
    /// the response. Redirects are not followed. Dropping the future closes
    /// the connection.
    pub async fn send(
        &self,
        origin: &Arc<Origin>,
        mut request: Request<RequestBody>,
    ) -> Result<UpstreamResponse, Error> {
        loop {
            let reused = self.pool.take_h1(origin, Instant::now());
            let fresh = reused.is_none();
            let connection = match reused {
                Some(connection) => connection,
                // Boxed: dialling is rare, and its state would be moved around with every request.
                None => Box::pin(self.connector.dial(origin)).await?,
            };
            match self.send_h1(connection, origin, request).await {
                Ok(response) => return Ok(response),
                // The server closed a kept connection before it saw the request.
                Err(SendFailure::NotSent(back)) if !fresh => request = *back,
                Err(SendFailure::NotSent(_)) => {
                    return Err(transport("the connection was closed before the request was sent"));
                }
                Err(SendFailure::Failed(text)) => return Err(transport(&text)),
            }
        }
    }

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self) {
        self.pool.sweep(Instant::now());
    }

    async fn send_h1(
        &self,
        mut connection: Box<H1>,
        origin: &Arc<Origin>,
        request: Request<RequestBody>,
    ) -> Result<UpstreamResponse, SendFailure> {
        let response = connection.send(request).await?;
        let (head, body) = response.into_parts();
        let body = UpstreamBody::h1(body, connection, self.pool.clone(), origin.clone());
        Ok(UpstreamResponse { head, body })
    }
}

/// A failed connection, as the caller is told of it.
pub(crate) fn transport(cause: &str) -> Error {
    Error::new(Reason::UpstreamTransport, format!("transport error: {cause}"))
}

/// An error with all its causes, without repeating itself.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
