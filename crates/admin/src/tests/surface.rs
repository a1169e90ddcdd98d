//! Every route with every method and every kind of key, and everything that is no route.

use aisix_core::VERSION;
use axum::body::Body;
use http::{Method, Request, StatusCode};

use super::{
    ADMIN_KEY, Answer, Gateway, OTHER_ADMIN_KEY, RESOURCES, call, documents::collections, file_routes, send,
};
use crate::routes::Action;

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// Headers, and whether they carry an admin key.
const CREDENTIALS: &[(&[(&str, &str)], bool)] = &[
    (&[], false),
    (&[("authorization", "Bearer wrong")], false),
    (&[("authorization", "Basic abc"), ("x-api-key", ADMIN_KEY)], false),
    (&[("x-api-key", "sk-SECRET-caller")], false),
    (&[("authorization", "Bearer admin-key-one")], true),
    (&[("authorization", "bearer admin-key-two")], true),
    (&[("x-api-key", OTHER_ADMIN_KEY)], true),
];

fn assert_no_identity(answer: &Answer) {
    for name in ["server", "x-aisix-request-id", "www-authenticate"] {
        assert!(!answer.headers.contains_key(name), "{name} in {answer:?}");
    }
    assert!(!answer.headers.values().any(|value| value.as_bytes() == VERSION.as_bytes()));
}

#[tokio::test]
async fn every_route_method_and_credential() {
    let gateway = Gateway::new(RESOURCES);
    for route in file_routes() {
        let path = route.path.replace("{id}", "no-such-id");
        for method in METHODS {
            for (headers, admin) in CREDENTIALS {
                let answer = call(&gateway.admin, method.clone(), &path, headers).await;
                let what = format!("{method} {path} with {headers:?}: {answer:?}");
                assert_eq!(answer.status, expected(&path, route.action, &method, *admin), "{what}");
                check_shape(&answer, route.action, &method, &what);
            }
        }
    }
}

/// Who needs a key is told from the path here, not from the table under test.
fn expected(path: &str, action: Action, method: &Method, admin: bool) -> StatusCode {
    let served = *method == action.method() || (*method == Method::HEAD && action.method() == Method::GET);
    match (served, action) {
        (false, _) => StatusCode::METHOD_NOT_ALLOWED,
        (true, Action::Playground) => StatusCode::IM_A_TEAPOT,
        (true, _) if path.starts_with("/admin/v1/") && !admin => StatusCode::UNAUTHORIZED,
        (true, Action::Get(_)) => StatusCode::NOT_FOUND,
        (true, _) => StatusCode::OK,
    }
}

