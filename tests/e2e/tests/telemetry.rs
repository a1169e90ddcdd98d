//! One record per request, seen as metrics and as the access log.

use aisix_e2e::{chat_body, idle, pair, request_id, started};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL, PROVIDER_SECRET, UPSTREAM_MODEL};
use aisix_testkit::{FakeProvider, Gateway, Reply, Request, Samples, Stream};
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";

const REQ: [&str; 15] = [
    "endpoint",
    "inbound_protocol",
    "provider",
    "model",
    "upstream_model",
    "provider_key_id",
    "provider_key_name",
    "api_key_id",
    "team_id",
    "user_id",
    "user_name",
    "stream",
    "is_fallback",
    "status",
    "outcome",
];

/// The label names of every sample of a family, histogram and quantile labels left out.
fn label_names(scrape: &Samples, family: &str) -> Vec<String> {
    let found = scrape.find(family, &[]);
    let sample = found.first().unwrap_or_else(|| panic!("no {family} in:\n{}", scrape.text));
    let names = sample.label_names().into_iter().filter(|n| *n != "le" && *n != "quantile");
    names.map(str::to_owned).collect()
}

/// A gateway whose caller key names team and user.
async fn attributed() -> (FakeProvider, Gateway) {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| {
            r["api_keys"][0]["team_id"] = json!("team-1");
            r["api_keys"][0]["user_id"] = json!("user-1");
            r["api_keys"][0]["user_name"] = json!("Ann");
        })
        .start()
        .await;
    (upstream, gateway)
}

#[tokio::test]
async fn request_families_have_their_labels_in_order() {
    let (_upstream, gateway) = attributed().await;
    let mut reply = gateway.chat(&Gateway::hello(false)).await;
    reply.bytes().await;
    gateway.wait_metric("aisix_llm_requests_total", &[], 1.0).await;
    let scrape = gateway.scrape().await;
    let without = |drop: &[&str]| -> Vec<&str> { REQ.into_iter().filter(|n| !drop.contains(n)).collect() };
    for (family, labels) in [
        ("aisix_proxy_requests_total", REQ.to_vec()),
        ("aisix_llm_requests_total", REQ.to_vec()),
        ("aisix_proxy_request_duration_seconds_count", without(&["is_fallback"])),
        ("aisix_llm_request_duration_seconds_count", without(&["is_fallback"])),
        ("aisix_requests_total", vec!["provider", "model", "status", "outcome"]),
        ("aisix_request_duration_seconds_count", vec!["provider", "model", "status"]),
        (
            "aisix_request_e2e_latency_seconds_count",
            vec!["env_id", "endpoint", "model", "provider", "status_class", "streaming"],
        ),
        ("aisix_llm_input_tokens_total", REQ[..11].to_vec()),
        ("aisix_llm_tokens_by_client_total", vec!["client_type", "model", "token_type"]),
        ("aisix_tokens_consumed_total", vec!["provider", "model"]),
        ("aisix_proxy_in_flight_requests", vec!["endpoint", "inbound_protocol"]),
        ("aisix_deployment_requests_total", vec!["provider", "model", "upstream_model", "provider_key_id"]),
        ("aisix_auth_decisions_total", vec!["method", "result", "reason"]),
    ] {
        assert_eq!(label_names(&scrape, family), labels, "{family}");
    }
    let values = [
        ("endpoint", PATH),
        ("inbound_protocol", "openai"),
        ("provider", "openai"),
        ("model", MODEL),
        ("upstream_model", UPSTREAM_MODEL),
        ("provider_key_name", "main"),
        ("team_id", "team-1"),
        ("user_id", "user-1"),
        ("user_name", "Ann"),
        ("stream", "false"),
        ("is_fallback", "false"),
        ("status", "200"),
        ("outcome", "success"),
    ];
    assert_eq!(scrape.sum("aisix_proxy_requests_total", &values), 1.0, "{}", scrape.text);
    assert_eq!(scrape.sum("aisix_proxy_failed_requests_total", &[]), 0.0);
    let lines = scrape.text.lines();
    assert!(
        lines.clone().all(|l| !l.starts_with("# HELP")) && !scrape.text.contains("\"\""),
        "no empty label:\n{}",
        scrape.text
    );
}

