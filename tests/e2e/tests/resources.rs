//! The resources file: interpolation, references, reload, last good configuration, status.

use aisix_e2e::{expect_error, message, pair, started};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL};
use aisix_testkit::{Gate, Gateway, GatewayBuilder, Request, Stream, eventually, key_hash};
use serde_json::{Value, json};

/// Waits until `/status/config` satisfies a condition.
async fn wait_status(gateway: &Gateway, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || async {
        let status = gateway.config_status().await;
        holds(&status).then_some(status)
    })
    .await
}

/// The ids that `/v1/models` lists.
async fn listed(gateway: &Gateway) -> Vec<String> {
    let models = gateway.send(Request::get("/v1/models").bearer(CALLER_KEY)).await.json().await;
    let ids = models["data"].as_array().cloned().unwrap_or_default();
    ids.iter().map(|m| m["id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Resources that differ from the standard ones by the model's name.
fn renamed(base: &str, name: &str) -> Value {
    let mut resources = GatewayBuilder::standard(base);
    resources["models"][0]["display_name"] = json!(name);
    resources
}

#[tokio::test]
async fn interpolation_reaches_every_string_value() {
    let (upstream, builder) = pair().await;
    let authority = upstream.addr().to_string();
    let gateway = builder
        .edit(|r| {
            r["provider_keys"][0]["api_base"] = json!("http://${UP_HOST}/v1");
            r["provider_keys"][0]["api_key"] = json!("sk-${SECRET}-$$-$plain-$${X}-$");
            r["provider_keys"][0]["request"] = json!({
                "default_headers": {"x-from-env": "${UP_HOST}", "x-templated": "$${model.name}"},
            });
        })
        .env("UP_HOST", &authority)
        .env("SECRET", "s3: [not, yaml] ${UP_HOST}")
        .start()
        .await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    let request = upstream.only_request();
    let secret = "Bearer sk-s3: [not, yaml] ${UP_HOST}-$-$plain-${X}-$";
    assert_eq!(request.header("authorization"), Some(secret));
    assert_eq!(request.header("x-templated"), Some(MODEL));
}

#[tokio::test]
async fn bad_interpolation_names_field_and_variable() {
    for (text, fragment) in [
        ("${MISSING_VARIABLE}", "MISSING_VARIABLE"),
        ("${EMPTY_VARIABLE}", "EMPTY_VARIABLE"),
        ("a${}b", "empty variable name"),
        ("a${OPEN", "unterminated"),
    ] {
        let (_upstream, builder) = pair().await;
        let exit = builder
            .edit(|r| r["provider_keys"][0]["api_key"] = json!(text))
            .env("EMPTY_VARIABLE", "")
            .start_and_fail()
            .await;
        assert_eq!(exit.code, Some(1));
        assert!(exit.stderr.contains("api_key") && exit.stderr.contains(fragment), "{}", exit.stderr);
    }
}

#[tokio::test]
async fn keys_from_the_environment() {
    let (_upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| {
            r["api_keys"] = json!([{"display_name": "env", "key_env": "CALLER", "allowed_models": ["*"]}]);
        })
        .env("CALLER", CALLER_KEY)
        .start()
        .await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
}

#[tokio::test]
async fn key_entries_are_validated() {
    let hash = key_hash("sk-secret-value");
    let cases = [
        (json!({"display_name": "k", "allowed_models": []}), "is required"),
        (
            json!({"display_name": "k", "key_env": "V", "key_hash": hash, "allowed_models": []}),
            "mutually exclusive",
        ),
        (json!({"display_name": "k", "key_env": "V", "allowed_models": []}), "uninterpolated"),
        (json!({"display_name": "k", "key_env": "UNSET", "allowed_models": []}), "UNSET"),
        (json!({"display_name": "k", "key_hash": hash}), "allowed_models"),
        (
            json!({"display_name": "k", "key_hash": hash, "allowed_models": [], "expires_at": "soon"}),
            "expires_at",
        ),
        (json!({"key_hash": hash, "allowed_models": []}), "display_name is required"),
        (
            json!({"display_name": "k", "id": "x", "key_hash": hash, "allowed_models": []}),
            "does not accept `id`",
        ),
    ];
    for (entry, fragment) in cases {
        let (_upstream, builder) = pair().await;
        let exit = builder.edit(|r| r["api_keys"] = json!([entry])).env("V", "a${b}").start_and_fail().await;
        assert_eq!(exit.code, Some(1));
        assert!(exit.stderr.contains(fragment), "{fragment:?} not in {}", exit.stderr);
        assert!(!exit.stderr.contains(&hash) && !exit.stderr.contains("a${b}"), "{}", exit.stderr);
    }
    let twin = json!([
        {"display_name": "one", "key_hash": hash, "allowed_models": []},
        {"display_name": "two", "key_hash": hash, "allowed_models": []},
    ]);
    let (_upstream, builder) = pair().await;
    let exit = builder.edit(|r| r["api_keys"] = twin).start_and_fail().await;
    assert!(exit.stderr.contains("duplicate api key credential"), "{}", exit.stderr);
}

#[tokio::test]
async fn sighup_swaps_the_whole_file() {
    let (upstream, gateway) = started().await;
    gateway.write_resources(&renamed(&upstream.base(), "other"));
    gateway.hup();
    gateway.wait_log("resources file reloaded").await;
    let status = wait_status(&gateway, "second apply", |s| s["applied"]["apply_seq"] == 2).await;
    assert_eq!(status["state"], "synced");
    assert_eq!(listed(&gateway).await, ["other"]);
    let reply = gateway.chat(&Gateway::hello(false)).await;
    let error = expect_error(reply, 404, "model_not_found").await;
    assert_eq!(message(&error), format!("model \"{MODEL}\" not found"));
}

#[tokio::test]
async fn a_changed_file_is_picked_up_without_a_signal() {
    let (upstream, gateway) = started().await;
    for name in ["second", "third"] {
        gateway.write_resources(&renamed(&upstream.base(), name));
        eventually("the new model is listed", || async { (listed(&gateway).await == [name]).then_some(()) })
            .await;
    }
    // Written in place, not renamed.
    let text = renamed(&upstream.base(), "fourth").to_string();
    std::fs::write(gateway.dir().join("resources.yaml"), text).expect("write");
    eventually("the new model is listed", || async { (listed(&gateway).await == ["fourth"]).then_some(()) })
        .await;
}

#[tokio::test]
async fn a_bad_file_leaves_the_last_good_one_serving() {
    let (upstream, gateway) = started().await;
    let good = gateway.config_status().await;
    let mut bad = renamed(&upstream.base(), "other");
    bad["models"][0]["provider_key"] = json!("nowhere");
    bad["provider_keys"][0]["api_key"] = json!("sk-must-not-be-shown");
    bad["provider_keys"][0]["bogus"] = json!(1);
    gateway.write_resources(&bad);
    gateway.hup();
    gateway.wait_log("reload failed").await;
    let status = wait_status(&gateway, "out_of_sync", |s| s["state"] == "out_of_sync").await;
    assert_eq!(status["applied"], good["applied"], "config_hash stays at the last good file's");
    assert_ne!(status["source"]["source_hash"], good["source"]["source_hash"]);
    assert_eq!(status["last_reload"]["successful"], false);
    assert_eq!(status["last_failure"]["last_error_kind"], "schema_failed", "{status}");
    let rejected = status["rejected"].as_array().cloned().unwrap_or_default();
    let of =
        |kind: &str, id: &str| rejected.iter().any(|r| r["resource_kind"] == kind && r["resource_id"] == id);
    assert!(of("provider_keys", "main") && of("models", "other"), "{status}");
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    assert_eq!(listed(&gateway).await, [MODEL]);
    let scrape = gateway.scrape().await;
    assert_eq!(scrape.sum("aisix_config_last_reload_successful", &[]), 0.0);
    assert!(scrape.sum("aisix_config_reload_failures_total", &[("reason", "validate")]) >= 1.0);
    assert_eq!(scrape.sum("aisix_config_rejected_resources", &[("kind", "models")]), 1.0);
    let log = gateway.log().join("\n");
    for text in [&status.to_string(), &scrape.text, &log] {
        assert!(!text.contains("sk-must-not-be-shown"), "{text}");
    }
    gateway.write_resources(&renamed(&upstream.base(), "other"));
    gateway.hup();
    let status = wait_status(&gateway, "synced again", |s| s["state"] == "synced").await;
    assert_eq!((&status["rejected"], &status["applied"]["apply_seq"]), (&json!([]), &json!(2)));
    assert!(status["last_failure"].is_object(), "sticky until restart: {status}");
    let scrape = gateway.scrape().await;
    assert_eq!(scrape.sum("aisix_config_rejected_resources", &[]), 0.0);
    assert_eq!(scrape.sum("aisix_config_last_reload_successful", &[]), 1.0);
}

#[tokio::test]
async fn every_kind_of_broken_file_keeps_the_last_good_one() {
    let (_upstream, gateway) = started().await;
    let deep = "[".repeat(10_000);
    for text in ["", "{{{", "- a", "_format_version: \"2\"", "a: &a [*a]", deep.as_str()] {
        let failures = |log: Vec<String>| log.iter().filter(|l| l.contains("reload failed")).count();
        let before = failures(gateway.log());
        gateway.write("resources.yaml", text);
        gateway.hup();
        eventually("the reload fails", || async { (failures(gateway.log()) > before).then_some(()) }).await;
        assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200, "{text:.20}");
        assert_eq!(gateway.config_status().await["applied"]["apply_seq"], 1);
    }
}

#[tokio::test]
async fn a_missing_file_counts_as_a_fetch_failure() {
    let (_upstream, gateway) = started().await;
    std::fs::remove_file(gateway.dir().join("resources.yaml")).expect("remove");
    gateway.hup();
    let kind = |s: &Value| s["last_failure"]["last_error_kind"] == "fetch";
    let status = wait_status(&gateway, "a fetch failure", kind).await;
    assert_eq!(status["last_failure"]["last_error"], "configuration source unreachable");
    assert_eq!(status["state"], "synced", "{status}");
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    let scrape = gateway.scrape().await;
    assert!(scrape.sum("aisix_config_reload_failures_total", &[("reason", "fetch")]) >= 1.0);
}

#[tokio::test]
async fn a_request_in_flight_keeps_its_configuration() {
    let (upstream, gateway) = started().await;
    let gate = Gate::new();
    upstream.push(Stream::new().content("a").gate(&gate).content("b").finish("stop").done().end());
    let mut stream = gateway.chat(&Gateway::hello(true)).await;
    stream.event().await;
    gateway.write_resources(&json!({"_format_version": "1"}));
    gateway.hup();
    wait_status(&gateway, "the empty file is applied", |s| s["state"] == "empty").await;
    let denied = gateway.chat(&Gateway::hello(false)).await;
    expect_error(denied, 401, "invalid_api_key").await;
    gate.open();
    let rest = stream.events().await;
    assert!(rest.last().is_some_and(|f| f.is_done()), "{rest:?}");
    assert_eq!(rest[0].json()["model"], MODEL);
}

#[tokio::test]
async fn reloads_under_load_drop_nothing() {
    let (upstream, gateway) = started().await;
    let base = upstream.base();
    let client = gateway.client();
    let load: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for round in 0..40 {
                    let request = Gateway::chat_request(&Gateway::hello(round % 2 == 0));
                    let mut reply = client.send(request).await;
                    assert_eq!(reply.status, 200);
                    reply.bytes().await;
                }
            })
        })
        .collect();
    let mut generation = 1;
    while load.iter().any(|task| !task.is_finished()) {
        generation += 1;
        let mut resources = GatewayBuilder::standard(&base);
        resources["models"][0]["timeout"] = json!(10_000 + generation);
        gateway.write_resources(&resources);
        gateway.hup();
        wait_status(&gateway, "the next apply", |s| s["applied"]["apply_seq"] == generation).await;
    }
    for task in load {
        task.await.expect("no request failed");
    }
    assert!(generation > 2, "the file was reloaded while requests ran");
}

