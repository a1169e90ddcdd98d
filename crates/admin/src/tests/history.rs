//! The audit log, the revisions and the way back, and the export.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::{
    ADMIN_KEY, EDITOR_KEY, Gateway, RESOURCES, call,
    plane::{CLIENT, Plane},
};

fn revisions_of(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|record| record["revision"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn every_write_leaves_a_record() {
    let plane = Plane::new().await;
    let (key, model) = plane.standard().await;
    plane.patch(&format!("models/{model}"), &json!({"timeout": 1})).await;
    plane.patch(&format!("provider_keys/{key}"), &json!({"api_key": "sk-SECRET-other"})).await;
    let request = Request::post("/admin/v1/cache_policies").header("content-type", "application/json");
    let request = request.body(Body::from(r#"{"name": "p"}"#)).unwrap();
    assert_eq!(plane.send(EDITOR_KEY, request).await.status, StatusCode::CREATED);
    plane.delete(&format!("models/{model}")).await;
    // What is refused leaves none.
    plane.post("models", &json!({})).await;

    let answer = plane.get("audit").await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(!answer.text().contains("SECRET"), "{answer:?}");
    let records = answer.json();
    assert_eq!(revisions_of(&records), [6, 5, 4, 3, 2, 1]);
    let actions: Vec<&str> =
        records.as_array().unwrap().iter().map(|record| record["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["delete", "create", "patch", "patch", "create", "create"]);
    assert_eq!((&records[0]["actor"], &records[0]["remote"]), (&json!("admin-1"), &json!(CLIENT)));
    assert_eq!(records[1]["actor"], "ed");
    let patched = &records[3]["changes"][0];
    assert_eq!(
        (&patched["kind"], &patched["id"], &patched["name"]),
        (&json!("models"), &json!(model), &json!("fast"))
    );
    assert_eq!(patched["before"].get("timeout").unwrap_or(&Value::Null), &Value::Null);
    assert_eq!(patched["after"]["timeout"], 1);
    assert!(records[0]["changes"][0].get("after").is_none());
    assert!(records[5]["changes"][0].get("before").is_none());
    assert_eq!(records[2]["changes"][0]["after"]["api_key"], "***");

    for (query, expected) in [
        ("kind=models", vec![6, 3, 2]),
        ("kind=apikeys", vec![]),
        (&*format!("id={key}"), vec![4, 1]),
        ("actor=ed", vec![5]),
        ("actor=nobody", vec![]),
        ("before=3", vec![2, 1]),
        ("kind=models&before=6&limit=1", vec![3]),
    ] {
        let answer = plane.get(&format!("audit?{query}")).await;
        assert_eq!(revisions_of(&answer.json()), expected, "{query}");
    }
    let mut seen = Vec::new();
    let mut next = "audit?kind=models&limit=2".to_owned();
    loop {
        let answer = plane.get(&next).await;
        seen.extend(revisions_of(&answer.json()));
        let Some(link) = answer.headers.get("link") else { break };
        let link = link.to_str().unwrap().strip_suffix(">; rel=\"next\"").unwrap();
        next = link.strip_prefix("</admin/v1/").unwrap().to_owned();
        assert!(next.contains("kind=models"), "{next}");
    }
    assert_eq!(seen, [6, 3, 2]);
}

#[tokio::test]
async fn a_revision_is_brought_back() {
    let plane = Plane::new().await;
    let (key, model) = plane.standard().await;
    let old = plane.store.rows();
    plane.patch(&format!("models/{model}"), &json!({"timeout": 1})).await;
    plane.create("cache_policies", &json!({"name": "p"})).await;
    plane.delete(&format!("models/{model}")).await;
    assert_eq!(revisions_of(&plane.get("revisions").await.json()), [5, 4, 3, 2, 1]);
    assert_eq!(revisions_of(&plane.get("revisions?limit=2&before=4").await.json()), [3, 2]);

    let answer = plane.post("rollback", &json!({"revision": 2})).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.json()["revision"], 6);
    assert_eq!(answer.json()["changes"].as_array().unwrap().len(), 2);
    assert_eq!(plane.store.rows(), old);
    assert_eq!(plane.get(&format!("provider_keys/{key}")).await.json()["revision"], 1);
    assert_eq!(plane.get("audit?limit=1").await.json()[0]["action"], "rollback");
    let nothing = plane.post("rollback", &json!({"revision": 6})).await;
    assert_eq!(nothing.json(), json!({"revision": 6, "changes": [], "broken": []}));

    let unknown = plane.post("rollback", &json!({"revision": 99})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.json(), json!({"error_msg": "the store does not keep revision 99"}));
    for (body, path) in [
        (json!({}), ""),
        (json!({"revision": -1}), "/revision"),
        (json!({"revision": "1"}), "/revision"),
        (json!({"revision": 1, "x": 1}), ""),
        (json!([]), ""),
    ] {
        let answer = plane.post("rollback", &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.json()["errors"][0]["path"], path, "{body}");
    }
}

#[tokio::test]
async fn everything_is_exported_without_secrets() {
    let plane = Plane::new().await;
    plane.standard().await;
    let answer = plane.get("export").await;
    assert_eq!(answer.header("content-type"), "application/yaml");
    assert!(answer.text().starts_with("---\n_format_version: "), "{}", answer.text());
    let shown = |text: &str| text.replace("AISIXSECRET_", "");
    assert!(answer.text().contains("${AISIXSECRET_"), "variables stand for secrets");
    assert!(answer.text().contains("fast") && !shown(answer.text()).contains("SECRET"), "{}", answer.text());
    // A gateway with a file tells the same way.
    let gateway = Gateway::new(RESOURCES);
    let answer = call(&gateway.admin, Method::GET, "/admin/v1/export", &[("x-api-key", ADMIN_KEY)]).await;
    assert!(answer.text().contains("display_name: fast"), "{}", answer.text());
    assert!(!shown(answer.text()).contains("SECRET"), "{}", answer.text());
}
