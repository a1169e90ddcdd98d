//! Files of the embedded store that were truncated or had bits flipped: what
//! is read from them is what was written, or an error that names the file.

use std::path::Path;
use std::time::{Duration, Instant};

use aisix_core::Secret;
use aisix_core::rows::{
    AuditChange, AuditQuery, AuditRecord, Commit, CommitError, Edit, Expect, RawRow, Writer as _,
};
use aisix_store::embedded::{EmbeddedStore, Error, KeySource};
use tempfile::TempDir;

const FILE: &str = "aisix.db";
const LOG: &str = "aisix.db-wal";

fn key() -> KeySource {
    let value = Secret::new("a AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned());
    KeySource::Env { variable: "STORE_KEY".to_owned(), value }
}

fn commit(base: u64, edits: Vec<Edit>) -> Commit {
    let change = AuditChange {
        kind: "models".to_owned(),
        id: "a".to_owned(),
        name: None,
        before: None,
        after: Some("x".repeat(100).into()),
    };
    let audit = AuditRecord {
        revision: 0,
        at: "2024-05-01T10:00:00Z".to_owned(),
        actor: "tester".to_owned(),
        remote: None,
        action: "batch".to_owned(),
        changes: vec![change],
    };
    Commit { edits, base, audit }
}

/// The rows of each revision of a store with rows of many sizes, some of them
/// changed, some removed.
async fn fill(store: &EmbeddedStore) -> Vec<Vec<RawRow>> {
    for base in 0..40u64 {
        let value = vec![b'v'; (base * base * 6) as usize];
        let key = format!("models/{base}");
        let mut edits = vec![Edit { key, value: Some(value.into()), expect: Expect::Absent }];
        if base > 4 && base % 3 == 0 {
            let (key, expect) = (format!("models/{}", base - 2), Expect::Revision(base - 1));
            let value = (base % 2 == 0).then(|| b"changed".as_slice().into());
            edits.push(Edit { key, value, expect });
        }
        store.commit(commit(base, edits)).await.unwrap();
    }
    let mut states = Vec::new();
    for revision in 0..=40 {
        states.push(store.rows_at(revision).await.unwrap().unwrap());
    }
    states
}

struct Sample {
    file: Vec<u8>,
    log: Option<Vec<u8>>,
    states: Vec<Vec<RawRow>>,
}

impl Sample {
    /// With the log, or after it was folded into the file.
    async fn make(with_log: bool) -> Self {
        let dir = TempDir::new().unwrap();
        let (file, log) = (dir.path().join(FILE), dir.path().join(LOG));
        let store = EmbeddedStore::open(dir.path(), key()).unwrap();
        let states = fill(&store).await;
        if with_log {
            let (file, log) = (std::fs::read(file).unwrap(), std::fs::read(log).unwrap());
            return Self { file, log: Some(log), states };
        }
        drop(store);
        let deadline = Instant::now() + Duration::from_secs(20);
        while log.exists() {
            assert!(Instant::now() < deadline, "the store does not close");
            tokio::task::yield_now().await;
        }
        Self { file: std::fs::read(file).unwrap(), log: None, states }
    }

    /// Opens a damaged copy. Says whether the damage was noticed.
    async fn check(&self, file: &[u8], log: Option<&[u8]>, what: &str) -> bool {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join(FILE), file).unwrap();
        if let Some(log) = log {
            std::fs::write(dir.path().join(LOG), log).unwrap();
        }
        let read = self.read(dir.path(), what).await;
        if let Err(text) = &read {
            assert!(text.contains(FILE), "{what}: {text}");
        }
        read.is_err()
    }

    async fn read(&self, dir: &Path, what: &str) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let text_of_read = |error: CommitError| error.to_string();
        let store = EmbeddedStore::open(dir, key()).map_err(text)?;
        let (rows, revision) = store.current().await.map_err(text)?;
        assert_eq!(self.states.get(revision as usize), Some(&rows), "{what}");
        for (revision, state) in self.states.iter().enumerate().step_by(3) {
            let read = store.rows_at(revision as u64).await.map_err(text_of_read)?;
            assert!(read.is_none_or(|rows| rows == *state), "{what} at {revision}");
        }
        let all = AuditQuery { limit: usize::MAX, ..Default::default() };
        let records = store.audit(all).await.map_err(text_of_read)?;
        assert_eq!(records.len(), revision as usize, "{what}");
        assert_eq!(store.revisions(usize::MAX, None).await.map_err(text)?.len(), records.len(), "{what}");
        let edit = Edit { key: "models/z".into(), value: Some("1".into()), expect: Expect::Absent };
        let made = store.commit(commit(revision, vec![edit])).await.map_err(text_of_read)?;
        assert_eq!(made, revision + 1, "{what}");
        let rotated = store.rotate_key(Some(Secret::new(format!("b {}", "B".repeat(42) + "A"))));
        let rotated = rotated.await.map_err(text)?;
        assert_eq!(rotated.rows, rows.len() as u64 + 1, "{what}");
        Ok(())
    }
}

/// A step through a length that meets every part of a page in the end.
fn offsets(len: usize, number: usize) -> impl Iterator<Item = usize> {
    let step = (len / number).max(1) | 1;
    (0..len).step_by(step)
}

#[tokio::test]
async fn flipped_bits_are_noticed_or_harmless() {
    let sample = Sample::make(false).await;
    let mut noticed = 0;
    // The header and the schema bit by bit, the rest in steps.
    let places = (0..110).chain(offsets(sample.file.len(), 500));
    for (turn, at) in places.enumerate() {
        let mut file = sample.file.clone();
        file[at] ^= 1 << (turn % 8);
        noticed += usize::from(sample.check(&file, None, &format!("bit {} of byte {at}", turn % 8)).await);
    }
    assert!(noticed > 200, "{noticed}");
    assert!(!sample.check(&sample.file, None, "nothing").await);
}

#[tokio::test]
async fn overwritten_stretches_are_noticed_or_harmless() {
    let sample = Sample::make(false).await;
    let mut noticed = 0;
    for at in offsets(sample.file.len(), 150) {
        for fill in [0x00, 0xff] {
            let mut file = sample.file.clone();
            let end = (at + 512).min(file.len());
            file[at..end].fill(fill);
            noticed += usize::from(sample.check(&file, None, &format!("{fill:02x} from byte {at}")).await);
        }
    }
    assert!(noticed > 120, "{noticed}");
}

#[tokio::test]
async fn truncated_files_are_refused() {
    let sample = Sample::make(false).await;
    for len in offsets(sample.file.len(), 150) {
        let noticed = sample.check(&sample.file[..len], None, &format!("the first {len} bytes")).await;
        assert!(noticed, "the first {len} bytes of {}", sample.file.len());
    }
}

#[tokio::test]
async fn a_damaged_log_ends_at_a_whole_commit() {
    let sample = Sample::make(true).await;
    let log = sample.log.clone().unwrap();
    for (turn, at) in offsets(log.len(), 150).enumerate() {
        let mut flipped = log.clone();
        flipped[at] ^= 1 << (turn % 8);
        sample.check(&sample.file, Some(&flipped), &format!("byte {at} of the log")).await;
        sample.check(&sample.file, Some(&log[..at]), &format!("{at} bytes of the log")).await;
    }
    assert!(!sample.check(&sample.file, Some(&log), "nothing").await);
}
