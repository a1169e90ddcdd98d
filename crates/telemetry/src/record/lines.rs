//! The log lines a record leaves behind.

use std::{borrow::Cow, time::Duration};

use aisix_core::RequestId;
use tracing::{Level, Span, level_filters::LevelFilter};

use super::{Record, Verdict};
use crate::{
    log::{self, Lines, line},
    text::clean,
};

/// Longest text from outside in a log field.
const MAX_TEXT: usize = 256;
/// Longest error text.
const MAX_ERROR: usize = 2048;
const MAX_PATH: usize = 2048;

/// The context of every line that belongs to a request. The level is the
/// highest there is, so that the context is there whenever a line is.
pub(super) fn request_span(request_id: &RequestId) -> Span {
    tracing::error_span!(target: "aisix::request", "request", request_id = %request_id)
}

/// Writes the lines.
///
/// As events they are outside of the request's span: the formats take the
/// context of such a line from its `request_id`, and making a span only for it
/// would cost more than the line.
pub(super) fn write(record: &Record, verdict: &Verdict, total: Duration) {
    if LevelFilter::current() < Level::INFO {
        return;
    }
    let texts = Texts {
        model: short(record.requested_model.as_deref()),
        provider_request_id: short(record.provider_request_id.as_deref()),
    };
    let written = log::direct(&record.request_id, |lines| {
        access((record, &texts), verdict, total, Some(lines));
        provider_call((record, &texts), verdict, Some(lines));
    });
    if !written {
        access((record, &texts), verdict, total, None);
        provider_call((record, &texts), verdict, None);
    }
}

/// Texts of a record that both lines show.
struct Texts<'a> {
    model: Option<Cow<'a, str>>,
    provider_request_id: Option<Cow<'a, str>>,
}

/// The access log line.
fn access(
    (record, texts): (&Record, &Texts<'_>),
    verdict: &Verdict,
    total: Duration,
    lines: Option<&mut Lines<'_>>,
) {
    let usage = &record.usage;
    let total_tokens = usage.total_or_sum();
    let tokens = |count| (total_tokens > 0).then_some(count);
    let error = record.error.as_ref().filter(|_| !verdict.client_gone);
    let error_kind = match error {
        Some(error) => Some(error.kind),
        None => verdict.client_gone.then_some("client_disconnected"),
    };
    line!(lines, "aisix::access", "proxy request completed", {
        method = record.method.as_str(),
        path = &*clean(&record.path, MAX_PATH),
        status = verdict.logged,
        latency_ms = millis(total),
        provider = record.provider.as_deref(),
        model = texts.model.as_deref(),
        api_key_id = record.api_key_id.as_deref(),
        prompt_tokens = tokens(usage.input),
        completion_tokens = tokens(usage.output),
        total_tokens = tokens(total_tokens),
        request_id = record.request_id.as_str(),
        provider_request_id = texts.provider_request_id.as_deref(),
        served_by_model = record.served_by.as_deref(),
        routing_attempt_count = positive(record.attempts),
        routing_fallback_count = positive(record.fallbacks),
        error_kind = error_kind,
        error = error.map(|error| clean(&error.text, MAX_ERROR)).as_deref(),
    });
}

/// The line about the provider's own id, if it gave one.
fn provider_call((record, texts): (&Record, &Texts<'_>), verdict: &Verdict, lines: Option<&mut Lines<'_>>) {
    let Some(provider_request_id) = texts.provider_request_id.as_deref() else {
        return;
    };
    let kind = match (record.fallbacks, record.attempts) {
        (0, 0 | 1) => "initial",
        (0, _) => "retry",
        _ => "fallback",
    };
    line!(lines, "aisix::provider", "provider call completed", {
        request_id = record.request_id.as_str(),
        provider_request_id = provider_request_id,
        attempt_index = record.attempts.saturating_sub(1),
        attempt_kind = kind,
        handler = record.endpoint.handler,
        status = verdict.logged,
        requested_model = texts.model.as_deref(),
        provider_model_version = short(record.provider_model_version.as_deref()).as_deref(),
    });
}

fn short(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.map(|text| clean(text, MAX_TEXT)).filter(|text| !text.is_empty())
}

fn positive(count: u32) -> Option<u32> {
    (count > 0).then_some(count)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
