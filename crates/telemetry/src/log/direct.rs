//! Lines of records, written without an event.
//!
//! They are most of the log, and a `tracing` event costs several times what
//! its text does. So [`Direct`] sits next to the ordinary format as a layer
//! that hears of no event; whoever has such a line looks for it in the current
//! dispatcher, asks the same filter, and writes the text by hand. Without it,
//! or inside a span, whose fields only the registry knows, [`line!`] makes the
//! ordinary event of the same fields.

use std::{cell::Cell, fmt, sync::Arc, time::SystemTime};

use aisix_core::RequestId;
use tracing::{Level, Metadata, Subscriber, dispatcher};
use tracing_core::{Callsite, Dispatch, Interest};
use tracing_subscriber::Layer;

use super::{Output, format, time};
use crate::text::is_plain;

/// A buffer that grew beyond this is not kept.
const MAX_KEPT: usize = 16 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The way around events, as part of the logger.
pub(super) struct Direct {
    json: bool,
    /// What stands between the time and the first value of the line.
    after_time: String,
    output: Arc<dyn Output>,
}

impl Direct {
    pub(super) fn new(json: bool, ansi: bool, output: Arc<dyn Output>) -> Self {
        let after_time = if json {
            "\",\"level\":\"INFO\",\"target\":\"".to_owned()
        } else {
            let (on, off) = format::colour(ansi, Level::INFO);
            format!(" {on}INFO{off} request{{request_id=")
        };
        Self { json, after_time, output }
    }
}

impl<S: Subscriber> Layer<S> for Direct {}

/// Lets `write` write the lines of a request straight to the log, all at once.
/// False when they have to be events.
pub(crate) fn direct(request_id: &RequestId, write: impl Fn(&mut Lines<'_>)) -> bool {
    dispatcher::get_default(|dispatch| {
        let Some(direct) = dispatch.downcast_ref::<Direct>() else {
            return false;
        };
        if dispatch.current_span().id().is_some() {
            return false;
        }
        let mut lines = Lines {
            direct,
            dispatch,
            request_id: request_id.as_str(),
            text: Text::default(),
            head: 0,
            count: 0,
        };
        write(&mut lines);
        lines.finish();
        true
    })
}

/// The lines of one request. They share their time and context.
pub(crate) struct Lines<'a> {
    direct: &'a Direct,
    dispatch: &'a Dispatch,
    request_id: &'a str,
    text: Text,
    /// Length of the part that all lines begin with.
    head: usize,
    count: u64,
}

impl Lines<'_> {
    /// Begins a line, if the filter lets it through.
    pub(crate) fn begin(&mut self, site: &'static Site) -> bool {
        if !self.dispatch.enabled(&site.metadata) {
            return false;
        }
        if self.count == 0 {
            self.begin_first();
        } else {
            self.text.0.extend_from_within(..self.head);
        }
        self.count += 1;
        self.text.push(if self.direct.json { site.json } else { site.text });
        true
    }

    fn begin_first(&mut self) {
        self.text.0 = BUFFER.try_with(Cell::take).unwrap_or_default();
        if self.direct.json {
            self.text.push("{\"timestamp\":\"");
        }
        self.text.0.extend_from_slice(&time::text(SystemTime::now()));
        self.text.push(&self.direct.after_time);
        if !self.direct.json {
            // Visible ASCII: nothing to escape.
            self.text.push(self.request_id);
            self.text.push("}: ");
        }
        self.head = self.text.0.len();
    }

    /// Writes a field, if it has a value. Inlined like all of it down to the
    /// name, which then costs a few moves.
    #[inline(always)]
    pub(crate) fn field(&mut self, name: &Name, value: impl Value) {
        value.write(name, self);
    }

    /// Writes a name without so many bytes at its end.
    #[inline(always)]
    fn name(&mut self, name: &Name, without: usize) {
        if self.direct.json {
            self.text.push(&name.json[..name.json.len() - without]);
        } else {
            self.text.push(&name.text[..name.text.len() - without]);
        }
    }

    fn rest_of_plain(&mut self, value: &str) {
        self.text.push(value);
        self.text.push("\"");
    }

    fn number(&mut self, value: u64) {
        self.text.push(itoa::Buffer::new().format(value));
    }

    #[cold]
    fn escaped(&mut self, name: &Name, value: &str) {
        self.name(name, 1);
        // Writing to memory cannot fail.
        let _ = if self.direct.json {
            format::write_json_text(&mut self.text, value)
        } else {
            format::write_text(&mut self.text, value)
        };
    }

    /// Ends a line.
    pub(crate) fn end(&mut self) {
        self.text.push(if self.direct.json { "}\n" } else { "\n" });
    }

    fn finish(self) {
        if self.count > 0 {
            let mut text = self.text.0;
            self.direct.output.take(&text, self.count);
            text.clear();
            text.shrink_to(MAX_KEPT);
            // A thread that ends has no buffer any more.
            let _ = BUFFER.try_with(|buffer| buffer.set(text));
        }
    }
}

