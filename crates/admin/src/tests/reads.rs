//! What the routes say: documents, health, status, metrics, and never a secret.

use aisix_core::Reason;
use aisix_telemetry::{AttemptFailure, CooldownPolicy};
use aisix_testkit::metrics::Samples;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    ADMIN_KEY, Answer, Gateway, OTHER_ADMIN_KEY, RESOURCES, call, documents::collections, file_routes,
};
use crate::routes::Action;

const EMPTY: &str = "_format_version: \"1\"\n";

async fn status(gateway: &Gateway, path: &str) -> Answer {
    call(&gateway.status, Method::GET, path, &[]).await
}

/// The entry of a kind with this display name or key hash.
async fn entry(gateway: &Gateway, collection: &str, field: &str, wanted: &str) -> Value {
    let list = gateway.read(&format!("/admin/v1/{collection}")).await.json();
    let found = list.as_array().unwrap().iter().find(|entry| entry["value"][field] == wanted);
    found.unwrap_or_else(|| panic!("{wanted} not in {list}")).clone()
}

#[tokio::test]
async fn lists_are_ordered_by_id_and_agree_with_single_reads() {
    let gateway = Gateway::new(RESOURCES);
    for (collection, count) in [("models", 2), ("api_keys", 2), ("apikeys", 2), ("provider_keys", 2)] {
        let list = gateway.read(&format!("/admin/v1/{collection}")).await.json();
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), count, "{collection}");
        let ids: Vec<&str> = list.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        for entry in list {
            let members: Vec<&String> = entry.as_object().unwrap().keys().collect();
            assert_eq!(members, ["id", "value", "revision"]);
            assert_eq!(entry["revision"], 1);
            let one =
                gateway.read(&format!("/admin/v1/{collection}/{}", entry["id"].as_str().unwrap())).await;
            assert_eq!(&one.json(), entry);
        }
    }
}

