//! Streamed chat: relay, usage, keep-alive, every way a stream can fail, and hang-ups.

use aisix_e2e::{chat_body, content_of, expect_error, expect_error_frame, idle, message, pair, started};
use aisix_testkit::gateway::builder::MODEL;
use aisix_testkit::provider::{chunk, usage};
use aisix_testkit::{Authority, FakeProvider, Gate, Gateway, Reply, SseFrame, Stream, TlsFront};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Streams one answer through a new gateway and returns its frames.
async fn frames_of(reply: Reply) -> Vec<SseFrame> {
    let (upstream, gateway) = started().await;
    upstream.push(reply);
    let mut answer = gateway.chat(&Gateway::hello(true)).await;
    assert_eq!(answer.status, 200);
    answer.events().await
}

/// A gateway whose model has a stream budget, so that the head waits for the first chunk.
async fn with_budget(millis: u64) -> (FakeProvider, Gateway) {
    let (upstream, builder) = pair().await;
    let gateway = builder.edit(|r| r["models"][0]["stream_timeout"] = json!(millis)).start().await;
    (upstream, gateway)
}

fn expect_done_once(frames: &[SseFrame]) {
    assert_eq!(frames.iter().filter(|f| f.is_done()).count(), 1, "{frames:#?}");
    assert!(frames.last().is_some_and(|f| f.is_done()), "{frames:#?}");
}

