//! The connection to a cluster: endpoints in turn, credentials, calls that end.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use aisix_core::Secret;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use super::Settings;
use super::proto::{
    AuthenticateRequest, AuthenticateResponse, RangeRequest, RangeResponse, ResponseHeader, StatusRequest,
    StatusResponse, WatchCreateRequest, WatchRequest, WatchResponse, WatchUnion, path,
};

/// A page of rows may be larger than the 4 MiB that gRPC allows by itself.
const MAX_MESSAGE: usize = 512 << 20;
/// etcd tolerates pings of a client every 5 s and more.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_ANSWER: Duration = Duration::from_secs(5);
const WINDOW: u32 = 4 << 20;
/// Longest text of a server that is passed on.
const MAX_TEXT: usize = 300;

/// Why a call brought nothing. Never quotes what was sent.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no connection; nothing was sent.
    NotReached(String),
    /// Sent, but the outcome is not known.
    Unanswered(String),
    /// etcd answered with an error: nothing was done.
    Refused(Code, String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReached(text) => write!(f, "etcd is not reached: {text}"),
            Self::Unanswered(text) => write!(f, "etcd did not answer: {text}"),
            Self::Refused(_, text) => write!(f, "etcd refused: {text}"),
        }
    }
}

impl Failure {
    /// The token is unknown (etcd restarted, or it expired) or older than a
    /// change of users and roles.
    fn is_token(&self) -> bool {
        let Self::Refused(code, text) = self else { return false };
        *code == Code::Unauthenticated || text.contains("revision of auth store is old")
    }

    /// The cluster knows no users: whoever reaches it may do everything.
    fn is_open(&self) -> bool {
        matches!(self, Self::Refused(_, text) if text.contains("authentication is not enabled"))
    }

    /// The wanted revision was compacted, or is not reached yet.
    pub(super) fn is_revision(&self) -> bool {
        matches!(self, Self::Refused(Code::OutOfRange, text) if text.contains("required revision"))
    }

    pub(super) fn of(status: Status) -> Self {
        let mut text = status.message().to_owned();
        let mut source = status.source();
        let mut connected = true;
        while let Some(error) = source {
            connected &= !error.is::<tonic::ConnectError>();
            let more = error.to_string();
            if !text.contains(&more) {
                text = if text.is_empty() { more } else { format!("{text}: {more}") };
            }
            source = error.source();
        }
        let text = text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
        let known = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::ResourceExhausted
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Unauthenticated
        );
        // With a source, the status was made up on this side.
        match (connected, known && status.source().is_none()) {
            (false, _) => Self::NotReached(text),
            (true, true) => Self::Refused(status.code(), text),
            (true, false) => Self::Unanswered(text),
        }
    }
}

struct Credentials {
    name: String,
    password: Secret<String>,
}

/// Makes connections and keeps the one in use.
pub(super) struct Client {
    endpoints: Vec<(String, Endpoint)>,
    user: Option<Credentials>,
    /// A cheap linearizable read within what the user may read.
    probe: RangeRequest,
    dial_timeout: Duration,
    request_timeout: Duration,
    /// Whether a version of etcd answers progress requests in order.
    pub(super) ordered: fn(&str) -> bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    /// The endpoint that is tried first.
    next: usize,
    sessions: u64,
}

/// A connection to one endpoint that has answered, and its token.
#[derive(Clone)]
pub(super) struct Session {
    channel: Channel,
    token: Option<AsciiMetadataValue>,
    id: u64,
    /// Whether an answer to a progress request comes after all events up to
    /// its revision.
    pub(super) ordered_progress: bool,
}

/// Both ends of a watch.
pub(super) struct Watch {
    pub(super) requests: mpsc::Sender<WatchRequest>,
    pub(super) responses: Streaming<WatchResponse>,
}

