//! Requests that are refused before their body was read: the client gets the answer, not a broken connection.

use aisix_e2e::{check_error_object, idle, started};
use aisix_testkit::gateway::builder::CALLER_KEY;
use aisix_testkit::{Authority, Client, Gateway, RawConnection, RawReply, Request};
use serde_json::json;
use std::time::{Duration, Instant};

const PATH: &str = "/v1/chat/completions";
const SIZES: [usize; 2] = [1 << 20, 8 << 20];

/// A request that is refused for its head alone.
struct Refused {
    path: &'static str,
    key: &'static str,
    content_type: &'static str,
    status: u16,
    kind: &'static str,
}

const CASES: [Refused; 3] = [
    Refused {
        path: PATH,
        key: "sk-wrong",
        content_type: "application/json",
        status: 401,
        kind: "invalid_api_key",
    },
    Refused {
        path: PATH,
        key: CALLER_KEY,
        content_type: "text/plain",
        status: 400,
        kind: "invalid_request_error",
    },
    Refused {
        path: "/v1/nope",
        key: CALLER_KEY,
        content_type: "application/json",
        status: 404,
        kind: "invalid_request_error",
    },
];

impl Refused {
    fn head(&self, framing: &str) -> String {
        format!(
            "POST {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {}\r\n{framing}\r\n",
            self.path, self.key, self.content_type
        )
    }

    fn check(&self, what: &str, reply: Option<RawReply>) {
        let reply = reply.unwrap_or_else(|| panic!("{what}: no whole answer"));
        assert_eq!(reply.status, self.status, "{what}: {}", reply.text());
        check_error_object(&reply.json(), self.kind);
        assert!(reply.header("x-aisix-request-id").is_some(), "{what}: {reply:?}");
    }
}

#[tokio::test]
async fn a_client_that_sends_everything_first_reads_the_whole_answer() {
    let (upstream, gateway) = started().await;
    for case in &CASES {
        for size in SIZES {
            let what = format!("{} with {size} bytes", case.status);
            let mut raw = RawConnection::open(gateway.proxy).await;
            let head = case.head(&format!("content-length: {size}\r\n"));
            raw.send(head.as_bytes()).await.expect("head");
            let sent = raw.send(&vec![b'x'; size]).await;
            sent.unwrap_or_else(|error| panic!("{what}: the gateway left during the body: {error}"));
            case.check(&what, raw.reply().await);
        }
    }
    assert!(upstream.requests().is_empty());
    idle(&gateway).await;
}

#[tokio::test]
async fn a_body_of_unknown_length_is_read_off_too() {
    let (upstream, gateway) = started().await;
    let chunk = format!("40000\r\n{}\r\n", "x".repeat(0x40000));
    for case in &CASES {
        for size in SIZES {
            let what = format!("{} with {size} bytes in chunks", case.status);
            let mut raw = RawConnection::open(gateway.proxy).await;
            raw.send(case.head("transfer-encoding: chunked\r\n").as_bytes()).await.expect("head");
            for _ in 0..size / 0x40000 {
                let sent = raw.send(chunk.as_bytes()).await;
                sent.unwrap_or_else(|error| panic!("{what}: the gateway left during the body: {error}"));
            }
            raw.send(b"0\r\n\r\n").await.expect("last chunk");
            case.check(&what, raw.reply().await);
        }
    }
    assert!(upstream.requests().is_empty());
    idle(&gateway).await;
}

#[tokio::test]
async fn the_connection_serves_on_after_a_refused_body() {
    let (_upstream, gateway) = started().await;
    let mut raw = RawConnection::open(gateway.proxy).await;
    for case in &CASES {
        raw.send(case.head("content-length: 1048576\r\n").as_bytes()).await.expect("head");
        raw.send(&vec![b'x'; 1 << 20]).await.expect("body");
        case.check("on a kept connection", raw.reply().await);
    }
    raw.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the connection is usable");
    assert_eq!(raw.reply().await.map(|reply| reply.status), Some(200));
}

