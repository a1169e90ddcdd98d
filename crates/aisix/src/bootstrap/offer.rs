//! What a start can offer: a provider key and the model that goes over it.

use aisix_config::edit::{Operation, Request};
use aisix_core::Secret;
use anyhow::Result;
use serde_json::{Value, json};

use super::{kind, sha256};

/// An upstream that was found, or the built-in one.
pub(super) struct Offer {
    /// What the provider key is called, and the vendor label of the model.
    pub(super) name: &'static str,
    /// Where it was found; no secret.
    pub(super) origin: String,
    /// The vendor label of the provider key, which may decide the protocol.
    pub(super) label: &'static str,
    pub(super) api_base: Option<String>,
    pub(super) secret: Secret<String>,
    /// The name of the model.
    pub(super) model: String,
    /// The model at the upstream.
    pub(super) upstream: &'static str,
    /// A name that a caller can send.
    pub(super) example: String,
}

impl Offer {
    /// The built-in provider.
    pub(super) fn echo() -> Self {
        Self {
            name: "echo",
            origin: "nothing found, so the built-in provider answers".to_owned(),
            label: "echo",
            api_base: None,
            secret: Secret::new("unused".to_owned()),
            model: "echo".to_owned(),
            upstream: "echo",
            example: "echo".to_owned(),
        }
    }

    /// What makes it, with an id for the provider key.
    pub(super) fn requests(&self, id: &str) -> Result<[Request; 2]> {
        let mut key = json!({
            "display_name": self.name, "provider": self.label, "api_key": self.secret.expose(),
        });
        if let Some(base) = &self.api_base {
            key["api_base"] = json!(base);
            if self.label != "openai" {
                key["adapter"] = json!("openai");
            }
        }
        let model = json!({
            "display_name": self.model, "provider": self.name, "model_name": self.upstream, "provider_key_id": id,
        });
        let create = |kind, id, value| Request::from(Operation::Create { kind, id, value });
        Ok([create(kind("provider_keys")?, Some(id.to_owned()), key), create(kind("models")?, None, model)])
    }

    /// What brings an earlier provider key up to date.
    pub(super) fn patch(&self) -> Value {
        json!({"api_base": self.api_base, "api_key": self.secret.expose()})
    }

    /// Stands for what comes from the environment.
    pub(super) fn digest(&self) -> String {
        digest(self.api_base.as_deref(), self.secret.expose())
    }
}

/// The same of a stored provider key.
pub(super) fn digest_of(document: &[u8]) -> String {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    digest(document["api_base"].as_str(), document["api_key"].as_str().unwrap_or_default())
}

fn digest(api_base: Option<&str>, secret: &str) -> String {
    // A space is in neither.
    sha256(&format!("{} {secret}", api_base.unwrap_or_default()))
}