#[tokio::test]
async fn family_types_and_buckets() {
    let (_upstream, gateway) = started().await;
    gateway.chat(&Gateway::hello(true)).await.bytes().await;
    gateway.wait_metric("aisix_request_ttft_seconds_count", &[], 1.0).await;
    let scrape = gateway.scrape().await;
    for (family, kind) in [
        ("aisix_requests_total", "counter"),
        ("aisix_proxy_requests_total", "counter"),
        ("aisix_request_duration_seconds", "summary"),
        ("aisix_llm_request_duration_seconds", "summary"),
        ("aisix_llm_time_to_first_token_seconds", "summary"),
        ("aisix_proxy_in_flight_requests", "gauge"),
        ("aisix_request_e2e_latency_seconds", "histogram"),
        ("aisix_request_ttft_seconds", "histogram"),
    ] {
        assert_eq!(scrape.kind(family), Some(kind), "{family}");
    }
    let edges = |family: &str| -> Vec<String> {
        let buckets = scrape.find(family, &[]).into_iter();
        buckets.filter_map(|s| s.label("le").map(str::to_owned)).collect()
    };
    let e2e = [
        "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2", "5", "10", "30", "60", "120",
        "300", "420", "600", "+Inf",
    ];
    assert_eq!(edges("aisix_request_e2e_latency_seconds_bucket"), e2e);
    let ttft = ["0.05", "0.1", "0.25", "0.5", "1", "2", "5", "10", "30", "60", "120", "300", "+Inf"];
    assert_eq!(edges("aisix_request_ttft_seconds_bucket"), ttft);
    assert!(scrape.find("aisix_llm_request_duration_seconds_bucket", &[]).is_empty());
}

#[tokio::test]
async fn bucket_overrides_replace_one_series_only() {
    let (_upstream, builder) = pair().await;
    let gateway =
        builder.set("/observability/metrics/buckets/request_e2e_latency", json!([0.5, 3])).start().await;
    gateway.chat(&Gateway::hello(true)).await.bytes().await;
    gateway.wait_metric("aisix_request_ttft_seconds_count", &[], 1.0).await;
    let scrape = gateway.scrape().await;
    let edges: Vec<&str> = scrape
        .find("aisix_request_e2e_latency_seconds_bucket", &[])
        .iter()
        .filter_map(|s| s.label("le"))
        .collect();
    assert_eq!(edges, ["0.5", "3", "+Inf"]);
    assert_eq!(scrape.find("aisix_request_ttft_seconds_bucket", &[]).len(), 13);
}

#[tokio::test]
async fn tokens_are_counted_once_for_both_shapes() {
    let (_upstream, gateway) = started().await;
    for (round, stream) in [(1.0, false), (2.0, true)] {
        gateway.chat(&Gateway::hello(stream)).await.bytes().await;
        gateway.wait_metric("aisix_llm_total_tokens_total", &[("model", MODEL)], 8.0 * round).await;
        for (family, each) in [
            ("aisix_llm_input_tokens_total", 5.0),
            ("aisix_llm_output_tokens_total", 3.0),
            ("aisix_tokens_consumed_total", 8.0),
            ("aisix_llm_tokens_by_client_total", 16.0),
            ("aisix_deployment_requests_total", 1.0),
            ("aisix_deployment_success_responses_total", 1.0),
            ("aisix_request_e2e_latency_seconds_count", 1.0),
        ] {
            gateway.wait_metric(family, &[], each * round).await;
        }
        let flag = if stream { "true" } else { "false" };
        gateway.wait_metric("aisix_llm_requests_total", &[("stream", flag)], 1.0).await;
        let latency = [("streaming", flag), ("status_class", "2xx")];
        gateway.wait_metric("aisix_request_e2e_latency_seconds_count", &latency, 1.0).await;
    }
}

#[tokio::test]
async fn invented_names_are_no_labels() {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .edit(|r| {
            let row = json!({"display_name": "wid/*", "provider": "openai", "model_name": "*", "provider_key": "main"});
            r["models"].as_array_mut().expect("models").push(row);
        })
        .start()
        .await;
    for stream in [false, true] {
        gateway.chat(&chat_body(json!({"model": "wid/invented-1", "stream": stream}))).await.bytes().await;
    }
    upstream.push(Reply::error(500, "no"));
    gateway.chat(&chat_body(json!({"model": "wid/invented-2"}))).await.bytes().await;
    gateway.chat(&chat_body(json!({"model": "invented-3"}))).await.bytes().await;
    gateway.send(Request::get("/invented-4/path")).await.bytes().await;
    let agent = Gateway::chat_request(&Gateway::hello(false)).header("user-agent", "invented-5/1");
    gateway.send(agent.header("x-aisix-request-id", "invented-6")).await.bytes().await;
    let labels = [("model", "wid/*"), ("upstream_model", "*")];
    gateway.wait_metric("aisix_proxy_requests_total", &labels, 3.0).await;
    let unresolved =
        [("model", "unresolved"), ("provider", "unknown"), ("provider_key_id", "unknown"), ("status", "404")];
    gateway.wait_metric("aisix_proxy_requests_total", &unresolved, 1.0).await;
    let scrape = gateway.scrape().await;
    assert!(!scrape.mentions("invented"), "{}", scrape.text);
}