impl Client {
    pub(super) fn new(settings: &Settings, probe: RangeRequest) -> Result<Self, String> {
        if settings.endpoints.is_empty() {
            return Err("etcd.endpoints must contain at least one endpoint".into());
        }
        let endpoints = settings.endpoints.iter().map(|address| {
            let built = endpoint(address, settings);
            built
                .map(|built| (address.clone(), built))
                .map_err(|why| format!("etcd endpoint {address:?}: {why}"))
        });
        let user = settings.user.as_ref();
        Ok(Self {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            user: user.map(|(name, word)| Credentials { name: name.clone(), password: word.clone() }),
            probe,
            dial_timeout: settings.dial_timeout,
            request_timeout: settings.request_timeout,
            ordered: ordered_progress,
            state: Mutex::default(),
        })
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// The connection in use, or a new one: the endpoints in turn, each asked
    /// for a linearizable read, so that one without a quorum is passed over.
    pub(super) async fn session(&self) -> Result<Session, Failure> {
        let mut state = self.state.lock().await;
        if let Some(session) = &state.session {
            return Ok(session.clone());
        }
        let mut why = Vec::new();
        for _ in 0..self.endpoints.len() {
            let at = state.next % self.endpoints.len();
            // Counted before the attempt: a caller that gives up half-way
            // leaves the next endpoint to the next caller.
            state.next = at + 1;
            state.sessions += 1;
            match self.open(at, state.sessions).await {
                Ok(session) => {
                    state.session = Some(session.clone());
                    return Ok(session);
                }
                Err(Failure::NotReached(text) | Failure::Unanswered(text) | Failure::Refused(_, text)) => {
                    why.push(format!("{}: {text}", self.endpoints[at].0));
                }
            }
        }
        Err(Failure::NotReached(why.join("; ")))
    }

    async fn open(&self, at: usize, id: u64) -> Result<Session, Failure> {
        let dial = timeout(self.dial_timeout, self.endpoints[at].1.connect()).await;
        let channel = match dial {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(Failure::of(Status::from_error(Box::new(error)))),
            Err(_) => {
                let text = format!("no connection within {} ms", self.dial_timeout.as_millis());
                return Err(Failure::NotReached(text));
            }
        };
        let mut session = Session { channel, token: None, id, ordered_progress: false };
        if let Some(user) = &self.user {
            let ask =
                AuthenticateRequest { name: user.name.clone(), password: user.password.expose().clone() };
            let answer: Result<AuthenticateResponse, _> =
                session.call(path::AUTHENTICATE, ask, self.request_timeout).await;
            match answer {
                Ok(answer) => {
                    let token = AsciiMetadataValue::try_from(answer.token);
                    let mut token =
                        token.map_err(|_| Failure::Unanswered("the token is not ASCII".into()))?;
                    token.set_sensitive(true);
                    session.token = Some(token);
                }
                // A token is wanted again as soon as it is switched on.
                Err(failure) if failure.is_open() => {
                    tracing::warn!("etcd asks for no password: authentication is switched off there");
                }
                Err(failure) => return Err(failure),
            }
        }
        let _: RangeResponse = session.call(path::RANGE, self.probe.clone(), self.request_timeout).await?;
        // Only a hint: a user may lack the right to ask.
        let status: Result<StatusResponse, _> =
            session.call(path::STATUS, StatusRequest {}, self.request_timeout).await;
        session.ordered_progress = status.is_ok_and(|status| (self.ordered)(&status.version));
        Ok(session)
    }

    /// Lets go of a connection; the next one begins with the next endpoint.
    pub(super) async fn forget(&self, session: &Session) {
        let mut state = self.state.lock().await;
        if state.session.as_ref().is_some_and(|kept| kept.id == session.id) {
            state.session = None;
        }
    }

    /// A call on the connection in use. Where nothing can have been done (the
    /// endpoint is gone, the token is refused), a new connection gets one try.
    pub(super) async fn call<Q, R>(&self, path: &'static str, request: Q) -> Result<R, Failure>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let session = self.session().await?;
        let answer = session.call(path, request.clone(), self.request_timeout).await;
        match answer {
            Err(failure) if failure.is_token() || matches!(failure, Failure::NotReached(_)) => {
                self.forget(&session).await;
                let session = self.session().await?;
                session.call(path, request, self.request_timeout).await
            }
            Err(failure @ Failure::Unanswered(_)) => {
                self.forget(&session).await;
                Err(failure)
            }
            answer => answer,
        }
    }
}

impl Session {
    async fn call<Q, R>(&self, path: &'static str, request: Q, limit: Duration) -> Result<R, Failure>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.grpc().await?;
            let codec = ProstCodec::<Q, R>::default();
            grpc.unary(self.request(request), PathAndQuery::from_static(path), codec).await
        };
        match timeout(limit, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner).map_err(Failure::of),
            Err(_) => Err(late(limit)),
        }
    }

    /// Begins a watch; its first response may still be under way.
    pub(super) async fn watch(&self, create: WatchCreateRequest, limit: Duration) -> Result<Watch, Failure> {
        let (requests, queue) = mpsc::channel(4);
        let create = WatchRequest { request: Some(WatchUnion::Create(create)) };
        let begin = async {
            // There is room: the queue is new.
            let _ = requests.send(create).await;
            let mut grpc = self.grpc().await?;
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            let mut stream = self.request(ReceiverStream::new(queue));
            // A member cut off from its cluster would go on to call old rows
            // current; so it ends the watch instead.
            stream.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
            grpc.streaming(stream, PathAndQuery::from_static(path::WATCH), codec).await
        };
        match timeout(limit, begin).await {
            Ok(answer) => {
                let responses = answer.map_err(Failure::of)?.into_inner();
                Ok(Watch { requests, responses })
            }
            Err(_) => Err(late(limit)),
        }
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(grpc)
    }

    fn request<M>(&self, message: M) -> tonic::Request<M> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

fn late(limit: Duration) -> Failure {
    Failure::Unanswered(format!("nothing within {} ms", limit.as_millis()))
}

/// What every answer says of the cluster.
pub(super) fn header(header: Option<&ResponseHeader>) -> (u64, u64) {
    header.map_or((0, 0), |header| (header.cluster_id, revision(header.revision)))
}

