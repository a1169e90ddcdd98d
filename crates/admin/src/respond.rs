//! The few shapes of answers both listeners give.

use aisix_config::{View, edit::Done};
use aisix_core::probe::Probe;
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::Value;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What `Allow` says about a path that is only read.
pub(crate) const READ_METHODS: HeaderValue = HeaderValue::from_static("GET,HEAD");

/// Says how many entries there are, however many are shown.
pub(crate) const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");
/// Says that nothing was written.
pub(crate) const DRY_RUN: HeaderName = HeaderName::from_static("x-aisix-dry-run");

/// Everything but what stands for itself in any part of an address.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A 200 with a JSON body.
pub(crate) fn json(value: &impl Serialize) -> Response {
    json_with(StatusCode::OK, value)
}

/// A JSON body.
pub(crate) fn json_with(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, JSON)], body).into_response(),
        Err(err) => {
            tracing::error!(%err, "an answer could not be serialised");
            let body = r#"{"error_msg":"internal error"}"#;
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, JSON)], body).into_response()
        }
    }
}

/// A 200 with a JSON body that is serialised already.
pub(crate) fn json_bytes(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
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

/// A resource as the admin listener shows it.
#[derive(Serialize)]
pub(crate) struct Entry<'a> {
    pub(crate) id: &'a str,
    pub(crate) value: &'a Value,
    pub(crate) revision: u64,
    /// A secret that the server made: shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plaintext: Option<&'a str>,
}

impl<'a> From<&'a View> for Entry<'a> {
    fn from(view: &'a View) -> Self {
        Self { id: &view.id, value: &view.document, revision: view.revision, plaintext: None }
    }
}

/// What became of a change.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Made<'a> {
    Entry(Entry<'a>),
    Deleted { deleted: bool, id: &'a str },
}

impl<'a> From<&'a Done> for Made<'a> {
    fn from(done: &'a Done) -> Self {
        match done {
            Done::Written { id, document, revision, plaintext, .. } => Self::Entry(Entry {
                id,
                value: document,
                revision: *revision,
                plaintext: plaintext.as_deref(),
            }),
            Done::Deleted { id, .. } => Self::Deleted { deleted: true, id },
        }
    }
}

/// A text as a part of an address.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Adds a header. A value that cannot be one is left out.
pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Adds the entity tag of a revision.
pub(crate) fn set_tag(headers: &mut HeaderMap, revision: u64) {
    set(headers, header::ETAG, &format!("\"{revision}\""));
}

/// Adds the way to the next page, under the same path.
pub(crate) fn set_next(headers: &mut HeaderMap, path: &str, query: &[(&str, &str)]) {
    let pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    set(headers, header::LINK, &format!("<{path}?{}>; rel=\"next\"", pairs.join("&")));
}

/// Forbids caches to keep an answer.
pub(crate) fn set_private(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
