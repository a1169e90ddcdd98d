//! A gateway whose configuration is a store in memory. Every answer of the
//! admin listener is held against the OpenAPI document.

use std::{net::SocketAddr, sync::Arc};

use aisix_config::{ConfigState, Follower, edit::Editor};
use aisix_core::Lifecycle;
use aisix_telemetry::{HealthTable, Telemetry, TelemetryConfig};
use axum::{Router, body::Body};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN_KEY, Answer, Described, keys, recording_playground, send, store::MemoryStore};
use crate::{AdminState, Peer, Revisions, StatusState, admin_router, status_router};

/// From where all requests come.
pub(crate) const CLIENT: &str = "192.0.2.7";

pub(crate) struct Plane {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) config: Arc<ConfigState>,
    pub(crate) admin: Router,
    pub(crate) status: Router,
    pub(crate) described: Described,
}

impl Plane {
    pub(crate) async fn new() -> Self {
        Self::with_history(true).await
    }

    pub(crate) async fn with_history(history: bool) -> Self {
        let store = MemoryStore::new();
        let config = Arc::new(ConfigState::of_store("embedded", ""));
        store.follow(Follower::new(Arc::clone(&config), |_| {}));
        let editor = Editor::new(Arc::clone(&config), store.clone());
        let health = Arc::new(HealthTable::new());
        let admin = admin_router(AdminState {
            keys: keys(),
            config: Arc::clone(&config),
            editor: Some(Arc::new(editor)),
            revisions: history.then(|| revisions(&store)),
            health: Arc::clone(&health),
            lifecycle: Arc::new(Lifecycle::new()),
            playground: recording_playground().0,
        });
        let status = status_router(StatusState {
            config: Arc::clone(&config),
            health,
            telemetry: Arc::new(Telemetry::new(TelemetryConfig::default())),
            metrics_path: "/metrics".to_owned(),
        });
        let described = Described::by(&admin).await;
        Self { store, config, admin, status, described }
    }

    /// Any request, with `key` as the admin key.
    pub(crate) async fn send(&self, key: &str, mut request: Request<Body>) -> Answer {
        if !key.is_empty() {
            request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        }
        let peer: SocketAddr = format!("[::ffff:{CLIENT}]:4711").parse().unwrap();
        request.extensions_mut().insert(Peer(peer));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = send(&self.admin, request).await;
        self.described.check(&method, &path, &answer);
        answer
    }

    /// A request with headers and a JSON body, unless it is null.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/admin/v1/{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            request = request.header("content-type", "application/json");
            Body::from(body.to_string())
        };
        self.send(ADMIN_KEY, request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], &Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, &[], body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PUT, path, &[], body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PATCH, path, &[], body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, &[], &Value::Null).await
    }

    /// Creates a resource: its id.
    pub(crate) async fn create(&self, collection: &str, document: &Value) -> String {
        let answer = self.post(collection, document).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{collection}: {answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// A provider key and a model on it: their ids.
    pub(crate) async fn standard(&self) -> (String, String) {
        let key = json!({"display_name": "main", "provider": "openai", "api_key": "sk-SECRET-main"});
        let key = self.create("provider_keys", &key).await;
        let model = json!({
            "display_name": "fast", "provider": "openai", "model_name": "small", "provider_key_id": key,
        });
        let model = self.create("models", &model).await;
        (key, model)
    }
}

fn revisions(store: &Arc<MemoryStore>) -> Revisions {
    let store = Arc::clone(store);
    Arc::new(move |limit, before| {
        let store = Arc::clone(&store);
        Box::pin(async move {
            if store.down.load(std::sync::atomic::Ordering::SeqCst) {
                return Err("the disk is gone".to_owned());
            }
            let older = store.revisions().into_iter().filter(|at| before.is_none_or(|before| *at < before));
            Ok(older.take(limit).map(|revision| json!({ "revision": revision })).collect())
        })
    })
}
