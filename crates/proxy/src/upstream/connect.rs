//! Opening connections: name look-up, TCP, forward proxies, TLS.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use aisix_core::{Error, Reason};
use http::Uri;
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

use super::{
    Origin, Trust, UpstreamSettings, chain,
    pool::{ForwardProxy, H1},
    transport, trust,
};

/// Forward proxies from the environment. An empty text means none.
#[derive(Clone, Debug, Default)]
pub struct ProxyEnv {
    /// `HTTP_PROXY`.
    pub http: String,
    /// `HTTPS_PROXY`.
    pub https: String,
    /// `ALL_PROXY`.
    pub all: String,
    /// `NO_PROXY`.
    pub no: String,
}

/// What an HTTP/1.1 connection runs over.
pub(super) type Io = TokioIo<Wire>;

pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub(super) struct Connector {
    tcp: HttpConnector,
    proxies: Option<Matcher>,
    trust: Arc<Trust>,
    timeout: Option<Duration>,
}

impl Connector {
    pub(super) fn new(settings: &UpstreamSettings, trust: Arc<Trust>, proxies: &ProxyEnv) -> Self {
        let (idle, interval, probes) = settings.tcp_keepalive;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(idle);
        tcp.set_keepalive_interval(interval);
        tcp.set_keepalive_retries(probes);
        let any = [&proxies.http, &proxies.https, &proxies.all].iter().any(|text| !text.is_empty());
        let proxies = any.then(|| {
            Matcher::builder()
                .http(proxies.http.as_str())
                .https(proxies.https.as_str())
                .all(proxies.all.as_str())
                .no(proxies.no.as_str())
                .build()
        });
        Self { tcp, proxies, trust, timeout: settings.connect_timeout }
    }

    /// Opens a connection within the connect timeout.
    pub(super) async fn dial(&self, origin: &Origin) -> Result<Box<H1>, Error> {
        let Some(limit) = self.timeout else {
            return self.open(origin).await;
        };
        match tokio::time::timeout(limit, self.open(origin)).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                Reason::UpstreamTimeout,
                format!("upstream request timed out after {}ms", limit.as_millis()),
            )
            .with_detail(format!("connecting to {}:{} timed out", origin.host, origin.port))),
        }
    }

    async fn open(&self, origin: &Origin) -> Result<Box<H1>, Error> {
        let uri = origin_uri(origin).map_err(|e| transport(&e.to_string()))?;
        let proxy = self.proxies.as_ref().and_then(|matcher| matcher.intercept(&uri));
        let tcp = match &proxy {
            None => self.tcp.clone().call(uri.clone()).await.map_err(|e| failed(&e, origin))?,
            Some(proxy) if !origin.https => {
                self.tcp.clone().call(proxy.uri().clone()).await.map_err(|e| failed(&e, origin))?
            }
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
                if let Some(auth) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(auth.clone());
                }
                tunnel.call(uri.clone()).await.map_err(|e| failed(&e, origin))?
            }
        };
        if origin.https {
            return self.secure(origin, tcp.into_inner()).await;
        }
        let forward =
            proxy.map(|proxy| ForwardProxy { target: uri, authorization: proxy.basic_auth().cloned() });
        let io = TokioIo::new(Wire::Plain(tcp.into_inner()));
        H1::handshake(io, forward).await.map_err(|e| transport(&e))
    }

    async fn secure(&self, origin: &Origin, tcp: TcpStream) -> Result<Box<H1>, Error> {
        let name = ServerName::try_from(origin.host.clone()).map_err(|e| transport(&e.to_string()))?;
        let config = self.trust.client(&origin.trust).map_err(|e| transport(&e))?;
        let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| {
            transport(&trust::describe(&e)).with_detail(format!("TLS with {}: {}", origin.host, chain(&e)))
        })?;
        let io = TokioIo::new(Wire::Tls(Box::new(stream)));
        H1::handshake(io, None).await.map_err(|e| transport(&e))
    }
}

fn origin_uri(origin: &Origin) -> Result<Uri, http::Error> {
    let scheme = if origin.https { "https" } else { "http" };
    let host = if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    Uri::builder().scheme(scheme).authority(format!("{host}:{}", origin.port)).path_and_query("/").build()
}

/// The caller reads the cause; which host it was is for the operator.
fn failed(error: &dyn std::error::Error, origin: &Origin) -> Error {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    transport(&format!("error trying to connect: {deepest}")).with_detail(format!(
        "connecting to {}:{}: {}",
        origin.host,
        origin.port,
        chain(error)
    ))
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }
}
