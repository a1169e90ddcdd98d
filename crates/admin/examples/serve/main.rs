//! Temporary.
mod store;
use aisix_admin::*;
use aisix_config::{ConfigState, Follower, Role, edit::Editor};
use sha2::{Digest, Sha256};
use std::sync::Arc;
#[tokio::main]
async fn main() {
    let store = store::MemoryStore::new();
    let config = Arc::new(ConfigState::of_store("embedded", ""));
    store.follow(Follower::new(Arc::clone(&config), |_| {}));
    let editor = Editor::new(Arc::clone(&config), store.clone());
    let st = store.clone();
    let revisions: Revisions = Arc::new(move |limit, before| {
        let st = st.clone();
        Box::pin(async move {
            Ok(st
                .revisions()
                .into_iter()
                .filter(|at| before.is_none_or(|b| *at < b))
                .take(limit)
                .map(|r| serde_json::json!({"revision": r}))
                .collect())
        })
    });
    let router = admin_router(AdminState {
        keys: vec![AdminKey { name: "a".into(), digest: Sha256::digest(b"key").into(), role: Role::Owner }],
        config,
        editor: Some(Arc::new(editor)),
        revisions: Some(revisions),
        health: Arc::new(aisix_telemetry::HealthTable::new()),
        lifecycle: Arc::new(aisix_core::Lifecycle::new()),
        playground: Arc::new(|_| Box::pin(async { http::Response::new(axum::body::Body::from("{}")) })),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:39471").await.unwrap();
    axum::serve(listener, router).await.unwrap();
}
