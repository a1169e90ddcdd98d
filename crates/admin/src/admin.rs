//! The router of the admin listener.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use aisix_config::{
    ConfigState, ResourceKind, View,
    edit::{Editor, Operation},
};
use aisix_core::{Lifecycle, probe};
use aisix_telemetry::HealthTable;
use axum::{
    Router,
    body::Body,
    extract::{Path, Request, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter},
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, header, uri::PathAndQuery};
use serde_json::{Map, Value};

use crate::{
    auth::{self, AdminKey},
    batch,
    call::Call,
    failure::Failure,
    health, openapi,
    respond::{self, Entry},
    routes::{self, Access, Action, CALLER_KEYS, PLAYGROUND_TARGET, Route, Source},
    trail, viewer, write,
};

/// A boxed future that may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves a request as the proxy listener would, without a socket.
pub type Playground = Arc<dyn Fn(http::Request<Body>) -> BoxFuture<http::Response<Body>> + Send + Sync>;

/// Lists the revisions of the store, newest first: at most so many, only older
/// than the given one.
pub type Revisions = Arc<dyn Fn(usize, Option<u64>) -> BoxFuture<Result<Value, String>> + Send + Sync>;

/// The address that a request came from: an extension of the request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What the admin listener works with.
pub struct AdminState {
    /// The admin keys; with none, every `/admin/v1` request is refused.
    pub keys: Vec<AdminKey>,
    /// The applied configuration.
    pub config: Arc<ConfigState>,
    /// Writes to the store; `None` when a file is the source.
    pub editor: Option<Arc<Editor>>,
    /// The history of the store, where it keeps one.
    pub revisions: Option<Revisions>,
    /// Health and cooldown of the models.
    pub health: Arc<HealthTable>,
    /// What the probes report.
    pub lifecycle: Arc<Lifecycle>,
    /// The way into the proxy.
    pub playground: Playground,
}

/// What the handlers share.
struct Shared {
    state: AdminState,
    openapi: Bytes,
}

/// Builds the router of the admin listener.
pub fn admin_router(state: AdminState) -> Router {
    let source = Source { writable: state.editor.is_some(), revisions: state.revisions.is_some() };
    let routes = routes::table(source);
    let openapi = openapi::document(&routes).to_string().into();
    let shared = Arc::new(Shared { state, openapi });
    let refused = if source.writable { Vec::new() } else { routes::refused_writes() };
    let mut paths: Vec<&str> = Vec::new();
    for route in routes.iter().chain(&refused) {
        if !paths.contains(&route.path.as_str()) {
            paths.push(&route.path);
        }
    }
    let at = |rows: &[Route], path: &str| -> Vec<Action> {
        rows.iter().filter(|row| row.path == path).map(|row| row.action).collect()
    };
    paths.iter().fold(Router::new(), |router, path| {
        router.route(path, method_router(at(&routes, path), at(&refused, path), &shared))
    })
}

/// A wrong method, or a write to a source that takes none, is answered by the
/// fallback: before any handler and so before authentication.
fn method_router(actions: Vec<Action>, refused: Vec<Action>, shared: &Arc<Shared>) -> MethodRouter {
    let mut router = MethodRouter::new();
    for action in actions.iter().copied() {
        let shared = Arc::clone(shared);
        let handler = move |id: Result<Path<String>, PathRejection>, request: Request| {
            let shared = Arc::clone(&shared);
            async move { shared.serve(action, id.ok().map(|Path(id)| id), request).await }
        };
        // Every method of the table has a filter.
        router = match MethodFilter::try_from(action.method()) {
            Ok(filter) => router.on(filter, handler),
            Err(_) => router,
        };
    }
    let allow = allowed(&actions);
    router.fallback(move |method: Method| {
        let told = refused.iter().any(|action| writes_like(*action, &method));
        let nowhere = actions.is_empty() && !told;
        std::future::ready(if nowhere {
            StatusCode::NOT_FOUND.into_response()
        } else {
            wrong_method(told, allow.clone())
        })
    })
}

/// Whether a method would be a write there: on collections and resources all
/// that write are.
fn writes_like(action: Action, method: &Method) -> bool {
    const WRITES: [Method; 4] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    match action {
        Action::Batch | Action::Apply | Action::Rollback => action.method() == *method,
        _ => WRITES.contains(method),
    }
}

fn allowed(actions: &[Action]) -> HeaderValue {
    const READS: HeaderValue = respond::READ_METHODS;
    let methods: Vec<String> = actions.iter().map(|action| action.method().to_string()).collect();
    let text = methods.join(",").replace("GET", "GET,HEAD");
    if text.is_empty() { READS } else { HeaderValue::try_from(text).unwrap_or(READS) }
}

fn wrong_method(told: bool, allow: HeaderValue) -> Response {
    let mut response = if told {
        let why = "resources are read-only here: they come from a resources file; change the file instead";
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, why).into_response()
    } else {
        StatusCode::METHOD_NOT_ALLOWED.into_response()
    };
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

impl Shared {
    /// `id` is the path parameter, absent on routes without one and where it is
    /// not UTF-8.
    async fn serve(&self, action: Action, id: Option<String>, request: Request) -> Response {
        let lifecycle = &self.state.lifecycle;
        match action {
            Action::Livez => respond::probe(probe::livez(lifecycle, verbose(&request))),
            Action::Readyz => respond::probe(probe::readyz(lifecycle, verbose(&request))),
            Action::OpenApi => respond::json_bytes(self.openapi.clone()),
            Action::Viewer => viewer::page(),
            Action::Playground => (self.state.playground)(retarget(request)).await,
            _ => self.guarded(action, id, request).await.unwrap_or_else(IntoResponse::into_response),
        }
    }