fn check_shape(answer: &Answer, action: Action, method: &Method, what: &str) {
    assert_no_identity(answer);
    let allow = answer.header("allow");
    match answer.status {
        StatusCode::METHOD_NOT_ALLOWED => {
            assert_eq!(allow, if action.method() == Method::POST { "POST" } else { "GET,HEAD" }, "{what}");
            let resources = matches!(action, Action::List(_) | Action::Get(_));
            let write = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
            if resources && write {
                assert!(answer.json()["error_msg"].as_str().unwrap().contains("read-only"), "{what}");
            } else {
                assert!(answer.body.is_empty(), "{what}");
            }
        }
        _ if *method == Method::HEAD => assert!(answer.body.is_empty(), "{what}"),
        StatusCode::UNAUTHORIZED => {
            assert_eq!(answer.text(), r#"{"error_msg":"missing or malformed admin authorization"}"#, "{what}")
        }
        StatusCode::NOT_FOUND => {
            assert_eq!(answer.text(), r#"{"error_msg":"resource not found"}"#, "{what}");
        }
        _ => assert!(!answer.body.is_empty(), "{what}"),
    }
}

#[tokio::test]
async fn head_tells_what_get_would() {
    let gateway = Gateway::new(RESOURCES);
    let key = [("x-api-key", ADMIN_KEY)];
    for path in ["/livez", "/admin/v1/models", "/admin/v1/health", "/admin/openapi.json"] {
        let get = call(&gateway.admin, Method::GET, path, &key).await;
        let head = call(&gateway.admin, Method::HEAD, path, &key).await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        assert!(head.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn what_is_no_route_is_404_with_an_empty_body() {
    let gateway = Gateway::new(RESOURCES);
    let nowhere = [
        "/",
        "/health",
        "/metrics",
        "/status/config",
        "/status/ready",
        "/status/models",
        "/admin",
        "/admin/v1",
        "/admin/v1/",
        "/admin/v1/models/",
        "/livez/",
        "/v1/models",
        "/admin/v1/audit",
        "/admin/v1/revisions",
        "/admin/v1/no_such_kind",
        "/admin/v1/api_keys/some-id/rotate",
        "/admin/v1/apikeys/some-id/rotate",
        "/v1/chat/completions",
        "/playground",
    ];
    for path in nowhere {
        for method in METHODS {
            let answer = call(&gateway.admin, method.clone(), path, &[("x-api-key", ADMIN_KEY)]).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
            assert!(answer.body.is_empty(), "{method} {path}: {answer:?}");
            assert_no_identity(&answer);
        }
    }
}

#[tokio::test]
async fn probes_follow_the_lifecycle() {
    let gateway = Gateway::new(RESOURCES);
    let live = gateway.read("/livez").await;
    assert_eq!((live.status, live.text()), (StatusCode::OK, "ok"));
    assert_eq!(live.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(live.header("x-content-type-options"), "nosniff");
    for query in ["verbose", "verbose=", "verbose=1", "a=b&verbose=0"] {
        let live = gateway.read(&format!("/livez?{query}")).await;
        assert_eq!(live.text(), "[+]ping ok\n[+]shutdown ok\nlivez check passed\n");
    }
    assert_eq!(gateway.read("/livez?verbosely=1&x=verbose").await.text(), "ok");
    assert_eq!(gateway.read("/readyz").await.text(), "ok");

    gateway.lifecycle.begin_drain();
    let live = gateway.read("/livez").await;
    assert_eq!(live.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(live.text().ends_with("livez check failed"));
    let ready = gateway.read("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().contains("[-]shutdown failed: draining"));
    // Everything else is still served.
    assert_eq!(gateway.read("/admin/v1/health").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_playground_hands_the_request_to_the_proxy() {
    let gateway = Gateway::new(RESOURCES);
    for uri in ["/playground/chat/completions?debug=1", "https://admin.local/playground/chat/completions"] {
        let request = Request::post(uri)
            .header("authorization", "Bearer caller")
            .header("x-custom", "kept")
            .body(Body::from(r#"{"model": "fast"}"#))
            .unwrap();
        let answer = send(&gateway.admin, request).await;
        assert_eq!(answer.status, StatusCode::IM_A_TEAPOT);
        assert_eq!(answer.header("x-from-proxy"), "yes");
        assert_eq!(answer.text(), "from the proxy");
        let (parts, body) = gateway.played.lock().unwrap().pop().unwrap();
        assert_eq!(parts.method, Method::POST);
        assert_eq!(parts.uri.path_and_query().unwrap(), "/v1/chat/completions");
        assert_eq!(parts.uri.host(), uri.starts_with("https").then_some("admin.local"));
        assert_eq!(parts.headers["authorization"], "Bearer caller");
        assert_eq!(parts.headers["x-custom"], "kept");
        assert_eq!(body, r#"{"model": "fast"}"#);
    }
}

#[tokio::test]
async fn the_status_listener_serves_its_routes_only() {
    for metrics_path in ["/metrics", "/custom/{scrape}"] {
        let gateway = Gateway::with_metrics_path(RESOURCES, metrics_path);
        for path in [metrics_path, "/status/config", "/status/ready", "/status/models"] {
            for method in METHODS {
                let answer = call(&gateway.status, method.clone(), path, &[]).await;
                assert_no_identity(&answer);
                match method {
                    Method::GET => {
                        assert_eq!(answer.status, StatusCode::OK, "{path}");
                        assert!(!answer.body.is_empty(), "{path}");
                    }
                    Method::HEAD => {
                        assert_eq!(answer.status, StatusCode::OK, "{path}");
                        assert!(answer.body.is_empty(), "{path}");
                    }
                    _ => {
                        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
                        assert_eq!(answer.header("allow"), "GET,HEAD");
                        assert!(answer.body.is_empty(), "{path}");
                    }
                }
            }
        }
        let elsewhere = [
            "/",
            "/livez",
            "/readyz",
            "/health",
            "/admin/v1/models",
            "/admin/v1/health",
            "/admin/openapi.json",
            "/status",
            "/status/",
            "/metrics/",
            "/custom/x",
        ];
        for path in elsewhere {
            let answer = call(&gateway.status, Method::GET, path, &[("x-api-key", ADMIN_KEY)]).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
            assert!(answer.body.is_empty(), "{path}");
        }
        let default = call(&gateway.status, Method::GET, "/metrics", &[]).await;
        assert_eq!(default.status == StatusCode::OK, metrics_path == "/metrics");
    }
}

#[tokio::test]
async fn writes_to_a_file_are_told_why() {
    let gateway = Gateway::new(RESOURCES);
    let items = collections()
        .into_iter()
        .chain(["apikeys"])
        .flat_map(|name| [format!("/admin/v1/{name}"), format!("/admin/v1/{name}/some-id?dry_run=true")]);
    let several = ["batch", "apply", "rollback"].map(|name| format!("/admin/v1/{name}"));
    for path in items.chain(several.clone()) {
        for headers in [&[("x-api-key", ADMIN_KEY)][..], &[]] {
            let answer = call(&gateway.admin, Method::POST, &path, headers).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert_eq!(answer.header("allow"), "GET,HEAD", "{path}");
            let why = answer.json()["error_msg"].as_str().unwrap().to_owned();
            assert!(why.contains("resources file") && !why.contains('/'), "{why}");
        }
    }
    for path in several {
        let answer = call(&gateway.admin, Method::GET, &path, &[("x-api-key", ADMIN_KEY)]).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::NOT_FOUND, ""), "{path}");
    }
}
