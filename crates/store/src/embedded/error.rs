//! What may go wrong with the embedded store, and how it is told.

use std::path::{Path, PathBuf};

use aisix_core::rows::CommitError;
use rusqlite::ErrorCode;

use super::keys::Keys;

/// Why the embedded store could not be opened, read or re-encrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was there, and nothing was to be made.
    #[error("there is no store at {}", .0.display())]
    Missing(PathBuf),
    /// The file is another program's.
    #[error("{} is not a store of aisix", .0.display())]
    Foreign(PathBuf),
    /// The file has a format that only later versions know.
    #[error("{} was written by a newer version (format {found}; this version knows {known}): run that version, or restore a backup made before the upgrade", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this version knows.
        known: i64,
    },
    /// A key is missing, unreadable or not the right one. Nothing was changed.
    #[error("{0}")]
    Key(String),
    /// What the file holds is not what was written. Nothing of it is used.
    #[error("{} is damaged: {detail}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The disk, the folder or another process is in the way.
    #[error("{0}")]
    Unavailable(String),
}

/// What went wrong inside, before it is known which file it is about.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(rusqlite::Error),
    /// The last step of a transaction failed: it may or may not have been made.
    InDoubt(rusqlite::Error),
    Damaged(String),
    /// The id of a key that is not known.
    UnknownKey(String),
    /// The id of a key that is known with other bytes.
    WrongKey(String),
    Key(String),
    Unavailable(String),
    Moved,
    TooLarge(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Fault {
    pub(super) fn tell(self, path: &Path, keys: &Keys) -> Error {
        let file = path.display();
        match self {
            Self::Sql(error) => tell_sql(&error, path),
            Self::InDoubt(error) => {
                let said = tell_sql(&error, path);
                Error::Unavailable(format!("{said}; whether the change was made is not known"))
            }
            Self::Damaged(detail) => Error::Damaged { path: path.to_owned(), detail },
            Self::UnknownKey(id) => Error::Key(format!(
                "{file} is encrypted with the key `{id}`, which is not there: looked in {}, which holds {}",
                keys.place(),
                keys.ring().ids()
            )),
            Self::WrongKey(id) => Error::Key(format!(
                "{file} is encrypted with another key `{id}` than the one of that id in {}",
                keys.place()
            )),
            Self::Key(text) => Error::Key(text),
            Self::Unavailable(text) => Error::Unavailable(text),
            Self::Moved => Error::Unavailable(CommitError::Moved.to_string()),
            Self::TooLarge(text) => Error::Unavailable(text),
        }
    }

    pub(super) fn tell_commit(self, path: &Path, keys: &Keys) -> CommitError {
        match self {
            Self::Moved => CommitError::Moved,
            Self::TooLarge(text) => CommitError::TooLarge(text),
            other => CommitError::Unavailable(other.tell(path, keys).to_string()),
        }
    }
}

/// A failure of SQLite, as an operator can use it.
pub(super) fn tell_sql(error: &rusqlite::Error, path: &Path) -> Error {
    let file = path.display();
    let rusqlite::Error::SqliteFailure(code, _) = error else {
        // What is left are values of a type that this store never writes.
        return Error::Damaged { path: path.to_owned(), detail: error.to_string() };
    };
    let text = match code.code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            return Error::Damaged { path: path.to_owned(), detail: error.to_string() };
        }
        ErrorCode::DiskFull => format!("the disk that holds {file} is full"),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            format!("another process is writing to {file} and did not finish in time")
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
            format!("{file} or its folder cannot be written: {error}")
        }
        _ => format!("{file} cannot be read or written: {error}"),
    };
    Error::Unavailable(text)
}

/// A failure of the file system.
pub(super) fn tell_io(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::Unavailable(format!("{what} {}: {error}", path.display()))
}
