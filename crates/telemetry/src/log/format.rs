//! The two shapes of a log line.
//!
//! Text: `<time> <LEVEL> request{request_id=<id>}: <target>: <message> k=v`.
//! JSON: one flat object. In both, a line is one line whatever the values
//! hold, and a line outside a request's span takes its context from its own
//! `request_id` field, if it has one.

use std::{
    fmt::{self, Debug, Write},
    time::SystemTime,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{DefaultFields, JsonFields, Writer},
    },
    registry::LookupSpan,
};

use super::time;
use crate::text::{is_plain, is_unsafe};

const MESSAGE: &str = "message";
const REQUEST_ID: &str = "request_id";

/// Key-value text.
pub(super) struct TextFormat;

impl<S> FormatEvent<S, DefaultFields> for TextFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        write_time(&mut out)?;
        let (on, off) = colour(out.has_ansi_escapes(), *metadata.level());
        write!(out, " {on}{}{off} ", metadata.level())?;
        let mut in_request = false;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            in_request |= span.name() == "request";
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<DefaultFields>>();
            let fields = fields.map_or("", |fields| fields.fields.as_str());
            write!(out, "{}{{{fields}}}: ", span.name())?;
        }
        if !in_request && metadata.fields().field(REQUEST_ID).is_some() {
            event.record(&mut Context { out: &mut out });
        }
        write!(out, "{}:", metadata.target())?;
        let mut fields = TextFields { out: &mut out, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        writeln!(out)
    }
}

fn write_time(out: &mut impl Write) -> fmt::Result {
    // ASCII by construction.
    out.write_str(std::str::from_utf8(&time::text(SystemTime::now())).unwrap_or_default())
}

pub(super) fn colour(ansi: bool, level: Level) -> (&'static str, &'static str) {
    if !ansi {
        return ("", "");
    }
    let on = match level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        Level::DEBUG => "\u{1b}[34m",
        Level::TRACE => "\u{1b}[35m",
    };
    (on, "\u{1b}[0m")
}

/// Writes the request context of a line that carries its own id.
struct Context<'a, 'w> {
    out: &'a mut Writer<'w>,
}

impl Visit for Context<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == REQUEST_ID {
            // A failing writer fails again, and is reported, just after.
            let _ = write!(Clean(self.out), "request{{request_id={value:?}}}: ");
        }
    }
}

struct TextFields<'a, 'w> {
    out: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl<'w> TextFields<'_, 'w> {
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'w>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = name(self.out, field).and_then(|()| value(self.out));
        }
    }
}

fn name(out: &mut Writer<'_>, field: &Field) -> fmt::Result {
    out.write_str(" ")?;
    if field.name() == MESSAGE {
        return Ok(());
    }
    out.write_str(field.name())?;
    out.write_str("=")
}

impl Visit for TextFields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, |out| {
            if field.name() == MESSAGE { Clean(out).write_str(value) } else { write_text(out, value) }
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |out| write!(out, "{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field, |out| write!(Clean(out), "{value:?}"));
    }
}

/// A string as the value of a field of a text line.
pub(super) fn write_text(out: &mut impl Write, text: &str) -> fmt::Result {
    if is_plain(text) { write_quoted(out, text) } else { write!(Clean(out), "{text:?}") }
}

fn write_quoted(out: &mut impl Write, plain: &str) -> fmt::Result {
    out.write_str("\"")?;
    out.write_str(plain)?;
    out.write_str("\"")
}

/// Escapes what could break the line or drive the terminal.
struct Clean<'a, W>(&'a mut W);

impl<W: Write> Write for Clean<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unsafe) {
            let (clean, from) = rest.split_at(at);
            let mut chars = from.chars();
            self.0.write_str(clean)?;
            if let Some(c) = chars.next() {
                write!(self.0, "{}", c.escape_default())?;
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

/// One object per line.
pub(super) struct JsonFormat;

impl<S> FormatEvent<S, JsonFields> for JsonFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        out.write_str("{\"timestamp\":\"")?;
        write_time(&mut out)?;
        write!(out, "\",\"level\":\"{}\",", metadata.level())?;
        out.write_str("\"target\":")?;
        write_json_text(&mut out, metadata.target())?;
        let mut fields = JsonFieldsOut { out: &mut out, result: Ok(()) };
        event.record(&mut fields);
        // The context comes last and never repeats a field of the line itself.
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let text = extensions.get::<FormattedFields<JsonFields>>();
            let text = text.map_or("{}", |fields| fields.fields.as_str());
            let context: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(text).unwrap_or_default();
            for (key, value) in context {
                if metadata.fields().field(&key).is_none() {
                    fields.field(&key, |out| write!(out, "{value}"));
                }
            }
        }
        fields.result?;
        writeln!(out, "}}")
    }
}

/// A string as a JSON string.
pub(super) fn write_json_text(out: &mut impl Write, text: &str) -> fmt::Result {
    if is_plain(text) { write_quoted(out, text) } else { write!(out, "{}", serde_json::Value::from(text)) }
}

struct JsonFieldsOut<'a, 'w> {
    out: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl<'w> JsonFieldsOut<'_, 'w> {
    fn field(&mut self, name: &str, value: impl FnOnce(&mut Writer<'w>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = key(self.out, name).and_then(|()| value(self.out));
        }
    }
}

fn key(out: &mut Writer<'_>, name: &str) -> fmt::Result {
    out.write_str(",")?;
    match name {
        // Keys of the line itself cannot be taken twice.
        "timestamp" | "level" | "target" => write!(out, "\"{name}_\"")?,
        name => write_json_text(out, name)?,
    }
    out.write_str(":")
}

impl Visit for JsonFieldsOut<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        let value = serde_json::Value::from(value);
        self.field(field.name(), |out| write!(out, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field.name(), |out| write!(out, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field.name(), |out| write!(out, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field.name(), |out| write!(out, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field.name(), |out| write_json_text(out, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        self.field(field.name(), |out| write_json_text(out, &value));
    }
}
