//! Reading and writing the tables.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use aisix_core::rows::{AuditQuery, AuditRecord, Change, Commit, Edit, Expect, RawRow};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use serde::Deserialize;

use super::Revision;
use super::crypto::{Key, Ring, key_id};
use super::error::Fault;
use super::keys::Keys;

/// The name in `meta` of a value that was sealed with the key for writing.
pub(super) const KEY_CHECK: &str = "store.key";
/// What the audit of a commit is sealed as; rows have a slash in their key.
pub(super) const AUDIT: &str = "audit";
/// Values and audit of a commit: more is a mistake, and is held in memory more than once.
const COMMIT_MAX: usize = 64 << 20;

/// The newest commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) revision: u64,
    /// How many rows there are.
    rows: u64,
}

pub(super) fn head(connection: &Connection) -> rusqlite::Result<Head> {
    at(connection, i64::MAX as u64)
}

/// The newest commit up to a revision.
fn at(connection: &Connection, revision: u64) -> rusqlite::Result<Head> {
    let newest = "SELECT revision, rows FROM commits WHERE revision <= ?1 ORDER BY revision DESC LIMIT 1";
    let head = connection
        .query_row(newest, [revision], |row| Ok(Head { revision: row.get(0)?, rows: row.get(1)? }))
        .optional()?;
    Ok(head.unwrap_or(Head { revision: 0, rows: 0 }))
}

/// Every row and the revision, from one state of the file.
pub(super) fn current(connection: &Connection, ring: &Ring) -> Result<(Vec<RawRow>, u64), Fault> {
    let read = connection.unchecked_transaction()?;
    let head = head(&read)?;
    let mut rows = Vec::new();
    let mut statement = read.prepare("SELECT key, revision, value FROM rows")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let (key, revision): (String, u64) = (row.get(0)?, row.get(1)?);
        if revision > head.revision {
            return Err(Fault::Damaged(format!("`{key}` is newer than the newest commit")));
        }
        let value = ring.open(&key, revision, blob(row, 2)?)?;
        rows.push(RawRow { key, revision, value: value.into() });
    }
    complete(rows, head).map(|rows| (rows, head.revision))
}

/// Every row as of a revision; `None` beyond the newest.
pub(super) fn rows_at(
    connection: &Connection,
    ring: &Ring,
    revision: u64,
) -> Result<Option<Vec<RawRow>>, Fault> {
    let read = connection.unchecked_transaction()?;
    let head = head(&read)?;
    if revision > head.revision {
        return Ok(None);
    }
    let mut latest: HashMap<String, (u64, Option<Vec<u8>>)> = HashMap::new();
    let history = "SELECT revision, key, value FROM history WHERE revision <= ?1 ORDER BY revision";
    let mut statement = read.prepare(history)?;
    let mut found = statement.query([revision])?;
    let mut changes = 0;
    while let Some(row) = found.next()? {
        latest.insert(row.get(1)?, (row.get(0)?, row.get(2)?));
        changes += 1;
    }
    let written = "SELECT coalesce(sum(changes), 0) FROM commits WHERE revision <= ?1";
    let written: i64 = read.query_row(written, [revision], |row| row.get(0))?;
    if changes != written {
        let what = format!("{changes} of {written} changes up to revision {revision} are found");
        return Err(Fault::Damaged(what));
    }
    let mut rows = Vec::new();
    for (key, (revision, sealed)) in latest {
        if let Some(sealed) = sealed {
            let value = ring.open(&key, revision, &sealed)?;
            rows.push(RawRow { key, revision, value: value.into() });
        }
    }
    complete(rows, at(&read, revision)?).map(Some)
}

/// Rows are neither lost nor invented unnoticed.
fn complete(mut rows: Vec<RawRow>, head: Head) -> Result<Vec<RawRow>, Fault> {
    if rows.len() as u64 != head.rows {
        let (found, revision, written) = (rows.len(), head.revision, head.rows);
        return Err(Fault::Damaged(format!("{found} of {written} rows are found at revision {revision}")));
    }
    rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(rows)
}

/// A revision and what it changed.
pub(super) type Step = (u64, Vec<Change>);

