//! The thread that writes, and that tells the sink what was written. Since it
//! is one thread, the sink sees every commit in the order of the revisions,
//! whoever made it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use aisix_core::rows::{Commit, RawRow, Sink};
use rusqlite::Connection;

use super::error::Fault;
use super::keys::Keys;
use super::rows::{self, Step};

/// How soon a commit of another process is seen.
const LOOK: Duration = Duration::from_millis(200);

pub(super) type Job = Box<dyn FnOnce(&mut Worker) + Send>;

pub(super) struct Worker {
    pub(super) connection: Connection,
    pub(super) path: Arc<Path>,
    pub(super) keys: Arc<Keys>,
    /// Device and inode of the file.
    identity: (u64, u64),
    follower: Option<Follower>,
}

struct Follower {
    token: u64,
    sink: Arc<dyn Sink>,
    /// The revision that the sink has.
    delivered: Option<u64>,
    /// Moves when another connection commits.
    version: i64,
    /// What the sink was told, while the store is not reached.
    lost: Option<String>,
}

enum News {
    All(Vec<RawRow>, u64),
    Steps(Vec<Step>),
}

impl Worker {
    pub(super) fn new(connection: Connection, path: Arc<Path>, keys: Arc<Keys>) -> std::io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { connection, path, keys, identity, follower: None })
    }

    /// Works until the store is dropped.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut next = Instant::now() + LOOK;
        loop {
            match jobs.recv_timeout(next.saturating_duration_since(Instant::now())) {
                // A panic costs the job, not the store: a transaction that is dropped is undone.
                Ok(job) => drop(catch_unwind(AssertUnwindSafe(|| job(&mut self)))),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next {
                self.look();
                next = Instant::now() + LOOK;
            }
        }
    }

    pub(super) fn follow(&mut self, token: u64, sink: Arc<dyn Sink>) {
        self.follower = Some(Follower { token, sink, delivered: None, version: 0, lost: None });
        self.look();
    }

    pub(super) fn unfollow(&mut self, token: u64) {
        self.follower.take_if(|follower| follower.token == token);
    }

    pub(super) fn commit(&mut self, commit: &Commit) -> Result<u64, Fault> {
        self.check_identity()?;
        let made = rows::commit(&mut self.connection, &self.keys, &self.path, commit);
        // Also when it was refused: the sink then catches up with what was in the way.
        if let Ok(_) | Err(Fault::Moved) = made {
            self.deliver();
        }
        made
    }

    /// An acknowledged commit must not go to a file that nobody will open again.
    pub(super) fn check_identity(&self) -> Result<(), Fault> {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            return Ok(());
        }
        let file = self.path.display();
        Err(Fault::Unavailable(format!("{file} was moved, removed or replaced while it was open: restart")))
    }

    /// Moves what the write-ahead log holds into the database file.
    pub(super) fn settle(&self) -> Result<(), Fault> {
        Ok(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    /// Looks for commits of other processes.
    fn look(&mut self) {
        let Some(follower) = &self.follower else { return };
        let unchanged = self.check_identity().is_ok()
            && follower.lost.is_none()
            && follower.delivered.is_some()
            && version(&self.connection).is_ok_and(|version| version == follower.version);
        if !unchanged {
            self.deliver();
        }
        if let Some(Follower { sink, delivered: Some(revision), lost: None, .. }) = &self.follower {
            sink.confirm(*revision);
        }
    }

    /// Brings the sink up to the newest commit. If the sink panics, the commit
    /// is made all the same, and the sink is told again.
    fn deliver(&mut self) {
        let told = catch_unwind(AssertUnwindSafe(|| self.tell_sink()));
        if let (Err(_), Some(follower)) = (told, &mut self.follower) {
            follower.lost = Some("the change could not be taken in".to_owned());
        }
    }

    fn tell_sink(&mut self) {
        let Some(delivered) = self.follower.as_ref().map(|follower| follower.delivered) else { return };
        let news = self.news(delivered);
        let Some(follower) = &mut self.follower else { return };
        let Follower { sink, delivered, lost, .. } = follower;
        match news {
            Ok((version, news)) => {
                (follower.version, *lost) = (version, None);
                match news {
                    News::All(rows, revision) => {
                        sink.replace(rows, revision);
                        *delivered = Some(revision);
                    }
                    News::Steps(steps) => {
                        for (revision, changes) in steps {
                            sink.change(changes, revision);
                            *delivered = Some(revision);
                        }
                    }
                }
            }
            Err(fault) => {
                let detail = fault.tell(&self.path, &self.keys).to_string();
                if lost.as_ref() != Some(&detail) {
                    sink.lost(&detail);
                    *lost = Some(detail);
                }
            }
        }
    }

    fn news(&self, delivered: Option<u64>) -> Result<(i64, News), Fault> {
        self.check_identity()?;
        // Read before the rows: what happens in between is seen the next time.
        let version = version(&self.connection)?;
        let news = self.keys.with_ring(&self.path, |ring| {
            if let Some(delivered) = delivered
                && rows::head(&self.connection)?.revision >= delivered
            {
                match rows::since(&self.connection, ring, delivered) {
                    // The rows may be whole where their history is not.
                    Err(Fault::Damaged(_)) => {}
                    steps => return steps.map(News::Steps),
                }
            }
            rows::current(&self.connection, ring).map(|(rows, revision)| News::All(rows, revision))
        });
        news.map(|news| (version, news))
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// Of the file that has the name now. It is never opened for this: closing it
/// would drop the locks that SQLite holds.
fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}