    /// The routes that need an admin key.
    async fn guarded(
        &self,
        action: Action,
        id: Option<String>,
        request: Request,
    ) -> Result<Response, Failure> {
        let key = auth::admit(&self.state.keys, request.headers()).ok_or_else(|| {
            Failure::new(StatusCode::UNAUTHORIZED, "missing or malformed admin authorization")
        })?;
        if let Access::Admin(role) = action.access()
            && key.role < role
        {
            let text = format!("this needs the role {}", auth::role_name(role));
            return Err(Failure::new(StatusCode::FORBIDDEN, text));
        }
        let call = Call::read(action, id, request, key).await?;
        let dry_run = call.dry_run();
        let answer = self.answer(action, call).await;
        let mut response = answer.unwrap_or_else(IntoResponse::into_response);
        if dry_run {
            response.headers_mut().insert(respond::DRY_RUN, HeaderValue::from_static("true"));
        }
        Ok(response)
    }

    async fn answer(&self, action: Action, call: Call) -> Result<Response, Failure> {
        let AdminState { config, health, editor, revisions, .. } = &self.state;
        match action {
            Action::Health => Ok(health::report(config, health)),
            Action::ModelsStatus => Ok(health::models_status(config, health)),
            Action::List(kind) => Ok(self.list(config.current().views(kind), kind, &call)),
            Action::Get(kind) => {
                let view = config.current().view(kind, call.id()?).ok_or_else(Failure::not_found)?;
                Ok(one(&self.shown(kind, view)))
            }
            Action::Export => Ok(trail::export_file(config, editor.as_deref())),
            Action::Revisions => match revisions {
                Some(revisions) => trail::revisions(revisions, call).await,
                None => Err(Failure::not_found()),
            },
            _ => match editor {
                Some(editor) => {
                    let now = config.current().revision;
                    write(editor, action, call, now).await
                }
                None => Err(Failure::not_found()),
            },
        }
    }
}

impl Shared {
    /// The entries of a kind, ordered by id.
    fn list(&self, mut views: Vec<View>, kind: &ResourceKind, call: &Call) -> Response {
        if let Some(name) = call.query.text("name") {
            views.retain(|view| kind.identity(&view.document).as_deref() == Some(name));
        }
        let total = views.len();
        if let Some(after) = call.query.text("after") {
            views.retain(|view| *view.id > *after);
        }
        let limit = call.query.limit().unwrap_or(usize::MAX);
        let more = views.len() > limit;
        views.truncate(limit);
        let views: Vec<View> = views.into_iter().map(|view| self.shown(kind, view)).collect();
        let entries: Vec<Entry<'_>> = views.iter().map(Entry::from).collect();
        let mut response = respond::json(&entries);
        let headers = response.headers_mut();
        respond::set(headers, respond::TOTAL_COUNT, &total.to_string());
        if let Some(last) = views.last().filter(|_| more) {
            let limit = limit.to_string();
            let mut next = vec![("limit", limit.as_str()), ("after", &*last.id)];
            next.extend(call.query.text("name").map(|name| ("name", name)));
            respond::set_next(headers, &call.path, &next);
        }
        response
    }

    /// Where nothing can be written back, a caller key is shown without whom it
    /// belongs to.
    fn shown(&self, kind: &ResourceKind, view: View) -> View {
        const SHOWN: [&str; 6] =
            ["key_hash", "allowed_models", "rate_limit", "mcp_access", "allowed_agents", "expires_at"];
        if kind.name != CALLER_KEYS || self.state.editor.is_some() {
            return view;
        }
        let mut document = Map::new();
        for (name, value) in view.document.as_object().into_iter().flatten() {
            if SHOWN.contains(&name.as_str()) || (name == "disabled" && *value == Value::Bool(true)) {
                document.insert(name.clone(), value.clone());
            }
        }
        View { document: Arc::new(Value::Object(document)), ..view }
    }
}

/// What needs a source that takes writes. `now` is the revision in force.
async fn write(editor: &Editor, action: Action, call: Call, now: u64) -> Result<Response, Failure> {
    match action {
        Action::Create(kind) => write::create(editor, kind, call).await,
        Action::Replace(kind) => {
            write::change(editor, call, |id, value| Operation::Replace { kind, id, value }).await
        }
        Action::Patch(kind) => {
            write::change(editor, call, |id, patch| Operation::Patch { kind, id, patch }).await
        }
        Action::Delete(kind) => write::change(editor, call, |id, _| Operation::Delete { kind, id }).await,
        Action::Rotate => write::rotate(editor, call).await,
        Action::Batch => batch::batch(editor, call, now).await,
        Action::Apply => batch::apply(editor, call, now).await,
        Action::Audit => trail::audit(editor, call).await,
        Action::Rollback => trail::rollback(editor, call, now).await,
        _ => Err(Failure::not_found()),
    }
}

fn one(view: &View) -> Response {
    let mut response = respond::json(&Entry::from(view));
    respond::set_tag(response.headers_mut(), view.revision);
    response
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
