//! Tests of the process configuration.

use std::time::Duration;

use super::*;

const MINIMAL: &str = "resources_file: r.yaml\n";

fn load(text: &str, env: &[(&str, &str)]) -> Result<ProcessConfig, ConfigErrors> {
    load_as("c.yaml", text, env)
}

fn load_as(name: &str, text: &str, env: &[(&str, &str)]) -> Result<ProcessConfig, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load_process_config(Some(&path), &env)
}

fn source_file(config: &ProcessConfig) -> PathBuf {
    match &config.source {
        Source::File(path) => path.clone(),
        other => panic!("{other:?}"),
    }
}

fn good(text: &str, env: &[(&str, &str)]) -> ProcessConfig {
    load(text, env).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    load(text, env).unwrap_err().problems().to_vec()
}

#[test]
fn every_default_parses() {
    fn walk(fields: crate::schema::Fields) {
        for field in fields {
            if let crate::schema::Need::Default(json) = field.need {
                let parsed = serde_json::from_str::<serde_json::Value>(json);
                assert!(parsed.is_ok(), "{}: {json}", field.name);
            }
            if let crate::schema::Kind::Object(inner) = field.kind {
                walk(inner);
            }
        }
    }
    walk(PROCESS);
}

#[test]
fn defaults() {
    let config = good(MINIMAL, &[]);
    assert_eq!(source_file(&config), PathBuf::from("r.yaml"));
    assert_eq!(config.proxy.addr.to_string(), "0.0.0.0:3000");
    assert_eq!(config.proxy.request_body_limit, None);
    assert_eq!(config.proxy.accept_headers, ["x-aisix-request-id"]);
    assert!(config.proxy.workers >= 1);
    assert!(config.admin.is_none());
    assert_eq!(config.observability.log_level, "info");
    assert_eq!(config.observability.log_format, LogFormat::Text);
    let prometheus = config.observability.prometheus.unwrap();
    assert_eq!(prometheus.addr.to_string(), "0.0.0.0:9090");
    assert_eq!(prometheus.path, "/metrics");
    assert_eq!(config.observability.buckets.request_e2e_latency.len(), 17);
    assert_eq!(config.upstream.timeout, Some(Duration::from_secs(6000)));
    assert_eq!(config.upstream.stream_timeout, None);
    assert_eq!(config.upstream.retries, 2);
    assert_eq!(config.upstream.tcp_keepalive.retries, Some(5));
    assert!(config.upstream.tls.verify);
    assert_eq!(config.downstream.idle_timeout, None);
    assert_eq!(config.downstream.head_timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.shutdown.min_drain, Duration::from_secs(30));
    assert_eq!(config.shutdown.max_drain, Duration::from_secs(300));
}

#[test]
fn the_formats_agree() {
    let yaml = "resources_file: r\nupstream: {retries: 7, timeout_ms: 0}\n";
    let toml = "resources_file = 'r'\n[upstream]\nretries = 7\ntimeout_ms = 0\n";
    let json = r#"{"resources_file":"r","upstream":{"retries":7,"timeout_ms":0}}"#;
    for (name, text) in [("c.yml", yaml), ("c.toml", toml), ("c.json", json)] {
        let config = load_as(name, text, &[]).unwrap();
        assert_eq!(config.upstream.retries, 7);
        assert_eq!(config.upstream.timeout, None);
    }
}

#[test]
fn blocks_are_typed() {
    let config = good(
        "resources_file: r
proxy:
  request_body_limit_bytes: 10
  tls: {cert_file: a, key_file: b}
  real_ip: {trusted_proxies: [10.0.0.0/8, '::1'], header: ' X-Real '}
  request_id: {accept_headers: []}
  url_rewrites: [{match: '^/a/(?P<rest>.*)', rewrite: '/$rest/${1}$$'}]
admin: {admin_keys: [k1, k2]}
observability:
  log_format: json
  metrics:
    prometheus: {path: ' scrape '}
    client_type_rules: '[{\"pattern\": \"openai\", \"client\": \"sdk\"}]'
shutdown: {min_drain_secs: 600}
",
        &[],
    );
    assert_eq!(config.proxy.request_body_limit, Some(10));
    assert_eq!(config.proxy.tls.unwrap().key_file, PathBuf::from("b"));
    assert_eq!(config.proxy.real_ip.trusted[1].to_string(), "::1/128");
    assert_eq!(config.proxy.real_ip.header, "x-real");
    assert!(config.proxy.accept_headers.is_empty());
    assert_eq!(config.proxy.url_rewrites[0].template, "/$rest/${1}$$");
    let admin = config.admin.unwrap();
    assert_eq!(admin.addr.to_string(), "127.0.0.1:3001");
    assert_eq!(admin.keys[1].key.expose(), "k2");
    assert_eq!(config.observability.log_format, LogFormat::Json);
    assert_eq!(config.observability.prometheus.unwrap().path, "/scrape");
    let rule = &config.observability.client_type_rules[0];
    assert!(rule.regex.is_match("OpenAI/Python"));
    assert_eq!(config.shutdown.max_drain, Duration::from_secs(600));
}

