//! Where log lines go: one line per event to standard error, as text or JSON,
//! written by a thread of its own so that no request ever waits for it.

mod direct;
mod format;
mod sink;
#[cfg(test)]
pub(crate) mod tests;
mod time;

use std::{
    io::{self, IsTerminal, Write},
    panic,
    sync::Arc,
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, Layer,
    filter::LevelFilter,
    fmt::{
        self, MakeWriter,
        format::{DefaultFields, JsonFields},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

pub(crate) use self::direct::{Lines, Name, Site, direct, line};
use self::{
    direct::Direct,
    format::{JsonFormat, TextFormat},
    sink::Sink,
};

/// How long the end of the process waits for a slow standard error.
const FLUSH_AT_END: Duration = Duration::from_secs(2);

/// How to log.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig<'a> {
    /// Level or filter directives. A valid `RUST_LOG` replaces it.
    pub filter: &'a str,
    /// One JSON object per line instead of text.
    pub json: bool,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("invalid log filter {filter:?}: {reason}")]
    InvalidFilter {
        /// The filter as configured.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else in the process already logs.
    #[error("a logger is already installed")]
    AlreadyInstalled,
    /// The writing thread cannot be started.
    #[error("cannot start the log writer: {0}")]
    Thread(#[from] io::Error),
}

/// Keeps logging alive; writes what is left when dropped.
#[must_use = "dropping the guard ends buffered logging"]
pub struct LogGuard {
    sink: Arc<Sink>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.sink.close(FLUSH_AT_END);
    }
}

/// Installs the logger of the process, and a panic hook that logs panics
/// through it.
pub fn init(config: LogConfig<'_>) -> Result<LogGuard, LogError> {
    let variable = std::env::var_os("RUST_LOG").map(|value| value.to_string_lossy().into_owned());
    let (filter, ignored) = filter(config.filter, variable.as_deref())?;
    let sink = Arc::new(Sink::default());
    let ansi = !config.json && io::stderr().is_terminal();
    tracing_subscriber::registry()
        .with(filter)
        .with(layer(config.json, ansi, sink.clone()))
        .try_init()
        .map_err(|_| LogError::AlreadyInstalled)?;

    let writer = sink.clone();
    std::thread::Builder::new().name("log".into()).spawn(move || writer.run(io::stderr(), report_lost))?;
    let on_panic = sink.clone();
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string);
        let thread = std::thread::current();
        let what = info.payload_as_str().unwrap_or("a value that is no text");
        tracing::error!(
            target: "aisix::panic",
            thread = thread.name(),
            location = place.as_deref(),
            "panicked: {what}"
        );
        on_panic.hurry();
    }));
    if let Some(reason) = ignored {
        tracing::warn!(target: "aisix::log", error = reason, "RUST_LOG is invalid and was ignored");
    }
    Ok(LogGuard { sink })
}

/// Whether a configured filter can be used, without installing anything.
pub fn check(filter: &str) -> Result<(), LogError> {
    parse(filter).map(|_| ())
}

fn parse(configured: &str) -> Result<EnvFilter, LogError> {
    let invalid = |reason: String| LogError::InvalidFilter { filter: configured.to_owned(), reason };
    let text = match configured.trim() {
        "" => "info",
        text => text,
    };
    let filter = EnvFilter::try_new(text).map_err(|error| invalid(error.to_string()))?;
    // A misspelt level reads as the name of a target and would silence
    // everything else.
    let names_level = |directive: &str| {
        let level = directive.rsplit('=').next().unwrap_or(directive);
        level.trim().parse::<LevelFilter>().is_ok()
    };
    if text.split(',').any(names_level) {
        Ok(filter)
    } else {
        Err(invalid("it names no level (off, error, warn, info, debug or trace)".into()))
    }
}

/// The filter in force, and why the environment's was ignored, if it was.
fn filter(configured: &str, variable: Option<&str>) -> Result<(EnvFilter, Option<String>), LogError> {
    // Checked even when it is overridden: a wrong setting must not lie in wait.
    let configured = parse(configured)?;
    match variable.map(str::trim).filter(|text| !text.is_empty()) {
        None => Ok((configured, None)),
        Some(text) => match EnvFilter::try_new(text) {
            Ok(filter) => Ok((filter, None)),
            Err(error) => Ok((configured, Some(error.to_string()))),
        },
    }
}

/// The format of all lines and the way to `output`.
fn layer<S>(json: bool, ansi: bool, output: Arc<dyn Output>) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let direct = Direct::new(json, ansi, output.clone());
    events(json, ansi, output).and_then(direct).boxed()
}

/// The same for events only.
fn events<S>(json: bool, ansi: bool, output: Arc<dyn Output>) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let layer = fmt::layer().with_writer(LineWriters(output));
    if json {
        layer.fmt_fields(JsonFields::new()).event_format(JsonFormat).with_ansi(false).boxed()
    } else {
        layer.fmt_fields(DefaultFields::new()).event_format(TextFormat).with_ansi(ansi).boxed()
    }
}

/// Logs that lines were lost. The line goes the way of all lines, after the
/// ones that could be kept.
fn report_lost(count: u64) {
    tracing::warn!(
        target: "aisix::log",
        lines = count,
        "log lines were dropped because standard error is too slow"
    );
}

/// Where finished lines go.
trait Output: Send + Sync + 'static {
    /// Takes so many whole lines.
    fn take(&self, lines: &[u8], count: u64);
}

impl Output for Sink {
    fn take(&self, lines: &[u8], count: u64) {
        if !self.append(lines, count) {
            // The writing thread is gone: the process is about to end, and
            // nothing sensible can be done about a standard error that fails.
            let _ = io::stderr().write_all(lines);
        }
    }
}

/// Hands the line of an event to the output.
struct LineWriters(Arc<dyn Output>);

impl<'w> MakeWriter<'w> for LineWriters {
    type Writer = LineWriter<'w>;

    fn make_writer(&'w self) -> Self::Writer {
        LineWriter(&*self.0)
    }
}

struct LineWriter<'w>(&'w dyn Output);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.take(line, 1);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
