//! Who may do what, and requests that are not in order.

use std::sync::atomic::Ordering;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN_KEY, Answer, EDITOR_KEY, READER_KEY, plane::Plane};
use crate::routes::{self, Access, Action, Source};
use aisix_config::Role;

const EVERYTHING: Source = Source { writable: true, revisions: true };

/// A request to a route with a body that no route takes.
fn odd_request(method: &Method, path: &str) -> Request<Body> {
    let path = path.replace("{id}", "nothing");
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    request.body(Body::from("[]")).unwrap()
}

#[tokio::test]
async fn every_route_asks_for_its_role() {
    let plane = Plane::new().await;
    for route in routes::table(EVERYTHING) {
        let Access::Admin(needed) = route.action.access() else { continue };
        let method = route.action.method();
        let expected = match route.action {
            Action::Audit | Action::Rollback => Role::Owner,
            _ if method == Method::GET => Role::ReadOnly,
            _ => Role::Editor,
        };
        assert_eq!(needed, expected, "{method} {}", route.path);
        for (key, role) in
            [(READER_KEY, Role::ReadOnly), (EDITOR_KEY, Role::Editor), (ADMIN_KEY, Role::Owner)]
        {
            let answer = plane.send(key, odd_request(&method, &route.path)).await;
            let what = format!("{method} {} as {role:?}: {answer:?}", route.path);
            if role >= needed {
                assert_ne!(answer.status, StatusCode::FORBIDDEN, "{what}");
                let expected = match route.action {
                    // A resource that is not there is told before what is wrong with the body.
                    _ if route.path.contains("{id}") && !matches!(route.action, Action::Rotate) => {
                        StatusCode::NOT_FOUND
                    }
                    action if action.writes() => StatusCode::BAD_REQUEST,
                    _ => StatusCode::OK,
                };
                assert_eq!(answer.status, expected, "{what}");
            } else {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
                let name = if needed == Role::Owner { "owner" } else { "editor" };
                assert_eq!(answer.text(), format!(r#"{{"error_msg":"this needs the role {name}"}}"#));
            }
        }
        for key in ["", "wrong", "sk-caller"] {
            let answer = plane.send(key, odd_request(&method, &route.path)).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {}", route.path);
        }
    }
    assert_eq!(plane.store.revision(), 0);
}

#[tokio::test]
async fn other_methods_are_405_with_what_is_allowed() {
    let plane = Plane::new().await;
    for (path, allow) in [
        ("models", "GET,HEAD,POST"),
        ("models/x", "GET,HEAD,PUT,PATCH,DELETE"),
        ("models/status", "GET,HEAD"),
        ("api_keys/x/rotate", "POST"),
        ("batch", "POST"),
        ("apply", "POST"),
        ("rollback", "POST"),
        ("audit", "GET,HEAD"),
        ("export", "GET,HEAD"),
        ("revisions", "GET,HEAD"),
        ("health", "GET,HEAD"),
    ] {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS]
        {
            if allow.split(',').any(|allowed| allowed == method.as_str()) {
                continue;
            }
            let request = odd_request(&method, &format!("/admin/v1/{path}"));
            let answer = plane.send("", request).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!((answer.header("allow"), answer.text()), (allow, ""), "{method} {path}");
        }
    }
    // A store without a history has no such route.
    let plane = Plane::with_history(false).await;
    assert_eq!(plane.get("revisions").await.status, StatusCode::NOT_FOUND);
    assert!(plane.described.document["paths"].get("/admin/v1/revisions").is_none());
}

#[tokio::test]
async fn queries_are_taken_word_for_word() {
    let plane = Plane::new().await;
    for (path, text) in [
        ("models?x=1", "unknown query parameter \"x\""),
        ("models?nam=a&b&limit=1", "unknown query parameter \"b\", \"nam\""),
        ("models?dry_run=true", "unknown query parameter \"dry_run\""),
        ("models/id?name=x", "unknown query parameter \"name\""),
        ("models?limit=0", "query parameter \"limit\" must be a whole number from 1 to 1000"),
        ("models?limit=1001", "query parameter \"limit\" must be a whole number from 1 to 1000"),
        ("models?limit=", "query parameter \"limit\" must be a whole number from 1 to 1000"),
        ("models?limit=%2B1", "query parameter \"limit\" must be a whole number from 1 to 1000"),
        ("models?limit=1&limit=1", "query parameter \"limit\" is given more than once"),
        ("audit?kind=no", "query parameter \"kind\" must be a collection"),
        (
            "audit?before=x",
            "query parameter \"before\" must be a whole number from 0 to 18446744073709551615",
        ),
        ("export?reveal=true", "unknown query parameter \"reveal\""),
        ("revisions?after=1", "unknown query parameter \"after\""),
    ] {
        let answer = plane.get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(answer.json(), json!({ "error_msg": text }), "{path}");
    }
    for value in ["", "=", "=1", "=yes", "=TRUE", "=true&dry_run=true"] {
        for path in ["models", "batch", "apply", "rollback"] {
            let answer = plane.post(&format!("{path}?dry_run{value}"), &json!({})).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {value}");
            assert!(answer.text().contains("dry_run"), "{answer:?}");
        }
    }
    let health = plane.get("health?cache=buster").await;
    assert_eq!(health.status, StatusCode::OK, "monitors may add what they like");
}

#[tokio::test]
async fn conditions_that_would_not_count_are_refused() {
    let plane = Plane::new().await;
    let (_, model) = plane.standard().await;
    for (method, path, name) in [
        (Method::POST, "models".to_owned(), "if-match"),
        (Method::POST, "batch".to_owned(), "if-match"),
        (Method::PUT, format!("models/{model}"), "if-none-match"),
        (Method::DELETE, format!("models/{model}"), "if-unmodified-since"),
    ] {
        let answer = plane.ask(method, &path, &[(name, "*")], &json!({})).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(answer.json()["error_msg"], format!("the header {name} has no effect here"));
    }
}

async fn body(plane: &Plane, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("/admin/v1/{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    plane.send(ADMIN_KEY, request.body(Body::from(body.to_vec())).unwrap()).await
}

#[tokio::test]
async fn bodies_are_json_and_say_so() {
    let plane = Plane::new().await;
    let (_, model) = plane.standard().await;
    let caller = plane.create("api_keys", &json!({"display_name": "c", "allowed_models": []})).await;
    let (path, rotate) = (format!("models/{model}"), format!("api_keys/{caller}/rotate"));
    let patch = br#"{"timeout": 1}"#;
    let wrong: &[&[(&str, &str)]] = &[
        &[],
        &[("content-type", "")],
        &[("content-type", "text/plain")],
        &[("content-type", "application/jsonx")],
        &[("content-type", "application/json; charset=utf-16")],
        &[("content-type", "application/json"), ("content-type", "application/json")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ];
    for headers in wrong {
        for (method, path, bytes) in [
            (Method::PATCH, path.as_str(), &patch[..]),
            (Method::PUT, path.as_str(), b"not JSON"),
            (Method::POST, "models", b""),
            (Method::POST, "batch", b"{}"),
            (Method::POST, rotate.as_str(), b"{}"),
        ] {
            let answer = body(&plane, method, path, headers, bytes).await;
            assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path} {headers:?}: {answer:?}");
            assert!(answer.json()["error_msg"].is_string());
        }
    }
    for kind in
        ["application/json", "application/merge-patch+json", "Application/JSON ; Charset=\"UTF-8\"; x=y"]
    {
        let answer = body(&plane, Method::PATCH, &path, &[("content-type", kind)], patch).await;
        assert_eq!(answer.status, StatusCode::OK, "{kind}");
    }
    let merge = [("content-type", "application/merge-patch+json")];
    let put = body(&plane, Method::PUT, &path, &merge, patch).await;
    assert_eq!(put.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    // Nothing needs no type.
    assert_eq!(body(&plane, Method::POST, &rotate, &[], b"").await.status, StatusCode::OK);
    let json = [("content-type", "application/json")];
    assert_eq!(body(&plane, Method::POST, &rotate, &json, b"").await.status, StatusCode::OK);
}

#[tokio::test]
async fn json_problems_are_told_with_their_place_and_without_values() {
    let plane = Plane::new().await;
    let json = [("content-type", "application/json")];
    for (bytes, told) in [
        (&b""[..], "line 1 column 0"),
        (b"{\"display_name\": SECRET}", "line 1 column 18"),
        (b"{\n  \"api_key\": \"SECRET\",\n  \"api_key\": \"SECRET\"}", "duplicate key `api_key` at line 3"),
        (b"{\"request\": {\"a\": 1, \"a\": 2}}", "duplicate key `a`"),
        (b"{\"api_key\": \"SECRET\xff\"}", "not UTF-8"),
        (b"{} SECRET", "trailing characters at line 1 column 4"),
        (b"{\"timeout\": 1e999}", "number out of range"),
        (b"\xef\xbb\xbf{}", "line 1 column 1"),
    ] {
        let answer = body(&plane, Method::POST, "provider_keys", &json, bytes).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bytes:?}");
        let text = answer.json()["error_msg"].as_str().unwrap().to_owned();
        assert!(text.starts_with("the body is not JSON: ") && text.contains(told), "{text}");
        assert!(!text.contains("SECRET"), "{text}");
    }
    let deep = "[".repeat(100_000);
    let answer = body(&plane, Method::POST, "provider_keys", &json, deep.as_bytes()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn documents_are_refused_field_by_field() {
    let plane = Plane::new().await;
    let bad = json!({
        "display_name": "k", "api_key": 5, "provider": "SECRET VALUE", "request": {"nope": "SECRET"}, "adapter": "SECRET",
    });
    let answer = plane.post("provider_keys", &bad).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(!answer.text().contains("SECRET"), "{answer:?}");
    let body = answer.json();
    let paths: Vec<&str> =
        body["errors"].as_array().unwrap().iter().map(|error| error["path"].as_str().unwrap()).collect();
    for path in ["/api_key", "/adapter", "/request"] {
        assert!(paths.iter().any(|told| told.starts_with(path)), "{path} in {paths:?}");
    }
    for error in body["errors"].as_array().unwrap() {
        assert!(body["error_msg"].as_str().unwrap().contains(error["message"].as_str().unwrap()));
    }
    for document in [json!([]), json!(null), json!("x"), json!(5)] {
        let bytes = document.to_string();
        let answer = super::refusals::body(
            &plane,
            Method::POST,
            "models",
            &[("content-type", "application/json")],
            bytes.as_bytes(),
        )
        .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{document}");
        assert_eq!(answer.json()["errors"][0]["path"], "", "{document}");
    }
    assert_eq!(plane.store.revision(), 0);
}

#[tokio::test]
async fn large_bodies_are_refused() {
    const LIMIT: usize = 4 << 20;
    let plane = Plane::new().await;
    let json = [("content-type", "application/json")];
    let mut document = br#"{"name": "#.to_vec();
    document.resize(LIMIT + 1, b' ');
    let answer = body(&plane, Method::POST, "cache_policies", &json, &document).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.json(), json!({"error_msg": "the body is larger than 4 MiB"}));
    // Its length is looked at before it is read.
    let declared = (LIMIT + 1).to_string();
    let headers = [json[0], ("content-length", declared.as_str())];
    let answer = body(&plane, Method::POST, "cache_policies", &headers, b"").await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let mut document = br#"{"name": "x"}"#.to_vec();
    document.resize(LIMIT, b' ');
    let answer = body(&plane, Method::POST, "cache_policies", &json, &document).await;
    assert_eq!(answer.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_store_that_fails_is_503() {
    let plane = Plane::new().await;
    let (_, model) = plane.standard().await;
    plane.store.down.store(true, Ordering::SeqCst);
    for answer in [
        plane.post("cache_policies", &json!({"name": "x"})).await,
        plane.patch(&format!("models/{model}"), &json!({"timeout": 1})).await,
        plane.delete(&format!("models/{model}")).await,
        plane.post("batch", &json!({"operations": [{"op": "delete", "kind": "models", "id": model}]})).await,
        plane.post("apply", &json!({"documents": []})).await,
        plane.post("rollback", &json!({"revision": 1})).await,
        plane.get("audit").await,
        plane.get("revisions").await,
    ] {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.text(), r#"{"error_msg":"store error: the disk is gone"}"#);
    }
    // Reads come from memory.
    for path in ["models", "health", "models/status", "export"] {
        assert_eq!(plane.get(path).await.status, StatusCode::OK, "{path}");
    }
    plane.store.down.store(false, Ordering::SeqCst);
    assert_eq!(plane.delete(&format!("models/{model}")).await.status, StatusCode::OK);
    assert_eq!(plane.ask(Method::GET, "models", &[], &Value::Null).await.text(), "[]");
}
