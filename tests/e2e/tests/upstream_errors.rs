//! What the caller sees when the upstream refuses, breaks or talks nonsense; retries and deadlines.

use aisix_e2e::{chat_body, expect_error, idle, message, pair, started};
use aisix_testkit::gateway::builder::free_port;
use aisix_testkit::{FakeProvider, Gateway, Reply, Response};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn ask(gateway: &Gateway) -> Response {
    gateway.chat(&Gateway::hello(false)).await
}

/// A gateway with these fields added to its one model.
async fn with_model(fields: Value) -> (FakeProvider, Gateway) {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| {
            if let (Some(model), Value::Object(fields)) = (r["models"][0].as_object_mut(), fields) {
                model.extend(fields);
            }
        })
        .start()
        .await;
    (upstream, gateway)
}

#[tokio::test]
async fn statuses_are_normalised() {
    let (upstream, gateway) = started().await;
    for status in [400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 451] {
        upstream.push(Reply::error(status, "the upstream's own words"));
        let error = expect_error(ask(&gateway).await, status, "upstream_error").await;
        assert_eq!(message(&error), "the upstream's own words", "{status}");
    }
    for status in [500, 501, 502, 503, 504, 529] {
        upstream.push(Reply::error(status, "private detail"));
        let error = expect_error(ask(&gateway).await, 502, "upstream_error").await;
        assert_eq!(message(&error), format!("upstream returned {status}"));
    }
    upstream.push(Reply::with_headers(304, &[], ""));
    expect_error(ask(&gateway).await, 502, "upstream_error").await;
}

#[tokio::test]
async fn error_bodies_of_any_shape() {
    let (upstream, gateway) = started().await;
    let openai = json!({"error": {"message": "bad value", "type": "theirs", "param": "n", "code": "bad_n", "extra": 1}});
    upstream.push(Reply::body(400, "text/plain", openai.to_string()));
    let error = expect_error(ask(&gateway).await, 400, "upstream_error").await;
    assert_eq!(
        error,
        json!({"message": "bad value", "type": "upstream_error", "param": "n", "code": "bad_n"})
    );
    let numeric = json!({"error": {"message": "with a number", "code": 1234}});
    upstream.push(Reply::json(400, &numeric));
    let error = expect_error(ask(&gateway).await, 400, "upstream_error").await;
    assert_eq!(message(&error), "with a number");
    for (body, expected) in [
        ("plain words", "plain words"),
        ("<html>no</html>", "<html>no</html>"),
        ("{\"detail\": 1}", "{\"detail\": 1}"),
    ] {
        upstream.push(Reply::body(403, "text/html", body));
        let error = expect_error(ask(&gateway).await, 403, "upstream_error").await;
        assert_eq!(message(&error), expected);
    }
    upstream.push(Reply::body(400, "text/plain", ""));
    expect_error(ask(&gateway).await, 400, "upstream_error").await;
    let long = json!({"error": {"message": "ä".repeat(3000)}});
    upstream.push(Reply::json(400, &long));
    let error = expect_error(ask(&gateway).await, 400, "upstream_error").await;
    let text = message(&error);
    assert!(
        text.ends_with('…') && text.len() <= 1024 + '…'.len_utf8() && text.len() > 1000,
        "{}",
        text.len()
    );
}

#[tokio::test]
async fn ten_megabyte_error_bodies_are_bounded() {
    let (upstream, gateway) = started().await;
    let huge = vec![b'e'; 10 << 20];
    for (status, expected) in [(400, 400), (500, 502)] {
        upstream.push(Reply::body(status, "text/plain", huge.clone()));
        let error = expect_error(ask(&gateway).await, expected, "upstream_error").await;
        assert!(message(&error).len() < 1100);
    }
    let before = gateway.rss_kib();
    for _ in 0..5 {
        upstream.push(Reply::body(500, "text/plain", huge.clone()));
        expect_error(ask(&gateway).await, 502, "upstream_error").await;
    }
    assert!(gateway.rss_kib() < before + 20_000, "error bodies are not kept");
    assert_eq!(ask(&gateway).await.status, 200);
}

