//! From the checked document to the typed configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aisix_core::Secret;
use ipnet::IpNet;
use regex::Regex;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::types::{
    AdminConfig, AdminKey, Buckets, ClientTypeRule, DownstreamConfig, EtcdConfig, EtcdTls, LogFormat,
    Observability, ProcessConfig, Prometheus, ProxyConfig, RealIp, Role, ShutdownConfig, Source, StoreKey,
    TlsFiles, UpstreamConfig, UrlRewrite,
};
use crate::schema::{compile, parse_net};

/// A variable of the environment, if it is set.
pub(super) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

const MAX_DRAIN_SECS: u64 = 300;

#[derive(Deserialize)]
struct Raw {
    resources_file: Option<PathBuf>,
    etcd: Option<RawEtcd>,
    data_dir: Option<PathBuf>,
    store: RawStore,
    managed: RawManaged,
    proxy: RawProxy,
    admin: Option<RawAdmin>,
    observability: RawObservability,
    upstream: UpstreamConfig,
    downstream: DownstreamConfig,
    shutdown: Value,
}

#[derive(Deserialize)]
struct RawProxy {
    addr: SocketAddr,
    request_body_limit_bytes: u64,
    tls: Option<TlsFiles>,
    real_ip: RealIp,
    request_id: RawRequestId,
    thread_per_core: Option<bool>,
    workers: Option<usize>,
    url_rewrites: Vec<UrlRewrite>,
}

#[derive(Deserialize)]
struct RawRequestId {
    accept_headers: Vec<String>,
}

#[derive(Deserialize)]
struct RawAdmin {
    enabled: bool,
    #[serde(flatten)]
    rest: Value,
}

#[derive(Deserialize)]
struct RawAdminOn {
    addr: SocketAddr,
    admin_keys: Vec<Secret<String>>,
    keys: Vec<AdminKey>,
    tls: Option<TlsFiles>,
}

#[derive(Deserialize)]
struct RawStore {
    key_file: Option<PathBuf>,
    key_env: Option<String>,
}

#[derive(Deserialize)]
struct RawManaged {
    snapshot_cache_path: Option<String>,
}

#[derive(Deserialize)]
struct RawEtcd {
    endpoints: Vec<String>,
    prefix: String,
    env_id: String,
    user: Option<String>,
    password_env: Option<String>,
    #[serde(rename = "dial_timeout_ms", deserialize_with = "ms_or_off")]
    dial_timeout: Option<Duration>,
    #[serde(rename = "request_timeout_ms", deserialize_with = "ms_or_off")]
    request_timeout: Option<Duration>,
    tls: Option<EtcdTls>,
}

#[derive(Deserialize)]
struct RawObservability {
    service_name: String,
    log_level: String,
    log_format: LogFormat,
    access_log: bool,
    metrics: RawMetrics,
}

#[derive(Deserialize)]
struct RawMetrics {
    prometheus: RawPrometheus,
    client_type_rules: Vec<ClientTypeRule>,
    buckets: Buckets,
}

#[derive(Deserialize)]
struct RawPrometheus {
    enabled: bool,
    path: String,
    addr: SocketAddr,
}

/// Types a document that has passed the check.
pub(super) fn decode(document: Value, env: Env<'_>) -> Result<ProcessConfig, serde_json::Error> {
    let raw: Raw = serde_json::from_value(document)?;
    let admin = match raw.admin {
        Some(admin) if admin.enabled => Some(admin_on(serde_json::from_value(admin.rest)?)),
        _ => None,
    };
    let cache = raw.managed.snapshot_cache_path;
    let source = match (raw.resources_file, raw.etcd.filter(|etcd| !etcd.endpoints.is_empty())) {
        (Some(file), _) => Source::File(file),
        (None, Some(etcd)) => Source::Etcd(Box::new(self::etcd(etcd, cache, raw.data_dir.as_deref(), env))),
        (None, None) => Source::Embedded(store_key(raw.store, env)),
    };
    let metrics = raw.observability.metrics;
    Ok(ProcessConfig {
        source,
        data_dir: raw.data_dir,
        proxy: proxy(raw.proxy),
        admin,
        observability: Observability {
            service_name: raw.observability.service_name,
            log_level: raw.observability.log_level,
            log_format: raw.observability.log_format,
            access_log: raw.observability.access_log,
            prometheus: metrics.prometheus.enabled.then(|| Prometheus {
                addr: metrics.prometheus.addr,
                path: scrape_path(&metrics.prometheus.path),
            }),
            client_type_rules: metrics.client_type_rules,
            buckets: metrics.buckets,
        },
        upstream: raw.upstream,
        downstream: raw.downstream,
        shutdown: shutdown(raw.shutdown)?,
    })
}

