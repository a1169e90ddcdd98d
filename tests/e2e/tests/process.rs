//! The command line and the boot: exit codes, validation, environment, refusals.

use aisix_e2e::pair;
use aisix_testkit::gateway::ADMIN_KEY;
use aisix_testkit::gateway::builder::free_port;
use aisix_testkit::{Client, Exit, Gateway, GatewayBuilder, Request};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use tempfile::TempDir;

/// Runs the binary in a directory with these files.
async fn run(args: &[&str], env: &[(&str, &str)], files: &[(&str, &str)]) -> Exit {
    let dir = TempDir::new().expect("a directory");
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).expect("write a file");
    }
    Gateway::run(args, env, dir.path()).await
}

fn expect_boot_failure(exit: &Exit, fragments: &[&str]) {
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    let line = exit.stderr.lines().find(|l| l.starts_with("Error: "));
    assert!(line.is_some(), "no `Error: ` line: {}", exit.stderr);
    for fragment in fragments {
        assert!(exit.stderr.contains(fragment), "{fragment:?} not in {}", exit.stderr);
    }
}

const RESOURCES: &str = r#"
_format_version: "1"
provider_keys:
  - {display_name: main, provider: openai, api_key: sk-x, api_base: "http://127.0.0.1:9/v1"}
models:
  - {display_name: m, provider: openai, model_name: up, provider_key: main}
api_keys:
  - {display_name: caller, key_env: CALLER_SECRET, allowed_models: [m]}
"#;

#[tokio::test]
async fn version_and_help_exit_zero() {
    for flag in ["--version", "-V"] {
        let exit = run(&[flag], &[], &[]).await;
        assert_eq!(exit.code, Some(0));
        let version = exit.stdout.trim().rsplit(' ').next().unwrap_or_default();
        let parts: Vec<&str> = version.splitn(3, '.').collect();
        assert!(exit.stdout.contains("aisix") && parts.len() == 3, "{}", exit.stdout);
        assert!(parts[0].parse::<u32>().is_ok(), "{version}");
    }
    for flag in ["--help", "-h"] {
        let exit = run(&[flag], &[], &[]).await;
        assert_eq!(exit.code, Some(0));
        assert!(exit.stdout.contains("--config") && exit.stdout.contains("validate"), "{}", exit.stdout);
        assert!(exit.stdout.contains("shutdown.min_drain_secs"), "{}", exit.stdout);
    }
    let exit = run(&["validate", "--help"], &[], &[]).await;
    assert_eq!(exit.code, Some(0));
    assert!(exit.stdout.contains("--resources") && exit.stdout.contains("--config"));
}

#[tokio::test]
async fn usage_errors_exit_two_with_usage_on_stderr() {
    for args in [&["--no-such-flag"][..], &["no-such-command"], &["validate"]] {
        let exit = run(args, &[], &[]).await;
        assert_eq!(exit.code, Some(2), "{args:?}: {exit:#?}");
        assert!(exit.stderr.to_lowercase().contains("usage"), "{args:?}: {}", exit.stderr);
        assert!(exit.stdout.is_empty(), "{args:?}: {}", exit.stdout);
    }
}

#[tokio::test]
async fn unreadable_configuration_is_a_boot_failure() {
    let load = "config load failed: failed to load configuration: ";
    let missing = run(&["--config", "missing.yaml"], &[], &[]).await;
    expect_boot_failure(&missing, &[load, "build: "]);
    let broken = run(&["--config", "c.yaml"], &[], &[("c.yaml", "proxy: [unclosed")]).await;
    expect_boot_failure(&broken, &[load, "build: "]);
    let extension = run(&["--config", "c.ini"], &[], &[("c.ini", "proxy = 1")]).await;
    expect_boot_failure(&extension, &[load]);
    let text = [0xff, 0xfe, 0x00];
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("c.yaml"), text).expect("write");
    let binary = Gateway::run(&["--config", "c.yaml"], &[], dir.path()).await;
    expect_boot_failure(&binary, &[load]);
}

