//! Tests that reach into the file: damaged values, a full disk, a rotation
//! that is cut off.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aisix_core::rows::{Change, Edit, Expect, Image};
use rusqlite::Connection;
use tempfile::TempDir;

use super::rotate::Point;
use super::*;

const KEY_A: &str = "a AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const KEY_B: &str = "b AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const OTHER_A: &str = "a AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn env(lines: &str) -> KeySource {
    KeySource::Env { variable: "STORE_KEY".to_owned(), value: Secret::new(lines.to_owned()) }
}

fn record(action: &str) -> AuditRecord {
    AuditRecord {
        revision: 0,
        at: "2024-05-01T10:00:00Z".to_owned(),
        actor: "tester".to_owned(),
        remote: None,
        action: action.to_owned(),
        changes: Vec::new(),
    }
}

fn edit(key: &str, value: &str, expect: Expect) -> Edit {
    Edit { key: key.to_owned(), value: Some(value.to_owned().into()), expect }
}

async fn put(store: &EmbeddedStore, base: u64, edits: Vec<Edit>) -> Result<u64, CommitError> {
    store.commit(Commit { edits, base, audit: record("create") }).await
}

/// Three commits: `models/a` written twice, `models/b` once.
async fn fill(store: &EmbeddedStore) {
    put(store, 0, vec![edit("models/a", "{\"v\":1}", Expect::Absent)]).await.unwrap();
    put(store, 1, vec![edit("models/a", "{\"v\":2}", Expect::Revision(1))]).await.unwrap();
    put(store, 2, vec![edit("models/b", "{\"v\":3}", Expect::Absent)]).await.unwrap();
}

async fn check(store: &EmbeddedStore) {
    let (rows, revision) = store.current().await.unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.key.as_str(), row.revision, &row.value[..])).collect();
    assert_eq!(revision, 3);
    assert_eq!(rows, [("models/a", 2, &b"{\"v\":2}"[..]), ("models/b", 3, b"{\"v\":3}")]);
    let first = store.rows_at(1).await.unwrap().unwrap();
    assert_eq!(&first[0].value[..], b"{\"v\":1}");
}

fn raw(dir: &Path) -> Connection {
    Connection::open(schema::path(dir)).unwrap()
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Sink for Log {
    fn restore(&self, _: Image) {}
    fn replace(&self, rows: Vec<RawRow>, revision: u64) {
        self.0.lock().unwrap().push(format!("replace {} @{revision}", rows.len()));
    }
    fn change(&self, changes: Vec<Change>, revision: u64) {
        self.0.lock().unwrap().push(format!("change {} @{revision}", changes.len()));
    }
    fn confirm(&self, _: u64) {}
    fn lost(&self, detail: &str) {
        self.0.lock().unwrap().push(format!("lost {detail}"));
    }
}

fn follow(store: &EmbeddedStore, sink: Arc<dyn Sink>) {
    store.send(Box::new(move |worker| worker.follow(0, sink)));
}

async fn until(reached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !reached() {
        assert!(Instant::now() < deadline, "it did not happen");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_value_opens_only_in_its_place() {
    let dir = TempDir::new().unwrap();
    fill(&EmbeddedStore::open(dir.path(), env(KEY_A)).unwrap()).await;
    let damages = [
        // Values of two rows swapped; an older value of the same row; a revision changed.
        "UPDATE rows SET value = (SELECT value FROM rows AS r WHERE r.key <> rows.key)",
        "UPDATE rows SET value = (SELECT value FROM history WHERE revision = 1) WHERE key = 'models/a'",
        "UPDATE rows SET revision = 3 WHERE key = 'models/a'",
        "UPDATE rows SET key = 'models/c' WHERE key = 'models/a'",
        "UPDATE rows SET value = substr(value, 1, 20) WHERE key = 'models/a'",
        "UPDATE rows SET value = zeroblob(0)",
        "DELETE FROM rows WHERE key = 'models/b'",
        "INSERT INTO rows SELECT 'models/d', revision, value FROM rows WHERE key = 'models/a'",
        "DELETE FROM meta",
        "DROP TRIGGER commits_keep",
        "CREATE TABLE other (x)",
    ];
    for damage in damages {
        let copy = TempDir::new().unwrap();
        raw(dir.path()).execute("VACUUM INTO ?1", [schema::path(copy.path()).to_str()]).unwrap();
        check(&EmbeddedStore::open(copy.path(), env(KEY_A)).unwrap()).await;
        raw(copy.path()).execute_batch(damage).unwrap();
        let refused = EmbeddedStore::open(copy.path(), env(KEY_A)).err();
        let Some(Error::Damaged { path, .. }) = refused else { panic!("{damage}: {refused:?}") };
        assert_eq!(path, schema::path(copy.path()));
    }
    check(&EmbeddedStore::open(dir.path(), env(KEY_A)).unwrap()).await;
}

#[tokio::test]
async fn values_are_not_in_the_file() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), KeySource::Generated).unwrap();
    put(&store, 0, vec![edit("provider_keys/a", "sk-very-secret", Expect::Absent)]).await.unwrap();
    let audit = || async { store.audit(AuditQuery { limit: 9, ..AuditQuery::default() }).await.unwrap() };
    let before = audit().await;
    assert_eq!((before.len(), before[0].actor.as_str()), (1, "tester"));
    for rotated in [false, true] {
        if rotated {
            store.rotate_key(None).await.unwrap();
        }
        for name in ["aisix.db", "aisix.db-wal"] {
            let bytes = std::fs::read(dir.path().join(name)).unwrap();
            let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
            assert!(!holds(b"sk-very-secret") && !holds(b"tester"), "{name}, rotated: {rotated}");
        }
        assert_eq!(audit().await, before, "rotated: {rotated}");
        assert_eq!(store.revisions(9, None).await.unwrap()[0].actor, "tester");
    }
}

