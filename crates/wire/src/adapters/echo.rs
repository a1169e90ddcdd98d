//! The built-in provider: answers a chat with the caller's last message, so
//! that a gateway can be tried without any upstream.

use aisix_core::{Error, Operation};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{Adapter, Address};
use crate::{Document, Format, formats};

/// The adapter.
#[derive(Debug)]
pub struct Echo;

impl Adapter for Echo {
    fn format(&self, operation: Operation) -> Option<&'static dyn Format> {
        match operation {
            Operation::Chat => Some(formats::OPENAI_CHAT),
            Operation::ListModels => None,
        }
    }

    fn address(&self, _: Operation, _: Option<&str>, _: &str) -> Result<Address, Error> {
        Ok(Address::Echo)
    }

    fn credential(&self, _: &str) -> Result<Option<(HeaderName, HeaderValue)>, Error> {
        Ok(None)
    }
}

/// What the built-in provider answers.
#[derive(Debug)]
pub enum Answer {
    /// A complete JSON body.
    Whole(Bytes),
    /// The frames of an event stream, one a word.
    Frames(Vec<Bytes>),
}

/// Answers a chat request; `id` and `created` (Unix seconds) go into the reply.
pub fn answer(request: &Document, id: &str, created: u64) -> Answer {
    let messages: Vec<Value> =
        request.get("messages").and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
    let text = messages
        .iter()
        .rfind(|message| message["role"] == "user")
        .map(|message| text_of(&message["content"]))
        .unwrap_or_default();
    let input: usize = messages.iter().map(|message| words(&text_of(&message["content"])).count()).sum();
    let output = words(&text).count();
    let usage = json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
    });
    let model = request.get_str("model").unwrap_or_default();
    if request.get_bool("stream") != Some(true) {
        let body = json!({
            "id": format!("chatcmpl-{id}"), "object": "chat.completion", "created": created, "model": model,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": usage,
        });
        return Answer::Whole(body.to_string().into());
    }
    let frame = |choices: Value, usage: Option<&Value>| {
        let mut chunk = json!({
            "id": format!("chatcmpl-{id}"), "object": "chat.completion.chunk", "created": created, "model": model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage.clone();
        }
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let delta = |delta: Value| json!([{"index": 0, "delta": delta, "finish_reason": null}]);
    let mut frames = vec![frame(delta(json!({"role": "assistant", "content": ""})), None)];
    frames.extend(text.split_inclusive(' ').map(|word| frame(delta(json!({"content": word})), None)));
    frames.push(frame(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), None));
    frames.push(frame(json!([]), Some(&usage)));
    frames.push(Bytes::from_static(b"data: [DONE]\n\n"));
    Answer::Frames(frames)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(body: Value) -> Document {
        Document::parse(body.to_string().into()).expect("document")
    }

    #[test]
    fn the_last_user_message_comes_back() {
        let body = json!({"model": "echo", "messages": [
            {"role": "system", "content": "be brief"}, {"role": "user", "content": "first"},
            {"role": "user", "content": [{"type": "text", "text": "hello there"}]},
        ]});
        let Answer::Whole(reply) = answer(&document(body), "1", 7) else { panic!("buffered") };
        let reply: Value = serde_json::from_slice(&reply).expect("JSON");
        assert_eq!(reply["choices"][0]["message"]["content"], "hello there");
        assert_eq!(reply["usage"], json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}));
    }

    #[test]
    fn a_stream_ends_with_usage_and_done() {
        let body =
            json!({"model": "echo", "stream": true, "messages": [{"role": "user", "content": "a b c"}]});
        let Answer::Frames(frames) = answer(&document(body), "1", 7) else { panic!("streamed") };
        assert_eq!(frames.len(), 1 + 3 + 3);
        assert_eq!(frames.last().map(|f| &f[..]), Some(&b"data: [DONE]\n\n"[..]));
    }
}
