//! The read surface of the admin listener over a resources file, and its refusal to write.

use aisix_e2e::{expect_error, pair, started};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL, PROVIDER_SECRET};
use aisix_testkit::gateway::{ADMIN_KEY, Gateway};
use aisix_testkit::{Client, GatewayBuilder, RawConnection, Request, eventually, key_hash};
use serde_json::{Value, json};

async fn get(gateway: &Gateway, path: &str) -> (u16, Value) {
    let mut reply = gateway.admin_get(path).await;
    (reply.status, reply.json().await)
}

#[tokio::test]
async fn lists_are_bare_arrays_and_entries_can_be_fetched() {
    let (_upstream, gateway) = started().await;
    for (kind, member, value) in [
        ("models", "display_name", MODEL),
        ("provider_keys", "display_name", "main"),
        ("api_keys", "allowed_models", ""),
        ("apikeys", "allowed_models", ""),
    ] {
        let (status, list) = get(&gateway, &format!("/admin/v1/{kind}")).await;
        let entries = list.as_array().unwrap_or_else(|| panic!("{kind}: {list}"));
        assert_eq!((status, entries.len()), (200, 1), "{kind}: {list}");
        let entry = &entries[0];
        assert_eq!(entry["revision"], 1, "{entry}");
        match value {
            "" => assert_eq!(entry["value"][member], json!(["*"]), "{entry}"),
            _ => assert_eq!(entry["value"][member], value, "{entry}"),
        }
        let id = entry["id"].as_str().unwrap_or_default();
        assert_eq!(get(&gateway, &format!("/admin/v1/{kind}/{id}")).await, (200, entry.clone()));
        let missing = get(&gateway, &format!("/admin/v1/{kind}/none")).await;
        assert_eq!(missing, (404, json!({"error_msg": "resource not found"})), "{kind}");
    }
}

#[tokio::test]
async fn reads_need_the_admin_key_and_mask_secrets() {
    let (_upstream, gateway) = started().await;
    for kind in ["models", "provider_keys", "api_keys"] {
        let path = format!("/admin/v1/{kind}");
        let admin = Client::new(gateway.admin);
        for denied in [Request::get(&path), Request::get(&path).bearer(CALLER_KEY)] {
            assert_eq!(admin.send(denied).await.status, 401, "{kind}");
        }
        let text = gateway.admin_get(&path).await.text().await;
        assert!(!text.contains(PROVIDER_SECRET) && !text.contains(CALLER_KEY), "{text}");
    }
    let (_, keys) = get(&gateway, "/admin/v1/api_keys").await;
    let expected = json!({"key_hash": key_hash(CALLER_KEY), "allowed_models": ["*"]});
    assert_eq!(keys[0]["value"], expected, "{keys}");
}

#[tokio::test]
async fn the_revision_grows_with_each_reload_and_ids_stay() {
    let (upstream, gateway) = started().await;
    let (_, before) = get(&gateway, "/admin/v1/models").await;
    let mut resources = GatewayBuilder::standard(&upstream.base());
    resources["models"][0]["timeout"] = json!(1234);
    gateway.write_resources(&resources);
    gateway.hup();
    let after = eventually("the change is listed", || async {
        let (_, list) = get(&gateway, "/admin/v1/models").await;
        (list[0]["value"]["timeout"] == 1234).then_some(list)
    })
    .await;
    assert_eq!(after[0]["id"], before[0]["id"]);
    let revision = |list: &Value| list[0]["revision"].as_u64().unwrap_or_default();
    assert!(revision(&after) > revision(&before), "{after}");
}

#[tokio::test]
async fn writes_are_refused_before_authentication() {
    let (_upstream, gateway) = started().await;
    let admin = Client::new(gateway.admin);
    for (method, path) in [
        ("POST", "/admin/v1/models"),
        ("PUT", "/admin/v1/models/x"),
        ("PATCH", "/admin/v1/models/x"),
        ("DELETE", "/admin/v1/provider_keys/x"),
        ("POST", "/admin/v1/api_keys"),
    ] {
        for key in [None, Some(ADMIN_KEY)] {
            let mut request = Request::new(method, path).body("{}");
            if let Some(key) = key {
                request = request.bearer(key);
            }
            let mut reply = admin.send(request).await;
            assert_eq!(reply.status, 405, "{method} {path}");
            assert!(reply.header("allow").is_some_and(|a| a.contains("GET")), "{method} {path}");
            let text = reply.text().await;
            assert!(
                key.is_some() || !text.contains("resources.yaml"),
                "the path is not for strangers: {text}"
            );
        }
    }
    for method in ["GET", "POST"] {
        let request = Request::new(method, "/admin/v1/api_keys/x/rotate").bearer(ADMIN_KEY);
        assert_eq!(admin.send(request).await.status, 404, "{method}");
    }
}

