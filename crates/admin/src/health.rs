//! How the models are doing, as both listeners tell it. Everything comes from
//! memory.

use aisix_config::{ConfigState, Model, ResourceSet, Stored};
use aisix_telemetry::{HealthTable, HealthView};
use axum::response::Response;
use serde::Serialize;

use crate::respond;

/// The answer of `/admin/v1/health`.
#[derive(Serialize)]
struct Report<'a> {
    status: &'static str,
    models: Vec<Level<'a>>,
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

/// `/admin/v1/health`. There is no `config` member: a resources file has no
/// freshness that could be told.
pub(crate) fn report(config: &ConfigState, health: &HealthTable) -> Response {
    let set = config.current();
    let level = |model| {
        let Stored { id, value, .. }: &Stored<Model> = model;
        Level { id, name: &value.display_name, health: health.model(id).level() }
    };
    respond::json(&Report { status: "ok", models: by_id(&set).into_iter().map(level).collect() })
}

/// `/status/models` and `/admin/v1/models/status`: the same bytes.
pub(crate) fn models_status(config: &ConfigState, health: &HealthTable) -> Response {
    let set = config.current();
    let status = |model| {
        let Stored { id, value, .. }: &Stored<Model> = model;
        ModelStatus { id, display_name: &value.display_name, kind: "direct", view: health.model(id).view() }
    };
    let models: Vec<ModelStatus<'_>> = by_id(&set).into_iter().map(status).collect();
    respond::json(&models)
}

fn by_id(set: &ResourceSet) -> Vec<&Stored<Model>> {
    let mut models: Vec<&Stored<Model>> = set.models.iter().collect();
    models.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    models
}