/// What happened after a revision, oldest first, and nothing left out.
pub(super) fn since(connection: &Connection, ring: &Ring, revision: u64) -> Result<Vec<Step>, Fault> {
    let read = connection.unchecked_transaction()?;
    let mut commits =
        read.prepare("SELECT revision, changes FROM commits WHERE revision > ?1 ORDER BY revision")?;
    let commits: Vec<(u64, usize)> =
        commits.query_map([revision], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut history = read.prepare("SELECT key, value FROM history WHERE revision = ?1 ORDER BY key")?;
    let mut steps = Vec::new();
    for (index, (revision, written)) in (revision + 1..).zip(commits) {
        if revision != index {
            return Err(Fault::Damaged(format!("the commit {index} is missing")));
        }
        let mut changes = Vec::new();
        let mut found = history.query([revision])?;
        while let Some(row) = found.next()? {
            let key: String = row.get(0)?;
            changes.push(match row.get_ref(1)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
                None => Change::Delete { key },
                Some(sealed) => {
                    let value = ring.open(&key, revision, sealed)?;
                    Change::Put(RawRow { key, revision, value: value.into() })
                }
            });
        }
        if changes.len() != written {
            let found = changes.len();
            return Err(Fault::Damaged(format!(
                "{found} of {written} changes of the commit {revision} are found"
            )));
        }
        steps.push((revision, changes));
    }
    Ok(steps)
}

fn blob<'row>(row: &'row rusqlite::Row<'_>, column: usize) -> rusqlite::Result<&'row [u8]> {
    Ok(row.get_ref(column)?.as_blob()?)
}

/// Makes a commit and gives its revision.
pub(super) fn commit(
    connection: &mut Connection,
    keys: &Keys,
    store: &Path,
    commit: &Commit,
) -> Result<u64, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let head = head(&transaction)?;
    if head.revision != commit.base {
        return Err(Fault::Moved);
    }
    let mut named = HashSet::new();
    if let Some(twice) = commit.edits.iter().find(|edit| !named.insert(&edit.key)) {
        return Err(Fault::Unavailable(format!("the commit changes `{}` twice", twice.key)));
    }
    let revision = head.revision + 1;
    let mut audit = commit.audit.clone();
    audit.revision = revision;
    let audit = serde_json::to_vec(&audit).map_err(|error| Fault::Unavailable(error.to_string()))?;
    let size: usize = commit.edits.iter().filter_map(|edit| edit.value.as_ref()).map(Bytes::len).sum();
    if size + audit.len() > COMMIT_MAX {
        return Err(Fault::TooLarge(format!("a commit holds at most {} MiB", COMMIT_MAX >> 20)));
    }
    let key = keys.with_ring(store, |ring| writing_key(&transaction, ring))?;
    let rows = write(&transaction, &commit.edits, head, &key)?;
    let audit = key.seal(AUDIT, revision, &audit)?;
    let trace = "INSERT INTO commits (revision, audit, changes, rows) VALUES (?1, ?2, ?3, ?4)";
    transaction.execute(trace, params![revision, audit, commit.edits.len(), rows])?;
    finish(transaction)?;
    Ok(revision)
}

/// Writes the edits of the commit after the newest one, and gives the number of
/// rows that there are then.
fn write(transaction: &Transaction<'_>, edits: &[Edit], head: Head, key: &Key) -> Result<u64, Fault> {
    let revision = head.revision + 1;
    let mut look = transaction.prepare("SELECT revision FROM rows WHERE key = ?1")?;
    let mut put = transaction.prepare(
        "INSERT INTO rows (key, revision, value) VALUES (?1, ?2, ?3)
            ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, value = excluded.value",
    )?;
    let mut remove = transaction.prepare("DELETE FROM rows WHERE key = ?1")?;
    let mut keep = transaction.prepare("INSERT INTO history (revision, key, value) VALUES (?1, ?2, ?3)")?;
    let mut rows = head.rows;
    for edit in edits {
        let there: Option<u64> = look.query_row([&edit.key], |row| row.get(0)).optional()?;
        let expected = match edit.expect {
            Expect::Absent => None,
            Expect::Revision(revision) => Some(revision),
        };
        if there != expected {
            return Err(Fault::Moved);
        }
        let sealed = edit.value.as_ref().map(|value| key.seal(&edit.key, revision, value)).transpose()?;
        match &sealed {
            Some(sealed) => put.execute(params![edit.key, revision, sealed])?,
            None => remove.execute([&edit.key])?,
        };
        keep.execute(params![revision, edit.key, sealed])?;
        rows = (rows + u64::from(sealed.is_some())).saturating_sub(u64::from(there.is_some()));
    }
    Ok(rows)
}