#[tokio::test]
async fn all_unknown_fields_are_named_at_once() {
    let config = "resources_file: r.yaml\nproxy: {addr: '127.0.0.1:1', adrr: x}\nobservability: {metrics: {nope: 1}}\nextra: 1\n";
    let files = [("c.yaml", config), ("r.yaml", "_format_version: \"1\"\n")];
    for args in [&["--config", "c.yaml"][..], &["validate", "--config", "c.yaml"]] {
        let exit = run(args, &[], &files).await;
        assert_eq!(exit.code, Some(1), "{exit:#?}");
        for field in ["adrr", "nope", "extra"] {
            assert!(exit.stderr.contains(field), "{field} not in {}", exit.stderr);
        }
    }
}

#[tokio::test]
async fn boot_validation_says_what_is_wrong() {
    let rewrites = |rule: Value| json!([rule]);
    let cases: [(&str, Value, &str); 20] = [
        ("/proxy/url_rewrites", rewrites(json!({"match": "(", "rewrite": "/b"})), "proxy.url_rewrites[0]"),
        ("/proxy/url_rewrites", rewrites(json!({"name": "mine", "match": "x*", "rewrite": "/b"})), "mine"),
        (
            "/proxy/url_rewrites",
            rewrites(json!({"match": "^/a$", "rewrite": "/b$2"})),
            "proxy.url_rewrites[0]",
        ),
        ("/proxy/addr", json!("nonsense"), "proxy.addr invalid socket address"),
        ("/admin/addr", json!("nonsense"), "admin.addr invalid socket address"),
        ("/admin/admin_keys", json!([]), "admin.admin_keys must contain at least one key"),
        (
            "/observability/metrics/prometheus/addr",
            json!("x"),
            "observability.metrics.prometheus.addr invalid socket address",
        ),
        ("/proxy/workers", json!(0), "proxy.workers must be at least 1"),
        (
            "/proxy/real_ip/trusted_proxies",
            json!(["10.0.0.0/99"]),
            "proxy.real_ip.trusted_proxies invalid CIDR/IP",
        ),
        (
            "/proxy/request_id/accept_headers",
            json!(["Authorization"]),
            "proxy.request_id.accept_headers rejects",
        ),
        (
            "/proxy/request_id/accept_headers",
            json!(["traceparent"]),
            "proxy.request_id.accept_headers rejects",
        ),
        ("/resources_file", json!(""), "resources_file must not be empty when set"),
        ("/resources_file", json!("missing.yaml"), "cannot read file:"),
        ("/observability/log_level", json!("aisix=not_a_level"), "log_level"),
        (
            "/observability/metrics/buckets/request_ttft",
            json!([2.0, 1.0]),
            "observability.metrics.buckets.request_ttft",
        ),
        (
            "/observability/metrics/buckets/request_e2e_latency",
            json!([]),
            "observability.metrics.buckets.request_e2e_latency",
        ),
        (
            "/observability/metrics/client_type_rules",
            json!([{"pattern": "(", "client": "x"}]),
            "client_type_rules[0]",
        ),
        ("/observability/log_format", json!("xml"), "log_format"),
        (
            "/upstream/tls/client_cert_file",
            json!("c.pem"),
            "upstream.tls.client_cert_file requires upstream.tls.client_key_file",
        ),
        ("/proxy/tls", json!({"cert_file": "no.pem", "key_file": "no.pem"}), "proxy.tls"),
    ];
    for (pointer, value, text) in cases {
        let (_upstream, builder) = pair().await;
        let exit = builder.set(pointer, value).start_and_fail().await;
        expect_boot_failure(&exit, &[text]);
    }
}

