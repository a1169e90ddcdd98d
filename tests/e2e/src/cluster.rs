//! Configuration in etcd, as its writers see it.

use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL, PROVIDER_SECRET};
use aisix_testkit::{Etcd, FakeProvider, Gateway, GatewayBuilder};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The prefix of the tests, the default.
pub const PREFIX: &str = "/aisix";

/// A key and its value as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The whole key.
    pub key: String,
    /// The bytes.
    pub value: Vec<u8>,
    /// The revision of the last write.
    pub revision: u64,
}

impl Row {
    /// The value as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.value).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// `http://127.0.0.1:port`.
pub fn url(etcd: &Etcd) -> String {
    format!("http://{}", etcd.endpoint())
}

/// A gateway that reads [`PREFIX`] of an etcd.
pub fn on(etcd: &Etcd) -> GatewayBuilder {
    Gateway::builder().etcd(&[url(etcd)], PREFIX)
}

/// A running etcd with the standard resources, the upstream they name, and a ready gateway.
pub async fn started() -> (Etcd, FakeProvider, Gateway) {
    let (etcd, upstream) = seeded().await;
    let gateway = on(&etcd).start().await;
    (etcd, upstream, gateway)
}

/// The same without the gateway.
pub async fn seeded() -> (Etcd, FakeProvider) {
    let (etcd, upstream) = (Etcd::running().await, FakeProvider::start().await);
    seed(&etcd, PREFIX, &upstream.base()).await;
    (etcd, upstream)
}

/// Writes the standard provider key `main`, model `m` and caller key `caller`.
pub async fn seed(etcd: &Etcd, prefix: &str, base: &str) -> u64 {
    put(etcd, &format!("{prefix}/provider_keys/main"), &provider_key(base)).await;
    put(etcd, &format!("{prefix}/models/m"), &model(MODEL)).await;
    let caller = crate::documents::caller("caller", CALLER_KEY);
    put(etcd, &format!("{prefix}/api_keys/caller"), &caller).await
}

/// The standard provider key.
pub fn provider_key(base: &str) -> Value {
    crate::documents::openai_key("main", base, PROVIDER_SECRET)
}

/// A model on the standard provider key.
pub fn model(name: &str) -> Value {
    crate::documents::direct(name, "main")
}

/// Writes a document; the revision.
pub async fn put(etcd: &Etcd, key: &str, value: &Value) -> u64 {
    etcd.put(key, &value.to_string()).await
}

/// All rows whose key begins with a text, in order.
pub async fn rows(etcd: &Etcd, prefix: &str) -> Vec<Row> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix") += 1;
    let range = json!({"key": base64(prefix), "range_end": base64(end)});
    let answer = etcd.call("kv/range", &range).await;
    let text = |row: &Value, member: &str| {
        STANDARD.decode(row[member].as_str().unwrap_or_default()).expect("base64")
    };
    let rows = answer["kvs"].as_array().cloned().unwrap_or_default();
    let rows = rows.iter().map(|row| Row {
        key: String::from_utf8(text(row, "key")).expect("a key of text"),
        value: text(row, "value"),
        revision: row["mod_revision"].as_str().and_then(|r| r.parse().ok()).expect("a revision"),
    });
    rows.collect()
}

/// Base64 with padding, as the JSON gateway of etcd wants bytes.
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// The hash of rows as the contract defines it.
pub fn hash(rows: &[Row]) -> String {
    let mut digest = Sha256::new();
    for row in rows {
        digest.update(&row.key);
        digest.update([0]);
        match serde_json::from_slice::<Value>(&row.value) {
            Ok(value) => digest.update(sorted(&value).to_string()),
            Err(_) => digest.update(&row.value),
        }
        digest.update(b"\n");
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            let members = names.into_iter().map(|name| (name.clone(), sorted(&members[name])));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// The entry of `rejected` for a row.
pub fn rejection(status: &Value, kind: &str, id: &str) -> Option<Value> {
    let rejected = status["rejected"].as_array().cloned().unwrap_or_default();
    rejected.into_iter().find(|r| r["resource_kind"] == kind && r["resource_id"] == id)
}