#[tokio::test]
async fn a_failed_upstream_keeps_its_attribution() {
    let (upstream, gateway) = started().await;
    upstream.push(Reply::error(500, "no"));
    gateway.chat(&Gateway::hello(false)).await.bytes().await;
    upstream.push(Reply::error(429, "slow down"));
    gateway.chat(&Gateway::hello(true)).await.bytes().await;
    upstream.push(Reply::error(404, "none"));
    gateway.chat(&Gateway::hello(false)).await.bytes().await;
    for (status, outcome) in [("502", "upstream_error"), ("429", "rate_limited"), ("404", "client_error")] {
        let labels = [
            ("status", status),
            ("outcome", outcome),
            ("provider", "openai"),
            ("model", MODEL),
            ("upstream_model", UPSTREAM_MODEL),
            ("provider_key_name", "main"),
        ];
        gateway.wait_metric("aisix_proxy_failed_requests_total", &labels, 1.0).await;
        gateway.wait_metric("aisix_proxy_requests_total", &labels, 1.0).await;
    }
    let scrape = gateway.scrape().await;
    assert_eq!(scrape.sum("aisix_deployment_failure_responses_total", &[("model", MODEL)]), 3.0);
    assert_eq!(scrape.sum("aisix_llm_input_tokens_total", &[]), 0.0);
}

#[tokio::test]
async fn retries_are_one_request_and_several_attempts() {
    let (upstream, builder) = pair().await;
    let gateway = builder.edit(|r| r["models"][0]["retries"] = json!(1)).start().await;
    upstream.push(Reply::error(500, "no"));
    let mut reply = gateway.chat(&Gateway::hello(false)).await;
    reply.bytes().await;
    gateway.wait_metric("aisix_deployment_requests_total", &[], 2.0).await;
    let scrape = gateway.scrape().await;
    assert_eq!(scrape.sum("aisix_proxy_requests_total", &[]), 1.0);
    assert_eq!(
        scrape.sum("aisix_proxy_requests_total", &[("outcome", "success"), ("is_fallback", "false")]),
        1.0
    );
    assert_eq!(scrape.sum("aisix_deployment_success_responses_total", &[]), 1.0);
    assert_eq!(gateway.access_of(&request_id(&reply)).await.len(), 1);
}

#[tokio::test]
async fn a_truncated_stream_is_recorded_as_a_failure() {
    let (upstream, gateway) = started().await;
    for reply in [
        Stream::new().content("a").cut(),
        Stream::new().content("a").end(),
        Stream::new().content("a").json(&json!({"error": {"message": "x"}})).end(),
    ] {
        upstream.push(reply);
        let mut answer = gateway.chat(&Gateway::hello(true)).await;
        answer.events().await;
        let lines = gateway.access_of(&request_id(&answer)).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_ne!(lines[0].get("status"), Some("200"), "{lines:?}");
        assert!(lines[0].get("error_kind").is_some_and(|k| !k.is_empty()), "{lines:?}");
    }
    idle(&gateway).await;
    let scrape = gateway.scrape().await;
    assert_eq!(scrape.sum("aisix_proxy_requests_total", &[]), 3.0);
    assert_eq!(scrape.sum("aisix_proxy_requests_total", &[("outcome", "success")]), 0.0);
    assert_eq!(scrape.sum("aisix_proxy_failed_requests_total", &[]), 3.0);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_is_499_and_only_cancelled() {
    let (upstream, gateway) = started().await;
    upstream.push(Reply::hang());
    let client = gateway.client();
    let request = Gateway::chat_request(&Gateway::hello(false)).header("x-aisix-request-id", "gone-1");
    let waiting = tokio::spawn(async move { client.try_send(request).await.is_ok() });
    upstream.wait_requests(1).await;
    waiting.abort();
    let lines = gateway.access_of("gone-1").await;
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (lines[0].get("status"), lines[0].get("error_kind")),
        (Some("499"), Some("client_disconnected"))
    );
    let labels = [("endpoint", PATH), ("model", MODEL), ("provider_key_name", "main")];
    gateway.wait_metric("aisix_proxy_client_cancelled_requests_total", &labels, 1.0).await;
    idle(&gateway).await;
    assert_eq!(gateway.scrape().await.sum("aisix_proxy_requests_total", &[]), 0.0);
}