#[tokio::test]
async fn retry_after_is_relayed_on_429_only_and_only_as_seconds() {
    let (upstream, gateway) = started().await;
    for (status, hint, relayed) in [
        (429, "30", Some("30")),
        (429, "Wed, 21 Oct 2065 07:28:00 GMT", None),
        (429, "1.5", None),
        (503, "30", None),
        (400, "30", None),
    ] {
        upstream.push(Reply::with_headers(status, &[("retry-after", hint)], "{}"));
        let reply = ask(&gateway).await;
        assert_eq!(reply.header("retry-after"), relayed, "{status} {hint}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (upstream, gateway) = started().await;
    let elsewhere = FakeProvider::start().await;
    upstream.push(Reply::redirect(&format!("{}/chat/completions", elsewhere.base())));
    expect_error(ask(&gateway).await, 502, "upstream_error").await;
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn transport_failures_are_502_without_the_address() {
    let (upstream, gateway) = started().await;
    let broken = [
        Reply::reset(),
        Reply::close(),
        Reply::raw("garbage that is no http\r\n\r\n"),
        Reply::raw("HTTP/1.1 200 OK\r\nbroken header\r\n\r\n"),
        Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 9\r\n\r\nabc"),
        Reply::short_body(100, "{\"id\":", true),
        Reply::short_body(100, "{\"id\":", false),
    ];
    for reply in broken {
        let shown = format!("{reply:?}");
        upstream.push(reply);
        let answer = ask(&gateway).await;
        assert_eq!(answer.status, 502, "{shown}");
        let error = expect_error(answer, 502, "transport_error").await;
        assert!(message(&error).starts_with("transport error"), "{shown}: {error}");
        assert!(!message(&error).contains(&upstream.addr().port().to_string()), "{error}");
    }
    let dead = free_port();
    let gateway = Gateway::builder().upstream(&format!("http://127.0.0.1:{dead}/v1")).start().await;
    let error = expect_error(ask(&gateway).await, 502, "transport_error").await;
    assert!(message(&error).to_lowercase().contains("connection refused"), "{error}");
    assert!(!message(&error).contains(&dead.to_string()), "{error}");
}

#[tokio::test]
async fn undecodable_answers_are_502() {
    let (upstream, gateway) = started().await;
    for (content_type, body) in [
        ("text/html", "<html><body>Welcome to nginx</body></html>"),
        ("application/json", ""),
        ("application/json", "not json"),
        ("application/json", "{\"id\":\"x\",\"choices\":["),
        ("application/json", "[]"),
        ("application/json", "null"),
        ("application/json", "{\"hello\":\"world\"}"),
        ("application/json", "{\"choices\":17}"),
    ] {
        upstream.push(Reply::body(200, content_type, body));
        let error = expect_error(ask(&gateway).await, 502, "upstream_decode_error").await;
        assert!(message(&error).starts_with("upstream returned an unparseable body"), "{error}");
        assert!(!message(&error).contains("nginx"), "the upstream's page stays private: {error}");
    }
    let deep = format!("{{\"choices\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    upstream.push(Reply::body(200, "application/json", deep));
    let status = ask(&gateway).await.status;
    assert!(status == 200 || status == 502, "{status}");
    assert_eq!(ask(&gateway).await.status, 200);
}

#[tokio::test]
async fn gzip_is_either_decoded_or_refused() {
    let (upstream, gateway) = started().await;
    let answer = json!({"id": "u", "model": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "zipped"}, "finish_reason": "stop"}]});
    upstream.push(Reply::gzip(200, &answer));
    let mut reply = ask(&gateway).await;
    match reply.status {
        200 => assert_eq!(reply.json().await["choices"][0]["message"]["content"], "zipped"),
        _ => drop(expect_error(reply, 502, "upstream_decode_error").await),
    }
    upstream.push(Reply::gzip(400, &json!({"error": {"message": "zipped words"}})));
    let error = expect_error(ask(&gateway).await, 400, "upstream_error").await;
    assert!(
        !message(&error).contains('\u{fffd}') && !message(&error).contains('\u{1f}'),
        "no binary rubbish: {error}"
    );
    upstream.push(Reply::with_headers(
        200,
        &[("content-encoding", "gzip"), ("content-type", "application/json")],
        "not gzip",
    ));
    expect_error(ask(&gateway).await, 502, "upstream_decode_error").await;
}

#[tokio::test]
async fn deadlines_are_504_and_name_no_host() {
    let (upstream, gateway) = with_model(json!({"timeout": 200})).await;
    let slow = Reply::json(200, &json!({"choices": []})).drip(1, Duration::from_millis(50));
    for reply in [Reply::hang(), slow, Reply::short_body(100, "{", false).drip(1, Duration::from_millis(50))]
    {
        upstream.push(reply);
        let begun = Instant::now();
        let error = expect_error(ask(&gateway).await, 504, "timeout").await;
        assert_eq!(message(&error), "upstream request timed out after 200ms");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    upstream.wait_closed(3).await;
    idle(&gateway).await;
    assert_eq!(ask(&gateway).await.status, 200);
}

#[tokio::test]
async fn the_deployment_deadline_holds_unless_the_model_says_otherwise() {
    for (fields, times_out) in [(json!({}), true), (json!({"timeout": 0}), false)] {
        let (upstream, builder) = pair().await;
        let gateway = builder
            .set("/upstream/timeout_ms", json!(200))
            .edit(|r| {
                if let (Some(model), Value::Object(fields)) = (r["models"][0].as_object_mut(), fields) {
                    model.extend(fields);
                }
            })
            .start()
            .await;
        let gate = aisix_testkit::Gate::new();
        let answer = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "late"}, "finish_reason": "stop"}]});
        upstream.push(Reply::json(200, &answer).after(&gate));
        let opener = async {
            gate.reached().await;
            // The deadline has to be able to pass before the answer comes: this is the wait under test.
            tokio::time::sleep(Duration::from_millis(400)).await;
            gate.open();
        };
        let (reply, ()) = tokio::join!(ask(&gateway), opener);
        assert_eq!(reply.status, if times_out { 504 } else { 200 });
    }
}