#[test]
fn the_environment_wins_and_is_typed_by_the_field() {
    let config = good(
        "resources_file: r\nupstream: {retries: 1}\nproxy:\n",
        &[
            ("AISIX_UPSTREAM__RETRIES", "3"),
            ("aisix_proxy__addr", "127.0.0.1:1"),
            ("AISIX_ADMIN__ADMIN_KEYS", "007, 1e3 ,"),
            ("AISIX_OBSERVABILITY__METRICS__BUCKETS__REQUEST_TTFT", "5"),
            ("AISIX_OBSERVABILITY__METRICS__PROMETHEUS__ENABLED", "FALSE"),
            ("AISIX_OBSERVABILITY__SERVICE_NAME", "true"),
            ("AISIX_PROXY__REQUEST_ID__ACCEPT_HEADERS", ""),
            ("AISIX_PROXY__URL_REWRITES", r#"[{"match":"^/a","rewrite":"/b"}]"#),
            ("AISIX_RESOURCES_FILE", "007"),
            ("AISIX_BEDROCK_ENDPOINT_URL", ""),
        ],
    );
    assert_eq!(config.upstream.retries, 3);
    assert_eq!(config.proxy.addr.to_string(), "127.0.0.1:1");
    let keys = config.admin.clone().unwrap().keys;
    let keys: Vec<_> = keys.iter().map(|key| key.key.expose().as_str()).collect();
    assert_eq!(keys, ["007", "1e3"]);
    assert_eq!(config.observability.buckets.request_ttft, [5.0]);
    assert!(config.observability.prometheus.is_none());
    assert_eq!(config.observability.service_name, "true");
    assert!(config.proxy.accept_headers.is_empty());
    assert_eq!(config.proxy.url_rewrites.len(), 1);
    assert_eq!(source_file(&config), PathBuf::from("007"));
}

#[test]
fn foreign_variables_are_left_alone() {
    good(
        MINIMAL,
        &[
            ("AISIX_CONFIG", "x"),
            ("AISIX_CONFIG_PATH", "x"),
            ("AISIX_SERVICE_HOST", "10.0.0.1"),
            ("AISIX_SERVICE_PORT", "3000"),
            ("AISIX_SERVICE_PORT_HTTP", "3000"),
            ("AISIX_ADMIN_API_SERVICE_HOST", "10.0.0.1"),
            ("AISIX_ADMIN_API_PORT_3001_TCP_ADDR", "10.0.0.1"),
            ("AISIX_ADMIN_API_PORT", "tcp://10.0.0.1:3001"),
            ("AISIX_PORT", "tcp://10.0.0.1:3000"),
            ("AISIX_PORT_3000_TCP_ADDR", "10.0.0.1"),
            ("AISIXSECRET_X", "x"),
            ("PATH", "x"),
        ],
    );
}

#[test]
fn unknown_variables_are_all_reported() {
    let found = problems(
        MINIMAL,
        &[
            ("AISIX_PROXY__ADR", "sk-1"),
            ("AISIX_TOKEN", "sk-2"),
            ("AISIX_PROXY__ADDR__X", "sk-3"),
            ("AISIX_UPSTREAM__RETRIES", "many"),
            ("AISIX_UPSTREAM", "{}"),
        ],
    );
    assert_eq!(
        found,
        [
            "deserialize: proxy.addr.x: unknown field `x` (environment variable AISIX_PROXY__ADDR__X)",
            "deserialize: proxy.adr: unknown field `adr`, did you mean `addr`? (environment variable AISIX_PROXY__ADR)",
            "deserialize: token: unknown field `token` (environment variable AISIX_TOKEN)",
            "deserialize: upstream: invalid type, expected an object (environment variable AISIX_UPSTREAM)",
        ]
    );
    let found = problems(MINIMAL, &[("AISIX_UPSTREAM__RETRIES", "many")]);
    assert_eq!(
        found,
        [
            "deserialize: upstream.retries: invalid type, expected an integer (environment variable AISIX_UPSTREAM__RETRIES)"
        ]
    );
}

#[test]
fn one_problem_stands_on_one_line() {
    let error =
        load("resources_file: r\nproxy:\n  tls:\n    certfile: a\n    cert_file: a\n    key_file: b\n", &[]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "config load failed: failed to load configuration: deserialize: proxy.tls.certfile: \
         unknown field `certfile`, did you mean `cert_file`? (line 4)"
    );
}

#[test]
fn several_problems_are_a_list() {
    let text = "admin: {}\nproxy: {addr: 'x', workers: 0}\nnope: 1\n";
    let error = load(text, &[]).unwrap_err().to_string();
    let (head, rest) = error.split_once('\n').unwrap();
    assert!(head.starts_with("config load failed: failed to load configuration: 3 problems in "));
    let expected = "  - deserialize: nope: unknown field `nope` (line 3)
  - proxy.addr invalid socket address: expected IP:PORT, such as 127.0.0.1:3000 (line 2)
  - proxy.workers must be at least 1 (line 2)";
    assert_eq!(rest, expected);
}

#[test]
fn refused_values() {
    let cases = [
        ("proxy: {tls: {cert_file: a}}", "deserialize: proxy.tls: missing field `key_file` (line 2)"),
        (
            "proxy: {real_ip: {trusted_proxies: [10.0.0.0/8, x]}}",
            "proxy.real_ip.trusted_proxies invalid CIDR/IP: expected an address or a network such as 10.0.0.0/8 (item 2) (line 2)",
        ),
        (
            "proxy: {request_id: {accept_headers: [Cookie]}}",
            "proxy.request_id.accept_headers rejects `cookie`: it has another meaning (item 1) (line 2)",
        ),
        (
            "proxy: {url_rewrites: [{name: strip, match: '(', rewrite: /}]}",
            "proxy.url_rewrites[0].match (\"strip\") invalid regex: unclosed group (line 2)",
        ),
        (
            "proxy: {url_rewrites: [{match: 'x*', rewrite: /}]}",
            "proxy.url_rewrites[0].match must not match the empty string (line 2)",
        ),
        (
            "proxy: {url_rewrites: [{match: '^/a', rewrite: '/b?x'}]}",
            "proxy.url_rewrites[0].rewrite must not contain `?`, `#`, white space or control characters (line 2)",
        ),
        (
            "proxy: {url_rewrites: [{match: '^/(a)', rewrite: '/$1x'}]}",
            "proxy.url_rewrites[0].rewrite refers to the undefined group `1x` (line 2)",
        ),
        (
            "proxy: {url_rewrites: [{match: '^/(a)', rewrite: '/${1'}]}",
            "proxy.url_rewrites[0].rewrite has an unterminated `${` (line 2)",
        ),
        (
            "proxy: {url_rewrites: '[{'}",
            "deserialize: proxy.url_rewrites: url_rewrites JSON string: EOF while parsing an object at line 1 column 2 (line 2)",
        ),
        ("admin: {admin_keys: ['']}", "admin.admin_keys[0] must not be empty (line 2)"),
        (
            "observability: {log_level: inof}",
            "observability.log_level invalid log filter: expected a level (error, warn, info, debug, trace, off) or target=level pairs (line 2)",
        ),
        (
            "observability: {metrics: {prometheus: {enabled: false, addr: x}}}",
            "observability.metrics.prometheus.addr invalid socket address: expected IP:PORT, such as 127.0.0.1:3000 (line 2)",
        ),
        (
            "observability: {metrics: {buckets: {request_ttft: [2, 1]}}}",
            "observability.metrics.buckets.request_ttft must be strictly ascending (line 2)",
        ),
        (
            "observability: {metrics: {buckets: {request_ttft: []}}}",
            "observability.metrics.buckets.request_ttft must have 1 to 64 edges (line 2)",
        ),
        (
            "observability: {metrics: {buckets: {request_ttft: [0]}}}",
            "observability.metrics.buckets.request_ttft must have edges greater than 0 (line 2)",
        ),
        (
            "observability: {metrics: {client_type_rules: [{pattern: '', client: a}]}}",
            "observability.metrics.client_type_rules[0].pattern must not be empty (line 2)",
        ),
        (
            "upstream: {tls: {client_cert_file: a}}",
            "upstream.tls.client_cert_file requires upstream.tls.client_key_file (line 2)",
        ),
        (
            "upstream: {tls: {client_key_file: a}}",
            "upstream.tls.client_key_file requires upstream.tls.client_cert_file (line 2)",
        ),
        (
            "shutdown: {max_drain_secs: 10}",
            "shutdown.max_drain_secs must not be less than shutdown.min_drain_secs (line 2)",
        ),
        ("cache: {backend: redis}", "cache.backend = redis but cache.redis missing (line 2)"),
        (
            "upstream: {retries: 1.5}",
            "deserialize: upstream.retries: invalid type, expected an integer (line 2)",
        ),
        ("upstream: []", "deserialize: upstream: invalid type, expected an object (line 2)"),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(&format!("{MINIMAL}{text}\n"), &[]), [expected], "{text}");
    }
}

