//! Accept: request id, client address, endpoint, record.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use aisix_core::{Dialect, Error, Lifecycle, Reason, RequestId};
use aisix_telemetry::{EndpointInfo, Record, RecordStart};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header, request::Parts,
};

use super::{CONFLICTING_LENGTH, client_ip};
use crate::{
    endpoints::{Endpoint, Found, find},
    gateway::Worker,
    reply::{InFlight, Reply, ReplyBody, ReplyHead},
    rewrite::rewrite,
};

/// A request whose head was read.
pub(crate) struct Arrival {
    id: RequestId,
    client_ip: IpAddr,
    path: String,
    found: Found,
    lifecycle: Arc<Lifecycle>,
    in_flight: InFlight,
}

impl Arrival {
    /// Gives the request its id, its client address and its endpoint.
    pub(crate) fn of<B>(worker: &Worker, request: &Request<B>, peer: SocketAddr) -> Self {
        let gateway = &worker.gateway;
        let in_flight = InFlight::new(gateway.lifecycle.clone());
        let headers = request.headers();
        let id = request_id(headers, &gateway.settings.request_id_headers);
        let client_ip = client_ip::resolve(headers, peer.ip(), &gateway.settings);
        let path = match rewrite(&gateway.settings.rewrites, request.uri()) {
            Ok(None) => request.uri().path().to_owned(),
            Ok(Some(uri)) => uri.path().to_owned(),
            Err(error) => {
                tracing::warn!(request_id = %id, %error, "serving the request on its original path");
                request.uri().path().to_owned()
            }
        };
        let found = find(request.method(), &path);
        Self { id, client_ip, path, found, lifecycle: gateway.lifecycle.clone(), in_flight }
    }

    /// What is needed to answer after a panic, when all else is lost.
    pub(crate) fn after_panic(&self) -> Head {
        Head {
            id: self.id.clone(),
            dialect: self.found.dialect(),
            lifecycle: self.lifecycle.clone(),
            allow: None,
        }
    }

    /// Opens the record.
    pub(crate) fn accept(self, worker: &Worker, parts: Parts) -> Accepted {
        let mut head = self.after_panic();
        if let Found::WrongMethod(_, allow) = &self.found {
            head.allow = HeaderValue::try_from(allow).ok();
        }
        let start = RecordStart {
            endpoint: self.found.info(),
            request_id: self.id.clone(),
            method: parts.method.clone(),
            path: self.path,
            user_agent: parts.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes),
            client_ip: Some(self.client_ip),
        };
        Accepted {
            record: Record::open(worker.shard.clone(), start),
            headers: parts.headers,
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            unfinished: false,
            client_ip: self.client_ip,
            found: self.found,
            head,
            in_flight: self.in_flight,
        }
    }
}

/// A request with its record.
pub(crate) struct Accepted {
    pub(crate) record: Record,
    pub(crate) headers: HeaderMap,
    pub(crate) client_ip: IpAddr,
    pub(crate) method: Method,
    /// The URI as the client sent it.
    pub(crate) uri: Uri,
    /// HTTP version of the request.
    pub(crate) version: Version,
    /// The rest of the body will not be read, so the connection carries no other request.
    pub(crate) unfinished: bool,
    found: Found,
    head: Head,
    in_flight: InFlight,
}

impl Accepted {
    /// The row of the endpoint table, or why there is none.
    pub(crate) fn endpoint(&self) -> Result<&'static Endpoint, Error> {
        match &self.found {
            Found::Row(row) => Ok(row),
            Found::WrongMethod(_, allow) => {
                Err(Error::new(Reason::MethodNotAllowed, format!("this path takes {allow} only")))
            }
            Found::Nothing => Err(Error::new(Reason::PathNotFound, "no endpoint has this path")),
        }
    }

    pub(crate) fn info(&self) -> &'static EndpointInfo {
        self.found.info()
    }

    /// Whether the query has the key `verbose`.
    pub(crate) fn verbose(&self) -> bool {
        let query = self.uri.query().unwrap_or_default();
        query.split('&').any(|pair| pair.split('=').next() == Some("verbose"))
    }

    /// Makes the response of what the stages answered.
    pub(crate) fn respond(mut self, result: Result<Reply, Error>) -> Response<ReplyBody> {
        if let Err(error) = &result {
            self.record.fail(error);
        }
        let (mut head, reply) = self.head.prepare(result);
        if self.unfinished || self.headers.contains_key(CONFLICTING_LENGTH) {
            // Where the next request on this connection begins is anyone's guess.
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.record.head(head.status.as_u16());
        let body = reply.into_body(self.record, self.in_flight);
        head.response(body)
    }
}

/// What every response needs from its request.
pub(crate) struct Head {
    id: RequestId,
    dialect: Dialect,
    lifecycle: Arc<Lifecycle>,
    allow: Option<HeaderValue>,
}

impl Head {
    /// The response when the stages did not live to make one.
    pub(crate) fn respond(&self, result: Result<Reply, Error>) -> Response<ReplyBody> {
        let (head, reply) = self.prepare(result);
        head.response(reply.unrecorded())
    }

    fn prepare(&self, result: Result<Reply, Error>) -> (ReplyHead, Reply) {
        let reply = result.unwrap_or_else(|error| Reply::error(&error, self.dialect));
        let mut head = ReplyHead::new(&reply, &self.id, self.lifecycle.draining());
        if let Some(allow) = &self.allow {
            head.headers.insert(header::ALLOW, allow.clone());
        }
        (head, reply)
    }
}

fn request_id(headers: &HeaderMap, accepted: &[HeaderName]) -> RequestId {
    accepted
        .iter()
        .find_map(|name| RequestId::accept(headers.get(name)?.as_bytes()))
        .unwrap_or_else(RequestId::mint)
}

/// The response to a request whose head could not be read.
pub fn refuse_head(status: u16) -> Response<Bytes> {
    let error = match status {
        413 => Error::new(Reason::BodyTooLarge, "the declared length of the request body is too large"),
        414 => Error::new(Reason::BadRequest, "the request target is too long").with_status(414),
        431 => Error::new(Reason::HeadTooLarge, "the request head is too large"),
        _ => Error::new(Reason::BadRequest, "the request head cannot be read as HTTP").with_status(status),
    };
    let reply = Reply::error(&error, Dialect::OpenAi);
    let head = ReplyHead::new(&reply, &RequestId::mint(), false);
    head.response(reply.into_bytes())
}
