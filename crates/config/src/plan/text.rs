//! A plan as people read it.

use std::fmt;

use serde_json::Value;

use super::{Action, FieldChange, Plan, Planned, title};

/// The longest value that is shown whole.
const MAX_SHOWN: usize = 80;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for planned in &self.changes {
            writeln!(f, "{planned}")?;
        }
        for broken in &self.broken {
            writeln!(
                f,
                "! {} {}: {} names {} {:?}, which is not there",
                title(broken.kind),
                plain(&broken.name),
                broken.path,
                title(broken.target_kind),
                broken.target
            )?;
        }
        let count = |action| self.changes.iter().filter(|planned| planned.action == action).count();
        write!(
            f,
            "{} to add, {} to change, {} to remove",
            count(Action::Add),
            count(Action::Change),
            count(Action::Remove)
        )
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.action {
            Action::Add => '+',
            Action::Change => '~',
            Action::Remove => '-',
        };
        write!(f, "{sign} {} {}", title(self.kind), plain(&self.name))?;
        let fields: Vec<String> = self.fields.iter().map(field).collect();
        match fields.as_slice() {
            [] => Ok(()),
            [only] => write!(f, ": {only}"),
            several => several.iter().try_for_each(|field| write!(f, "\n    {field}")),
        }
    }
}

fn field(change: &FieldChange) -> String {
    let path = &change.path;
    if change.secret {
        return format!("{path} (secret changed)");
    }
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("{path} {} → {}", value(path, before), value(path, after)),
        (None, Some(after)) => format!("{path} → {}", value(path, after)),
        (Some(before), None) => format!("{path} {} → (none)", value(path, before)),
        (None, None) => path.clone(),
    }
}

/// A value in a line; times with their unit.
fn value(path: &str, value: &Value) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    let text = match value {
        Value::Number(number) if name.ends_with("timeout") || name.ends_with("_ms") => {
            number.as_u64().map_or_else(|| number.to_string(), milliseconds)
        }
        Value::Number(number) if name.ends_with("_seconds") || name.ends_with("_secs") => {
            format!("{number}s")
        }
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    };
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn milliseconds(ms: u64) -> String {
    match (ms / 1000, ms % 1000) {
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{ms}ms"),
    }
}

/// A text that cannot disturb a terminal.
fn plain(text: &str) -> String {
    let hostile = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.chars().any(hostile) {
        let shown =
            text.chars().map(|c| if hostile(c) { c.escape_unicode().to_string() } else { c.to_string() });
        return shown.collect();
    }
    text.to_owned()
}
