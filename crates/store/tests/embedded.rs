//! The embedded store as its users see it: commits, history, followers, keys,
//! and what happens when processes race or are killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aisix_core::Secret;
use aisix_core::rows::{
    AuditQuery, AuditRecord, Change, Commit, CommitError, Edit, Expect, Image, RawRow, Sink, Writer as _,
};
use aisix_store::embedded::{EmbeddedStore, Error, KeySource};
use proptest::prelude::*;
use tempfile::TempDir;

const KEY_A: &str = "a AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const KEY_B: &str = "b AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const OTHER_A: &str = "a AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn generated(dir: &Path) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(dir, KeySource::Generated).unwrap()
}

fn env(lines: &str) -> KeySource {
    KeySource::Env { variable: "STORE_KEY".to_owned(), value: Secret::new(lines.to_owned()) }
}

fn record(actor: &str) -> AuditRecord {
    AuditRecord {
        revision: 0,
        at: "2024-05-01T10:00:00Z".to_owned(),
        actor: actor.to_owned(),
        remote: None,
        action: "batch".to_owned(),
        changes: Vec::new(),
    }
}

fn put(key: &str, value: &str, expect: Expect) -> Edit {
    Edit { key: key.to_owned(), value: Some(value.to_owned().into()), expect }
}

