//! What a store of documents is to the gateway: rows that it follows, and
//! commits that it makes.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A document as a store holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct RawRow {
    /// `<kind>/<id>`; anything else is kept as it is and reported.
    pub key: String,
    /// The revision of the store at which the row was last written.
    pub revision: u64,
    /// JSON, as written.
    pub value: Bytes,
}

/// Values hold credentials.
impl std::fmt::Debug for RawRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawRow({} @{}, {} bytes)", self.key, self.revision, self.value.len())
    }
}

/// One step of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A row was written.
    Put(RawRow),
    /// A row was removed.
    Delete {
        /// Its key.
        key: String,
    },
}

/// A row whose newest value is refused: an older one is served.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The row that is served.
    pub row: RawRow,
    /// Since when.
    pub since: SystemTime,
}

/// What was known when a gateway last ran.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The revision of the store.
    pub revision: u64,
    /// Every row, as last seen.
    pub rows: Vec<RawRow>,
    /// What is served instead of rows that are refused.
    pub pinned: Vec<Pinned>,
    /// When the store was last known to hold nothing newer.
    pub confirmed: Option<SystemTime>,
}

/// Takes what a store sees. The calls of one store come one after the other.
pub trait Sink: Send + Sync {
    /// An image from an earlier run, before the store was reached.
    fn restore(&self, image: Image);
    /// Every row of the store at a revision.
    fn replace(&self, rows: Vec<RawRow>, revision: u64);
    /// What happened since, as one step; the rows carry their own revisions.
    fn change(&self, changes: Vec<Change>, revision: u64);
    /// The store is reached and nothing beyond the revision has happened.
    fn confirm(&self, revision: u64);
    /// The store is not reached (any more). The detail is for operators.
    fn lost(&self, detail: &str);
}

/// What a commit expects of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// That it is not there.
    Absent,
    /// That it was last written at this revision.
    Revision(u64),
}

/// A row to write or, without a value, to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// `<kind>/<id>`
    pub key: String,
    /// JSON.
    pub value: Option<Bytes>,
    /// What must hold.
    pub expect: Expect,
}

/// Edits that are made together or not at all, and their trace.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The edits, at most one a key.
    pub edits: Vec<Edit>,
    /// The revision up to which the edits were checked: a commit of another
    /// administrator since then refuses this one.
    pub base: u64,
    /// Written with the edits.
    pub audit: AuditRecord,
}

/// Why there was no commit. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The store moved on since `base`: check again.
    #[error("the configuration changed meanwhile")]
    Moved,
    /// More than the store takes at once.
    #[error("{0}")]
    TooLarge(String),
    /// The store was not reached or did not answer; whether the commit was
    /// made may be unknown, which the text says then.
    #[error("{0}")]
    Unavailable(String),
}

/// A write, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// The revision that it made; given by the store.
    #[serde(default)]
    pub revision: u64,
    /// RFC 3339, UTC.
    pub at: String,
    /// Name of the admin key, or of the command.
    pub actor: String,
    /// Address of the client.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remote: Option<IpAddr>,
    /// `create`, `replace`, `patch`, `delete`, `rotate`, `batch`, `apply`, `rollback` or `bootstrap`.
    pub action: String,
    /// What changed.
    pub changes: Vec<AuditChange>,
}

/// One row of a write. Secrets are masked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditChange {
    /// The collection.
    pub kind: String,
    /// The id.
    pub id: String,
    /// The name, when it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Before the write; absent when it was created.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<Value>,
    /// After the write; absent when it was deleted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<Value>,
}

/// Which records are wanted, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only of this collection.
    pub kind: Option<String>,
    /// Only of this id.
    pub id: Option<String>,
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only older than this revision.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

impl AuditQuery {
    /// Whether a record is asked for, the number aside.
    pub fn matches(&self, record: &AuditRecord) -> bool {
        let row = |change: &AuditChange| {
            self.kind.as_ref().is_none_or(|kind| *kind == change.kind)
                && self.id.as_ref().is_none_or(|id| *id == change.id)
        };
        self.before.is_none_or(|before| record.revision < before)
            && self.actor.as_ref().is_none_or(|actor| *actor == record.actor)
            && (self.kind.is_none() && self.id.is_none() || record.changes.iter().any(row))
    }
}

/// A store that takes commits.
pub trait Writer: Send + Sync {
    /// Commits, and gives the revision that the commit made. What was
    /// committed also reaches the sink.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<u64, CommitError>>;

    /// Earlier writes.
    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<Vec<AuditRecord>, CommitError>>;

    /// Every row as of a revision; `None` when the store does not keep it.
    fn rows_at(&self, revision: u64) -> BoxFuture<'_, Result<Option<Vec<RawRow>>, CommitError>>;
}
