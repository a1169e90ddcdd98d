//! Hostile and broken requests: each gets a clear error, nothing leaks upstream, the process stays alive and idle.

use aisix_e2e::{chat_body, expect_error, idle, message, pair, started};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL};
use aisix_testkit::{FakeProvider, Gateway, RawConnection, Request};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PATH: &str = "/v1/chat/completions";
const INVALID: &str = "request payload is invalid: invalid JSON request body";

/// The gateway still answers, and nothing is left running.
async fn alive(gateway: &mut Gateway) {
    assert!(gateway.is_running(), "the process died: {:#?}", gateway.log());
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    idle(gateway).await;
    let log = gateway.log();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:#?}");
}

/// Sends a chat body as raw bytes.
async fn send_bytes(gateway: &Gateway, body: impl Into<bytes::Bytes>) -> aisix_testkit::Response {
    let request = Request::new("POST", PATH).bearer(CALLER_KEY).header("content-type", "application/json");
    gateway.send(request.body(body)).await
}

fn head(extra: &str) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CALLER_KEY}\r\ncontent-type: application/json\r\n{extra}\r\n"
    )
}

#[tokio::test]
async fn bodies_that_are_no_json() {
    let (upstream, mut gateway) = started().await;
    let good = chat_body(json!({})).to_string();
    let mut not_utf8 = good.clone().into_bytes();
    let at = good.find("\"hi\"").expect("the text") + 1;
    not_utf8[at] = 0xff;
    let cases: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"{".to_vec(),
        b"{not json}".to_vec(),
        b"nul".to_vec(),
        b"\0\0\0\0".to_vec(),
        format!("{good}x").into_bytes(),
        format!("{good}{good}").into_bytes(),
        format!("{good},").into_bytes(),
        good.replace("\"hi\"", "NaN").into_bytes(),
        good.replace("\"hi\"", "'hi'").into_bytes(),
        good.replace("\"hi\"", "\"h\ni\"").into_bytes(),
        good.replace("\"hi\"", "\"\\x\"").into_bytes(),
        good.replace("\"hi\"", "01").into_bytes(),
        good.trim_end_matches('}').as_bytes().to_vec(),
        not_utf8,
        vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0],
    ];
    for body in cases {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let error = expect_error(send_bytes(&gateway, body).await, 400, "invalid_request_error").await;
        assert!(message(&error).starts_with("request payload is invalid: "), "{shown:?}: {error}");
    }
    let error = expect_error(send_bytes(&gateway, "{").await, 400, "invalid_request_error").await;
    assert!(message(&error).starts_with(INVALID), "{error}");
    assert!(upstream.requests().is_empty());
    alive(&mut gateway).await;
}