/// Revisions are never negative.
pub(super) fn revision(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// And never near the limit.
pub(super) fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Servers before 3.4.25 and 3.5.8 answer a progress request with the current
/// revision although events up to it may still be on their way.
fn ordered_progress(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    let mut next = || parts.next().flatten();
    match (next(), next(), next()) {
        (Some(3), Some(4), Some(patch)) => patch >= 25,
        (Some(3), Some(5), Some(patch)) => patch >= 8,
        (Some(major), Some(minor), Some(_)) => (major, minor) >= (3, 6),
        _ => false,
    }
}

fn endpoint(address: &str, settings: &Settings) -> Result<Endpoint, String> {
    let (uri, secure) = match (address.split_once("://"), &settings.tls) {
        (Some(("https", _)), _) => (address.to_owned(), true),
        (Some(("http", _)), None) => (address.to_owned(), false),
        (Some(("http", _)), Some(_)) => return Err("http:// cannot be used together with etcd.tls".into()),
        (Some((scheme, _)), _) => return Err(format!("unknown scheme {scheme:?}")),
        (None, Some(_)) => (format!("https://{address}"), true),
        (None, None) => (format!("http://{address}"), false),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| error.to_string())?;
    if !matches!(endpoint.uri().path(), "" | "/") || endpoint.uri().query().is_some() {
        return Err("only host and port are expected".into());
    }
    if endpoint.uri().authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("credentials belong into etcd.user and etcd.password_env".into());
    }
    let agent = concat!("aisix/", env!("CARGO_PKG_VERSION"));
    // Pings go out while a call or a watch is open, also on one that brings
    // nothing. Without one, etcd takes pings for abuse and hangs up.
    let endpoint = endpoint
        .user_agent(agent)
        .map_err(|error| error.to_string())?
        .connect_timeout(settings.dial_timeout)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .keep_alive_while_idle(false)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .tcp_nodelay(true);
    if !secure {
        return Ok(endpoint);
    }
    let mut tls = ClientTlsConfig::new();
    match &settings.tls {
        None => tls = tls.with_native_roots(),
        Some(given) => {
            tls = tls.ca_certificate(Certificate::from_pem(&given.ca));
            if let Some((cert, key)) = &given.client {
                tls = tls.identity(Identity::from_pem(cert, key.expose()));
            }
            if let Some(name) = given.domain_name.clone().or_else(|| first_host(settings)) {
                tls = tls.domain_name(name);
            }
        }
    }
    endpoint.tls_config(tls).map_err(|error| describe(&error))
}

/// An error of TLS with its causes.
fn describe(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// All members are expected to show a certificate for the first one's host.
fn first_host(settings: &Settings) -> Option<String> {
    let first = settings.endpoints.first()?;
    let first = first.split_once("://").map_or(first.as_str(), |(_, rest)| rest);
    let authority = first.trim_end_matches('/').parse::<http::uri::Authority>().ok()?;
    Some(authority.host().trim_matches(['[', ']']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_ordered_progress() {
        for version in ["3.4.25", "3.4.37", "3.5.8", "3.5.21-rc.1", "3.6.0", "4.0.0"] {
            assert!(ordered_progress(version), "{version}");
        }
        for version in ["3.3.99", "3.4.23", "3.4.24", "3.5.0", "3.5.7", "", "3", "x.y.z"] {
            assert!(!ordered_progress(version), "{version}");
        }
    }

    #[test]
    fn endpoints_are_checked() {
        let with = |endpoint: &str, tls: bool| {
            let tls = tls.then(|| super::super::Tls { ca: Vec::new(), client: None, domain_name: None });
            let settings = Settings { endpoints: vec![endpoint.into()], tls, ..Settings::default() };
            Client::new(&settings, RangeRequest::default()).map(|_| ())
        };
        for good in ["127.0.0.1:2379", "http://etcd:2379", "http://etcd:2379/", "[::1]:2379", "https://etcd"]
        {
            assert_eq!(with(good, false), Ok(()), "{good}");
        }
        for (bad, tls, why) in [
            ("ftp://etcd:1", false, "unknown scheme"),
            ("http://etcd:2379", true, "etcd.tls"),
            ("http://etcd/v3", false, "host and port"),
            ("http://me:word@etcd", false, "etcd.user"),
            ("not a host", false, "invalid"),
        ] {
            let text = with(bad, tls).expect_err(bad);
            assert!(text.contains(why), "{bad}: {text}");
        }
    }

    #[test]
    fn the_first_host_names_the_server() {
        for (given, host) in [
            ("etcd:2379", "etcd"),
            ("https://a.b:1/", "a.b"),
            ("[::1]:2379", "::1"),
            ("10.0.0.1:1", "10.0.0.1"),
        ] {
            let settings = Settings { endpoints: vec![given.into()], ..Settings::default() };
            assert_eq!(first_host(&settings).as_deref(), Some(host));
        }
    }
}