#[tokio::test]
async fn unbuilt_capabilities_and_two_sources_are_refused() {
    let (_upstream, builder) = pair().await;
    let not_yet: [(&str, Value); 5] = [
        ("/managed/enabled", json!(true)),
        ("/ratelimit", json!({"backend": "redis", "redis": {"url": "redis://127.0.0.1:9"}})),
        ("/cache", json!({"backend": "redis", "redis": {"url": "redis://127.0.0.1:9"}})),
        ("/observability/tracing/otlp", json!({"enabled": true, "endpoint": "http://127.0.0.1:9"})),
        ("/observability/metrics/otlp", json!({"enabled": true, "endpoint": "http://127.0.0.1:9"})),
    ];
    for (pointer, value) in not_yet {
        let probe = builder.clone().set(pointer, value);
        let exit = probe.start_and_fail().await;
        expect_boot_failure(&exit, &["not supported yet"]);
    }
    let etcd = json!({"endpoints": ["http://127.0.0.1:9"]});
    let both = builder.clone().set("/etcd", etcd).start_and_fail().await;
    expect_boot_failure(&both, &[]);
    let defaults = builder
        .set("/managed/enabled", json!(false))
        .set("/ratelimit/backend", json!("memory"))
        .set("/cache/backend", json!("memory"))
        .set("/observability/tracing/otlp/enabled", json!(false))
        .set("/observability/metrics/otlp/enabled", json!(false))
        .set("/proxy/url_rewrites", json!([]))
        .set("/observability/service_name", json!("mine"));
    let gateway = defaults.start().await;
    assert_eq!(gateway.send(Request::get("/livez")).await.status, 200);
}

#[tokio::test]
async fn an_address_in_use_fails_the_boot_and_is_named() {
    for (pointer, name) in [
        ("/proxy/addr", "proxy"),
        ("/admin/addr", "admin"),
        ("/observability/metrics/prometheus/addr", "metrics"),
    ] {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
        let addr = taken.local_addr().expect("address").to_string();
        let (_upstream, builder) = pair().await;
        let exit = builder.set(pointer, json!(addr)).start_and_fail().await;
        expect_boot_failure(&exit, &["Address already in use", &addr, name]);
    }
}

#[tokio::test]
async fn a_second_gateway_on_the_same_proxy_address_fails() {
    let (_upstream, builder) = pair().await;
    let first = builder.clone().start().await;
    let second = builder.set("/proxy/addr", json!(first.proxy.to_string()));
    let exit = second.start_and_fail().await;
    expect_boot_failure(&exit, &["Address already in use"]);
    assert_eq!(first.send(Request::get("/livez")).await.status, 200);
}

#[tokio::test]
async fn three_lines_are_enough() {
    for (name, text) in [
        ("c.yaml", "resources_file: r.yaml\nproxy:\n  addr: 127.0.0.1:PORT\n"),
        ("c.toml", "resources_file = \"r.yaml\"\n[proxy]\naddr = \"127.0.0.1:PORT\"\n"),
        ("c.json", "{\"resources_file\": \"r.yaml\", \"proxy\": {\"addr\": \"127.0.0.1:PORT\"}}"),
    ] {
        let dir = TempDir::new().expect("a directory");
        let port = free_port();
        let config = text.replace("PORT", &port.to_string());
        std::fs::write(dir.path().join(name), config).expect("write");
        std::fs::write(dir.path().join("r.yaml"), RESOURCES).expect("write");
        let metrics = format!("127.0.0.1:{}", free_port());
        let env = [
            ("CALLER_SECRET", "sk-caller"),
            ("AISIX_CONFIG", name),
            ("AISIX_OBSERVABILITY__METRICS__PROMETHEUS__ADDR", &metrics),
        ];
        let run = Gateway::run(&[], &env, dir.path());
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let probe = aisix_testkit::eventually("the proxy answers", || async {
            let request = Request::get("/v1/models").bearer("sk-caller");
            Client::new(addr).try_send(request).await.ok()
        });
        tokio::select! {
            exit = run => panic!("{name}: ended early: {exit:#?}"),
            mut reply = probe => assert_eq!(reply.json().await["data"][0]["id"], "m"),
        }
    }
}

