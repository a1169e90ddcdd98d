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
    /// The key of a stored document is none.
    #[serde(rename = "bad_key")]
    BadKey,
    /// A stored document of another version's kind.
    #[serde(rename = "unknown_kind")]
    UnknownKind,
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
    /// `None` for a text that is not in a file.
    path: Option<PathBuf>,
    /// The hash of the bytes that were refused; `None` when there were none.
    hash: Option<String>,
    rejections: Vec<Rejection>,
}

impl ResourceErrors {
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let message = format!("cannot read file: {error}");
        Self {
            path: Some(path.to_owned()),
            hash: None,
            rejections: vec![Rejection::file(ErrorKind::Fetch, message)],
        }
    }

    pub(super) fn rejected(hash: String, rejections: Vec<Rejection>) -> Self {
        Self { path: None, hash: Some(hash), rejections }
    }

    /// The same about a file.
    pub(super) fn at(self, path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    /// How many entries (the file counts as one each time) have problems.
    pub fn count(&self) -> usize {
        self.rejections.len()
    }

    /// One line for each, without the path.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.rejections.iter().map(|rejection| format!("{}: {}", rejection.scope, rejection.message))
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
        match &self.path {
            Some(path) => write!(f, "resources file {}", path.display())?,
            None => f.write_str("resources")?,
        }
        write!(f, ": {} error(s):", self.count())?;
        self.lines().try_for_each(|line| write!(f, "\n  - {line}"))
    }
}

impl std::error::Error for ResourceErrors {}
