//! The OpenAPI document describes the routes that exist and the answers they
//! give, and the page that shows it needs nobody else.

use std::collections::BTreeSet;

use aisix_config::{KINDS, Role};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Gateway, RESOURCES, call, described::Described, file_routes, plane::Plane};
use crate::routes::{self, Access, Content, Route, Source};

/// Both documents, each with the routes it is about: of a gateway with a file
/// and of one with a store.
async fn documents() -> Vec<(Value, Vec<Route>)> {
    let gateway = Gateway::new(RESOURCES);
    let file = call(&gateway.admin, Method::GET, "/admin/openapi.json", &[]).await.json();
    let store = Plane::new().await.described.document;
    let everything = routes::table(Source { writable: true, revisions: true });
    vec![(file, file_routes()), (store, everything)]
}

fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let item = item.as_object().unwrap();
            item.iter().map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
        .collect()
}

#[tokio::test]
async fn the_document_and_the_router_agree() {
    for (document, routes) in documents().await {
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["title"], "AISIX Admin API");
        let described: BTreeSet<String> =
            operations(&document).iter().map(|(path, method, _)| format!("{method} {path}")).collect();
        let served: BTreeSet<String> = routes
            .iter()
            .map(|route| format!("{} {}", route.action.method().as_str().to_lowercase(), route.path))
            .collect();
        assert_eq!(described, served);
        for path in [
            "/livez",
            "/readyz",
            "/admin/openapi.json",
            "/admin/openapi-scalar",
            "/admin/v1/health",
            "/admin/v1/models/status",
            "/admin/v1/api_keys/{id}",
            "/admin/v1/apikeys/{id}",
            "/admin/v1/passthrough_routes",
            "/playground/chat/completions",
        ] {
            assert!(document["paths"][path].is_object(), "{path}");
        }
    }
    let gateway = Gateway::new(RESOURCES);
    let plane = Plane::new().await;
    for ((document, _), router) in documents().await.iter().zip([&gateway.admin, &plane.admin]) {
        for (path, method, _) in operations(document) {
            let method = method.to_uppercase().parse().unwrap();
            let answer = call(router, method, &path.replace("{id}", "x"), &[]).await;
            assert!(
                ![StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_FOUND].contains(&answer.status),
                "{path}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_file_has_no_write_operations() {
    let (document, _) = documents().await.remove(0);
    for (path, method, _) in operations(&document) {
        assert!(method == "get" || path == "/playground/chat/completions", "{method} {path}");
    }
}

#[tokio::test]
async fn security_is_said_of_every_route() {
    for (document, routes) in documents().await {
        assert_eq!(document["security"], json!([{ "AdminBearer": [] }]));
        for scheme in ["AdminBearer", "ProxyBearer"] {
            assert_eq!(document["components"]["securitySchemes"][scheme]["scheme"], "bearer");
        }
        for route in routes {
            let method = route.action.method().as_str().to_lowercase();
            let operation = &document["paths"][&route.path][&method];
            let said = &operation["security"];
            match route.action.access() {
                Access::Open => assert_eq!(*said, json!([]), "{}", route.path),
                Access::CallerKey => assert_eq!(*said, json!([{ "ProxyBearer": [] }]), "{}", route.path),
                Access::Admin(role) => {
                    assert_eq!(*said, json!([{ "AdminBearer": [] }]), "{}", route.path);
                    assert!(operation["responses"]["401"].is_object(), "{}", route.path);
                    let forbidden = operation["responses"]["403"].is_object();
                    assert_eq!(forbidden, role > Role::ReadOnly, "{}", route.path);
                }
            }
        }
    }
}

#[tokio::test]
async fn references_resolve_and_names_are_unique() {
    for (document, _) in documents().await {
        let mut references = Vec::new();
        collect_references(&document, &mut references);
        assert!(references.len() > 30);
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let ids: Vec<&Value> = operations(&document).iter().map(|(_, _, op)| &op["operationId"]).collect();
        let unique: BTreeSet<&str> = ids.iter().map(|id| id.as_str().unwrap()).collect();
        assert_eq!(unique.len(), ids.len());
        let text = document.to_string();
        for stray in ["#/$defs/", "\"$schema\"", "\"writeOnly\""] {
            assert!(!text.contains(stray), "{stray}");
        }
        for name in [
            "AdminError",
            "HealthResponse",
            "ModelEntry",
            "PublicApiKeyEntry",
            "ModelStatusView",
            "Model",
            "ApiKey",
            "ProviderKey",
            "Guardrail",
            "CachePolicy",
            "McpAuthSettings",
            "A2aAgent",
            "RateLimitPolicyCondition",
        ] {
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}

#[tokio::test]
async fn bodies_and_parameters_are_described() {
    let (document, routes) = documents().await.pop().unwrap();
    for route in routes {
        let action = route.action;
        let method = action.method().as_str().to_lowercase();
        let operation = &document["paths"][&route.path][&method];
        let what = format!("{method} {}: {operation}", route.path);
        let body = &operation["requestBody"];
        match action.content() {
            Content::None => assert!(body.is_null() || action.access() == Access::CallerKey, "{what}"),
            content => {
                assert_eq!(body["required"], content != Content::Maybe, "{what}");
                let merge = !body["content"]["application/merge-patch+json"].is_null();
                assert_eq!(merge, content == Content::Patch, "{what}");
                assert!(body["content"]["application/json"]["schema"].is_object(), "{what}");
                for status in ["413", "415", "503"] {
                    assert!(operation["responses"][status].is_object(), "{status}: {what}");
                }
            }
        }
        let given = |place: &str| -> Vec<&str> {
            let all = operation["parameters"].as_array().into_iter().flatten();
            all.filter(|p| p["in"] == place).map(|p| p["name"].as_str().unwrap()).collect()
        };
        for (_, link) in operation["responses"]["201"]["links"].as_object().into_iter().flatten() {
            let led = operations(&document).iter().any(|(_, _, to)| to["operationId"] == link["operationId"]);
            assert!(led, "{link}: {what}");
        }
        if let Some(query) = action.query() {
            let known: Vec<&str> = query.iter().map(|param| param.name).collect();
            assert_eq!(given("query"), known, "{what}");
        }
        assert_eq!(given("header").len(), usize::from(action.conditional()), "{what}");
        assert_eq!(given("path").len(), usize::from(route.path.contains("{id}")), "{what}");
    }
}

fn collect_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| collect_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

/// Every answer of a gateway with a file is described. Those of a gateway with
/// a store are checked by all tests that ask it.
#[tokio::test]
async fn answers_are_described() {
    let gateway = Gateway::new(RESOURCES);
    let described = Described::by(&gateway.admin).await;
    let mut checked = 0;
    for (path, method, _) in operations(&described.document) {
        if method != "get" {
            continue;
        }
        let failure = call(&gateway.admin, Method::GET, &path.replace("{id}", "x"), &[]).await;
        described.check(&Method::GET, &path.replace("{id}", "x"), &failure);
        let mut paths = vec![path.to_owned()];
        if let Some(collection) = path.strip_suffix("/{id}") {
            let list = gateway.read(collection).await.json();
            let ids = list.as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap());
            paths = ids.map(|id| format!("{collection}/{id}")).collect();
        }
        for path in paths {
            described.check(&Method::GET, &path, &gateway.read(&path).await);
            checked += 1;
        }
    }
    assert!(checked > 25, "{checked}");
}

#[tokio::test]
async fn bodies_that_do_not_fit_are_told_apart() {
    let described = Plane::new().await.described;
    let create =
        |kind: &str, body: Value| described.takes(&Method::POST, &format!("/admin/v1/{kind}"), &body).is_ok();
    assert!(create("api_keys", json!({"allowed_models": []})), "the server makes the secret");
    assert!(!create("api_keys", json!({"display_name": "x"})));
    assert!(!create("cache_policies", json!({"name": "x", "nope": 1})));
    let one = |operation: Value| {
        described.takes(&Method::POST, "/admin/v1/batch", &json!({"operations": [operation]})).is_ok()
    };
    assert!(one(json!({"op": "create", "kind": "cache_policies", "value": {"name": "x"}})));
    assert!(!one(json!({"op": "create", "kind": "cache_policies", "value": {"name": "x"}, "if_match": 1})));
    assert!(!one(json!({"op": "create", "kind": "models", "value": {"name": "x"}})));
    assert!(one(json!({"op": "delete", "kind": "models", "id": "x", "if_match": 1})));
    assert!(!one(json!({"op": "delete", "kind": "nope", "id": "x"})));
    for kind in KINDS {
        assert!(!create(kind.name, json!([])), "{}", kind.name);
    }
}

#[tokio::test]
async fn the_viewer_is_one_self_contained_page() {
    let gateway = Gateway::new(RESOURCES);
    let answer = call(&gateway.admin, Method::GET, "/admin/openapi-scalar", &[]).await;
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    let page = answer.text();
    assert!(page.contains("\"/admin/openapi.json\""));
    for outside in ["http:", "https:", "src=", "<link", "@import", "url(", "innerHTML"] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
}