#[tokio::test]
async fn ordinary_clients_get_the_answer_over_every_protocol() {
    let authority = Authority::new("private");
    let (_upstream, builder) = aisix_e2e::pair().await;
    let (cert, key) = {
        let identity = authority.issue();
        (identity.cert, identity.key)
    };
    let config = authority.client_config(&[]);
    let tls = builder
        .clone()
        .file("cert.pem", &cert)
        .file("key.pem", &key)
        .set("/proxy/tls", json!({"cert_file": "cert.pem", "key_file": "key.pem"}))
        .start_with(|gateway| Client::tls(gateway.proxy, config.clone()))
        .await;
    let plain = builder.start().await;
    let clients = [
        ("HTTP/1.1", Client::new(plain.proxy)),
        ("HTTP/2", Client::http2(plain.proxy)),
        ("HTTP/1.1 over TLS", Client::tls(tls.proxy, authority.client_config(&["http/1.1"]))),
        ("HTTP/2 over TLS", Client::tls(tls.proxy, authority.client_config(&["h2"]))),
    ];
    for (protocol, client) in clients {
        for case in &CASES {
            for size in SIZES {
                let request = Request::new("POST", case.path)
                    .bearer(case.key)
                    .header("content-type", case.content_type)
                    .body(vec![b'x'; size]);
                let reply = client.try_send(request).await;
                let what = format!("{protocol}, {} with {size} bytes", case.status);
                let mut reply = reply.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_eq!(reply.status, case.status, "{what}");
                check_error_object(&reply.json().await, case.kind);
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_at_once() {
    let (upstream, gateway) = started().await;
    for case in &CASES {
        for framing in ["content-length: 8388608\r\n", "transfer-encoding: chunked\r\n"] {
            let mut raw = RawConnection::open(gateway.proxy).await;
            let head = case.head(&format!("expect: 100-continue\r\n{framing}"));
            let begun = Instant::now();
            raw.send(head.as_bytes()).await.expect("head");
            case.check(framing, raw.reply().await);
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(1), "{} after {took:?}", case.status);
        }
    }
    assert!(upstream.requests().is_empty());
    // The one that is let in hears so and is answered.
    let body = Gateway::hello(false).to_string();
    let welcome = Refused { key: CALLER_KEY, status: 200, ..CASES[0] };
    let head = welcome.head(&format!("expect: 100-continue\r\ncontent-length: {}\r\n", body.len()));
    let mut raw = RawConnection::open(gateway.proxy).await;
    raw.send(head.as_bytes()).await.expect("head");
    raw.send(body.as_bytes()).await.expect("body");
    assert_eq!(raw.reply().await.map(|reply| reply.status), Some(200));
}

#[tokio::test]
async fn a_refused_body_that_never_comes_is_given_up() {
    let (upstream, gateway) = started().await;
    let case = &CASES[0];
    let mut raw = RawConnection::open(gateway.proxy).await;
    raw.send(case.head("content-length: 1048576\r\n").as_bytes()).await.expect("head");
    raw.send(b"a few bytes").await.expect("the start of a body");
    // The answer waits for the rest, but not for long.
    case.check("a body that stops", raw.reply().await);
    raw.until_closed().await;
    assert!(upstream.requests().is_empty());
    idle(&gateway).await;
}

#[tokio::test]
async fn refused_bodies_are_not_kept() {
    let (_upstream, gateway) = started().await;
    let before = gateway.rss_kib();
    let case = &CASES[0];
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut raw = RawConnection::open(gateway.proxy).await;
        raw.send(case.head("content-length: 8388608\r\n").as_bytes()).await.expect("head");
        raw.send(&vec![b'x'; (8 << 20) - 1]).await.expect("all but the last byte");
        raw.taken().await;
        open.push(raw);
    }
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more for 64 MiB of refused bodies");
    for mut raw in open {
        raw.send(b"x").await.expect("the last byte");
        case.check("all bytes in the end", raw.reply().await);
    }
}
