//! From the checked document to the typed configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use regex::Regex;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::types::{
    AdminConfig, Buckets, ClientTypeRule, DownstreamConfig, LogFormat, Observability, ProcessConfig,
    Prometheus, ProxyConfig, RealIp, ShutdownConfig, TlsFiles, UpstreamConfig, UrlRewrite,
};
use crate::schema::{compile, parse_net};

const MAX_DRAIN_SECS: u64 = 300;

#[derive(Deserialize)]
struct Raw {
    resources_file: PathBuf,
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
pub(super) fn decode(document: Value) -> Result<ProcessConfig, serde_json::Error> {
    let raw: Raw = serde_json::from_value(document)?;
    let admin = match raw.admin {
        Some(admin) if admin.enabled => Some(serde_json::from_value::<AdminConfig>(admin.rest)?),
        _ => None,
    };
    let metrics = raw.observability.metrics;
    Ok(ProcessConfig {
        resources_file: raw.resources_file,
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
