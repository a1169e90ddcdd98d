//! The admin API of a gateway, as an operator's program uses it.

use crate::client::{Client, Error, Reply, Request};
use hyper::header::HeaderMap;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// One admin key on one admin listener.
#[derive(Clone)]
pub struct Admin {
    client: Client,
    key: String,
    if_match: Option<String>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub text: String,
    asked: String,
}

impl Admin {
    /// Paths are relative to `/admin/v1/` and may carry a query.
    pub fn new(addr: SocketAddr, key: &str) -> Self {
        Self { client: Client::new(addr), key: key.to_owned(), if_match: None }
    }

    /// The same listener with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// The same, sending `If-Match: "<revision>"`.
    pub fn if_match(&self, revision: u64) -> Self {
        self.if_match_raw(&format!("\"{revision}\""))
    }

    /// The same, sending this `If-Match`.
    pub fn if_match_raw(&self, value: &str) -> Self {
        Self { if_match: Some(value.to_owned()), ..self.clone() }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, Some(body)).await
    }

    /// PUT with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, Some(body)).await
    }

    /// PATCH with a JSON merge patch.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.call("PATCH", path, Some(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, None).await
    }

    /// POST to `batch`.
    pub async fn batch(&self, operations: Value) -> Answer {
        self.post("batch", &json!({"operations": operations})).await
    }

    /// Creates an entry and returns its id.
    pub async fn create(&self, kind: &str, document: &Value) -> String {
        self.post(kind, document).await.expect(201)["id"].as_str().expect("an id").to_owned()
    }

    /// The entries of a collection.
    pub async fn list(&self, kind: &str) -> Vec<Value> {
        let body = self.get(kind).await.expect(200);
        body.as_array().unwrap_or_else(|| panic!("not a bare array: {body}")).clone()
    }

    /// The entry whose identity is `name`, by the name filter.
    pub async fn named(&self, kind: &str, name: &str) -> Option<Value> {
        let mut found = self.list(&format!("{kind}?name={}", percent(name))).await;
        assert!(found.len() <= 1, "several entries are called {name:?}: {found:?}");
        found.pop()
    }

    /// The same; a refused or broken connection is an error.
    pub async fn try_send(&self, request: Request) -> Result<Reply, Error> {
        let mut request = request.bearer(&self.key);
        if let Some(value) = &self.if_match {
            request = request.header("if-match", value);
        }
        self.client.try_send(request).await
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut request = Request::new(method, &format!("/admin/v1/{path}"));
        if let Some(body) = body {
            let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            request = request.header("content-type", kind).body(body.to_string());
        }
        self.send(request).await
    }

    /// Sends any request (with the whole path), adding the key and `If-Match`.
    pub async fn send(&self, request: Request) -> Answer {
        let asked = format!("{} {}", request.method(), request.path());
        let mut reply = match self.try_send(request).await {
            Ok(reply) => reply,
            Err(error) => panic!("{asked}: no reply: {error:?}"),
        };
        let text = reply.text().await;
        Answer { status: reply.status, headers: reply.headers, text, asked }
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.text);
        parsed
            .unwrap_or_else(|e| panic!("{}: {} is not JSON ({e}): {:?}", self.asked, self.status, self.text))
    }

    /// The body, when the status is this one.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.text);
        self.json()
    }

    /// The `error_msg`, when the status is this one.
    #[track_caller]
    pub fn refused(&self, status: u16) -> String {
        let body = self.expect(status);
        let message = body["error_msg"].as_str().filter(|text| !text.is_empty());
        message.unwrap_or_else(|| panic!("{}: no error_msg in {body}", self.asked)).to_owned()
    }

    /// The paths of a 400's `errors`.
    #[track_caller]
    pub fn error_paths(&self) -> Vec<String> {
        self.refused(400);
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|e| e["path"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// First value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The `revision` of an entry, which the `ETag` must repeat.
    #[track_caller]
    pub fn revision(&self) -> u64 {
        let revision = self.json()["revision"].as_u64();
        let revision = revision.unwrap_or_else(|| panic!("{}: no revision in {}", self.asked, self.text));
        let tag = format!("\"{revision}\"");
        assert_eq!(self.header("etag"), Some(tag.as_str()), "{}: {:?}", self.asked, self.headers);
        revision
    }
}

/// Percent-encodes everything that is not unreserved.
pub fn percent(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}
