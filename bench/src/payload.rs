//! What is asked and what is answered: one request and one reply per kind, built once.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The model name the caller uses; the gateway maps it to [`UPSTREAM_MODEL`].
pub(crate) const CALLER_MODEL: &str = "bench-model";
/// The model name the fake upstream puts in its replies.
pub(crate) const UPSTREAM_MODEL: &str = "upstream-model-2025-01-01";
/// The caller key; nginx hands it on, the gateway checks it.
pub(crate) const CALLER_KEY: &str = "bench-caller-key-0123456789abcdef";
/// Content chunks in a streamed reply.
pub(crate) const CHUNKS: usize = 64;

/// Markers in the request body (in its `user` field) by which the upstream knows the kind of stream.
const BURST_MARKER: &str = "burst-stream";
const SLOW_MARKER: &str = "slow-stream";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Buffered,
    /// Each chunk is written on its own, so that it arrives on its own.
    Streamed,
    /// All chunks are written at once.
    Burst,
    /// A pause before each chunk.
    Slow,
}

impl Kind {
    /// The kind a request body asks for. A search, not a parse: the upstream must stay cheap.
    pub(crate) fn of_request(body: &[u8]) -> Self {
        let has = |needle: &str| memchr::memmem::find(body, needle.as_bytes()).is_some();
        if !has("\"stream\":true") {
            Self::Buffered
        } else if has(SLOW_MARKER) {
            Self::Slow
        } else if has(BURST_MARKER) {
            Self::Burst
        } else {
            Self::Streamed
        }
    }
}

/// The whole HTTP request, ready to be written.
pub(crate) fn request(kind: Kind, addr: SocketAddr) -> Vec<u8> {
    let mut body = json!({
        "model": CALLER_MODEL,
        "messages": [
            {"role": "system", "content": "You are a careful assistant. Answer in one short paragraph, name \
              the assumptions you make, and say so when you do not know."},
            {"role": "user", "content": "Explain to a colleague who knows operating systems but not networks why a \
              proxy that copies a response piece by piece can cost more processor time than one that waits \
              for the whole response, and what can be done about it without making the reader wait."}
        ],
        "temperature": 0.2,
        "max_tokens": 256
    });
    if kind != Kind::Buffered {
        body["stream"] = json!(true);
    }
    match kind {
        Kind::Burst => body["user"] = json!(BURST_MARKER),
        Kind::Slow => body["user"] = json!(SLOW_MARKER),
        Kind::Buffered | Kind::Streamed => {}
    }
    let body = body.to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {CALLER_KEY}\r\n\
         content-type: application/json\r\naccept: application/json\r\nuser-agent: aisix-bench\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The replies of the fake upstream, as they go over the wire.
pub(crate) struct Replies {
    /// Head and body of the buffered reply.
    pub(crate) buffered: Vec<u8>,
    /// Head of a streamed reply.
    pub(crate) stream_head: Vec<u8>,
    /// The pieces of a streamed reply, each framed as one HTTP chunk.
    pub(crate) frames: Vec<Vec<u8>>,
    /// Head and pieces in one.
    pub(crate) burst: Vec<u8>,
}

impl Replies {
    pub(crate) fn new() -> Self {
        let body = buffered_body();
        let mut frames: Vec<Vec<u8>> =
            events().iter().map(|event| format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()).collect();
        if let Some(last) = frames.last_mut() {
            last.extend_from_slice(b"0\r\n\r\n");
        }
        let stream_head =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
            x-request-id: req_0123456789\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec();
        Self {
            buffered: format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_0123456789\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
            burst: [stream_head.clone(), frames.concat()].concat(),
            stream_head,
            frames,
        }
    }
}

/// The text of the answer; a stream carries the same words one by one.
fn words() -> Vec<String> {
    (0..CHUNKS).map(|i| format!("word-{i:02} ")).collect()
}

fn buffered_body() -> String {
    json!({
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1_735_689_600,
        "model": UPSTREAM_MODEL,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": words().concat(), "refusal": null},
            "logprobs": null,
            "finish_reason": "stop"
        }],
        "usage": usage(),
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789"
    })
    .to_string()
}