#[tokio::test]
async fn json_of_the_wrong_shape() {
    let (upstream, mut gateway) = started().await;
    let user = json!([{"role": "user", "content": "hi"}]);
    let cases = [
        json!([]),
        json!("text"),
        json!(null),
        json!(17),
        json!({}),
        json!({"messages": user}),
        json!({"model": MODEL}),
        json!({"model": null, "messages": user}),
        json!({"model": 5, "messages": user}),
        json!({"model": ["a"], "messages": user}),
        json!({"model": MODEL, "messages": null}),
        json!({"model": MODEL, "messages": {}}),
        json!({"model": MODEL, "messages": "hi"}),
        json!({"model": MODEL, "messages": ["hi"]}),
        json!({"model": MODEL, "messages": [{"content": "no role"}]}),
        json!({"model": MODEL, "messages": [{"role": "robot", "content": "hi"}]}),
        json!({"model": MODEL, "messages": [{"role": 1, "content": "hi"}]}),
        json!({"model": MODEL, "messages": [{"role": "user", "content": 5}]}),
        json!({"model": MODEL, "messages": [{"role": "user", "content": {"a": 1}}]}),
        json!({"model": MODEL, "messages": user, "stream": "yes"}),
        json!({"model": MODEL, "messages": user, "stream": 1}),
        json!({"model": MODEL, "messages": user, "temperature": "hot"}),
        json!({"model": MODEL, "messages": user, "top_p": []}),
        json!({"model": MODEL, "messages": user, "max_tokens": -1}),
        json!({"model": MODEL, "messages": user, "max_tokens": 1.5}),
        json!({"model": MODEL, "messages": user, "max_tokens": 4_294_967_296_u64}),
    ];
    let mut accepted = Vec::new();
    for body in cases {
        let reply = gateway.chat(&body).await;
        if reply.status == 200 {
            accepted.push(body);
            continue;
        }
        let error = expect_error(reply, 400, "invalid_request_error").await;
        assert!(message(&error).starts_with("request payload is invalid: "), "{body}: {error}");
    }
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
    let empty = gateway.chat(&json!({"model": MODEL, "messages": []})).await;
    let error = expect_error(empty, 400, "invalid_request_error").await;
    assert_eq!(message(&error), "request payload is invalid: messages array must not be empty");
    assert!(upstream.requests().is_empty());
    let nulls = chat_body(json!({"stream": null, "temperature": null, "top_p": null, "max_tokens": null}));
    assert_eq!(gateway.chat(&nulls).await.status, 200, "null is allowed where the contract says so");
    alive(&mut gateway).await;
}

#[tokio::test]
async fn wrong_content_types() {
    let (upstream, mut gateway) = started().await;
    let body = chat_body(json!({})).to_string();
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some(""),
    ] {
        let mut request = Request::new("POST", PATH).bearer(CALLER_KEY).body(body.clone());
        if let Some(value) = content_type {
            request = request.header("content-type", value);
        }
        let reply = gateway.send(request).await;
        assert_eq!(reply.status, 400, "{content_type:?}");
        let error = expect_error(reply, 400, "invalid_request_error").await;
        assert!(message(&error).starts_with(INVALID), "{content_type:?}: {error}");
    }
    assert!(upstream.requests().is_empty());
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"] {
        let request = Request::new("POST", PATH).bearer(CALLER_KEY).body(body.clone());
        assert_eq!(
            gateway.send(request.header("content-type", content_type)).await.status,
            200,
            "{content_type}"
        );
    }
    alive(&mut gateway).await;
}

