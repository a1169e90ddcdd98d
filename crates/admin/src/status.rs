//! The router of the metrics/status listener.

use std::sync::Arc;

use aisix_config::ConfigState;
use aisix_telemetry::{HealthTable, Telemetry};
use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};

use crate::{config_metrics, health, respond};

/// What the metrics/status listener works with.
pub struct StatusState {
    /// The applied configuration.
    pub config: Arc<ConfigState>,
    /// Health and cooldown of the models.
    pub health: Arc<HealthTable>,
    /// The metrics.
    pub telemetry: Arc<Telemetry>,
    /// The path of the scrape.
    pub metrics_path: String,
}

/// Builds the router of the metrics/status listener.
///
/// Paths are compared as they are, since the configured one is free text to
/// which a pattern syntax must not apply. If it equals a status path, the scrape wins.
pub fn status_router(state: StatusState) -> Router {
    let state = Arc::new(state);
    Router::new().fallback(move |request: Request| {
        let response = state.serve(request.method(), request.uri().path());
        std::future::ready(response)
    })
}

impl StatusState {
    fn serve(&self, method: &Method, path: &str) -> Response {
        let answer: fn(&Self) -> Response = match path {
            path if path == self.metrics_path => Self::metrics,
            "/status/config" => |state| respond::json(&state.config.status()),
            "/status/ready" => |state| ready(state.config.is_loaded()),
            "/status/models" => |state| health::models_status(&state.config, &state.health),
            _ => return StatusCode::NOT_FOUND.into_response(),
        };
        if *method == Method::GET || *method == Method::HEAD {
            answer(self)
        } else {
            let allow = [(header::ALLOW, respond::READ_METHODS)];
            (StatusCode::METHOD_NOT_ALLOWED, allow).into_response()
        }
    }

    fn metrics(&self) -> Response {
        const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
        let mut text = self.telemetry.render();
        config_metrics::append(&mut text, &self.config.metrics());
        ([(header::CONTENT_TYPE, EXPOSITION)], text).into_response()
    }
}

/// Whether anything was ever applied. Neither a later failure nor the shutdown
/// changes the answer.
fn ready(loaded: bool) -> Response {
    if loaded {
        respond::text(StatusCode::OK, "ok")
    } else {
        respond::text(StatusCode::SERVICE_UNAVAILABLE, "no configuration available")
    }
}
