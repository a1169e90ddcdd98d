//! Secrets that are made here, and secrets that come back masked.

use serde_json::Value;

use crate::resource::ResourceKind;

/// What a secret looks like to those who read.
const MASK: &str = "***";

/// A new caller secret: 128 random bits.
pub(super) fn generate() -> String {
    format!("sk-{}", uuid::Uuid::new_v4().simple())
}

/// Puts stored secrets in the place of `***`.
pub(super) fn unmask(kind: &ResourceKind, value: &mut Value, stored: &Value) {
    fill(value, stored, &kind.masked(stored));
}

fn fill(value: &mut Value, stored: &Value, masked: &Value) {
    match value {
        Value::String(text) if text == MASK && masked.as_str() == Some(MASK) => *value = stored.clone(),
        Value::Object(members) => {
            for (name, value) in members {
                fill(value, &stored[name.as_str()], &masked[name.as_str()]);
            }
        }
        // In a list of another length nobody can tell which is which.
        Value::Array(items) if stored.as_array().is_some_and(|stored| stored.len() == items.len()) => {
            for (at, value) in items.iter_mut().enumerate() {
                fill(value, &stored[at], &masked[at]);
            }
        }
        _ => {}
    }
}

/// The JSON pointers of secrets that are `***` still.
pub(super) fn masked_secrets(kind: &ResourceKind, document: &Value) -> Vec<String> {
    // Other fields may hold this very text, so look at which places masking changes.
    let mut probe = document.clone();
    replace(&mut probe);
    let masked = kind.masked(&probe);
    let mut found = Vec::new();
    compare(&probe, &masked, document, "", &mut found);
    found
}

fn replace(value: &mut Value) {
    match value {
        Value::String(text) if text == MASK => *text = "?".into(),
        Value::Array(items) => items.iter_mut().for_each(replace),
        Value::Object(members) => members.values_mut().for_each(replace),
        _ => {}
    }
}

fn compare(probe: &Value, masked: &Value, document: &Value, path: &str, found: &mut Vec<String>) {
    match (probe, document) {
        (Value::String(_), Value::String(text)) if text == MASK && probe != masked => found.push(path.into()),
        (Value::Object(members), _) => {
            for (name, value) in members {
                let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
                compare(value, &masked[name.as_str()], &document[name.as_str()], &path, found);
            }
        }
        (Value::Array(items), _) => {
            for (at, value) in items.iter().enumerate() {
                compare(value, &masked[at], &document[at], &format!("{path}/{at}"), found);
            }
        }
        _ => {}
    }
}
