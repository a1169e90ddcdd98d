//! Gateways that keep their configuration in a store.

use aisix_testkit::gateway::builder::CALLER_KEY;
use aisix_testkit::{Admin, Answer, Gateway, Request};
use serde_json::{Value, json};

/// A gateway on a fresh embedded store, with the standard admin key.
pub async fn embedded() -> (Gateway, Admin) {
    let gateway = Gateway::builder().embedded().start().await;
    let admin = gateway.admin_api();
    (gateway, admin)
}

/// A provider key, a model and a caller key with the secret [`CALLER_KEY`]; returns the ids of the first two.
pub async fn standard(admin: &Admin, base: &str, secret: &str, model: &str) -> (String, String) {
    let key = crate::documents::openai_key(&format!("key-of-{model}"), base, secret);
    let key = admin.create("provider_keys", &key).await;
    let model = admin.create("models", &crate::documents::direct(model, &key)).await;
    let caller = crate::documents::caller("standard-caller", CALLER_KEY);
    let answer = admin.post("api_keys", &caller).await;
    assert!([201, 409].contains(&answer.status), "{answer:?}");
    (key, model)
}

/// A chat request to a model.
pub fn ask(model: &str, secret: &str) -> Request {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hello there"}]});
    Request::post("/v1/chat/completions", &body).bearer(secret)
}

/// The status of a chat request to a model.
pub async fn status_of(gateway: &Gateway, model: &str, secret: &str) -> u16 {
    gateway.send(ask(model, secret)).await.status
}

/// The model names that a caller sees, in order.
pub async fn visible(gateway: &Gateway, secret: &str) -> Vec<String> {
    let mut reply = gateway.send(Request::get("/v1/models").bearer(secret)).await;
    let body = reply.json().await;
    assert_eq!(reply.status, 200, "{body}");
    let models = body["data"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> =
        models.iter().map(|m| m["id"].as_str().unwrap_or_default().to_owned()).collect();
    names.sort();
    names
}

/// Everything a gateway shows to operators and strangers, as one text: log, stdout, status, scrape and the lists of all kinds.
pub async fn everything_shown(gateway: &Gateway, admin: &Admin) -> String {
    let mut shown = vec![gateway.log().join("\n"), gateway.stdout().join("\n")];
    for path in ["/status/config", "/status/models", "/metrics"] {
        shown.push(gateway.status_get(path).await.text().await);
    }
    for kind in crate::documents::KINDS {
        shown.push(admin.get(kind).await.text);
    }
    for path in ["audit", "export", "health", "revisions"] {
        shown.push(admin.get(path).await.text);
    }
    shown.join("\n----\n")
}

/// Checks a 409 because of dependants, and returns them.
pub fn dependants(answer: &Answer) -> Vec<Value> {
    answer.refused(409);
    let body = answer.json();
    let list = body["dependants"].as_array().cloned().unwrap_or_default();
    assert!(!list.is_empty(), "no dependants in {body}");
    for dependant in &list {
        for member in ["kind", "id", "field"] {
            assert!(dependant[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {body}");
        }
    }
    list
}
