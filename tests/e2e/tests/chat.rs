//! Buffered chat: what reaches the upstream, what comes back, byte for byte where the contract says so.

use aisix_e2e::{chat_body, expect_error, message, pair, started};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL, PROVIDER_SECRET, UPSTREAM_MODEL};
use aisix_testkit::{FakeProvider, Gateway, RawConnection, Reply, Request};
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";

/// Sends exactly this text as a chat body.
fn text_request(body: &str) -> Request {
    Request::post_text(PATH, body).bearer(CALLER_KEY)
}

/// A gateway whose provider key has these `request`/`response` overrides.
async fn with_overrides(field: &str, overrides: Value) -> (FakeProvider, Gateway) {
    let (upstream, builder) = pair().await;
    let gateway = builder.edit(|r| r["provider_keys"][0][field] = overrides).start().await;
    (upstream, gateway)
}

#[tokio::test]
async fn a_plain_answer() {
    let (upstream, gateway) = started().await;
    let mut reply = gateway.chat(&chat_body(json!({}))).await;
    let body = reply.json().await;
    assert_eq!(reply.status, 200);
    assert_eq!(body["model"], MODEL);
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["message"]["content"], "Hello from upstream");
    assert_eq!(body["usage"]["total_tokens"], 8);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("x-aisix-call-id"), reply.header("x-aisix-request-id"));
    let request = upstream.only_request();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", PATH));
    assert_eq!(request.header_values("authorization"), [format!("Bearer {PROVIDER_SECRET}")]);
    assert_eq!(request.header("x-aisix-request-id"), reply.header("x-aisix-request-id"));
    assert_eq!(request.json()["stream"], false);
    assert!(request.json().get("stream_options").is_none());
}

#[tokio::test]
async fn the_request_body_is_relayed_byte_for_byte_but_for_the_model() {
    let (upstream, gateway) = started().await;
    let body = r#" { "zeta" : [1.0, 1e2, -0, 0.70, 12345678901234567890123, 1E-7], "model":"test-model",
        "messages":[ {"role":"user","content":"\u00e9 \/ \ud83d\ude00 é","x-unknown":{"b":1,"a":null}},
        {"role":"assistant","content":"","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]},
        {"role":"tool","tool_call_id":"c","content":"42"} ],
        "temperature":0.70,"top_p":1.00,"stream":false,"alpha":{"z":1,"a":[{}, []]},"seed":1e3,"metadata":null } "#;
    let reply = gateway.send(text_request(body)).await;
    assert_eq!(reply.status, 200);
    let expected = body.replace("test-model", UPSTREAM_MODEL);
    assert_eq!(upstream.only_request().text().trim(), expected.trim());
}

#[tokio::test]
async fn the_reply_is_relayed_byte_for_byte_but_for_the_model() {
    let (upstream, gateway) = started().await;
    let answer = r#"{ "zz":1.10,"id":"u-1","object":"chat.completion","created":1700000000,"model":"upstream-model-2026",
        "choices":[{"index":0,"message":{"role":"assistant","content":"\u00e9\/","refusal":null,"annotations":[],"x":1e5},
        "logprobs":{"content":[{"token":"a","logprob":-0.0}]},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0}},
        "service_tier":"default","system_fingerprint":"fp_1" }"#;
    upstream.push(Reply::body(200, "application/json; charset=utf-8", answer));
    let mut reply = gateway.chat(&chat_body(json!({}))).await;
    let expected = answer.replace("upstream-model-2026", MODEL);
    assert_eq!(reply.text().await.trim(), expected);
}

#[tokio::test]
async fn all_choices_survive_and_missing_members_are_filled_in() {
    let (upstream, gateway) = started().await;
    let choice = |index: usize| json!({"index": index, "message": {"role": "assistant", "content": index.to_string()}, "finish_reason": "length"});
    upstream.push(Reply::json(200, &json!({"choices": [choice(0), choice(1)], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})));
    let body = gateway.chat(&chat_body(json!({"n": 2}))).await.json().await;
    assert_eq!(body["choices"].as_array().map(Vec::len), Some(2));
    assert_eq!(body["choices"][1]["message"]["content"], "1");
    assert_eq!(body["model"], MODEL);
    assert_eq!(body["object"], "chat.completion");
    assert!(body["id"].as_str().is_some_and(|id| !id.is_empty()), "{body}");
    assert!(body["created"].is_u64(), "{body}");
    assert_eq!(upstream.only_request().json()["n"], 2);
}

