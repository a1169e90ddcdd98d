//! Resources as a file: names in place of ids, and variables of the
//! environment in place of secrets.

mod names;
mod secrets;
mod yaml;

use std::fmt;

use crate::file::{VERSION, VERSION_KEY, load_text};
use crate::resource::{Document, KINDS};

use names::by_name;
pub use secrets::Placeholder;
use secrets::Secrets;

/// How resources are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportOptions {
    /// Writes secrets as they are.
    pub reveal_secrets: bool,
}

/// Resources as a file.
#[derive(Clone)]
pub struct Export {
    /// The file.
    pub yaml: String,
    /// How many resources it holds.
    pub count: usize,
    /// What differs from the resources, or may surprise.
    pub warnings: Vec<String>,
    /// The variables that stand for secrets, in the order of the file.
    pub placeholders: Vec<Placeholder>,
    /// Why the file would be refused as it is: names that collide, references
    /// to what is not there, values that only a store lets pass.
    pub problems: Vec<String>,
}

/// The file may hold secrets.
impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Writes resources of every kind as a file. The same resources give the same
/// bytes, whatever their order and ids.
pub fn export(documents: &[Document], options: ExportOptions) -> Export {
    write(documents, options).0
}

/// The file, and what its variables stand for.
fn write(documents: &[Document], options: ExportOptions) -> (Export, Secrets) {
    let mut warnings = Vec::new();
    let mut entries = by_name(documents, &mut warnings).into_iter().peekable();
    let mut secrets = Secrets::new(options.reveal_secrets);
    let mut yaml = format!("---\n{VERSION_KEY}: \"{VERSION}\"\n");
    for kind in KINDS {
        let mut rows = Vec::new();
        while let Some(mut entry) = entries.next_if(|entry| entry.kind == *kind) {
            secrets.hide(&mut entry);
            rows.push(entry.into_entry());
        }
        if !rows.is_empty() {
            yaml::collection(&mut yaml, kind.name, rows);
        }
    }
    if secrets.revealed > 0 {
        warnings.push(format!("{} secret value(s) are written in clear text", secrets.revealed));
    }
    let problems = match load_text(&yaml, &|name| secrets.value(name)) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.lines().collect(),
    };
    let placeholders = secrets.placeholders.clone();
    (Export { yaml, count: documents.len(), warnings, placeholders, problems }, secrets)
}

#[cfg(test)]
mod tests;
