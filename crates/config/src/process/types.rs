//! The typed process configuration: every field checked, every default filled.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aisix_core::Secret;
use ipnet::IpNet;
use regex::Regex;
use serde::Deserialize;

use super::decode::{ip_nets, ms_or_off, regex_ci, regex_plain, secs, secs_or_off, u32_or_off};

/// The settings of the process. They are read once, at start.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// Where the resources come from.
    pub source: Source,
    /// The folder of the gateway's own files, when it is set.
    pub data_dir: Option<PathBuf>,
    /// The listener for callers.
    pub proxy: ProxyConfig,
    /// The admin listener; `None` = not bound.
    pub admin: Option<AdminConfig>,
    /// Logs and metrics.
    pub observability: Observability,
    /// Connections to upstreams.
    pub upstream: UpstreamConfig,
    /// Connections from clients.
    pub downstream: DownstreamConfig,
    /// How the process ends.
    pub shutdown: ShutdownConfig,
}

/// Where the resources come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// An etcd cluster.
    Etcd(Box<EtcdConfig>),
    /// A store of the gateway's own.
    Embedded(StoreKey),
}

/// Where the key of the embedded store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKey {
    /// In a file of the data folder, made at the first start.
    Generated,
    /// In a file.
    File(PathBuf),
    /// In a variable: its name and its value.
    Env(String, Secret<String>),
}

/// An etcd cluster.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// Addresses, at least one.
    pub endpoints: Vec<String>,
    /// What stands before the keys; ends in one `/`.
    pub prefix: String,
    /// User and password.
    pub user: Option<(String, Secret<String>)>,
    /// Limit for connecting; `None` = no limit.
    pub dial_timeout: Option<Duration>,
    /// Limit for a request; `None` = no limit.
    pub request_timeout: Option<Duration>,
    /// Certificates; `None` = what the address says, without a client certificate.
    pub tls: Option<EtcdTls>,
    /// Where the last configuration is kept; `None` = nowhere.
    pub cache_file: Option<PathBuf>,
}

/// TLS towards etcd.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct EtcdTls {
    /// Trust root, PEM.
    pub ca_cert_file: PathBuf,
    /// Client certificate, PEM.
    pub client_cert_file: PathBuf,
    /// Client key, PEM.
    pub client_key_file: PathBuf,
    /// TLS server name.
    pub domain_name: Option<String>,
}

/// The proxy listener.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The largest request body in bytes; `None` = no limit.
    pub request_body_limit: Option<u64>,
    /// Certificate and key; `None` = plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How the client address is found behind other proxies.
    pub real_ip: RealIp,
    /// Headers that may carry a request id, lower case, in order.
    pub accept_headers: Vec<String>,
    /// One runtime per worker instead of a shared one.
    pub thread_per_core: bool,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Path rewrites, in order.
    pub url_rewrites: Vec<UrlRewrite>,
}

/// A PEM certificate chain and its key.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// How the client address is found.
#[derive(Clone, Debug, Deserialize)]
pub struct RealIp {
    /// Peers whose forwarding header is believed.
    #[serde(rename = "trusted_proxies", deserialize_with = "ip_nets")]
    pub trusted: Vec<IpNet>,
    /// Skip trusted addresses from the right until one is not trusted.
    pub recursive: bool,
    /// The header, lower case.
    pub header: String,
}

/// One path rewrite. `template` is expanded with [`regex::Captures::expand`].
#[derive(Clone, Debug, Deserialize)]
pub struct UrlRewrite {
    /// The label used in messages.
    pub name: Option<String>,
    /// Which part of the path is replaced.
    #[serde(rename = "match", deserialize_with = "regex_plain")]
    pub regex: Regex,
    /// What replaces it.
    #[serde(rename = "rewrite")]
    pub template: String,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Keys that open `/admin/v1/*`; empty only with the embedded store.
    pub keys: Vec<AdminKey>,
    /// Certificate and key; `None` = plain HTTP.
    pub tls: Option<TlsFiles>,
}

/// A key of the admin listener.
#[derive(Clone, Debug, Deserialize)]
pub struct AdminKey {
    /// What the audit log calls its holder.
    pub name: String,
    /// The key.
    pub key: Secret<String>,
    /// What it opens.
    pub role: Role,
}

/// What an admin key opens.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Every read but the audit log.
    ReadOnly,
    /// Also writes of resources.
    Editor,
    /// Everything.
    Owner,
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `key=value` text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs and metrics.
#[derive(Clone, Debug)]
pub struct Observability {
    /// Logged at start.
    pub service_name: String,
    /// The log filter.
    pub log_level: String,
    /// Shape of log lines.
    pub log_format: LogFormat,
    /// Accepted for compatibility; access lines are `info` events.
    pub access_log: bool,
    /// The metrics and status listener; `None` = not bound.
    pub prometheus: Option<Prometheus>,
    /// Rules that turn a user agent into a client type, in order.
    pub client_type_rules: Vec<ClientTypeRule>,
    /// Histogram edges in seconds.
    pub buckets: Buckets,
}

