//! Clients that leave while bytes stand behind their request: a stray line break, or requests sent ahead.

use aisix_e2e::{chat_body, idle, pair, started};
use aisix_testkit::gateway::builder::CALLER_KEY;
use aisix_testkit::{Authority, Client, FakeProvider, Gate, Gateway, RawConnection, Reply, Stream};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
const ONE_AND_A_HALF: &str = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\nPOST /v1/chat/comple";

/// What may stand behind a request.
const BEHIND: [(&str, &str); 5] = [
    ("a line break", "\r\n"),
    ("half a line break", "\r"),
    ("a request", LIVEZ),
    ("half a request", "GET /livez HTTP/1.1\r\nho"),
    ("a request and a half", ONE_AND_A_HALF),
];

/// A chat request as bytes.
fn chat(id: &str, extra: Value, chunked: bool) -> String {
    let body = chat_body(extra).to_string();
    let length = body.len();
    let (framing, body) = match chunked {
        false => (format!("content-length: {length}"), body),
        true => ("transfer-encoding: chunked".to_owned(), format!("{length:x}\r\n{body}\r\n0\r\n\r\n")),
    };
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CALLER_KEY}\r\n\
         content-type: application/json\r\nx-aisix-request-id: {id}\r\n{framing}\r\n\r\n{body}"
    )
}

/// Lets a client leave in the middle of a request and checks that everything is given back.
async fn leaves(
    (upstream, gateway): (&FakeProvider, &Gateway),
    mut raw: RawConnection,
    what: &str,
    request: &str,
    late: &str,
) {
    let count = upstream.requests().len() + 1;
    let stream = request.contains("\"stream\":true");
    upstream.push(if stream { Stream::new().content("first").hang() } else { Reply::hang() });
    raw.send(request.as_bytes()).await.expect("send");
    upstream.wait_requests(count).await;
    if stream {
        raw.until("first").await;
    }
    if !late.is_empty() {
        raw.send(late.as_bytes()).await.expect("send more");
        raw.taken().await;
    }
    let left = Instant::now();
    drop(raw);
    let closed = upstream.wait_closed(count).await;
    let took = closed[count - 1].at.saturating_duration_since(left);
    assert!(closed[count - 1].by_peer && took < Duration::from_secs(1), "{what}: {took:?}");
    let lines = gateway.access_of(&format!("gone-{count}")).await;
    assert_eq!(lines.len(), 1, "{what}: {lines:?}");
    assert_eq!(lines[0].get("status"), Some("499"), "{what}: {lines:?}");
    assert_eq!(lines[0].get("error_kind"), Some("client_disconnected"), "{what}: {lines:?}");
    assert_eq!(lines[0].get("routing_attempt_count"), Some("1"), "{what}: {lines:?}");
    idle(gateway).await;
}

/// The next request, whose record can be found.
fn next(upstream: &FakeProvider, stream: bool, chunked: bool) -> String {
    chat(&format!("gone-{}", upstream.requests().len() + 1), json!({"stream": stream}), chunked)
}

#[tokio::test]
async fn bytes_behind_the_request_do_not_hide_that_the_client_left() {
    let (upstream, gateway) = started().await;
    for (name, behind) in BEHIND {
        for stream in [false, true] {
            for chunked in [false, true] {
                let what = format!("{name}, stream {stream}, chunked {chunked}");
                let request = format!("{}{behind}", next(&upstream, stream, chunked));
                let raw = RawConnection::open(gateway.proxy).await;
                leaves((&upstream, &gateway), raw, &what, &request, "").await;
            }
        }
    }
}

#[tokio::test]
async fn bytes_that_come_during_the_answer_do_not_either() {
    let (upstream, gateway) = started().await;
    for (name, behind) in BEHIND {
        for stream in [false, true] {
            let request = next(&upstream, stream, false);
            let raw = RawConnection::open(gateway.proxy).await;
            let what = format!("{name}, later, stream {stream}");
            leaves((&upstream, &gateway), raw, &what, &request, behind).await;
        }
    }
}

#[tokio::test]
async fn nor_do_they_when_the_client_resets_the_connection() {
    let (upstream, gateway) = started().await;
    for stream in [false, true] {
        let request = format!("{}{ONE_AND_A_HALF}", next(&upstream, stream, false));
        let raw = RawConnection::open_abrupt(gateway.proxy).await;
        leaves((&upstream, &gateway), raw, "reset", &request, "").await;
    }
}