#[tokio::test]
async fn environment_overrides_are_typed_by_the_field() {
    let (_upstream, builder) = pair().await;
    let gateway = builder
        .env("AISIX_ADMIN__ADMIN_KEYS", "007,1e3,key-three")
        .env("AISIX_PROXY__REQUEST_ID__ACCEPT_HEADERS", "x-one, x-two")
        .env("aisix_upstream__timeout_ms", "5000")
        .start()
        .await;
    for key in ["007", "1e3", "key-three"] {
        let request = Request::get("/admin/v1/health").bearer(key);
        assert_eq!(Client::new(gateway.admin).send(request).await.status, 200, "{key}");
    }
    let request = Request::get("/admin/v1/health").bearer(ADMIN_KEY);
    assert_eq!(Client::new(gateway.admin).send(request).await.status, 401);
    let reply = gateway.send(Request::get("/livez").header("x-two", "id-2"));
    assert_eq!(reply.await.header("x-aisix-request-id"), Some("id-2"));
}

#[tokio::test]
async fn wrong_environment_is_reported_whole() {
    let (_upstream, builder) = pair().await;
    let exit = builder
        .env("AISIX_PROXY__TYPO", "1")
        .env("AISIX_UPSTREAM__RETRIES", "many")
        .env("AISIX_NOTHING", "1")
        .start_and_fail()
        .await;
    expect_boot_failure(&exit, &["typo", "retries", "nothing"]);
}

#[tokio::test]
async fn validate_resources_accepts_and_counts() {
    let env = [("CALLER_SECRET", "sk-caller")];
    let files = [("r.yaml", RESOURCES)];
    let exit = run(&["validate", "--resources", "r.yaml"], &env, &files).await;
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    assert_eq!(exit.stdout.trim(), "OK: r.yaml loaded 3 resource(s)");
}

#[tokio::test]
async fn validate_resources_reports_every_problem() {
    let broken = r#"
_format_version: "1"
surprise: []
provider_keys:
  - {display_name: main, provider: openai, api_key: sk-very-secret, api_bse: x}
models:
  - {display_name: a, provider: openai, model_name: up, provider_key: nowhere}
  - {display_name: b, provider: openai, model_name: up, provider_key: main, timeout: soon}
api_keys:
  - {display_name: one, key_hash: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae, allowed_models: [zzz]}
  - {display_name: one, key_env: CALLER_SECRET, allowed_models: []}
"#;
    let files = [("r.yaml", broken)];
    let exit = run(&["validate", "--resources", "r.yaml"], &[], &files).await;
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    let report = &exit.stderr;
    for text in [
        "resources file r.yaml:",
        "error(s):",
        "unknown top-level key `surprise`",
        "provider_keys[0] (\"main\")",
        "api_bse",
        "models[0] (\"a\")",
        "unknown provider key \"nowhere\"",
        "models[1] (\"b\")",
        "timeout",
        "unknown model \"zzz\"",
        "duplicate api_keys entry",
    ] {
        assert!(report.contains(text), "{text:?} not in {report}");
    }
    assert!(!report.contains("sk-very-secret"), "{report}");
    let lines = report.lines().filter(|l| l.starts_with("  - ")).count();
    let head = report.lines().find(|l| l.starts_with("resources file"));
    assert!(head.is_some_and(|l| l.contains(&format!(" {lines} error(s)"))), "{report}");
}

#[tokio::test]
async fn validate_resources_file_level_problems() {
    for (text, fragment) in [
        ("", "file is empty"),
        ("- a\n- b\n", "top level must be a mapping"),
        ("models: []\n", "missing mandatory _format_version"),
        ("_format_version: 1\n", "_format_version must be the string \"1\""),
        ("_format_version: \"2\"\n", "unrecognized _format_version \"2\""),
        ("_format_version: \"1\"\nmodels: 5\n", "`models` must be a sequence of maps"),
        ("_format_version: \"1\"\nmodels: [x]\n", "entry must be a mapping"),
        ("_format_version: \"1\"\nmodels: [{provider: x}]\n", "display_name is required"),
        ("_format_version: \"1\"\nmodels: {{\n", "YAML parse error:"),
        ("_format_version: \"1\"\n---\n_format_version: \"1\"\n", "expected a single YAML document"),
    ] {
        let exit = run(&["validate", "--resources", "r.yaml"], &[], &[("r.yaml", text)]).await;
        assert_eq!(exit.code, Some(1), "{text:?}: {exit:#?}");
        assert!(exit.stderr.contains(fragment), "{fragment:?} not in {}", exit.stderr);
    }
    let exit = run(&["validate", "--resources", "none.yaml"], &[], &[]).await;
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("cannot read file:"), "{}", exit.stderr);
}

