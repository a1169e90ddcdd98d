//! The end of the process: signals, live streams, windows and bounds.

use aisix_e2e::{expect_error, expect_error_frame, pair};
use aisix_testkit::{Client, FakeProvider, Gate, Gateway, Reply, Request, Response, Stream};
use serde_json::json;
use std::time::{Duration, Instant};

use aisix_testkit::gateway::Signal;

/// A gateway with one stream open that goes on when the gate opens.
async fn streaming(
    builder: aisix_testkit::GatewayBuilder,
    upstream: &FakeProvider,
) -> (Gateway, Response, Gate) {
    let gateway = builder.start().await;
    let gate = Gate::new();
    upstream.push(Stream::new().content("a").gate(&gate).content("b").finish("stop").done().end());
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    reply.event().await;
    (gateway, reply, gate)
}

async fn refused(gateway: &Gateway) -> bool {
    let client = Client::new(gateway.proxy);
    client.try_send(Request::get("/livez")).await.is_err()
}

#[tokio::test]
async fn an_idle_gateway_ends_at_once_with_zero() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_upstream, builder) = pair().await;
        let mut gateway = builder.start().await;
        assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
        let begun = Instant::now();
        gateway.signal(signal);
        assert_eq!(gateway.exit().await.code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        gateway.wait_log("draining").await;
        gateway.wait_log("drain complete").await;
        assert!(refused(&gateway).await);
    }
}

#[tokio::test]
async fn a_live_stream_is_finished_and_new_requests_are_served() {
    let (upstream, builder) = pair().await;
    let (mut gateway, mut stream, gate) = streaming(builder, &upstream).await;
    gateway.term();
    gateway.wait_log("draining").await;
    let mut late = gateway.chat(&Gateway::hello(false)).await;
    assert_eq!((late.status, late.header("connection")), (200, Some("close")));
    late.bytes().await;
    let mut late = gateway.chat(&Gateway::hello(true)).await;
    assert!(late.events().await.last().is_some_and(|f| f.is_done()));
    assert!(gateway.is_running());
    assert!(!gateway.log().iter().any(|l| l.contains("drain complete")));
    gate.open();
    let rest = stream.events().await;
    assert_eq!(rest[0].json()["choices"][0]["delta"]["content"], "b");
    assert!(rest.last().is_some_and(|f| f.is_done()));
    assert_eq!(gateway.exit().await.code(), Some(0));
    gateway.wait_log("drain complete").await;
    assert!(refused(&gateway).await);
    aisix_testkit::eventually("the last record is written before the end", || async {
        (gateway.access_log().len() == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_waiting_buffered_request_gets_its_whole_answer() {
    let (upstream, builder) = pair().await;
    let mut gateway = builder.start().await;
    let gate = Gate::new();
    let answer = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "late"}, "finish_reason": "stop"}]});
    upstream.push(Reply::json(200, &answer).after(&gate));
    let client = gateway.client();
    let waiting =
        tokio::spawn(
            async move { client.send(Gateway::chat_request(&Gateway::hello(false))).await.json().await },
        );
    gate.reached().await;
    gateway.term();
    gateway.wait_log("draining").await;
    gate.open();
    let body = waiting.await.expect("the request was answered");
    assert_eq!(body["choices"][0]["message"]["content"], "late");
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_minimum_window_is_kept() {
    let (_upstream, builder) = pair().await;
    let mut gateway = builder.set("/shutdown/min_drain_secs", json!(1)).start().await;
    let begun = Instant::now();
    gateway.term();
    gateway.wait_log("draining").await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200, "served normally during the window");
    assert_eq!(gateway.exit().await.code(), Some(0));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(950) && took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let (upstream, builder) = pair().await;
        let (mut gateway, stream, _gate) = streaming(builder, &upstream).await;
        gateway.term();
        gateway.wait_log("draining").await;
        assert!(gateway.is_running());
        let begun = Instant::now();
        gateway.signal(second);
        gateway.exit().await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        drop(stream);
    }
}

#[tokio::test]
async fn the_drain_is_bounded() {
    let (upstream, builder) = pair().await;
    let (mut gateway, stream, _gate) =
        streaming(builder.set("/shutdown/max_drain_secs", json!(1)), &upstream).await;
    let begun = Instant::now();
    gateway.term();
    gateway.exit().await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    drop(stream);
}

/// Ends the gateway with requests under way and checks that it cut them, and in time.
async fn ends_by_force(gateway: &mut Gateway) {
    let begun = Instant::now();
    gateway.term();
    assert_eq!(gateway.exit().await.code(), Some(1), "{:#?}", gateway.log());
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(4), "{took:?}");
    gateway.wait_log("shutdown.max_drain_secs is over").await;
}

/// The record of a request that was cut: one line, and a failure.
async fn cut_record(gateway: &Gateway, id: &str) {
    let lines = gateway.access_of(id).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let seen = (lines[0].get("status"), lines[0].get("error_kind"));
    assert_eq!(seen, (Some("503"), Some("service_unavailable")), "{lines:?}");
}

