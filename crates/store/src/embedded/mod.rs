//! The embedded store: one SQLite file, `aisix.db`, in a folder of its own.
//!
//! Several processes may have it open, the gateway and commands beside it. A
//! commit that was acknowledged survives the end of the process and of the
//! machine: it is in the write-ahead log, synced, before [`Writer::commit`]
//! returns.
//!
//! # What is in the file
//!
//! `rows` are the documents as they are, `history` every version of each of
//! them (nothing for a deletion), `commits` the audit of each revision. History
//! and commits are append-only, which the file itself enforces by triggers.
//! Values and audit are encrypted (see `crypto.rs` for how); keys of rows and
//! `meta` are not.
//! A damaged value does not open, and the number of rows and changes is kept
//! with each commit, so what is read is what was written, or an error.
//!
//! # What history costs
//!
//! Nothing is pruned. A change of a row keeps the row's value once more and its
//! audit (the document before and after). Measured, with what pages waste: 5.5 KB
//! for a document of 1 KB, so 1,000 changes a day are 2 GB a year. Opening,
//! commits and following do not get slower by it; [`Writer::rows_at`] and
//! [`EmbeddedStore::rotate_key`] read all of it (40 ms and 260 ms for 13,000
//! versions). 11,000 rows of 1 KB are a file of 31 MB, which opens in 30 ms.

mod crypto;
mod error;
mod keys;
mod rotate;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod worker;

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use aisix_core::Secret;
use aisix_core::rows::{AuditQuery, AuditRecord, BoxFuture, Commit, CommitError, RawRow, Sink, Writer};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

pub use error::Error;
pub use keys::KeySource;

use crypto::Key;
use error::{Fault, tell_io};
use keys::Keys;
use worker::{Job, Worker};

/// Names in `meta` that begin so are the store's own.
const OWN_META: &str = "store.";

/// A commit, as a list of the history shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The revision that it made.
    pub revision: u64,
    /// RFC 3339, UTC.
    pub at: String,
    /// Who made it.
    pub actor: String,
    /// By which action.
    pub action: String,
    /// How many rows it wrote or removed.
    pub changes: u64,
}

/// A change of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The id of the new key.
    pub key: String,
    /// How many rows were encrypted anew.
    pub rows: u64,
    /// How many former versions were.
    pub history: u64,
}

/// A store in a file. SQLite is used on a thread of the store's own and on
/// blocking threads of the runtime, never on those that serve.
pub struct EmbeddedStore {
    path: Arc<Path>,
    keys: Arc<Keys>,
    jobs: mpsc::Sender<Job>,
    followers: AtomicU64,
}

impl EmbeddedStore {
    /// Opens the store of a folder, which is made when it is not there. Blocks
    /// until every row has been read and decrypted once.
    pub fn open(data_dir: &Path, source: KeySource) -> Result<Arc<Self>, Error> {
        schema::make_folder(data_dir)?;
        let path = schema::path(data_dir);
        if schema::exists(&path)? {
            return Self::start(path.into(), source);
        }
        let keys = Keys::load(source, &path, true)?;
        schema::create(&path, &keys)?;
        Self::start_with(path.into(), keys)
    }

    /// As [`EmbeddedStore::open`], for a store that must be there.
    pub fn open_existing(data_dir: &Path, source: KeySource) -> Result<Arc<Self>, Error> {
        let path = schema::path(data_dir);
        if schema::exists(&path)? { Self::start(path.into(), source) } else { Err(Error::Missing(path)) }
    }

    fn start(path: Arc<Path>, source: KeySource) -> Result<Arc<Self>, Error> {
        let keys = Keys::load(source, &path, false)?;
        Self::start_with(path, keys)
    }