#[tokio::test]
async fn validate_config_accepts_and_refuses() {
    let good = "resources_file: r.yaml\nproxy:\n  addr: 127.0.0.1:3000\n";
    let args = ["validate", "--config", "c.yaml"];
    let files = [("c.yaml", good), ("r.yaml", "_format_version: \"1\"\n")];
    let exit = run(&args, &[], &files).await;
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    let bad = "resources_file: r.yaml\nproxy:\n  addr: nonsense\n  workers: 0\n";
    let exit = run(&args, &[], &[("c.yaml", bad)]).await;
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    for text in ["proxy.addr", "proxy.workers"] {
        assert!(exit.stderr.contains(text), "{text} not in {}", exit.stderr);
    }
}

#[tokio::test]
async fn a_bad_resources_file_fails_the_boot_with_the_same_report() {
    let (_upstream, builder) = pair().await;
    let builder = builder.edit(|r| r["models"][0]["provider_key"] = json!("nowhere"));
    let exit = builder.start_and_fail().await;
    expect_boot_failure(&exit, &["resources file", "error(s):", "unknown provider key \"nowhere\""]);
}

#[tokio::test]
async fn resource_settings_that_could_never_work_are_refused() {
    let cases: [(&str, Value, &str); 10] = [
        (
            "/provider_keys/0/request",
            json!({"default_body_fields": {"model": "other"}}),
            "default_body_fields",
        ),
        ("/provider_keys/0/request", json!({"param_renames": {"engine": "model"}}), "param_renames"),
        ("/api_keys/0/allowed_models", json!(["v*/*"]), "allowed_models"),
        ("/api_keys/0/key_hash", json!("abc"), "key_hash"),
        ("/models/0/allowed_cidrs", json!(["10.0.0.0/99"]), "allowed_cidrs"),
        ("/models/0/timeout", json!(-1), "timeout"),
        ("/models/0/provider", json!("Not Allowed"), "provider"),
        ("/provider_keys/0/api_base", json!("not a url"), "api_base"),
        ("/provider_keys/0/request", json!({"default_headers": {"x-a": "$${nope.nope}"}}), "default_headers"),
        ("/provider_keys/0/request", json!({"default_headers": {"authorization": "x"}}), "default_headers"),
    ];
    for (pointer, value, fragment) in cases {
        let (_upstream, builder) = pair().await;
        let exit = builder.edit(|r| set(r, pointer, value)).start_and_fail().await;
        expect_boot_failure(&exit, &["1 error(s):", fragment]);
    }
}

/// Sets a member by JSON pointer, adding the last one when it is missing.
fn set(at: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = at.pointer_mut(parent).expect("the entry exists");
    parent[name] = value;
}

/// Runs `validate` over one file.
async fn validated(option: &str, file: &str, content: &Value) -> Exit {
    run(&["validate", option, file], &[], &[(file, &content.to_string())]).await
}

fn changed(base: &Value, pointer: &str, value: &Value) -> Value {
    let mut base = base.clone();
    set(&mut base, pointer, value.clone());
    base
}