#[tokio::test]
async fn streams_that_are_cut_end_in_an_error_frame_and_a_record() {
    for http2 in [false, true] {
        let (upstream, builder) = pair().await;
        let mut gateway = builder.set("/shutdown/max_drain_secs", json!(1)).start().await;
        upstream.set_default(Stream::new().content("a").hang());
        let client = if http2 { Client::http2(gateway.proxy) } else { gateway.client() };
        let mut replies = Vec::new();
        for number in 0..5 {
            let request = Gateway::chat_request(&Gateway::hello(true));
            let mut reply = client.send(request.header("x-aisix-request-id", format!("cut-{number}"))).await;
            reply.event().await;
            replies.push(reply);
        }
        let (ended, frames) = tokio::join!(ends_by_force(&mut gateway), async {
            let mut all = Vec::new();
            for reply in &mut replies {
                all.push(reply.events().await);
            }
            all
        });
        let () = ended;
        for (number, frames) in frames.iter().enumerate() {
            assert_eq!(expect_error_frame(frames)["type"], "service_unavailable");
            cut_record(&gateway, &format!("cut-{number}")).await;
        }
    }
}

#[tokio::test]
async fn requests_that_wait_for_their_answer_get_a_503() {
    for http2 in [false, true] {
        let (upstream, builder) = pair().await;
        let mut gateway = builder.set("/shutdown/max_drain_secs", json!(1)).start().await;
        upstream.set_default(Reply::hang());
        let client = if http2 { Client::http2(gateway.proxy) } else { gateway.client() };
        let mut waiting = Vec::new();
        for stream in [false, true] {
            let request = Gateway::chat_request(&Gateway::hello(stream));
            let request = request.header("x-aisix-request-id", format!("late-{stream}"));
            let client = client.clone();
            waiting.push(tokio::spawn(async move {
                expect_error(client.send(request).await, 503, "service_unavailable").await
            }));
        }
        upstream.wait_requests(2).await;
        ends_by_force(&mut gateway).await;
        for answer in waiting {
            answer.await.expect("an envelope");
        }
        cut_record(&gateway, "late-false").await;
        cut_record(&gateway, "late-true").await;
    }
}

#[tokio::test]
async fn a_cut_stream_that_nobody_reads_leaves_its_record_too() {
    let (upstream, builder) = pair().await;
    let mut gateway = builder.set("/shutdown/max_drain_secs", json!(1)).start().await;
    let block = "y".repeat(100_000);
    upstream.push((0..300).fold(Stream::new(), |stream, _| stream.content(&block)).hang());
    let request = Gateway::chat_request(&Gateway::hello(true)).header("x-aisix-request-id", "unread");
    let reply = gateway.send(request).await;
    ends_by_force(&mut gateway).await;
    cut_record(&gateway, "unread").await;
    drop(reply);
}

#[tokio::test]
async fn a_client_that_leaves_lets_the_drain_finish() {
    let (upstream, builder) = pair().await;
    let (mut gateway, stream, _gate) = streaming(builder, &upstream).await;
    gateway.term();
    gateway.wait_log("draining").await;
    drop(stream);
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn idle_keep_alive_connections_do_not_hold_the_process() {
    let (_upstream, builder) = pair().await;
    let mut gateway = builder.start().await;
    let mut raw = aisix_testkit::RawConnection::open(gateway.proxy).await;
    raw.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("send");
    assert_eq!(raw.reply().await.map(|r| r.status), Some(200));
    let silent = aisix_testkit::RawConnection::open(gateway.proxy).await;
    let begun = Instant::now();
    gateway.term();
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    raw.until_closed().await;
    drop(silent);
}

#[tokio::test]
async fn http2_streams_finish_too() {
    let (upstream, builder) = pair().await;
    let mut gateway = builder.start().await;
    let gate = Gate::new();
    upstream.push(Stream::new().content("a").gate(&gate).content("b").finish("stop").done().end());
    let request = Gateway::chat_request(&Gateway::hello(true));
    let mut stream = Client::http2(gateway.proxy).send(request).await;
    stream.event().await;
    gateway.term();
    gateway.wait_log("draining").await;
    gate.open();
    assert!(stream.events().await.last().is_some_and(|f| f.is_done()));
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn several_workers_drain_together() {
    let (upstream, builder) = pair().await;
    let (mut gateway, mut stream, gate) = streaming(builder.set("/proxy/workers", json!(3)), &upstream).await;
    gateway.term();
    gateway.wait_log("draining").await;
    for _ in 0..12 {
        assert_eq!(
            gateway.chat(&Gateway::hello(false)).await.status,
            200,
            "no worker ends under a busy sibling"
        );
    }
    gate.open();
    assert!(stream.events().await.last().is_some_and(|f| f.is_done()));
    assert_eq!(gateway.exit().await.code(), Some(0));
}
