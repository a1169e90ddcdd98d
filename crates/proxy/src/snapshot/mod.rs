//! Configuration compiled for the request path: immutable, pinned once per
//! request.

mod headers;
mod target;

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aisix_config::{ApiKey, Model, ResourceSet, Stored};
use aisix_core::{Capture, Glob};
use aisix_policy::identity::{Entry, Key, KeyTable};
use aisix_telemetry::{CallerId, CallerLabels, HealthTable, ModelId, Telemetry};
use foldhash::HashMap;
use ipnet::IpNet;

pub(crate) use target::{Destination, Prepared, Target};

/// What is kept beside a caller's key.
#[derive(Debug)]
pub(crate) struct CallerFacts {
    pub(crate) label: CallerId,
    pub(crate) name: Option<String>,
    pub(crate) team_id: Option<String>,
    pub(crate) user_id: Option<String>,
}

/// An authenticated caller.
pub(crate) type Caller = Arc<Entry<CallerFacts>>;

/// A model that callers can name.
pub(crate) struct ModelEntry {
    pub(crate) label: ModelId,
    /// Networks that may use it; `None` means all.
    pub(crate) allowed: Option<Vec<IpNet>>,
    pub(crate) target: Arc<Target>,
}

impl ModelEntry {
    /// Whether a client at the address may use the model. An unknown address
    /// is outside every list.
    pub(crate) fn admits(&self, client: Option<IpAddr>) -> bool {
        match &self.allowed {
            None => true,
            Some(nets) => client.is_some_and(|ip| nets.iter().any(|net| net.contains(&ip))),
        }
    }
}

/// A row of `GET /v1/models`.
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) owned_by: String,
}

/// A configuration in force.
pub struct Snapshot {
    pub(crate) keys: KeyTable<CallerFacts>,
    pub(crate) listing: Vec<Listed>,
    /// Unix seconds at which this configuration came into force.
    pub(crate) since: u64,
    models: HashMap<String, Arc<ModelEntry>>,
    /// Most specific pattern first.
    wildcards: Vec<(Glob, Arc<ModelEntry>)>,
}

impl Snapshot {
    /// Resolves references, compiles patterns and connects models to their
    /// health and metric labels.
    pub fn compile(resources: &ResourceSet, telemetry: &Telemetry, health: &HealthTable) -> Self {
        let mut stored: Vec<&Stored<Model>> = resources.models.iter().collect();
        // Of two models with one name the lowest id wins.
        stored.sort_by(|a, b| a.id.cmp(&b.id));
        let mut by_name: BTreeMap<&str, Arc<ModelEntry>> = BTreeMap::new();
        let mut deployments = Vec::new();
        for model in &stored {
            by_name.entry(&model.value.display_name).or_insert_with(|| {
                let target = Target::compile(model, &resources.provider_keys, telemetry, health);
                deployments.push((target.label, target.health.clone()));
                Arc::new(ModelEntry {
                    label: telemetry.model(&model.value.display_name),
                    allowed: (!model.value.allowed_cidrs.is_empty())
                        .then(|| model.value.allowed_cidrs.clone()),
                    target: Arc::new(target),
                })
            });
        }
        telemetry.set_deployments(deployments);
        let ids: HashSet<&str> = stored.iter().map(|model| &*model.id).collect();
        health.retain(&ids);

        let listing = by_name
            .iter()
            .filter(|(name, _)| !name.contains('*'))
            .map(|(name, entry)| Listed {
                id: (*name).to_owned(),
                owned_by: entry.target.provider.to_string(),
            })
            .collect();
        let mut wildcards: Vec<(Glob, Arc<ModelEntry>)> = by_name
            .iter()
            .map(|(name, entry)| (Glob::new(name), entry.clone()))
            .filter(|(glob, _)| glob.is_wildcard())
            .collect();
        wildcards.sort_by(|(a, x), (b, y)| {
            b.literal_len().cmp(&a.literal_len()).then_with(|| x.target.id.cmp(&y.target.id))
        });
        Self {
            keys: KeyTable::new(resources.api_keys.iter().map(|key| compile_key(key, telemetry))),
            listing,
            since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs()),
            models: by_name.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect(),
            wildcards,
        }
    }

    /// Finds the model of a name: the exact one, else the most specific
    /// wildcard. Also gives the upstream model that the name stands for.
    pub(crate) fn resolve(&self, name: &str) -> Option<(&Arc<ModelEntry>, String)> {
        if let Some(entry) = self.models.get(name) {
            return Some((entry, entry.target.upstream_model(Capture::Exact)));
        }
        self.wildcards.iter().find_map(|(glob, entry)| {
            let capture = glob.capture(name)?;
            Some((entry, entry.target.upstream_model(capture)))
        })
    }
}

fn compile_key(stored: &Stored<ApiKey>, telemetry: &Telemetry) -> Entry<CallerFacts> {
    let key = &stored.value;
    let label = telemetry.caller(CallerLabels {
        api_key_id: &stored.id,
        team_id: key.team_id.as_deref(),
        user_id: key.user_id.as_deref(),
        user_name: key.user_name.as_deref(),
    });
    Entry {
        key: Key {
            id: stored.id.clone(),
            digest: parse_digest(&key.key_hash),
            allowed_models: key.allowed_models.iter().map(|pattern| Glob::new(pattern)).collect(),
            expires_at: key.expires_at,
            disabled: key.disabled,
        },
        extra: CallerFacts {
            label,
            name: key.display_name.clone(),
            team_id: key.team_id.clone(),
            user_id: key.user_id.clone(),
        },
    }
}

/// Validation admits 64 hexadecimal digits only; anything else matches no secret.
fn parse_digest(hex: &str) -> [u8; 32] {
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = hex.get(at * 2..at * 2 + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0);
    }
    digest
}
