//! The provider's side of one TCP connection: read a request, run its script, notice when the peer leaves.

use super::reply::{Reply, Script, Step, Stream, usage};
use super::{Closed, Recorded, Shared};
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Usage that the default reply reports.
const PROMPT_TOKENS: u64 = 5;
const COMPLETION_TOKENS: u64 = 3;

/// How a script ended.
enum Outcome {
    /// The connection can take another request.
    Complete,
    /// The provider broke off.
    Broke,
    /// The peer went away.
    PeerLeft,
}

pub(super) async fn connection(mut socket: TcpStream, id: usize, shared: Arc<Shared>) {
    let _ = socket.set_nodelay(true);
    let mut buffer = BytesMut::new();
    let mut requests = 0;
    let mut by_peer = true;
    let mut mid_reply = false;
    while let Some(mut request) = read_request(&mut socket, &mut buffer).await {
        request.connection = id;
        let reply = shared.take_reply();
        requests += 1;
        let steps = script_of(reply, &request);
        shared.record(request);
        match run(&mut socket, &mut buffer, steps).await {
            Outcome::Complete => {}
            Outcome::Broke => {
                by_peer = false;
                break;
            }
            Outcome::PeerLeft => {
                mid_reply = true;
                break;
            }
        }
    }
    shared.open.fetch_sub(1, Ordering::SeqCst);
    shared.close(Closed { connection: id, requests, by_peer, mid_reply, at: Instant::now() });
}

async fn run(socket: &mut TcpStream, buffer: &mut BytesMut, steps: Vec<Step>) -> Outcome {
    for step in steps {
        let left = match step {
            Step::Bytes(bytes) => match write(socket, buffer, &bytes).await {
                true => continue,
                false => true,
            },
            Step::Gate(gate) => tokio::select! {
                () = gate.pass() => false,
                () = peer_leaves(socket, buffer) => true,
            },
            Step::Pause(pause) => tokio::select! {
                () = tokio::time::sleep(pause) => false,
                () = peer_leaves(socket, buffer) => true,
            },
            Step::Hang => {
                peer_leaves(socket, buffer).await;
                true
            }
            Step::Close => {
                let _ = socket.shutdown().await;
                return Outcome::Broke;
            }
            Step::Reset => {
                let _ = socket.set_zero_linger();
                return Outcome::Broke;
            }
        };
        if left {
            return Outcome::PeerLeft;
        }
    }
    Outcome::Complete
}

/// Writes everything while still noticing that the peer left.
async fn write(socket: &mut TcpStream, buffer: &mut BytesMut, bytes: &[u8]) -> bool {
    let (mut reader, mut writer) = socket.split();
    let mut rest = bytes;
    while !rest.is_empty() {
        tokio::select! {
            wrote = writer.write(rest) => match wrote {
                Ok(count) if count > 0 => rest = &rest[count..],
                _ => return false,
            },
            read = reader.read_buf(buffer) => match read {
                Ok(count) if count > 0 => {}
                _ => return false,
            },
        }
    }
    true
}

/// Returns when the peer has closed or reset the connection; early bytes of a next request are kept.
async fn peer_leaves(socket: &mut TcpStream, buffer: &mut BytesMut) {
    while matches!(socket.read_buf(buffer).await, Ok(count) if count > 0) {}
}

async fn read_request(socket: &mut TcpStream, buffer: &mut BytesMut) -> Option<Recorded> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if !matches!(socket.read_buf(buffer).await, Ok(count) if count > 0) {
            return None;
        }
    };
    let head = buffer.split_to(head_end);
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let mut start = lines.next()?.split(' ');
    let (method, path) = (start.next()?.to_owned(), start.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut request =
        Recorded { connection: 0, method, path, headers, body: Bytes::new(), at: Instant::now() };
    if request.wants_continue() {
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    request.body = read_body(socket, buffer, &request).await?;
    Some(request)
}

async fn read_body(socket: &mut TcpStream, buffer: &mut BytesMut, request: &Recorded) -> Option<Bytes> {
    let chunked = request.header("transfer-encoding");
    if chunked.is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        let mut body = BytesMut::new();
        loop {
            let line = take_line(socket, buffer).await?;
            let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            let chunk = take(socket, buffer, size + 2).await?;
            if size == 0 {
                return Some(body.freeze());
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    let length = request.header("content-length").unwrap_or("0");
    take(socket, buffer, length.parse().ok()?).await
}

async fn take(socket: &mut TcpStream, buffer: &mut BytesMut, count: usize) -> Option<Bytes> {
    while buffer.len() < count {
        if !matches!(socket.read_buf(buffer).await, Ok(read) if read > 0) {
            return None;
        }
    }
    Some(buffer.split_to(count).freeze())
}

async fn take_line(socket: &mut TcpStream, buffer: &mut BytesMut) -> Option<String> {
    loop {
        if let Some(at) = buffer.windows(2).position(|w| w == b"\r\n") {
            let line = buffer.split_to(at + 2);
            return Some(String::from_utf8_lossy(&line[..at]).into_owned());
        }
        if !matches!(socket.read_buf(buffer).await, Ok(read) if read > 0) {
            return None;
        }
    }
}

fn script_of(reply: Reply, request: &Recorded) -> Vec<Step> {
    let text = match reply.script {
        Script::Steps(steps) => return steps,
        Script::Chat(text) => text,
    };
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let model = body.get("model").cloned().unwrap_or(json!("unnamed"));
    if body["stream"] != json!(true) {
        let message = json!({"role": "assistant", "content": text});
        return fixed(Reply::json(
            200,
            &json!({
                "id": "chatcmpl-fake", "object": "chat.completion", "created": 1_765_000_000, "model": model,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": usage(PROMPT_TOKENS, COMPLETION_TOKENS),
            }),
        ));
    }
    let (first, second) = text.split_at(text.find(' ').unwrap_or(text.len()));
    let mut stream = Stream::new()
        .delta(&json!({"role": "assistant", "content": ""}))
        .content(first)
        .content(second)
        .finish("stop");
    if body["stream_options"]["include_usage"] == json!(true) {
        stream = stream.usage(PROMPT_TOKENS, COMPLETION_TOKENS);
    }
    fixed(stream.done().end())
}

fn fixed(reply: Reply) -> Vec<Step> {
    match reply.script {
        Script::Steps(steps) => steps,
        Script::Chat(_) => Vec::new(),
    }
}