#[tokio::test]
async fn retryable_failures_are_retried_with_one_id_and_back_off() {
    let (upstream, gateway) = with_model(json!({"retries": 2})).await;
    for stream in [false, true] {
        let seen = upstream.requests().len();
        upstream.push(Reply::error(503, "busy")).push(Reply::reset());
        let reply = gateway.chat(&Gateway::hello(stream)).await;
        assert_eq!(reply.status, 200);
        let id = reply.header("x-aisix-request-id").map(str::to_owned);
        drop(reply);
        let tries = upstream.requests().split_off(seen);
        assert_eq!(tries.len(), 3);
        assert!(tries.iter().all(|t| t.header("x-aisix-request-id") == id.as_deref()));
        assert!(tries.iter().all(|t| t.body == tries[0].body));
        let gaps = [tries[1].at - tries[0].at, tries[2].at - tries[1].at];
        assert!(gaps[0] >= Duration::from_millis(245) && gaps[0] < Duration::from_millis(900), "{gaps:?}");
        assert!(gaps[1] >= Duration::from_millis(495) && gaps[1] < Duration::from_millis(1300), "{gaps:?}");
    }
}

#[tokio::test]
async fn retries_are_counted_and_the_last_error_is_the_answer() {
    for (deployment, model, calls) in
        [(json!(0), json!({}), 1), (json!(1), json!({}), 2), (json!(5), json!({"retries": 0}), 1)]
    {
        let (upstream, builder) = pair().await;
        let gateway = builder
            .set("/upstream/retries", deployment)
            .edit(|r| {
                if let (Some(entry), Value::Object(fields)) = (r["models"][0].as_object_mut(), model) {
                    entry.extend(fields);
                }
            })
            .start()
            .await;
        upstream.push(Reply::error(500, "first"));
        upstream.set_default(Reply::error(529, "later"));
        let error = expect_error(ask(&gateway).await, 502, "upstream_error").await;
        let last = if calls == 1 { "upstream returned 500" } else { "upstream returned 529" };
        assert_eq!((message(&error), upstream.requests().len()), (last, calls));
    }
}