#[test]
fn exactly_one_source() {
    assert_eq!(problems("resources_file: ' '", &[]), ["resources_file must not be empty when set (line 1)"]);
    let both = problems("resources_file: r\netcd: {endpoints: [e]}\n", &[]);
    assert!(both[0].contains("mutually exclusive") && both[0].contains("etcd.endpoints"), "{both:?}");
    let managed = problems("resources_file: r\nmanaged: {enabled: true}\n", &[]);
    assert_eq!(managed[0], "managed.enabled: not supported yet (line 2)");
    assert!(managed[1].starts_with("resources_file cannot be combined with managed.enabled = true"));
    let none = problems("etcd: {endpoints: []}", &[]);
    assert!(none[0].starts_with("etcd.endpoints must contain at least one endpoint"), "{none:?}");
    for text in ["", "resources_file: null", "data_dir: /x"] {
        let config = good(text, &[]);
        assert!(matches!(config.source, Source::Embedded(StoreKey::Generated)), "{text}");
    }
}

#[test]
fn etcd_settings() {
    let text = "data_dir: /d\netcd: {endpoints: [a:2379, 'https://b:1'], prefix: /p//, env_id: e, user: u, password_env: PW, request_timeout_ms: 0}";
    let Source::Etcd(etcd) = good(text, &[("PW", "pw")]).source else { panic!("another source") };
    assert_eq!(etcd.endpoints, ["a:2379", "https://b:1"]);
    assert_eq!(etcd.prefix, "/p/e/");
    assert_eq!(
        etcd.user.map(|(user, password)| (user, password.expose().clone())),
        Some(("u".into(), "pw".into()))
    );
    assert_eq!((etcd.dial_timeout, etcd.request_timeout), (Some(Duration::from_secs(5)), None));
    assert_eq!(etcd.cache_file, Some(PathBuf::from("/d/config_cache.json")));
    let text = "data_dir: /d\netcd: {endpoints: [a:2379]}\nmanaged: {snapshot_cache_path: ''}";
    let Source::Etcd(etcd) = good(text, &[]).source else { panic!("another source") };
    assert_eq!((etcd.prefix.as_str(), etcd.cache_file), ("/aisix/", None));
    let found = problems(
        "etcd: {endpoints: [a, 'u:p@b:1', 'http://c/d'], user: u}\nstore: {key_env: NOPE, key_file: x}",
        &[],
    );
    let fragments = [
        "etcd.endpoints invalid endpoint",
        "etcd.endpoints invalid endpoint",
        "etcd.user requires etcd.password_env",
        "store.key_env and store.key_file are mutually exclusive",
        "store.key_env names the environment variable `NOPE`, which is unset or empty",
    ];
    assert_eq!(found.len(), fragments.len(), "{found:#?}");
    for (found, fragment) in found.iter().zip(fragments) {
        assert!(found.starts_with(fragment), "{found}");
    }
    let found = problems("etcd: {endpoints: [a], user: u, password_env: NOPE}", &[]);
    assert!(found[0].starts_with("etcd.password_env names the environment variable `NOPE`"), "{found:?}");
}

