//! The component schemas of the resource kinds.

use aisix_config::{KINDS, ResourceKind, json_schema};
use serde_json::{Map, Value, json};

use super::schema_ref;
use crate::routes::CALLER_KEYS;

/// Component of the document of a caller key whose secret the server may make.
pub(super) const NEW_API_KEY: &str = "NewApiKey";
/// Component of the entry of a caller key whose secret the server has made.
pub(super) const CREATED_API_KEY: &str = "CreatedApiKeyEntry";

/// Component of the document of a kind.
pub(super) fn document_name(kind: &ResourceKind) -> String {
    let singular = match kind.name.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None if kind.name.ends_with("_settings") => kind.name.to_owned(),
        None => kind.name.trim_end_matches('s').to_owned(),
    };
    singular.split('_').map(capitalised).collect()
}

/// Component of an entry of a kind.
pub(super) fn entry_name(kind: &ResourceKind) -> String {
    let public = if kind.name == CALLER_KEYS { "Public" } else { "" };
    format!("{public}{}Entry", document_name(kind))
}

/// Component of the document that creates a resource.
pub(super) fn new_name(kind: &ResourceKind) -> String {
    if kind.name == CALLER_KEYS { NEW_API_KEY.to_owned() } else { document_name(kind) }
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_ascii_uppercase() + rest
}

/// Adds the components of every kind.
pub(super) fn add(schemas: &mut Map<String, Value>) {
    for kind in KINDS.iter().copied() {
        let name = document_name(kind);
        let mut schema = json_schema(kind);
        let inner = schema.as_object_mut().and_then(|schema| {
            schema.remove("$schema");
            schema.remove("$defs")
        });
        adapt(&mut schema, &name);
        if let Some(Value::Object(inner)) = inner {
            for (part, mut schema) in inner {
                adapt(&mut schema, &name);
                schemas.insert(part_name(&name, &part), schema);
            }
        }
        if kind.name == CALLER_KEYS {
            schemas.insert(NEW_API_KEY.to_owned(), without_hash(&schema));
            schemas.insert(CREATED_API_KEY.to_owned(), entry(kind, &name, true));
        }
        schemas.insert(entry_name(kind), entry(kind, &name, false));
        schemas.insert(name, schema);
    }
}

fn part_name(name: &str, part: &str) -> String {
    let part: String = part.split('_').map(capitalised).collect();
    format!("{name}{part}")
}

/// Leads references to where the parts are then. Secrets are read too, as
/// `***`, so they are not for writing only.
fn adapt(schema: &mut Value, name: &str) {
    match schema {
        Value::Object(members) => {
            if members.get("writeOnly").is_some_and(Value::is_boolean) {
                members.remove("writeOnly");
            }
            if let Some(Value::String(target)) = members.get_mut("$ref")
                && let Some(part) = target.strip_prefix("#/$defs/")
            {
                *target = format!("#/components/schemas/{}", part_name(name, part));
            }
            members.values_mut().for_each(|member| adapt(member, name));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| adapt(item, name)),
        _ => {}
    }
}

/// The server makes a secret, and its hash, where none is given.
fn without_hash(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|name| name != "key_hash");
    }
    if let Some(hash) = schema["properties"]["key_hash"].as_object_mut() {
        hash.insert("type".into(), json!(["string", "null"]));
    }
    schema["description"] = json!("A new caller key. Without `key_hash` the server makes the secret.");
    schema
}

fn entry(kind: &ResourceKind, document: &str, created: bool) -> Value {
    let mut properties = json!({
        "id": { "type": "string", "description": "Stable over changes, reloads and restarts." },
        "value": schema_ref(document),
        "revision": {
            "type": "integer", "minimum": 0,
            "description": "The revision of the store that wrote it. With a resources file: how many \
                            times it was loaded. 0: it is not stored, which a dry run may answer.",
        },
    });
    let mut about = format!(
        "A {} as it is in force. Documents that another program wrote into the store may be older than \
         the schema.",
        kind.title
    );
    if created {
        about = "A new caller key. Only a secret that the server made is shown, and only here.".to_owned();
        properties["plaintext"] =
            json!({ "type": "string", "pattern": "^sk-[0-9a-f]{32}$", "description": "The secret." });
    }
    json!({
        "type": "object",
        "description": about,
        "required": ["id", "value", "revision"],
        "properties": properties,
        "additionalProperties": false,
    })
}