#[tokio::test]
async fn client_errors_are_final_and_a_short_retry_after_is_honoured() {
    let (upstream, gateway) = with_model(json!({"retries": 2})).await;
    for status in [400, 401, 404, 429] {
        let seen = upstream.requests().len();
        upstream.push(Reply::error(status, "no"));
        expect_error(ask(&gateway).await, status, "upstream_error").await;
        assert_eq!(upstream.requests().len() - seen, 1, "{status}");
    }
    let seen = upstream.requests().len();
    upstream.push(Reply::with_headers(503, &[("retry-after", "1")], "{}"));
    assert_eq!(ask(&gateway).await.status, 200);
    let tries = upstream.requests().split_off(seen);
    let gap = tries[1].at - tries[0].at;
    assert!(gap >= Duration::from_millis(995) && gap < Duration::from_millis(2000), "{gap:?}");
}

#[tokio::test]
async fn timeouts_are_retried_only_when_retries_are_explicit() {
    for (fields, calls) in [(json!({"timeout": 150}), 1), (json!({"timeout": 150, "retries": 1}), 2)] {
        let (upstream, builder) = pair().await;
        let gateway = builder
            .set("/upstream/retries", json!(1))
            .edit(|r| {
                if let (Some(model), Value::Object(fields)) = (r["models"][0].as_object_mut(), fields) {
                    model.extend(fields);
                }
            })
            .start()
            .await;
        upstream.set_default(Reply::hang());
        expect_error(ask(&gateway).await, 504, "timeout").await;
        assert_eq!(upstream.requests().len(), calls);
    }
}

#[tokio::test]
async fn connections_are_reused_and_a_stale_one_is_not_an_error() {
    let (upstream, gateway) = started().await;
    for _ in 0..5 {
        assert_eq!(ask(&gateway).await.status, 200);
    }
    let connections: Vec<usize> = upstream.requests().iter().map(|r| r.connection).collect();
    assert_eq!(connections, [0; 5], "one worker, one connection");
    let answer = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]});
    for count in 1..=5 {
        upstream.push(Reply::json(200, &answer).then_close());
        assert_eq!(ask(&gateway).await.status, 200);
        upstream.wait_closed(count).await;
        assert_eq!(ask(&gateway).await.status, 200, "the pooled connection was closed in between");
    }
}

#[tokio::test]
async fn idle_upstream_connections_are_not_used_past_their_time() {
    let (upstream, builder) = pair().await;
    let gateway = builder.set("/upstream/pool_idle_timeout_secs", json!(1)).start().await;
    assert_eq!(ask(&gateway).await.status, 200);
    // The idle time has to pass: this is the wait under test.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(ask(&gateway).await.status, 200);
    let requests = upstream.requests();
    assert_ne!(requests[0].connection, requests[1].connection);
}

#[tokio::test]
async fn a_refusal_of_a_large_request_reaches_the_caller() {
    let (upstream, gateway) = started().await;
    upstream.push(Reply::error(413, "too long"));
    let big = "x".repeat(3 << 20);
    let reply = gateway.chat(&chat_body(json!({"messages": [{"role": "user", "content": big}]}))).await;
    let error = expect_error(reply, 413, "upstream_error").await;
    assert_eq!(message(&error), "too long");
}
