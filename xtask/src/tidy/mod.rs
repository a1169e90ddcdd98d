//! The rules of the repository that a program can check. Each check is a function from files to
//! findings; nothing here writes.

mod crates;
mod links;
mod source;
mod tables;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// One broken rule at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// The files git knows or would add, by path; `None` for one that is not text.
#[derive(Debug, Default)]
pub(crate) struct Repo {
    files: BTreeMap<String, Option<String>>,
}

impl Repo {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("running git")?;
        ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
        let mut files = BTreeMap::new();
        for path in output.stdout.split(|&byte| byte == 0).filter(|path| !path.is_empty()) {
            let path = String::from_utf8_lossy(path).into_owned();
            // A file deleted but not yet committed is still listed.
            if let Ok(bytes) = std::fs::read(root.join(&path)) {
                files.insert(path, String::from_utf8(bytes).ok());
            }
        }
        ensure!(!files.is_empty(), "git lists no files");
        Ok(Self { files })
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Path and content of every text file.
    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    fn exists(&self, path: &str) -> bool {
        self.files.contains_key(path) || self.has_folder(path)
    }

    /// Whether a file lies below `path`.
    fn has_folder(&self, path: &str) -> bool {
        let folder = if path.is_empty() { String::new() } else { format!("{}/", path.trim_end_matches('/')) };
        self.files.keys().any(|file| file.starts_with(&folder))
    }
}

/// Every finding, in the order of paths and lines.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    source::check(repo, &mut findings);
    crates::check(repo, &mut findings);
    tables::check(repo, &mut findings);
    text::check(repo, &mut findings);
    links::check(repo, &mut findings);
    findings.sort();
    findings.dedup();
    findings
}

#[cfg(test)]
mod testing {
    //! Small repositories in memory.

    use super::{Finding, Repo};

    pub(super) fn repo(files: &[(&str, &str)]) -> Repo {
        Repo {
            files: files.iter().map(|(path, text)| ((*path).to_owned(), Some((*text).to_owned()))).collect(),
        }
    }

    /// The findings of one check as lines.
    pub(super) fn lines(check: fn(&Repo, &mut Vec<Finding>), files: &[(&str, &str)]) -> Vec<String> {
        let mut findings = Vec::new();
        check(&repo(files), &mut findings);
        findings.sort();
        findings.iter().map(ToString::to_string).collect()
    }
}
