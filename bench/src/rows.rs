//! Configurations of any size: the pair that serves the load, and others that can be changed and
//! looked at from outside.

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::payload::{CALLER_KEY, CALLER_MODEL, UPSTREAM_MODEL};

/// The id of the model and of the caller key that serve the load.
pub(crate) const SERVED: &str = "served";
/// A model that nobody makes: a request for it tells only whether the caller's key is known.
const NO_MODEL: &str = "no-such-model";

/// How many resources there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Size {
    pub(crate) api_keys: usize,
    pub(crate) models: usize,
    pub(crate) provider_keys: usize,
}

impl Size {
    pub(crate) fn total(self) -> usize {
        self.api_keys + self.models + self.provider_keys
    }

    /// What `/status/config` must count.
    pub(crate) fn counts(self) -> Value {
        json!({"provider_keys": self.provider_keys, "models": self.models, "api_keys": self.api_keys})
    }
}

/// A resource: kind, id, document.
pub(crate) type Row = (&'static str, String, Value);

/// Every resource, those that others refer to first.
pub(crate) fn rows(size: Size, upstream: std::net::SocketAddr) -> Vec<Row> {
    let provider_keys = (0..size.provider_keys).map(|at| {
        let document = json!({
            "display_name": format!("upstream {at:03}"),
            "provider": "openai",
            "api_key": format!("sk-upstream-secret-{at:032}"),
            "api_base": format!("http://{upstream}/v1"),
        });
        ("provider_keys", provider_key_id(at), document)
    });
    let models = (0..size.models).map(|at| {
        let (id, name, upstream_model) = match at {
            0 => (SERVED.to_owned(), CALLER_MODEL.to_owned(), UPSTREAM_MODEL),
            _ => (model_id(at), model_name(at, 0), "gpt-4o-mini-2024-07-18"),
        };
        let document = json!({
            "display_name": name,
            "provider": "openai",
            "model_name": upstream_model,
            "provider_key_id": provider_key_id(at % size.provider_keys),
            "timeout": 60_000,
            "cost": {"input_per_1k": 0.00015, "output_per_1k": 0.0006},
        });
        ("models", id, document)
    });
    let api_keys = (0..size.api_keys).map(|at| {
        let (id, hash, allowed) = match at {
            0 => (SERVED.to_owned(), hash(CALLER_KEY), json!([CALLER_MODEL])),
            _ => (key_id(at), hash(&secret(at, 0)), json!([CALLER_MODEL, "model-*"])),
        };
        let document = json!({
            "display_name": format!("caller {at:05}"),
            "key_hash": hash,
            "allowed_models": allowed,
            "team_id": format!("team-{:02}", at % 40),
            "user_id": format!("user-{at:05}"),
        });
        ("api_keys", id, document)
    });
    provider_keys.chain(models).chain(api_keys).collect()
}

fn provider_key_id(at: usize) -> String {
    format!("upstream-{at:03}")
}

pub(crate) fn model_id(at: usize) -> String {
    format!("model-{at:04}")
}

pub(crate) fn key_id(at: usize) -> String {
    format!("key-{at:05}")
}

/// The name of a model after some changes.
pub(crate) fn model_name(at: usize, generation: u32) -> String {
    format!("model-{at:04}-{generation}")
}

/// The secret of a caller key after some changes.
pub(crate) fn secret(at: usize, generation: u32) -> String {
    format!("sk-bench-{at:05}-{generation:06}-0123456789abcdef")
}

/// As a caller key keeps its secret.
pub(crate) fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A request that never reaches an upstream: its status tells what the gateway knows.
pub(crate) fn question(model: Option<&str>) -> Value {
    json!({
        "model": model.unwrap_or(NO_MODEL),
        "messages": [{"role": "user", "content": "known?"}],
    })
}

/// The answer to a question about no model, with a key that is known, and with one that is not.
pub(crate) const KEY_KNOWN: u16 = 404;
pub(crate) const KEY_UNKNOWN: u16 = 401;
/// The answer to a question about a model that is there but not for the serving key.
pub(crate) const MODEL_KNOWN: u16 = 403;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_as_many_as_asked_for_and_all_differ() {
        let size = Size { api_keys: 300, models: 70, provider_keys: 9 };
        let rows = rows(size, "127.0.0.1:1".parse().expect("an address"));
        let ids: BTreeSet<(&str, &str)> = rows.iter().map(|(kind, id, _)| (*kind, id.as_str())).collect();
        assert_eq!((rows.len(), ids.len()), (379, size.total()));
        let hashes: BTreeSet<&str> =
            rows.iter().filter_map(|(_, _, document)| document["key_hash"].as_str()).collect();
        assert_eq!(hashes.len(), 300);
        assert!(hashes.iter().all(|hash| hash.len() == 64));
    }
}
