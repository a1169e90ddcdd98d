//! Another key for everything that is stored.
//!
//! Where the keys are in a file, the new one is put in front of the former ones
//! first, then all values are encrypted anew in one transaction, then the
//! former keys are dropped. The file holds every key that a value may need at
//! each point in between, and it is changed only under the write lock of the
//! store, so two rotations cannot lose each other's key.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::Rotation;
use super::crypto::{Key, Ring};
use super::error::Fault;
use super::keys::Keys;
use super::rows::{finish, set_writing_key, writing_key};

const BATCH: usize = 256;

/// What is encrypted: a column of a table, and the name that a value is bound to.
struct Sealed {
    table: &'static str,
    value: &'static str,
    name: &'static str,
}

const ROWS: Sealed = Sealed { table: "rows", value: "value", name: "key" };
const HISTORY: Sealed = Sealed { table: "history", value: "value", name: "key" };
/// The name is [`AUDIT`](super::rows::AUDIT).
const COMMITS: Sealed = Sealed { table: "commits", value: "audit", name: "'audit'" };

/// A point at which a rotation may be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// The new key is kept, and nothing is encrypted with it.
    Kept,
    /// Everything is encrypted anew, in a transaction that is still open.
    Encrypted,
    /// The transaction is made; the former keys are still there.
    Made,
}

pub(super) fn rotate(
    connection: &mut Connection,
    keys: &Keys,
    store: &Path,
    new: Option<Key>,
    pass: &dyn Fn(Point),
) -> Result<Rotation, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    keys.reload(store)?;
    let former = keys.ring();
    writing_key(&transaction, &former)?;
    let key = Arc::new(new.map_or_else(Key::generate, Ok)?);
    if former.get(key.id()).is_some_and(|known| !known.same_bytes(&key)) {
        return Err(Fault::Key(format!("there is another key with the id `{}`", key.id())));
    }
    keys.keep(former.with_first(key.clone()))?;
    pass(Point::Kept);
    let ring = keys.ring();
    let rows = encrypt(&transaction, &ROWS, &ring)?;
    let history = encrypt(&transaction, &HISTORY, &ring)?;
    encrypt(&transaction, &COMMITS, &ring)?;
    set_writing_key(&transaction, &key)?;
    pass(Point::Encrypted);
    finish(transaction)?;
    pass(Point::Made);

    let lock = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Unless another process has rotated since.
    if writing_key(&lock, &ring)?.id() == key.id() {
        keys.keep(Ring::only(key.clone()))?;
    }
    drop(lock);
    // The log holds values under the former key until it is emptied, which the last reader of an
    // older state may prevent; then SQLite empties it later.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    Ok(Rotation { key: key.id().to_owned(), rows, history })
}

/// Encrypts the values of a table with the first key of the ring.
fn encrypt(transaction: &Transaction<'_>, sealed: &Sealed, ring: &Ring) -> Result<u64, Fault> {
    let Sealed { table, value, name } = sealed;
    let select = format!(
        "SELECT rowid, {name}, revision, {value} FROM {table} WHERE rowid > ?1 AND {value} IS NOT NULL ORDER BY rowid LIMIT {BATCH}"
    );
    let mut select = transaction.prepare(&select)?;
    let mut update = transaction.prepare(&format!("UPDATE {table} SET {value} = ?2 WHERE rowid = ?1"))?;
    let (mut last, mut done) = (i64::MIN, 0);
    loop {
        let batch: Vec<(i64, String, u64, Vec<u8>)> = select
            .query_map([last], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect::<Result<_, _>>()?;
        for (id, row, revision, value) in &batch {
            let value = ring.open(row, *revision, value)?;
            update.execute(params![id, ring.first().seal(row, *revision, &value)?])?;
        }
        done += batch.len() as u64;
        match batch.last() {
            Some((id, ..)) if batch.len() == BATCH => last = *id,
            _ => return Ok(done),
        }
    }
}
