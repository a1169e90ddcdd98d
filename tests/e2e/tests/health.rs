//! `/livez`, `/readyz`, the status listener and the admin health report.

use aisix_e2e::{chat_body, expect_error, pair, started};
use aisix_testkit::gateway::ADMIN_KEY;
use aisix_testkit::gateway::builder::MODEL;
use aisix_testkit::{Client, FakeProvider, Gate, Gateway, Reply, Request, Stream, eventually};
use serde_json::{Value, json};

/// The deterministic id of the standard model.
async fn model_id(gateway: &Gateway) -> String {
    let models = gateway.status_get("/status/models").await.json().await;
    let id = models[0]["id"].as_str();
    id.expect("a model in /status/models").to_owned()
}

#[tokio::test]
async fn probes_when_running() {
    let (_upstream, gateway) = started().await;
    for addr in [gateway.proxy, gateway.admin] {
        let client = Client::new(addr);
        for (path, body) in [
            ("/livez", "ok"),
            ("/readyz", "ok"),
            ("/livez?verbose=1", "[+]ping ok\n[+]shutdown ok\nlivez check passed\n"),
            ("/livez?verbose", "[+]ping ok\n[+]shutdown ok\nlivez check passed\n"),
            ("/livez?a=b&verbose=", "[+]ping ok\n[+]shutdown ok\nlivez check passed\n"),
            ("/readyz?verbose=1", "[+]shutdown ok\n[+]config ok\nreadyz check passed\n"),
        ] {
            let mut reply = client.send(Request::get(path)).await;
            assert_eq!((reply.status, reply.text().await.as_str()), (200, body), "{path}");
            assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"), "{path}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        }
    }
}

#[tokio::test]
async fn probes_while_draining() {
    let (upstream, gateway) = started().await;
    let gate = Gate::new();
    upstream.push(Stream::new().content("a").gate(&gate).finish("stop").done().end());
    let mut stream = gateway.chat(&Gateway::hello(true)).await;
    stream.event().await;
    gateway.term();
    gateway.wait_log("draining").await;
    let livez = "[+]ping ok\n[-]shutdown failed: reason withheld\nlivez check failed";
    let readyz = "[-]shutdown failed: draining\n[+]config ok\nreadyz check failed";
    for addr in [gateway.proxy, gateway.admin] {
        for (path, status, body) in [
            ("/livez", 500, livez),
            ("/livez?verbose=1", 500, livez),
            ("/readyz", 503, readyz),
            ("/readyz?verbose=1", 503, readyz),
        ] {
            let mut reply = Client::new(addr).send(Request::get(path)).await;
            let text = reply.text().await;
            assert_eq!((reply.status, text.trim_end()), (status, body), "{path}");
            assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
            if path.starts_with("/livez") {
                assert!(text.ends_with("livez check failed"), "no trailing newline: {text:?}");
            }
        }
    }
    assert_eq!(gateway.status_get("/status/ready").await.status, 200);
    gate.open();
    assert!(stream.events().await.last().is_some_and(|f| f.is_done()));
}

#[tokio::test]
async fn status_ready_and_config_of_a_file() {
    let (_upstream, gateway) = started().await;
    let mut ready = gateway.status_get("/status/ready").await;
    assert_eq!((ready.status, ready.text().await.as_str()), (200, "ok"));
    assert_eq!(ready.header("content-type"), Some("text/plain; charset=utf-8"));
    let status = gateway.config_status().await;
    assert_eq!(status["state"], "synced", "{status}");
    assert_eq!(status["source"]["type"], "file");
    for absent in ["connected", "observed_revision"] {
        assert!(status["source"].get(absent).is_none(), "{status}");
    }
    let applied = &status["applied"];
    assert!(applied.get("applied_revision").is_none(), "{status}");
    assert_eq!(applied["apply_seq"], 1);
    assert_eq!(applied["resource_counts"], json!({"provider_keys": 1, "models": 1, "api_keys": 1}));
    let file = std::fs::read_to_string(gateway.dir().join("resources.yaml")).expect("the file");
    assert_eq!(applied["config_hash"], aisix_testkit::key_hash(&file));
    assert_eq!(applied["config_hash"], status["source"]["source_hash"]);
    for time in [&applied["applied_at"], &status["source"]["observed_at"], &status["last_reload"]["at"]] {
        let time = time.as_str().unwrap_or_default();
        assert!(time.len() == 20 && time.ends_with('Z'), "{time:?} in {status}");
    }
    assert_eq!(status["last_reload"]["successful"], true);
    assert_eq!(status["last_failure"], Value::Null);
    assert_eq!(status["rejected"], json!([]));
    assert_eq!(status["partially_compatible"], json!([]));
}

