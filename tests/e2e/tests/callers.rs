//! Caller keys: where they may be, what they may do, what never leaves the gateway, and in which order gates refuse.

use aisix_e2e::{chat_body, expect_error, message, pair, started};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL, PROVIDER_SECRET};
use aisix_testkit::{FakeProvider, Gateway, Reply, Request, Response, Stream, key_hash};
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";

fn request() -> Request {
    Request::post(PATH, &Gateway::hello(false))
}

/// A gateway with further caller keys: name (also the secret), and the fields of the entry.
async fn with_keys(keys: &[(&str, Value)]) -> (FakeProvider, Gateway) {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| {
            let entries = r["api_keys"].as_array_mut().expect("api_keys");
            for (name, fields) in keys {
                let mut entry =
                    json!({"display_name": name, "key_hash": key_hash(name), "allowed_models": ["*"]});
                if let (Some(entry), Value::Object(fields)) = (entry.as_object_mut(), fields.clone()) {
                    entry.extend(fields);
                }
                entries.push(entry);
            }
        })
        .start()
        .await;
    (upstream, gateway)
}

#[tokio::test]
async fn accepted_credentials() {
    let (_upstream, gateway) = started().await;
    for accepted in [
        request().bearer(CALLER_KEY),
        request().header("authorization", format!("Bearer   {CALLER_KEY}  ")),
        request().header("x-api-key", CALLER_KEY),
        request().header("x-api-key", format!(" {CALLER_KEY} ")),
        request().bearer(CALLER_KEY).header("x-api-key", "ignored"),
        request().header("authorization", format!("bearer {CALLER_KEY}")),
        request().header("authorization", format!("BEARER  {CALLER_KEY} ")),
    ] {
        assert_eq!(gateway.send(accepted).await.status, 200);
    }
}