#[tokio::test]
async fn a_plain_stream() {
    let (upstream, gateway) = started().await;
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").is_some_and(|c| c.starts_with("text/event-stream")));
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
    assert_eq!(reply.header("x-aisix-call-id"), reply.header("x-aisix-request-id"));
    let frames = reply.events().await;
    expect_done_once(&frames);
    assert_eq!(content_of(&frames), "Hello from upstream");
    for frame in &frames[..frames.len() - 1] {
        assert_eq!(frame.event, None);
        assert_eq!(frame.json()["model"], MODEL);
    }
    assert_eq!(frames[0].json()["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(frames.len(), 5, "usage-only chunk is dropped: {frames:#?}");
    let request = upstream.only_request();
    assert_eq!(request.header("accept"), Some("text/event-stream"));
    assert_eq!(request.json()["stream"], true);
    assert_eq!(request.json()["stream_options"], json!({"include_usage": true}));
}

#[tokio::test]
async fn usage_is_shown_exactly_when_asked_for() {
    let (upstream, gateway) = started().await;
    for (options, upstream_sees, shown) in [
        (json!({"include_usage": true}), json!({"include_usage": true}), 1),
        (json!({"include_usage": true, "x": 1}), json!({"include_usage": true, "x": 1}), 1),
        (json!({"include_usage": false}), json!({"include_usage": false}), 0),
        (json!({}), json!({}), 0),
    ] {
        let body = chat_body(json!({"stream": true, "stream_options": options}));
        let frames = gateway.chat(&body).await.events().await;
        expect_done_once(&frames);
        assert_eq!(upstream.last_request().json()["stream_options"], upstream_sees);
        let with_usage: Vec<Value> = frames
            .iter()
            .filter(|f| !f.is_done())
            .map(|f| f.json())
            .filter(|v| v["usage"].is_object())
            .collect();
        assert_eq!(with_usage.len(), shown, "{options}: {frames:#?}");
        for value in with_usage {
            assert_eq!(value["usage"], usage(5, 3));
            assert_eq!(value["model"], MODEL);
        }
    }
}

#[tokio::test]
async fn usage_beside_a_finish_reason_is_kept() {
    let mut last = chunk(&json!({}), Some("stop"));
    last["usage"] = usage(7, 2);
    let frames = frames_of(Stream::new().content("a").json(&last).done().end()).await;
    expect_done_once(&frames);
    assert_eq!(frames[1].json()["usage"], usage(7, 2));
}

#[tokio::test]
async fn chunks_keep_unknown_fields_order_and_spelling() {
    let text = r#"{ "z":1.10,"id":"u-1","object":"chat.completion.chunk","created":17,"model":"up","system_fingerprint":null,"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\": 1e2"}}],"content":null},"logprobs":null,"finish_reason":"tool_calls"}],"a":-0.0 }"#;
    let frames = frames_of(Stream::new().text(&format!("data: {text}\n\n")).done().end()).await;
    let expected = text.replace("\"model\":\"up\"", &format!("\"model\":\"{MODEL}\""));
    assert_eq!(frames[0].data.as_deref(), Some(expected.as_str()));
    expect_done_once(&frames);
}

#[tokio::test]
async fn every_spelling_of_an_event_stream_is_understood() {
    let one = chunk(&json!({"content": "a"}), None).to_string();
    let two = chunk(&json!({"content": "b"}), Some("stop")).to_string();
    let (head, tail) = one.split_at(one.find(",\"model\"").unwrap_or(1) + 1);
    let texts = [
        format!("data: {one}\n\ndata: {two}\n\ndata: [DONE]\n\n"),
        format!("data:{one}\n\ndata:{two}\n\ndata:[DONE]\n\n"),
        format!("data: {one}\r\n\r\ndata: {two}\r\n\r\ndata: [DONE]\r\n\r\n"),
        format!("data: {one}\r\rdata: {two}\r\rdata: [DONE]\r\r"),
        format!(
            ": hello\n\nid: 1\nevent: message\nretry: 5\ndata: {one}\n\n:\n\ndata: {two}\n\ndata: [DONE]\n\n"
        ),
        format!("data: {head}\ndata: {tail}\n\ndata: {two}\n\ndata: [DONE]\n\n"),
        format!("data: {one}\n\ndata: {two}\n\n"),
        format!("data: {one}\n\ndata: {two}"),
        format!("data: {one}\n\ndata: {two}\n\ndata: [DONE]"),
        format!("data: {one}\n\ndata: {two}\n\ndata: [DONE]\n\ndata: {one}\n\ndata: [DONE]\n\n"),
        format!("\u{feff}data: {one}\n\ndata: {two}\n\ndata: [DONE]\n\n"),
    ];
    let (upstream, gateway) = started().await;
    for text in texts {
        for size in [1, 7, text.len()] {
            let pieces = text.as_bytes().chunks(size);
            let stream = pieces.fold(Stream::new(), |s, piece| {
                let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
                framed.extend_from_slice(piece);
                framed.extend_from_slice(b"\r\n");
                s.raw(&framed)
            });
            upstream.push(stream.end());
            let frames = gateway.chat(&Gateway::hello(true)).await.events().await;
            assert_eq!(content_of(&frames), "ab", "{text:?} in pieces of {size}: {frames:?}");
            expect_done_once(&frames);
        }
    }
}

#[tokio::test]
async fn chunks_are_forwarded_as_they_come() {
    let (upstream, gateway) = started().await;
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    let stream = Stream::new().gate(&gates[0]).content("1").gate(&gates[1]).content("2").gate(&gates[2]);
    upstream.push(stream.finish("stop").done().end());
    // The head comes before the first chunk.
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    assert_eq!(reply.status, 200);
    for (gate, text) in gates.iter().zip(["1", "2", ""]) {
        gate.reached().await;
        gate.open();
        let content = reply.event().await.json()["choices"][0]["delta"]["content"].clone();
        assert_eq!(content.as_str().unwrap_or_default(), text);
    }
    expect_done_once(&reply.events().await);
}

#[tokio::test]
async fn reasoning_is_renamed_in_chunks() {
    let stream = Stream::new()
        .delta(&json!({"role": "assistant", "content": "", "reasoning": "why"}))
        .delta(&json!({"reasoning_content": "because"}));
    let frames = frames_of(stream.content("a").finish("stop").done().end()).await;
    let delta = |at: usize| frames[at].json()["choices"][0]["delta"].clone();
    assert_eq!(delta(0)["reasoning_content"], "why");
    assert!(delta(0).get("reasoning").is_none());
    assert_eq!(delta(1)["reasoning_content"], "because");
}

#[tokio::test]
async fn a_stream_without_done_but_finished_is_complete() {
    for reply in [
        Stream::new().content("a").finish("length").end(),
        Stream::new().content("a").finish("stop").usage(1, 1).end(),
    ] {
        expect_done_once(&frames_of(reply).await);
    }
}

#[tokio::test]
async fn a_broken_stream_ends_in_an_error_frame() {
    let other_choice = json!({"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": null}]});
    let begun = || Stream::new().content("a");
    let cases: Vec<(&str, Reply)> = vec![
        ("ends without finish", begun().end()),
        ("[DONE] without finish", begun().done().end()),
        ("one choice unfinished", begun().json(&other_choice).finish("stop").done().end()),
        ("cut", begun().cut()),
        ("cut inside a chunk", begun().cut_mid_chunk()),
        ("reset", begun().reset()),
        ("cut inside an event", begun().text("data: {\"id\":\"x\",\"cho").end()),
        ("not JSON", begun().text("data: {not json}\n\n").finish("stop").done().end()),
        ("JSON but no object", begun().text("data: 17\n\n").finish("stop").done().end()),
        ("broken chunk framing", begun().raw(b"zzz\r\nnonsense\r\n").cut()),
        ("nothing at all", Stream::new().end()),
    ];
    for (what, reply) in cases {
        let frames = frames_of(reply).await;
        let error = expect_error_frame(&frames);
        let kinds = ["transport_error", "upstream_decode_error", "stream_aborted"];
        assert!(kinds.iter().any(|kind| error["type"] == *kind), "{what}: {error}");
        if what != "nothing at all" {
            assert_eq!(frames[0].json()["choices"][0]["delta"]["content"], "a", "{what}");
        }
    }
}

#[tokio::test]
async fn in_band_errors_end_the_stream() {
    for (frame, text) in [
        (
            json!({"error": {"message": "overloaded now", "type": "server_error", "code": 503}}),
            "overloaded now",
        ),
        (json!({"error": "just text"}), "just text"),
    ] {
        let frames = frames_of(Stream::new().content("a").json(&frame).done().end()).await;
        let error = expect_error_frame(&frames);
        assert_eq!(error["type"], "upstream_in_band_error", "{error}");
        let expected = format!("upstream reported an in-band stream error: {text}");
        assert_eq!(message(&error), expected);
    }
}

#[tokio::test]
async fn an_event_that_is_an_error_by_its_name_ends_the_stream() {
    let (upstream, gateway) = started().await;
    for (data, text) in [
        (r#"{"message":"overloaded"}"#, "overloaded"),
        (r#"{"error":{"message":"overloaded"}}"#, "overloaded"),
        ("Overloaded", "Overloaded"),
    ] {
        let event = format!("event: error\ndata: {data}\n\n");
        upstream.push(Stream::new().content("a").text(&event).finish("stop").done().end());
        let frames = gateway.chat(&Gateway::hello(true)).await.events().await;
        let error = expect_error_frame(&frames);
        assert_eq!(error["type"], "upstream_in_band_error", "{error}");
        assert_eq!(message(&error), format!("upstream reported an in-band stream error: {text}"));
    }
    gateway.wait_metric("aisix_proxy_failed_requests_total", &[], 3.0).await;
}

#[tokio::test]
async fn a_frame_that_is_no_chunk_is_not_passed_on() {
    let no_chunk = Stream::new().content("a").text("data: {\"message\":\"overloaded\"}\n\n");
    let frames = frames_of(no_chunk.finish("stop").done().end()).await;
    assert_eq!(expect_error_frame(&frames)["type"], "upstream_decode_error");
    let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    let frames =
        frames_of(Stream::new().text(ping).content("a").text(ping).finish("stop").done().end()).await;
    expect_done_once(&frames);
    assert_eq!(content_of(&frames), "a");
    assert!(!frames.iter().any(|frame| frame.raw.contains("ping")), "{frames:#?}");
}

#[tokio::test]
async fn a_stalled_stream_times_out() {
    let (upstream, gateway) = with_budget(200).await;
    upstream.push(Stream::new().content("a").hang());
    let frames = gateway.chat(&Gateway::hello(true)).await.events().await;
    let error = expect_error_frame(&frames);
    assert_eq!(error["type"], "timeout");
    assert!(!message(&error).contains("127.0.0.1"), "{error}");
    upstream.wait_closed(1).await;
    // The gap is measured anew after each chunk: longer in all than the budget, but never silent for that long.
    let mut slow = Stream::new();
    for _ in 0..5 {
        slow = slow.content("x").pause(Duration::from_millis(60));
    }
    upstream.push(slow.finish("stop").done().end());
    let frames = gateway.chat(&Gateway::hello(true)).await.events().await;
    assert_eq!(content_of(&frames), "xxxxx");
    expect_done_once(&frames);
}

#[tokio::test]
async fn the_deployment_stream_timeout_bounds_gaps_too() {
    let (upstream, builder) = pair().await;
    let gateway = builder.set("/upstream/stream_timeout_ms", json!(200)).start().await;
    upstream.push(Stream::new().hang());
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    assert_eq!(reply.status, 200, "the head is not held back for a deployment default");
    assert_eq!(expect_error_frame(&reply.events().await)["type"], "timeout");
}

#[tokio::test]
async fn with_a_budget_on_the_model_a_bad_first_chunk_is_a_real_status() {
    let (upstream, gateway) = with_budget(200).await;
    let in_band = |code: Value| Stream::new().json(&json!({"error": {"message": "no", "code": code}})).end();
    let cases: Vec<(Reply, u16, &str)> = vec![
        (Stream::new().hang(), 504, "timeout"),
        (Reply::hang(), 504, "timeout"),
        (Stream::new().end(), 502, "stream_aborted"),
        (Stream::new().reset(), 502, "transport_error"),
        (Stream::new().text("data: nonsense\n\n").end(), 502, "upstream_decode_error"),
        (in_band(json!(422)), 422, "upstream_error"),
        (in_band(json!("404")), 404, "upstream_error"),
        (in_band(json!(503)), 502, "upstream_error"),
        (in_band(json!("odd")), 502, "upstream_error"),
    ];
    for (reply, status, kind) in cases {
        let shown = format!("{reply:?}");
        upstream.push(reply);
        let answer = gateway.chat(&Gateway::hello(true)).await;
        assert_eq!(answer.status, status, "{shown:.300}");
        expect_error(answer, status, kind).await;
    }
}

#[tokio::test]
async fn a_body_that_is_no_event_stream_is_never_a_success() {
    let (upstream, gateway) = started().await;
    let whole = json!({"id": "u", "model": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]});
    for reply in [
        Reply::body(200, "text/html", "<html><body>Login</body></html>"),
        Reply::json(200, &whole),
        Reply::body(200, "text/event-stream", ""),
        Reply::gzip(200, &whole),
        Reply::body(200, "application/octet-stream", vec![0u8; 4096]),
    ] {
        upstream.push(reply);
        let mut answer = gateway.chat(&Gateway::hello(true)).await;
        match answer.status {
            200 => drop(expect_error_frame(&answer.events().await)),
            502 => drop(answer.json().await),
            other => panic!("status {other}"),
        }
    }
    gateway.wait_metric("aisix_proxy_failed_requests_total", &[], 5.0).await;
    assert_eq!(gateway.scrape().await.sum("aisix_proxy_requests_total", &[("outcome", "success")]), 0.0);
}

#[tokio::test]
async fn errors_before_the_head_are_ordinary_errors() {
    let (upstream, gateway) = started().await;
    for (status, expected) in [(400, 400), (429, 429), (500, 502), (503, 502)] {
        upstream.push(Reply::error(status, "no"));
        expect_error(gateway.chat(&Gateway::hello(true)).await, expected, "upstream_error").await;
    }
    upstream.push(Reply::reset());
    expect_error(gateway.chat(&Gateway::hello(true)).await, 502, "transport_error").await;
}

#[tokio::test]
async fn keep_alive_comments_before_and_between_chunks() {
    let (upstream, builder) = pair().await;
    let gateway = builder.set("/downstream/sse_keepalive_interval_secs", json!(1)).start().await;
    let (first, second) = (Gate::new(), Gate::new());
    upstream.push(Stream::new().gate(&first).content("a").gate(&second).finish("stop").done().end());
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    for _ in 0..2 {
        assert_eq!(reply.frame().await.map(|f| f.raw), Some(":\n\n".to_owned()));
    }
    first.open();
    assert_eq!(reply.event().await.json()["choices"][0]["delta"]["content"], "a");
    assert_eq!(reply.frame().await.map(|f| f.raw), Some(":\n\n".to_owned()));
    second.open();
    expect_done_once(&reply.events().await);
}

#[tokio::test]
async fn a_hang_up_closes_the_upstream_within_a_second() {
    let (upstream, gateway) = started().await;
    upstream.push(Stream::new().content("a").hang());
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    reply.event().await;
    let left = Instant::now();
    drop(reply);
    let closed = upstream.wait_closed(1).await;
    let took = closed[0].at.saturating_duration_since(left);
    assert!(closed[0].by_peer && closed[0].mid_reply && took < Duration::from_secs(1), "{took:?}");
    idle(&gateway).await;
    // The same while the upstream has not answered at all, and for a buffered request.
    for (count, stream) in [(2, true), (3, false)] {
        upstream.push(Reply::hang());
        let client = gateway.client();
        let request = Gateway::chat_request(&Gateway::hello(stream));
        let waiting = tokio::spawn(async move { client.try_send(request).await.is_ok() });
        upstream.wait_requests(count).await;
        let left = Instant::now();
        waiting.abort();
        let closed = upstream.wait_closed(count).await;
        let took = closed[count - 1].at.saturating_duration_since(left);
        assert!(took < Duration::from_secs(1), "{took:?}");
        idle(&gateway).await;
    }
    assert_eq!(gateway.chat(&Gateway::hello(true)).await.status, 200);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let (upstream, gateway) = started().await;
    let block = "y".repeat(10_000);
    let stream = (0..300).fold(Stream::new(), |s, _| s.content(&block));
    upstream.push(stream.finish("stop").done().end());
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    let first = reply.event().await;
    // The upstream has to wait while nothing is read; other requests go on.
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    let mut frames = reply.events().await;
    frames.insert(0, first);
    assert_eq!(content_of(&frames).len(), 3_000_000);
    expect_done_once(&frames);
}

#[tokio::test]
async fn comments_of_the_upstream_do_not_stand_in_for_keep_alive() {
    let (upstream, builder) = pair().await;
    let gateway = builder.set("/downstream/sse_keepalive_interval_secs", json!(1)).start().await;
    let comment = |stream: Stream| stream.text(": PROCESSING\n\n").pause(Duration::from_millis(200));
    let working = (0..13).fold(Stream::new(), |stream, _| comment(stream));
    upstream.push(working.content("a").finish("stop").done().end());
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    let mut comments = 0;
    let first = loop {
        let frame = reply.frame().await.expect("the stream ended early");
        if !frame.is_comment() {
            break frame;
        }
        comments += 1;
    };
    assert_eq!(first.json()["choices"][0]["delta"]["content"], "a");
    assert!(comments >= 2, "{comments} comments in 2.6 s");
    expect_done_once(&reply.events().await);
}

#[tokio::test]
async fn streams_that_break_off_count_against_the_model_and_whole_ones_for_it() {
    let (upstream, gateway) = started().await;
    let succeeded = "aisix_deployment_success_responses_total";
    let failed = "aisix_deployment_failure_responses_total";
    let begun = || Stream::new().content("a");
    upstream.push(begun().cut()).push(begun().cut_mid_chunk()).push(begun().reset()).push(begun().end());
    upstream.set_default(begun().cut());
    for count in 1..=8 {
        let frames = gateway.chat(&Gateway::hello(true)).await.events().await;
        expect_error_frame(&frames);
        let level = match count {
            0..=3 => 0,
            4..=7 => 1,
            _ => 2,
        };
        assert_eq!(gateway.health_of(MODEL).await, json!(level), "after {count} cut streams");
    }
    let scrape = gateway.scrape().await;
    assert_eq!((scrape.sum(succeeded, &[]), scrape.sum(failed, &[])), (0.0, 8.0));
    for (count, stream) in [(1.0, true), (2.0, false)] {
        upstream.push(Reply::chat("whole again"));
        let mut reply = gateway.chat(&Gateway::hello(stream)).await;
        assert_eq!(reply.status, 200);
        reply.bytes().await;
        assert_eq!(gateway.health_of(MODEL).await, json!(0));
        gateway.wait_metric(succeeded, &[], count).await;
    }
    expect_error_frame(&gateway.chat(&Gateway::hello(true)).await.events().await);
    let scrape = gateway.scrape().await;
    assert_eq!((scrape.sum(succeeded, &[]), scrape.sum(failed, &[])), (2.0, 9.0));
}

#[tokio::test]
async fn upstreams_that_could_speak_http2_are_spoken_to_over_http1() {
    let authority = Authority::new("private");
    for alpn in [&["h2", "http/1.1"][..], &["http/1.1"], &[]] {
        let upstream = FakeProvider::start().await;
        let front = TlsFront::start_with_alpn(&authority.issue(), upstream.addr(), alpn).await;
        let gateway = Gateway::builder()
            .upstream(&front.base())
            .file("ca.pem", &authority.pem())
            .set("/upstream/tls/ca_file", json!("ca.pem"))
            .start()
            .await;
        let frames = gateway.chat(&Gateway::hello(true)).await.events().await;
        expect_done_once(&frames);
        assert_eq!(content_of(&frames), "Hello from upstream", "{alpn:?}");
        let mut buffered = gateway.chat(&Gateway::hello(false)).await;
        assert_eq!((buffered.status, &buffered.json().await["model"]), (200, &json!(MODEL)), "{alpn:?}");
        let offers = front.offers();
        assert!(!offers.is_empty() && offers.iter().all(|offer| offer == &["http/1.1"]), "{offers:?}");
        assert_eq!(upstream.requests().len(), 2);
    }
}