/// Text, as bytes because that is what becomes of it.
#[derive(Default)]
struct Text(Vec<u8>);

impl Text {
    #[inline(always)]
    fn push(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// What a kind of line always says.
pub(crate) struct Site {
    /// For the filter.
    pub(crate) metadata: Metadata<'static>,
    /// Target and message, as text.
    pub(crate) text: &'static str,
    /// The same, as JSON from within the string of the target.
    pub(crate) json: &'static str,
}

impl Callsite for Site {
    // The filter is asked for each line.
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        &self.metadata
    }
}

/// The name of a field with all that stands between the value before it and a
/// string that is its value.
pub(crate) struct Name {
    pub(crate) text: &'static str,
    pub(crate) json: &'static str,
}

/// What a field can hold.
pub(crate) trait Value {
    fn write(self, name: &Name, lines: &mut Lines<'_>);
}

impl Value for &str {
    #[inline(always)]
    fn write(self, name: &Name, lines: &mut Lines<'_>) {
        if is_plain(self) {
            lines.name(name, 0);
            lines.rest_of_plain(self);
        } else {
            lines.escaped(name, self);
        }
    }
}

impl Value for u64 {
    #[inline(always)]
    fn write(self, name: &Name, lines: &mut Lines<'_>) {
        lines.name(name, 1);
        lines.number(self);
    }
}

impl Value for u32 {
    #[inline(always)]
    fn write(self, name: &Name, lines: &mut Lines<'_>) {
        u64::from(self).write(name, lines);
    }
}

impl Value for u16 {
    #[inline(always)]
    fn write(self, name: &Name, lines: &mut Lines<'_>) {
        u64::from(self).write(name, lines);
    }
}

impl<T: Value> Value for Option<T> {
    #[inline(always)]
    fn write(self, name: &Name, lines: &mut Lines<'_>) {
        if let Some(value) = self {
            value.write(name, lines);
        }
    }
}

/// Writes one line at level info: to [`Lines`] if they are given, else as an
/// event.
macro_rules! line {
    ($lines:expr, $target:literal, $message:literal, { $($field:ident = $value:expr,)* }) => {
        match $lines {
            Some(lines) => {
                static SITE: $crate::log::Site = $crate::log::Site {
                    metadata: tracing::Metadata::new(
                        $message,
                        $target,
                        tracing::Level::INFO,
                        None,
                        None,
                        None,
                        tracing_core::field::FieldSet::new(
                            &["message", $(stringify!($field)),*],
                            tracing_core::identify_callsite!(&SITE),
                        ),
                        tracing_core::Kind::EVENT,
                    ),
                    text: concat!($target, ": ", $message),
                    json: concat!($target, "\",\"message\":\"", $message, "\""),
                };
                if lines.begin(&SITE) {
                    $(
                        let name = &$crate::log::Name {
                            text: concat!(" ", stringify!($field), "=\""),
                            json: concat!(",\"", stringify!($field), "\":\""),
                        };
                        lines.field(name, $value);
                    )*
                    lines.end();
                }
            }
            None => tracing::info!(target: $target, $($field = $value,)* $message),
        }
    };
}

pub(crate) use line;