#[tokio::test]
async fn missing_and_malformed_credentials() {
    let (upstream, gateway) = started().await;
    for refused in [
        request(),
        request().header("authorization", CALLER_KEY),
        request().header("authorization", format!("Basic {CALLER_KEY}")),
        request().header("authorization", "Bearer "),
        request().header("authorization", ""),
        request().header("authorization", b"Bearer k\xff\xfe"),
        request().header("x-api-key", "   "),
        request().header("authorization", "Basic x").header("x-api-key", CALLER_KEY),
        request().header("api-key", CALLER_KEY),
        request().header("x-goog-api-key", CALLER_KEY),
    ] {
        let shown = format!("{refused:?}");
        let reply = gateway.send(refused).await;
        assert!(reply.header("www-authenticate").is_none());
        let error = expect_error(reply, 401, "invalid_api_key").await;
        assert_eq!(message(&error), "missing or malformed Authorization header", "{shown}");
        assert!(error.get("code").is_none(), "{shown}: {error}");
    }
    for refused in [request(), Request::get("/v1/models")] {
        let reply = gateway.send(refused.bearer("sk-unknown")).await;
        let error = expect_error(reply, 401, "invalid_api_key").await;
        assert_eq!(message(&error), "invalid API key");
        assert!(error.get("code").is_none());
    }
    let query = Request::post(&format!("{PATH}?api_key={CALLER_KEY}"), &Gateway::hello(false));
    expect_error(gateway.send(query).await, 401, "invalid_api_key").await;
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn disabled_and_expired_keys() {
    let (upstream, gateway) = with_keys(&[
        ("sk-disabled", json!({"disabled": true})),
        ("sk-expired", json!({"expires_at": "2020-01-01T00:00:00Z"})),
        ("sk-both", json!({"disabled": true, "expires_at": "2020-01-01T00:00:00Z"})),
        ("sk-later", json!({"expires_at": "2999-01-01T00:00:00+02:00"})),
    ])
    .await;
    for (key, code, text) in [
        ("sk-disabled", "api_key_disabled", "API key has been disabled"),
        ("sk-expired", "api_key_expired", "API key has expired"),
        ("sk-both", "api_key_disabled", "API key has been disabled"),
    ] {
        for refused in [request().bearer(key), Request::get("/v1/models").header("x-api-key", key)] {
            let error = expect_error(gateway.send(refused).await, 401, "invalid_api_key").await;
            assert_eq!((error["code"].as_str(), message(&error)), (Some(code), text));
        }
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(gateway.send(request().bearer("sk-later")).await.status, 200);
}

#[tokio::test]
async fn a_key_expires_without_a_reload() {
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    let seconds = soon.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let (_upstream, gateway) = with_keys(&[("sk-soon", json!({"expires_at": rfc3339(seconds)}))]).await;
    aisix_testkit::eventually("the key expires", || async {
        let reply = gateway.send(Request::get("/v1/models").bearer("sk-soon")).await;
        (reply.status == 401).then_some(())
    })
    .await;
}

/// RFC 3339 of a Unix time, by the usual civil-from-days arithmetic.
fn rfc3339(unix: u64) -> String {
    let (days, rest) = (unix / 86_400, unix % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[tokio::test]
async fn allowed_models_are_matched_against_the_name_sent() {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| {
            let model = |name: &str, up: &str| {
                json!({"display_name": name, "provider": "openai", "model_name": up, "provider_key": "main"})
            };
            r["models"] = json!([model("vendor/*", "*"), model("plain", "p"), model("gpt-a-preview", "g")]);
            let key = |name: &str, allowed: Value| {
                json!({"display_name": name, "key_hash": key_hash(name), "allowed_models": allowed})
            };
            r["api_keys"] = json!([
                key("all", json!(["*"])),
                key("none", json!([])),
                key("glob", json!(["vendor/*", "gpt-*-preview"])),
                key("narrow", json!(["vendor/a*"])),
                key("exact", json!(["plain"])),
            ]);
        })
        .start()
        .await;
    for (key, model, status) in [
        ("all", "vendor/x", 200),
        ("all", "plain", 200),
        ("none", "plain", 403),
        ("glob", "vendor/deep/x", 200),
        ("glob", "gpt-a-preview", 200),
        ("glob", "plain", 403),
        ("narrow", "vendor/abc", 200),
        ("narrow", "vendor/b", 403),
        ("exact", "plain", 200),
        ("exact", "vendor/plain", 403),
        ("none", "nowhere", 404),
        ("exact", "Plain", 404),
    ] {
        let seen = upstream.requests().len();
        let body = chat_body(json!({"model": model}));
        let reply = gateway.send(Request::post(PATH, &body).bearer(key)).await;
        match status {
            200 => assert_eq!(reply.status, 200, "{key} {model}"),
            403 => {
                let error = expect_error(reply, 403, "permission_denied").await;
                assert_eq!(message(&error), format!("API key is not allowed to use model \"{model}\""));
                assert!(error.get("code").is_none());
            }
            _ => {
                let error = expect_error(reply, 404, "model_not_found").await;
                assert_eq!(message(&error), format!("model \"{model}\" not found"));
            }
        }
        assert_eq!(upstream.requests().len() - seen, usize::from(status == 200), "{key} {model}");
    }
    for (key, expected) in [
        ("all", vec!["gpt-a-preview", "plain"]),
        ("none", vec![]),
        ("glob", vec!["gpt-a-preview"]),
        ("exact", vec!["plain"]),
    ] {
        let mut reply = gateway.send(Request::get("/v1/models").bearer(key)).await;
        let body = reply.json().await;
        assert_eq!((reply.status, &body["object"]), (200, &json!("list")));
        let entries = body["data"].as_array().cloned().unwrap_or_default();
        let ids: Vec<&str> = entries.iter().filter_map(|m| m["id"].as_str()).collect();
        assert_eq!(ids, expected, "{key}");
        for entry in &entries {
            assert_eq!((&entry["object"], &entry["owned_by"]), (&json!("model"), &json!("openai")));
            assert!(entry["created"].is_u64(), "{entry}");
        }
    }
}

#[tokio::test]
async fn caller_credentials_and_private_headers_never_reach_the_upstream() {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| {
            r["provider_keys"][0]["request"] = json!({"forward_client_headers": ["*"]});
        })
        .start()
        .await;
    let private = [
        ("cookie", "session=private-value"),
        ("x-goog-api-key", "private-value"),
        ("api-key", "private-value"),
        ("proxy-authorization", "Basic private-value"),
        ("x-amz-security-token", "private-value"),
        ("x-aisix-secret", "private-value"),
        ("x-stainless-os", "private-value"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    for by_bearer in [true, false] {
        let mut sent = match by_bearer {
            true => request().bearer(CALLER_KEY).header("x-api-key", "private-value"),
            false => request().header("x-api-key", CALLER_KEY),
        };
        for (name, value) in private {
            sent = sent.header(name, value);
        }
        let reply = gateway.send(sent.header("x-mine", "forwarded")).await;
        assert_eq!(reply.status, 200);
        let seen = upstream.last_request();
        assert!(!seen.mentions(CALLER_KEY), "{seen:?}");
        assert!(!seen.mentions("private-value"), "{seen:?}");
        assert!(seen.header("traceparent").is_none_or(|v| !v.contains("b7ad6b7169203331")), "{seen:?}");
        assert_eq!(seen.header_values("authorization"), [format!("Bearer {PROVIDER_SECRET}")]);
        assert_eq!(seen.header_values("host"), [upstream.addr().to_string()]);
        assert_eq!(seen.header_values("x-mine"), ["forwarded"]);
    }
}

#[tokio::test]
async fn headers_that_the_client_names_as_its_connections_stay_here() {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| r["provider_keys"][0]["request"] = json!({"forward_client_headers": ["*"]}))
        .start()
        .await;
    let sent = request()
        .bearer(CALLER_KEY)
        .header("connection", "keep-alive,X-Hop")
        .header("connection", " x-hop-2 , x")
        .header("x-hop", "1")
        .header("x-hop-2", "2")
        .header("x-hop-3", "3");
    assert_eq!(gateway.send(sent).await.status, 200);
    let seen = upstream.only_request();
    assert_eq!((seen.header("x-hop"), seen.header("x-hop-2")), (None, None), "{seen:?}");
    assert_eq!(seen.header("x-hop-3"), Some("3"), "{seen:?}");
}

#[tokio::test]
async fn no_client_header_is_forwarded_by_default() {
    let (upstream, gateway) = started().await;
    let sent = request()
        .bearer(CALLER_KEY)
        .header("x-mine", "1")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-real-ip", "1.2.3.4")
        .header("user-agent", "my-client/1")
        .header("openai-organization", "org");
    assert_eq!(gateway.send(sent).await.status, 200);
    let seen = upstream.only_request();
    for name in ["x-mine", "x-forwarded-for", "x-real-ip", "openai-organization", "x-api-key", "cookie"] {
        assert!(seen.header(name).is_none(), "{name}: {seen:?}");
    }
    assert!(seen.header("user-agent").is_some_and(|v| v.starts_with("aisix/")), "{seen:?}");
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert!(seen.header("x-aisix-request-id").is_some());
}

#[tokio::test]
async fn gates_refuse_in_the_contract_order() {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .set("/proxy/request_body_limit_bytes", json!(600))
        .edit(|r| {
            r["models"][0]["allowed_cidrs"] = json!(["10.0.0.0/8"]);
            let key =
                json!({"display_name": "limited", "key_hash": key_hash("limited"), "allowed_models": []});
            r["api_keys"].as_array_mut().expect("api_keys").push(key);
        })
        .start()
        .await;
    let big = "x".repeat(700);
    let ask = |key: &str, body: &str| Request::post_text(PATH, body).bearer(key);
    let known = chat_body(json!({})).to_string();
    let unknown = chat_body(json!({"model": "nowhere"})).to_string();
    // Each line is refused by one more gate than the line before.
    let steps = [
        (ask("wrong", &big), 413, "invalid_request_error"),
        (ask("wrong", "{not json"), 401, "invalid_api_key"),
        (ask("limited", "{not json"), 400, "invalid_request_error"),
        (ask("limited", &unknown), 404, "model_not_found"),
        (ask("limited", &known), 403, "permission_denied"),
        (ask(CALLER_KEY, &known), 403, "permission_denied"),
    ];
    let mut last = Value::Null;
    for (refused, status, kind) in steps {
        last = expect_error(gateway.send(refused).await, status, kind).await;
    }
    assert_eq!(last["code"], "ip_restricted");
    assert_eq!(message(&last), "Access denied: your client IP is not allowed to access this model");
    assert!(upstream.requests().is_empty());
}

/// What a request with this `X-Forwarded-For` gets from a model open to 10.0.0.0/8 only.
async fn status_from(gateway: &Gateway, forwarded: &str) -> u16 {
    let body = Gateway::hello(false);
    let sent = Gateway::chat_request(&body).header("x-forwarded-for", forwarded);
    gateway.send(sent).await.status
}

#[tokio::test]
async fn client_ip_follows_the_trusted_proxies() {
    type Expected = &'static [(&'static str, u16)];
    let cases: [(Value, bool, Expected); 3] = [
        (json!([]), false, &[("10.1.1.1", 403)]),
        (
            json!(["127.0.0.1"]),
            false,
            &[
                ("10.1.1.1", 200),
                ("8.8.8.8, 10.1.1.1:4711", 200),
                ("10.1.1.1, 8.8.8.8", 403),
                ("10.1.1.1, junk", 200),
                ("junk", 403),
            ],
        ),
        (
            json!(["127.0.0.0/8", "192.168.0.0/16"]),
            true,
            &[
                ("10.1.1.1, 192.168.1.1", 200),
                ("10.1.1.1, 8.8.8.8, 192.168.1.1", 403),
                ("192.168.7.7, 192.168.1.1", 403),
            ],
        ),
    ];
    for (trusted, recursive, expectations) in cases {
        let (_upstream, builder) = pair().await;
        let gateway = builder
            .set("/proxy/real_ip/trusted_proxies", trusted)
            .set("/proxy/real_ip/recursive", json!(recursive))
            .edit(|r| r["models"][0]["allowed_cidrs"] = json!(["10.0.0.0/8"]))
            .start()
            .await;
        for (forwarded, status) in expectations {
            assert_eq!(status_from(&gateway, forwarded).await, *status, "{forwarded} recursive={recursive}");
        }
    }
}

#[tokio::test]
async fn auth_decisions_are_counted_and_secrets_stay_out_of_log_and_scrape() {
    let (_upstream, gateway) = with_keys(&[("sk-off", json!({"disabled": true}))]).await;
    gateway.send(request()).await;
    gateway.send(request().bearer("sk-unknown-secret")).await;
    gateway.send(request().bearer("sk-off")).await;
    gateway.send(request().bearer(CALLER_KEY)).await;
    let scrape = gateway.scrape().await;
    for (method, result, reason) in [
        ("none", "denied", "missing_credentials"),
        ("api_key", "denied", "unknown_key"),
        ("api_key", "denied", "key_disabled"),
        ("api_key", "allowed", "none"),
    ] {
        let labels = [("method", method), ("result", result), ("reason", reason)];
        assert_eq!(scrape.sum("aisix_auth_decisions_total", &labels), 1.0, "{labels:?}");
    }
    let log = gateway.log().join("\n");
    for secret in [CALLER_KEY, "sk-unknown-secret", PROVIDER_SECRET, "sk-off"] {
        assert!(!scrape.mentions(secret) && !log.contains(secret), "{secret}");
    }
    assert!(scrape.mentions(MODEL));
}

/// Everything of a reply that a caller sees.
async fn shown(mut reply: Response) -> String {
    let text = reply.text().await;
    format!("{} {:?} {text}", reply.status, reply.headers)
}

#[tokio::test]
async fn the_providers_credential_is_struck_out_of_what_the_upstream_says() {
    let said = format!("Incorrect API key provided: Bearer {PROVIDER_SECRET}, {PROVIDER_SECRET}.");
    let error = json!({"error": {"message": said, "type": said, "code": said, "param": said, "key": said}});
    let odd = json!({"error": {"reason": said}});
    let in_band = json!({"error": {"message": said, "code": 401}});
    let begun = || Stream::new().content("a");
    let text = |status| Reply::body(status, "text/plain", said.clone());
    // Reply, streamed or not, and whether the upstream's words reach the caller.
    let cases: Vec<(&str, bool, Reply, bool)> = vec![
        ("401", false, Reply::json(401, &error), true),
        ("400", false, Reply::json(400, &error), true),
        ("500", false, Reply::json(500, &error), false),
        ("401 of another shape", false, Reply::json(401, &odd), true),
        ("401 with a bare string", false, Reply::json(401, &json!({"error": said})), true),
        ("401 in plain text", false, text(401), true),
        ("503 in plain text", false, text(503), false),
        ("400 before a stream", true, Reply::json(400, &error), true),
        ("200 with an error", false, Reply::json(200, &in_band), true),
        ("200 with an error string", false, Reply::json(200, &json!({"error": said})), false),
        ("200 that is no JSON", false, text(200), false),
        ("redirect", false, Reply::redirect(&format!("http://127.0.0.1:9/?key={PROVIDER_SECRET}")), false),
        (
            "reason phrase",
            false,
            Reply::raw(format!("HTTP/1.1 401 {said}\r\ncontent-length: 0\r\n\r\n")),
            false,
        ),
        ("no HTTP", false, Reply::raw(format!("{said}\r\n\r\n")).then_close(), false),
        ("first frame", true, Stream::new().json(&in_band).end(), true),
        ("later frame", true, begun().json(&error).end(), true),
        ("later frame, bare string", true, begun().json(&json!({"error": said})).end(), true),
        ("frame that is no JSON", true, begun().text(&format!("data: {said}\n\n")).end(), false),
    ];
    for level in ["info", "debug"] {
        for budget in [false, true] {
            let (upstream, builder) = pair().await;
            let builder = builder.set("/observability/log_level", json!(level));
            let gateway = match budget {
                true => builder.edit(|r| r["models"][0]["stream_timeout"] = json!(5000)).start().await,
                false => builder.start().await,
            };
            for (what, stream, reply, visible) in cases.clone() {
                upstream.push(reply);
                let answer = gateway.chat(&Gateway::hello(stream)).await;
                let id = aisix_e2e::request_id(&answer);
                let text = shown(answer).await;
                assert!(!text.contains(PROVIDER_SECRET), "{what}: {text}");
                assert!(!visible || text.contains("***"), "{what}: {text}");
                // The record is written, so is everything before it.
                gateway.access_of(&id).await;
                let log = gateway.log().join("\n");
                assert!(!log.contains(PROVIDER_SECRET), "{what}, {level}: {log}");
            }
            let log = gateway.log().join("\n");
            assert!(log.contains("***"), "{level}: {log}");
        }
    }
}

#[tokio::test]
async fn a_shortened_text_of_the_upstream_does_not_end_in_half_a_credential() {
    let (upstream, gateway) = started().await;
    // Wherever a text is cut, one of these has its credential there.
    for fill in (0..4200).step_by(12) {
        let said = format!("{}{PROVIDER_SECRET} and more{}", "x".repeat(fill), "y".repeat(5000));
        upstream.push(Reply::error(401, &said));
        let text = shown(gateway.chat(&Gateway::hello(false)).await).await;
        let text = text.replace("xx", "");
        assert!(!text.contains(&PROVIDER_SECRET[..12]), "behind {fill} letters: {text}");
    }
    let log = gateway.log().join("\n");
    assert!(!log.contains(&PROVIDER_SECRET[..12]), "{log}");
}
