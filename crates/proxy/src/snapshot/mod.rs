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

use aisix_config::{ApiKey, Model, ResourceSet, Rows, Stored};
use aisix_core::{Capture, Error, Glob, Reason};
use aisix_policy::identity::{Digest256, Entry, Key, KeyTable};
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
    pub(crate) id: Arc<str>,
    pub(crate) label: ModelId,
    /// Networks that may use it; `None` means all.
    pub(crate) allowed: Option<Vec<IpNet>>,
    /// What it stands for, or why requests cannot be answered.
    pub(crate) target: Result<Arc<Target>, Error>,
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

    fn upstream_model(&self, capture: Capture<'_>) -> String {
        self.target.as_ref().map(|target| target.upstream_model(capture)).unwrap_or_default()
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
    /// Unix seconds at which this configuration came into force.
    pub(crate) since: u64,
    models: Arc<Models>,
    /// What it was compiled from: whatever is still the same is taken over
    /// from here by the next one.
    resources: ResourceSet,
}

/// The models of a configuration.
struct Models {
    listing: Vec<Listed>,
    by_name: HashMap<String, Arc<ModelEntry>>,
    /// Most specific pattern first.
    wildcards: Vec<(Glob, Arc<ModelEntry>)>,
}

impl Snapshot {
    /// Resolves references, compiles patterns and connects models to their
    /// health and metric labels.
    pub fn compile(
        resources: &ResourceSet,
        telemetry: &Telemetry,
        health: &HealthTable,
        previous: Option<&Self>,
    ) -> Self {
        let unchanged = previous.filter(|previous| {
            previous.resources.models().same(resources.models())
                && previous.resources.provider_keys().same(resources.provider_keys())
        });
        let models = match unchanged {
            Some(previous) => Arc::clone(&previous.models),
            None => Arc::new(Models::compile(resources, telemetry, health, previous)),
        };
        Self {
            keys: keys(resources, telemetry, previous),
            since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs()),
            models,
            resources: resources.clone(),
        }
    }

    /// The rows of `GET /v1/models`.
    pub(crate) fn listing(&self) -> &[Listed] {
        &self.models.listing
    }

    /// Finds the model of a name: the exact one, else the most specific
    /// wildcard. Also gives the upstream model that the name stands for.
    pub(crate) fn resolve(&self, name: &str) -> Option<(&Arc<ModelEntry>, String)> {
        if let Some(entry) = self.models.by_name.get(name) {
            return Some((entry, entry.upstream_model(Capture::Exact)));
        }
        self.models.wildcards.iter().find_map(|(glob, entry)| {
            let capture = glob.capture(name)?;
            Some((entry, entry.upstream_model(capture)))
        })
    }
}

/// The caller keys: those of the previous configuration with what has changed.
fn keys(
    resources: &ResourceSet,
    telemetry: &Telemetry,
    previous: Option<&Snapshot>,
) -> KeyTable<CallerFacts> {
    let none = Rows::default();
    let (old, mut keys) = match previous {
        Some(previous) => (previous.resources.api_keys(), previous.keys.clone()),
        None => (&none, KeyTable::default()),
    };
    let (gone, new) = old.difference(resources.api_keys());
    for key in gone {
        let Some(digest) = parse_digest(&key.value.key_hash) else { continue };
        let caller = keys.with(&digest).find(|entry| entry.key.id == key.id).cloned();
        if let Some(caller) = caller {
            keys.remove(&caller);
        }
    }
    for key in new {
        if let Some(digest) = parse_digest(&key.value.key_hash) {
            keys.insert(&compile_key(key, digest, telemetry));
        }
    }
    keys
}