#[tokio::test]
async fn tool_calls_vision_json_mode_and_reasoning_pass() {
    let (upstream, gateway) = started().await;
    let call =
        json!([{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}}]);
    let message = json!({"role": "assistant", "content": null, "tool_calls": call});
    upstream.push(Reply::json(
        200,
        &json!({
            "id": "u", "object": "chat.completion", "created": 1, "model": "x",
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        }),
    ));
    let extra = json!({
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/never-fetched.png"}},
        ]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": true}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
        "max_completion_tokens": 5, "max_tokens": 6, "parallel_tool_calls": false, "stop": ["a", "b"],
    });
    let sent = chat_body(extra);
    let answer = gateway.chat(&sent).await.json().await;
    assert_eq!(answer["choices"][0]["message"], message);
    let mut seen = upstream.only_request().json();
    seen["model"] = json!(MODEL);
    if let Some(seen) = seen.as_object_mut() {
        seen.remove("stream");
    }
    assert_eq!(seen, sent);
}

#[tokio::test]
async fn vendor_reasoning_is_renamed() {
    let (upstream, gateway) = started().await;
    for (message, expected) in [
        (json!({"role": "assistant", "content": "a", "reasoning": "why"}), json!("why")),
        (json!({"role": "assistant", "content": "a", "reasoning_content": "why"}), json!("why")),
        (
            json!({"role": "assistant", "content": "a", "reasoning": "no", "reasoning_content": "yes"}),
            json!("yes"),
        ),
    ] {
        upstream.push(Reply::json(
            200,
            &json!({
                "id": "u", "object": "chat.completion", "created": 1, "model": "x",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }),
        ));
        let answer = gateway.chat(&chat_body(json!({}))).await.json().await;
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["reasoning_content"], expected, "{answer}");
        assert!(message.get("reasoning").is_none(), "{answer}");
    }
    let history = json!([{"role": "assistant", "content": "a", "reasoning_content": "kept"}, {"role": "user", "content": "b"}]);
    gateway.chat(&chat_body(json!({"messages": history}))).await.json().await;
    assert_eq!(upstream.last_request().json()["messages"], history);
}

#[tokio::test]
async fn every_role_is_accepted_and_empty_content_becomes_text() {
    let (upstream, gateway) = started().await;
    let roles = ["system", "developer", "user", "assistant", "tool", "function"];
    let messages: Vec<Value> = roles.iter().map(|role| json!({"role": role, "content": "x"})).collect();
    assert_eq!(gateway.chat(&chat_body(json!({"messages": messages}))).await.status, 200);
    assert_eq!(upstream.last_request().json()["messages"], json!(messages));
    let bare = json!([{"role": "assistant", "content": null}, {"role": "user"}]);
    assert_eq!(gateway.chat(&chat_body(json!({"messages": bare}))).await.status, 200);
    let seen = upstream.last_request().json();
    assert_eq!((&seen["messages"][0]["content"], &seen["messages"][1]["content"]), (&json!(""), &json!("")));
}

#[tokio::test]
async fn upstream_response_headers_are_not_relayed() {
    let (upstream, gateway) = started().await;
    let headers = [
        ("content-type", "application/json"),
        ("server", "vendor/1"),
        ("x-ratelimit-remaining-requests", "5"),
        ("openai-organization", "org-secret"),
        ("set-cookie", "a=b"),
        ("x-request-id", "vendor-id"),
        ("x-aisix-request-id", "forged"),
    ];
    let answer = json!({"id": "u", "model": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]});
    upstream.push(Reply::with_headers(200, &headers, answer.to_string()));
    let reply = gateway.chat(&chat_body(json!({}))).await;
    for (name, _) in &headers[2..6] {
        assert!(reply.header(name).is_none(), "{name}");
    }
    assert!(reply.header("server").is_some_and(|s| s.starts_with("AISIX/")));
    assert_ne!(reply.header("x-aisix-request-id"), Some("forged"));
    assert_eq!(reply.headers.get_all("x-aisix-request-id").iter().count(), 1);
}

