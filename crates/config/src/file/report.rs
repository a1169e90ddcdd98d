//! What was wrong with a resources file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The classes of problems, as status and metrics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum ErrorKind {
    /// Not a document.
    #[serde(rename = "non_json")]
    NonJson,
    /// Fits the schema but not the field.
    #[serde(rename = "parse_failed")]
    Parse,
    /// Everything else about the content.
    #[serde(rename = "schema_failed")]
    Schema,
    /// The source could not be read.
    #[serde(rename = "fetch")]
    Fetch,
}

/// One entry, or the file itself, and everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// The collection; empty for the file.
    pub(crate) kind: &'static str,
    /// The name of the entry; empty for the file or when it has none.
    pub(crate) id: String,
    pub(crate) error: ErrorKind,
    pub(crate) scope: String,
    pub(crate) message: String,
}

impl Rejection {
    pub(crate) fn file(error: ErrorKind, message: String) -> Self {
        Self { kind: "", id: String::new(), error, scope: "(file)".into(), message }
    }
}

/// All problems of a resources file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceErrors {
    path: PathBuf,
    /// The hash of the bytes that were refused; `None` when there were none.
    hash: Option<String>,
    rejections: Vec<Rejection>,
}

impl ResourceErrors {
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let message = format!("cannot read file: {error}");
        Self {
            path: path.to_owned(),
            hash: None,
            rejections: vec![Rejection::file(ErrorKind::Fetch, message)],
        }
    }

    pub(super) fn rejected(path: &Path, hash: String, rejections: Vec<Rejection>) -> Self {
        Self { path: path.to_owned(), hash: Some(hash), rejections }
    }

    /// How many entries (the file counts as one each time) have problems.
    pub fn count(&self) -> usize {
        self.rejections.len()
    }

    pub(crate) fn hash(&self) -> Option<&str> {
        self.hash.as_deref()
    }

    pub(crate) fn rejections(&self) -> &[Rejection] {
        &self.rejections
    }
}

impl fmt::Display for ResourceErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, count) = (self.path.display(), self.count());
        write!(f, "resources file {path}: {count} error(s):")?;
        self.rejections
            .iter()
            .try_for_each(|rejection| write!(f, "\n  - {}: {}", rejection.scope, rejection.message))
    }
}

impl std::error::Error for ResourceErrors {}