#[tokio::test]
async fn kinds_without_resources_are_empty() {
    for gateway in [Gateway::new(RESOURCES), Gateway::new(EMPTY)] {
        let loaded = ["models", "api_keys", "provider_keys"];
        for kind in collections().into_iter().filter(|kind| !loaded.contains(kind)) {
            assert_eq!(gateway.read(&format!("/admin/v1/{kind}")).await.text(), "[]");
            let one = gateway.read(&format!("/admin/v1/{kind}/some-id")).await;
            assert_eq!(one.status, StatusCode::NOT_FOUND);
            assert_eq!(one.text(), r#"{"error_msg":"resource not found"}"#);
        }
    }
    let gateway = Gateway::new(EMPTY);
    assert_eq!(gateway.read("/admin/v1/models").await.text(), "[]");
    assert_eq!(gateway.read("/admin/v1/health").await.text(), r#"{"status":"ok","models":[]}"#);
    assert_eq!(status(&gateway, "/status/models").await.text(), "[]");
}

#[tokio::test]
async fn odd_ids_are_not_found() {
    let gateway = Gateway::new(RESOURCES);
    for id in ["%ff", "%00", "..%2Fmodels", "fast", "%F0%9F%98%80"] {
        let answer = gateway.read(&format!("/admin/v1/models/{id}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{id}");
        assert_eq!(answer.text(), r#"{"error_msg":"resource not found"}"#, "{id}");
    }
}

#[tokio::test]
async fn caller_keys_of_a_file_do_not_say_whose_they_are() {
    let gateway = Gateway::new(RESOURCES);
    let hash = "1".repeat(64);
    let web = entry(&gateway, "api_keys", "key_hash", &hash).await;
    assert_eq!(
        web["value"],
        json!({
            "key_hash": hash,
            "allowed_models": ["fast"],
            "expires_at": "2099-01-01T00:00:00Z",
            "disabled": true,
        })
    );
    let listed = gateway.read("/admin/v1/apikeys?name=plain").await.json();
    assert!(listed[0]["value"].get("disabled").is_none(), "{listed}");
}

#[tokio::test]
async fn provider_keys_have_canonical_names_and_masked_secrets() {
    let gateway = Gateway::new(RESOURCES);
    let old = entry(&gateway, "provider_keys", "display_name", "spelled-the-old-way").await;
    assert_eq!(old["value"]["api_key"], "***");
    assert!(old["value"].get("secret").is_none());
    assert_eq!(old["value"]["strip_headers"], json!(["authorization", "cookie", "set-cookie", "x-api-key"]));
    let main = entry(&gateway, "provider_keys", "display_name", "main").await;
    let request = &main["value"]["request"];
    assert_eq!(request["default_headers"], json!({ "x-tenant": "***" }));
    assert_eq!(request["default_body_fields"]["user"], "***");
    assert_eq!(main["value"]["api_base"], "http://127.0.0.1:9/v1");
    let model = entry(&gateway, "models", "display_name", "fast").await;
    assert_eq!(model["value"]["provider_key_id"], main["id"]);
}

#[tokio::test]
async fn no_answer_ever_holds_a_secret() {
    let gateway = Gateway::new(RESOURCES);
    let mut answers = Vec::new();
    for route in file_routes() {
        match route.action {
            Action::Get(_) => {
                let collection = route.path.trim_end_matches("/{id}");
                for entry in gateway.read(collection).await.json().as_array().unwrap() {
                    let path = format!("{collection}/{}", entry["id"].as_str().unwrap());
                    answers.push((path.clone(), gateway.read(&path).await));
                }
            }
            _ => answers.push((route.path.clone(), gateway.read(&route.path).await)),
        }
    }
    for path in ["/metrics", "/status/config", "/status/ready", "/status/models"] {
        answers.push((path.to_owned(), status(&gateway, path).await));
    }
    assert!(answers.len() > 25);
    assert!(answers.iter().any(|(_, answer)| answer.text().contains("***")));
    for (path, answer) in &answers {
        for secret in ["SECRET", ADMIN_KEY, OTHER_ADMIN_KEY] {
            // Variables of the export stand for secrets.
            let text = answer.text().replace("AISIXSECRET_", "");
            assert!(!text.contains(secret), "{path}: {text}");
            assert!(!format!("{:?}", answer.headers).contains(secret), "{path}");
        }
    }
}

fn failure() -> AttemptFailure {
    AttemptFailure {
        reason: Reason::UpstreamStatus,
        upstream_status: Some(503),
        retry_after: None,
        retryable: true,
    }
}

#[tokio::test]
async fn health_counts_consecutive_failures_by_id() {
    let gateway = Gateway::new(RESOURCES);
    let fast = entry(&gateway, "models", "display_name", "fast").await;
    let fast = gateway.health.model(fast["id"].as_str().unwrap());
    for failures in 0..10 {
        let report = gateway.read("/admin/v1/health").await.json();
        assert_eq!(report["status"], "ok");
        assert!(report.get("config").is_none(), "a resources file has no freshness");
        for model in report["models"].as_array().unwrap() {
            let failed = if model["name"] == "fast" { failures } else { 0 };
            assert_eq!(
                model["health"],
                match failed {
                    0..=3 => 0,
                    4..=7 => 1,
                    _ => 2,
                },
                "{failures}"
            );
        }
        fast.failure(&failure(), &CooldownPolicy::default());
    }
    fast.success();
    let report = gateway.read("/admin/v1/health").await.json();
    assert!(report["models"].as_array().unwrap().iter().all(|model| model["health"] == 0));
}

#[tokio::test]
async fn model_status_is_the_same_on_both_listeners() {
    let gateway = Gateway::new(RESOURCES);
    let fast = entry(&gateway, "models", "display_name", "fast").await;
    let id = fast["id"].as_str().unwrap();
    for cooling in [false, true] {
        if cooling {
            gateway.health.model(id).failure(&failure(), &CooldownPolicy::default());
        }
        let here = gateway.read("/admin/v1/models/status").await;
        let there = status(&gateway, "/status/models").await;
        assert_eq!(here.body, there.body);
        assert_eq!(here.headers, there.headers);
        let list = here.json();
        let models = list.as_array().unwrap();
        assert!(models.is_sorted_by_key(|model| model["id"].as_str().unwrap()));
        let fast = models.iter().find(|model| model["id"] == id).unwrap();
        if cooling {
            assert_eq!(fast["status"], "cooldown");
            assert_eq!(fast["status_reason"], "upstream_server_error");
            assert!(fast["cooldown_until"]["secs_since_epoch"].as_u64().unwrap() > 1_700_000_000);
            assert!(fast["cooldown_until"]["nanos_since_epoch"].is_u64());
        } else {
            assert_eq!(
                *fast,
                json!({ "id": id, "display_name": "fast", "kind": "direct", "status": "healthy" })
            );
        }
    }
}

#[tokio::test]
async fn status_config_tells_what_is_applied() {
    let gateway = Gateway::new(RESOURCES);
    let report = status(&gateway, "/status/config").await.json();
    assert_eq!(report["state"], "synced");
    assert_eq!(report["source"]["type"], "file");
    assert!(report["source"].get("connected").is_none());
    assert_eq!(
        report["applied"]["resource_counts"],
        json!({ "provider_keys": 2, "models": 2, "api_keys": 2 })
    );
    assert_eq!(report, serde_json::to_value(gateway.config.status()).unwrap());
    let ready = status(&gateway, "/status/ready").await;
    assert_eq!(ready.text(), "ok");
    assert_eq!(ready.header("content-type"), "text/plain; charset=utf-8");
    gateway.lifecycle.begin_drain();
    assert_eq!(status(&gateway, "/status/ready").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_scrape_has_the_configuration_families() {
    let gateway = Gateway::new(RESOURCES);
    let answer = status(&gateway, "/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
    let samples = Samples::parse(answer.text());
    assert_eq!(samples.sum("aisix_config_last_reload_successful", &[]), 1.0);
    assert_eq!(samples.kind("aisix_config_last_reload_successful"), Some("gauge"));
    assert_eq!(samples.sum("aisix_config_reloads_total", &[]), 1.0);
    assert_eq!(samples.kind("aisix_config_reloads_total"), Some("counter"));
    assert!(samples.sum("aisix_config_last_reload_success_timestamp_seconds", &[]) > 1.7e9);
    let hash = status(&gateway, "/status/config").await.json()["applied"]["config_hash"].clone();
    let hash = hash.as_str().unwrap();
    assert_eq!(samples.find("aisix_config_hash_info", &[("hash", hash)])[0].value, 1.0);
    for absent in ["source_connected", "observed_revision", "applied_revision"] {
        assert!(!samples.mentions(&format!("aisix_config_{absent}")), "{absent}");
    }
}
