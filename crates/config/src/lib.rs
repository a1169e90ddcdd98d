//! Configuration: the process settings, the resource kinds, their validation
//! and the stores that resources come from.
//!
//! Every setting is a row of a field table (see [`schema`]). The table is the
//! single source for validation, defaults, typed decoding, the masked document
//! that the admin surface shows, and the reference in `docs/configuration.md`.

pub mod edit;
mod export;
mod file;
#[doc(hidden)]
pub mod fuzzing;
pub mod plan;
mod process;
mod reference;
mod resource;
mod schema;
mod store;
mod template;
#[cfg(test)]
mod testing;
mod tree;

pub use export::{Export, ExportOptions, Placeholder, export};
pub use file::{Loaded, ResourceErrors, load_resources, load_text, unenforced_note};
pub use process::{
    AdminConfig, AdminKey, Buckets, ClientTypeRule, ConfigErrors, DownstreamConfig, EtcdConfig, EtcdTls,
    LogFormat, Observability, ProcessConfig, Prometheus, ProxyConfig, RealIp, Role, ShutdownConfig, Source,
    StoreKey, TcpKeepalive, TlsFiles, UpstreamConfig, UpstreamTls, UrlRewrite, load_process_config,
};
pub use reference::reference_markdown;
pub use resource::{
    Adapter, ApiKey, Cooldown, Direct, Document, KINDS, KeyTls, Model, ParamConstraints, ProviderKey,
    RequestOverrides, ResourceKind, ResourceSet, ResponseOverrides, Rows, Stored, StreamDoneMarker,
    TelemetryTags, View, kind_of,
};
pub use schema::{FORBIDDEN_HEADERS, Hidden, json_schema};
pub use store::{
    ConfigMetrics, ConfigState, ConfigStatus, EnvLookup, FileStore, Follower, Freshness, capture_env,
};
pub use template::{HeaderTemplate, Part, Variable};
