//! Relay of chat replies, buffered and streamed.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Document, ReplyContext, UpstreamFault, format::ReplyError, formats::OPENAI_CHAT};

fn context(stream_usage: bool) -> ReplyContext {
    ReplyContext {
        model: "alias".into(),
        stream_usage,
        reasoning_field: None,
        fallback_id: "chatcmpl-x".into(),
        created: 7,
    }
}

fn document(text: &str) -> Document {
    Document::parse(Bytes::copy_from_slice(text.as_bytes())).expect("document")
}

fn relay(body: &str) -> Result<String, ReplyError> {
    let (bytes, _) = OPENAI_CHAT.relay(Bytes::copy_from_slice(body.as_bytes()), &context(false))?;
    Ok(String::from_utf8(bytes.to_vec()).expect("UTF-8"))
}

fn stream_with(context: ReplyContext, parts: &[&[u8]]) -> (String, Result<(), ReplyError>) {
    let mut relay = OPENAI_CHAT.relay_stream(context);
    let mut out = BytesMut::new();
    let mut run = || {
        for part in parts {
            relay.push(part, &mut out)?;
        }
        relay.finish(&mut out)
    };
    let result = run();
    (String::from_utf8(out.to_vec()).expect("UTF-8"), result)
}

fn frame(content: &str) -> String {
    format!(
        "data: {{\"id\":\"u\",\"object\":\"chat.completion.chunk\",\"created\":1.0,\"model\":\"up\",\"x\":[1.50],\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{}}},\"finish_reason\":null}}]}}\n\n",
        Value::from(content)
    )
}

const FINISH: &str = "data: {\"id\":\"u\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"up\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"id\":\"u\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"up\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn a_reply_keeps_all_but_the_model() {
    let body = r#"{ "id":"u1","object":"chat.completion","created":12,"model":"up-2024","system_fingerprint":"f","choices":[{"index":0,"message":{"role":"assistant","content":"hi","refusal":null},"logprobs":null,"finish_reason":"stop"},{"index":1,"message":{"role":"assistant","content":null,"tool_calls":[]},"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,"x":1.0}}"#;
    assert_eq!(relay(body).expect("reply"), body.replace("up-2024", "alias"));
}

#[test]
fn missing_parts_of_a_reply_are_filled_in() {
    let reply = relay(r#"{"choices":[{"index":0,"message":{"role":"assistant","reasoning":"why"}}]}"#)
        .expect("reply");
    let reply: Value = serde_json::from_str(&reply).expect("JSON");
    assert_eq!(
        reply,
        json!({
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "reasoning_content": "why", "content": null}}],
            "model": "alias", "id": "chatcmpl-x", "object": "chat.completion", "created": 7,
        })
    );
}

