//! A store in memory: takes commits, and tells the gateway of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use aisix_core::rows::{
    AuditQuery, AuditRecord, BoxFuture, Change, Commit, CommitError, Edit, Expect, RawRow, Sink, Writer,
};
use bytes::Bytes;
use serde_json::Value;

type Rows = BTreeMap<String, RawRow>;

#[derive(Default)]
struct Book {
    rows: Rows,
    revision: u64,
    history: Vec<(u64, Rows)>,
    records: Vec<AuditRecord>,
}

/// What somebody else does right before a commit.
type Interloper = Box<dyn FnOnce(&MemoryStore) + Send>;

pub(crate) struct MemoryStore {
    book: Mutex<Book>,
    sink: OnceLock<Arc<dyn Sink>>,
    pub(crate) down: AtomicBool,
    interloper: Mutex<Option<Interloper>>,
}

impl MemoryStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            book: Mutex::default(),
            sink: OnceLock::new(),
            down: AtomicBool::new(false),
            interloper: Mutex::default(),
        })
    }

    /// Begins to tell a sink of everything.
    pub(crate) fn follow(&self, sink: Arc<dyn Sink>) {
        sink.replace(Vec::new(), 0);
        assert!(self.sink.set(sink).is_ok(), "one sink only");
    }

    /// Has something happen right before the next commit is looked at.
    pub(crate) fn interlope(&self, work: impl FnOnce(&Self) + Send + 'static) {
        *self.interloper.lock().unwrap() = Some(Box::new(work));
    }

    /// A write past the gateway, as an operator's program makes it.
    pub(crate) fn put(&self, key: &str, value: Option<&Value>) -> u64 {
        let value = value.map(|value| Bytes::from(value.to_string()));
        let mut book = self.book.lock().unwrap();
        self.make(&mut book, &[Edit { key: key.to_owned(), value, expect: Expect::Absent }])
    }

    /// Every row in clear.
    pub(crate) fn rows(&self) -> BTreeMap<String, Value> {
        let book = self.book.lock().unwrap();
        book.rows
            .iter()
            .map(|(key, row)| (key.clone(), serde_json::from_slice(&row.value).unwrap()))
            .collect()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.book.lock().unwrap().revision
    }

    pub(crate) fn revisions(&self) -> Vec<u64> {
        let book = self.book.lock().unwrap();
        book.history.iter().rev().map(|(revision, _)| *revision).collect()
    }

    fn make(&self, book: &mut Book, edits: &[Edit]) -> u64 {
        book.revision += 1;
        let revision = book.revision;
        let mut changes = Vec::new();
        for Edit { key, value, .. } in edits {
            if let Some(value) = value {
                let row = RawRow { key: key.clone(), revision, value: value.clone() };
                book.rows.insert(key.clone(), row.clone());
                changes.push(Change::Put(row));
            } else {
                book.rows.remove(key);
                changes.push(Change::Delete { key: key.clone() });
            }
        }
        let rows = book.rows.clone();
        book.history.push((revision, rows));
        if let Some(sink) = self.sink.get() {
            sink.change(changes, revision);
        }
        revision
    }

    fn up(&self) -> Result<(), CommitError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(CommitError::Unavailable("the disk is gone".to_owned()));
        }
        Ok(())
    }

    fn take(&self, commit: &Commit) -> Result<u64, CommitError> {
        self.up()?;
        let interloper = self.interloper.lock().unwrap().take();
        if let Some(work) = interloper {
            work(self);
        }
        let mut book = self.book.lock().unwrap();
        let holds = |edit: &Edit| {
            let found = book.rows.get(&edit.key).map(|row| row.revision);
            match edit.expect {
                Expect::Absent => found.is_none(),
                Expect::Revision(revision) => found == Some(revision),
            }
        };
        if commit.base < book.revision || !commit.edits.iter().all(holds) {
            return Err(CommitError::Moved);
        }
        let revision = self.make(&mut book, &commit.edits);
        book.records.push(AuditRecord { revision, ..commit.audit.clone() });
        Ok(revision)
    }
}

impl Writer for MemoryStore {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<u64, CommitError>> {
        Box::pin(async move { self.take(&commit) })
    }

    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<Vec<AuditRecord>, CommitError>> {
        Box::pin(async move {
            self.up()?;
            let book = self.book.lock().unwrap();
            let wanted = book.records.iter().rev().filter(|record| query.matches(record));
            Ok(wanted.take(query.limit).cloned().collect())
        })
    }

    fn rows_at(&self, revision: u64) -> BoxFuture<'_, Result<Option<Vec<RawRow>>, CommitError>> {
        Box::pin(async move {
            self.up()?;
            let book = self.book.lock().unwrap();
            let at = book.history.iter().find(|(known, _)| *known == revision);
            Ok(at.map(|(_, rows)| rows.values().cloned().collect()))
        })
    }
}
