//! Changing what a store holds: requests are checked strictly, together, and
//! against what is in force; then they are committed together or not at all.

mod check;
mod draft;
mod secrets;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use aisix_core::rows::{AuditQuery, AuditRecord, Commit, CommitError, Writer};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use crate::plan::{Plan, plan};
use crate::resource::{Document, ResourceKind, kind_of};
use crate::schema::{Fault, Problem, Seg};
use crate::store::{ConfigState, now_rfc3339};
use crate::tree::parse_json;
use draft::Draft;

/// How long a write tries again when others write too.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a write waits until the gateway acts on it.
const SETTLE: Duration = Duration::from_secs(5);
/// The most problems of a document that are told.
const MAX_PROBLEMS: usize = 100;
/// The longest time for which a replaced secret still works.
pub const MAX_GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Who writes.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Name of the admin key or of the command.
    pub name: String,
    /// Address of the client.
    pub remote: Option<IpAddr>,
}

/// One change that is asked for.
#[derive(Clone)]
pub enum Operation {
    /// Adds a resource, under an id of its own or a given one.
    Create {
        /// The kind.
        kind: &'static ResourceKind,
        /// The id, when the client chooses it.
        id: Option<String>,
        /// The document.
        value: Value,
    },
    /// Replaces the whole document.
    Replace {
        /// The kind.
        kind: &'static ResourceKind,
        /// The id.
        id: String,
        /// The document.
        value: Value,
    },
    /// Changes parts of a document (RFC 7396).
    Patch {
        /// The kind.
        kind: &'static ResourceKind,
        /// The id.
        id: String,
        /// The merge patch.
        patch: Value,
    },
    /// Removes a resource.
    Delete {
        /// The kind.
        kind: &'static ResourceKind,
        /// The id.
        id: String,
    },
    /// Gives a caller key a new secret.
    Rotate {
        /// The id.
        id: String,
        /// How long the old secret still works.
        grace: Duration,
    },
}

impl Operation {
    /// What the audit log calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Replace { .. } => "replace",
            Self::Patch { .. } => "patch",
            Self::Delete { .. } => "delete",
            Self::Rotate { .. } => "rotate",
        }
    }
}

/// A change and the revision it expects.
#[derive(Clone)]
pub struct Request {
    /// The change.
    pub operation: Operation,
    /// The revision that the resource must have.
    pub if_match: Option<u64>,
}

impl From<Operation> for Request {
    fn from(operation: Operation) -> Self {
        Self { operation, if_match: None }
    }
}

/// What became of one change.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// The resource as it is now.
    Written {
        /// The kind.
        kind: &'static ResourceKind,
        /// The id.
        id: String,
        /// The masked document.
        document: Value,
        /// The revision at which it was last written; 0 = it is not stored.
        revision: u64,
        /// A secret that the server made: shown this once.
        plaintext: Option<String>,
    },
    /// The resource is gone.
    Deleted {
        /// The kind.
        kind: &'static ResourceKind,
        /// The id.
        id: String,
    },
}

/// What became of the changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The revision that they made; 0 when nothing was written.
    pub revision: u64,
    /// One for each, in order.
    pub done: Vec<Done>,
}

/// A problem of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer.
    pub path: String,
    /// What is wrong; never quotes the document.
    pub message: String,
}

impl FieldError {
    fn of(problem: &Problem) -> Self {
        // What is missing or too much is a place of its own.
        let path = match &problem.fault {
            Fault::Unknown { name, .. } => problem.path.with(Seg::Key(name.clone())),
            Fault::Required(name) => problem.path.with(Seg::Key((*name).to_owned())),
            _ => problem.path.clone(),
        };
        Self { path: shortened(&path.pointer()), message: shortened(&problem.resource_text()) }
    }
}