fn admin_on(raw: RawAdminOn) -> AdminConfig {
    let unnamed = raw.admin_keys.into_iter().enumerate();
    let unnamed =
        unnamed.map(|(at, key)| AdminKey { name: format!("admin-{}", at + 1), key, role: Role::Owner });
    AdminConfig { addr: raw.addr, keys: unnamed.chain(raw.keys).collect(), tls: raw.tls }
}

fn etcd(raw: RawEtcd, cache: Option<String>, data_dir: Option<&Path>, env: Env<'_>) -> EtcdConfig {
    let prefix = raw.prefix.trim_end_matches('/');
    // The rules have seen that the variable is set.
    let password = raw.password_env.and_then(|name| env(&name)).map(Secret::new);
    EtcdConfig {
        endpoints: raw.endpoints,
        prefix: match raw.env_id.as_str() {
            "" => format!("{prefix}/"),
            env_id => format!("{prefix}/{env_id}/"),
        },
        user: raw.user.zip(password),
        dial_timeout: raw.dial_timeout,
        request_timeout: raw.request_timeout,
        tls: raw.tls,
        cache_file: match cache {
            Some(path) => (!path.trim().is_empty()).then(|| path.into()),
            None => data_dir.map(|folder| folder.join("config_cache.json")),
        },
    }
}

fn store_key(raw: RawStore, env: Env<'_>) -> StoreKey {
    match (raw.key_file, raw.key_env.and_then(|name| env(&name).map(|value| (name, value)))) {
        (Some(file), _) => StoreKey::File(file),
        (None, Some((name, value))) => StoreKey::Env(name, Secret::new(value)),
        (None, None) => StoreKey::Generated,
    }
}

fn proxy(raw: RawProxy) -> ProxyConfig {
    let header = |name: &String| name.trim().to_lowercase();
    ProxyConfig {
        addr: raw.addr,
        request_body_limit: Some(raw.request_body_limit_bytes).filter(|limit| *limit > 0),
        tls: raw.tls,
        real_ip: RealIp { header: header(&raw.real_ip.header), ..raw.real_ip },
        accept_headers: raw.request_id.accept_headers.iter().map(header).collect(),
        thread_per_core: raw.thread_per_core.unwrap_or(cfg!(target_os = "linux")),
        workers: raw
            .workers
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
        url_rewrites: raw.url_rewrites,
    }
}

fn scrape_path(path: &str) -> String {
    match path.trim() {
        "" => "/metrics".into(),
        path if path.starts_with('/') => path.into(),
        path => format!("/{path}"),
    }
}

/// The longest drain follows a long shortest one when it is not set itself.
fn shutdown(mut raw: Value) -> Result<ShutdownConfig, serde_json::Error> {
    if raw.get("max_drain_secs").is_none() {
        let min = raw["min_drain_secs"].as_u64().unwrap_or_default();
        raw["max_drain_secs"] = min.max(MAX_DRAIN_SECS).into();
    }
    serde_json::from_value(raw)
}

pub(super) fn secs<'de, D: Deserializer<'de>>(raw: D) -> Result<Duration, D::Error> {
    u64::deserialize(raw).map(Duration::from_secs)
}

pub(super) fn secs_or_off<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<Duration>, D::Error> {
    let secs = u64::deserialize(raw)?;
    Ok((secs > 0).then(|| Duration::from_secs(secs)))
}

pub(super) fn ms_or_off<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<Duration>, D::Error> {
    let ms = u64::deserialize(raw)?;
    Ok((ms > 0).then(|| Duration::from_millis(ms)))
}

pub(super) fn u32_or_off<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<u32>, D::Error> {
    Ok(Some(u32::deserialize(raw)?).filter(|number| *number > 0))
}

pub(super) fn ip_nets<'de, D: Deserializer<'de>>(raw: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(raw)?;
    let nets: Option<Vec<_>> = texts.iter().map(|text| parse_net(text)).collect();
    nets.ok_or_else(|| D::Error::custom("invalid CIDR/IP"))
}

pub(super) fn regex_plain<'de, D: Deserializer<'de>>(raw: D) -> Result<Regex, D::Error> {
    let pattern = String::deserialize(raw)?;
    compile(&pattern, false).map_err(|_| D::Error::custom("invalid regex"))
}

pub(super) fn regex_ci<'de, D: Deserializer<'de>>(raw: D) -> Result<Regex, D::Error> {
    let pattern = String::deserialize(raw)?;
    compile(&pattern, true).map_err(|_| D::Error::custom("invalid regex"))
}
