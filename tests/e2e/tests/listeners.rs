//! Which listener serves what, over which protocol, with which certificate.

use aisix_e2e::{expect_error, pair, started};
use aisix_testkit::client::Version;
use aisix_testkit::{Authority, Client, Gateway, RawConnection, Request, Samples, eventually};
use serde_json::json;
use std::time::{Duration, Instant};

/// Fetches a path without any credential.
async fn get(client: &Client, path: &str) -> (u16, String) {
    let mut reply = client.send(Request::get(path)).await;
    (reply.status, reply.text().await)
}

#[tokio::test]
async fn each_listener_has_its_routes_and_nothing_else() {
    let (_upstream, gateway) = started().await;
    let proxy = gateway.client();
    let admin = Client::new(gateway.admin);
    let metrics = Client::new(gateway.metrics);
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(&proxy, path).await, (200, "ok".to_owned()));
        assert_eq!(get(&admin, path).await, (200, "ok".to_owned()));
        assert_eq!(get(&metrics, path).await, (404, String::new()));
    }
    for path in ["/metrics", "/status/config", "/status/ready", "/status/models"] {
        assert_eq!(get(&metrics, path).await.0, 200, "{path}");
        assert_eq!(get(&admin, path).await, (404, String::new()), "{path}");
        assert_eq!(get(&proxy, path).await.0, 404, "{path}");
    }
    for path in ["/health", "/nope", "/v1/chat/completions"] {
        assert_eq!(get(&admin, path).await, (404, String::new()), "{path}");
        assert_eq!(get(&metrics, path).await, (404, String::new()), "{path}");
    }
    assert_eq!(get(&admin, "/admin/v1/health").await.0, 401);
    assert_eq!(get(&metrics, "/admin/v1/health").await, (404, String::new()));
    assert_eq!(get(&proxy, "/admin/v1/health").await.0, 404);
}

#[tokio::test]
async fn unknown_paths_and_methods_on_the_proxy_get_an_envelope() {
    let (_upstream, gateway) = started().await;
    for path in ["/", "/health", "/v1", "/v1/models/x", "/v1/chat/completions/", "/v1/nope?x=1"] {
        for method in ["GET", "POST", "DELETE"] {
            let reply = gateway.send(Request::new(method, path)).await;
            let error = expect_error(reply, 404, "invalid_request_error").await;
            assert_eq!(error["code"], "not_found", "{method} {path}");
        }
    }
    for (method, path, allow) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("PUT", "/livez", "GET"),
        ("POST", "/readyz", "GET"),
    ] {
        let reply = gateway.send(Request::new(method, path)).await;
        let allowed = reply.header("allow").unwrap_or_default().to_owned();
        assert!(allowed.contains(allow), "{method} {path}: Allow {allowed:?}");
        let error = expect_error(reply, 405, "invalid_request_error").await;
        assert_eq!(error["code"], "method_not_allowed", "{method} {path}");
    }
}

#[tokio::test]
async fn wrong_methods_on_admin_and_status_are_bare_405() {
    let (_upstream, gateway) = started().await;
    for (addr, method, path) in [
        (gateway.admin, "POST", "/livez"),
        (gateway.admin, "POST", "/admin/v1/health"),
        (gateway.metrics, "POST", "/metrics"),
        (gateway.metrics, "DELETE", "/status/config"),
    ] {
        let mut reply = Client::new(addr).send(Request::new(method, path)).await;
        assert_eq!(reply.status, 405, "{method} {path}");
        assert!(reply.header("allow").is_some_and(|a| a.contains("GET")), "{path}");
        assert_eq!(reply.text().await, "", "{method} {path}");
    }
}

#[tokio::test]
async fn head_works_where_get_does() {
    let (_upstream, gateway) = started().await;
    let key = aisix_testkit::gateway::builder::CALLER_KEY;
    for (addr, path) in [
        (gateway.proxy, "/livez"),
        (gateway.proxy, "/v1/models"),
        (gateway.admin, "/readyz"),
        (gateway.metrics, "/metrics"),
        (gateway.metrics, "/status/config"),
    ] {
        let request = Request::new("HEAD", path).bearer(key);
        let mut reply = Client::new(addr).send(request).await;
        assert_eq!((reply.status, reply.text().await.as_str()), (200, ""), "{path}");
    }
}

#[tokio::test]
async fn only_proxy_replies_carry_server_and_request_id() {
    let (_upstream, gateway) = started().await;
    let proxy = gateway.send(Request::get("/livez")).await;
    let server = proxy.header("server").unwrap_or_default();
    assert!(server.strip_prefix("AISIX/").is_some_and(|v| v.split('.').count() >= 3));
    assert_eq!(proxy.headers.get_all("x-aisix-request-id").iter().count(), 1);
    for addr in [gateway.admin, gateway.metrics] {
        for path in ["/livez", "/metrics", "/nope"] {
            let reply = Client::new(addr).send(Request::get(path)).await;
            assert!(reply.header("server").is_none(), "{path}");
            assert!(reply.header("x-aisix-request-id").is_none(), "{path}");
        }
    }
}

