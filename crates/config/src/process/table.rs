//! The field table of the process configuration.

use serde_json::Value;

use crate::schema::{Field, Fields, Format, Kind, List, NAMES, Off, def, opt, req};

const ADDR: Kind = Kind::text(0, Format::SocketAddr);
const KEYS: Kind = Kind::List(&List::of(Kind::Secret));

/// Everything that may stand in the process configuration.
pub(crate) const PROCESS: Fields = &[
    opt(
        "resources_file",
        Kind::TEXT,
        "File that the resources are read from; reloaded on SIGHUP and when it changes. Relative paths start at the working directory.",
    ),
    def("proxy", Kind::Object(PROXY), "{}", "The listener for callers."),
    opt("admin", Kind::Object(ADMIN), "The admin listener. Leave the block out to leave the listener out."),
    def("observability", Kind::Object(OBSERVABILITY), "{}", "Logs and metrics."),
    def("upstream", Kind::Object(UPSTREAM), "{}", "Connections to upstreams."),
    def("downstream", Kind::Object(DOWNSTREAM), "{}", "Connections from clients."),
    def("shutdown", Kind::Object(SHUTDOWN), "{}", "How the process ends."),
    opt(
        "etcd",
        Kind::Object(ETCD),
        "Resources from etcd. With neither `resources_file` nor `etcd` they are kept in the embedded store.",
    ),
    opt(
        "data_dir",
        Kind::PATH,
        "Folder of the embedded store. Default: `$XDG_DATA_HOME/aisix`, else `~/.local/share/aisix`, else `aisix-data`. With etcd: where the last configuration is kept for a start without it, unless `managed.snapshot_cache_path` says.",
    ),
    def("store", Kind::Object(STORE), "{}", "The embedded store."),
    def("cache", Kind::Object(CACHE), "{}", "Response cache."),
    def("ratelimit", Kind::Object(RATELIMIT), "{}", "Where rate-limit counters live."),
    def("managed", Kind::Object(MANAGED), "{}", "Managed mode: not supported yet, so not enabled."),
    opt("bedrock_endpoint_url", Kind::TEXT, "AWS endpoint for Bedrock guardrails.").later(Off::Hollow),
];

