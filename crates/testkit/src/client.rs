//! A small HTTP client: one connection per request, HTTP/1.1 or HTTP/2, plain or TLS.

use crate::sse::{SseFrame, SseParser};
use crate::within;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
pub use hyper::Version;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

/// Why a request got no reply.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Where to connect and how.
#[derive(Clone)]
pub struct Client {
    addr: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    http2: bool,
}

/// A request under construction.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Bytes,
}

impl Request {
    /// Any method.
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Bytes::new() }
    }

    /// A GET.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A POST with a JSON body.
    pub fn post(path: &str, body: &Value) -> Self {
        Self::post_text(path, &body.to_string())
    }

    /// A POST whose body is exactly this text, declared as JSON.
    pub fn post_text(path: &str, body: &str) -> Self {
        let request = Self::new("POST", path).header("content-type", "application/json");
        request.body(Bytes::copy_from_slice(body.as_bytes()))
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path with its query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref().to_vec();
        self.headers.push((name.to_owned(), value));
        self
    }

    /// Removes a header that was added.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self
    }

    /// Adds `Authorization: Bearer`.
    pub fn bearer(self, key: &str) -> Self {
        self.header("authorization", format!("Bearer {key}"))
    }

    /// Replaces the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn build(self, client: &Client) -> Result<hyper::Request<Full<Bytes>>, Error> {
        let uri = match client.http2 {
            true => {
                let scheme = if client.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{}{}", client.addr, self.path)
            }
            false => self.path,
        };
        let mut builder = hyper::Request::builder().method(self.method.as_str()).uri(uri);
        let names_host = self.headers.iter().any(|(name, _)| name == "host");
        if !client.http2 && !names_host {
            builder = builder.header("host", client.addr.to_string());
        }
        for (name, value) in self.headers {
            builder = builder.header(name, value);
        }
        Ok(builder.body(Full::new(self.body))?)
    }
}

impl Client {
    /// Plain HTTP/1.1.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, tls: None, http2: false }
    }

    /// Plain HTTP/2 with prior knowledge.
    pub fn http2(addr: SocketAddr) -> Self {
        Self { http2: true, ..Self::new(addr) }
    }

    /// TLS; speaks HTTP/2 when the handshake chose it.
    pub fn tls(addr: SocketAddr, config: Arc<ClientConfig>) -> Self {
        Self { tls: Some(config), ..Self::new(addr) }
    }

    /// Sends a request; panics when no reply comes.
    pub async fn send(&self, request: Request) -> Reply {
        match self.try_send(request).await {
            Ok(reply) => reply,
            Err(error) => panic!("no reply from {}: {error:?}", self.addr),
        }
    }

    /// Sends a request; a refused or broken connection is an error.
    pub async fn try_send(&self, request: Request) -> Result<Reply, Error> {
        // Boxed, because the futures of tests nest deeply.
        within("a reply head", Box::pin(self.exchange(request))).await
    }

    async fn exchange(&self, request: Request) -> Result<Reply, Error> {
        let socket = TcpStream::connect(self.addr).await?;
        socket.set_nodelay(true)?;
        let Some(config) = &self.tls else {
            return self.speak(socket, request).await;
        };
        let name = ServerName::from(self.addr.ip());
        let stream = TlsConnector::from(config.clone());
        let stream = stream.connect(name, socket).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let chosen = Self { http2, ..self.clone() };
        chosen.speak(stream, request).await
    }

    async fn speak<S>(&self, stream: S, request: Request) -> Result<Reply, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let request = request.build(self)?;
        let io = TokioIo::new(stream);
        let (reply, connection) = if self.http2 {
            let executor = TokioExecutor::new();
            let (mut sender, driver) = hyper::client::conn::http2::handshake(executor, io).await?;
            let connection = tokio::spawn(async move {
                let _ = driver.await;
            });
            let guard = Guard(connection.abort_handle());
            (sender.send_request(request).await?, guard)
        } else {
            let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await?;
            let connection = tokio::spawn(async move {
                let _ = driver.await;
            });
            let guard = Guard(connection.abort_handle());
            (sender.send_request(request).await?, guard)
        };
        Ok(Reply::new(reply, connection))
    }
}

/// Closes the connection when dropped, also when a request is given up half-way.
struct Guard(AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A reply head and the body behind it. Dropping it hangs up.
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Spoken version.
    pub version: Version,
    body: Incoming,
    parser: SseParser,
    _connection: Guard,
}

impl Reply {
    fn new(reply: hyper::Response<Incoming>, connection: Guard) -> Self {
        let (head, body) = reply.into_parts();
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            version: head.version,
            body,
            parser: SseParser::default(),
            _connection: connection,
        }
    }

    /// First value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The whole body; an error when it broke off.
    pub async fn try_bytes(&mut self) -> Result<Bytes, Error> {
        let body = within("a whole body", (&mut self.body).collect()).await?;
        Ok(body.to_bytes())
    }

    /// The whole body; panics when it broke off.
    pub async fn bytes(&mut self) -> Bytes {
        match self.try_bytes().await {
            Ok(bytes) => bytes,
            Err(error) => panic!("body broke off: {error:?}"),
        }
    }

    /// The whole body as text.
    pub async fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes().await).into_owned()
    }

    /// The whole body as JSON; panics when it is none.
    pub async fn json(&mut self) -> Value {
        let text = self.text().await;
        match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => panic!("status {}, body is not JSON ({error}): {text:?}", self.status),
        }
    }

    /// The next event frame; `None` at a clean end. Panics on a broken body or an unterminated last frame.
    pub async fn frame(&mut self) -> Option<SseFrame> {
        within("the next event frame", self.next_frame()).await
    }

    /// The next frame, or `None` when none arrives within `wait`. The end of the stream panics.
    pub async fn frame_within(&mut self, wait: Duration) -> Option<SseFrame> {
        let next = tokio::time::timeout(wait, self.next_frame()).await;
        next.ok().map(|frame| frame.expect("the stream ended while a frame was awaited"))
    }

    async fn next_frame(&mut self) -> Option<SseFrame> {
        loop {
            if let Some(frame) = self.parser.next_frame() {
                return Some(frame);
            }
            match self.body.frame().await {
                None => {
                    let rest = String::from_utf8_lossy(self.parser.rest());
                    assert!(rest.is_empty(), "stream ends inside a frame: {rest:?}");
                    return None;
                }
                Some(Ok(frame)) => self.parser.push(frame.data_ref().unwrap_or(&Bytes::new())),
                Some(Err(error)) => panic!("stream broke off: {error:?}"),
            }
        }
    }

    /// The next frame that is not a comment; panics at the end of the stream.
    pub async fn event(&mut self) -> SseFrame {
        loop {
            let frame = self.frame().await.expect("the stream ended early");
            if !frame.is_comment() {
                return frame;
            }
        }
    }

    /// All remaining frames that are not comments.
    pub async fn events(&mut self) -> Vec<SseFrame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            if !frame.is_comment() {
                frames.push(frame);
            }
        }
        frames
    }
}
