//! The resource kinds and the set of resources that is in force.
//!
//! A kind is one file: its field table, its typed form and the rules that a
//! table cannot say.

mod api_key;
mod model;
mod provider_key;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::schema::{Fields, Nulls, Problem, mask};
use crate::tree::Node;

pub use api_key::ApiKey;
pub use model::{Cooldown, Model};
pub use provider_key::{
    Adapter, KeyTls, ParamConstraints, ProviderKey, RequestOverrides, ResponseOverrides, StreamDoneMarker,
    TelemetryTags,
};

/// One resource as it is in force.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    /// The id: stable over reloads, restarts and machines.
    pub id: Arc<str>,
    /// The load generation of a file, or the revision of a store.
    pub revision: u64,
    /// The typed resource.
    pub value: T,
    /// The document as operators may see it: canonical field names, defaults
    /// written out, secrets replaced by `***`.
    pub document: Arc<Value>,
}

/// Everything that is in force at one moment.
#[derive(Clone, Debug, Default)]
pub struct ResourceSet {
    /// The load generation: 1 at boot, +1 with every successful reload.
    pub revision: u64,
    /// Upstream credentials and addresses.
    pub provider_keys: Vec<Stored<ProviderKey>>,
    /// Models that callers may name.
    pub models: Vec<Stored<Model>>,
    /// Caller keys.
    pub api_keys: Vec<Stored<ApiKey>>,
}

impl ResourceSet {
    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.provider_keys.len() + self.models.len() + self.api_keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives every resource the generation it was loaded in.
    pub(crate) fn set_revision(&mut self, revision: u64) {
        fn all<T>(rows: &mut [Stored<T>], revision: u64) {
            for row in rows {
                row.revision = revision;
            }
        }
        self.revision = revision;
        all(&mut self.provider_keys, revision);
        all(&mut self.models, revision);
        all(&mut self.api_keys, revision);
    }
}

/// What a kind is made of.
pub(crate) trait Kind: DeserializeOwned {
    /// The plural name: key in a file, path segment, label.
    const NAME: &'static str;
    /// What one entry is, in the reference.
    const TITLE: &'static str;
    const TABLE: Fields;
    const NULLS: Nulls;

    /// The rules that the table cannot say.
    fn rules(_node: &Node, _document: &Value, _problems: &mut Vec<Problem>) {}

    /// Types a document that has passed the check.
    fn store(identity: &str, mut document: Value) -> Result<Stored<Self>, serde_json::Error> {
        let value = serde_json::from_value(document.clone())?;
        mask(Self::TABLE, &mut document);
        Ok(Stored {
            id: derived_id(Self::NAME, identity).into(),
            revision: 1,
            value,
            document: Arc::new(document),
        })
    }
}

impl Kind for ProviderKey {
    const NAME: &'static str = "provider_keys";
    const TITLE: &'static str = "Upstream credentials and addresses.";
    const TABLE: Fields = provider_key::TABLE;
    const NULLS: Nulls = Nulls::Optional;

    fn rules(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
        provider_key::rules(node, document, problems);
    }
}

impl Kind for Model {
    const NAME: &'static str = "models";
    const TITLE: &'static str = "Models that callers may name.";
    const TABLE: Fields = model::TABLE;
    const NULLS: Nulls = Nulls::Never;

    fn rules(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
        model::rules(node, document, problems);
    }
}

impl Kind for ApiKey {
    const NAME: &'static str = "api_keys";
    const TITLE: &'static str = "Keys of callers.";
    const TABLE: Fields = api_key::TABLE;
    const NULLS: Nulls = Nulls::Optional;
}

const NAMESPACE: Uuid = Uuid::from_u128(0x63e5_0ab2_677a_54d3_8d1e_c0cb_29ce_ae94);

/// The id that a file entry gets: a UUIDv5 of its kind and identity.
pub(crate) fn derived_id(kind: &str, identity: &str) -> String {
    Uuid::new_v5(&NAMESPACE, format!("{kind}/{identity}").as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable() {
        assert_eq!(derived_id("models", "gpt-4o"), "6efd592d-a73b-573d-8e2c-e9e103692f92");
    }
}
