//! Request heads that are refused, or admitted, for what they are: hosts, sizes, declared lengths.

use aisix_e2e::{chat_body, check_error_object, idle, message, pair, started};
use aisix_testkit::gateway::builder::CALLER_KEY;
use aisix_testkit::{Client, Gateway, RawConnection, RawReply, Request};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const CHAT: &str = "POST /v1/chat/completions HTTP/1.1";

/// Sends bytes on a connection of their own and reads the answer.
async fn answer(addr: SocketAddr, bytes: &str) -> RawReply {
    let mut raw = RawConnection::open(addr).await;
    let _ = raw.send(bytes.as_bytes()).await;
    raw.reply().await.unwrap_or_else(|| panic!("no answer to {bytes:.200}"))
}

/// A chat head with these header lines, each with its line end.
fn head(lines: &str) -> String {
    format!(
        "{CHAT}\r\nhost: x\r\nauthorization: Bearer {CALLER_KEY}\r\ncontent-type: application/json\r\n{lines}\r\n"
    )
}

#[tokio::test]
async fn a_host_is_named_once() {
    let (upstream, gateway) = started().await;
    let body = chat_body(json!({})).to_string();
    let framing = format!(
        "authorization: Bearer {CALLER_KEY}\r\ncontent-type: application/json\r\ncontent-length: {}",
        body.len()
    );
    for (start, hosts, text) in [
        (CHAT, "", "missing Host header"),
        (CHAT, "host: x\r\nhost: x\r\n", "more than one Host header"),
        (CHAT, "Host: x\r\nHOST: y\r\n", "more than one Host header"),
        ("POST /v1/chat/completions HTTP/1.0", "host: x\r\nhost: y\r\n", "more than one Host header"),
        ("GET /livez HTTP/1.1", "", "missing Host header"),
        ("GET /nope HTTP/1.1", "", "missing Host header"),
        ("GET http://x/livez HTTP/1.1", "", "missing Host header"),
    ] {
        let reply = answer(gateway.proxy, &format!("{start}\r\n{hosts}{framing}\r\n\r\n{body}")).await;
        assert_eq!(reply.status, 400, "{start} {hosts:?}: {}", reply.text());
        let error = check_error_object(&reply.json(), "invalid_request_error");
        assert_eq!(message(&error), text, "{start} {hosts:?}");
        assert!(reply.header("x-aisix-request-id").is_some());
    }
    assert!(upstream.requests().is_empty());
    for (addr, path) in [(gateway.admin, "/livez"), (gateway.metrics, "/status/ready")] {
        for hosts in ["", "host: x\r\nhost: x\r\n"] {
            assert_eq!(
                answer(addr, &format!("GET {path} HTTP/1.1\r\n{hosts}\r\n")).await.status,
                400,
                "{path}"
            );
        }
        for good in [format!("GET {path} HTTP/1.1\r\nhost:\r\n\r\n"), format!("GET {path} HTTP/1.0\r\n\r\n")]
        {
            assert_eq!(answer(addr, &good).await.status, 200, "{good:?}");
        }
    }
    for start in
        ["POST /v1/chat/completions HTTP/1.0\r\n", "POST /v1/chat/completions HTTP/1.0\r\nhost: x\r\n"]
    {
        let reply = answer(gateway.proxy, &format!("{start}{framing}\r\n\r\n{body}")).await;
        assert_eq!(reply.status, 200, "{start:?}: {}", reply.text());
    }
    let request = || Gateway::chat_request(&Gateway::hello(false));
    assert_eq!(Client::http2(gateway.proxy).send(request()).await.status, 200);
    assert_eq!(gateway.send(request()).await.status, 200);
}

#[tokio::test]
async fn both_protocols_admit_large_headers() {
    let (_upstream, gateway) = started().await;
    let large = "v".repeat(300_000);
    for client in [gateway.client(), Client::http2(gateway.proxy)] {
        let request = Gateway::chat_request(&Gateway::hello(false)).header("x-large", &large);
        assert_eq!(client.send(request).await.status, 200);
    }
    let huge = "v".repeat(2_000_000);
    for client in [gateway.client(), Client::http2(gateway.proxy)] {
        let request = Gateway::chat_request(&Gateway::hello(false)).header("x-large", &huge);
        // The client may still be writing when the refusal closes the connection.
        if let Ok(reply) = client.try_send(request).await {
            assert_eq!(reply.status, 431);
        }
    }
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
}