#[tokio::test]
async fn request_ids_are_taken_or_minted() {
    let (upstream, builder) = pair().await;
    let accepted = json!(["x-aisix-request-id", "x-request-id"]);
    let gateway = builder.set("/proxy/request_id/accept_headers", accepted).start().await;
    let long = "a".repeat(256);
    for (name, value) in
        [("x-request-id", "abc-1"), ("x-aisix-request-id", "!~x"), ("x-request-id", long.as_str())]
    {
        let request = Gateway::chat_request(&Gateway::hello(false)).header(name, value);
        let reply = gateway.send(request).await;
        assert_eq!(reply.header("x-aisix-request-id"), Some(value));
        assert_eq!(reply.header("x-aisix-call-id"), Some(value));
        assert_eq!(upstream.last_request().header_values("x-aisix-request-id"), [value]);
    }
    let both = Request::get("/livez").header("x-request-id", "second").header("x-aisix-request-id", "bad id");
    assert_eq!(gateway.send(both).await.header("x-aisix-request-id"), Some("second"));
    let too_long = "a".repeat(257);
    for bad in ["with space", "", "t\u{e9}xt", too_long.as_str()] {
        let reply = gateway.send(Request::get("/livez").header("x-request-id", bad)).await;
        let id = reply.header("x-aisix-request-id").unwrap_or_default();
        let lower_uuid = |c: char| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c);
        assert!(id.len() == 36 && id.chars().all(lower_uuid) && id.as_bytes()[14] == b'4', "{id}");
    }
}

#[tokio::test]
async fn default_ignores_x_request_id() {
    let (_upstream, gateway) = started().await;
    let request = Request::get("/livez").header("x-request-id", "mine");
    assert_ne!(gateway.send(request).await.header("x-aisix-request-id"), Some("mine"));
}

#[tokio::test]
async fn metrics_path_is_configurable_and_the_listener_can_be_off() {
    for (path, served) in [("scrape", "/scrape"), (" /deep/m ", "/deep/m"), ("", "/metrics")] {
        let (_upstream, builder) = pair().await;
        let gateway = builder.set("/observability/metrics/prometheus/path", json!(path)).start().await;
        let mut reply = gateway.status_get(served).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4"));
        Samples::parse(&reply.text().await);
        if served != "/metrics" {
            assert_eq!(gateway.status_get("/metrics").await.status, 404);
        }
    }
    let (_upstream, builder) = pair().await;
    let gateway = builder
        .set("/observability/metrics/prometheus/enabled", json!(false))
        .set("/admin", json!({"enabled": false}))
        .start()
        .await;
    for addr in [gateway.metrics, gateway.admin] {
        assert!(Client::new(addr).try_send(Request::get("/status/ready")).await.is_err());
    }
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
}

#[tokio::test]
async fn cleartext_http2_with_prior_knowledge() {
    let (_upstream, gateway) = started().await;
    let client = Client::http2(gateway.proxy);
    for stream in [false, true] {
        let mut reply = client.send(Gateway::chat_request(&Gateway::hello(stream))).await;
        assert_eq!((reply.status, reply.version), (200, http2()));
        let text = reply.text().await;
        assert_eq!(text.contains("[DONE]"), stream, "{text}");
    }
}

fn http2() -> Version {
    Version::HTTP_2
}

/// A gateway with TLS on proxy and admin.
async fn tls_gateway(authority: &Authority) -> (aisix_testkit::FakeProvider, Gateway) {
    let (upstream, builder) = pair().await;
    let identity = authority.issue();
    let tls = json!({"cert_file": "cert.pem", "key_file": "key.pem"});
    let config = authority.client_config(&[]);
    let gateway = builder
        .file("cert.pem", &identity.cert)
        .file("key.pem", &identity.key)
        .set("/proxy/tls", tls.clone())
        .set("/admin/tls", tls)
        .start_with(|gateway| Client::tls(gateway.proxy, config.clone()))
        .await;
    (upstream, gateway)
}

#[tokio::test]
async fn tls_on_proxy_and_admin_with_both_protocols() {
    let authority = Authority::new("first");
    let (_upstream, gateway) = tls_gateway(&authority).await;
    for (alpn, second) in [(&["h2", "http/1.1"][..], true), (&["http/1.1"], false), (&[], false)] {
        let config = authority.client_config(alpn);
        for addr in [gateway.proxy, gateway.admin] {
            let reply = Client::tls(addr, config.clone()).send(Request::get("/livez")).await;
            assert_eq!(reply.status, 200);
            assert_eq!(reply.version == http2(), second, "{alpn:?}");
        }
        let client = Client::tls(gateway.proxy, config);
        let mut reply = client.send(Gateway::chat_request(&Gateway::hello(true))).await;
        assert!(reply.events().await.last().is_some_and(|f| f.is_done()));
    }
    let plain = Client::new(gateway.proxy).try_send(Request::get("/livez")).await;
    assert!(plain.map_or(true, |reply| reply.status >= 400));
}