#[test]
fn replies_that_are_none_are_told_apart() {
    assert!(matches!(relay("<html>"), Err(ReplyError::Malformed(_))));
    assert!(matches!(relay(r#"{"id":"x"}"#), Err(ReplyError::Malformed(_))));
    let Err(ReplyError::InBand(fault)) = relay(r#"{"error":{"message":"m","code":429}}"#) else {
        panic!("in band")
    };
    assert_eq!(fault, UpstreamFault { status: Some(429), message: "m".into(), ..UpstreamFault::default() });
}

#[test]
fn a_stream_keeps_all_but_the_model() {
    let text =
        [frame("a"), frame("b é"), frame("c\"\\"), frame("d"), FINISH.into(), USAGE.into(), DONE.into()]
            .concat();
    let (out, result) = stream_with(context(true), &[text.as_bytes()]);
    assert_eq!(result, Ok(()));
    assert_eq!(out, text.replace("\"up\"", "\"alias\""));
}

#[test]
fn usage_is_kept_back_unless_asked_for() {
    let text = [&frame("a"), FINISH, USAGE].concat();
    let (out, result) = stream_with(context(false), &[text.as_bytes()]);
    assert_eq!(result, Ok(()));
    assert!(!out.contains("usage") && out.ends_with(DONE), "{out}");
    let with_finish = FINISH.replace("\"choices\"", "\"usage\":{\"prompt_tokens\":1},\"choices\"");
    let (out, _) = stream_with(context(false), &[with_finish.as_bytes()]);
    assert!(out.contains("\"usage\":{\"prompt_tokens\":1}"), "{out}");
}

#[test]
fn facts_are_read_from_the_stream() {
    let mut relay = OPENAI_CHAT.relay_stream(context(false));
    let text = [&frame("a"), FINISH, USAGE, DONE].concat();
    relay.push(text.as_bytes(), &mut BytesMut::new()).expect("stream");
    let facts = relay.facts();
    assert_eq!((facts.usage.input, facts.usage.output, facts.usage.total), (3, 2, 5));
    assert_eq!(facts.response_id.as_deref(), Some("u"));
    assert!(relay.ended() && facts.done_marker);
}

#[test]
fn a_truncated_stream_is_never_a_success() {
    for text in [String::new(), frame("a"), [&frame("a"), DONE].concat(), DONE.into(), "<html></html>".into()]
    {
        let (out, result) = stream_with(context(false), &[text.as_bytes()]);
        assert_eq!(result, Err(ReplyError::Incomplete), "{text}");
        assert!(!out.contains("[DONE]"));
    }
    let two = FINISH.replace("\"index\":0", "\"index\":1");
    assert_eq!(
        stream_with(context(false), &[[&frame("a"), &two[..]].concat().as_bytes()]).1,
        Err(ReplyError::Incomplete)
    );
}

#[test]
fn garbage_and_errors_end_the_stream() {
    let (out, result) = stream_with(context(false), &[frame("a").as_bytes(), b"data: {\"id\": \n\n"]);
    assert!(matches!(result, Err(ReplyError::Malformed(_))), "{result:?}");
    assert!(out.contains("\"a\"") && !out.contains("[DONE]"));
    for error in [r#"{"error":{"message":"m","code":"503"}}"#, r#"{"error":"m"}"#] {
        let (_, result) = stream_with(context(false), &[format!("data: {error}\n\n").as_bytes()]);
        let Err(ReplyError::InBand(fault)) = result else { panic!("{result:?}") };
        assert_eq!(fault.message, "m");
    }
}

#[test]
fn reasoning_has_one_name() {
    let chunk = frame("x").replace("\"content\":\"x\"", "\"reasoning\":\"hm\",\"content\":\"\"");
    let (out, _) = stream_with(context(false), &[chunk.as_bytes(), chunk.as_bytes()]);
    assert_eq!(out.matches("\"reasoning_content\":\"hm\"").count(), 2, "{out}");
    let path: Arc<[String]> = Arc::new(["thoughts".into(), "text".into()]);
    let context = ReplyContext { reasoning_field: Some(path), ..context(false) };
    let chunk = frame("x").replace("\"content\":\"x\"", "\"thoughts\":{\"text\":\"hm\"}");
    let (out, _) = stream_with(context, &[chunk.as_bytes()]);
    assert!(out.contains("\"reasoning_content\":\"hm\""), "{out}");
}

#[test]
fn upstream_errors_are_read_whatever_their_shape() {
    let decode = |body: &[u8]| OPENAI_CHAT.decode_error(400, body);
    let fault = decode(br#"{"error":{"message":"bad","type":"t","param":"p","code":"c"}}"#);
    assert_eq!(
        (&*fault.message, fault.param.as_deref(), fault.code.as_deref()),
        ("bad", Some("p"), Some("c"))
    );
    assert_eq!(decode(br#"{"error":{"message":"bad","code":7}}"#).code, None);
    assert_eq!(decode(b" plain text ").message, "plain text");
    assert_eq!(decode(b"").message, "upstream returned 400");
    let long = decode("é".repeat(4000).as_bytes()).presentable("").message;
    assert!(long.len() <= 1024 + 3 && long.ends_with('…'));
}

#[test]
fn no_part_of_a_secret_is_presented() {
    let secret = "sk-\"quoted\\";
    for lead in [0, 1000, 1015, 1020] {
        let body = serde_json::json!({"error": {"text": format!("{}{secret} and on", "x".repeat(lead)), "code": secret}});
        let fault = OPENAI_CHAT.decode_error(401, body.to_string().as_bytes()).presentable(secret);
        assert!(!fault.message.contains("sk-") && fault.code.as_deref() == Some("***"), "{fault:?}");
    }
}

#[test]
fn requests_are_checked() {
    let check = |body: &str| OPENAI_CHAT.head(&document(body)).map(|head| (head.stream, head.stream_usage));
    let message = r#""messages":[{"role":"user","content":"x"}]"#;
    assert_eq!(check(&format!(r#"{{"model":"m",{message}}}"#)).expect("valid"), (false, false));
    let streamed =
        format!(r#"{{"model":"m","stream":true,"stream_options":{{"include_usage":true}},{message}}}"#);
    assert_eq!(check(&streamed).expect("valid"), (true, true));
    for (body, param) in [
        (r#"{"model":"m"}"#.to_owned(), "messages"),
        (r#"{"model":"m","messages":[]}"#.into(), "messages"),
        (r#"{"model":"m","messages":[{"role":"alien"}]}"#.into(), "messages[0].role"),
        (format!("{{{message}}}"), "model"),
        (format!(r#"{{"model":7,{message}}}"#), "model"),
        (format!(r#"{{"model":"m","stream":"yes",{message}}}"#), "stream"),
        (format!(r#"{{"model":"m","temperature":"hot",{message}}}"#), "temperature"),
        (format!(r#"{{"model":"m","max_tokens":-1,{message}}}"#), "max_tokens"),
    ] {
        let error = check(&body).map_err(|e| (e.status(), e.param().map(str::to_owned)));
        assert_eq!(error.expect_err(&body), (400, Some(param.to_owned())), "{body}");
    }
}

proptest! {
    #[test]
    fn any_split_of_a_stream_gives_the_same_output(
        texts in prop::collection::vec(".{0,12}", 1..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut text: String = texts.iter().map(|t| frame(t)).collect();
        text.push_str(FINISH);
        text.push_str(USAGE);
        text.push_str(DONE);
        let bytes = text.as_bytes();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let parts: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        let (out, result) = stream_with(context(true), &parts);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(out, text.replace("\"up\"", "\"alias\""));
    }
}