/// A resource that refers to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependant {
    /// Its kind.
    pub kind: &'static ResourceKind,
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: Option<String>,
    /// The field that refers.
    pub field: String,
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// There is no such resource.
    NotFound,
    /// The document is not in order.
    Invalid(Vec<FieldError>),
    /// Another resource has the name.
    Taken(String),
    /// Others refer to what would be gone.
    Referenced {
        /// What it is called.
        name: String,
        /// Who refers to it.
        dependants: Vec<Dependant>,
    },
    /// The resource is not at the expected revision.
    Changed,
    /// More than the store takes at once.
    TooLarge(String),
    /// The store does not keep what was asked for.
    NotKept(String),
    /// The store cannot be written.
    Unavailable(String),
}

/// Why nothing was written, and which of several changes is to blame.
#[derive(Clone, Debug, PartialEq)]
pub struct EditError {
    /// The index of the change.
    pub at: usize,
    /// Why.
    pub refusal: Refusal,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("resource not found"),
            Self::Invalid(errors) => {
                let texts = errors.iter().take(10).map(|error| error.message.as_str());
                f.write_str(&texts.collect::<Vec<_>>().join("; "))?;
                let more = errors.len().saturating_sub(10);
                if more > 0 { write!(f, "; and {more} more") } else { Ok(()) }
            }
            Self::Taken(name) => {
                write!(f, "name {:?} already in use by another resource", shortened(name))
            }
            Self::Referenced { name, dependants } => {
                let told: Vec<String> = dependants.iter().take(10).map(Dependant::to_string).collect();
                let more = dependants.len().saturating_sub(told.len());
                write!(f, "{:?} is referenced by {}", shortened(name), told.join(", "))?;
                if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
            Self::Changed => f.write_str("the resource was changed meanwhile"),
            Self::TooLarge(why) | Self::NotKept(why) => f.write_str(why),
            Self::Unavailable(why) => write!(f, "store error: {why}"),
        }
    }
}

impl fmt::Display for Dependant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = shortened(self.name.as_deref().unwrap_or(&self.id));
        write!(f, "{} {name:?} ({})", self.kind.title, shortened(&self.field))
    }
}

impl EditError {
    fn of_store(error: CommitError) -> Self {
        let refusal = match error {
            CommitError::Moved => {
                Refusal::Unavailable("others kept writing at the same time; try again".into())
            }
            CommitError::TooLarge(why) => Refusal::TooLarge(why),
            CommitError::Unavailable(why) => Refusal::Unavailable(why),
        };
        Self { at: 0, refusal }
    }
}

/// Changes what a store holds.
pub struct Editor {
    state: Arc<ConfigState>,
    writer: Arc<dyn Writer>,
}

impl Editor {
    /// An editor of the store that the state follows.
    pub fn new(state: Arc<ConfigState>, writer: Arc<dyn Writer>) -> Self {
        Self { state, writer }
    }

    /// Makes the changes, all or none. When it returns, the gateway acts on
    /// them. With `dry_run` they are only checked.
    pub async fn run(
        &self,
        requests: &[Request],
        actor: &Actor,
        action: &str,
        dry_run: bool,
    ) -> Result<Outcome, EditError> {
        self.commit(actor, action, dry_run, |draft| {
            let done = requests
                .iter()
                .enumerate()
                .map(|(at, request)| draft.take(request).map_err(|refusal| EditError { at, refusal }));
            let done = done.collect::<Result<Vec<Done>, EditError>>()?;
            draft.check()?;
            Ok(done)
        })
        .await
    }

    /// Brings back what the store held at a revision, as a new one.
    pub async fn rollback(
        &self,
        revision: u64,
        actor: &Actor,
        dry_run: bool,
    ) -> Result<(Plan, u64), EditError> {
        let rows = self.writer.rows_at(revision).await.map_err(EditError::of_store)?;
        let not_kept = || EditError {
            at: 0,
            refusal: Refusal::NotKept(format!("the store does not keep revision {revision}")),
        };
        let rows = rows.ok_or_else(not_kept)?;
        let latest = std::sync::Mutex::new(Plan::default());
        let outcome = self
            .commit(actor, "rollback", dry_run, |draft| {
                let done = draft.restore(&rows);
                *latest.lock().unwrap_or_else(PoisonError::into_inner) = draft.plan();
                Ok(done)
            })
            .await;
        let plan = latest.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((plan, outcome?.revision))
    }

