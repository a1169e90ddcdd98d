//! Whatever an upstream answers, the caller gets a reply of the promised shape
//! or an error.
//!
//! Input: a body.

#![no_main]

use aisix_wire::{Document, ReplyContext, formats::OPENAI_CHAT};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fn context() -> ReplyContext {
    ReplyContext {
        model: "alias".into(),
        stream_usage: false,
        reasoning_field: None,
        fallback_id: "chatcmpl-x".into(),
        created: 7,
    }
}

/// Objects with a name twice are passed on as they came.
fn object(raw: &str) -> Option<Document> {
    Document::parse(Bytes::copy_from_slice(raw.as_bytes())).ok()
}

fn check_choice(raw: &str) {
    let Some(choice) = object(raw) else { return };
    assert!(choice.has("finish_reason"), "no finish_reason: {raw}");
    if let Some(message) = choice.get("message").and_then(object) {
        assert!(message.get("content").is_some(), "no content: {raw}");
        assert!(message.get("reasoning").is_none(), "two names for reasoning: {raw}");
    }
}

fuzz_target!(|input: &[u8]| {
    let body = Bytes::copy_from_slice(input);
    let _ = OPENAI_CHAT.decode_error(400, input);
    let Ok((out, facts)) = OPENAI_CHAT.relay(body.clone(), &context()) else { return };
    let given = Document::parse(body).expect("only documents are relayed");
    let reply = Document::parse(out.clone()).expect("the reply is a document");
    assert_eq!(reply.get_str("model").as_deref(), Some("alias"));
    assert!(reply.has("id") && reply.has("object") && reply.has("created"));
    assert_eq!(facts.response_id.as_deref(), given.get_str("id").as_deref());
    for name in given.names().filter(|name| !["model", "id", "object", "created", "choices"].contains(name)) {
        assert_eq!(reply.get(name), given.get(name), "{name}");
    }
    if let Some(Ok(choices)) = reply.get("choices").map(serde_json::from_str::<Vec<&RawValue>>) {
        choices.iter().for_each(|choice| check_choice(choice.get()));
    }
    let (again, _) = OPENAI_CHAT.relay(out.clone(), &context()).expect("a relayed reply can be relayed");
    assert_eq!(again, out);
});