#[tokio::test]
async fn an_audit_opens_only_at_its_revision() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), env(KEY_A)).unwrap();
    fill(&store).await;
    let swap = "UPDATE commits SET audit = (SELECT audit FROM commits WHERE revision = 1) WHERE revision = 2";
    raw(dir.path()).execute_batch(swap).unwrap();
    let found = store.audit(AuditQuery { limit: 9, ..AuditQuery::default() }).await.unwrap_err();
    assert!(found.to_string().contains("revision 2 does not open"), "{found}");
    assert!(matches!(store.revisions(9, None).await, Err(Error::Damaged { .. })));
    assert_eq!(store.revisions(9, Some(2)).await.unwrap().len(), 1);
    check(&store).await;
}

#[tokio::test]
async fn history_and_commits_are_append_only() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), env(KEY_A)).unwrap();
    fill(&store).await;
    let connection = raw(dir.path());
    let attempts = [
        "DELETE FROM commits",
        "DELETE FROM commits WHERE revision = 3",
        "UPDATE commits SET changes = 7",
        "UPDATE commits SET revision = revision + 10",
        "INSERT OR REPLACE INTO commits SELECT revision, x'00', changes, rows FROM commits WHERE revision = 2",
        "REPLACE INTO commits SELECT * FROM commits",
        "INSERT INTO commits SELECT 5, audit, changes, rows FROM commits WHERE revision = 3",
        "DELETE FROM history",
        "UPDATE history SET revision = revision + 10",
        "UPDATE history SET key = 'models/z' WHERE key = 'models/a'",
        "UPDATE history SET value = NULL",
        "INSERT INTO history VALUES (2, 'models/q', NULL)",
        "INSERT OR REPLACE INTO history VALUES (2, 'models/a', NULL)",
    ];
    for attempt in attempts {
        let refused = connection.execute_batch(attempt).unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{attempt}: {refused}");
    }
    check(&store).await;
    assert_eq!(store.revisions(10, None).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), env(KEY_A)).unwrap();
    fill(&store).await;
    let limit = |pages: u32| {
        store.write(move |worker| {
            let query = format!("PRAGMA max_page_count = {pages}");
            Ok(worker.connection.query_row(&query, [], |row| row.get::<_, u32>(0))?)
        })
    };
    limit(1).await.unwrap().unwrap();
    let large = vec![edit("models/c", &"x".repeat(1 << 20), Expect::Absent)];
    let Err(CommitError::Unavailable(text)) = put(&store, 3, large.clone()).await else { panic!() };
    assert!(text.contains("disk") && text.contains("full") && text.contains("aisix.db"), "{text}");
    check(&store).await;
    limit(1_000_000).await.unwrap().unwrap();
    assert_eq!(put(&store, 3, large).await, Ok(4));
}

