//! How the models are doing, as both listeners tell it. Everything comes from
//! memory.

use aisix_config::{ConfigState, Freshness, Model, Stored};
use aisix_telemetry::{HealthTable, HealthView};
use axum::response::Response;
use serde::Serialize;

use crate::respond;

/// The answer of `/admin/v1/health`.
#[derive(Serialize)]
struct Report<'a> {
    status: &'static str,
    models: Vec<Level<'a>>,
    /// Absent with a resources file, which has no freshness that could be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Currency>,
}

#[derive(Serialize)]
struct Currency {
    snapshot_revision: u64,
    snapshot_age_seconds: Option<u64>,
}

#[derive(Serialize)]
struct Level<'a> {
    id: &'a str,
    name: &'a str,
    health: u8,
}

/// An entry of `/status/models`.
#[derive(Serialize)]
struct ModelStatus<'a> {
    id: &'a str,
    display_name: &'a str,
    kind: &'static str,
    #[serde(flatten)]
    view: HealthView,
}

/// `/admin/v1/health`
pub(crate) fn report(config: &ConfigState, health: &HealthTable) -> Response {
    let set = config.current();
    let level = |model| {
        let Stored { id, value, .. }: &Stored<Model> = model;
        Level { id, name: &value.display_name, health: health.model(id).level() }
    };
    let currency = |Freshness { revision, age_seconds }| Currency {
        snapshot_revision: revision,
        snapshot_age_seconds: age_seconds,
    };
    respond::json(&Report {
        status: "ok",
        models: set.models().iter().map(|model| level(model)).collect(),
        config: config.freshness().map(currency),
    })
}

/// `/status/models` and `/admin/v1/models/status`: the same bytes.
pub(crate) fn models_status(config: &ConfigState, health: &HealthTable) -> Response {
    let set = config.current();
    let status = |model| {
        let Stored { id, value, .. }: &Stored<Model> = model;
        let kind = value.shape();
        // Only what is called itself can be taken out of rotation.
        let view = match kind {
            "direct" => health.model(id).view(),
            _ => HealthView { status: "not_applicable", cooldown_until: None, status_reason: None },
        };
        ModelStatus { id, display_name: &value.display_name, kind, view }
    };
    let models: Vec<ModelStatus<'_>> = set.models().iter().map(|model| status(model)).collect();
    respond::json(&models)
}
