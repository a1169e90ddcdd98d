//! The road to the upstream: trust, proxies from the environment, HTTP/1 oddities, serving topologies.

use aisix_e2e::{expect_error, message, pair};
use aisix_testkit::gateway::builder::MODEL;
use aisix_testkit::{Authority, FakeProvider, Gateway, GatewayBuilder, Reply, TlsFront};
use serde_json::{Value, json};

fn answer() -> String {
    let message = json!({"role": "assistant", "content": "odd but fine"});
    json!({"id": "u", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).to_string()
}

/// An upstream behind TLS, and a gateway that points at it.
async fn behind_tls(authority: &Authority) -> (FakeProvider, TlsFront, GatewayBuilder) {
    let upstream = FakeProvider::start().await;
    let front = TlsFront::start(&authority.issue(), upstream.addr()).await;
    let builder = Gateway::builder().upstream(&front.base()).file("ca.pem", &authority.pem());
    (upstream, front, builder)
}

#[tokio::test]
async fn an_unknown_authority_is_a_502_that_speaks_of_the_certificate() {
    let authority = Authority::new("private");
    let (upstream, _front, builder) = behind_tls(&authority).await;
    let gateway = builder.start().await;
    let reply = gateway.chat(&Gateway::hello(false)).await;
    let error = expect_error(reply, 502, "transport_error").await;
    assert!(message(&error).contains("certificate"), "{error}");
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn trust_comes_from_the_deployment_the_environment_or_the_provider_key() {
    let authority = Authority::new("private");
    let pem = json!(authority.pem());
    let (upstream, _front, builder) = behind_tls(&authority).await;
    let trusting = [
        builder.clone().set("/upstream/tls/ca_file", json!("ca.pem")),
        builder.clone().set("/upstream/tls/verify", json!(false)),
        builder.clone().env("SSL_CERT_FILE", "ca.pem"),
        builder.clone().edit(|r| r["provider_keys"][0]["tls"] = json!({"ca_cert": pem})),
        builder.clone().edit(|r| r["provider_keys"][0]["tls"] = json!({"verify": false})),
    ];
    for (index, builder) in trusting.into_iter().enumerate() {
        let gateway = builder.start().await;
        for stream in [false, true] {
            let mut reply = gateway.chat(&Gateway::hello(stream)).await;
            let text = reply.text().await;
            assert_eq!(reply.status, 200, "{index}: {text}");
        }
    }
    assert_eq!(upstream.requests().len(), 10);
}

#[tokio::test]
async fn trust_of_one_provider_key_does_not_leak_to_another() {
    let authority = Authority::new("private");
    let (_upstream, front, builder) = behind_tls(&authority).await;
    let pem = json!(authority.pem());
    let gateway = builder
        .edit(|r| {
            let mut second = r["provider_keys"][0].clone();
            second["display_name"] = json!("trusting");
            second["api_base"] = json!(front.base());
            second["tls"] = json!({"ca_cert": pem});
            r["provider_keys"].as_array_mut().expect("provider_keys").push(second);
            let mut model = r["models"][0].clone();
            model["display_name"] = json!("trusted");
            model["provider_key"] = json!("trusting");
            r["models"].as_array_mut().expect("models").push(model);
        })
        .start()
        .await;
    for (model, status) in [("trusted", 200), (MODEL, 502), ("trusted", 200), (MODEL, 502)] {
        let mut body = Gateway::hello(false);
        body["model"] = json!(model);
        assert_eq!(gateway.chat(&body).await.status, status, "{model}");
    }
}

#[tokio::test]
async fn bad_trust_files_fail_the_boot_and_are_named() {
    let authority = Authority::new("private");
    for (content, name) in [("no certificate here", "ca.pem"), ("", "ca.pem")] {
        let (_upstream, _front, builder) = behind_tls(&authority).await;
        let exit = builder
            .file("ca.pem", content)
            .set("/upstream/tls/ca_file", json!("ca.pem"))
            .start_and_fail()
            .await;
        assert_eq!(exit.code, Some(1), "{exit:#?}");
        assert!(
            exit.stderr.contains("upstream.tls.ca_file") && exit.stderr.contains(name),
            "{}",
            exit.stderr
        );
    }
}

#[tokio::test]
async fn the_environment_proxy_is_used_unless_excepted() {
    let (target, builder) = pair().await;
    let proxy = FakeProvider::start().await;
    let through = format!("http://{}", proxy.addr());
    let proxied = builder.clone().env("HTTP_PROXY", &through).start().await;
    assert_eq!(proxied.chat(&Gateway::hello(false)).await.status, 200);
    let seen = proxy.only_request();
    assert_eq!(seen.path, format!("{}/chat/completions", target.base()), "absolute form");
    assert!(target.requests().is_empty());
    let cases: [&[(&str, &str)]; 3] = [
        &[("http_proxy", &through), ("NO_PROXY", "localhost,127.0.0.1")],
        &[("HTTP_PROXY", "")],
        &[("HTTPS_PROXY", &through)],
    ];
    for (index, env) in cases.into_iter().enumerate() {
        let builder = env.iter().fold(builder.clone(), |b, (name, value)| b.env(name, value));
        let gateway = builder.start().await;
        assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200, "{env:?}");
        assert_eq!(target.requests().len(), index + 1, "{env:?}");
    }
    assert_eq!(proxy.requests().len(), 1);
}

#[tokio::test]
async fn http1_oddities_of_upstreams_are_fine() {
    let (upstream, builder) = pair().await;
    let gateway = builder.start().await;
    let body = answer();
    let length = body.len();
    let texts = [
        format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{body}"),
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"),
        format!("HTTP/1.1 200\r\ncontent-length: {length}\r\n\r\n{body}"),
        format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"),
        format!(
            "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n{length:x};a=b\r\n{body}\r\n0\r\nx: y\r\n\r\n"
        ),
    ];
    for text in texts {
        upstream.push(Reply::raw(text.clone()).then_close());
        let mut reply = gateway.chat(&Gateway::hello(false)).await;
        let received = reply.json().await;
        assert_eq!(reply.status, 200, "{text}: {received}");
        assert_eq!(received["choices"][0]["message"]["content"], "odd but fine");
        upstream.wait_closed(upstream.requests().len()).await;
    }
}

#[tokio::test]
async fn every_topology_behaves_the_same() {
    let topologies: [&[(&str, Value)]; 3] = [
        &[("/proxy/thread_per_core", json!(false)), ("/proxy/workers", json!(2))],
        &[("/proxy/thread_per_core", json!(true)), ("/proxy/workers", json!(4))],
        &[("/proxy/workers", json!(null))],
    ];
    for settings in topologies {
        let (upstream, builder) = pair().await;
        let mut builder = builder;
        for (pointer, value) in settings {
            if !value.is_null() {
                builder = builder.set(pointer, value.clone());
            }
        }
        let mut gateway = builder.start().await;
        let calls: Vec<_> = (0..40)
            .map(|n| {
                let client = gateway.client();
                let request = Gateway::chat_request(&Gateway::hello(n % 2 == 0));
                tokio::spawn(async move { client.send(request).await.bytes().await })
            })
            .collect();
        for call in calls {
            call.await.expect("a reply");
        }
        upstream.push(Reply::error(500, "x"));
        expect_error(gateway.chat(&Gateway::hello(false)).await, 502, "upstream_error").await;
        gateway.wait_metric("aisix_proxy_requests_total", &[], 41.0).await;
        gateway.wait_metric("aisix_llm_total_tokens_total", &[], 320.0).await;
        aisix_e2e::idle(&gateway).await;
        gateway.term();
        assert_eq!(gateway.exit().await.code(), Some(0));
    }
}
