//! The file: how it is made, opened and recognised.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, params};

use super::error::{Error, Fault, tell_io, tell_sql};
use super::keys::Keys;
use super::rows::KEY_CHECK;

const FILE: &str = "aisix.db";
/// `AISX`
const APPLICATION: i64 = 0x4149_5358;
const FORMAT: i64 = 1;
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(5);

/// Every table and trigger, as SQLite keeps their text.
const SCHEMA: [&str; 10] = [
    "CREATE TABLE rows (key TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL, value BLOB NOT NULL) STRICT",
    "CREATE TABLE history (revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, PRIMARY KEY (revision, key)) STRICT",
    "CREATE TABLE commits (revision INTEGER PRIMARY KEY, audit BLOB NOT NULL, changes INTEGER NOT NULL, rows INTEGER NOT NULL) STRICT",
    "CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT",
    "CREATE TRIGGER commits_keep BEFORE DELETE ON commits BEGIN SELECT RAISE(ABORT, 'commits are append-only'); END",
    // The audit may change: to the same, under another key.
    "CREATE TRIGGER commits_stay BEFORE UPDATE ON commits WHEN NEW.revision IS NOT OLD.revision OR NEW.changes IS NOT OLD.changes OR NEW.rows IS NOT OLD.rows BEGIN SELECT RAISE(ABORT, 'commits are append-only'); END",
    "CREATE TRIGGER commits_follow BEFORE INSERT ON commits WHEN NEW.revision IS NOT (SELECT coalesce(max(revision), 0) + 1 FROM commits) BEGIN SELECT RAISE(ABORT, 'commits are append-only'); END",
    "CREATE TRIGGER history_keeps BEFORE DELETE ON history BEGIN SELECT RAISE(ABORT, 'history is append-only'); END",
    // The value may change: to the same, under another key.
    "CREATE TRIGGER history_stays BEFORE UPDATE ON history WHEN NEW.revision IS NOT OLD.revision OR NEW.key IS NOT OLD.key OR (NEW.value IS NULL) IS NOT (OLD.value IS NULL) BEGIN SELECT RAISE(ABORT, 'history is append-only'); END",
    "CREATE TRIGGER history_follows BEFORE INSERT ON history WHEN NEW.revision IS NOT (SELECT coalesce(max(revision), 0) + 1 FROM commits) BEGIN SELECT RAISE(ABORT, 'history is append-only'); END",
];

pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

pub(super) fn make_folder(data_dir: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    made.map_err(|error| tell_io("cannot make the folder", data_dir, &error))
}

/// Whether the store is there. A file of no bytes is: it is a damaged one.
pub(super) fn exists(path: &Path) -> Result<bool, Error> {
    if path.try_exists().map_err(|error| tell_io("cannot read", path, &error))? {
        return Ok(true);
    }
    // SQLite would apply a log that was left behind to whatever file has the name.
    let log = path.with_extension("db-wal");
    match fs::symlink_metadata(&log) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(tell_io("cannot read", &log, &error)),
        Ok(_) => Err(Error::Damaged {
            path: path.to_owned(),
            detail: format!("the file is missing, while its log {} is there", log.display()),
        }),
    }
}

/// Makes the file under another name and moves it into place when it is whole,
/// unless another process was faster.
pub(super) fn create(path: &Path, keys: &Keys) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let fail = |error: std::io::Error| tell_io("cannot make the store in", folder, &error);
    // Made with the mode 0600, which SQLite also gives to the files beside it. The handle is
    // closed first: closing one drops the locks that SQLite holds.
    let draft = tempfile::NamedTempFile::new_in(folder).map_err(fail)?.into_temp_path();
    let mut connection = connection(&draft).map_err(|error| tell_sql(&error, path))?;
    fill(&mut connection, keys).map_err(|fault| fault.tell(path, keys))?;
    // The mode stays with the file. Taking it later needs the file alone, which several
    // processes that open a new store at once would refuse each other.
    let mode: rusqlite::Result<String> =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0));
    mode.map_err(|error| tell_sql(&error, path))?;
    connection.close().map_err(|(_, error)| tell_sql(&error, path))?;
    match draft.persist_noclobber(path) {
        Err(error) if error.error.kind() != ErrorKind::AlreadyExists => return Err(fail(error.error)),
        _ => {}
    }
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)
}

fn fill(connection: &mut Connection, keys: &Keys) -> Result<(), Fault> {
    let ring = keys.ring();
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction()?;
    for statement in SCHEMA {
        transaction.execute(statement, [])?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    let check = ring.first().seal("", 0, &[])?;
    transaction.execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", params![KEY_CHECK, check])?;
    Ok(transaction.commit()?)
}

fn connection(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(WAIT_FOR_OTHERS)?;
    Ok(connection)
}

/// Opens the file, if it is a store of this format.
pub(super) fn connect(path: &Path) -> Result<Connection, Error> {
    let fail = |error: rusqlite::Error| tell_sql(&error, path);
    let connection = connection(path).map_err(fail)?;
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, format) =
        (pragma("application_id").map_err(fail)?, pragma("user_version").map_err(fail)?);
    if application != APPLICATION {
        return Err(Error::Foreign(path.to_owned()));
    }
    if format > FORMAT {
        return Err(Error::Newer { path: path.to_owned(), found: format, known: FORMAT });
    }
    if format != FORMAT || !as_made(&connection).map_err(fail)? {
        let detail = "its tables are not those of a store".to_owned();
        return Err(Error::Damaged { path: path.to_owned(), detail });
    }
    let mode = configure(&connection).map_err(fail)?;
    if mode != "wal" {
        let text =
            format!("the file system of {} lacks what the store needs (shared memory)", path.display());
        return Err(Error::Unavailable(text));
    }
    Ok(connection)
}

fn as_made(connection: &Connection) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite@_%' ESCAPE '@'")?;
    let mut found: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    found.sort_unstable();
    let mut made = SCHEMA;
    made.sort_unstable();
    Ok(found == made)
}

/// Gives the mode of the journal that SQLite took.
fn configure(connection: &Connection) -> rusqlite::Result<String> {
    let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    // A commit is on the disk before it is acknowledged.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // No values under a former key are left in free pages.
    connection.pragma_update_and_check(None, "secure_delete", "ON", |_| Ok(()))?;
    connection.pragma_update(None, "cell_size_check", "ON")?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    Ok(mode)
}