async fn commit(store: &EmbeddedStore, base: u64, edits: Vec<Edit>) -> Result<u64, CommitError> {
    store.commit(Commit { edits, base, audit: record("tester") }).await
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A sink that keeps rows, and checks the order of what it is told.
#[derive(Default)]
struct Mirror(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    rows: BTreeMap<String, RawRow>,
    revision: Option<u64>,
    replaced: usize,
    confirmed: usize,
}

impl Sink for Mirror {
    fn restore(&self, _: Image) {}
    fn replace(&self, rows: Vec<RawRow>, revision: u64) {
        let mut seen = self.0.lock().unwrap();
        seen.rows = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
        (seen.revision, seen.replaced) = (Some(revision), seen.replaced + 1);
    }
    fn change(&self, changes: Vec<Change>, revision: u64) {
        let mut seen = self.0.lock().unwrap();
        assert_eq!(seen.revision.map(|seen| seen + 1), Some(revision));
        for change in changes {
            match change {
                Change::Put(row) => {
                    assert_eq!(row.revision, revision);
                    seen.rows.insert(row.key.clone(), row);
                }
                Change::Delete { key } => assert!(seen.rows.remove(&key).is_some()),
            }
        }
        seen.revision = Some(revision);
    }
    fn confirm(&self, revision: u64) {
        let mut seen = self.0.lock().unwrap();
        assert_eq!(seen.revision, Some(revision));
        seen.confirmed += 1;
    }
    fn lost(&self, detail: &str) {
        panic!("{detail}");
    }
}

impl Mirror {
    fn of(store: &Arc<EmbeddedStore>) -> (Arc<Self>, tokio::task::JoinHandle<std::convert::Infallible>) {
        let mirror = Arc::new(Self::default());
        let (store, sink) = (store.clone(), mirror.clone());
        (mirror, tokio::spawn(async move { store.run(sink).await }))
    }

    async fn until(&self, reached: impl Fn(&Seen) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !reached(&self.0.lock().unwrap()) {
            assert!(Instant::now() < deadline, "it did not happen");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_commit_is_in_the_sink_before_it_is_acknowledged() {
    let dir = TempDir::new().unwrap();
    let store = generated(dir.path());
    commit(&store, 0, vec![put("models/a", "1", Expect::Absent)]).await.unwrap();
    let (mirror, _task) = Mirror::of(&store);
    mirror.until(|seen| seen.replaced == 1).await;
    for base in 1..30 {
        let edits = vec![
            put("models/a", "2", Expect::Revision(base)),
            put(&format!("models/{base}"), "3", Expect::Absent),
        ];
        assert_eq!(commit(&store, base, edits).await, Ok(base + 1));
        let seen = mirror.0.lock().unwrap();
        assert_eq!((seen.revision, seen.rows.len() as u64), (Some(base + 1), base + 1));
    }
    let confirmed = mirror.0.lock().unwrap().confirmed;
    mirror.until(|seen| seen.confirmed > confirmed + 2).await;
    let rows: Vec<_> = mirror.0.lock().unwrap().rows.values().cloned().collect();
    assert_eq!(store.current().await.unwrap(), (rows, 30));
}

#[tokio::test]
async fn what_does_not_hold_any_more_is_refused_whole() {
    let dir = TempDir::new().unwrap();
    let store = generated(dir.path());
    commit(&store, 0, vec![put("models/a", "1", Expect::Absent)]).await.unwrap();
    let stale = [
        (0, put("models/b", "1", Expect::Absent)),
        (2, put("models/b", "1", Expect::Absent)),
        (1, put("models/a", "1", Expect::Absent)),
        (1, put("models/b", "1", Expect::Revision(1))),
        (1, put("models/a", "1", Expect::Revision(7))),
        (1, Edit { key: "models/b".into(), value: None, expect: Expect::Revision(1) }),
    ];
    for (base, edit) in stale {
        let edits = vec![put("models/new", "1", Expect::Absent), edit.clone()];
        assert_eq!(commit(&store, base, edits).await, Err(CommitError::Moved), "{edit:?}");
    }
    let large = "x".repeat(65 << 20);
    let refused = commit(&store, 1, vec![put("models/b", &large, Expect::Absent)]).await;
    assert!(matches!(refused, Err(CommitError::TooLarge(_))));
    let twice = vec![put("models/b", "1", Expect::Absent), put("models/b", "2", Expect::Absent)];
    assert!(matches!(commit(&store, 1, twice).await, Err(CommitError::Unavailable(_))));
    let (rows, revision) = store.current().await.unwrap();
    assert_eq!((rows.len(), revision), (1, 1));
}

#[tokio::test]
async fn hostile_keys_and_values_are_kept_as_they_are() {
    let dir = TempDir::new().unwrap();
    let store = generated(dir.path());
    let keys = ["", "x", "models/\0\u{7}\n", "models/\u{202e}abc", "models/' OR 1=1 --", &"k/".repeat(5_000)];
    let edits: Vec<_> = keys.iter().map(|key| put(key, "{not json\0", Expect::Absent)).collect();
    commit(&store, 0, edits.clone()).await.unwrap();
    drop(store);
    let (rows, _) = generated(dir.path()).current().await.unwrap();
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    assert_eq!(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), sorted);
    assert!(rows.iter().all(|row| Some(&row.value) == edits[0].value.as_ref()));
}

#[tokio::test]
async fn audit_and_revisions_come_newest_first() {
    let dir = TempDir::new().unwrap();
    let store = generated(dir.path());
    for base in 0..10u64 {
        let key = format!("models/{base}");
        let edits = vec![put(&key, "1", Expect::Absent), put(&format!("{key}b"), "1", Expect::Absent)];
        let audit = record(if base % 2 == 0 { "ann" } else { "bob" });
        store.commit(Commit { edits, base, audit }).await.unwrap();
    }
    let ann = AuditQuery { actor: Some("ann".into()), before: Some(8), limit: 2, ..Default::default() };
    let found = store.audit(ann).await.unwrap();
    assert_eq!(found.iter().map(|record| record.revision).collect::<Vec<_>>(), [7, 5]);
    let page = store.revisions(3, Some(9)).await.unwrap();
    assert_eq!(page.iter().map(|one| one.revision).collect::<Vec<_>>(), [8, 7, 6]);
    assert_eq!((page[0].actor.as_str(), page[0].action.as_str(), page[0].changes), ("bob", "batch", 2));
    assert_eq!(store.revisions(0, None).await.unwrap(), []);
    assert_eq!(store.revisions(99, Some(u64::MAX)).await.unwrap().len(), 10);
    assert_eq!(store.rows_at(11).await.unwrap(), None);
    assert_eq!(store.rows_at(0).await.unwrap(), Some(Vec::new()));
}

#[tokio::test]
async fn meta_is_kept_and_added_once() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (generated(dir.path()), generated(dir.path()));
    assert_eq!(one.meta_get("admin").await.unwrap(), None);
    let added = [one.meta_add("admin", "1").await.unwrap(), two.meta_add("admin", "2").await.unwrap()];
    assert_eq!(added, [true, false]);
    two.meta_set("other", "x").await.unwrap();
    one.meta_set("other", "y").await.unwrap();
    drop(one);
    let again = generated(dir.path());
    assert_eq!(again.meta_get("admin").await.unwrap().as_deref(), Some("1"));
    assert_eq!(again.meta_get("other").await.unwrap().as_deref(), Some("y"));
    assert!(again.meta_set("store.key", "x").await.is_err());
}

#[tokio::test]
async fn folder_files_and_keys_are_the_owners_alone() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("deep/data");
    let missing = EmbeddedStore::open_existing(&data, KeySource::Generated).err();
    assert_eq!(missing, Some(Error::Missing(data.join("aisix.db"))));
    assert!(!data.exists());
    let store = generated(&data);
    commit(&store, 0, vec![put("models/a", "1", Expect::Absent)]).await.unwrap();
    assert_eq!(mode(&data), 0o700);
    let mut files: Vec<_> =
        std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["aisix.db", "aisix.db-shm", "aisix.db-wal", "store.key"]);
    for file in files {
        assert_eq!(mode(&data.join(&file)), 0o600, "{file:?}");
    }
    let key = data.join("store.key");
    for wide in [0o640, 0o604, 0o700, 0o666] {
        std::fs::set_permissions(&key, PermissionsExt::from_mode(wide)).unwrap();
        let Some(Error::Key(text)) = EmbeddedStore::open(&data, KeySource::Generated).err() else { panic!() };
        assert!(text.contains("store.key") && text.contains("0600"), "{text}");
    }
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o400)).unwrap();
    assert_eq!(generated(&data).current().await.unwrap().1, 1);
}