#[tokio::test]
async fn durations_beyond_ten_years_are_refused_by_name() {
    const TEN_YEARS: u64 = 315_360_000;
    let config = json!({
        "resources_file": "r.yaml", "proxy": {"addr": "127.0.0.1:3000"},
        "downstream": {}, "shutdown": {}, "upstream": {},
    });
    for (pointer, unit) in [
        ("/downstream/body_timeout_secs", 1),
        ("/downstream/head_timeout_secs", 1),
        ("/downstream/idle_timeout_secs", 1),
        ("/downstream/sse_keepalive_interval_secs", 1),
        ("/shutdown/min_drain_secs", 1),
        ("/shutdown/max_drain_secs", 1),
        ("/upstream/timeout_ms", 1000),
        ("/upstream/stream_timeout_ms", 1000),
        ("/upstream/connect_timeout_ms", 1000),
        ("/upstream/pool_idle_timeout_secs", 1),
    ] {
        let name = pointer.trim_start_matches('/').replace('/', ".");
        for beyond in [TEN_YEARS * unit + 1, u64::MAX] {
            let exit = validated("--config", "c.json", &changed(&config, pointer, &json!(beyond))).await;
            expect_boot_failure(&exit, &[&name]);
        }
        let longest = changed(&config, pointer, &json!(TEN_YEARS * unit));
        let files = [("c.json", longest.to_string()), ("r.yaml", "_format_version: \"1\"\n".to_owned())];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        let exit = run(&["validate", "--config", "c.json"], &[], &files).await;
        assert_eq!(exit.code, Some(0), "{name}: {exit:#?}");
    }
    let mut resources = GatewayBuilder::standard("http://127.0.0.1:9/v1");
    resources["models"][0]["cooldown"] = json!({});
    for (pointer, unit) in [
        ("/models/0/cooldown/default_seconds", 1),
        ("/models/0/cooldown/max_seconds", 1),
        ("/models/0/timeout", 1000),
        ("/models/0/stream_timeout", 1000),
    ] {
        let name = pointer.trim_start_matches("/models/0");
        for beyond in [TEN_YEARS * unit + 1, u64::MAX] {
            let exit =
                validated("--resources", "r.yaml", &changed(&resources, pointer, &json!(beyond))).await;
            expect_refusal(&exit, &["models[0]", name]);
        }
        let longest = changed(&resources, pointer, &json!(TEN_YEARS * unit));
        let exit = validated("--resources", "r.yaml", &longest).await;
        assert_eq!(exit.code, Some(0), "{name}: {exit:#?}");
    }
}

/// Exit code 1 and one error that has these fragments.
fn expect_refusal(exit: &Exit, fragments: &[&str]) {
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    assert!(exit.stderr.contains("1 error(s):"), "{}", exit.stderr);
    for fragment in fragments {
        assert!(exit.stderr.contains(fragment), "{fragment:?} not in {}", exit.stderr);
    }
}

#[tokio::test]
async fn the_longest_durations_work() {
    const TEN_YEARS: u64 = 315_360_000;
    let (_upstream, builder) = pair().await;
    let mut gateway = builder
        .set("/downstream/body_timeout_secs", json!(TEN_YEARS))
        .set("/downstream/head_timeout_secs", json!(TEN_YEARS))
        .set("/downstream/idle_timeout_secs", json!(TEN_YEARS))
        .set("/downstream/sse_keepalive_interval_secs", json!(TEN_YEARS))
        .set("/shutdown/max_drain_secs", json!(TEN_YEARS))
        .set("/upstream/timeout_ms", json!(TEN_YEARS * 1000))
        .edit(|r| r["models"][0]["timeout"] = json!(TEN_YEARS * 1000))
        .edit(|r| r["models"][0]["stream_timeout"] = json!(TEN_YEARS * 1000))
        .start()
        .await;
    for stream in [false, true] {
        let mut reply = gateway.chat(&Gateway::hello(stream)).await;
        assert_eq!(reply.status, 200);
        reply.bytes().await;
    }
    gateway.term();
    assert_eq!(gateway.exit().await.code(), Some(0), "{:#?}", gateway.log());
}

#[tokio::test]
async fn default_headers_that_the_gateway_sets_itself_are_refused() {
    let resources = GatewayBuilder::standard("http://127.0.0.1:9/v1");
    for name in [
        "content-type",
        "Content-Type",
        "accept-encoding",
        "x-aisix-request-id",
        "content-length",
        "transfer-encoding",
        "connection",
        "host",
        "authorization",
    ] {
        let request = json!({"default_headers": {name: "x"}});
        let file = changed(&resources, "/provider_keys/0/request", &request);
        let exit = validated("--resources", "r.yaml", &file).await;
        expect_refusal(&exit, &["provider_keys[0]", "default_headers", name]);
    }
    let request = json!({"default_headers": {"x-team": "a", "accept-language": "en"}});
    let file = changed(&resources, "/provider_keys/0/request", &request);
    assert_eq!(validated("--resources", "r.yaml", &file).await.code, Some(0));
}