#[tokio::test]
async fn header_overrides_and_templates() {
    let (upstream, gateway) = with_overrides(
        "request",
        json!({
            "default_headers": {
                "x-fixed": "one", "x-tpl": "id=$${ request.id };m=$${model.name};k=$${provider_key.name}",
                "x-no-team": "$${request.api_key.team_id}",
                "x-clash": "operator",
            },
            "forward_client_headers": ["X-Fwd-*", "x-clash"],
        }),
    )
    .await;
    let request = Gateway::chat_request(&chat_body(json!({})))
        .header("x-fwd-a", "1")
        .header("x-other", "2")
        .header("x-clash", "client");
    let reply = gateway.send(request).await;
    assert_eq!(reply.status, 200);
    let seen = upstream.only_request();
    let id = reply.header("x-aisix-request-id").unwrap_or_default();
    assert_eq!(seen.header("x-fixed"), Some("one"));
    assert_eq!(seen.header("x-tpl"), Some(format!("id={id};m={MODEL};k=main").as_str()));
    for absent in ["x-no-team", "x-other"] {
        assert!(seen.header(absent).is_none(), "{absent}: {seen:?}");
    }
    assert_eq!(seen.header("x-fwd-a"), Some("1"));
    assert_eq!(seen.header_values("x-clash"), ["operator"]);
    assert_eq!(seen.header_values("authorization"), [format!("Bearer {PROVIDER_SECRET}")]);
}

#[tokio::test]
async fn body_overrides_in_their_order() {
    let (upstream, gateway) = with_overrides(
        "request",
        json!({
            "param_renames": {"max_tokens": "max_completion_tokens", "heat": "temperature"},
            "param_constraints": {"temperature_max": 1.5, "temperature_min": 0.5},
            "default_body_fields": {"user": "default", "extra": {"a": [1]}},
        }),
    )
    .await;
    for (extra, expected) in [
        (
            json!({"max_tokens": 7, "max_completion_tokens": 9, "heat": 9}),
            json!({"max_completion_tokens": 7, "temperature": 1.5, "user": "default", "extra": {"a": [1]}}),
        ),
        (json!({"temperature": 0.1, "user": "mine"}), json!({"temperature": 0.5, "user": "mine"})),
        (json!({"temperature": 1.0}), json!({"temperature": 1.0})),
    ] {
        assert_eq!(gateway.chat(&chat_body(extra)).await.status, 200);
        let seen = upstream.last_request().json();
        for (name, value) in expected.as_object().into_iter().flatten() {
            assert_eq!(&seen[name], value, "{seen}");
        }
        assert!(seen.get("max_tokens").is_none() && seen.get("heat").is_none(), "{seen}");
    }
    assert!(gateway.chat(&chat_body(json!({}))).await.status == 200);
    assert!(upstream.last_request().json().get("temperature").is_none());
}

#[tokio::test]
async fn content_lists_are_flattened_where_asked() {
    let (upstream, gateway) = with_overrides("response", json!({"content_list_to_string": true})).await;
    let messages = json!([
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
    ]);
    assert_eq!(gateway.chat(&chat_body(json!({"messages": messages}))).await.status, 200);
    let seen = upstream.only_request().json();
    assert_eq!(seen["messages"][0]["content"], "ab");
    assert_eq!(seen["messages"][1]["content"], messages[1]["content"]);
}

#[tokio::test]
async fn api_base_tolerates_slashes_and_pasted_endpoints() {
    for (suffix, path) in [
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions//", "/v1/chat/completions"),
        ("/v1/embeddings/", "/v1/chat/completions"),
        ("/v1/completions", "/v1/chat/completions"),
        ("/openai/v2", "/openai/v2/chat/completions"),
        ("/deep/er", "/deep/er/chat/completions"),
    ] {
        let upstream = FakeProvider::start().await;
        let base = format!("http://{}{suffix}", upstream.addr());
        let gateway = Gateway::builder().upstream(&base).start().await;
        assert_eq!(gateway.chat(&chat_body(json!({}))).await.status, 200, "{suffix}");
        assert_eq!(upstream.only_request().path, path, "{suffix}");
    }
}

