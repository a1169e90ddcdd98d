//! Token counts when the upstream reports none, all of them, or some.

use aisix_e2e::{chat_body, content_of, expect_error, expect_error_frame, pair, request_id};
use aisix_testkit::gateway::builder::MODEL;
use aisix_testkit::provider::{chunk, usage};
use aisix_testkit::{FakeProvider, Gate, Gateway, LogLine, Reply, Stream};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A gateway whose model has a price: 1 US dollar for 1,000 input tokens, 10 for 1,000 output tokens.
async fn priced() -> (FakeProvider, Gateway) {
    let (upstream, builder) = pair().await;
    let cost = json!({"input_per_1k": 1.0, "output_per_1k": 10.0});
    let gateway = builder.edit(|r| r["models"][0]["cost"] = cost).start().await;
    (upstream, gateway)
}

fn whole(message: Value, usage: Value) -> Reply {
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    let mut reply =
        json!({"id": "u-1", "object": "chat.completion", "created": 1, "model": "up", "choices": [choice]});
    if !usage.is_null() {
        reply["usage"] = usage;
    }
    Reply::json(200, &reply)
}

fn says(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

fn tokens(line: &LogLine) -> Option<(u64, u64, u64)> {
    let number = |name| line.get(name).and_then(|text| text.parse().ok());
    Some((number("prompt_tokens")?, number("completion_tokens")?, number("total_tokens")?))
}

/// The only access line of a request.
async fn line_of(gateway: &Gateway, id: &str) -> LogLine {
    let mut lines = gateway.access_of(id).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// Checks that all token families agree on what was used since the start.
async fn expect_metrics(gateway: &Gateway, input: u64, output: u64) {
    let (input, output) = (input as f64, output as f64);
    let model = [("model", MODEL)];
    for (family, labels, value) in [
        ("aisix_llm_total_tokens_total", vec![], input + output),
        ("aisix_llm_input_tokens_total", vec![], input),
        ("aisix_llm_output_tokens_total", vec![], output),
        ("aisix_tokens_consumed_total", vec![], input + output),
        ("aisix_llm_tokens_by_client_total", vec![("token_type", "input")], input),
        ("aisix_llm_tokens_by_client_total", vec![("token_type", "output")], output),
        ("aisix_llm_tokens_by_client_total", vec![("token_type", "total")], input + output),
        ("aisix_llm_spend_micro_usd_total", vec![], input * 1e3 + output * 1e4),
    ] {
        gateway.wait_metric(family, &[&model[..], &labels].concat(), value).await;
    }
}

#[tokio::test]
async fn a_reply_without_usage_is_counted() {
    let (upstream, gateway) = priced().await;
    upstream.push(whole(says("Hello world"), Value::Null));
    let mut reply = gateway.chat(&chat_body(json!({}))).await;
    let id = request_id(&reply);
    let body = reply.json().await;
    assert_eq!(body.get("usage"), None, "the body stays as it came: {body}");
    assert_eq!(tokens(&line_of(&gateway, &id).await), Some((8, 2, 10)));
    expect_metrics(&gateway, 8, 2).await;
}

#[tokio::test]
async fn each_counter_is_completed_by_itself() {
    let (upstream, gateway) = priced().await;
    let zeros = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
    let (mut input, mut output) = (0, 0);
    for (reported, expected) in [
        (usage(5, 3), (5, 3, 8)),
        (zeros.clone(), (8, 2, 10)),
        (json!({"prompt_tokens": 5}), (5, 2, 7)),
        (json!({"completion_tokens": 3, "total_tokens": 3}), (8, 3, 11)),
        (json!({"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}), (5, 2, 7)),
        (json!("none"), (8, 2, 10)),
    ] {
        upstream.push(whole(says("Hello world"), reported.clone()));
        let mut reply = gateway.chat(&chat_body(json!({}))).await;
        let id = request_id(&reply);
        assert_eq!(reply.json().await["usage"], reported, "the body stays as it came");
        assert_eq!(tokens(&line_of(&gateway, &id).await), Some(expected), "{reported}");
        input += expected.0;
        output += expected.1;
        expect_metrics(&gateway, input, output).await;
    }
}

#[tokio::test]
async fn tools_images_and_reasoning_are_counted() {
    let (upstream, gateway) = priced().await;
    let call = json!({"id": "c", "type": "function", "function": {"name": "foo", "arguments": "{}"}});
    // "Hello world", "foo" and "{}".
    upstream.push(whole(
        json!({"role": "assistant", "reasoning_content": "Hello", "content": " world", "tool_calls": [call]}),
        Value::Null,
    ));
    let image =
        json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}});
    let request = chat_body(json!({
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}, image]}],
        "tools": [{"type": "function", "function": {"name": "foo", "parameters": {"type": "object", "properties": {}}}}],
    }));
    let mut reply = gateway.chat(&request).await;
    let id = request_id(&reply);
    reply.bytes().await;
    assert_eq!(tokens(&line_of(&gateway, &id).await), Some((31 + 250, 4, 31 + 250 + 4)));
}

