//! Buffered replies.

use aisix_core::Usage;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::error;
use crate::{
    Document, ReplyContext, ReplyFacts,
    edit::{edit_array, edit_object},
    format::ReplyError,
    scan::Scanner,
};

pub(super) fn relay(body: Bytes, context: &ReplyContext) -> Result<(Bytes, ReplyFacts), ReplyError> {
    let mut reply = Document::parse(body).map_err(|e| ReplyError::Malformed(e.to_string()))?;
    let choices = match reply.get("choices").filter(|raw| raw.starts_with('[')) {
        Some(raw) if raw != "[]" => raw,
        empty => match (in_band(&reply), empty) {
            (Some(error), _) => return Err(error),
            (None, None) => return Err(ReplyError::Malformed("no `choices` array".into())),
            (None, Some(raw)) => raw,
        },
    };
    if needs_choice_edit(choices)
        && let Some(edited) = edit_array(choices, complete_choice)
    {
        reply.set("choices", edited);
    }
    let facts = ReplyFacts {
        usage: usage(&reply).unwrap_or_default(),
        response_id: reply.get_str("id").map(Into::into),
        model_version: reply.get_str("model").map(Into::into),
        frames: 1,
        done_marker: true,
    };
    set_identity(&mut reply, context, "chat.completion");
    Ok((reply.into_bytes(), facts))
}

/// The error in a 2xx body or frame: an `error` field, or a body that is an
/// error object itself.
pub(super) fn in_band(reply: &Document) -> Option<ReplyError> {
    let raw = match reply.get("error").filter(|raw| *raw != "null") {
        Some(raw) => raw,
        None if reply.get_str("object").as_deref() == Some("error") => reply.original(),
        None => return None,
    };
    let value: Value = serde_json::from_str(raw).ok()?;
    error::from_value(&value).map(ReplyError::InBand)
}

/// Puts the caller's model name in and fills in what clients require.
pub(super) fn set_identity(reply: &mut Document, context: &ReplyContext, object: &str) {
    if reply.get_str("model").as_deref() != Some(&*context.model) {
        reply.set_str("model", &context.model);
    }
    if !reply.has("id") {
        reply.set_str("id", &context.fallback_id);
    }
    if !reply.has("object") {
        reply.set_str("object", object);
    }
    if !reply.has("created") {
        reply.set("created", context.created.to_string());
    }
}

/// Whether a choice lacks what clients require or names its reasoning otherwise.
fn needs_choice_edit(choices: &str) -> bool {
    let mut lacking = false;
    let scanned = Scanner::new(choices.as_bytes()).array(|start, end| {
        lacking |= lacks_something(&choices[start..end]).unwrap_or(false);
    });
    scanned.is_ok() && lacking
}

/// `None` for what is no object.
fn lacks_something(choice: &str) -> Option<bool> {
    let (mut finished, mut message) = (false, None);
    let fields = Scanner::new(choice.as_bytes()).object(|span| {
        let value = &choice[span.value.0..span.value.1];
        match &choice[span.key.0..span.key.1] {
            r#""finish_reason""# => finished = value.starts_with('"') && value != r#""""#,
            r#""message""# => message = Some(value),
            _ => {}
        }
    });
    fields.ok()?;
    let Some(message) = message else { return Some(!finished) };
    let (mut content, mut reasoning) = (false, false);
    let fields = Scanner::new(message.as_bytes()).object(|span| match &message[span.key.0..span.key.1] {
        r#""content""# => content = true,
        r#""reasoning""# => reasoning = true,
        _ => {}
    });
    Some(!finished || (fields.is_ok() && (!content || reasoning)))
}

fn complete_choice(choice: &mut Document) {
    if choice.get_str("finish_reason").is_none_or(|reason| reason.is_empty()) {
        choice.set("finish_reason", r#""stop""#);
    }
    edit_object(choice, "message", |message| {
        rename_reasoning(message);
        if message.get("content").is_none() {
            message.set("content", "null");
        }
    });
}

/// Some vendors send `reasoning`; callers see one name only. Empty text is dropped.
pub(super) fn rename_reasoning(message: &mut Document) {
    if message.get("reasoning").is_none() {
        return;
    }
    if message.get_str("reasoning").is_some_and(|text| !text.is_empty())
        && !filled(message, "reasoning_content")
    {
        message.rename("reasoning", "reasoning_content");
    } else {
        message.remove("reasoning");
    }
}

fn filled(message: &Document, field: &str) -> bool {
    message.has(field) && message.get(field) != Some(r#""""#)
}

/// Reads the `usage` object.
pub(super) fn usage(reply: &Document) -> Option<Usage> {
    // Some vendors spell counts `5.0`, which is no integer to a strict reader.
    type Count = Option<f64>;
    #[derive(Deserialize)]
    struct Details {
        cached_tokens: Count,
        reasoning_tokens: Count,
    }
    #[derive(Deserialize)]
    struct Wire {
        prompt_tokens: Count,
        completion_tokens: Count,
        total_tokens: Count,
        prompt_tokens_details: Option<Details>,
        completion_tokens_details: Option<Details>,
        prompt_cache_hit_tokens: Count,
    }
    let tokens = |count: Count| count.unwrap_or(0.0).max(0.0) as u64;
    let wire: Wire = serde_json::from_str(reply.get("usage")?).ok()?;
    let cached = wire.prompt_tokens_details.and_then(|d| d.cached_tokens).filter(|n| *n > 0.0);
    Some(Usage {
        input: tokens(wire.prompt_tokens),
        output: tokens(wire.completion_tokens),
        total: tokens(wire.total_tokens),
        cached: tokens(cached.or(wire.prompt_cache_hit_tokens)),
        reasoning: tokens(wire.completion_tokens_details.and_then(|d| d.reasoning_tokens)),
        ..Usage::default()
    })
}
