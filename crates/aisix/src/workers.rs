//! The threads that serve the proxy listener.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as Waker, Poll},
    time::Duration,
};

use aisix_admin::Peer;
use aisix_config::ProxyConfig;
use aisix_proxy::{CONFLICTING_LENGTH, Gateway, ReplyBody, Worker, host_problem, read_off, refuse_head};
use anyhow::{Context, Result};
use axum::Router;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{net::TcpListener, runtime, sync::oneshot, task::JoinHandle};
use tower_service::Service;

use crate::listen::{self, Bound, ConnSettings, Serve, Stop, Tls};

const SWEEP: Duration = Duration::from_secs(5);

/// The proxy listener's handler.
#[derive(Clone)]
struct Proxy(Arc<Worker>);

impl Serve for Proxy {
    type Body = ReplyBody;

    fn serve(
        self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<ReplyBody>> + Send {
        self.0.serve(request, peer)
    }

    fn refuse(&self, status: u16) -> Option<Response<Bytes>> {
        Some(refuse_head(status))
    }
}

/// The handler of the admin and status listeners.
#[derive(Clone)]
pub(crate) struct Routes(pub(crate) Router);

impl Serve for Routes {
    type Body = axum::body::Body;

    async fn serve(mut self, mut request: Request<Incoming>, peer: SocketAddr) -> Response<axum::body::Body> {
        let headers = request.headers();
        let ambiguous = headers.contains_key(CONFLICTING_LENGTH);
        if ambiguous || host_problem(request.version(), headers).is_some() {
            // Where the next request on this connection begins is anyone's guess.
            let mut refusal = Response::new(axum::body::Body::empty());
            *refusal.status_mut() = StatusCode::BAD_REQUEST;
            refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return refusal;
        }
        request.extensions_mut().insert(Peer(peer));
        let (head, body) = request.into_parts();
        let rest = Rest(Arc::new(Mutex::new(body)));
        let answer: Result<_, Infallible> = self.0.call(Request::from_parts(head, rest.clone())).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        if answer.status().is_client_error() && !rest.is_end_stream() {
            // A client that still sends would find the connection reset instead of the answer.
            read_off(rest).await;
        }
        answer
    }

    fn refuse(&self, _: u16) -> Option<Response<Bytes>> {
        None
    }
}

/// A request body of which the rest can still be read when its reader has let go.
#[derive(Clone)]
struct Rest(Arc<Mutex<Incoming>>);

impl Rest {
    fn body(&self) -> MutexGuard<'_, Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Rest {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Waker<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

/// How the proxy listener is served.
pub(crate) struct ProxyListener {
    pub(crate) bound: Bound,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) settings: ConnSettings,
}

/// How many sockets the proxy listener needs.
pub(crate) fn sockets(config: &ProxyConfig) -> usize {
    if config.thread_per_core { config.workers } else { 1 }
}

/// Says how a worker ended; an error means that it panicked.
pub(crate) type Ended = oneshot::Receiver<Result<()>>;

/// Starts the workers.
pub(crate) fn start(
    config: &ProxyConfig,
    gateway: &Arc<Gateway>,
    mut listener: ProxyListener,
    stop: &Stop,
) -> Result<Vec<Ended>> {
    let mut handles = Vec::new();
    while let Some(socket) = listener.bound.take() {
        let runtime = if config.thread_per_core {
            runtime::Builder::new_current_thread().enable_all().build()
        } else {
            runtime::Builder::new_multi_thread().worker_threads(config.workers).enable_all().build()
        };
        let runtime = runtime.context("a worker's runtime cannot be built")?;
        let worker = gateway.worker();
        let (tls, settings, stop) = (listener.tls.clone(), listener.settings, stop.clone());
        let (ended, handle) = oneshot::channel();
        let body = move || {
            let result = runtime.block_on(async {
                let listener = TcpListener::from_std(socket)?;
                work(worker, listener, tls, settings, stop).await;
                Ok(())
            });
            // Nobody listens any more once the process is stopping.
            let _ = ended.send(result);
        };
        let name = format!("aisix-worker-{}", handles.len());
        std::thread::Builder::new().name(name).spawn(body).context("a worker thread cannot be started")?;
        handles.push(handle);
    }
    Ok(handles)
}

/// Serves until told to stop and every connection is closed.
async fn work(
    worker: Arc<Worker>,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    settings: ConnSettings,
    stop: Stop,
) {
    let sweeping = sweep(worker.clone());
    listen::run(listener, tls, settings, Proxy(worker), stop.clone()).await;
    // Connections live in this runtime: it ends after the last of them.
    stop.all_closed().await;
    sweeping.abort();
}

/// Closes what a worker no longer needs, again and again.
fn sweep(worker: Arc<Worker>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            worker.sweep();
        }
    })
}

/// Answers playground requests of the admin listener in this process.
pub(crate) fn playground(gateway: &Arc<Gateway>) -> aisix_admin::Playground {
    let worker = gateway.worker();
    sweep(worker.clone());
    Arc::new(move |request: Request<axum::body::Body>| {
        let worker = worker.clone();
        Box::pin(async move {
            // Without a known peer the client has no address that any list admits.
            let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
            let peer = request.extensions().get::<Peer>().map_or(nowhere, |peer| peer.0);
            worker.serve(request, peer).await.map(axum::body::Body::new)
        })
    })
}