#[tokio::test]
async fn deep_nesting_is_refused_everywhere() {
    let (upstream, mut gateway) = started().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        let known = r#""model":"test-model","messages":[{"role":"user","content":"hi"}]"#;
        for body in [
            deep.clone(),
            format!("{{{known},\"extra\":{deep}}}"),
            format!("{{\"extra\":{deep},{known}}}"),
            format!(r#"{{"model":"test-model","messages":[{{"role":"user","content":{deep}}}]}}"#),
            format!(r#"{{"model":{deep},"messages":[]}}"#),
            open.repeat(100_000),
        ] {
            let reply = send_bytes(&gateway, body.clone()).await;
            assert_eq!(reply.status, 400, "{body:.80}");
            expect_error(reply, 400, "invalid_request_error").await;
        }
    }
    assert!(upstream.requests().is_empty());
    alive(&mut gateway).await;
}

#[tokio::test]
async fn repeated_members_cannot_smuggle_a_model_past_the_access_check() {
    let (upstream, builder) = pair().await;
    let mut gateway = builder
        .edit(|r| {
            let models = r["models"].as_array_mut().expect("models");
            models.push(json!({"display_name": "secret-model", "provider": "openai", "model_name": "secret-up", "provider_key": "main"}));
            let key = json!({"display_name": "k2", "key_hash": aisix_testkit::key_hash("k2"), "allowed_models": [MODEL]});
            r["api_keys"].as_array_mut().expect("api_keys").push(key);
        })
        .start()
        .await;
    for (first, second) in
        [("test-model", "secret-up"), ("secret-up", "test-model"), ("test-model", "secret-model")]
    {
        for spelling in ["model", "mod\\u0065l"] {
            let body = format!(
                r#"{{"model":"{first}","messages":[{{"role":"user","content":"hi"}}],"{spelling}":"{second}"}}"#
            );
            let reply = gateway.send(Request::post_text(PATH, &body).bearer("k2")).await;
            if reply.status == 200 {
                let seen = upstream.last_request().text();
                assert!(!seen.contains("secret"), "{body} was relayed as {seen}");
            }
        }
    }
    alive(&mut gateway).await;
}

#[tokio::test]
async fn odd_model_names_are_plain_404() {
    let (upstream, mut gateway) = started().await;
    let long = "m".repeat(1 << 20);
    for model in [" ", "\u{0}\u{7}\n\"\\", "test-model ", "../../etc", "😀", "*", long.as_str()] {
        let reply = gateway.chat(&chat_body(json!({"model": model}))).await;
        let error = expect_error(reply, 404, "model_not_found").await;
        assert!(message(&error).starts_with("model \""), "{error}");
    }
    assert!(upstream.requests().is_empty());
    assert!(!gateway.scrape().await.mentions("../"), "callers' strings are no labels");
    alive(&mut gateway).await;
}

/// A gateway with a body limit of 1 MiB.
async fn limited() -> (FakeProvider, Gateway) {
    let (upstream, builder) = pair().await;
    let gateway = builder.set("/proxy/request_body_limit_bytes", json!(1 << 20)).start().await;
    (upstream, gateway)
}

#[tokio::test]
async fn a_declared_oversize_is_413_before_authentication_and_keeps_the_connection() {
    let (upstream, mut gateway) = limited().await;
    let text = "request body exceeds 1048576-byte limit";
    let mut raw = RawConnection::open(gateway.proxy).await;
    let request = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 2097152\r\n\r\n");
    raw.send(request.as_bytes()).await.expect("head");
    raw.send(&vec![b'x'; 2 << 20]).await.expect("the refused body is read to its end");
    let reply = raw.reply().await.expect("a reply");
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (413, &json!("invalid_request_error")));
    assert_eq!(reply.json()["error"]["message"], text);
    let id = reply.header("x-aisix-request-id").expect("a request id").to_owned();
    raw.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the connection is usable");
    assert_eq!(raw.reply().await.map(|r| r.status), Some(200));
    let line = gateway.access_of(&id).await.remove(0);
    assert_eq!((line.get("status"), line.get("path")), (Some("413"), Some(PATH)));
    assert!(line.get("error").is_some_and(|e| e.contains("request body exceeds")), "{line:?}");
    let log = gateway.wait_log("request body exceeded the configured limit").await;
    for field in [
        "declared_content_length=2097152",
        "configured_limit_bytes=1048576",
        "drained_bytes=2097152",
        "drain_outcome=\"completed\"",
    ] {
        assert!(log.contains(field), "{field} not in {log}");
    }
    gateway.wait_metric("aisix_requests_total", &[("status", "413")], 1.0).await;
    let labels = [("endpoint", PATH), ("inbound_protocol", "openai"), ("outcome", "completed")];
    gateway.wait_metric("aisix_proxy_request_body_limit_rejections_total", &labels, 1.0).await;
    assert!(upstream.requests().is_empty());
    alive(&mut gateway).await;
}

