//! The resource kinds that the admin listener shows, one row each.

use std::borrow::Cow;

use aisix_config::{ResourceSet, Stored};
use serde::Serialize;
use serde_json::{Map, Value};

/// One resource as the admin listener shows it.
#[derive(Serialize)]
pub(crate) struct Entry<'a> {
    id: &'a str,
    value: Cow<'a, Value>,
    revision: u64,
}

/// The entries of a kind ordered by id, or only the one with the given id.
type Entries = for<'a> fn(&'a ResourceSet, Option<&str>) -> Vec<Entry<'a>>;

/// A resource kind.
pub(crate) struct Kind {
    /// The collection, as in the resources file.
    pub(crate) name: &'static str,
    /// Other spellings of the collection in paths.
    pub(crate) aliases: &'static [&'static str],
    /// One of them, in words.
    pub(crate) title: &'static str,
    /// Component schema of an entry.
    pub(crate) entry_schema: &'static str,
    /// Component schema of the document in an entry.
    pub(crate) value_schema: &'static str,
    /// Reads the entries.
    pub(crate) entries: Entries,
}

/// Every kind that has routes. A kind that this build does not load has no
/// entries: such a configuration is refused when it is read.
pub(crate) static KINDS: &[Kind] = &[
    Kind {
        name: "models",
        aliases: &[],
        title: "model",
        entry_schema: "ModelEntry",
        value_schema: "Model",
        entries: |set, id| entries(&set.models, id, whole),
    },
    Kind {
        name: "api_keys",
        aliases: &["apikeys"],
        title: "caller key",
        entry_schema: "PublicApiKeyEntry",
        value_schema: "PublicApiKey",
        entries: |set, id| entries(&set.api_keys, id, public_api_key),
    },
    Kind {
        name: "provider_keys",
        aliases: &[],
        title: "provider key",
        entry_schema: "ProviderKeyEntry",
        value_schema: "ProviderKey",
        entries: |set, id| entries(&set.provider_keys, id, whole),
    },
    not_loaded("guardrails", "guardrail", "GuardrailEntry", "Guardrail"),
    not_loaded("cache_policies", "cache policy", "CachePolicyEntry", "CachePolicy"),
    not_loaded("observability_exporters", "exporter", "ObservabilityExporterEntry", "ObservabilityExporter"),
    not_loaded("mcp_servers", "MCP server", "McpServerEntry", "McpServer"),
    not_loaded("a2a_agents", "A2A agent", "A2aAgentEntry", "A2aAgent"),
    not_loaded("passthrough_routes", "passthrough route", "PassthroughRouteEntry", "PassthroughRoute"),
];

const fn not_loaded(
    name: &'static str,
    title: &'static str,
    entry_schema: &'static str,
    value_schema: &'static str,
) -> Kind {
    Kind { name, aliases: &[], title, entry_schema, value_schema, entries: |_, _| Vec::new() }
}

fn entries<'a, T>(
    rows: &'a [Stored<T>],
    id: Option<&str>,
    show: fn(&'a Value) -> Cow<'a, Value>,
) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = rows
        .iter()
        .filter(|row| id.is_none_or(|id| *id == *row.id))
        .map(|row| Entry { id: &row.id, value: show(&row.document), revision: row.revision })
        .collect();
    entries.sort_unstable_by(|a, b| a.id.cmp(b.id));
    entries
}

/// The document as the configuration shows it: secrets are masked there.
fn whole(document: &Value) -> Cow<'_, Value> {
    Cow::Borrowed(document)
}

/// What is shown of a caller key; who it belongs to is not.
fn public_api_key(document: &Value) -> Cow<'_, Value> {
    const SHOWN: [&str; 6] =
        ["key_hash", "allowed_models", "rate_limit", "mcp_access", "allowed_agents", "expires_at"];
    let mut shown = Map::new();
    for name in SHOWN {
        if let Some(value) = document.get(name).filter(|value| !value.is_null()) {
            shown.insert(name.to_owned(), value.clone());
        }
    }
    if document.get("disabled") == Some(&Value::Bool(true)) {
        shown.insert("disabled".to_owned(), Value::Bool(true));
    }
    Cow::Owned(Value::Object(shown))
}
