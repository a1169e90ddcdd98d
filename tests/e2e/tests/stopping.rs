//! The end of the process while clients are slow, silent or half-way through something.

use aisix_e2e::pair;
use aisix_testkit::gateway::Signal;
use aisix_testkit::{Authority, Client, FakeProvider, Gateway, GatewayBuilder, RawConnection, Request};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const HALF_HEAD: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\nx-unfin";
const BOUND: Duration = Duration::from_secs(4);

/// The three listeners of a gateway.
fn listeners(gateway: &Gateway) -> [(&'static str, SocketAddr); 3] {
    [("proxy", gateway.proxy), ("admin", gateway.admin), ("metrics", gateway.metrics)]
}

/// A connection on which these bytes were sent and read by the gateway.
async fn holding(addr: SocketAddr, bytes: &[u8]) -> RawConnection {
    let mut raw = RawConnection::open(addr).await;
    raw.send(bytes).await.expect("send");
    raw.taken().await;
    raw
}

/// Ends the gateway, which has to take no longer than [`BOUND`], and closes what the clients hold.
async fn ends_in_time(mut gateway: Gateway, what: &str, mut clients: Vec<RawConnection>) {
    let begun = Instant::now();
    gateway.term();
    let status = gateway.exit().await;
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(0), "{what}: {:#?}", gateway.log());
    assert!(took < BOUND, "{what}: {took:?}");
    gateway.wait_log("drain complete").await;
    for client in &mut clients {
        client.until_closed().await;
    }
}

#[tokio::test]
async fn half_a_request_head_holds_no_listener() {
    let (_upstream, builder) = pair().await;
    for index in 0..3 {
        let gateway = builder.clone().start().await;
        let (name, addr) = listeners(&gateway)[index];
        let client = holding(addr, HALF_HEAD).await;
        ends_in_time(gateway, name, vec![client]).await;
    }
}

#[tokio::test]
async fn a_silent_connection_holds_no_listener() {
    let (_upstream, builder) = pair().await;
    for index in 0..3 {
        let gateway = builder.clone().start().await;
        let (name, addr) = listeners(&gateway)[index];
        let silent = RawConnection::open(addr).await;
        // Connections are accepted in order, so the silent one is in by the time a later one is served.
        let path = if name == "metrics" { "/status/ready" } else { "/livez" };
        assert_eq!(Client::new(addr).send(Request::get(path)).await.status, 200);
        ends_in_time(gateway, name, vec![silent]).await;
    }
}

#[tokio::test]
async fn the_second_head_of_a_connection_holds_no_listener() {
    let (_upstream, builder) = pair().await;
    for index in 0..3 {
        let gateway = builder.clone().start().await;
        let (name, addr) = listeners(&gateway)[index];
        let path = if name == "metrics" { "/status/ready" } else { "/livez" };
        let mut client = holding(addr, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
        assert_eq!(client.reply().await.map(|reply| reply.status), Some(200), "{name}");
        client.send(HALF_HEAD).await.expect("half a second head");
        client.taken().await;
        ends_in_time(gateway, name, vec![client]).await;
    }
}

#[tokio::test]
async fn all_of_them_at_once_on_several_workers() {
    let (_upstream, builder) = pair().await;
    let gateway = builder.set("/proxy/workers", json!(3)).start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [preface.as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let mut clients = Vec::new();
    for (_, addr) in listeners(&gateway) {
        for _ in 0..5 {
            clients.push(RawConnection::open(addr).await);
            clients.push(holding(addr, HALF_HEAD).await);
            // A client of HTTP/2 that stops in its preface, and one that never answers after it.
            clients.push(holding(addr, &preface[..9]).await);
            clients.push(holding(addr, &settings).await);
        }
    }
    ends_in_time(gateway, "everything", clients).await;
}

/// A gateway with TLS on the proxy and admin listeners.
async fn with_tls(builder: GatewayBuilder) -> Gateway {
    let authority = Authority::new("private");
    let identity = authority.issue();
    let tls = json!({"cert_file": "cert.pem", "key_file": "key.pem"});
    let config = authority.client_config(&[]);
    builder
        .file("cert.pem", &identity.cert)
        .file("key.pem", &identity.key)
        .set("/proxy/tls", tls.clone())
        .set("/admin/tls", tls)
        .start_with(|gateway| Client::tls(gateway.proxy, config.clone()))
        .await
}

#[tokio::test]
async fn an_unfinished_handshake_holds_no_listener() {
    let (_upstream, builder) = pair().await;
    // Nothing of the ClientHello, and the start of one.
    for hello in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        for index in 0..2 {
            let gateway = with_tls(builder.clone()).await;
            let (name, addr) = listeners(&gateway)[index];
            let mut clients = Vec::new();
            for _ in 0..3 {
                clients.push(holding(addr, hello).await);
            }
            // One that has begun is served behind them, so they are in.
            clients.push(holding(addr, b"\x16").await);
            ends_in_time(gateway, &format!("{name}, {} bytes", hello.len()), clients).await;
        }
    }
}

#[tokio::test]
async fn either_signal_and_no_client_at_all() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_upstream, builder): (FakeProvider, _) = pair().await;
        let mut gateway = builder.start().await;
        let client = holding(gateway.proxy, HALF_HEAD).await;
        let begun = Instant::now();
        gateway.signal(signal);
        assert_eq!(gateway.exit().await.code(), Some(0), "{signal:?}");
        assert!(begun.elapsed() < BOUND, "{signal:?}: {:?}", begun.elapsed());
        drop(client);
    }
}

#[tokio::test]
async fn a_request_begun_before_the_end_is_still_answered() {
    let (_upstream, builder) = pair().await;
    let mut gateway = builder.set("/shutdown/min_drain_secs", json!(1)).start().await;
    let mut client = holding(gateway.proxy, b"GET /v1/models HTTP/1.1\r\nhost: x\r\n").await;
    gateway.term();
    gateway.wait_log("draining").await;
    let rest = format!("authorization: Bearer {}\r\n\r\n", aisix_testkit::gateway::builder::CALLER_KEY);
    client.send(rest.as_bytes()).await.expect("the rest of the head");
    assert_eq!(client.reply().await.map(|reply| reply.status), Some(200));
    assert_eq!(gateway.exit().await.code(), Some(0));
}