#[tokio::test]
async fn unusable_provider_keys_answer_without_touching_the_network() {
    let (upstream, builder) = pair().await;
    let cases: [(Value, u16, &str, &str); 3] = [
        (
            json!({"provider": "openrouter", "adapter": "openai", "api_base": null}),
            400,
            "invalid_request_error",
            "invalid upstream configuration: ",
        ),
        (json!({"provider": "unheard-of"}), 503, "provider_unavailable", ""),
        (json!({"api_key": "bad\nsecret"}), 401, "authentication_error", "invalid upstream credentials: "),
    ];
    for (fields, status, kind, prefix) in cases {
        let gateway = builder
            .clone()
            .edit(|r| {
                if let (Some(key), Value::Object(fields)) =
                    (r["provider_keys"][0].as_object_mut(), fields.clone())
                {
                    key.extend(fields);
                }
            })
            .start()
            .await;
        for stream in [false, true] {
            let reply = gateway.chat(&Gateway::hello(stream)).await;
            let error = expect_error(reply, status, kind).await;
            assert!(message(&error).starts_with(prefix), "{fields}: {error}");
            assert!(!error.to_string().contains("bad\\nsecret"), "{error}");
        }
        assert_eq!(gateway.health_of(MODEL).await, json!(0), "not an upstream failure");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn any_vendor_name_works_with_the_openai_adapter() {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| {
            r["provider_keys"][0]["provider"] = json!("some-vendor");
            r["provider_keys"][0]["adapter"] = json!("openai");
            r["models"][0]["provider"] = json!("some-vendor");
        })
        .start()
        .await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    upstream.only_request();
}

#[tokio::test]
async fn wildcards_choose_the_most_specific_row_and_fill_the_template() {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| {
            let row = |name: &str, up: &str| json!({"display_name": name, "provider": "openai", "model_name": up, "provider_key": "main"});
            r["models"] = json!([
                row("openai/*", "*"), row("openai/gpt-*", "ft-*"), row("fixed/*", "pinned"), row("openai/gpt-exact", "exact-up"), row("*-suffix", "s-*"),
            ]);
        })
        .start()
        .await;
    for (alias, sent) in [
        ("openai/o1", "o1"),
        ("openai/gpt-4o", "ft-4o"),
        ("openai/gpt-", "ft-"),
        ("fixed/anything/else", "pinned"),
        ("openai/gpt-exact", "exact-up"),
        ("my-suffix", "s-my"),
    ] {
        let answer = gateway.chat(&chat_body(json!({"model": alias}))).await.json().await;
        assert_eq!(answer["model"], alias);
        assert_eq!(upstream.last_request().json()["model"], sent, "{alias}");
    }
    let models = gateway.send(Request::get("/v1/models").bearer(CALLER_KEY)).await.json().await;
    assert_eq!(models["data"].as_array().map(Vec::len), Some(1), "wildcard rows are not listed: {models}");
}

#[tokio::test]
async fn chunked_and_expect_continue_requests() {
    let (upstream, gateway) = started().await;
    let body = chat_body(json!({})).to_string();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CALLER_KEY}\r\ncontent-type: application/json\r\n"
    );
    let mut raw = RawConnection::open(gateway.proxy).await;
    let (left, right) = body.split_at(body.len() / 2);
    let chunked = format!(
        "{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{left}\r\n{:x};ext=1\r\n{right}\r\n0\r\n\r\n",
        left.len(),
        right.len()
    );
    raw.send(chunked.as_bytes()).await.expect("send");
    assert_eq!(raw.reply().await.map(|r| r.status), Some(200));
    let waiting = format!("{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
    raw.send(waiting.as_bytes()).await.expect("send");
    raw.send(body.as_bytes()).await.expect("send");
    assert_eq!(raw.reply().await.map(|r| r.status), Some(200));
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn the_built_in_echo_provider_answers_locally() {
    let gateway = Gateway::builder()
        .resources(json!({
            "_format_version": "1",
            "provider_keys": [{"display_name": "e", "provider": "echo", "api_key": "any"}],
            "models": [{"display_name": MODEL, "provider": "echo", "model_name": "echo", "provider_key": "e"}],
            "api_keys": [{"display_name": "c", "key_hash": aisix_testkit::key_hash(CALLER_KEY), "allowed_models": ["*"]}],
        }))
        .start()
        .await;
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "first"}, {"role": "user", "content": "say these four words"}]});
    let answer = gateway.chat(&body).await.json().await;
    assert!(
        answer["choices"][0]["message"]["content"]
            .as_str()
            .is_some_and(|c| c.contains("say these four words")),
        "{answer}"
    );
    assert_eq!((&answer["model"], &answer["choices"][0]["finish_reason"]), (&json!(MODEL), &json!("stop")));
    assert!(answer["usage"]["completion_tokens"].as_u64().is_some_and(|n| n >= 4), "{answer}");
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let frames = gateway.chat(&streamed).await.events().await;
    assert!(aisix_e2e::content_of(&frames).contains("say these four words"), "{frames:?}");
    assert!(frames.last().is_some_and(|f| f.is_done()));
}