    fn start_with(path: Arc<Path>, keys: Keys) -> Result<Arc<Self>, Error> {
        let mut connection = schema::connect(&path)?;
        let checked = adopt_key(&mut connection, &keys, &path)
            .and_then(|()| keys.with_ring(&path, |ring| rows::current(&connection, ring)));
        checked.map_err(|fault| fault.tell(&path, &keys))?;
        let keys = Arc::new(keys);
        let worker = Worker::new(connection, path.clone(), keys.clone())
            .map_err(|error| tell_io("cannot read", &path, &error))?;
        let (jobs, todo) = mpsc::channel();
        std::thread::Builder::new()
            .name("aisix-store".to_owned())
            .spawn(move || worker.run(&todo))
            .map_err(|error| Error::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Arc::new(Self { path, keys, jobs, followers: AtomicU64::new(0) }))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the sink every row, then each commit, also those of other
    /// processes, which are seen within 200 ms. A store has one sink: a later
    /// one takes the place. Ends only by being dropped.
    pub async fn run(&self, sink: Arc<dyn Sink>) -> Infallible {
        struct Stop<'a>(&'a EmbeddedStore, u64);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                let token = self.1;
                self.0.send(Box::new(move |worker| worker.unfollow(token)));
            }
        }
        let token = self.followers.fetch_add(1, Ordering::Relaxed);
        let _stop = Stop(self, token);
        self.send(Box::new(move |worker| worker.follow(token, sink)));
        std::future::pending().await
    }

    /// Every row as of now, and the revision.
    pub async fn current(&self) -> Result<(Vec<RawRow>, u64), Error> {
        self.read(|connection, keys, path| keys.with_ring(path, |ring| rows::current(connection, ring)))
            .await?
            .map_err(|fault| self.tell(fault))
    }

    /// Commits, newest first, and only those before a revision.
    pub async fn revisions(&self, limit: usize, before: Option<u64>) -> Result<Vec<Revision>, Error> {
        self.read(move |connection, keys, path| {
            keys.with_ring(path, |ring| rows::revisions(connection, ring, limit, before))
        })
        .await?
        .map_err(|fault| self.tell(fault))
    }

    /// A value that is kept beside the rows, unencrypted.
    pub async fn meta_get(&self, name: &str) -> Result<Option<String>, Error> {
        let name = name.to_owned();
        let found = self.read(move |connection, _, _| {
            let value = rows::meta(connection, &name)?.map(String::from_utf8).transpose();
            value.map_err(|_| Fault::Damaged(format!("the value `{name}` is no text")))
        });
        found.await?.map_err(|fault| self.tell(fault))
    }

    /// Keeps a value. It is no part of a commit and has no revision.
    pub async fn meta_set(&self, name: &str, value: &str) -> Result<(), Error> {
        let (name, value) = (own(name)?, value.to_owned());
        self.write(move |worker| {
            worker.check_identity()?;
            Ok(rows::set_meta(&worker.connection, &name, value.as_bytes())?)
        })
        .await?
        .map_err(|fault| self.tell(fault))
    }

    /// Keeps a value unless there is one, and says whether it did: of several
    /// processes that start at once, one.
    pub async fn meta_add(&self, name: &str, value: &str) -> Result<bool, Error> {
        let (name, value) = (own(name)?, value.to_owned());
        self.write(move |worker| {
            worker.check_identity()?;
            Ok(rows::add_meta(&worker.connection, &name, value.as_bytes())?)
        })
        .await?
        .map_err(|fault| self.tell(fault))
    }

    /// Encrypts everything anew. Without a key a new one is made, and the key
    /// file then holds that one alone. Where the keys come from an environment
    /// variable the new one has to be given; the variable is then to hold it.
    pub async fn rotate_key(&self, new: Option<Secret<String>>) -> Result<Rotation, Error> {
        if new.is_none() && self.keys.in_variable() {
            return Err(Error::Key(format!(
                "the new key has to be given, since {} holds it",
                self.keys.place()
            )));
        }
        let new = new.map(|line| Key::parse(line.expose().trim())).transpose();
        let new = new.map_err(|why| Error::Key(format!("the new key: {why}")))?;
        self.write(move |worker| {
            worker.check_identity()?;
            rotate::rotate(&mut worker.connection, &worker.keys, &worker.path, new, &|_| ())
        })
        .await?
        .map_err(|fault| self.tell(fault))
    }

    fn tell(&self, fault: Fault) -> Error {
        fault.tell(&self.path, &self.keys)
    }

    fn send(&self, job: Job) {
        // The thread ends with this sender, not before. If it did, whoever waits for an answer
        // hears so from the channel of the answer.
        let _ = self.jobs.send(job);
    }

    /// Moves everything into the one file, so that it can be copied once the
    /// process has ended. Nothing is lost without it.
    pub async fn settle(&self) -> Result<(), Error> {
        self.write(|worker| worker.settle()).await?.map_err(|fault| self.tell(fault))
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> Result<T, Fault> + Send + 'static,
    ) -> Result<Result<T, Fault>, Error> {
        let (answer, answered) = oneshot::channel();
        self.send(Box::new(move |worker| {
            // Nobody may be waiting any more.
            let _ = answer.send(job(worker));
        }));
        answered.await.map_err(|_| {
            let file = self.path.display();
            Error::Unavailable(format!(
                "writing to {file} broke off; whether the change was made is not known"
            ))
        })
    }

    /// On a connection of its own: a long read holds up no commit.
    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection, &Keys, &Path) -> Result<T, Fault> + Send + 'static,
    ) -> Result<Result<T, Fault>, Error> {
        let (path, keys) = (self.path.clone(), self.keys.clone());
        let done = tokio::task::spawn_blocking(move || {
            let connection = schema::connect(&path)?;
            Ok(job(&connection, &keys, &path))
        });
        done.await.map_err(|_| Error::Unavailable(format!("reading {} broke off", self.path.display())))?
    }
}

