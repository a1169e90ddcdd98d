//! The resources file: read, parse, interpolate, expand, check, type.
//!
//! A file is taken as a whole or not at all, and all its problems are
//! reported together.

mod entry;
mod interpolate;
mod report;

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::resource::{ApiKey, Kind, Model, ProviderKey, ResourceSet};
use crate::tree::{Data, Document, Node, Origin, parse_yaml};

use entry::Collection;
pub use report::ResourceErrors;
pub(crate) use report::{ErrorKind, Rejection};

/// Every collection that a file may hold.
pub(crate) const COLLECTIONS: [&str; 13] = [
    "provider_keys",
    "models",
    "api_keys",
    "guardrails",
    "mcp_servers",
    "a2a_agents",
    "cache_policies",
    "observability_exporters",
    "rate_limit_policies",
    "oidc_providers",
    "claim_mappings",
    "passthrough_routes",
    "mcp_auth_settings",
];

/// The collections that are built.
const BUILT: [&str; 3] = [ProviderKey::NAME, Model::NAME, ApiKey::NAME];

const VERSION_KEY: &str = "_format_version";
const VERSION: &str = "1";

/// A variable of the environment, if it is set.
pub(crate) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// A file that is in order.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it holds, as revision 1.
    pub set: ResourceSet,
    /// SHA-256 of its bytes, hexadecimal.
    pub hash: String,
    /// How many resources it holds.
    pub count: usize,
}

/// Loads a file. `env` answers for `${VAR}` and `key_env`.
pub fn load_resources(path: &Path, env: Env<'_>) -> Result<Loaded, ResourceErrors> {
    let bytes = std::fs::read(path).map_err(|error| ResourceErrors::unreadable(path, &error))?;
    let hash = hex(&Sha256::digest(&bytes));
    match load_bytes(&bytes, env) {
        Ok(set) => Ok(Loaded { count: set.len(), set, hash }),
        Err(rejections) => Err(ResourceErrors::rejected(path, hash, rejections)),
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn load_bytes(bytes: &[u8], env: Env<'_>) -> Result<ResourceSet, Vec<Rejection>> {
    let root = parse(bytes).map_err(|(kind, message)| vec![Rejection::file(kind, message)])?;
    let Data::Map(members) = root.data else {
        let message = "top level must be a mapping".to_owned();
        return Err(vec![Rejection::file(ErrorKind::Schema, message)]);
    };
    let mut rejections = Vec::new();
    let mut raw = top_level(members, &mut rejections);
    let mut keys = Collection::<ProviderKey>::open(raw.remove(0), env);
    let mut models = Collection::<Model>::open(raw.remove(0), env);
    let mut callers = Collection::<ApiKey>::open(raw.remove(0), env);

    let key_names = keys.names();
    let model_names = models.names();
    for entry in &mut models.entries {
        entry.provider_key(&key_names);
    }
    for entry in &mut callers.entries {
        entry.key_env(env);
    }
    let provider_keys = keys.check(|_, _| {});
    let models_out = models.check(|_, _| {});
    let api_keys = callers.check(|entry, document| entry.known_models(document, &model_names));
    callers.unique_credentials();

    rejections.extend(keys.rejections());
    rejections.extend(models.rejections());
    rejections.extend(callers.rejections());
    if !rejections.is_empty() {
        return Err(rejections);
    }
    Ok(ResourceSet { revision: 1, provider_keys, models: models_out, api_keys })
}

fn parse(bytes: &[u8]) -> Result<Node, (ErrorKind, String)> {
    let syntax = |why: String| (ErrorKind::NonJson, format!("YAML parse error: {why}"));
    let schema = |why: String| (ErrorKind::Schema, why);
    let text = std::str::from_utf8(bytes)
        .map_err(|error| syntax(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let text = text.trim_start_matches('\u{feff}');
    match parse_yaml(text).map_err(|error| syntax(error.message))? {
        Document::One(node) if node.is_null() => Err(schema("file is empty".into())),
        Document::One(node) => Ok(node),
        Document::Empty => Err(schema("file is empty".into())),
        Document::Many(count) => Err(schema(format!("expected a single YAML document, found {count}"))),
    }
}

/// Checks what stands at the top; gives the entries of the built collections.
fn top_level(members: Vec<(String, Node)>, rejections: &mut Vec<Rejection>) -> Vec<Vec<Node>> {
    let mut add = |message: String, origin: &Origin| {
        rejections.push(Rejection::file(ErrorKind::Schema, format!("{message}{}", line_suffix(origin))));
    };
    let version = members.iter().find(|(name, _)| name == VERSION_KEY);
    match version.map(|(_, node)| (node, node.as_str())) {
        None => add(
            format!("missing mandatory {VERSION_KEY} (write `{VERSION_KEY}: \"{VERSION}\"`)"),
            &Origin::Unknown,
        ),
        Some((_, Some(VERSION))) => {}
        Some((node, Some(other))) => {
            add(format!("unrecognized {VERSION_KEY} {other:?} (supported: \"{VERSION}\")"), &node.origin)
        }
        Some((node, None)) => {
            add(format!("{VERSION_KEY} must be the string \"{VERSION}\" (quote it)"), &node.origin)
        }
    }
    let mut built: Vec<Vec<Node>> = BUILT.iter().map(|_| Vec::new()).collect();
    for (name, node) in members {
        let origin = node.origin.clone();
        if name == VERSION_KEY {
            continue;
        }
        if !COLLECTIONS.contains(&name.as_str()) {
            let known = COLLECTIONS.join(", ");
            let message = format!("unknown top-level key `{name}` (collections: {known})");
            add(message, &origin);
            continue;
        }
        match (node.data, BUILT.iter().position(|kind| *kind == name)) {
            (Data::Null, _) => {}
            (Data::Seq(items), Some(kind)) => built[kind] = items,
            (Data::Seq(items), None) if items.is_empty() => {}
            (Data::Seq(_), None) => add(format!("`{name}`: not supported yet"), &origin),
            _ => add(format!("`{name}` must be a sequence of maps"), &origin),
        }
    }
    built
}

/// ` (line N)` when the line is known.
fn line_suffix(origin: &Origin) -> String {
    match origin {
        Origin::Line(line) => format!(" (line {line})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
