//! Several changes at once: batches and whole configurations.

use http::StatusCode;
use serde_json::{Value, json};

use super::plane::Plane;

fn key(name: &str) -> Value {
    json!({"display_name": name, "provider": "openai", "api_key": "sk-SECRET"})
}

fn model(name: &str, key: &str) -> Value {
    json!({"display_name": name, "provider": "openai", "model_name": "m", "provider_key_id": key})
}

#[tokio::test]
async fn a_batch_is_made_whole() {
    let plane = Plane::new().await;
    let (main, fast) = plane.standard().await;
    let before = plane.store.revision();
    let revision = plane.get(&format!("models/{fast}")).await.json()["revision"].clone();
    let batch = json!({"operations": [
        {"op": "create", "kind": "provider_keys", "id": "k-2", "value": key("second")},
        {"op": "create", "kind": "models", "value": model("slow", "k-2")},
        {"op": "patch", "kind": "models", "id": fast, "value": {"provider_key_id": "k-2"}, "if_match": revision},
        {"op": "delete", "kind": "provider_keys", "id": main},
        {"op": "create", "kind": "apikeys", "value": {"display_name": "c", "allowed_models": ["slow"]}},
        {"op": "replace", "kind": "provider_keys", "id": "k-2", "value": key("renamed")},
    ]});
    let answer = plane.post("batch", &batch).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(!answer.text().contains("SECRET"));
    let body = answer.json();
    assert_eq!(body["revision"], before + 1);
    let results = body["results"].as_array().unwrap();
    assert_eq!(results.len(), 6);
    assert_eq!((&results[0]["id"], &results[0]["revision"]), (&json!("k-2"), &json!(before + 1)));
    assert_eq!(results[3], json!({"deleted": true, "id": main}));
    assert!(results[4]["plaintext"].as_str().unwrap().starts_with("sk-"));
    assert_eq!(results[5]["value"]["display_name"], "renamed");
    assert_eq!(plane.store.revision(), before + 1, "one commit");
    let audit = plane.get("audit?limit=1").await.json();
    assert_eq!((&audit[0]["action"], audit[0]["changes"].as_array().unwrap().len()), (&json!("batch"), 5));
    let empty = plane.post("batch", &json!({"operations": []})).await;
    assert_eq!(empty.json(), json!({"revision": before + 1, "results": []}));
}

#[tokio::test]
async fn a_batch_fails_whole_and_names_the_operation() {
    let plane = Plane::new().await;
    let (main, fast) = plane.standard().await;
    let good = json!({"op": "create", "kind": "cache_policies", "value": {"name": "p"}});
    let (rows, revision) = (plane.store.rows(), plane.store.revision());
    for (bad, status, text, path) in [
        (
            json!({"op": "delete", "kind": "models", "id": "nothing"}),
            StatusCode::NOT_FOUND,
            "operations[1]: resource not found",
            None,
        ),
        (
            json!({"op": "patch", "kind": "models", "id": fast, "value": {"timeout": "x"}}),
            StatusCode::BAD_REQUEST,
            "operations[1]: schema validation failed at `/timeout`",
            Some("/operations/1/value/timeout"),
        ),
        (
            json!({"op": "create", "kind": "models", "value": model("m", "nowhere")}),
            StatusCode::BAD_REQUEST,
            "operations[1]: ",
            Some("/operations/1/value/provider_key_id"),
        ),
        (
            json!({"op": "create", "kind": "cache_policies", "value": {"name": "p"}}),
            StatusCode::CONFLICT,
            "name \"p\" already in use by another resource",
            None,
        ),
        (
            json!({"op": "create", "kind": "models", "id": fast, "value": model("m", &main)}),
            StatusCode::CONFLICT,
            "operations[1]: ",
            None,
        ),
        (
            json!({"op": "delete", "kind": "provider_keys", "id": main}),
            StatusCode::CONFLICT,
            "operations[1]: \"main\" is referenced by model \"fast\" (provider_key_id)",
            None,
        ),
        (
            json!({"op": "delete", "kind": "models", "id": fast, "if_match": 999}),
            StatusCode::PRECONDITION_FAILED,
            "operations[1]: the resource was changed meanwhile",
            None,
        ),
    ] {
        let answer = plane.post("batch", &json!({"operations": [good, bad]})).await;
        assert_eq!(answer.status, status, "{bad}: {answer:?}");
        let body = answer.json();
        assert!(body["error_msg"].as_str().unwrap().contains(text), "{bad}: {body}");
        assert_eq!(body["errors"][0]["path"].as_str(), path, "{bad}: {body}");
        assert_eq!((plane.store.rows(), plane.store.revision()), (rows.clone(), revision), "{bad}");
    }
}