#[tokio::test]
async fn a_client_that_leaves_mid_stream_is_recorded_once() {
    let (upstream, gateway) = started().await;
    upstream.push(Stream::new().content("some words").hang());
    let request = Gateway::chat_request(&Gateway::hello(true)).header("x-aisix-request-id", "gone-2");
    let mut reply = gateway.send(request).await;
    reply.event().await;
    drop(reply);
    upstream.wait_closed(1).await;
    let lines = gateway.access_of("gone-2").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    idle(&gateway).await;
    gateway.wait_metric("aisix_proxy_requests_total", &[], 1.0).await;
    gateway.wait_metric("aisix_request_e2e_latency_seconds_count", &[("streaming", "true")], 1.0).await;
}

#[tokio::test]
async fn the_access_line_in_text() {
    let (upstream, gateway) = started().await;
    let mut reply = gateway.chat(&Gateway::hello(false)).await;
    reply.bytes().await;
    let id = request_id(&reply);
    let line = gateway.access_of(&id).await.remove(0);
    let expected = [
        ("method", "POST"),
        ("path", PATH),
        ("status", "200"),
        ("provider", "openai"),
        ("model", MODEL),
        ("prompt_tokens", "5"),
        ("completion_tokens", "3"),
        ("total_tokens", "8"),
        ("request_id", id.as_str()),
        ("provider_request_id", "chatcmpl-fake"),
    ];
    for (name, value) in expected {
        assert_eq!(line.get(name), Some(value), "{name} in {}", line.raw);
    }
    let order = [
        "method",
        "path",
        "status",
        "latency_ms",
        "provider",
        "model",
        "api_key_id",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "request_id",
        "provider_request_id",
    ];
    let names: Vec<&str> = line.names().into_iter().filter(|n| order.contains(n)).collect();
    assert_eq!(names, order, "{}", line.raw);
    assert!(line.get("error").is_none() && line.get("error_kind").is_none(), "{}", line.raw);
    for text in [
        "method=\"POST\"",
        "status=200",
        " INFO ",
        &format!("request_id={id}}}"),
        &format!("request_id=\"{id}\""),
    ] {
        assert!(line.raw.contains(text), "{text} not in {}", line.raw);
    }
    let stamp = line.raw.split(' ').next().unwrap_or_default();
    assert!(stamp.len() == 27 && stamp.ends_with('Z'), "RFC 3339 with microseconds: {stamp}");
    upstream.push(Reply::error(500, "secret detail"));
    let mut failed = gateway.chat(&Gateway::hello(false)).await;
    failed.bytes().await;
    let line = gateway.access_of(&request_id(&failed)).await.remove(0);
    assert_eq!((line.get("status"), line.get("error_kind")), (Some("502"), Some("upstream_error")));
    assert!(line.get("error").is_some_and(|e| !e.is_empty()), "{}", line.raw);
    assert!(!gateway.log().join("\n").contains('\u{1b}'), "no colours in a pipe");
}

#[tokio::test]
async fn the_access_line_in_json() {
    let (_upstream, builder) = pair().await;
    let gateway = builder.set("/observability/log_format", json!("json")).start().await;
    let mut reply = gateway.chat(&Gateway::hello(true)).await;
    reply.bytes().await;
    let line = gateway.access_of(&request_id(&reply)).await.remove(0);
    assert_eq!(
        (line.get("status"), line.get("model"), line.get("path")),
        (Some("200"), Some(MODEL), Some(PATH))
    );
    for line in gateway.log() {
        let value: Result<Value, _> = serde_json::from_str(&line);
        assert!(value.is_ok_and(|v| v.is_object()), "not JSON: {line}");
    }
}