/// The metrics and status listener.
#[derive(Clone, Debug)]
pub struct Prometheus {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The path of the scrape, with a leading `/`.
    pub path: String,
}

/// Maps a user agent to a client type.
#[derive(Clone, Debug, Deserialize)]
pub struct ClientTypeRule {
    /// Case-insensitive, unanchored.
    #[serde(rename = "pattern", deserialize_with = "regex_ci")]
    pub regex: Regex,
    /// The label.
    pub client: String,
}

/// Histogram edges in seconds, strictly ascending, without `+Inf`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Buckets {
    /// Whole requests.
    pub request_e2e_latency: Vec<f64>,
    /// Time to the first token.
    pub request_ttft: Vec<f64>,
    /// Guardrail calls.
    pub guardrail_latency: Vec<f64>,
    /// Time to the first byte of A2A replies.
    pub a2a_ttfb: Vec<f64>,
}

/// Connections to upstreams.
#[derive(Clone, Debug, Deserialize)]
pub struct UpstreamConfig {
    /// Deadline of one attempt, its body included; `None` = none.
    #[serde(rename = "timeout_ms", deserialize_with = "ms_or_off")]
    pub timeout: Option<Duration>,
    /// Longest gap between stream chunks; `None` = use `timeout`.
    #[serde(rename = "stream_timeout_ms", deserialize_with = "ms_or_off")]
    pub stream_timeout: Option<Duration>,
    /// DNS, TCP and TLS together; `None` = no limit.
    #[serde(rename = "connect_timeout_ms", deserialize_with = "ms_or_off")]
    pub connect_timeout: Option<Duration>,
    /// Probes on idle connections.
    #[serde(flatten)]
    pub tcp_keepalive: TcpKeepalive,
    /// A pooled connection idle for longer is not used again; `None` = never expires.
    #[serde(rename = "pool_idle_timeout_secs", deserialize_with = "secs_or_off")]
    pub pool_idle_timeout: Option<Duration>,
    /// Idle connections kept per host; `None` = no limit.
    #[serde(default)]
    pub pool_max_idle_per_host: Option<usize>,
    /// Retries when neither the model nor its group say.
    pub retries: u32,
    /// Trust and client certificate.
    pub tls: UpstreamTls,
}

/// TCP keepalive; `None` in `idle` switches it off, elsewhere it means the
/// default of the operating system.
#[derive(Clone, Debug, Deserialize)]
pub struct TcpKeepalive {
    /// Idle time before the first probe.
    #[serde(rename = "tcp_keepalive_secs", deserialize_with = "secs_or_off")]
    pub idle: Option<Duration>,
    /// Time between probes.
    #[serde(rename = "tcp_keepalive_interval_secs", deserialize_with = "secs_or_off")]
    pub interval: Option<Duration>,
    /// Probes without answer before the connection is dropped.
    #[serde(rename = "tcp_keepalive_retries", deserialize_with = "u32_or_off")]
    pub retries: Option<u32>,
}

/// Trust and client certificate towards upstreams.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct UpstreamTls {
    /// Extra trust roots, PEM.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM; set together with the key.
    pub client_cert_file: Option<PathBuf>,
    /// Client key, PEM.
    pub client_key_file: Option<PathBuf>,
    /// Whether certificates are checked.
    pub verify: bool,
}

/// Connections from clients.
#[derive(Clone, Debug, Deserialize)]
pub struct DownstreamConfig {
    /// Closes HTTP/1.1 connections idle between requests; `None` = never.
    #[serde(rename = "idle_timeout_secs", deserialize_with = "secs_or_off")]
    pub idle_timeout: Option<Duration>,
    /// Silence on an SSE reply after which a comment is sent; `None` = never.
    #[serde(rename = "sse_keepalive_interval_secs", deserialize_with = "secs_or_off")]
    pub sse_keepalive_interval: Option<Duration>,
    /// A request head must arrive within this; `None` = no limit.
    #[serde(rename = "head_timeout_secs", deserialize_with = "secs_or_off")]
    pub head_timeout: Option<Duration>,
    /// Longest wait for the next bytes of a request body; `None` = no limit.
    #[serde(rename = "body_timeout_secs", deserialize_with = "secs_or_off")]
    pub body_timeout: Option<Duration>,
}

/// How the process ends.
#[derive(Clone, Debug, Deserialize)]
pub struct ShutdownConfig {
    /// The shortest drain.
    #[serde(rename = "min_drain_secs", deserialize_with = "secs")]
    pub min_drain: Duration,
    /// The longest drain, at least `min_drain`.
    #[serde(rename = "max_drain_secs", deserialize_with = "secs")]
    pub max_drain: Duration,
}
