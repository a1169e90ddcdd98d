//! From the process configuration to the parts of a gateway. The only place
//! that reads the environment.

use std::sync::Arc;

use aisix_config::{LogFormat, ProcessConfig, ProxyConfig, ResourceSet, TlsFiles, UpstreamConfig};
use aisix_core::Lifecycle;
use aisix_proxy::{
    Gateway, GatewayParts, Rewrite, Settings, Snapshot,
    upstream::{ProxyEnv, Trust, TrustFiles, UpstreamSettings},
};
use aisix_telemetry::{
    Buckets, ClientTypeRule, HealthTable, Telemetry, TelemetryConfig,
    log::{self, LogConfig, LogGuard},
};
use anyhow::{Context, Result};
use http::HeaderName;

use crate::{listen::Tls, source::Source};

/// The environment as text; variables that are not UTF-8 are read lossily.
pub(crate) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}

/// Starts logging.
pub(crate) fn start_log(config: &ProcessConfig) -> Result<LogGuard> {
    let observability = &config.observability;
    let json = observability.log_format == LogFormat::Json;
    log::init(LogConfig { filter: &observability.log_level, json }).context("observability.log_level")
}

/// Everything the listeners share.
pub(crate) struct Parts {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) source: Source,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) health: Arc<HealthTable>,
    pub(crate) lifecycle: Arc<Lifecycle>,
}

/// Opens the source of the resources and builds the gateway, without any yet.
pub(crate) fn build(config: &ProcessConfig) -> Result<Parts> {
    let trust = Arc::new(Trust::load(&trust_files(&config.upstream))?);
    let env = aisix_config::capture_env(environment());
    let source = Source::open(config, env)?;
    let telemetry = Arc::new(Telemetry::new(telemetry_config(config)));
    let health = Arc::new(HealthTable::new());
    let lifecycle = Arc::new(Lifecycle::new());
    let gateway = Gateway::new(GatewayParts {
        settings: settings(config)?,
        upstream: upstream_settings(&config.upstream),
        trust,
        proxies: proxy_env(),
        telemetry: telemetry.clone(),
        health: health.clone(),
        lifecycle: lifecycle.clone(),
        snapshot: Snapshot::compile(&ResourceSet::default(), &telemetry, &health, None),
    });
    Ok(Parts { gateway, source, telemetry, health, lifecycle })
}

/// Reads every certificate file that the configuration names.
pub(crate) fn check_files(config: &ProcessConfig) -> Result<()> {
    Trust::load(&trust_files(&config.upstream))?;
    load_tls("proxy.tls", config.proxy.tls.as_ref())?;
    load_tls("admin.tls", config.admin.as_ref().and_then(|admin| admin.tls.as_ref()))?;
    Ok(())
}

/// The TLS side of a listener, if it has one.
pub(crate) fn load_tls(section: &'static str, files: Option<&TlsFiles>) -> Result<Option<Arc<Tls>>> {
    let Some(files) = files else { return Ok(None) };
    let tls = Tls::load(section, &files.cert_file, &files.key_file)?;
    Ok(Some(Arc::new(tls)))
}

fn trust_files(upstream: &UpstreamConfig) -> TrustFiles {
    let tls = &upstream.tls;
    if !tls.verify {
        tracing::warn!("upstream.tls.verify is off: any certificate of an upstream is accepted");
    }
    TrustFiles {
        ca_file: tls.ca_file.clone(),
        client: tls.client_cert_file.clone().zip(tls.client_key_file.clone()),
        insecure: !tls.verify,
    }
}

fn upstream_settings(upstream: &UpstreamConfig) -> UpstreamSettings {
    let keepalive = &upstream.tcp_keepalive;
    UpstreamSettings {
        connect_timeout: upstream.connect_timeout,
        tcp_keepalive: (keepalive.idle, keepalive.interval, keepalive.retries),
        pool_idle_timeout: upstream.pool_idle_timeout,
        pool_max_idle: upstream.pool_max_idle_per_host,
    }
}

fn settings(config: &ProcessConfig) -> Result<Settings> {
    let ProxyConfig { request_body_limit, real_ip, accept_headers, url_rewrites, .. } = &config.proxy;
    let header = |name: &str| name.parse::<HeaderName>().with_context(|| format!("header name {name:?}"));
    Ok(Settings {
        body_limit: *request_body_limit,
        body_timeout: config.downstream.body_timeout,
        request_id_headers: accept_headers.iter().map(|name| header(name)).collect::<Result<_>>()?,
        trusted_proxies: real_ip.trusted.clone(),
        real_ip_recursive: real_ip.recursive,
        real_ip_header: header(&real_ip.header)?,
        rewrites: url_rewrites
            .iter()
            .enumerate()
            .map(|(at, rule)| Rewrite {
                name: rule.name.clone().unwrap_or_else(|| format!("proxy.url_rewrites[{at}]")),
                pattern: rule.regex.clone(),
                template: rule.template.clone(),
            })
            .collect(),
        timeout: config.upstream.timeout,
        stream_timeout: config.upstream.stream_timeout,
        retries: config.upstream.retries,
        sse_keepalive: config.downstream.sse_keepalive_interval,
    })
}

fn telemetry_config(config: &ProcessConfig) -> TelemetryConfig {
    let observability = &config.observability;
    TelemetryConfig {
        buckets: Buckets {
            request_e2e_latency: observability.buckets.request_e2e_latency.clone(),
            request_ttft: observability.buckets.request_ttft.clone(),
        },
        client_type_rules: observability
            .client_type_rules
            .iter()
            .map(|rule| ClientTypeRule { pattern: rule.regex.clone(), client: rule.client.clone() })
            .collect(),
        env_id: None,
    }
}

/// Either case is read, as curl does; lower case first.
fn proxy_env() -> ProxyEnv {
    let read = |name: &str| {
        let lower = std::env::var(name.to_ascii_lowercase()).ok().filter(|value| !value.is_empty());
        lower.or_else(|| std::env::var(name).ok()).unwrap_or_default()
    };
    ProxyEnv {
        http: read("HTTP_PROXY"),
        https: read("HTTPS_PROXY"),
        all: read("ALL_PROXY"),
        no: read("NO_PROXY"),
    }
}