#[tokio::test]
async fn a_chunked_oversize_is_413_after_authentication() {
    let (upstream, mut gateway) = limited().await;
    let chunk = format!("40000\r\n{}\r\n", "x".repeat(0x40000));
    for (key, status) in [(CALLER_KEY, 413), ("wrong", 401)] {
        let mut raw = RawConnection::open(gateway.proxy).await;
        let request = head("transfer-encoding: chunked\r\n").replace(CALLER_KEY, key);
        raw.send(request.as_bytes()).await.expect("head");
        for _ in 0..8 {
            if raw.send(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        let _ = raw.send(b"0\r\n\r\n").await;
        if let Some(reply) = raw.reply().await {
            assert_eq!((reply.status, reply.json()["error"]["message"].is_string()), (status, true));
        }
    }
    assert!(upstream.requests().is_empty());
    alive(&mut gateway).await;
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_or_relayed_but_never_fatal() {
    let (upstream, mut gateway) = limited().await;
    let mut raw = RawConnection::open(gateway.proxy).await;
    raw.send(head("content-length: 104857600\r\n").as_bytes()).await.expect("head");
    let block = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        if raw.send(&block).await.is_err() {
            break;
        }
    }
    if let Some(reply) = raw.reply().await {
        assert_eq!(reply.status, 413);
    }
    assert!(upstream.requests().is_empty());
    assert!(gateway.rss_kib() < 100_000, "a refused body is not kept: {} KiB", gateway.rss_kib());
    alive(&mut gateway).await;
    // Without a limit any size passes.
    let (upstream, mut gateway) = started().await;
    let mut body = format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":""#).into_bytes();
    body.resize(100 << 20, b'y');
    body.extend_from_slice(br#""}]}"#);
    assert_eq!(send_bytes(&gateway, body).await.status, 200);
    assert!(upstream.last_request().body.len() > 100 << 20);
    alive(&mut gateway).await;
}

#[tokio::test]
async fn slow_bodies_and_heads_are_given_up() {
    let (upstream, builder) = pair().await;
    let mut gateway = builder
        .set("/downstream/body_timeout_secs", json!(1))
        .set("/downstream/head_timeout_secs", json!(1))
        .start()
        .await;
    let mut stalled = RawConnection::open(gateway.proxy).await;
    stalled.send(head("content-length: 500\r\n").as_bytes()).await.expect("head");
    stalled.send(b"{").await.expect("first byte");
    let begun = Instant::now();
    let reply = stalled.reply().await.expect("an answer");
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (408, &json!("invalid_request_error")));
    assert_eq!(reply.json()["error"]["message"], "request body did not arrive in time");
    assert!(begun.elapsed() < Duration::from_secs(4));
    let mut dripping = RawConnection::open(gateway.proxy).await;
    dripping.send(head("content-length: 500\r\n").as_bytes()).await.expect("head");
    let begun = Instant::now();
    // One byte now and then keeps the gap short; the whole still has to arrive.
    while begun.elapsed() < Duration::from_secs(10) && dripping.send(b" ").await.is_ok() {
        let more = tokio::time::timeout(Duration::from_millis(200), dripping.reply()).await;
        if let Ok(reply) = more {
            assert_eq!(reply.map(|r| r.status), Some(408));
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    let mut headless = RawConnection::open(gateway.proxy).await;
    headless.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost:").await.expect("half a head");
    let begun = Instant::now();
    headless.until_closed().await;
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert!(upstream.requests().is_empty());
    alive(&mut gateway).await;
}

#[tokio::test]
async fn request_smuggling_is_refused() {
    let (upstream, mut gateway) = started().await;
    let body = chat_body(json!({})).to_string();
    let length = body.len();
    let smuggled = "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let cases = [
        (format!("content-length: {length}\r\ncontent-length: {length}\r\n"), body.clone()),
        (
            format!("content-length: {length}\r\ncontent-length: {}\r\n", length + smuggled.len()),
            format!("{body}{smuggled}"),
        ),
        (format!("content-length: {length}, {length}\r\n"), body.clone()),
        (format!("content-length: +{length}\r\n"), body.clone()),
        (format!("content-length: {length}x\r\n"), body.clone()),
        ("content-length: -1\r\n".to_owned(), body.clone()),
        ("content-length: 99999999999999999999999999\r\n".to_owned(), body.clone()),
        (
            format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
            format!("{chunked}{smuggled}"),
        ),
        ("transfer-encoding: gzip, identity\r\n".to_owned(), body.clone()),
        ("transfer-encoding: chunked, identity\r\n".to_owned(), chunked.clone()),
        ("transfer-encoding: xchunked\r\n".to_owned(), chunked.clone()),
        (format!("transfer-encoding : chunked\r\ncontent-length: {length}\r\n"), chunked.clone()),
        ("transfer-encoding: chunked\r\n".to_owned(), format!("zz\r\n{body}\r\n0\r\n\r\n")),
        ("transfer-encoding: chunked\r\n".to_owned(), format!("ffffffffffffffffff\r\n{body}\r\n0\r\n\r\n")),
    ];
    for (headers, payload) in cases {
        let mut raw = RawConnection::open(gateway.proxy).await;
        let request = format!("{}{payload}", head(&headers));
        let _ = raw.send(request.as_bytes()).await;
        let reply = raw.reply().await.unwrap_or_else(|| panic!("{headers:?}: closed without an answer"));
        assert_eq!(reply.status, 400, "{headers:?}: {}", reply.text());
        if headers.matches("content-length:").count() == 2 {
            assert!(reply.text().contains("conflicting Content-Length headers"), "{headers:?}: {reply:?}");
        }
        raw.finish_sending().await;
        let rest = String::from_utf8_lossy(&raw.until_closed().await).into_owned();
        assert!(!rest.contains("HTTP/1.1 "), "{headers:?} gave a second reply: {rest}");
    }
    assert!(upstream.requests().is_empty());
    alive(&mut gateway).await;
}

#[tokio::test]
async fn header_floods_and_protocol_noise() {
    let (upstream, mut gateway) = started().await;
    let many = (0..5000).fold(String::new(), |all, n| format!("{all}x-{n}: v\r\n"));
    let large = format!("x-large: {}\r\n", "v".repeat(2 << 20));
    for flood in [many, large] {
        let mut raw = RawConnection::open(gateway.proxy).await;
        let _ = raw.send(head(&flood).as_bytes()).await;
        if let Some(reply) = raw.reply().await {
            assert!((400..500).contains(&reply.status), "{}", reply.status);
        }
    }
    let noise: [&[u8]; 7] = [
        b"\r\n\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  /v1/models  HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a settings frame at all",
        b"GET /livez HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
    ];
    for bytes in noise {
        let mut raw = RawConnection::open(gateway.proxy).await;
        let _ = raw.send(bytes).await;
        raw.finish_sending().await;
        let answer = raw.until_closed().await;
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{bytes:?}");
    }
    assert!(upstream.requests().is_empty());
    alive(&mut gateway).await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_reaches_the_upstream() {
    let (upstream, mut gateway) = started().await;
    for headers in ["content-length: 500\r\n", "transfer-encoding: chunked\r\n"] {
        let mut raw = RawConnection::open(gateway.proxy).await;
        raw.send(head(headers).as_bytes()).await.expect("head");
        raw.send(b"64\r\n{\"model\":\"test-model\"").await.expect("a part");
        raw.finish_sending().await;
        let text = String::from_utf8_lossy(&raw.until_closed().await).into_owned();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{text}");
    }
    assert!(upstream.requests().is_empty());
    alive(&mut gateway).await;
}

#[tokio::test]
async fn errors_do_not_repeat_what_was_sent() {
    let (_upstream, mut gateway) = started().await;
    let body = json!({"model": MODEL, "messages": [{"role": "robot", "content": "my private text"}]});
    let reply = gateway.chat(&body).await;
    let error = expect_error(reply, 400, "invalid_request_error").await;
    assert!(!error.to_string().contains("private"), "{error}");
    let log = gateway.log().join("\n");
    assert!(!log.contains("private text"), "{log}");
    assert_ne!(error["message"], Value::Null);
    alive(&mut gateway).await;
}