#[tokio::test]
async fn the_upstream_name_chooses_the_vocabulary() {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| {
            let row = json!({"display_name": "new", "provider": "openai", "model_name": "gpt-4o", "provider_key": "main"});
            r["models"].as_array_mut().expect("models").push(row);
        })
        .start()
        .await;
    for (model, output) in [(MODEL, 9), ("new", 8)] {
        upstream.push(whole(says("お誕生日おめでとう"), Value::Null));
        let mut reply = gateway.chat(&chat_body(json!({"model": model}))).await;
        let id = request_id(&reply);
        reply.bytes().await;
        assert_eq!(tokens(&line_of(&gateway, &id).await), Some((8, output, 8 + output)), "{model}");
    }
}

/// `Hello world` in pieces, the last of them with an escape.
fn pieces() -> Stream {
    let stream = Stream::new().delta(&json!({"role": "assistant", "content": ""}));
    stream.content("He").content("llo").content(" wor").content("ld").content("\n")
}

#[tokio::test]
async fn a_stream_without_usage_is_counted() {
    let (upstream, gateway) = priced().await;
    for round in 1..=2 {
        upstream.push(pieces().finish("stop").done().end());
        let mut reply = gateway
            .chat(&chat_body(json!({"stream": true, "stream_options": {"include_usage": true}})))
            .await;
        let id = request_id(&reply);
        let frames = reply.events().await;
        assert_eq!(content_of(&frames), "Hello world\n");
        assert!(frames.iter().all(|frame| !frame.raw.contains("usage")), "nothing is invented: {frames:#?}");
        assert_eq!(tokens(&line_of(&gateway, &id).await), Some((8, 3, 11)));
        expect_metrics(&gateway, 8 * round, 3 * round).await;
    }
}

#[tokio::test]
async fn a_caller_may_switch_usage_off() {
    let (upstream, gateway) = priced().await;
    upstream.push(pieces().finish("stop").done().end());
    let request = chat_body(json!({"stream": true, "stream_options": {"include_usage": false}}));
    let mut reply = gateway.chat(&request).await;
    let id = request_id(&reply);
    assert_eq!(reply.events().await.len(), 8);
    assert_eq!(upstream.only_request().json()["stream_options"], json!({"include_usage": false}));
    assert_eq!(tokens(&line_of(&gateway, &id).await), Some((8, 3, 11)));
    expect_metrics(&gateway, 8, 3).await;
}

#[tokio::test]
async fn usage_that_a_stream_reports_is_untouched() {
    let (upstream, gateway) = priced().await;
    upstream.push(pieces().finish("stop").usage(50, 70).done().end());
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    let id = request_id(&reply);
    reply.events().await;
    assert_eq!(tokens(&line_of(&gateway, &id).await), Some((50, 70, 120)));
    expect_metrics(&gateway, 50, 70).await;
}

#[tokio::test]
async fn a_client_that_leaves_pays_for_what_it_got() {
    let (upstream, gateway) = priced().await;
    let gate = Gate::new();
    upstream.push(Stream::new().content("Hello").content(" world").gate(&gate).content(" and more").hang());
    let begun = Instant::now();
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    let id = request_id(&reply);
    while !reply.event().await.raw.contains("world") {}
    drop(reply);
    upstream.wait_closed(1).await;
    let line = line_of(&gateway, &id).await;
    let most = begun.elapsed();
    assert_eq!((line.get("status"), line.get("error_kind")), (Some("499"), Some("client_disconnected")));
    assert_eq!(tokens(&line), Some((8, 2, 10)));
    let latency: u64 = line.get("latency_ms").and_then(|text| text.parse().ok()).expect("latency");
    assert!(u128::from(latency) <= most.as_millis(), "{latency} ms of {most:?}");
    expect_metrics(&gateway, 8, 2).await;
}

#[tokio::test]
async fn reports_of_an_aborted_stream_are_kept() {
    let (upstream, gateway) = priced().await;
    let mut first = chunk(&json!({"content": "Hello world"}), None);
    first["usage"] = usage(50, 0);
    upstream.push(Stream::new().json(&first).hang());
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    let id = request_id(&reply);
    reply.event().await;
    drop(reply);
    assert_eq!(tokens(&line_of(&gateway, &id).await), Some((50, 2, 52)));
}