#[tokio::test]
async fn a_rotated_provider_secret_and_address_apply_at_once() {
    let (first, gateway) = started().await;
    let (second, _) = pair().await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    let mut resources = GatewayBuilder::standard(&second.base());
    resources["provider_keys"][0]["api_key"] = json!("sk-rotated");
    gateway.write_resources(&resources);
    gateway.hup();
    wait_status(&gateway, "applied", |s| s["applied"]["apply_seq"] == 2).await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    assert_eq!(second.only_request().header("authorization"), Some("Bearer sk-rotated"));
    first.only_request();
}

#[tokio::test]
async fn the_same_file_again_is_not_a_new_apply() {
    let (_upstream, gateway) = started().await;
    let before = gateway.config_status().await;
    gateway.hup();
    gateway.wait_log("resources file reloaded").await;
    let after = gateway.config_status().await;
    assert_eq!(before["applied"], after["applied"]);
    assert_eq!(gateway.send(Request::get("/livez")).await.status, 200);
    assert!(gateway.scrape().await.sum("aisix_config_reloads_total", &[]) >= 2.0);
    let hashes = gateway.scrape().await;
    let current = before["applied"]["config_hash"].as_str().unwrap_or_default();
    assert_eq!(hashes.sum("aisix_config_hash_info", &[("hash", current)]), 1.0);
    assert!(hashes.find("aisix_config_source_connected", &[]).is_empty());
}