#[tokio::test]
async fn empty_resources_are_ready_and_empty() {
    let gateway = Gateway::builder().start().await;
    assert_eq!(gateway.config_status().await["state"], "empty");
    assert_eq!(gateway.status_get("/status/ready").await.status, 200);
    let models = gateway.status_get("/status/models").await.json().await;
    assert_eq!(models, json!([]));
}

#[tokio::test]
async fn model_status_is_the_same_on_both_listeners() {
    let (_upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| {
            let model = json!({"display_name": "wild/*", "provider": "openai", "model_name": "*", "provider_key": "main"});
            r["models"].as_array_mut().expect("models").push(model);
        })
        .start()
        .await;
    let mut status = gateway.status_get("/status/models").await;
    let mut admin = gateway.admin_get("/admin/v1/models/status").await;
    let (left, right) = (status.text().await, admin.text().await);
    assert_eq!((status.status, admin.status), (200, 200));
    assert_eq!(left, right);
    assert_eq!(status.header("content-type"), admin.header("content-type"));
    let models: Value = serde_json::from_str(&left).expect("JSON");
    let names: Vec<&Value> = models.as_array().into_iter().flatten().map(|m| &m["display_name"]).collect();
    assert!(names.contains(&&json!(MODEL)) && names.contains(&&json!("wild/*")), "{models}");
    for model in models.as_array().into_iter().flatten() {
        assert_eq!((&model["kind"], &model["status"]), (&json!("direct"), &json!("healthy")));
        let members = model.as_object().map_or(0, |m| m.len());
        assert_eq!(members, 4, "a model never used has no further fields: {model}");
    }
}

#[tokio::test]
async fn ids_in_file_mode_are_uuid_v5_of_kind_and_name() {
    let (_upstream, builder) = pair().await;
    let gateway = builder.edit(|r| r["models"][0]["display_name"] = json!("gpt-4o")).start().await;
    assert_eq!(model_id(&gateway).await, "6efd592d-a73b-573d-8e2c-e9e103692f92");
}

#[tokio::test]
async fn admin_health_needs_the_admin_key() {
    let (_upstream, gateway) = started().await;
    let admin = Client::new(gateway.admin);
    let path = "/admin/v1/health";
    let denied = [
        Request::get(path),
        Request::get(path).bearer("wrong"),
        Request::get(path).bearer(aisix_testkit::gateway::builder::CALLER_KEY),
        Request::get(path).header("x-api-key", "wrong"),
        Request::get(path).header("authorization", ADMIN_KEY),
        Request::get(path).header("authorization", "").header("x-api-key", ADMIN_KEY),
        Request::get(path).header("authorization", "Basic eA==").header("x-api-key", ADMIN_KEY),
    ];
    for request in denied {
        let shown = format!("{request:?}");
        let mut reply = admin.send(request).await;
        assert_eq!(reply.status, 401, "{shown}");
        assert_eq!(reply.json().await, json!({"error_msg": "missing or malformed admin authorization"}));
        assert!(reply.header("www-authenticate").is_none());
    }
    let allowed = [
        Request::get(path).bearer(ADMIN_KEY),
        Request::get(path).header("authorization", format!("Bearer  {ADMIN_KEY} ")),
        Request::get(path).header("x-api-key", ADMIN_KEY),
    ];
    for request in allowed {
        assert_eq!(admin.send(request).await.status, 200);
    }
    let on_proxy = gateway.send(Request::get("/v1/models").bearer(ADMIN_KEY)).await;
    expect_error(on_proxy, 401, "invalid_api_key").await;
}