#[tokio::test]
async fn a_broken_stream_counts_what_was_passed_on() {
    let (upstream, gateway) = priced().await;
    upstream.push(Stream::new().content("Hello").content(" world").text("data: {nonsense\n\n").end());
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    let id = request_id(&reply);
    expect_error_frame(&reply.events().await);
    let line = line_of(&gateway, &id).await;
    assert_eq!((line.get("status"), tokens(&line)), (Some("502"), Some((8, 2, 10))));
    expect_metrics(&gateway, 8, 2).await;
}

#[tokio::test]
async fn nothing_is_counted_when_no_frame_left() {
    let (upstream, builder) = pair().await;
    let gateway = builder.set("/downstream/sse_keepalive_interval_secs", json!(1)).start().await;
    // Before the head, and after it.
    upstream.push(Reply::error(500, "no"));
    expect_error(gateway.chat(&Gateway::hello(false)).await, 502, "upstream_error").await;
    for reply in [Stream::new().text("data: {nonsense\n\n").end(), Stream::new().cut()] {
        upstream.push(reply);
        let mut reply = gateway.chat(&Gateway::hello(true)).await;
        let id = request_id(&reply);
        expect_error_frame(&reply.events().await);
        assert_eq!(tokens(&line_of(&gateway, &id).await), None);
    }
    // A comment of the gateway is no frame of the answer.
    upstream.push(Stream::new().hang());
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    let id = request_id(&reply);
    assert!(reply.frame().await.is_some_and(|frame| frame.is_comment()));
    drop(reply);
    let line = line_of(&gateway, &id).await;
    assert_eq!((line.get("status"), tokens(&line)), (Some("499"), None));
    let scrape = gateway.scrape().await;
    for family in
        ["aisix_llm_input_tokens_total", "aisix_llm_output_tokens_total", "aisix_tokens_consumed_total"]
    {
        assert!(scrape.find(family, &[]).is_empty(), "{}", scrape.text);
    }
}

#[tokio::test]
async fn output_beyond_a_mebibyte_is_guessed() {
    const MEBIBYTE: usize = 1024 * 1024;
    let (upstream, gateway) = priced().await;
    let half = " the".repeat(MEBIBYTE / 8);
    let stream = Stream::new().content(&half).content(&half).content(&"x".repeat(4000));
    upstream.push(stream.finish("stop").done().end());
    let output = (MEBIBYTE / 4 + 1000) as u64;
    for stream in [true, false] {
        if !stream {
            upstream.push(whole(says(&[&half[..], &half, &"x".repeat(4000)].concat()), Value::Null));
        }
        let mut reply = gateway.chat(&Gateway::hello(stream)).await;
        let id = request_id(&reply);
        reply.bytes().await;
        assert_eq!(tokens(&line_of(&gateway, &id).await), Some((8, output, 8 + output)), "stream: {stream}");
    }
}

#[tokio::test]
async fn a_drain_waits_for_the_count() {
    let (upstream, builder) = pair().await;
    let mut gateway = builder.start().await;
    // An endless word takes longest.
    upstream.push(whole(says(&"a".repeat(1024 * 1024)), Value::Null));
    let mut reply = gateway.chat(&Gateway::hello(false)).await;
    let id = request_id(&reply);
    reply.bytes().await;
    gateway.term();
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert_eq!(tokens(&line_of(&gateway, &id).await), Some((8, 131_072, 131_080)));
}

#[tokio::test]
async fn counting_does_not_hold_up_requests() {
    let (upstream, builder) = pair().await;
    let gateway = builder.start().await;
    // One worker, and more to count than fits into the time of the requests that follow.
    let word = whole(says(&"a".repeat(1024 * 1024)), Value::Null);
    let mut answered = Vec::new();
    for _ in 0..4 {
        upstream.push(word.clone());
        let begun = Instant::now();
        let mut reply = gateway.chat(&Gateway::hello(false)).await;
        reply.bytes().await;
        answered.push((request_id(&reply), begun.elapsed()));
    }
    let mut reply = gateway.chat(&Gateway::hello(false)).await;
    let id = request_id(&reply);
    reply.bytes().await;
    line_of(&gateway, &id).await;
    let written = gateway.access_log();
    let counted =
        answered.iter().filter(|(id, _)| written.iter().any(|line| line.get("request_id") == Some(id)));
    assert!(counted.count() < 4, "the last request did not overtake the count");
    for (id, took) in &answered {
        let line = line_of(&gateway, id).await;
        assert_eq!(tokens(&line), Some((8, 131_072, 131_080)));
        let latency: u64 = line.get("latency_ms").and_then(|text| text.parse().ok()).expect("latency");
        assert!(
            Duration::from_millis(latency) < *took + Duration::from_millis(300),
            "{latency} ms of {took:?}"
        );
    }
}
