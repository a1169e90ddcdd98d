//! The few shapes of answers both listeners give.

use aisix_core::probe::Probe;
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What `Allow` says about a path that is read.
pub(crate) const READ_METHODS: HeaderValue = HeaderValue::from_static("GET,HEAD");

/// A 200 with a JSON body.
pub(crate) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => json_bytes(body.into()),
        Err(err) => {
            tracing::error!(%err, "an answer could not be serialised");
            error(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        }
    }
}

/// A 200 with a JSON body that is serialised already.
pub(crate) fn json_bytes(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
}

/// The error envelope of the admin surface.
pub(crate) fn error(status: StatusCode, text: &str) -> Response {
    let body = serde_json::json!({ "error_msg": text }).to_string();
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}

/// The answer of a probe.
pub(crate) fn probe(probe: Probe) -> Response {
    let status = StatusCode::from_u16(probe.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    text(status, probe.body)
}

/// Plain text that no browser may take for anything else.
pub(crate) fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    let headers =
        [(header::CONTENT_TYPE, TEXT), (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))];
    (status, headers, body.into()).into_response()
}