#[tokio::test]
async fn nor_do_they_within_tls() {
    let (upstream, builder) = pair().await;
    let authority = Authority::new("private");
    let (identity, config) = (authority.issue(), authority.client_config(&["http/1.1"]));
    let gateway = builder
        .file("cert.pem", &identity.cert)
        .file("key.pem", &identity.key)
        .set("/proxy/tls", json!({"cert_file": "cert.pem", "key_file": "key.pem"}))
        .start_with(|gateway| Client::tls(gateway.proxy, config.clone()))
        .await;
    for (name, behind) in BEHIND {
        for stream in [false, true] {
            let request = format!("{}{behind}", next(&upstream, stream, false));
            let raw = RawConnection::open_tls(gateway.proxy, config.clone()).await;
            leaves((&upstream, &gateway), raw, &format!("{name}, TLS"), &request, "").await;
        }
    }
}

/// A client that closes only its sending side has left, with or without bytes behind its request.
#[tokio::test]
async fn a_half_close_is_a_hang_up_either_way() {
    let (upstream, gateway) = started().await;
    for (count, behind) in [(1, ""), (2, "\r\n"), (3, LIVEZ)] {
        upstream.push(Reply::hang());
        let mut raw = RawConnection::open(gateway.proxy).await;
        let request = format!("{}{behind}", chat(&format!("half-{count}"), json!({}), false));
        raw.send(request.as_bytes()).await.expect("send");
        upstream.wait_requests(count).await;
        raw.finish_sending().await;
        upstream.wait_closed(count).await;
        let lines = gateway.access_of(&format!("half-{count}")).await;
        assert_eq!(lines[0].get("status"), Some("499"), "{behind:?}");
        assert_eq!(raw.until_closed().await, b"", "{behind:?}");
    }
    idle(&gateway).await;
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let (upstream, gateway) = started().await;
    let gate = Gate::new();
    let answer = |text: &str| json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]});
    for (how, size) in [("small", 10), ("larger than what is held", 200_000)] {
        upstream.push(Reply::json(200, &answer("0")).after(&gate));
        let mut raw = RawConnection::open(gateway.proxy).await;
        let padding = "p".repeat(size);
        let request =
            |number: usize| chat(&format!("{how}-{number}"), json!({"user": padding}), number % 2 == 1);
        raw.send(request(0).as_bytes()).await.expect("the first");
        gate.reached().await;
        // One at once, one in pieces, one not yet whole.
        let last = request(3);
        let (begin, end) = last.as_bytes().split_at(last.len() - 7);
        raw.send(format!("{}\r\n", request(1)).as_bytes()).await.expect("the second");
        for piece in request(2).as_bytes().chunks(size / 2 + 100) {
            raw.send(piece).await.expect("the third");
        }
        raw.send(begin).await.expect("most of the fourth");
        for number in 1..4 {
            upstream.push(Reply::json(200, &answer(&number.to_string())));
        }
        gate.open();
        for number in 0..3 {
            let reply = raw.reply().await.unwrap_or_else(|| panic!("{how}: no answer {number}"));
            assert_eq!(reply.status, 200, "{how}: {}", reply.text());
            assert_eq!(reply.json()["choices"][0]["message"]["content"], number.to_string());
        }
        raw.send(end).await.expect("the rest");
        assert_eq!(raw.reply().await.map(|reply| reply.status), Some(200));
        raw.send(LIVEZ.as_bytes()).await.expect("the connection is usable");
        assert_eq!(raw.reply().await.map(|reply| reply.text()), Some("ok".to_owned()));
    }
    idle(&gateway).await;
}

#[tokio::test]
async fn a_stream_is_followed_by_what_was_sent_ahead() {
    let (upstream, gateway) = started().await;
    for behind in [LIVEZ.to_owned(), format!("\r\n{LIVEZ}"), format!("{LIVEZ}\r\n")] {
        let gate = Gate::new();
        upstream.push(Stream::new().content("a").gate(&gate).finish("stop").done().end());
        let mut raw = RawConnection::open(gateway.proxy).await;
        let request = format!("{}{behind}", chat("ahead", json!({"stream": true}), false));
        raw.send(request.as_bytes()).await.expect("send");
        gate.reached().await;
        gate.open();
        let stream = raw.reply().await.expect("a stream");
        assert!(stream.text().ends_with("data: [DONE]\n\n"), "{}", stream.text());
        assert_eq!(raw.reply().await.map(|reply| reply.text()), Some("ok".to_owned()));
        raw.send(LIVEZ.as_bytes()).await.expect("the connection is usable");
        assert_eq!(raw.reply().await.map(|reply| reply.text()), Some("ok".to_owned()));
    }
}

#[tokio::test]
async fn a_line_break_behind_a_request_is_no_slow_head() {
    let (_upstream, builder) = pair().await;
    let gateway = builder.set("/downstream/head_timeout_secs", json!(1)).start().await;
    let mut raw = RawConnection::open(gateway.proxy).await;
    raw.send(format!("{LIVEZ}\r\n").as_bytes()).await.expect("send");
    assert_eq!(raw.reply().await.map(|reply| reply.status), Some(200));
    let more = tokio::time::timeout(Duration::from_millis(2500), raw.until_closed()).await;
    assert!(more.is_err(), "closed: {more:?}");
}