#[tokio::test]
async fn a_sink_that_panics_costs_no_commit() {
    #[derive(Default)]
    struct Broken(AtomicU64);
    impl Sink for Broken {
        fn restore(&self, _: Image) {}
        fn replace(&self, _: Vec<RawRow>, _: u64) {}
        fn change(&self, _: Vec<Change>, revision: u64) {
            assert_ne!(self.0.fetch_add(1, Ordering::Relaxed), 0, "a bug of the sink @{revision}");
        }
        fn confirm(&self, _: u64) {}
        fn lost(&self, _: &str) {}
    }
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), env(KEY_A)).unwrap();
    let sink = Arc::new(Broken::default());
    follow(&store, sink.clone());
    assert_eq!(put(&store, 0, vec![edit("models/a", "1", Expect::Absent)]).await, Ok(1));
    until(|| sink.0.load(Ordering::Relaxed) == 2).await;
    assert_eq!(store.current().await.unwrap().1, 1);
}

#[tokio::test]
async fn a_file_that_is_replaced_takes_no_commits() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), env(KEY_A)).unwrap();
    fill(&store).await;
    let sink = Arc::new(Log::default());
    follow(&store, sink.clone());
    until(|| *sink.0.lock().unwrap() == ["replace 2 @3"]).await;
    std::fs::rename(schema::path(dir.path()), dir.path().join("away")).unwrap();
    let Err(CommitError::Unavailable(text)) = put(&store, 3, Vec::new()).await else { panic!() };
    assert!(text.contains("replaced"), "{text}");
    let told = |told: &str| told.starts_with("lost") && told.contains("replaced");
    until(|| sink.0.lock().unwrap().iter().any(|line| told(line))).await;
    std::fs::rename(dir.path().join("away"), schema::path(dir.path())).unwrap();
    assert_eq!(put(&store, 3, Vec::new()).await, Ok(4));
    let told = sink.0.lock().unwrap().clone();
    assert!(told.ends_with(&["change 0 @4".to_owned()]), "{told:?}");
}

#[tokio::test]
async fn two_stores_rotate_and_write_in_turn() {
    let dir = TempDir::new().unwrap();
    let one = EmbeddedStore::open(dir.path(), KeySource::Generated).unwrap();
    let two = EmbeddedStore::open_existing(dir.path(), KeySource::Generated).unwrap();
    fill(&one).await;
    let sink = Arc::new(Log::default());
    follow(&two, sink.clone());
    for base in 3..20 {
        let (this, other) = if base % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let made = this.rotate_key(None).await.unwrap();
        assert_eq!((made.rows, made.history), (2, base));
        let kept = std::fs::read_to_string(dir.path().join("store.key")).unwrap();
        assert_eq!(kept.lines().count(), 1);
        assert!(kept.starts_with(&made.key));
        let changed = edit("models/b", "{\"v\":3}", Expect::Revision(base));
        assert_eq!(put(other, base, vec![changed]).await, Ok(base + 1));
    }
    assert_eq!(one.current().await.unwrap(), two.current().await.unwrap());
    until(|| sink.0.lock().unwrap().last().is_some_and(|told| told == "change 1 @20")).await;
    assert!(!sink.0.lock().unwrap().iter().any(|told| told.starts_with("lost")));
}

