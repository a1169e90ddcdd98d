//! What the gateway writes to a pipe, line by line.

use crate::eventually;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    ended: bool,
}

/// Lines as they come.
#[derive(Clone, Default)]
pub(super) struct LogBuffer {
    collected: Arc<Mutex<Collected>>,
}

impl LogBuffer {
    fn with<T>(&self, look: impl FnOnce(&mut Collected) -> T) -> T {
        look(&mut self.collected.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn collect(&self, pipe: impl AsyncRead + Send + Unpin + 'static) {
        let buffer = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(pipe).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                let line = String::from_utf8_lossy(&line).into_owned();
                buffer.with(|c| c.lines.push(line));
            }
            buffer.with(|c| c.ended = true);
        });
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.with(|c| c.lines.clone())
    }

    pub(super) async fn wait_end(&self) {
        eventually("the output ends", || async { self.with(|c| c.ended).then_some(()) }).await;
    }

    pub(super) async fn wait_for(&self, needle: &str) -> String {
        let what = format!("a line with {needle:?}");
        eventually(&what, || async {
            self.with(|c| c.lines.iter().find(|line| line.contains(needle)).cloned())
        })
        .await
    }
}

/// One access-log line, of either format.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// The line as it came.
    pub raw: String,
    fields: Vec<(String, String)>,
}

impl LogLine {
    /// Reads an access line of the text or JSON format; `None` for any other line.
    pub fn access(line: &str) -> Option<Self> {
        const MESSAGE: &str = "proxy request completed";
        let fields = if line.starts_with('{') {
            let value: Value = serde_json::from_str(line).ok()?;
            json_fields(&value, MESSAGE)?
        } else {
            text_fields(&line[line.find(MESSAGE)? + MESSAGE.len()..])
        };
        Some(Self { raw: line.to_owned(), fields })
    }

    /// A field as text, without quotes.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Field names in order.
    pub fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(key, _)| key.as_str()).collect()
    }
}

/// All scalar members of a JSON line, also those nested one level down, when one of them is the message.
fn json_fields(value: &Value, message: &str) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    for (key, value) in value.as_object()? {
        match value {
            Value::Object(inner) => {
                let inner = inner.iter().map(|(k, v)| (k.clone(), text_of(v)));
                fields.extend(inner);
            }
            other => fields.push((key.clone(), text_of(other))),
        }
    }
    fields.iter().any(|(_, value)| value == message).then_some(fields)
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn text_fields(mut text: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some((key, rest)) = text.trim_start().split_once('=') {
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = closing_quote(quoted);
                let rest = quoted.get(end + 1..).unwrap_or_default();
                (quoted[..end].replace("\\\"", "\""), rest)
            }
            None => {
                let end = rest.find(' ').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push((key.to_owned(), value));
        text = rest;
    }
    fields
}

fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            '"' if !escaped => return at,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_give_the_same_fields() {
        let text = "2026-01-02T03:04:05.000001Z INFO request{request_id=r-1}: aisix: proxy request completed \
                    method=\"POST\" path=\"/v1/x\" status=502 error=\"said \\\"no\\\" twice\" request_id=\"r-1\"";
        let line = LogLine::access(text).expect("an access line");
        assert_eq!(line.get("status"), Some("502"));
        assert_eq!(line.get("error"), Some("said \"no\" twice"));
        assert_eq!(line.get("request_id"), Some("r-1"));
        assert_eq!(line.names(), ["method", "path", "status", "error", "request_id"]);
        let json = r#"{"level":"INFO","fields":{"message":"proxy request completed","status":502,"request_id":"r-1"}}"#;
        let line = LogLine::access(json).expect("an access line");
        assert_eq!(line.get("status"), Some("502"));
        assert_eq!(line.get("request_id"), Some("r-1"));
        assert!(LogLine::access("something else").is_none());
    }
}
