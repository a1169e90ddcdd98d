//! Configuration: the process settings, the resource kinds, their validation
//! and the stores that resources come from.
//!
//! Every setting is a row of a field table (see [`schema`]). The table is the
//! single source for validation, defaults, typed decoding, the masked document
//! that the admin surface shows, and the reference in `docs/configuration.md`.

mod file;
mod process;
mod reference;
mod resource;
mod schema;
mod store;
mod template;
mod tree;

pub use file::{Loaded, ResourceErrors, load_resources};
pub use process::{
    AdminConfig, Buckets, ClientTypeRule, ConfigErrors, DownstreamConfig, LogFormat, Observability,
    ProcessConfig, Prometheus, ProxyConfig, RealIp, ShutdownConfig, TcpKeepalive, TlsFiles, UpstreamConfig,
    UpstreamTls, UrlRewrite, load_process_config,
};
pub use reference::reference_markdown;
pub use resource::{
    Adapter, ApiKey, Cooldown, KeyTls, Model, ParamConstraints, ProviderKey, RequestOverrides, ResourceSet,
    ResponseOverrides, Stored, StreamDoneMarker, TelemetryTags,
};
pub use schema::{FORBIDDEN_HEADERS, Hidden};
pub use store::{ConfigMetrics, ConfigState, ConfigStatus, EnvLookup, FileStore, capture_env};
pub use template::{HeaderTemplate, Part, Variable};
