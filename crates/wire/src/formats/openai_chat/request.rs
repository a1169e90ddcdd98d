//! Chat requests: checks, and the body for an upstream of the same format.

use aisix_core::{Error, Reason};
use serde::Deserialize;

use crate::{
    BodyOverrides, Document, Head,
    document::{decode_string, encode_string},
    edit::edit_array,
    scan::Scanner,
};

/// The roles of the API reference; `function` is the deprecated one.
const ROLES: &[&str] = &["system", "developer", "user", "assistant", "tool", "function"];

pub(super) fn head(body: &Document) -> Result<Head, Error> {
    let missing_content = check_messages(body)?;
    let model = match body.get("model") {
        None => return Err(invalid("model", "a string, but it is missing")),
        Some(_) => body.get_str("model").ok_or_else(|| invalid("model", "a string"))?,
    };
    if model.is_empty() {
        return Err(invalid("model", "a non-empty string"));
    }
    for field in ["temperature", "top_p"] {
        if body.has(field) && !is_number(body.get(field)) {
            return Err(invalid(field, "a number"));
        }
    }
    if body.has("max_tokens") && body.get("max_tokens").and_then(|raw| raw.parse::<u32>().ok()).is_none() {
        return Err(invalid("max_tokens", "an integer from 0 to 4294967295"));
    }
    let stream = match body.get("stream") {
        None | Some("null" | "false") => false,
        Some("true") => true,
        Some(_) => return Err(invalid("stream", "true or false")),
    };
    Ok(Head { model: model.into_owned(), stream, stream_usage: asks_for_usage(body), missing_content })
}

pub(super) fn prepare(body: &mut Document, head: &Head, upstream_model: &str, overrides: &BodyOverrides) {
    if body.get_str("model").as_deref() != Some(upstream_model) {
        body.set("model", encode_string(upstream_model));
    }
    if body.get_bool("stream") != Some(head.stream) {
        body.set("stream", if head.stream { "true" } else { "false" });
    }
    if head.missing_content
        && let Some(messages) = body.get("messages").and_then(fill_content)
    {
        body.set("messages", messages);
    }
    overrides.apply(body);
    if head.stream && body.get("stream_options").is_none() {
        body.set("stream_options", r#"{"include_usage":true}"#);
    }
}

fn invalid(field: &str, expected: &str) -> Error {
    Error::bad_request(format_args!("invalid JSON request body: field `{field}`: expected {expected}"))
        .with_param(Some(field.to_owned()))
}

fn is_number(raw: Option<&str>) -> bool {
    raw.and_then(|raw| raw.bytes().next()).is_some_and(|first| first == b'-' || first.is_ascii_digit())
}

fn asks_for_usage(body: &Document) -> bool {
    #[derive(Deserialize)]
    struct Options {
        #[serde(default)]
        include_usage: Option<bool>,
    }
    body.get("stream_options")
        .and_then(|raw| serde_json::from_str::<Options>(raw).ok())
        .is_some_and(|options| options.include_usage == Some(true))
}

/// Only the role and the kind of the content are looked at; what else a message
/// holds is the upstream's to judge. Says whether a message has no content.
fn check_messages(body: &Document) -> Result<bool, Error> {
    let Some(raw) = body.get("messages") else {
        return Err(invalid("messages", "an array, but it is missing"));
    };
    let (mut flaw, mut missing_content, mut count) = (None, false, 0);
    let scanned = Scanner::new(raw.as_bytes()).array(|start, end| {
        if flaw.is_none() {
            match check_message(&raw[start..end], count) {
                Ok(missing) => missing_content |= missing,
                Err(error) => flaw = Some(error),
            }
        }
        count += 1;
    });
    if scanned.is_err() {
        return Err(invalid("messages", "an array"));
    }
    if count == 0 {
        let text = "request payload is invalid: messages array must not be empty";
        return Err(Error::new(Reason::BadRequest, text).with_param(Some("messages".into())));
    }
    flaw.map_or(Ok(missing_content), Err)
}

fn check_message(raw: &str, at: usize) -> Result<bool, Error> {
    let (mut role, mut content) = (None, "null");
    let scanned = Scanner::new(raw.as_bytes()).object(|span| {
        let value = &raw[span.value.0..span.value.1];
        let key = &raw[span.key.0..span.key.1];
        match decode_string(key).as_deref() {
            Some("role") => role = Some(value),
            Some("content") => content = value,
            _ => {}
        }
    });
    if scanned.is_err() {
        return Err(invalid(&format!("messages[{at}]"), "an object"));
    }
    let role = role.and_then(decode_string).unwrap_or_default();
    if !ROLES.contains(&&*role) {
        return Err(invalid(&format!("messages[{at}].role"), &format!("one of {}", ROLES.join(", "))));
    }
    if !content.starts_with(['"', '[', 'n']) {
        return Err(invalid(&format!("messages[{at}].content"), "a string, an array of parts or null"));
    }
    Ok(content == "null")
}

/// Some upstreams refuse messages without content. `None` when there are none.
fn fill_content(messages: &str) -> Option<String> {
    edit_array(messages, |message| {
        if !message.has("content") {
            message.set("content", r#""""#);
        }
    })
}