/// Ends a transaction. What goes wrong here may leave it made.
pub(super) fn finish(transaction: Transaction<'_>) -> Result<(), Fault> {
    transaction.commit().map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::DatabaseBusy) => Fault::Sql(error),
        _ => Fault::InDoubt(error),
    })
}

/// The key that the file says is used for writing. Another one would cut off
/// the processes that have this file open and do not know it.
pub(super) fn writing_key(connection: &Connection, ring: &Ring) -> Result<Arc<Key>, Fault> {
    let check = meta(connection, KEY_CHECK)?;
    let id = check.as_deref().and_then(key_id);
    let (Some(check), Some(id)) = (&check, id) else {
        return Err(Fault::Damaged("it does not say which key it is encrypted with".to_owned()));
    };
    let key = ring.get(id).ok_or_else(|| Fault::UnknownKey(id.to_owned()))?;
    match ring.open("", 0, check) {
        Ok(_) => Ok(key.clone()),
        Err(_) => Err(Fault::WrongKey(id.to_owned())),
    }
}

pub(super) fn set_writing_key(connection: &Connection, key: &Key) -> Result<(), Fault> {
    Ok(set_meta(connection, KEY_CHECK, &key.seal("", 0, &[])?)?)
}

pub(super) fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
}

pub(super) fn set_meta(connection: &Connection, name: &str, value: &[u8]) -> rusqlite::Result<()> {
    let put = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    connection.execute(put, params![name, value]).map(drop)
}

/// Sets a value that is not there yet, and says whether it did.
pub(super) fn add_meta(connection: &Connection, name: &str, value: &[u8]) -> rusqlite::Result<bool> {
    let put = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";
    Ok(connection.execute(put, params![name, value])? == 1)
}

pub(super) fn audit(
    connection: &Connection,
    ring: &Ring,
    query: &AuditQuery,
) -> Result<Vec<AuditRecord>, Fault> {
    let mut records = Vec::new();
    let mut statement = connection
        .prepare("SELECT revision, audit FROM commits WHERE revision < ?1 ORDER BY revision DESC")?;
    let mut found = statement.query([before(query.before)])?;
    while records.len() < query.limit
        && let Some(row) = found.next()?
    {
        let record: AuditRecord = record(row, ring)?;
        if query.matches(&record) {
            records.push(record);
        }
    }
    Ok(records)
}

pub(super) fn revisions(
    connection: &Connection,
    ring: &Ring,
    limit: usize,
    older_than: Option<u64>,
) -> Result<Vec<Revision>, Fault> {
    #[derive(Deserialize)]
    struct Line {
        at: String,
        actor: String,
        action: String,
    }
    let newest =
        "SELECT revision, audit, changes FROM commits WHERE revision < ?1 ORDER BY revision DESC LIMIT ?2";
    let mut statement = connection.prepare(newest)?;
    let mut found = statement.query(params![before(older_than), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut revisions = Vec::new();
    while let Some(row) = found.next()? {
        let Line { at, actor, action } = record(row, ring)?;
        revisions.push(Revision { revision: row.get(0)?, at, actor, action, changes: row.get(2)? });
    }
    Ok(revisions)
}

fn before(revision: Option<u64>) -> i64 {
    revision.and_then(|revision| i64::try_from(revision).ok()).unwrap_or(i64::MAX)
}

/// The audit of a row that begins with the revision and the audit.
fn record<T: serde::de::DeserializeOwned>(row: &rusqlite::Row<'_>, ring: &Ring) -> Result<T, Fault> {
    let revision: u64 = row.get(0)?;
    let text = ring.open(AUDIT, revision, blob(row, 1)?)?;
    serde_json::from_slice(&text)
        .map_err(|_| Fault::Damaged(format!("the audit record of revision {revision} cannot be read")))
}
