//! Operator edits of request bodies, and edits of nested JSON that keep
//! everything else as it came.

use serde_json::value::RawValue;

use crate::document::{Document, encode_string};

/// Body overrides of a provider key, applied in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct BodyOverrides {
    /// Top-level keys to rename; the renamed value wins over an existing one.
    pub renames: Vec<(String, String)>,
    /// Upper bound of a numeric `temperature`.
    pub temperature_max: Option<f64>,
    /// Lower bound of a numeric `temperature`.
    pub temperature_min: Option<f64>,
    /// Top-level fields (raw JSON) that are added when absent.
    pub defaults: Vec<(String, String)>,
    /// Join the text parts of each message into one string.
    pub flatten_text_parts: bool,
}

impl BodyOverrides {
    /// Applies all overrides.
    pub fn apply(&self, body: &mut Document) {
        for (from, to) in &self.renames {
            body.rename(from, to);
        }
        self.clamp_temperature(body);
        for (name, raw) in &self.defaults {
            if body.get(name).is_none() {
                body.set(name, raw.clone());
            }
        }
        if self.flatten_text_parts
            && let Some(messages) = body.get("messages").and_then(flatten_text_parts)
        {
            body.set("messages", messages);
        }
    }

    fn clamp_temperature(&self, body: &mut Document) {
        let Some(given) = body.get("temperature").and_then(|raw| raw.parse::<f64>().ok()) else {
            return;
        };
        let upper = self.temperature_max.map_or(given, |max| given.min(max));
        let clamped = self.temperature_min.map_or(upper, |min| upper.max(min));
        if clamped != given {
            body.set("temperature", serde_json::Value::from(clamped).to_string());
        }
    }
}

/// Rewrites each object of a raw JSON array. `None` when nothing changed or the
/// text is not an array.
pub(crate) fn edit_array(raw: &str, mut edit: impl FnMut(&mut Document)) -> Option<String> {
    let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    let mut out = String::with_capacity(raw.len());
    let mut changed = false;
    out.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        let edited = Document::parse_text(item.get().to_owned()).ok().and_then(|mut document| {
            edit(&mut document);
            document.is_edited().then(|| document.into_text())
        });
        changed |= edited.is_some();
        out.push_str(edited.as_deref().unwrap_or(item.get()));
    }
    out.push(']');
    changed.then_some(out)
}

/// Rewrites an object field of a document in place.
pub(crate) fn edit_object(parent: &mut Document, name: &str, edit: impl FnOnce(&mut Document)) {
    let Some(Ok(mut child)) = parent.get(name).map(|raw| Document::parse_text(raw.to_owned())) else {
        return;
    };
    edit(&mut child);
    if child.is_edited() {
        parent.set(name, child.into_text());
    }
}

/// Joins the text parts of every message whose content is a list with at least
/// one text part into one string without a separator; other parts of such a
/// list are dropped. `None` when no message changes.
pub fn flatten_text_parts(messages: &str) -> Option<String> {
    edit_array(messages, |message| {
        let Some(joined) = message.get("content").and_then(join_text_parts) else {
            return;
        };
        message.set("content", encode_string(&joined));
    })
}

fn join_text_parts(content: &str) -> Option<String> {
    let parts: Vec<serde_json::Value> = serde_json::from_str(content).ok()?;
    let texts: Vec<&str> =
        parts.iter().filter(|part| part["type"] == "text").filter_map(|part| part["text"].as_str()).collect();
    (!texts.is_empty()).then(|| texts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn applied(overrides: &BodyOverrides, body: &str) -> String {
        let mut document = Document::parse(Bytes::copy_from_slice(body.as_bytes())).expect("document");
        overrides.apply(&mut document);
        String::from_utf8(document.to_bytes().to_vec()).expect("UTF-8")
    }

    #[test]
    fn overrides_apply_in_order() {
        let overrides = BodyOverrides {
            renames: vec![("temp".into(), "temperature".into())],
            temperature_max: Some(1.0),
            temperature_min: Some(0.5),
            defaults: vec![("top_p".into(), "0.9".into()), ("temperature".into(), "0".into())],
            flatten_text_parts: false,
        };
        assert_eq!(applied(&overrides, r#"{"temp":1.7}"#), r#"{"temperature":1.0,"top_p":0.9}"#);
        assert_eq!(
            applied(&overrides, r#"{"temperature":0.70,"top_p":1}"#),
            r#"{"temperature":0.70,"top_p":1}"#
        );
        assert_eq!(
            applied(&overrides, r#"{"temperature":"hot","top_p":1}"#),
            r#"{"temperature":"hot","top_p":1}"#
        );
    }

    #[test]
    fn text_parts_are_joined_only_where_there_are_some() {
        let overrides = BodyOverrides { flatten_text_parts: true, ..BodyOverrides::default() };
        let body = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"},{"type":"text","text":"b"}],"x":1.0},{"content":[{"type":"image_url"}]},{"content":"s"}]}"#;
        assert_eq!(
            applied(&overrides, body),
            r#"{"messages":[{"role":"user","content":"ab","x":1.0},{"content":[{"type":"image_url"}]},{"content":"s"}]}"#
        );
    }
}
