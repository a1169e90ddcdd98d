//! Error bodies and frames.

use aisix_core::Error;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::UpstreamFault;

#[derive(Serialize)]
struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
}

pub(super) fn encode(error: &Error, kind: &str) -> Bytes {
    let body = Body { message: error.message(), r#type: kind, param: error.param(), code: error.code() };
    // Serialising plain strings cannot fail.
    serde_json::to_vec(&Envelope { error: body }).unwrap_or_default().into()
}

pub(super) fn encode_frame(error: &Error) -> Bytes {
    let body = encode(error, error.stream_kind());
    let mut frame = Vec::with_capacity(body.len() + 32);
    frame.extend_from_slice(b"event: error\ndata: ");
    frame.extend_from_slice(&body);
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

pub(super) fn decode(status: u16, body: &[u8]) -> UpstreamFault {
    let described = serde_json::from_slice::<Value>(body).ok().and_then(|body| from_value(&body["error"]));
    let mut fault = described.unwrap_or_else(|| UpstreamFault {
        message: String::from_utf8_lossy(body).trim().to_owned(),
        ..UpstreamFault::default()
    });
    if fault.message.is_empty() {
        fault.message = format!("upstream returned {status}");
    }
    fault.status = Some(status);
    fault
}

/// Reads the data of an event that is an error by its name.
pub(super) fn in_event(data: &[u8]) -> UpstreamFault {
    let body = serde_json::from_slice::<Value>(data).unwrap_or_default();
    let described = from_value(&body["error"]).or_else(|| from_value(&body));
    described.filter(|fault| !fault.message.is_empty()).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(data).trim().to_owned();
        let message = if text.is_empty() { "an error without a text".into() } else { text };
        UpstreamFault { message, ..UpstreamFault::default() }
    })
}

/// Reads an error object, or a bare string.
pub(super) fn from_value(error: &Value) -> Option<UpstreamFault> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match error {
        Value::String(message) => {
            Some(UpstreamFault { message: message.clone(), ..UpstreamFault::default() })
        }
        Value::Object(_) => Some(UpstreamFault {
            status: status_in(&error["code"]).or_else(|| status_in(&error["status"])),
            message: text(&error["message"]).unwrap_or_else(|| error.to_string()),
            code: text(&error["code"]),
            param: text(&error["param"]),
        }),
        _ => None,
    }
}

fn status_in(value: &Value) -> Option<u16> {
    let number = match value {
        Value::String(text) => text.parse().ok()?,
        other => other.as_u64()?,
    };
    u16::try_from(number).ok().filter(|status| (400..600).contains(status))
}