#[tokio::test]
async fn the_log_level_gates_the_line_and_rust_log_wins() {
    let (_upstream, builder) = pair().await;
    let quiet = builder.clone().set("/observability/log_level", json!("warn")).start().await;
    quiet.chat(&Gateway::hello(false)).await.bytes().await;
    quiet.wait_metric("aisix_requests_total", &[], 1.0).await;
    assert!(quiet.access_log().is_empty());
    let loud = builder.set("/observability/log_level", json!("error")).env("RUST_LOG", "info").start().await;
    let mut reply = loud.chat(&Gateway::hello(false)).await;
    reply.bytes().await;
    assert_eq!(loud.access_of(&request_id(&reply)).await.len(), 1);
}

#[tokio::test]
async fn what_is_never_logged_or_counted_as_a_request() {
    let (_upstream, gateway) = started().await;
    gateway.send(Request::get("/livez")).await.bytes().await;
    gateway.send(Request::get("/readyz")).await.bytes().await;
    gateway.send(Request::get("/v1/models").bearer(CALLER_KEY)).await.bytes().await;
    gateway.send(Request::get("/nowhere")).await.bytes().await;
    gateway.send(Request::post(PATH, &Gateway::hello(false))).await.bytes().await;
    let mut last = gateway.chat(&Gateway::hello(false)).await;
    last.bytes().await;
    gateway.access_of(&request_id(&last)).await;
    assert_eq!(gateway.access_log().len(), 1, "{:#?}", gateway.log());
    gateway.wait_metric("aisix_proxy_requests_total", &[], 1.0).await;
}

#[tokio::test]
async fn every_concurrent_request_has_exactly_one_line() {
    let (_upstream, gateway) = started().await;
    let calls: Vec<_> = (0..60)
        .map(|n| {
            let client = gateway.client();
            let request = Gateway::chat_request(&Gateway::hello(n % 2 == 0))
                .header("x-aisix-request-id", format!("many-{n}"));
            tokio::spawn(async move { client.send(request).await.bytes().await })
        })
        .collect();
    for call in calls {
        call.await.expect("a reply");
    }
    for n in 0..60 {
        assert_eq!(gateway.access_of(&format!("many-{n}")).await.len(), 1);
    }
    assert_eq!(gateway.access_log().len(), 60);
    gateway.wait_metric("aisix_proxy_requests_total", &[("outcome", "success")], 60.0).await;
    idle(&gateway).await;
}

#[tokio::test]
async fn client_types_follow_rules_then_the_built_in_table() {
    let (_upstream, builder) = pair().await;
    let rules =
        json!([{"pattern": "^MyApp/", "client": "my-app"}, {"pattern": "openai-python", "client": "ours"}]);
    let gateway = builder.set("/observability/metrics/client_type_rules", rules).start().await;
    for (agent, expected) in [
        ("myapp/2", "my-app"),
        ("x openai-python", "ours"),
        ("OpenAI/Python 1.2", "openai-python"),
        ("OpenAI/JS 4", "openai-node"),
        ("claude-cli/1 cursor", "claude-code"),
        ("curl/8.5", "curl"),
        ("something else", "other"),
        ("", "unknown"),
    ] {
        let request = Gateway::chat_request(&Gateway::hello(false)).header("user-agent", agent);
        gateway.send(request).await.bytes().await;
        let labels = [("client_type", expected), ("token_type", "total"), ("model", MODEL)];
        gateway.wait_metric("aisix_llm_tokens_by_client_total", &labels, 8.0).await;
    }
}

#[tokio::test]
async fn no_secret_and_no_text_in_log_scrape_or_status() {
    let (upstream, builder) = pair().await;
    let gateway = builder.set("/observability/log_level", json!("debug")).start().await;
    for stream in [false, true] {
        let body =
            chat_body(json!({"stream": stream, "messages": [{"role": "user", "content": "PROMPT-TEXT"}]}));
        gateway.chat(&body).await.bytes().await;
        upstream.push(Reply::error(400, "ANSWER-TEXT"));
        gateway.chat(&body).await.bytes().await;
        upstream.push(Reply::reset());
        gateway.chat(&body).await.bytes().await;
    }
    idle(&gateway).await;
    let log = gateway.log().join("\n");
    let scrape = gateway.scrape().await;
    let status = gateway.config_status().await.to_string();
    for secret in
        [CALLER_KEY, PROVIDER_SECRET, aisix_testkit::gateway::ADMIN_KEY, "PROMPT-TEXT", "Hello from upstream"]
    {
        for text in [&log, &scrape.text, &status] {
            assert!(!text.contains(secret), "{secret} leaked");
        }
    }
}