#[tokio::test]
async fn the_openapi_document_needs_no_key() {
    let (_upstream, gateway) = started().await;
    let admin = Client::new(gateway.admin);
    let mut reply = admin.send(Request::get("/admin/openapi.json")).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let document = reply.json().await;
    assert_eq!(
        (&document["openapi"], &document["info"]["title"]),
        (&json!("3.1.0"), &json!("AISIX Admin API"))
    );
    for path in ["/admin/v1/health", "/livez", "/readyz"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let mut page = admin.send(Request::get("/admin/openapi-scalar")).await;
    assert_eq!(page.status, 200);
    assert!(page.text().await.contains("/admin/openapi.json"));
}

#[tokio::test]
async fn the_playground_is_the_chat_endpoint_with_a_caller_key() {
    let (upstream, builder) = pair().await;
    let gateway = builder.start().await;
    let admin = Client::new(gateway.admin);
    let path = "/playground/chat/completions";
    for stream in [false, true] {
        let request = Request::post(path, &Gateway::hello(stream)).bearer(CALLER_KEY);
        let mut reply = admin.send(request).await;
        assert_eq!(reply.status, 200);
        assert!(reply.header("x-aisix-request-id").is_some());
        assert_eq!(reply.text().await.contains("[DONE]"), stream);
    }
    let refused = admin.send(Request::post(path, &Gateway::hello(false)).bearer(ADMIN_KEY)).await;
    expect_error(refused, 401, "invalid_api_key").await;
    assert_eq!(admin.send(Request::get(path)).await.status, 405);
    assert_eq!(upstream.requests().len(), 2);
}

/// Asks the playground from this address, with a forged `X-Forwarded-For`.
async fn playground_from(gateway: &Gateway, source: &str, forwarded: &str) -> (u16, Value) {
    let body = Gateway::hello(false).to_string();
    let request = format!(
        "POST /playground/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CALLER_KEY}\r\ncontent-type: application/json\r\nx-forwarded-for: {forwarded}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let source = source.parse().expect("an address");
    let mut raw = RawConnection::open_from(source, gateway.admin).await;
    raw.send(request.as_bytes()).await.expect("send");
    let reply = raw.reply().await.expect("a reply");
    (reply.status, reply.json())
}

#[tokio::test]
async fn the_playground_knows_where_the_client_comes_from() {
    let (upstream, builder) = pair().await;
    let mut admitted = 0;
    for open_to in ["127.0.0.1", "127.0.0.2"] {
        let cidr = json!([format!("{open_to}/32")]);
        let gateway = builder.clone().edit(|r| r["models"][0]["allowed_cidrs"] = cidr).start().await;
        for source in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
            let (status, body) = playground_from(&gateway, source, open_to).await;
            if source == open_to {
                assert_eq!(status, 200, "{source}: {body}");
                admitted += 1;
            } else {
                assert_eq!((status, &body["error"]["code"]), (403, &json!("ip_restricted")), "{source}");
            }
        }
    }
    assert_eq!(upstream.requests().len(), admitted);
}

/// All strings under a `$ref` member.
fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(members.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn the_openapi_document_is_whole_and_its_viewer_needs_no_network() {
    let (gateway, _) = aisix_e2e::stores::embedded().await;
    let admin = Client::new(gateway.admin);
    let document = admin.send(Request::get("/admin/openapi.json")).await.json().await;
    for reference in references(&document) {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} is elsewhere"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for kind in aisix_e2e::documents::KINDS {
        let path = &document["paths"][format!("/admin/v1/{kind}")];
        assert!(path["get"].is_object() && path["post"].is_object(), "{kind}");
        let item = &document["paths"][format!("/admin/v1/{kind}/{{id}}")];
        for method in ["get", "put", "patch", "delete"] {
            assert!(item[method].is_object(), "{method} {kind}");
        }
    }
    for path in ["batch", "apply", "export", "audit", "revisions", "rollback", "api_keys/{id}/rotate"] {
        assert!(document["paths"][format!("/admin/v1/{path}")].is_object(), "{path}");
    }
    let page = admin.send(Request::get("/admin/openapi-scalar")).await.text().await;
    for outside in [
        "src=\"http",
        "src='http",
        "src=\"//",
        "href=\"http",
        "href=\"//",
        "@import",
        "import(\"http",
        "fetch(\"http",
    ] {
        assert!(!page.contains(outside), "the page loads something from elsewhere: {outside}");
    }
}