#[tokio::test]
async fn a_key_that_is_wrong_or_missing_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), env(KEY_A)).unwrap();
    commit(&store, 0, vec![put("models/a", "1", Expect::Absent)]).await.unwrap();
    drop(store);
    let key_file = dir.path().join("keys");
    let refused = |source: KeySource, said: &[&str]| {
        let Some(Error::Key(text)) = EmbeddedStore::open(dir.path(), source).err() else { panic!() };
        assert!(said.iter().all(|said| text.contains(said)), "{text}");
        assert!(!text.contains("AQEB") && !text.contains("AgIC"), "{text}");
    };
    refused(env(KEY_B), &["`a`", "STORE_KEY", "aisix.db", "`b`"]);
    refused(env(OTHER_A), &["`a`", "STORE_KEY", "aisix.db"]);
    refused(env(""), &["STORE_KEY"]);
    refused(env("b AQEB"), &["STORE_KEY", "32 bytes"]);
    refused(env("b %%%"), &["STORE_KEY", "base64"]);
    refused(env(&format!("{KEY_B}\n{KEY_B}")), &["STORE_KEY", "twice"]);
    refused(KeySource::Generated, &["store.key", "missing", "aisix.db"]);
    refused(KeySource::File(key_file.clone()), &["keys", "missing"]);
    assert!(!dir.path().join("store.key").exists() && !key_file.exists());
    std::fs::write(&key_file, format!("{KEY_B}\n{KEY_A}\n")).unwrap();
    refused(KeySource::File(key_file.clone()), &["0600"]);
    std::fs::set_permissions(&key_file, PermissionsExt::from_mode(0o600)).unwrap();
    let store = EmbeddedStore::open(dir.path(), KeySource::File(key_file.clone())).unwrap();
    assert_eq!(store.current().await.unwrap().1, 1);
    // A file is rotated in its place, also through a link, with a key of the operator's.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&key_file, &link).unwrap();
    let store = EmbeddedStore::open(dir.path(), KeySource::File(link.clone())).unwrap();
    store
        .rotate_key(Some(Secret::new("c BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ".into())))
        .await
        .unwrap();
    assert!(link.is_symlink());
    assert!(std::fs::read_to_string(&key_file).unwrap().starts_with("c BAQE"));
    assert_eq!(mode(&key_file), 0o600);
}

#[tokio::test]
async fn base64_alone_is_a_key() {
    let dir = TempDir::new().unwrap();
    let bare = KEY_A.split_once(' ').unwrap().1;
    let store = EmbeddedStore::open(dir.path(), env(bare)).unwrap();
    commit(&store, 0, vec![put("models/a", "1", Expect::Absent)]).await.unwrap();
    assert_eq!(EmbeddedStore::open(dir.path(), env(bare)).unwrap().current().await.unwrap().1, 1);
}

