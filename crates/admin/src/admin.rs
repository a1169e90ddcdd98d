//! The router of the admin listener.

use std::{future::Future, pin::Pin, sync::Arc};

use aisix_config::ConfigState;
use aisix_core::{Lifecycle, Secret, probe};
use aisix_telemetry::HealthTable;
use axum::{
    Router,
    body::Body,
    extract::{Path, Request, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use bytes::Bytes;
use http::{Method, StatusCode, Uri, header, uri::PathAndQuery};

use crate::{
    auth::AdminKeys,
    health,
    kinds::Entry,
    openapi, respond,
    routes::{self, Access, Action, PLAYGROUND_TARGET},
    viewer,
};

/// A boxed future that may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves a request as the proxy listener would, without a socket.
pub type Playground = Arc<dyn Fn(http::Request<Body>) -> BoxFuture<http::Response<Body>> + Send + Sync>;

/// What the admin listener works with.
pub struct AdminState {
    /// The admin keys; with none, every `/admin/v1` request is refused.
    pub keys: Vec<Secret<String>>,
    /// The applied configuration.
    pub config: Arc<ConfigState>,
    /// Health and cooldown of the models.
    pub health: Arc<HealthTable>,
    /// What the probes report.
    pub lifecycle: Arc<Lifecycle>,
    /// The way into the proxy.
    pub playground: Playground,
}

/// What the handlers share.
struct Shared {
    keys: AdminKeys,
    config: Arc<ConfigState>,
    health: Arc<HealthTable>,
    lifecycle: Arc<Lifecycle>,
    playground: Playground,
    openapi: Bytes,
}

/// Builds the router of the admin listener.
pub fn admin_router(state: AdminState) -> Router {
    let routes = routes::table();
    let shared = Arc::new(Shared {
        keys: AdminKeys::new(&state.keys),
        config: state.config,
        health: state.health,
        lifecycle: state.lifecycle,
        playground: state.playground,
        openapi: openapi::document(&routes).to_string().into(),
    });
    let mut router = Router::new();
    for route in &routes {
        router = router.route(&route.path, method_router(route.action, &shared));
    }
    router
}

/// A wrong method is answered by the fallback of the method router, before any
/// handler and so before authentication.
fn method_router(action: Action, shared: &Arc<Shared>) -> MethodRouter {
    let shared = Arc::clone(shared);
    let handler = move |id: Result<Path<String>, PathRejection>, request: Request| {
        let shared = Arc::clone(&shared);
        async move { shared.serve(action, id.ok().map(|Path(id)| id), request).await }
    };
    match action {
        Action::Playground => post(handler),
        Action::List(_) | Action::Get(_) => get(handler).fallback(read_only),
        _ => get(handler),
    }
}

/// Answers the methods that a resource does not take. A write is told why.
async fn read_only(method: Method) -> Response {
    const WRITES: [Method; 4] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let mut response = if WRITES.contains(&method) {
        respond::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "resources are read-only here: they come from a resources file; change the file instead",
        )
    } else {
        StatusCode::METHOD_NOT_ALLOWED.into_response()
    };
    response.headers_mut().insert(header::ALLOW, respond::READ_METHODS);
    response
}

impl Shared {
    /// `id` is the path parameter, absent on routes without one and where it is
    /// not UTF-8.
    async fn serve(&self, action: Action, id: Option<String>, request: Request) -> Response {
        if action.access() == Access::AdminKey && !self.keys.admit(request.headers()) {
            return respond::error(StatusCode::UNAUTHORIZED, "missing or malformed admin authorization");
        }
        match action {
            Action::Livez => respond::probe(probe::livez(&self.lifecycle, verbose(&request))),
            Action::Readyz => respond::probe(probe::readyz(&self.lifecycle, verbose(&request))),
            Action::OpenApi => respond::json_bytes(self.openapi.clone()),
            Action::Viewer => viewer::page(),
            Action::Health => health::report(&self.config, &self.health),
            Action::ModelsStatus => health::models_status(&self.config, &self.health),
            Action::List(kind) => respond::json(&(kind.entries)(&self.config.current(), None)),
            Action::Get(kind) => match id {
                Some(id) => one(&(kind.entries)(&self.config.current(), Some(&id))),
                None => one(&[]),
            },
            Action::Playground => (self.playground)(retarget(request)).await,
        }
    }
}

fn one(entries: &[Entry]) -> Response {
    match entries.first() {
        Some(entry) => respond::json(entry),
        None => respond::error(StatusCode::NOT_FOUND, "resource not found"),
    }
}

/// Whether the query has the key `verbose`, with or without a value.
fn verbose(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair.split('=').next() == Some("verbose"))
}

/// Points a playground request at the proxy; the query does not go with it.
fn retarget(mut request: Request) -> Request {
    let target = PathAndQuery::from_static(PLAYGROUND_TARGET);
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(target.clone());
    // Only an authority without a scheme cannot be kept next to a path.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| Uri::from(target));
    request
}