fn usage() -> Value {
    json!({
        "prompt_tokens": 92, "completion_tokens": CHUNKS, "total_tokens": 92 + CHUNKS,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0}
    })
}

/// Content chunks, the finish chunk, the usage chunk and the end mark.
fn events() -> Vec<String> {
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 1_735_689_600,
            "model": UPSTREAM_MODEL, "system_fingerprint": "fp_0123456789", "choices": choices, "usage": usage
        });
        format!("data: {chunk}\n\n")
    };
    let mut events: Vec<String> = words()
        .into_iter()
        .enumerate()
        .map(|(i, word)| {
            let delta =
                if i == 0 { json!({"role": "assistant", "content": word}) } else { json!({"content": word}) };
            chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]), Value::Null)
        })
        .collect();
    events.push(chunk(
        json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"}]),
        Value::Null,
    ));
    events.push(chunk(json!([]), usage()));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

/// Reads a whole reply body the way a client would, and says what is wrong with it. Done once per
/// run of the load generator; afterwards every body is compared with this one byte by byte.
pub(crate) fn check(kind: Kind, body: &[u8], model: &str) -> Result<()> {
    let text = std::str::from_utf8(body).context("the reply is not UTF-8")?;
    if kind == Kind::Buffered {
        let reply: Value = serde_json::from_str(text).context("the reply is not JSON")?;
        ensure!(reply["model"] == model, "the reply names model {} instead of {model}", reply["model"]);
        let content = &reply["choices"][0]["message"]["content"];
        ensure!(*content == words().concat(), "the reply has another text: {content}");
        ensure!(reply["usage"]["total_tokens"] == 92 + CHUNKS, "the reply has no usage");
        return Ok(());
    }
    let (mut content, mut finished, mut done) = (Vec::new(), false, false);
    for event in text.split("\n\n").filter(|event| !event.is_empty()) {
        ensure!(!done, "there is more after [DONE]: {event}");
        let Some(data) = event.strip_prefix("data: ") else { bail!("not a data event: {event}") };
        if data == "[DONE]" {
            done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(data).with_context(|| format!("not JSON: {data}"))?;
        ensure!(chunk["model"] == model, "a chunk names model {} instead of {model}", chunk["model"]);
        let choice = &chunk["choices"][0];
        content.extend(choice["delta"]["content"].as_str().map(str::to_owned));
        finished |= choice["finish_reason"] == "stop";
    }
    ensure!(content == words(), "the stream has other chunks than the upstream sent: {content:?}");
    ensure!(finished, "the stream has no finish_reason");
    ensure!(done && text.ends_with("\n\n"), "the stream does not end in [DONE]");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> String {
        events().concat()
    }

    #[test]
    fn own_replies_pass_the_check() {
        assert!(buffered_body().len() > 900 && buffered_body().len() < 1400, "{}", buffered_body().len());
        check(Kind::Buffered, buffered_body().as_bytes(), UPSTREAM_MODEL).expect("buffered");
        assert_eq!(events().len(), CHUNKS + 3);
        check(Kind::Streamed, stream().as_bytes(), UPSTREAM_MODEL).expect("streamed");
    }

    #[test]
    fn damaged_replies_do_not() {
        let other_model = buffered_body().replace(UPSTREAM_MODEL, "other");
        assert!(check(Kind::Buffered, other_model.as_bytes(), UPSTREAM_MODEL).is_err());
        assert!(check(Kind::Buffered, b"{\"error\":{}}", UPSTREAM_MODEL).is_err());
        for damaged in [
            stream().replace("data: [DONE]\n\n", ""),
            stream().replace("word-07 ", "word-08 "),
            stream().replace("\"stop\"", "null"),
            stream() + "data: {}\n\n",
        ] {
            assert!(check(Kind::Streamed, damaged.as_bytes(), UPSTREAM_MODEL).is_err());
        }
    }

    #[test]
    fn the_upstream_recognises_each_request() {
        let addr = "127.0.0.1:1".parse().expect("an address");
        for kind in [Kind::Buffered, Kind::Streamed, Kind::Burst, Kind::Slow] {
            assert_eq!(Kind::of_request(&request(kind, addr)), kind);
        }
    }
}
