//! One connection from handshake to close.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{Request, Response, body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{
    ConnSettings, Serve, Stop, Tls,
    guard::{Activity, Busy, Guard, Overdue, watch},
};

/// A TLS handshake takes no longer than this.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection without a request may take to close when the listener stops.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// What HTTP/2 admits of a request head: about what the library admits of one
/// of HTTP/1.1.
const MAX_HEADER_LIST: u32 = 400 * 1024;

/// Serves a connection until it closes.
pub(super) async fn serve<S: Serve>(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    settings: ConnSettings,
    handler: S,
    stop: Stop,
) {
    let Some(tls) = tls else {
        return speak(stream, peer, settings, handler, stop).await;
    };
    let acceptor = TlsAcceptor::from(tls.current());
    let mut stopping = stop.clone();
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)) => handshake,
        () = stopping.stopped() => return,
    };
    match handshake {
        Ok(Ok(stream)) => speak(stream, peer, settings, handler, stop).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

async fn speak<S, T>(stream: T, peer: SocketAddr, settings: ConnSettings, handler: S, mut stop: Stop)
where
    S: Serve,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::new();
    let refuser = handler.clone();
    let guarded = Guard::new(stream, activity.clone(), Box::new(move |status| refuser.refuse(status)));
    let requests = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| Answering {
        busy: Some(requests.request()),
        answer: handler.clone().serve(request, peer),
    });
    let mut builder = auto::Builder::new(Streams(stop.clone()));
    // Slow heads are the guard's business; the library's own limit would also
    // close connections that are merely idle.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_header_list_size(MAX_HEADER_LIST);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(guarded), service));
    let mut overdue = pin!(watch(activity.clone(), settings));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        verdict = overdue.as_mut() => {
            if verdict == Overdue::Head {
                tracing::debug!(%peer, "request head took too long");
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = stop.stopped() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                // Half a request head, or a client that does not answer, must not hold the process.
                () = activity.quiet(LAST_GRACE) => return,
                () = stop.ended() => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// Runs the requests of an HTTP/2 connection.
///
/// Whoever answers a request looks at the state of the process when it is woken.
/// That of HTTP/1 is part of the connection's task and is woken with it by the
/// signal to stop; these are tasks of their own.
#[derive(Clone)]
struct Streams(Stop);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (mut stream, mut stop) = (Box::pin(stream), self.0.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = &mut stream => return,
                () = stop.stopped() => {}
            }
            stream.await;
        });
    }
}

pin_project! {
    /// A request being answered. Written out, because an async block would hold
    /// the large future of the answer twice.
    struct Answering<F> {
        busy: Option<Busy>,
        #[pin]
        answer: F,
    }
}

impl<B, F: Future<Output = Response<B>>> Future for Answering<F> {
    type Output = Result<Response<Tracked<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = std::task::ready!(this.answer.poll(cx));
        let busy = this.busy.take();
        Poll::Ready(Ok(response.map(|body| Tracked { body, _busy: busy })))
    }
}

/// Keeps the connection busy until the response is complete.
struct Tracked<B> {
    body: B,
    _busy: Option<Busy>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Tracked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
