//! Nothing is left behind: descriptors, connections, records, memory, whatever the moment a client leaves.

use aisix_e2e::{idle, pair, started};
use aisix_testkit::gateway::builder::CALLER_KEY;
use aisix_testkit::{Client, Gateway, RawConnection, Reply, Request, Stream, eventually};
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;

/// Waits until the process has at most this many descriptors.
async fn wait_files(gateway: &Gateway, limit: usize) {
    eventually("descriptors are closed", || async { (gateway.open_files() <= limit).then_some(()) }).await;
}

#[tokio::test]
async fn clients_that_leave_at_any_moment_leave_nothing_behind() {
    let (upstream, gateway) = started().await;
    gateway.chat(&Gateway::hello(true)).await.bytes().await;
    let slow = Stream::new().content("a").pause(Duration::from_millis(3)).content("b");
    let slow = slow.pause(Duration::from_millis(3)).finish("stop").done().end();
    upstream.set_default(slow);
    let before = gateway.open_files();
    let calls: Vec<_> = (0..300)
        .map(|n: u64| {
            let client = if n.is_multiple_of(3) { Client::http2(gateway.proxy) } else { gateway.client() };
            let request = Gateway::chat_request(&Gateway::hello(true));
            let request = request.header("x-aisix-request-id", format!("gone-{n}"));
            tokio::spawn(async move {
                // The moments at which clients leave are spread over the life of a request.
                let stay = Duration::from_micros(n * 50);
                let _ = tokio::time::timeout(stay, async { client.send(request).await.events().await }).await;
            })
        })
        .collect();
    for call in calls {
        call.await.expect("a client never fails");
    }
    idle(&gateway).await;
    let mut lines: HashMap<String, usize> = HashMap::new();
    for line in gateway.access_log() {
        *lines.entry(line.get("request_id").unwrap_or_default().to_owned()).or_default() += 1;
    }
    assert!(lines.values().all(|count| *count == 1), "{lines:?}");
    wait_files(&gateway, before + upstream.open_connections() + 2).await;
    assert_eq!(gateway.chat(&Gateway::hello(true)).await.status, 200);
    assert!(!gateway.log().iter().any(|line| line.contains("panicked")));
}

#[tokio::test]
async fn failing_upstreams_leave_no_descriptors() {
    let (upstream, gateway) = started().await;
    gateway.chat(&Gateway::hello(false)).await.bytes().await;
    let before = gateway.open_files();
    for reply in
        [Reply::reset(), Reply::short_body(99, "{", false), Stream::new().content("a").cut_mid_chunk()]
    {
        upstream.set_default(reply);
        for round in 0..30 {
            gateway.chat(&Gateway::hello(round % 2 == 0)).await.bytes().await;
        }
    }
    idle(&gateway).await;
    wait_files(&gateway, before + 2).await;
}

#[tokio::test]
async fn invented_keys_models_and_paths_do_not_fill_the_memory() {
    let (_upstream, gateway) = started().await;
    let flood = |round: usize| {
        let gateway = &gateway;
        async move {
            for n in 0..400 {
                let name = format!("{round}-{n}-{}", "x".repeat(8000));
                let body = json!({"model": name, "messages": [{"role": "user", "content": "hi"}]});
                let chat = Request::post("/v1/chat/completions", &body);
                for (request, status) in [
                    (chat.clone().bearer(CALLER_KEY), 404),
                    (chat.bearer(&name), 401),
                    (Request::get(&format!("/{name}")), 404),
                ] {
                    assert_eq!(gateway.send(request).await.status, status);
                }
            }
        }
    };
    flood(0).await;
    let series = gateway.scrape().await.all.len();
    // The allocator needs some rounds to find its level; names that are kept would add megabytes in every round.
    let mut sizes = vec![gateway.rss_kib()];
    for round in 1.. {
        flood(round).await;
        sizes.push(gateway.rss_kib());
        if sizes[round] < sizes[round - 1] + 1_000 {
            break;
        }
        assert!(round < 8, "the memory grows with every round: {sizes:?} KiB");
    }
    assert_eq!(gateway.scrape().await.all.len(), series, "no series per invented name");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (upstream, gateway) = started().await;
    let ask = |content: &str| {
        let body =
            json!({"model": "test-model", "messages": [{"role": "user", "content": content}]}).to_string();
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {CALLER_KEY}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nx-aisix-request-id: {content}\r\n\r\n{body}",
            body.len()
        )
    };
    upstream.push(Reply::error(400, "slow").drip(20, Duration::from_millis(2)));
    let mut raw = RawConnection::open(gateway.proxy).await;
    let batch: String = ["one", "two", "three"].into_iter().map(ask).collect();
    raw.send(batch.as_bytes()).await.expect("send");
    for (id, status) in [("one", 400), ("two", 200), ("three", 200)] {
        let reply = raw.reply().await.expect("a reply");
        assert_eq!((reply.status, reply.header("x-aisix-request-id")), (status, Some(id)));
    }
}

#[tokio::test]
async fn an_oversized_request_that_asks_first_is_refused_without_its_body() {
    let (_upstream, builder) = pair().await;
    let gateway = builder.set("/proxy/request_body_limit_bytes", json!(1000)).start().await;
    let mut raw = RawConnection::open(gateway.proxy).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5000\r\n\r\n";
    raw.send(head.as_bytes()).await.expect("send");
    assert_eq!(raw.reply().await.map(|reply| reply.status), Some(413));
}

#[tokio::test]
async fn an_http2_hang_up_reaches_the_upstream() {
    let (upstream, gateway) = started().await;
    upstream.push(Stream::new().content("a").hang());
    let client = Client::http2(gateway.proxy);
    let mut hanging = client.send(Gateway::chat_request(&Gateway::hello(true))).await;
    hanging.event().await;
    drop(hanging);
    let closed = upstream.wait_closed(1).await;
    assert!(closed[0].mid_reply);
    idle(&gateway).await;
}
