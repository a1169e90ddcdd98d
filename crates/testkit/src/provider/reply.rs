//! The script of one upstream reply: bytes, gates, pauses and ways to break off.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A point in a reply that the test opens. Cloning gives another handle to the same gate.
#[derive(Debug, Clone)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    reached: Arc<watch::Sender<bool>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self { open: Arc::new(watch::Sender::new(false)), reached: Arc::new(watch::Sender::new(false)) }
    }

    /// Lets everything that waits at the gate go on, now and later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until a provider stands at the gate.
    pub async fn reached(&self) {
        let mut reached = self.reached.subscribe();
        let wait = reached.wait_for(|yes| *yes);
        let seen = crate::within("the provider reaches the gate", wait).await;
        assert!(seen.is_ok(), "a gate outlives its waiters");
    }

    pub(super) async fn pass(&self) {
        self.reached.send_replace(true);
        let mut open = self.open.subscribe();
        // The sender lives in `self`, so the wait cannot end with an error.
        let _ = open.wait_for(|yes| *yes).await;
    }
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Bytes(Bytes),
    Gate(Gate),
    Pause(Duration),
    Reset,
    Close,
    Hang,
}

/// What the provider does with one request.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(super) script: Script,
}

#[derive(Debug, Clone)]
pub(super) enum Script {
    /// A plausible chat answer in the shape the request asks for.
    Chat(String),
    /// Exactly these steps.
    Steps(Vec<Step>),
}

impl Reply {
    fn steps(steps: Vec<Step>) -> Self {
        Self { script: Script::Steps(steps) }
    }

    /// A plausible chat completion that says `text`; streamed when the request asks for it, with usage when it asks for it.
    pub fn chat(text: &str) -> Self {
        Self { script: Script::Chat(text.to_owned()) }
    }

    /// Exactly these bytes, head included.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::steps(vec![Step::Bytes(bytes.into())])
    }

    /// A complete reply with a `Content-Length`.
    pub fn body(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::with_headers(status, &[("content-type", content_type)], body)
    }

    /// A complete reply with a `Content-Length` and these headers in order.
    pub fn with_headers(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let mut head = head(status, headers);
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        Self::steps(vec![Step::Bytes(head.into()), Step::Bytes(body)])
    }

    /// A JSON reply.
    pub fn json(status: u16, value: &Value) -> Self {
        Self::body(status, "application/json", value.to_string())
    }

    /// An OpenAI-shaped error.
    pub fn error(status: u16, message: &str) -> Self {
        let error = serde_json::json!({"error": {"message": message, "type": "some_upstream_type"}});
        Self::json(status, &error)
    }

    /// A gzip body with `Content-Encoding: gzip`, whatever the request accepted.
    pub fn gzip(status: u16, value: &Value) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let text = value.to_string();
        let body = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
        let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
        Self::with_headers(status, &headers, body.expect("gzip into memory"))
    }

    /// A redirect.
    pub fn redirect(location: &str) -> Self {
        Self::with_headers(307, &[("location", location)], "")
    }

    /// Never answers; the connection stays open.
    pub fn hang() -> Self {
        Self::steps(vec![Step::Hang])
    }

    /// Resets the connection (RST) instead of answering.
    pub fn reset() -> Self {
        Self::steps(vec![Step::Reset])
    }

    /// Closes the connection cleanly instead of answering.
    pub fn close() -> Self {
        Self::steps(vec![Step::Close])
    }

    /// A complete reply whose body ends early: `Content-Length` says `declared`, then the connection breaks off.
    pub fn short_body(declared: usize, body: impl Into<Bytes>, reset: bool) -> Self {
        let mut head = head(200, &[("content-type", "application/json")]);
        head.push_str(&format!("content-length: {declared}\r\n\r\n"));
        let end = if reset { Step::Reset } else { Step::Close };
        Self::steps(vec![Step::Bytes(head.into()), Step::Bytes(body.into()), end])
    }

    /// Closes the connection once the reply is sent, without having announced it.
    pub fn then_close(mut self) -> Self {
        match &mut self.script {
            Script::Steps(steps) => steps.push(Step::Close),
            Script::Chat(_) => panic!("`then_close` needs a fixed script"),
        }
        self
    }

    /// Puts a gate before everything else.
    pub fn after(mut self, gate: &Gate) -> Self {
        match &mut self.script {
            Script::Steps(steps) => steps.insert(0, Step::Gate(gate.clone())),
            Script::Chat(_) => panic!("`after` needs a fixed script"),
        }
        self
    }

    /// Sends the bytes of the reply in pieces of `size` with `pause` between them.
    pub fn drip(self, size: usize, pause: Duration) -> Self {
        let Script::Steps(steps) = self.script else {
            panic!("`drip` needs a fixed script");
        };
        let mut dripped = Vec::new();
        for step in steps {
            match step {
                Step::Bytes(bytes) => {
                    for piece in bytes.chunks(size) {
                        dripped.push(Step::Bytes(Bytes::copy_from_slice(piece)));
                        dripped.push(Step::Pause(pause));
                    }
                }
                other => dripped.push(other),
            }
        }
        Self::steps(dripped)
    }
}

