//! Accepting connections and serving HTTP/1.1 and HTTP/2 on them.

mod bind;
mod conn;
mod framing;
mod guard;
mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::{net::TcpListener, sync::watch};

pub(crate) use bind::{Bound, bind};
pub(crate) use tls::Tls;

/// What a listener does with a request.
pub(crate) trait Serve: Clone + Send + Sync + 'static {
    /// Body of the responses.
    type Body: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static;

    /// Answers a request.
    fn serve(
        self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// The response to a request whose head cannot be read, given the status
    /// that HTTP asks for. `None` keeps the bare one.
    fn refuse(&self, status: u16) -> Option<Response<Bytes>>;
}

/// How connections are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnSettings {
    /// Close a connection that is between requests for this long.
    pub(crate) idle_timeout: Option<Duration>,
    /// Close a connection whose request head takes longer than this.
    pub(crate) head_timeout: Option<Duration>,
}

/// How far listeners are on their way to stop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// No new connections and no new requests.
    Stopping,
    /// Nothing at all.
    Ended,
}

/// Tells listeners to stop.
#[derive(Clone)]
pub(crate) struct Stop {
    signal: watch::Receiver<Phase>,
    open: Arc<AtomicUsize>,
}

/// The other end of [`Stop`].
pub(crate) struct Stopper {
    signal: watch::Sender<Phase>,
    open: Arc<AtomicUsize>,
}

impl Stopper {
    /// A stopper and what it stops.
    pub(crate) fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(Phase::Serving);
        let open = Arc::new(AtomicUsize::new(0));
        (Self { signal: sender, open: open.clone() }, Stop { signal: receiver, open })
    }

    /// Closes listeners and idle connections.
    pub(crate) fn stop(&self) {
        self.signal.send_replace(Phase::Stopping);
    }

    /// Closes all that is left.
    pub(crate) fn end(&self) {
        self.signal.send_replace(Phase::Ended);
    }

    /// Connections still open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

impl Stop {
    /// Waits for the signal.
    pub(crate) async fn stopped(&mut self) {
        self.reached(Phase::Stopping).await;
    }

    /// Waits for the signal that ends what is under way.
    pub(crate) async fn ended(&mut self) {
        self.reached(Phase::Ended).await;
    }

    async fn reached(&mut self, phase: Phase) {
        // A stopper that is gone stops too.
        let _ = self.signal.wait_for(|now| *now >= phase).await;
    }

    /// Waits until no connection of any listener is open.
    pub(crate) async fn all_closed(&self) {
        while self.open.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Counts an open connection.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(stop: &Stop) -> Self {
        stop.open.fetch_add(1, Ordering::Relaxed);
        Self(stop.open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Accepts connections until told to stop.
pub(crate) async fn run<S: Serve>(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    settings: ConnSettings,
    handler: S,
    mut stop: Stop,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                let open = Open::new(&stop);
                let (tls, handler, stop) = (tls.clone(), handler.clone(), stop.clone());
                tokio::spawn(async move {
                    let _open = open;
                    conn::serve(stream, peer, tls, settings, handler, stop).await;
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to be given back.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