    /// Every resource of the store, with its secrets.
    pub fn documents(&self) -> Vec<Document> {
        self.state.documents().map(|(documents, _)| documents).unwrap_or_default()
    }

    /// Makes the store hold the documents; with `prune`, nothing else. A plan
    /// that breaks references is not carried out.
    pub async fn apply(
        &self,
        documents: &[Document],
        prune: bool,
        actor: &Actor,
        dry_run: bool,
    ) -> Result<(Plan, u64), EditError> {
        let latest = std::sync::Mutex::new(Plan::default());
        let outcome = self
            .commit(actor, "apply", dry_run, |draft| {
                let mut plan = plan(&self.documents(), documents, prune);
                if prune {
                    plan.remove(self.state.refused());
                }
                let operations = plan.operations();
                let broken = !plan.broken.is_empty();
                *latest.lock().unwrap_or_else(PoisonError::into_inner) = plan;
                let done = operations.into_iter().enumerate().map(|(at, operation)| {
                    draft.take(&operation.into()).map_err(|refusal| EditError { at, refusal })
                });
                let done = done.collect::<Result<Vec<Done>, EditError>>()?;
                if broken {
                    draft.forget();
                    return Ok(Vec::new());
                }
                draft.check()?;
                Ok(done)
            })
            .await;
        let plan = latest.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((plan, outcome?.revision))
    }

    /// Earlier writes, newest first.
    pub async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditRecord>, EditError> {
        self.writer.audit(query).await.map_err(EditError::of_store)
    }

    /// Drafts and commits until nobody else wrote in between.
    async fn commit(
        &self,
        actor: &Actor,
        action: &str,
        dry_run: bool,
        work: impl Fn(&mut Draft<'_>) -> Result<Vec<Done>, EditError>,
    ) -> Result<Outcome, EditError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut applied = self.state.applied();
            applied.mark_unchanged();
            let mut draft = Draft::new(&self.state);
            let mut done = work(&mut draft)?;
            let (edits, changes) = draft.finish();
            if dry_run || edits.is_empty() {
                draft.date(&mut done, 0);
                return Ok(Outcome { revision: 0, done });
            }
            let audit = AuditRecord {
                revision: 0,
                at: now_rfc3339(SystemTime::now()),
                actor: actor.name.clone(),
                remote: actor.remote,
                action: action.to_owned(),
                changes,
            };
            let base = draft.base();
            match self.writer.commit(Commit { edits, base, audit }).await {
                Ok(revision) => {
                    // The answer is right even if acting on it takes longer.
                    let _ = timeout(SETTLE, self.state.reached(revision)).await;
                    draft.date(&mut done, revision);
                    return Ok(Outcome { revision, done });
                }
                Err(CommitError::Moved) if Instant::now() < deadline => {
                    let pause = (Instant::now() + Duration::from_millis(50)).min(deadline);
                    let _ = timeout_at(pause, applied.changed()).await;
                }
                Err(error) => return Err(EditError::of_store(error)),
            }
        }
    }
}

/// Reads JSON as a client sends it. Members that are given twice are refused;
/// the text of a refusal never quotes a value.
pub fn read_json(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    parse_json(text).map(|node| node.to_json()).map_err(|error| error.message)
}

use crate::store::shortened;

/// The kind of a stored key, and the id.
fn split(key: &str) -> Option<(&'static ResourceKind, &str)> {
    let (kind, id) = key.split_once('/')?;
    Some((kind_of(kind)?, id))
}

#[cfg(test)]
mod tests;