#[tokio::test]
async fn rotations_at_the_same_time_lose_no_key() {
    let dir = TempDir::new().unwrap();
    let stores: Vec<_> =
        (0..4).map(|_| EmbeddedStore::open(dir.path(), KeySource::Generated).unwrap()).collect();
    fill(&stores[0]).await;
    let rotations: Vec<_> = (0..16)
        .map(|turn| {
            let store = stores[turn % 4].clone();
            tokio::spawn(async move { store.rotate_key(None).await })
        })
        .collect();
    for rotation in rotations {
        rotation.await.unwrap().unwrap();
    }
    check(&EmbeddedStore::open(dir.path(), KeySource::Generated).unwrap()).await;
    check(&stores[1]).await;
}

#[tokio::test]
async fn a_key_of_a_variable_is_changed_with_a_restart_in_between() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), env(KEY_A)).unwrap();
    fill(&store).await;
    let refused = store.rotate_key(None).await.unwrap_err();
    assert!(matches!(&refused, Error::Key(text) if text.contains("STORE_KEY")), "{refused}");
    let refused = store.rotate_key(Some(Secret::new(OTHER_A.to_owned()))).await.unwrap_err();
    assert!(refused.to_string().contains("another key with the id `a`"), "{refused}");
    // The variable is changed first: the new key is for writing at once.
    let both = format!("{KEY_B},{KEY_A}");
    let second = EmbeddedStore::open(dir.path(), env(&both)).unwrap();
    check(&second).await;
    // A process that knows the former key alone reads and does not write.
    let Err(CommitError::Unavailable(text)) = put(&store, 3, Vec::new()).await else { panic!() };
    assert!(text.contains("`b`") && text.contains("STORE_KEY"), "{text}");
    assert_eq!(second.rotate_key(Some(Secret::new(KEY_B.to_owned()))).await.unwrap().history, 3);
    check(&second).await;
    for keys in [KEY_B, &both] {
        check(&EmbeddedStore::open(dir.path(), env(keys)).unwrap()).await;
    }
    let refused = EmbeddedStore::open(dir.path(), env(KEY_A)).err().unwrap().to_string();
    assert!(refused.contains("`b`") && refused.contains("STORE_KEY"), "{refused}");
}

/// Set for the child that a test starts: the folder and the point of its end.
const CUT: &str = "AISIX_TEST_CUT_ROTATION";

fn cut_rotation(place: &str) {
    let (point, dir) = place.split_once(':').unwrap();
    let path = schema::path(Path::new(dir));
    let keys = Keys::load(KeySource::Generated, &path, false).unwrap();
    let mut connection = schema::connect(&path).unwrap();
    let end = |at: Point| {
        if format!("{at:?}") == point {
            std::process::abort();
        }
    };
    rotate::rotate(&mut connection, &keys, &path, None, &end).unwrap();
}

#[tokio::test]
async fn a_rotation_that_is_cut_off_leaves_a_store_that_opens() {
    if let Ok(place) = std::env::var(CUT) {
        return cut_rotation(&place);
    }
    let name = "embedded::tests::a_rotation_that_is_cut_off_leaves_a_store_that_opens";
    for (point, keys) in [(Point::Kept, 2), (Point::Encrypted, 2), (Point::Made, 2)] {
        let dir = TempDir::new().unwrap();
        fill(&EmbeddedStore::open(dir.path(), KeySource::Generated).unwrap()).await;
        let key_file = dir.path().join("store.key");
        let former = std::fs::read_to_string(&key_file).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact"])
            .env(CUT, format!("{point:?}:{}", dir.path().display()))
            .output()
            .unwrap();
        assert!(!child.status.success(), "{point:?}: {child:?}");
        let cut = std::fs::read_to_string(&key_file).unwrap();
        assert_eq!(cut.lines().count(), keys, "{point:?}");
        assert!(cut.ends_with(&former), "{point:?}");
        let store = EmbeddedStore::open(dir.path(), KeySource::Generated).unwrap();
        check(&store).await;
        // And it can be done again, all the way.
        assert_eq!(store.rotate_key(None).await.unwrap().history, 3);
        let kept = std::fs::read_to_string(&key_file).unwrap();
        assert_eq!(kept.lines().count(), 1);
        check(&store).await;
        check(&EmbeddedStore::open(dir.path(), KeySource::Generated).unwrap()).await;
    }
}
