//! Both routers, called in process: with a resources file, and with a store in
//! memory.

mod described;
mod description;
mod documents;
mod history;
mod plane;
mod reads;
mod refusals;
mod status;
mod store;
mod surface;
mod together;
mod writes;

use std::sync::{Arc, Mutex};

use aisix_config::{ConfigState, FileStore, Role};
use aisix_core::Lifecycle;
use aisix_telemetry::{HealthTable, Telemetry, TelemetryConfig};
use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tower_service::Service;

use self::described::Described;
use crate::{
    AdminKey, AdminState, Playground, StatusState, admin_router,
    routes::{self, Route, Source},
    status_router,
};

pub(crate) const ADMIN_KEY: &str = "admin-key-one";
const OTHER_ADMIN_KEY: &str = "admin-key-two";
const EDITOR_KEY: &str = "editor-key";
const READER_KEY: &str = "reader-key";

/// Every text in here that contains `SECRET` must never be shown.
pub(crate) const RESOURCES: &str = r#"
_format_version: "1"
provider_keys:
  - display_name: main
    provider: openai
    adapter: openai
    api_key: sk-SECRET-main
    api_base: http://127.0.0.1:9/v1
    request:
      default_headers: { x-tenant: SECRET-header }
      default_body_fields: { user: SECRET-body, nested: { token: SECRET-nested, list: [SECRET-item] } }
      param_renames: { max_tokens: max_completion_tokens }
      param_constraints: { temperature_max: 1.5, temperature_min: 0.1 }
      forward_client_headers: [x-trace-*]
    response: { stream_done_marker: optional, content_list_to_string: true, reasoning_field: delta.reasoning }
    tls: { verify: false }
  - display_name: spelled-the-old-way
    provider: openai
    secret: sk-SECRET-old
models:
  - display_name: fast
    provider: openai
    model_name: small-1
    provider_key: main
    timeout: 1000
    stream_timeout: 2000
    retries: 1
    allowed_cidrs: [127.0.0.0/8]
    cost: { input_per_1k: 0.5, output_per_1k: 1.5 }
    cooldown: { default_seconds: 60, trigger_statuses: [429, 503] }
  - display_name: "any/*"
    provider: openai
    model_name: "*"
    provider_key: spelled-the-old-way
api_keys:
  - display_name: web
    key_hash: "1111111111111111111111111111111111111111111111111111111111111111"
    allowed_models: [fast]
    team_id: team-of-web
    user_id: user-of-web
    user_name: name-of-web
    expires_at: "2099-01-01T00:00:00Z"
    disabled: true
  - display_name: plain
    key_env: PLAIN_KEY
    allowed_models: ["*"]
"#;

/// The requests that reached the playground.
type Played = Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>;

pub(crate) struct Gateway {
    pub(crate) config: Arc<ConfigState>,
    pub(crate) health: Arc<HealthTable>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) admin: Router,
    pub(crate) status: Router,
    pub(crate) played: Played,
}

impl Gateway {
    pub(crate) fn new(resources: &str) -> Self {
        Self::with_metrics_path(resources, "/metrics")
    }

    pub(crate) fn with_metrics_path(resources: &str, metrics_path: &str) -> Self {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        std::fs::write(file.path(), resources).unwrap();
        let env = |name: &str| (name == "PLAIN_KEY").then(|| "sk-SECRET-caller".to_owned());
        let (_store, config) = FileStore::open(file.path(), Arc::new(env)).unwrap();
        let health = Arc::new(HealthTable::new());
        let lifecycle = Arc::new(Lifecycle::new());
        lifecycle.config_applied();
        let (playground, played) = recording_playground();
        let admin = admin_router(AdminState {
            keys: keys(),
            config: Arc::clone(&config),
            editor: None,
            revisions: None,
            health: Arc::clone(&health),
            lifecycle: Arc::clone(&lifecycle),
            playground,
        });
        let status = status_router(StatusState {
            config: Arc::clone(&config),
            health: Arc::clone(&health),
            telemetry: Arc::new(Telemetry::new(TelemetryConfig::default())),
            metrics_path: metrics_path.to_owned(),
        });
        Self { config, health, lifecycle, admin, status, played }
    }

    /// Reads a path of the admin listener with a good key.
    pub(crate) async fn read(&self, path: &str) -> Answer {
        call(&self.admin, Method::GET, path, &[("x-api-key", ADMIN_KEY)]).await
    }
}

/// The routes of a gateway with a resources file.
pub(crate) fn file_routes() -> Vec<Route> {
    routes::table(Source { writable: false, revisions: false })
}

fn keys() -> Vec<AdminKey> {
    let key = |name: &str, key: &str, role| AdminKey {
        name: name.to_owned(),
        digest: Sha256::digest(key.as_bytes()).into(),
        role,
    };
    vec![
        key("admin-1", ADMIN_KEY, Role::Owner),
        key("admin-2", OTHER_ADMIN_KEY, Role::Owner),
        key("ed", EDITOR_KEY, Role::Editor),
        key("rea", READER_KEY, Role::ReadOnly),
    ]
}

/// A playground that keeps what it gets and answers with something recognisable.
fn recording_playground() -> (Playground, Played) {
    let played = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&played);
    let playground: Playground = Arc::new(move |request: Request<Body>| {
        let kept = Arc::clone(&kept);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            kept.lock().unwrap().push((parts, body));
            http::Response::builder()
                .status(StatusCode::IM_A_TEAPOT)
                .header("x-from-proxy", "yes")
                .body(Body::from("from the proxy"))
                .unwrap()
        })
    });
    (playground, played)
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) async fn call(router: &Router, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(router, request.body(Body::empty()).unwrap()).await
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}
