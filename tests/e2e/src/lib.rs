//! What the black-box suites in `tests/` share: the usual pair of upstream and gateway, and the shape of errors.

pub mod cluster;
pub mod documents;
pub mod stores;

use aisix_testkit::gateway::builder::MODEL;
use aisix_testkit::{FakeProvider, Gateway, GatewayBuilder, Response, SseFrame};
use serde_json::{Value, json};

/// A fake upstream and a builder for a gateway with the standard resources in front of it.
pub async fn pair() -> (FakeProvider, GatewayBuilder) {
    let upstream = FakeProvider::start().await;
    let builder = Gateway::builder().upstream(&upstream.base());
    (upstream, builder)
}

/// The same, started.
pub async fn started() -> (FakeProvider, Gateway) {
    let (upstream, builder) = pair().await;
    let gateway = builder.start().await;
    (upstream, gateway)
}

/// A chat body with one user message and whatever else is given.
pub fn chat_body(extra: Value) -> Value {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]});
    if let (Some(body), Value::Object(extra)) = (body.as_object_mut(), extra) {
        body.extend(extra);
    }
    body
}

/// Checks status, OpenAI envelope and the headers of every proxy reply, and returns the `error` object.
pub async fn expect_error(mut reply: Response, status: u16, kind: &str) -> Value {
    let text = reply.text().await;
    assert_eq!(reply.status, status, "body: {text}");
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
    let error = check_error_object(&body, kind);
    let content_type = reply.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("application/json"), "{content_type}");
    assert!(reply.header("x-aisix-request-id").is_some_and(|id| !id.is_empty()));
    assert!(reply.header("server").is_some_and(|s| s.starts_with("AISIX/")));
    error
}

/// Checks the OpenAI error object itself: string message and type, nothing null.
pub fn check_error_object(body: &Value, kind: &str) -> Value {
    let error = &body["error"];
    assert_eq!(error["type"], kind, "{body}");
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
    let members = error.as_object().into_iter().flatten();
    for (name, value) in members {
        assert!(!value.is_null(), "`{name}` is null in {body}");
    }
    error.clone()
}

/// The message of an error object.
pub fn message(error: &Value) -> &str {
    error["message"].as_str().unwrap_or_default()
}

/// Checks that these frames end in one error frame of the OpenAI dialect and hold no `[DONE]`; returns the `error` object.
pub fn expect_error_frame(frames: &[SseFrame]) -> Value {
    assert!(frames.iter().all(|frame| !frame.is_done()), "[DONE] after a failure: {frames:#?}");
    let last = frames.last().unwrap_or_else(|| panic!("no frame at all"));
    assert_eq!(last.event.as_deref(), Some("error"), "{frames:#?}");
    let errors = frames.iter().filter(|f| f.event.as_deref() == Some("error"));
    assert_eq!(errors.count(), 1, "{frames:#?}");
    let body = last.json();
    assert!(body["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
    assert!(body["error"]["type"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
    body["error"].clone()
}

/// The text of all content deltas of choice 0.
pub fn content_of(frames: &[SseFrame]) -> String {
    let data = frames.iter().filter(|frame| frame.event.is_none() && !frame.is_done());
    let deltas = data.map(|frame| frame.json()["choices"][0]["delta"]["content"].clone());
    deltas.filter_map(|content| content.as_str().map(str::to_owned)).collect()
}

/// Waits until no request is in flight any more.
pub async fn idle(gateway: &Gateway) {
    gateway.wait_metric("aisix_proxy_in_flight_requests", &[], 0.0).await;
}

/// The request id of a reply.
pub fn request_id(reply: &Response) -> String {
    let id = reply.header("x-aisix-request-id");
    id.expect("every proxy reply names its request id").to_owned()
}