#[tokio::test]
async fn the_shape_of_a_batch_is_checked() {
    let plane = Plane::new().await;
    for (operation, path, message) in [
        (json!(5), "/operations/0", "must be an object"),
        (json!({"kind": "models", "id": "x"}), "/operations/0", "`op` is missing"),
        (json!({"op": "upsert", "kind": "models"}), "/operations/0/op", "must be \"create\""),
        (json!({"op": "delete", "kind": "no", "id": "x"}), "/operations/0/kind", "must be a collection"),
        (json!({"op": "delete", "kind": "models"}), "/operations/0", "`id` is missing"),
        (json!({"op": "delete", "kind": "models", "id": 5}), "/operations/0/id", "must be a string"),
        (
            json!({"op": "delete", "kind": "models", "id": "x", "value": {}}),
            "/operations/0",
            "`value` is not known",
        ),
        (json!({"op": "patch", "kind": "models", "id": "x"}), "/operations/0", "`value` is missing"),
        (
            json!({"op": "patch", "kind": "models", "id": "x", "value": 5}),
            "/operations/0/value",
            "must be an object",
        ),
        (
            json!({"op": "delete", "kind": "models", "id": "x", "if_match": "1"}),
            "/operations/0/if_match",
            "must be a whole number",
        ),
        (
            json!({"op": "create", "kind": "cache_policies", "value": {"name": "x"}, "if_match": 1}),
            "/operations/0",
            "`if_match` is not known",
        ),
        (
            json!({"op": "create", "kind": "models", "id": "status", "value": {}}),
            "/operations/0/id",
            "is reserved",
        ),
        (
            json!({"op": "create", "kind": "models", "id": "..", "value": {}}),
            "/operations/0/id",
            "must be 1 to 128",
        ),
        (
            json!({"op": "create", "kind": "models", "id": "a/b", "value": {}}),
            "/operations/0/id",
            "must be 1 to 128",
        ),
        (
            json!({"op": "create", "kind": "models", "id": "", "value": {}}),
            "/operations/0/id",
            "must be 1 to 128",
        ),
        (
            json!({"op": "create", "kind": "models", "id": null, "value": {}}),
            "/operations/0/id",
            "must be a string",
        ),
    ] {
        let answer = plane.post("batch", &json!({"operations": [operation]})).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{operation}");
        let error = &answer.json()["errors"][0];
        assert_eq!(error["path"], path, "{operation}");
        assert!(error["message"].as_str().unwrap().contains(message), "{operation}: {error}");
    }
    for body in [json!({}), json!({"operations": {}}), json!([]), json!({"operations": [], "x": 1})] {
        assert_eq!(plane.post("batch", &body).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
    let long =
        json!({"op": "create", "kind": "cache_policies", "id": "x".repeat(128), "value": {"name": "x"}});
    assert_eq!(plane.post("batch", &json!({"operations": [long]})).await.status, StatusCode::OK);
    let longer =
        json!({"op": "create", "kind": "cache_policies", "id": "x".repeat(129), "value": {"name": "y"}});
    assert_eq!(plane.post("batch", &json!({"operations": [longer]})).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_configuration_is_applied() {
    let plane = Plane::new().await;
    let (main, fast) = plane.standard().await;
    let mut other = key("main");
    other["api_key"] = json!("sk-SECRET-new");
    let documents = json!({"documents": [
        {"kind": "provider_keys", "id": "a", "value": other},
        {"kind": "models", "id": "b", "value": model("slow", "a")},
    ]});
    let dry = plane.post("apply?dry_run=true", &documents).await;
    assert_eq!(dry.status, StatusCode::OK, "{dry:?}");
    let before = plane.store.revision();
    let answer = plane.post("apply", &documents).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let mut body = answer.json();
    assert!(!answer.text().contains("SECRET"), "{body}");
    assert_eq!(body["revision"], before + 1);
    body.as_object_mut().unwrap().remove("revision");
    assert_eq!(body, dry.json());
    let actions: Vec<(&str, &str)> = body["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (change["action"].as_str().unwrap(), change["name"].as_str().unwrap()))
        .collect();
    assert_eq!(actions, [("change", "main"), ("remove", "fast"), ("add", "slow")]);
    let rows = plane.store.rows();
    assert_eq!(rows[&format!("provider_keys/{main}")]["api_key"], "sk-SECRET-new");
    assert_eq!(rows["models/b"]["provider_key_id"], main.as_str(), "references lead to what is there");
    assert!(!rows.contains_key(&format!("models/{fast}")));

    let same = plane.post("apply?prune=false", &json!({"documents": []})).await.json();
    assert_eq!(same, json!({"changes": [], "broken": [], "revision": before + 1}));
    assert_eq!(plane.store.revision(), before + 1);
    assert_eq!(plane.get("audit?limit=1").await.json()[0]["action"], "apply");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_is_not_applied() {
    let plane = Plane::new().await;
    let (main, fast) = plane.standard().await;
    let (rows, revision) = (plane.store.rows(), plane.store.revision());
    let kept = json!({"kind": "models", "id": fast, "value": model("fast", &main)});
    let dry = plane.post("apply?dry_run=true", &json!({"documents": [kept]})).await;
    assert_eq!((dry.status, &dry.json()["broken"][0]["target"]), (StatusCode::OK, &json!(main)));
    let broken = plane.post("apply", &json!({"documents": [kept]})).await;
    assert_eq!(broken.status, StatusCode::CONFLICT, "{broken:?}");
    let body = broken.json();
    assert_eq!(body["plan"]["broken"][0]["path"], "provider_key_id");
    let text = format!("nothing was applied: model \"fast\" references unknown provider key {main:?}");
    assert!(body["error_msg"].as_str().unwrap().starts_with(&text), "{body}");

    let mut bad = key("bad");
    bad["api_base"] = json!("SECRET");
    let bad = json!({"kind": "provider_keys", "id": "x", "value": bad});
    let good = json!({"kind": "cache_policies", "id": "y", "value": {"name": "n"}});
    let documents = json!({"documents": [good, bad]});
    let dry = plane.post("apply?prune=false&dry_run=true", &documents).await;
    let invalid = plane.post("apply?prune=false", &documents).await;
    assert_eq!(invalid.status, StatusCode::BAD_REQUEST, "{invalid:?}");
    assert_eq!((dry.status, dry.text()), (invalid.status, invalid.text()));
    let body = invalid.json();
    assert_eq!(body["errors"][0]["path"], "/documents/1/value/api_base");
    assert!(body["error_msg"].as_str().unwrap().starts_with("provider key \"bad\": "), "{body}");
    assert!(!invalid.text().contains("SECRET"));

    // What is wrong with the documents is told before where they lead.
    let both = json!({"documents": [kept, bad]});
    for query in ["", "?dry_run=true"] {
        let answer = plane.post(&format!("apply{query}"), &both).await;
        assert_eq!(answer.json()["errors"][0]["path"], "/documents/1/value/api_base", "{answer:?}");
    }

    for (documents, path) in [
        (json!([{"kind": "models", "id": "x"}]), "/documents/0"),
        (json!([{"kind": "no", "id": "x", "value": {}}]), "/documents/0/kind"),
        (json!([{"kind": "models", "id": "", "value": {}}]), "/documents/0/id"),
        (json!([{"kind": "models", "id": "a\u{0}", "value": {}}]), "/documents/0/id"),
        (json!([{"kind": "models", "id": "x", "value": []}]), "/documents/0/value"),
        (json!([{"kind": "models", "id": "x", "value": {}, "y": 1}]), "/documents/0"),
        (json!([{"kind": "api_keys", "id": "x", "value": {"allowed_models": []}}]), "/documents/0/value"),
        (json!([good, {"kind": "cache_policies", "id": "y", "value": {"name": "m"}}]), "/documents/1/id"),
        (json!([good, {"kind": "cache_policies", "id": "z", "value": {"name": "n"}}]), "/documents/1/value"),
    ] {
        let answer = plane.post("apply", &json!({ "documents": documents })).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{documents}: {answer:?}");
        assert_eq!(answer.json()["errors"][0]["path"], path, "{documents}");
    }
    assert_eq!((plane.store.rows(), plane.store.revision()), (rows, revision));
}
