//! A scripted OpenAI-compatible upstream on raw TCP.

mod reply;
mod serve;
#[cfg(test)]
mod tests;

pub use reply::{Gate, Reply, Stream, chunk, usage};

use bytes::Bytes;
use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// What the default reply says.
pub const GREETING: &str = "Hello from upstream";

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Number of the connection it came on, from 0.
    pub connection: usize,
    /// Method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Headers in order, names as spelled.
    pub headers: Vec<(String, String)>,
    /// The body, unframed.
    pub body: Bytes,
    /// When the head had arrived.
    pub at: Instant,
}

impl Recorded {
    /// First value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter();
        let found = found.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// All values of a header.
    pub fn header_values(&self, name: &str) -> Vec<&str> {
        let same = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        let values = self.headers.iter().filter(same);
        values.map(|(_, value)| value.as_str()).collect()
    }

    /// The body as JSON; panics when it is none.
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("upstream body is not JSON ({error}): {:?}", self.text()),
        }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether a text occurs anywhere: path, headers or body.
    pub fn mentions(&self, needle: &str) -> bool {
        let headers = self.headers.iter();
        let mut headers = headers.map(|(name, value)| format!("{name}: {value}"));
        self.path.contains(needle) || self.text().contains(needle) || headers.any(|h| h.contains(needle))
    }

    fn wants_continue(&self) -> bool {
        self.header("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue"))
    }
}

/// The end of one connection.
#[derive(Debug, Clone)]
pub struct Closed {
    /// Number of the connection.
    pub connection: usize,
    /// How many requests it carried.
    pub requests: usize,
    /// The gateway closed it, not the script.
    pub by_peer: bool,
    /// The gateway closed it before the script of a reply was through.
    pub mid_reply: bool,
    /// When the end was seen.
    pub at: Instant,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Reply>,
    default: Option<Reply>,
    requests: Vec<Recorded>,
    closed: Vec<Closed>,
}

struct Shared {
    state: Mutex<State>,
    open: AtomicUsize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_reply(&self) -> Reply {
        let mut state = self.lock();
        let queued = state.queue.pop_front();
        queued.or_else(|| state.default.clone()).unwrap_or_else(|| Reply::chat(GREETING))
    }

    fn record(&self, request: Recorded) {
        self.lock().requests.push(request);
    }

    fn close(&self, closed: Closed) {
        self.lock().closed.push(closed);
    }
}

/// The upstream. Requests take replies from a queue, then the default reply.
pub struct FakeProvider {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accept: AbortHandle,
}

impl FakeProvider {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        let bound = TcpListener::bind("127.0.0.1:0").await;
        let listener = bound.expect("bind a loopback port");
        let addr = listener.local_addr().expect("bound address");
        let shared = Arc::new(Shared { state: Mutex::default(), open: AtomicUsize::new(0) });
        let accepting = shared.clone();
        let accept = tokio::spawn(async move {
            for id in 0.. {
                let Ok((socket, _)) = listener.accept().await else {
                    return;
                };
                accepting.open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve::connection(socket, id, accepting.clone()));
            }
        });
        Self { addr, shared, accept: accept.abort_handle() }
    }

    /// Socket address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:port/v1`, what goes into `api_base`.
    pub fn base(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Adds a reply to the queue.
    pub fn push(&self, reply: Reply) -> &Self {
        self.shared.lock().queue.push_back(reply);
        self
    }

    /// Replaces the reply that is used when the queue is empty.
    pub fn set_default(&self, reply: Reply) -> &Self {
        self.shared.lock().default = Some(reply);
        self
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.lock().requests.clone()
    }

    /// The one request there was; panics when there were more or none.
    pub fn only_request(&self) -> Recorded {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "requests at the upstream: {requests:?}");
        requests.remove(0)
    }

    /// The latest request.
    pub fn last_request(&self) -> Recorded {
        self.requests().pop().expect("no request at the upstream")
    }

    /// Waits until that many requests have arrived.
    pub async fn wait_requests(&self, count: usize) -> Vec<Recorded> {
        let what = format!("{count} requests at the upstream");
        crate::eventually(&what, || async {
            let requests = self.requests();
            (requests.len() >= count).then_some(requests)
        })
        .await
    }

    /// Connections that ended so far.
    pub fn closed(&self) -> Vec<Closed> {
        self.shared.lock().closed.clone()
    }

    /// Waits until that many connections have ended.
    pub async fn wait_closed(&self, count: usize) -> Vec<Closed> {
        let what = format!("{count} closed upstream connections");
        crate::eventually(&what, || async {
            let closed = self.closed();
            (closed.len() >= count).then_some(closed)
        })
        .await
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        self.accept.abort();
    }
}