#[test]
fn without_a_file_everything_is_local() {
    let env = [("AISIX_PROXY__ADDR".to_owned(), "127.0.0.1:9".to_owned())];
    let config = load_process_config(None, &env).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.proxy.addr.to_string(), "127.0.0.1:9");
    let admin = config.admin.expect("an admin listener");
    assert_eq!((admin.addr.to_string(), admin.keys.len()), ("127.0.0.1:3001".to_owned(), 0));
    assert_eq!(
        config.observability.prometheus.expect("a status listener").addr.to_string(),
        "127.0.0.1:9090"
    );
    assert!(matches!(config.source, Source::Embedded(StoreKey::Generated)));
}

#[test]
fn admin_keys_have_names_and_roles() {
    let text = "resources_file: r\nadmin: {admin_keys: [a, b], keys: [{name: ci, key: c, role: read_only}]}";
    let keys = good(text, &[]).admin.expect("an admin listener").keys;
    let told: Vec<_> = keys.iter().map(|key| (key.name.as_str(), key.role)).collect();
    assert_eq!(told, [("admin-1", Role::Owner), ("admin-2", Role::Owner), ("ci", Role::ReadOnly)]);
    let twice =
        "resources_file: r\nadmin: {keys: [{name: x, key: a, role: owner}, {name: x, key: b, role: boss}]}";
    let found = problems(twice, &[]);
    assert!(found[0].contains("admin.keys[1].role: expected one of"), "{found:?}");
    assert!(found[1].starts_with("admin.keys give the name \"x\", which another key has"), "{found:?}");
}