impl Writer for EmbeddedStore {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<u64, CommitError>> {
        Box::pin(async move {
            let made = self.write(move |worker| worker.commit(&commit)).await.map_err(unavailable)?;
            made.map_err(|fault| fault.tell_commit(&self.path, &self.keys))
        })
    }

    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<Vec<AuditRecord>, CommitError>> {
        Box::pin(async move {
            let found = self.read(move |connection, keys, path| {
                keys.with_ring(path, |ring| rows::audit(connection, ring, &query))
            });
            found.await.map_err(unavailable)?.map_err(|fault| fault.tell_commit(&self.path, &self.keys))
        })
    }

    fn rows_at(&self, revision: u64) -> BoxFuture<'_, Result<Option<Vec<RawRow>>, CommitError>> {
        Box::pin(async move {
            let found = self.read(move |connection, keys, path| {
                keys.with_ring(path, |ring| rows::rows_at(connection, ring, revision))
            });
            found.await.map_err(unavailable)?.map_err(|fault| fault.tell_commit(&self.path, &self.keys))
        })
    }
}

fn unavailable(error: Error) -> CommitError {
    CommitError::Unavailable(error.to_string())
}

/// A name in `meta` that is not the store's own.
fn own(name: &str) -> Result<String, Error> {
    if name.starts_with(OWN_META) {
        return Err(Error::Unavailable(format!("`{name}` is kept by the store itself")));
    }
    Ok(name.to_owned())
}

/// Makes sure that the keys are the right ones, and that the first of them is
/// the one for writing: an operator puts a new key in front of the former ones.
fn adopt_key(connection: &mut Connection, keys: &Keys, path: &Path) -> Result<(), Fault> {
    let writing = keys.with_ring(path, |ring| rows::writing_key(connection, ring))?;
    if keys.ring().first().id() == writing.id() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // It may have been changed meanwhile, along with the key file.
    keys.with_ring(path, |ring| rows::writing_key(&transaction, ring))?;
    keys.reload(path)?;
    rows::set_writing_key(&transaction, keys.ring().first())?;
    rows::finish(transaction)
}