fn head(status: u16, headers: &[(&str, &str)]) -> String {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head
}

/// Builds a chunked event stream step by step.
#[derive(Debug, Clone)]
pub struct Stream {
    steps: Vec<Step>,
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl Stream {
    /// Begins with status 200, `text/event-stream`, chunked.
    pub fn new() -> Self {
        Self::with_head(200, &[("content-type", "text/event-stream")])
    }

    /// Begins with any head; the body is chunked.
    pub fn with_head(status: u16, headers: &[(&str, &str)]) -> Self {
        let mut head = head(status, headers);
        head.push_str("transfer-encoding: chunked\r\n\r\n");
        Self { steps: vec![Step::Bytes(head.into())] }
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// One HTTP chunk with exactly this text.
    pub fn text(self, text: &str) -> Self {
        let mut chunk = format!("{:x}\r\n", text.len()).into_bytes();
        chunk.extend_from_slice(text.as_bytes());
        chunk.extend_from_slice(b"\r\n");
        self.step(Step::Bytes(chunk.into()))
    }

    /// One event with this JSON as data.
    pub fn json(self, value: &Value) -> Self {
        let frame = format!("data: {value}\n\n");
        self.text(&frame)
    }

    /// A chat chunk with this delta.
    pub fn delta(self, delta: &Value) -> Self {
        self.json(&chunk(delta, None))
    }

    /// A chat chunk that adds text.
    pub fn content(self, text: &str) -> Self {
        self.delta(&serde_json::json!({"content": text}))
    }

    /// The chunk that finishes the choice.
    pub fn finish(self, reason: &str) -> Self {
        self.json(&chunk(&serde_json::json!({}), Some(reason)))
    }

    /// The chunk that carries only usage.
    pub fn usage(self, prompt: u64, completion: u64) -> Self {
        let mut value = chunk(&serde_json::json!({}), None);
        value["choices"] = serde_json::json!([]);
        value["usage"] = usage(prompt, completion);
        self.json(&value)
    }

    /// `data: [DONE]`.
    pub fn done(self) -> Self {
        self.text("data: [DONE]\n\n")
    }

    /// Waits for the test.
    pub fn gate(self, gate: &Gate) -> Self {
        self.step(Step::Gate(gate.clone()))
    }

    /// Waits for a while; only for tests that are about time.
    pub fn pause(self, pause: Duration) -> Self {
        self.step(Step::Pause(pause))
    }

    /// Raw bytes, outside the chunk framing.
    pub fn raw(self, bytes: &[u8]) -> Self {
        self.step(Step::Bytes(Bytes::copy_from_slice(bytes)))
    }

    /// Ends the body properly.
    pub fn end(self) -> Reply {
        let stream = self.step(Step::Bytes(Bytes::from_static(b"0\r\n\r\n")));
        Reply::steps(stream.steps)
    }

    /// Closes the connection without the last chunk.
    pub fn cut(self) -> Reply {
        Reply::steps(self.step(Step::Close).steps)
    }

    /// Closes the connection in the middle of a chunk.
    pub fn cut_mid_chunk(self) -> Reply {
        self.raw(b"40\r\ndata: {\"id\":\"half").cut()
    }

    /// Resets the connection.
    pub fn reset(self) -> Reply {
        Reply::steps(self.step(Step::Reset).steps)
    }

    /// Stays open and silent.
    pub fn hang(self) -> Reply {
        Reply::steps(self.step(Step::Hang).steps)
    }
}

/// A chat chunk as the fake provider spells it.
pub fn chunk(delta: &Value, finish: Option<&str>) -> Value {
    serde_json::json!({
        "id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1_765_000_000, "model": "upstream-model",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    })
}

/// A usage object.
pub fn usage(prompt: u64, completion: u64) -> Value {
    serde_json::json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
    })
}