#[tokio::test]
async fn certificates_reload_when_the_files_change_and_on_sighup() {
    let first = Authority::new("first");
    let (_upstream, gateway) = tls_gateway(&first).await;
    for (round, hup) in [("second", false), ("third", true)] {
        let next = Authority::new(round);
        let identity = next.issue();
        gateway.write("key.pem", &identity.key);
        gateway.write("cert.pem", &identity.cert);
        if hup {
            gateway.hup();
        }
        let config = next.client_config(&[]);
        for addr in [gateway.proxy, gateway.admin] {
            let client = Client::tls(addr, config.clone());
            eventually("the new certificate is served", || async {
                client.try_send(Request::get("/livez")).await.ok()
            })
            .await;
        }
    }
    let old = Client::tls(gateway.proxy, first.client_config(&[]));
    assert!(old.try_send(Request::get("/livez")).await.is_err());
}

#[tokio::test]
async fn a_broken_certificate_file_keeps_the_last_good_one() {
    let authority = Authority::new("first");
    let (_upstream, gateway) = tls_gateway(&authority).await;
    gateway.write("cert.pem", "not a certificate");
    gateway.hup();
    let line = gateway.wait_log("certificate reload failed").await;
    assert!(line.contains("no certificate in") && line.contains("cert.pem"), "{line}");
    gateway.write("cert.pem", &authority.issue().cert);
    gateway.write("key.pem", "not a key");
    gateway.hup();
    gateway.wait_log("no private key in").await;
    let client = Client::tls(gateway.proxy, authority.client_config(&[]));
    assert_eq!(client.send(Request::get("/livez")).await.status, 200);
}

#[tokio::test]
async fn mismatched_certificate_fails_the_boot() {
    let authority = Authority::new("first");
    let (_upstream, builder) = pair().await;
    for block in ["/proxy/tls", "/admin/tls"] {
        let exit = builder
            .clone()
            .file("cert.pem", &authority.issue().cert)
            .file("key.pem", &authority.issue().key)
            .set(block, json!({"cert_file": "cert.pem", "key_file": "key.pem"}))
            .start_and_fail()
            .await;
        assert_eq!(exit.code, Some(1), "{exit:#?}");
        let name = block.trim_start_matches('/').replace('/', ".");
        assert!(exit.stderr.contains(&name), "{}", exit.stderr);
    }
}

#[tokio::test]
async fn idle_connections_are_closed_but_streams_are_not() {
    let (upstream, builder) = pair().await;
    let gateway = builder.set("/downstream/idle_timeout_secs", json!(1)).start().await;
    let gate = aisix_testkit::Gate::new();
    upstream.push(aisix_testkit::Stream::new().content("a").gate(&gate).finish("stop").done().end());
    let mut stream = gateway.chat(&Gateway::hello(true)).await;
    stream.event().await;
    let mut raw = RawConnection::open(gateway.proxy).await;
    raw.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("send");
    assert_eq!(raw.reply().await.map(|r| r.status), Some(200));
    let begun = Instant::now();
    raw.until_closed().await;
    let idle = begun.elapsed();
    assert!(idle >= Duration::from_millis(800) && idle < Duration::from_secs(4), "{idle:?}");
    gate.open();
    assert!(stream.events().await.last().is_some_and(|f| f.is_done()));
}

#[tokio::test]
async fn url_rewrites_apply_once_before_routing_and_keep_the_query() {
    let (upstream, builder) = pair().await;
    let rules = json!([
        {"name": "vendor", "match": "^/openai/(?P<rest>v1/.*)$", "rewrite": "/${rest}"},
        {"match": "^/loop", "rewrite": "/openai"},
        {"match": "^/openai", "rewrite": "/never"},
        {"match": "/chat/comp$", "rewrite": "/chat/completions"},
    ]);
    let gateway = builder.set("/proxy/url_rewrites", rules).start().await;
    let key = aisix_testkit::gateway::builder::CALLER_KEY;
    let ask = |path: &str| Request::post(path, &Gateway::hello(false)).bearer(key);
    for (path, status) in [
        ("/openai/v1/chat/completions", 200),
        ("/openai/v1/chat/completions?api-version=1", 200),
        ("/v1/chat/comp", 200),
        ("/v1/chat/completions", 200),
        ("/loop/v1/chat/completions", 404),
        ("/openai/v2/chat/completions", 404),
    ] {
        assert_eq!(gateway.send(ask(path)).await.status, status, "{path}");
    }
    assert_eq!(upstream.requests().len(), 4);
    let labels = [("endpoint", "/v1/chat/completions"), ("status", "200")];
    gateway.wait_metric("aisix_proxy_requests_total", &labels, 4.0).await;
    assert_eq!(Client::new(gateway.admin).send(Request::get("/openai/v1/livez")).await.status, 404);
}