#[tokio::test]
async fn what_is_too_large_is_named() {
    let (upstream, gateway) = started().await;
    for length in ["18446744073709551615", "18446744073709551614"] {
        let reply = answer(gateway.proxy, &head(&format!("content-length: {length}\r\n"))).await;
        assert_eq!(reply.status, 413, "{length}: {}", reply.text());
        let error = check_error_object(&reply.json(), "invalid_request_error");
        assert_eq!(message(&error), "the declared length of the request body is too large");
    }
    let path = "p".repeat(100_000);
    let reply = answer(gateway.proxy, &format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert_eq!(reply.status, 414);
    let error = check_error_object(&reply.json(), "invalid_request_error");
    assert_eq!(message(&error), "the request target is too long");
    let many: String = (0..200).map(|n| format!("x-{n}: v\r\n")).collect();
    let reply = answer(gateway.proxy, &head(&many)).await;
    let error = check_error_object(&reply.json(), "invalid_request_error");
    assert_eq!((reply.status, message(&error)), (431, "the request head is too large"));
    let name = "m".repeat(1 << 20);
    let mut reply = gateway.chat(&chat_body(json!({"model": name}))).await;
    let body = reply.json().await;
    let error = check_error_object(&body, "model_not_found");
    assert_eq!(message(&error), format!("model \"{}…\" not found", "m".repeat(256)));
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_body_that_cannot_be_read_ends_the_connection_and_says_so() {
    let (upstream, gateway) = started().await;
    for body in ["zz\r\nx", "5\r\n{\"mod__", "ffffffffffffffffff\r\n"] {
        let mut raw = RawConnection::open(gateway.proxy).await;
        let request = format!("{}{body}", head("transfer-encoding: chunked\r\n"));
        raw.send(request.as_bytes()).await.expect("send");
        let reply = raw.reply().await.expect("an answer");
        assert_eq!((reply.status, reply.header("connection")), (400, Some("close")), "{body:?}");
        check_error_object(&reply.json(), "invalid_request_error");
        raw.until_closed().await;
    }
    assert!(upstream.requests().is_empty());
    idle(&gateway).await;
}

#[tokio::test]
async fn a_body_that_stops_is_waited_for_once() {
    let (_upstream, builder) = pair().await;
    let gateway = builder.set("/proxy/request_body_limit_bytes", json!(1000)).start().await;
    let mut raw = RawConnection::open(gateway.proxy).await;
    raw.send(head("content-length: 5000\r\n").as_bytes()).await.expect("head");
    raw.send(b"the start").await.expect("a part");
    let begun = Instant::now();
    let reply = raw.reply().await.expect("an answer");
    let took = begun.elapsed();
    assert_eq!((reply.status, reply.header("connection")), (413, Some("close")));
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(8), "{took:?}");
    raw.until_closed().await;
    gateway.wait_log("drain_outcome=\"timeout\"").await;
    // One that is larger than what is read off is cut at that, not at twice that.
    let mut raw = RawConnection::open(gateway.proxy).await;
    raw.send(head("content-length: 104857600\r\n").as_bytes()).await.expect("head");
    let block = vec![b'x'; 1 << 20];
    let mut taken = 0;
    while taken < 100 && raw.send(&block).await.is_ok() {
        taken += 1;
    }
    assert!((32..60).contains(&taken), "{taken} MiB were taken");
}

#[tokio::test]
async fn the_status_of_a_refused_length_does_not_depend_on_cuts() {
    let (_upstream, gateway) = started().await;
    let request = head("content-length: 18446744073709551615\r\n");
    for cut in [request.len() - 30, request.len() - 10, request.len() - 2, request.len() - 1] {
        let mut raw = RawConnection::open(gateway.proxy).await;
        raw.send(&request.as_bytes()[..cut]).await.expect("a part");
        raw.taken().await;
        raw.send(&request.as_bytes()[cut..]).await.expect("the rest");
        assert_eq!(raw.reply().await.map(|reply| reply.status), Some(413), "cut at {cut}");
    }
    let livez = Request::get("/livez");
    assert_eq!(gateway.send(livez).await.status, 200);
}