#[tokio::test]
async fn health_counts_consecutive_upstream_failures() {
    let (upstream, gateway) = started().await;
    let report = gateway.admin_get("/admin/v1/health").await.json().await;
    let id = model_id(&gateway).await;
    let models = json!([{"id": id, "name": MODEL, "health": 0}]);
    assert_eq!(report, json!({"status": "ok", "models": models}), "no `config` block in file mode");
    upstream.set_default(Reply::error(500, "boom"));
    for failures in 1..=9 {
        let stream = failures % 2 == 0;
        assert_eq!(gateway.chat(&Gateway::hello(stream)).await.status, 502);
        let expected = match failures {
            0..=3 => 0,
            4..=7 => 1,
            _ => 2,
        };
        assert_eq!(gateway.health_of(MODEL).await, json!(expected), "after {failures} failures");
    }
    let report = gateway.admin_get("/admin/v1/health").await.json().await;
    assert_eq!(report["status"], "ok", "{report}");
    upstream.push(Reply::chat("fine again"));
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    assert_eq!(gateway.health_of(MODEL).await, json!(0));
}

/// Sends `count` chats that fail at the upstream and returns the health level afterwards.
async fn level_after(upstream: &FakeProvider, gateway: &Gateway, reply: Reply, count: usize) -> Value {
    upstream.set_default(reply);
    for _ in 0..count {
        gateway.chat(&chat_body(json!({}))).await.bytes().await;
    }
    gateway.health_of(MODEL).await
}

#[tokio::test]
async fn client_errors_do_not_count_transport_failures_and_retries_do() {
    let (upstream, gateway) = started().await;
    for status in [400, 401, 404, 422, 429] {
        let level = level_after(&upstream, &gateway, Reply::error(status, "no"), 5).await;
        assert_eq!(level, json!(0), "{status}");
    }
    let level = level_after(&upstream, &gateway, Reply::reset(), 4).await;
    assert_eq!(level, json!(1));
    let level = level_after(&upstream, &gateway, Reply::body(200, "text/html", "<html>"), 4).await;
    assert_eq!(level, json!(2));
    let (upstream, builder) = pair().await;
    let gateway = builder.edit(|r| r["models"][0]["retries"] = json!(3)).start().await;
    let level = level_after(&upstream, &gateway, Reply::error(503, "busy"), 1).await;
    assert_eq!(level, json!(1), "four attempts of one request");
}

#[tokio::test]
async fn a_success_in_between_starts_the_count_anew() {
    let (upstream, gateway) = started().await;
    for _ in 0..3 {
        level_after(&upstream, &gateway, Reply::error(500, "boom"), 3).await;
        let level = level_after(&upstream, &gateway, Reply::chat("fine"), 1).await;
        assert_eq!(level, json!(0));
    }
}

#[tokio::test]
async fn a_failure_cools_the_model_and_a_success_clears_it() {
    let (upstream, gateway) = started().await;
    for (reply, reason) in [
        (Reply::error(500, "x"), "upstream_server_error"),
        (Reply::error(401, "x"), "upstream_auth_failure"),
        (Reply::error(429, "x"), "upstream_rate_limited"),
        (Reply::reset(), "transport_error"),
        (Reply::body(200, "application/json", "garbage"), "upstream_decode_error"),
    ] {
        upstream.push(reply);
        gateway.chat(&Gateway::hello(false)).await.bytes().await;
        let models = gateway.status_get("/status/models").await.json().await;
        assert_eq!(models[0]["status"], "cooldown", "{models}");
        assert_eq!(models[0]["status_reason"], reason, "{models}");
        assert!(models[0]["cooldown_until"]["secs_since_epoch"].is_u64(), "{models}");
    }
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    eventually("healthy again", || async {
        let models = gateway.status_get("/status/models").await.json().await;
        (models[0]["status"] == "healthy").then_some(())
    })
    .await;
}
