//! Health and status of a gateway with a store.

use aisix_testkit::metrics::Samples;
use http::{Method, StatusCode};
use serde_json::json;

use super::{call, plane::Plane};

#[tokio::test]
async fn health_tells_how_current_the_configuration_is() {
    let plane = Plane::new().await;
    assert_eq!(
        plane.get("health").await.json()["config"],
        json!({"snapshot_revision": 0, "snapshot_age_seconds": 0})
    );
    plane.standard().await;
    let health = plane.get("health").await.json();
    assert_eq!(health["config"]["snapshot_revision"], 2);
    assert_eq!(health["models"][0]["health"], 0);

    let unread = aisix_config::ConfigState::of_store("etcd", "");
    let health = aisix_telemetry::HealthTable::new();
    let answer = crate::health::report(&unread, &health);
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    let never = r#"{"status":"ok","models":[],"config":{"snapshot_revision":0,"snapshot_age_seconds":null}}"#;
    assert_eq!(body, never);
}

#[tokio::test]
async fn models_of_every_shape_have_a_status() {
    let plane = Plane::new().await;
    plane.standard().await;
    let target = json!([{"model": "fast"}]);
    for document in [
        json!({"display_name": "group", "routing": {"targets": target}}),
        json!({"display_name": "panel", "ensemble": {"panel": target, "judge": {"model": "fast"}}}),
        json!({"display_name": "chosen", "semantic": {
            "embedding_model": "fast", "default": "fast",
            "match": {"threshold": 0.5},
            "routes": [{"name": "r", "target": "fast", "examples": ["hi"]}]}}),
    ] {
        let answer = plane.post("models", &document).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{document}: {answer:?}");
        let entry = answer.json();
        let path = format!("models/{}", entry["id"].as_str().unwrap());
        let back = plane.put(&path, &entry["value"]).await;
        assert_eq!((back.status, &back.json()["value"]), (StatusCode::OK, &entry["value"]));
    }
    let here = plane.get("models/status").await;
    let there = call(&plane.status, Method::GET, "/status/models", &[]).await;
    assert_eq!((&here.body, &here.headers), (&there.body, &there.headers));
    let list = here.json();
    let mut shapes: Vec<(&str, &str, &str)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|model| {
            let text = |name: &str| model[name].as_str().unwrap();
            (text("display_name"), text("kind"), text("status"))
        })
        .collect();
    shapes.sort_unstable();
    assert_eq!(
        shapes,
        [
            ("chosen", "semantic", "not_applicable"),
            ("fast", "direct", "healthy"),
            ("group", "routing", "not_applicable"),
            ("panel", "ensemble", "not_applicable"),
        ]
    );
}

#[tokio::test]
async fn the_scrape_tells_of_the_store() {
    let plane = Plane::new().await;
    plane.standard().await;
    plane.store.put("models/odd", Some(&json!({"display_name": 5})));
    plane.store.put("cache_policies/new", Some(&json!({"name": "n", "of_a_later_version": true})));
    let scrape = call(&plane.status, Method::GET, "/metrics", &[]).await;
    let samples = Samples::parse(scrape.text());
    assert_eq!(samples.sum("aisix_config_source_connected", &[]), 1.0);
    assert_eq!(samples.sum("aisix_config_observed_revision", &[]), 4.0);
    assert_eq!(samples.sum("aisix_config_applied_revision", &[]), 4.0);
    assert_eq!(samples.sum("aisix_config_rejected_resources", &[("kind", "models")]), 1.0);
    let partial = samples.sum("aisix_config_partially_compatible_resources", &[("kind", "cache_policies")]);
    assert_eq!(partial, 1.0);
    let ready = call(&plane.status, Method::GET, "/status/ready", &[]).await;
    assert_eq!(ready.text(), "ok");
    let status = call(&plane.status, Method::GET, "/status/config", &[]).await.json();
    assert_eq!((&status["state"], &status["source"]["type"]), (&json!("degraded"), &json!("embedded")));
}