#[test]
fn what_is_not_built_passes_while_it_is_off() {
    good(
        "resources_file: r
etcd: {endpoints: [], prefix: /p}
cache: {backend: memory}
ratelimit: {backend: memory, redis: {url: 'redis://x'}}
managed: {enabled: false, snapshot_cache_path: ''}
observability: {access_log: true, metrics: {otlp: {endpoint: x}}, tracing: {otlp: {enabled: false}}}
bedrock_endpoint_url: ''
",
        &[],
    );
    let cases = [
        ("cache: {redis: {url: 'redis://sk'}}", "cache.redis"),
        ("ratelimit: {backend: redis}", "ratelimit.backend"),
        ("observability: {metrics: {otlp: {enabled: true}}}", "observability.metrics.otlp.enabled"),
        ("observability: {tracing: {otlp: {enabled: true}}}", "observability.tracing.otlp.enabled"),
        ("bedrock_endpoint_url: http://x", "bedrock_endpoint_url"),
    ];
    for (text, path) in cases {
        let expected = format!("{path}: not supported yet (line 2)");
        assert_eq!(problems(&format!("{MINIMAL}{text}\n"), &[]), [expected]);
    }
}

#[test]
fn a_disabled_admin_listener_is_not_looked_at() {
    let config = good("resources_file: r\nadmin: {enabled: false, addr: x, admin_keys: ['']}\n", &[]);
    assert!(config.admin.is_none());
    let found = problems("resources_file: r\nadmin: {enabled: false, key: x}\n", &[]);
    assert_eq!(found, ["deserialize: admin.key: unknown field `key`, did you mean `keys`? (line 2)"]);
}

#[test]
fn unreadable_files() {
    let cases = [
        ("c.yaml", "a: [", "build: "),
        ("c.yaml", "a: 1\n---\nb: 1\n", "expected a single YAML document, found 2"),
        (
            "c.yaml",
            "resources_file: r\nresources_file: s\n",
            "duplicate mapping key `resources_file` at byte 18 line 2 column 1",
        ),
        ("c.json", "{", "build: "),
        ("c.toml", "a = ", " at line 1"),
        ("c.ini", "", "unknown file extension"),
        ("c.yaml", "- a\n", "deserialize: invalid type, expected an object (line 1)"),
    ];
    for (name, text, expected) in cases {
        let error = load_as(name, text, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    let error = load_process_config(Some(Path::new("/nonexistent/c.yaml")), &[]).unwrap_err();
    let start =
        "config load failed: failed to load configuration: build: /nonexistent/c.yaml: cannot read file: ";
    assert!(error.to_string().starts_with(start), "{error}");
}

#[test]
fn no_problem_quotes_a_secret() {
    let text = "resources_file: r
admin: {admin_keys: sk-secret, tls: sk-secret}
cache: {redis: {url: [sk-secret], password: 7, mode: sk-secret}}
managed: {cp_key_pem: [sk-secret], enabled: sk-secret}
proxy: {addr: sk-secret, workers: sk-secret, url_rewrites: sk-secret}
";
    let env = [("AISIX_ADMIN__TLS__CERT_FILE", "sk-secret"), ("AISIX_SECRET", "sk-secret")];
    let error = load(text, &env).unwrap_err();
    assert!(error.problems().len() > 8, "{error}");
    assert!(!error.to_string().contains("sk-secret"), "{error}");
    let config = good("resources_file: r\nadmin: {admin_keys: [sk-secret]}\n", &[]);
    assert!(!format!("{config:?}").contains("sk-secret"));
}