impl Models {
    fn compile(
        resources: &ResourceSet,
        telemetry: &Telemetry,
        health: &HealthTable,
        previous: Option<&Snapshot>,
    ) -> Self {
        let mut by_name: BTreeMap<&str, Arc<ModelEntry>> = BTreeMap::new();
        // Ordered by id: of two models with one name the lowest id wins.
        for model in resources.models().iter() {
            by_name.entry(&model.value.display_name).or_insert_with(|| {
                previous
                    .and_then(|previous| previous.entry_of(model, resources))
                    .unwrap_or_else(|| Arc::new(compile_model(model, resources, telemetry, health)))
            });
        }
        let targets = by_name.values().filter_map(|entry| entry.target.as_ref().ok());
        telemetry.set_deployments(targets.map(|target| (target.label, target.health.clone())).collect());
        health.retain(&resources.models().iter().map(|model| &*model.id).collect::<HashSet<_>>());

        let listing = by_name
            .iter()
            .filter(|(name, _)| !name.contains('*'))
            .map(|(name, entry)| Listed {
                id: (*name).to_owned(),
                owned_by: entry.target.as_ref().map_or("aisix", |target| &target.provider).to_owned(),
            })
            .collect();
        let mut wildcards: Vec<(Glob, Arc<ModelEntry>)> = by_name
            .iter()
            .filter(|(_, entry)| entry.target.is_ok())
            .map(|(name, entry)| (Glob::new(name), entry.clone()))
            .filter(|(glob, _)| glob.is_wildcard())
            .collect();
        wildcards
            .sort_by(|(a, x), (b, y)| b.literal_len().cmp(&a.literal_len()).then_with(|| x.id.cmp(&y.id)));
        let by_name = by_name.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect();
        Self { listing, by_name, wildcards }
    }
}

impl Snapshot {
    /// The entry of a model, if nothing that it was made of has changed.
    fn entry_of(&self, model: &Arc<Stored<Model>>, resources: &ResourceSet) -> Option<Arc<ModelEntry>> {
        let same =
            |id: &str| match (self.resources.provider_keys().get(id), resources.provider_keys().get(id)) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => true,
                _ => false,
            };
        let old = self.resources.models().get(&model.id)?;
        if !Arc::ptr_eq(old, model) || !model.value.direct().is_none_or(|direct| same(direct.provider_key_id))
        {
            return None;
        }
        let entry = self.models.by_name.get(&model.value.display_name)?;
        (entry.id == model.id).then(|| entry.clone())
    }
}

fn compile_model(
    model: &Stored<Model>,
    resources: &ResourceSet,
    telemetry: &Telemetry,
    health: &HealthTable,
) -> ModelEntry {
    let value = &model.value;
    let target = match value.direct() {
        Some(direct) => {
            let key = resources.provider_keys().get(direct.provider_key_id);
            let key = key.map(|key| &**key);
            Ok(Arc::new(Target::compile(model, direct, key, telemetry, health)))
        }
        None => {
            let text = format!(
                "model \"{}\" is of the kind `{}`, which is not served yet",
                value.display_name,
                value.shape()
            );
            Err(Error::new(Reason::ProviderUnavailable, text))
        }
    };
    ModelEntry {
        id: model.id.clone(),
        label: telemetry.model(&value.display_name),
        allowed: value.allowed_cidrs.clone(),
        target,
    }
}

fn compile_key(stored: &Stored<ApiKey>, digest: Digest256, telemetry: &Telemetry) -> Caller {
    let key = &stored.value;
    let label = telemetry.caller(CallerLabels {
        api_key_id: &stored.id,
        team_id: key.team_id.as_deref(),
        user_id: key.user_id.as_deref(),
        user_name: key.user_name.as_deref(),
    });
    Arc::new(Entry {
        key: Key {
            id: stored.id.clone(),
            digest,
            previous: key
                .previous_key_hash
                .as_deref()
                .and_then(parse_digest)
                .zip(key.previous_key_expires_at),
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
    })
}

/// A stored key may hold anything as its hash: what is not exactly 64
/// lower-case hexadecimal digits matches no secret.
fn parse_digest(hex: &str) -> Option<Digest256> {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if hex.len() != 64 || !hex.as_bytes().iter().all(digit) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use aisix_policy::identity::digest;

    use super::*;

    #[test]
    fn only_the_exact_form_of_a_hash_is_one() {
        let expected = digest("sk-1");
        let hex: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(parse_digest(&hex), Some(expected));
        let odd = [hex.to_uppercase(), hex[1..].into(), format!("{hex}0"), format!(" {}", &hex[1..])];
        for odd in odd.into_iter().chain([String::new(), format!("+{}", &hex[1..]), "é".repeat(32)]) {
            assert_eq!(parse_digest(&odd), None, "{odd}");
        }
    }
}