const PROXY: Fields = &[
    def("addr", ADDR, r#""0.0.0.0:3000""#, "Where it listens."),
    def("request_body_limit_bytes", Kind::UINT, "0", "Largest request body; 0 = no limit."),
    opt(
        "tls",
        Kind::Object(TLS_FILES),
        "TLS with HTTP/1.1 and HTTP/2; the files are read again when they change and on SIGHUP.",
    ),
    def("real_ip", Kind::Object(REAL_IP), "{}", "How the client address is found behind other proxies."),
    def("request_id", Kind::Object(REQUEST_ID), "{}", "Request ids."),
    opt(
        "thread_per_core",
        Kind::Bool,
        "One runtime and upstream pool per worker instead of shared ones. Default: true on Linux.",
    ),
    opt("workers", Kind::int(1, 4096), "Worker threads. Default: the CPUs the process may use."),
    def(
        "url_rewrites",
        Kind::List(&List { json: true, ..List::of(Kind::Object(URL_REWRITE)) }),
        "[]",
        "Path rewrites before routing, in order; the first match wins. May be a JSON text.",
    ),
];

const TLS_FILES: Fields = &[
    req("cert_file", Kind::PATH, "Certificate chain, PEM."),
    req("key_file", Kind::PATH, "Private key, PEM."),
];

const REAL_IP: Fields = &[
    def(
        "trusted_proxies",
        Kind::List(&List::of(Kind::text(0, Format::Net))),
        "[]",
        "Peers whose forwarding header is believed.",
    ),
    def(
        "recursive",
        Kind::Bool,
        "false",
        "Skip trusted addresses from the right; the first other one is the client.",
    ),
    def("header", Kind::text(0, Format::Header), r#""x-forwarded-for""#, "The forwarding header."),
];

const REQUEST_ID: Fields = &[def(
    "accept_headers",
    Kind::List(&List::of(Kind::text(0, Format::IdHeader))),
    r#"["x-aisix-request-id"]"#,
    "Headers a caller may send a request id in, in order; `[]` = always make a new one.",
)];

const URL_REWRITE: Fields = &[
    opt("name", Kind::TEXT, "Label for messages."),
    req("match", Kind::TEXT, "Regex on the raw path, unanchored."),
    req("rewrite", Kind::TEXT, "What replaces the matched part; `$1`, `${name}`, `$$`."),
];

const ADMIN: Fields = &[
    def("enabled", Kind::Bool, "true", "false = not bound, and the values of the block are not checked."),
    def("addr", ADDR, r#""127.0.0.1:3001""#, "Where it listens."),
    def(
        "admin_keys",
        KEYS,
        "[]",
        "Keys that open `/admin/v1/*`, with the role `owner`. At least one, here or in `keys`; the embedded store makes one itself if there is none.",
    ),
    def(
        "keys",
        Kind::List(&List { json: true, ..List::of(Kind::Object(ADMIN_KEY)) }),
        "[]",
        "Keys with a name, which the audit log tells, and a role. May be a JSON text.",
    ),
    opt("tls", Kind::Object(TLS_FILES), "TLS, as for the proxy."),
];

const ADMIN_KEY: Fields = &[
    req("name", Kind::Text { min: 1, max: 64, format: Format::Slug }, "What the audit log calls its holder."),
    req("key", Kind::Secret, "The key."),
    req(
        "role",
        Kind::Enum(&["read_only", "editor", "owner"]),
        "`read_only` reads all but the audit log, `editor` also writes resources, `owner` may do everything.",
    ),
];

const OBSERVABILITY: Fields = &[
    def("service_name", Kind::TEXT, r#""aisix""#, "Logged at start; no other effect."),
    def(
        "log_level",
        Kind::text(0, Format::LogFilter),
        r#""info""#,
        "Log filter; the variable `RUST_LOG` wins.",
    ),
    def("log_format", Kind::Enum(&["text", "json"]), r#""text""#, "Shape of log lines."),
    def("access_log", Kind::Bool, "true", "Accepted without effect: access lines are `info` events."),
    def("metrics", Kind::Object(METRICS), "{}", "Metrics."),
    def("tracing", Kind::Object(TRACING), "{}", "Traces."),
];

const METRICS: Fields = &[
    def("prometheus", Kind::Object(PROMETHEUS), "{}", "The metrics and status listener."),
    def("otlp", Kind::Object(METRICS_OTLP), "{}", "Push of metrics."),
    def(
        "client_type_rules",
        Kind::List(&List { max: 64, json: true, ..List::of(Kind::Object(CLIENT_RULE)) }),
        "[]",
        "User agent to client type, in order; at most 64. May be a JSON text.",
    ),
    def("buckets", Kind::Object(BUCKETS), "{}", "Histogram edges in seconds: 1 to 64, ascending."),
];

const PROMETHEUS: Fields = &[
    def("enabled", Kind::Bool, "true", "false = not bound; `/status/*` goes with it."),
    def("path", Kind::TEXT, r#""/metrics""#, "Path of the scrape."),
    def("addr", ADDR, r#""0.0.0.0:9090""#, "Where it listens."),
];

const METRICS_OTLP: Fields = &[
    def("enabled", Kind::Bool, "false", "Switches it on.").later(Off::Hollow),
    opt("endpoint", Kind::TEXT, "The collector."),
];

const CLIENT_RULE: Fields = &[
    req("pattern", Kind::text(1, Format::ClientPattern), "Case-insensitive, unanchored; at most 512 bytes."),
    req("client", Kind::Text { min: 1, max: 64, format: Format::Slug }, "The label."),
];

const EDGES: Kind = Kind::List(&List {
    rule: Some(edges),
    ..List::of(Kind::Number { min: f64::NEG_INFINITY, max: f64::INFINITY })
});

const BUCKETS: Fields = &[
    def(
        "request_e2e_latency",
        EDGES,
        "[0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2,5,10,30,60,120,300,420,600]",
        "Whole requests.",
    ),
    def("request_ttft", EDGES, "[0.05,0.1,0.25,0.5,1,2,5,10,30,60,120,300]", "Time to the first token."),
    def(
        "a2a_ttfb",
        EDGES,
        "[0.05,0.1,0.25,0.5,1,2,5,10,30,60,120,300]",
        "Time to the first byte of A2A replies.",
    )
    .later(Off::Default),
    def(
        "guardrail_latency",
        EDGES,
        "[0.001,0.0025,0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30]",
        "Guardrail calls.",
    )
    .later(Off::Default),
];

fn edges(values: &[Value]) -> Result<(), String> {
    let edges: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
    if edges.is_empty() || edges.len() > 64 {
        return Err("must have 1 to 64 edges".into());
    }
    if edges.iter().any(|edge| *edge <= 0.0) {
        return Err("must have edges greater than 0".into());
    }
    if !edges.is_sorted_by(|a, b| a < b) {
        return Err("must be strictly ascending".into());
    }
    Ok(())
}

const TRACING: Fields = &[def("otlp", Kind::Object(TRACING_OTLP), "{}", "Push of traces.")];

const TRACING_OTLP: Fields = &[
    def("enabled", Kind::Bool, "false", "Switches it on.").later(Off::Hollow),
    opt("endpoint", Kind::TEXT, "The collector."),
    def("sample_ratio", Kind::Number { min: 0.0, max: 1.0 }, "1.0", "Share of requests that is traced."),
];

const UPSTREAM: Fields = &[
    def(
        "timeout_ms",
        Kind::MS,
        "6000000",
        "Deadline of one attempt, its body included, when the model says nothing; 0 = none.",
    ),
    def("stream_timeout_ms", Kind::MS, "0", "Longest gap between stream chunks; 0 = use `timeout_ms`."),
    def("connect_timeout_ms", Kind::MS, "5000", "DNS, TCP and TLS together; 0 = no limit."),
    def("tcp_keepalive_secs", Kind::SECS, "60", "Idle time before the first keepalive probe; 0 = off."),
    def(
        "tcp_keepalive_interval_secs",
        Kind::SECS,
        "30",
        "Time between probes; 0 = default of the operating system.",
    ),
    def(
        "tcp_keepalive_retries",
        Kind::U32,
        "5",
        "Probes without answer before the connection is dropped; 0 = default of the operating system.",
    ),
    def(
        "pool_idle_timeout_secs",
        Kind::SECS,
        "30",
        "A pooled connection idle for longer is not used again; 0 = never expires.",
    ),
    opt("pool_max_idle_per_host", Kind::UINT, "Idle connections kept per host. Default: no limit."),
    def("retries", Kind::U32, "2", "Retries when neither model nor group say; 0 = none."),
    def("tls", Kind::Object(UPSTREAM_TLS), "{}", "Trust and client certificate."),
];

const UPSTREAM_TLS: Fields = &[
    opt("ca_file", Kind::PATH, "PEM bundle, added to the built-in and platform roots."),
    opt("client_cert_file", Kind::PATH, "Client certificate, PEM; together with the key."),
    opt("client_key_file", Kind::PATH, "Client key, PEM."),
    def("verify", Kind::Bool, "true", "false accepts any certificate."),
];

const DOWNSTREAM: Fields = &[
    def("idle_timeout_secs", Kind::SECS, "0", "Closes connections idle between requests; 0 = never."),
    def(
        "sse_keepalive_interval_secs",
        Kind::SECS,
        "15",
        "Silence on an SSE reply after which a comment is sent; 0 = never.",
    ),
    def("head_timeout_secs", Kind::SECS, "30", "A request head must arrive within this; 0 = no limit."),
    def(
        "body_timeout_secs",
        Kind::SECS,
        "60",
        "Longest wait for the next bytes of a request body; the whole body has this long plus a second per KiB. 0 = no limit.",
    ),
];

const SHUTDOWN: Fields = &[
    def("min_drain_secs", Kind::SECS, "30", "Shortest drain: time for load balancers to notice."),
    opt(
        "max_drain_secs",
        Kind::SECS,
        "Longest drain; requests that still run are cut. Default: 300, or `min_drain_secs` if longer.",
    ),
];

const STORE: Fields = &[
    opt(
        "key_file",
        Kind::PATH,
        "File with the key that documents are encrypted with. Default: `store.key` in `data_dir`, made at the first start.",
    ),
    opt("key_env", Kind::text(1, Format::Any), "Name of the variable that holds the key, instead of a file."),
];

const ETCD: Fields = &[
    def("endpoints", NAMES, "[]", "Addresses: `host:port`, `http://...` or `https://...`; tried in turn."),
    def("prefix", Kind::NAME, r#""/aisix""#, "Keys are `<prefix>/<kind>/<id>`."),
    def("env_id", Kind::TEXT, r#""""#, "Appended to the prefix."),
    opt("user", Kind::TEXT, "Used together with `password_env`."),
    opt("password_env", Kind::TEXT, "Name of the variable that holds the password."),
    def("dial_timeout_ms", Kind::MS, "5000", "Limit for connecting."),
    def("request_timeout_ms", Kind::MS, "5000", "Limit for a request."),
    opt("tls", Kind::Object(ETCD_TLS), "TLS towards etcd."),
];

const ETCD_TLS: Fields = &[
    req("ca_cert_file", Kind::PATH, "Trust root, PEM."),
    req("client_cert_file", Kind::PATH, "Client certificate, PEM."),
    req("client_key_file", Kind::PATH, "Client key, PEM."),
    opt("domain_name", Kind::TEXT, "TLS server name; default: the host of the first endpoint."),
];

const BACKEND: Kind = Kind::Enum(&["memory", "redis"]);

const CACHE: Fields = &[
    def("backend", BACKEND, r#""memory""#, "Accepted without effect: each cache policy picks its backend."),
    opt("redis", Kind::Object(REDIS), "A shared cache.").later(Off::Never),
];

const RATELIMIT: Fields = &[
    def("backend", BACKEND, r#""memory""#, "Where counters live.").later(Off::Is("memory")),
    opt("redis", Kind::Object(REDIS), "Used by `backend: redis` only."),
    def(
        "concurrency_ttl_secs",
        Kind::SECS,
        "300",
        "Life of a concurrency lease; used by `backend: redis` only.",
    ),
];

const REDIS: Fields = &[
    def("mode", Kind::Enum(&["single", "cluster", "sentinel"]), r#""single""#, "Kind of deployment."),
    opt("url", Kind::Secret, "`redis://` or `rediss://`; for `single`."),
    def("nodes", KEYS, "[]", "Addresses; for `cluster`."),
    def("sentinels", KEYS, "[]", "Addresses; for `sentinel`."),
    opt("master_name", Kind::TEXT, "For `sentinel`."),
    opt("username", Kind::TEXT, "User on the data nodes; in the URL for `single`."),
    opt("password", Kind::Secret, "Password on the data nodes; in the URL for `single`."),
    def("database", Kind::UINT, "0", "Database number; for `sentinel`."),
    def("tls", Kind::Object(UPSTREAM_TLS), "{}", "As `upstream.tls`; for `rediss://`."),
];

const MANAGED: Fields = &[
    def("enabled", Kind::Bool, "false", "Switches it on.").later(Off::Hollow),
    opt("cp_base_url", Kind::TEXT, "The control plane."),
    opt("cp_etcd_endpoint", Kind::TEXT, "Its etcd; default: the host and port of `cp_base_url`."),
    opt("cp_ca_cert_file", Kind::PATH, "Extra trust root for control-plane calls."),
    opt("cp_cert_pem", Kind::TEXT, "Client certificate."),
    opt("cp_key_pem", Kind::Secret, "Client key."),
    opt("cp_ca_pem", Kind::TEXT, "Trust root."),
    opt("cp_cert_file", Kind::PATH, "Client certificate."),
    opt("cp_key_file", Kind::PATH, "Client key."),
    opt("cp_ca_file", Kind::PATH, "Trust root."),
    def("mtls_dir", Kind::PATH, r#""/var/lib/aisix/mtls""#, "Where the certificates are kept."),
    def("dp_id_file", Kind::PATH, r#""/var/lib/aisix/dp_id""#, "Where the gateway id is kept."),
    opt(
        "snapshot_cache_path",
        Kind::TEXT,
        "File that keeps the last configuration of etcd for a start without it; blank = nowhere.",
    ),
    def("heartbeat_interval_secs", Kind::SECS, "15", "Time between heartbeats."),
];

/// The row at a path of lower-case names.
pub(crate) fn find<'p>(path: impl Iterator<Item = &'p str>) -> Result<&'static Field, usize> {
    let mut fields = PROCESS;
    let mut found = None;
    for (depth, name) in path.enumerate() {
        let field = fields.iter().find(|field| field.name == name).ok_or(depth)?;
        fields = match field.kind {
            Kind::Object(inner) => inner,
            _ => &[],
        };
        found = Some(field);
    }
    found.ok_or(0)
}
