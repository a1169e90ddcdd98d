//! The OpenAPI document describes the routes that exist and the answers they
//! give, and the page that shows it needs nobody else.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::Value;

use super::{Gateway, RESOURCES, call};
use crate::routes::{self, Access};

async fn document() -> Value {
    let gateway = Gateway::new(RESOURCES);
    let answer = call(&gateway.admin, Method::GET, "/admin/openapi.json", &[]).await;
    answer.json()
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
    let gateway = Gateway::new(RESOURCES);
    let document = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["title"], "AISIX Admin API");
    let described: BTreeSet<String> =
        operations(&document).iter().map(|(path, method, _)| format!("{method} {path}")).collect();
    let served: BTreeSet<String> = routes::table()
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
    for (path, method, _) in operations(&document) {
        let method = method.to_uppercase().parse().unwrap();
        let answer = call(&gateway.admin, method, &path.replace("{id}", "x"), &[]).await;
        assert!(
            ![StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_FOUND].contains(&answer.status),
            "{path}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn security_is_said_of_every_route() {
    let document = document().await;
    assert_eq!(document["security"], serde_json::json!([{ "AdminBearer": [] }]));
    for scheme in ["AdminBearer", "ProxyBearer"] {
        assert_eq!(document["components"]["securitySchemes"][scheme]["scheme"], "bearer");
    }
    for route in routes::table() {
        let method = route.action.method().as_str().to_lowercase();
        let operation = &document["paths"][&route.path][&method];
        let said = operation.get("security");
        match route.action.access() {
            Access::Open => assert_eq!(said, Some(&serde_json::json!([])), "{}", route.path),
            Access::CallerKey => {
                assert_eq!(said, Some(&serde_json::json!([{ "ProxyBearer": [] }])), "{}", route.path);
            }
            Access::AdminKey => {
                assert_eq!(said, None, "{}", route.path);
                assert!(operation["responses"]["401"].is_object(), "{}", route.path);
            }
        }
    }
}

#[tokio::test]
async fn references_resolve_and_names_are_unique() {
    let document = document().await;
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
    for name in [
        "AdminError",
        "HealthResponse",
        "ModelEntry",
        "PublicApiKeyEntry",
        "ModelStatusView",
        "Model",
        "ProviderKey",
        "Guardrail",
    ] {
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
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

/// Every JSON answer fits the schema that the document gives for it, with no
/// field that the schema does not name.
#[tokio::test]
async fn answers_fit_their_schemas() {
    let gateway = Gateway::new(RESOURCES);
    let document = document().await;
    let mut checked = 0;
    for (path, method, operation) in operations(&document) {
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        if method != "get" || schema.is_null() {
            continue;
        }
        let failure = call(&gateway.admin, Method::GET, &path.replace("{id}", "x"), &[]).await;
        if failure.status != StatusCode::OK {
            check(&document, &document["components"]["schemas"]["AdminError"], &failure.json(), path);
        }
        let mut paths = vec![path.to_owned()];
        if let Some(collection) = path.strip_suffix("/{id}") {
            let list = gateway.read(collection).await.json();
            let ids = list.as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap());
            paths = ids.map(|id| format!("{collection}/{id}")).collect();
        }
        for path in paths {
            check(&document, schema, &gateway.read(&path).await.json(), &path);
            checked += 1;
        }
    }
    assert!(checked > 15, "{checked}");
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        return check(document, document.pointer(&reference[1..]).unwrap(), value, at);
    }
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        other => panic!("{at}: no type {other}"),
    };
    match &schema["type"] {
        Value::String(name) => assert!(is(name), "{at}: {value} is no {name}"),
        Value::Array(names) => {
            assert!(names.iter().any(|name| is(name.as_str().unwrap())), "{at}: {value}");
        }
        other => panic!("{at}: the schema has no type: {other}"),
    }
    if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(value), "{at}: {value} is not one of {values:?}");
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(required.as_str().unwrap()).is_some(), "{at}: no {required}");
    }
    for item in value.as_array().into_iter().flatten() {
        check(document, &schema["items"], item, &format!("{at}[]"));
    }
    // An object schema that names no fields is open.
    let Some(members) = value.as_object() else { return };
    let Some(properties) = schema.get("properties") else { return };
    for (name, member) in members {
        let schema = properties.get(name).unwrap_or_else(|| panic!("{at}: {name} is not described"));
        check(document, schema, member, &format!("{at}.{name}"));
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