#[test]
fn a_file_that_is_no_store_or_a_newer_one_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("aisix.db");
    for text in ["", "hello", &"x".repeat(9_000)] {
        std::fs::write(&file, text).unwrap();
        std::fs::write(dir.path().join("store.key"), format!("{KEY_A}\n")).unwrap();
        std::fs::set_permissions(dir.path().join("store.key"), PermissionsExt::from_mode(0o600)).unwrap();
        let refused = EmbeddedStore::open(dir.path(), KeySource::Generated).err().unwrap();
        assert!(matches!(refused, Error::Damaged { .. } | Error::Foreign(_)), "{refused}");
        assert!(refused.to_string().contains("aisix.db"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
    std::fs::remove_file(&file).unwrap();
    drop(generated(dir.path()));
    rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", 9).unwrap();
    let Some(Error::Newer { found: 9, known: 1, .. }) =
        EmbeddedStore::open(dir.path(), KeySource::Generated).err()
    else {
        panic!()
    };
    // A log without its file is not applied to a new one.
    let other = TempDir::new().unwrap();
    std::fs::write(other.path().join("aisix.db-wal"), "x").unwrap();
    let refused = EmbeddedStore::open(other.path(), KeySource::Generated).err().unwrap().to_string();
    assert!(refused.contains("aisix.db-wal"), "{refused}");
    // A folder that cannot be one, and one that nobody can write to.
    for folder in [&file, Path::new("/proc/self/fdinfo")] {
        let refused = EmbeddedStore::open(folder, env(KEY_A)).err().unwrap();
        let Error::Unavailable(text) = &refused else { panic!("{refused:?}") };
        assert!(text.contains(&*folder.to_string_lossy()), "{text}");
    }
}

#[test]
fn stores_that_are_made_at_the_same_time_are_one() {
    for _ in 0..20 {
        let dir = TempDir::new().unwrap();
        let start = std::sync::Barrier::new(6);
        let results: Vec<_> = std::thread::scope(|scope| {
            let open = || {
                start.wait();
                let store = generated(dir.path());
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(commit(&store, 0, vec![put("models/a", "1", Expect::Absent)]))
            };
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| **result == Ok(1)).count(), 1, "{results:?}");
        assert_eq!(results.iter().filter(|result| **result == Err(CommitError::Moved)).count(), 5);
    }
}

/// Set for the children that tests start: what to do in which folder.
const CHILD: &str = "AISIX_TEST_STORE_CHILD";

fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Commits that each write a row of their own, one that all write, and remove
/// an older one; prints each that is acknowledged.
async fn write_on(dir: &Path) {
    let store = generated(dir);
    let (_, mut base) = store.current().await.unwrap();
    loop {
        let shared = if base == 0 { Expect::Absent } else { Expect::Revision(base) };
        let mut edits = vec![
            put("models/shared", &base.to_string(), shared),
            put(&format!("models/{base}"), &"x".repeat(3_000), Expect::Absent),
        ];
        if base >= 10 {
            let key = format!("models/{}", base - 10);
            edits.push(Edit { key, value: None, expect: Expect::Revision(base - 9) });
        }
        base = commit(&store, base, edits).await.unwrap();
        println!("\nmade {base}");
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return write_on(Path::new(&dir)).await;
    }
    let dir = TempDir::new().unwrap();
    let mut acknowledged = 0;
    for kill in 0..40u64 {
        let mut child = child("a_kill_loses_nothing_that_was_acknowledged", dir.path()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut made =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("made ")?.parse::<u64>().ok());
        // At another point of its work each time: right at the first commits, or well into the log.
        acknowledged = made.by_ref().nth((kill * 7 % 31) as usize).expect("the writer writes");
        // Spins for less than a commit, so that the kill hits any part of one.
        let spin = Instant::now() + Duration::from_micros(kill * 97 % 1_500);
        while Instant::now() < spin {}
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged = made.last().unwrap_or(acknowledged);

        let store = EmbeddedStore::open_existing(dir.path(), KeySource::Generated).unwrap();
        let (rows, head) = store.current().await.unwrap();
        assert!(head == acknowledged || head == acknowledged + 1, "{head} after {acknowledged}");
        assert_eq!(rows.len() as u64, 1 + head.min(10));
        assert_eq!(rows, store.rows_at(head).await.unwrap().unwrap());
        let shared = rows.iter().find(|row| row.key == "models/shared").unwrap();
        assert_eq!((shared.revision, &shared.value[..]), (head, (head - 1).to_string().as_bytes()));
        let revisions = store.revisions(usize::MAX, None).await.unwrap();
        assert!(revisions.iter().map(|one| one.revision).eq((1..=head).rev()));
    }
    assert!(acknowledged > 40);
}

/// Adds rows until it has added 40, each on top of whatever was committed.
async fn race(dir: &Path) {
    let store = generated(dir);
    let (mirror, _task) = Mirror::of(&store);
    mirror.until(|seen| seen.replaced == 1).await;
    let (mut made, mut moved) = (0, 0);
    while made < 40 {
        let base = mirror.0.lock().unwrap().revision.unwrap();
        let key = format!("models/{}-{made}", std::process::id());
        match commit(&store, base, vec![put(&key, "1", Expect::Absent)]).await {
            Ok(_) => made += 1,
            // The sink has caught up by then.
            Err(CommitError::Moved) => moved += 1,
            Err(error) => panic!("{error}"),
        }
    }
    println!("\nmoved {moved}");
}

#[tokio::test]
async fn processes_that_race_lose_nothing() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return race(Path::new(&dir)).await;
    }
    let dir = TempDir::new().unwrap();
    let store = generated(dir.path());
    let (mirror, _task) = Mirror::of(&store);
    mirror.until(|seen| seen.replaced == 1).await;
    let children: Vec<_> =
        (0..3).map(|_| child("processes_that_race_lose_nothing", dir.path()).spawn().unwrap()).collect();
    // The order and the completeness of what comes from the others are checked by the mirror.
    mirror.until(|seen| seen.revision == Some(120)).await;
    let mut moved = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let output = String::from_utf8(output.stdout).unwrap();
        let line = output.lines().find_map(|line| line.strip_prefix("moved ")).unwrap();
        moved += line.parse::<u64>().unwrap();
    }
    assert!(moved > 0, "they never met");
    let (rows, revision) = store.current().await.unwrap();
    assert_eq!((rows.len(), revision), (120, 120));
    let seen = mirror.0.lock().unwrap();
    assert!(rows.iter().eq(seen.rows.values()));
    assert_eq!(seen.replaced, 1);
}

