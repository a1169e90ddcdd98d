//! The provider and the client against each other.

use super::*;
use crate::client::{Client, Request};
use crate::raw::RawConnection;
use serde_json::json;
use std::time::Duration;

fn ask(stream: bool) -> Request {
    let body = json!({"model": "m", "stream": stream, "stream_options": {"include_usage": true}});
    Request::post("/v1/chat/completions", &body).header("X-Case", "kept")
}

#[tokio::test]
async fn default_reply_follows_the_request() {
    let provider = FakeProvider::start().await;
    let client = Client::new(provider.addr());
    let answer = client.send(ask(false)).await.json().await;
    assert_eq!(answer["model"], "m");
    assert_eq!(answer["choices"][0]["message"]["content"], GREETING);
    let frames = client.send(ask(true)).await.events().await;
    assert!(frames.last().is_some_and(|frame| frame.is_done()));
    let usage = &frames[frames.len() - 2];
    assert_eq!(usage.json()["usage"]["total_tokens"], 8);
    let recorded = provider.wait_requests(2).await;
    assert_eq!(recorded[0].header("x-case"), Some("kept"));
    assert_eq!(recorded[1].json()["stream"], true);
}

#[tokio::test]
async fn gate_holds_the_stream_and_hang_up_is_seen() {
    let provider = FakeProvider::start().await;
    let gate = Gate::new();
    provider.push(Stream::new().content("a").gate(&gate).content("b").end());
    provider.push(Stream::new().content("a").hang());
    let client = Client::new(provider.addr());
    let mut held = client.send(ask(true)).await;
    assert_eq!(held.event().await.json()["choices"][0]["delta"]["content"], "a");
    gate.reached().await;
    assert!(held.frame_within(Duration::from_millis(30)).await.is_none());
    gate.open();
    assert_eq!(held.event().await.json()["choices"][0]["delta"]["content"], "b");
    assert!(held.frame().await.is_none());
    let mut hanging = client.send(ask(true)).await;
    hanging.event().await;
    drop(held);
    drop(hanging);
    let closed = provider.wait_closed(2).await;
    assert_eq!(closed.iter().filter(|c| c.mid_reply).count(), 1);
    assert_eq!(provider.open_connections(), 0);
}

#[tokio::test]
async fn every_way_to_break_off_is_an_error_at_the_client() {
    let provider = FakeProvider::start().await;
    let client = Client::new(provider.addr());
    for reply in [Reply::reset(), Reply::close(), Reply::raw("no http\r\n\r\n")] {
        provider.push(reply);
        assert!(client.try_send(ask(false)).await.is_err());
    }
    let half = [
        Reply::short_body(100, "{", true),
        Reply::short_body(100, "{", false),
        Stream::new().content("a").cut(),
        Stream::new().content("a").cut_mid_chunk(),
        Stream::new().content("a").reset(),
    ];
    for reply in half {
        provider.push(reply.clone());
        let broken = match client.try_send(ask(true)).await {
            Ok(mut head) => head.try_bytes().await.is_err(),
            Err(_) => true,
        };
        assert!(broken, "{reply:?}");
    }
}

#[tokio::test]
async fn keep_alive_carries_several_requests() {
    let provider = FakeProvider::start().await;
    provider.push(Reply::json(200, &json!({"n": 1})).drip(7, Duration::from_millis(1)));
    provider.push(Stream::new().text("n: 2\n\n").end());
    let mut connection = RawConnection::open(provider.addr()).await;
    let request = b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for _ in 0..2 {
        connection.send(request).await.expect("send");
        assert_eq!(connection.reply().await.expect("a reply").status, 200);
    }
    let recorded = provider.wait_requests(2).await;
    assert_eq!(recorded[1].connection, 0);
    assert_eq!(recorded[1].text(), "abc");
    drop(connection);
    assert_eq!(provider.wait_closed(1).await[0].requests, 2);
}