/// One commit of the model: which of six rows to write (or remove), with what.
fn steps() -> impl Strategy<Value = Vec<Vec<(u8, Option<u16>)>>> {
    let edit = (0..6u8, proptest::option::weighted(0.7, any::<u16>()));
    proptest::collection::vec(proptest::collection::vec(edit, 0..4), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is committed, each revision gives back the rows of then, also
    /// after a restart and a change of the key.
    #[test]
    fn every_revision_is_what_it_was(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            let store = generated(dir.path());
            let mut states: Vec<BTreeMap<String, (u64, String)>> = vec![BTreeMap::new()];
            for step in steps {
                let (base, mut rows) = (states.len() as u64 - 1, states.last().unwrap().clone());
                let edits: BTreeMap<_, _> = step.into_iter().collect();
                let mut made = Vec::new();
                for (row, value) in edits {
                    let key = format!("models/{row}");
                    let there = rows.get(&key).map(|row| row.0);
                    match value {
                        Some(value) => rows.insert(key.clone(), (base + 1, value.to_string())),
                        None if there.is_none() => continue,
                        None => rows.remove(&key),
                    };
                    let expect = there.map_or(Expect::Absent, Expect::Revision);
                    made.push(Edit { key, value: value.map(|value| value.to_string().into()), expect });
                }
                assert_eq!(commit(&store, base, made).await, Ok(base + 1));
                states.push(rows);
            }
            store.rotate_key(None).await.unwrap();
            drop(store);
            let store = generated(dir.path());
            for (revision, state) in states.iter().enumerate() {
                let rows = store.rows_at(revision as u64).await.unwrap().unwrap();
                let expected: Vec<_> = state
                    .iter()
                    .map(|(key, (revision, value))| RawRow {
                        key: key.clone(),
                        revision: *revision,
                        value: value.clone().into(),
                    })
                    .collect();
                assert_eq!(rows, expected);
            }
            assert_eq!(store.rows_at(states.len() as u64).await.unwrap(), None);
        });
    }
}
