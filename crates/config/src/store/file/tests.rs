//! Tests of the file store.

use std::sync::Mutex;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::capture_env;

const ONE: &str = "_format_version: '1'\nprovider_keys:\n- {display_name: a, api_key: x}\n";
const TWO: &str = "_format_version: '1'\nprovider_keys:\n- {display_name: a, api_key: x}\n- {display_name: b, api_key: x}\n";
const BAD: &str = "_format_version: '1'\nprovider_keys:\n- {display_name: a, api_key: ''}\nmodels: 1\n";
const DEADLINE: Duration = Duration::from_secs(20);

struct Rig {
    dir: TempDir,
    state: Arc<ConfigState>,
    ask: Arc<Notify>,
    seen: Arc<Mutex<Vec<u64>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rig {
    fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.yaml");
        fs::write(&path, text).unwrap();
        let (store, state) = FileStore::open(path, capture_env([])).unwrap();
        let ask = Arc::new(Notify::new());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&seen);
        let task = tokio::spawn(store.run(Arc::clone(&ask), move |set| {
            notes.lock().unwrap().push(set.revision);
        }));
        Self { dir, state, ask, seen, task }
    }

    fn write(&self, text: &str) {
        fs::write(self.dir.path().join("r.yaml"), text).unwrap();
    }

    fn status(&self) -> Value {
        serde_json::to_value(self.state.status()).unwrap()
    }

    /// Waits until the condition holds.
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < end, "waited in vain for {what}: {}", self.status());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn asked(&self) {
        let before = self.state.metrics().reloads;
        self.ask.notify_one();
        self.until("a reload", |rig| rig.state.metrics().reloads > before).await;
    }
}

#[test]
fn a_change_counts_once_it_holds_still() {
    let at = |seconds: u64| Some((SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), 1, 1));
    let mut watch = Watch::new(at(1));
    let looks = [
        (at(1), false),
        (at(2), false),
        (at(3), false),
        (at(3), true),
        (at(3), false),
        (None, false),
        (at(3), false),
        (None, false),
        (None, true),
        (None, false),
    ];
    for (index, (now, expected)) in looks.into_iter().enumerate() {
        assert_eq!(watch.look(now), expected, "look {index}");
    }
}

#[test]
fn a_bad_file_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.yaml");
    assert!(FileStore::open(&path, capture_env([])).is_err());
    fs::write(&path, BAD).unwrap();
    assert!(FileStore::open(&path, capture_env([])).is_err());
}

#[tokio::test]
async fn the_status_after_boot() {
    let rig = Rig::start(ONE);
    let mut status = rig.status();
    let at = status["applied"]["applied_at"].as_str().unwrap().to_owned();
    assert_eq!((at.len(), at.ends_with('Z')), (20, true), "{at}");
    let hash = crate::file::hex(&<sha2::Sha256 as sha2::Digest>::digest(ONE));
    for pointer in ["/source/observed_at", "/last_reload/at"] {
        let time = status.pointer_mut(pointer).unwrap().take();
        assert!(time.is_string(), "{pointer}");
    }
    assert_eq!(
        status,
        json!({
            "state": "synced",
            "source": {"type": "file", "source_hash": hash, "observed_at": null},
            "applied": {"config_hash": hash, "apply_seq": 1, "applied_at": at, "resource_counts": {"provider_keys": 1}},
            "last_reload": {"successful": true, "at": null},
            "last_failure": null,
            "rejected": [],
            "partially_compatible": [],
            "not_enforced": [],
            "conflicts": [],
            "dangling": [],
            "cycles": [],
        })
    );
    assert_eq!(Rig::start("_format_version: '1'\n").status()["state"], "empty");
}

#[tokio::test]
async fn a_changed_file_is_picked_up() {
    let rig = Rig::start(ONE);
    let before = rig.state.current();
    rig.write(TWO);
    rig.until("two keys", |rig| rig.state.current().len() == 2).await;
    let set = rig.state.current();
    assert_eq!((before.len(), before.revision, set.revision), (1, 1, 2));
    assert_eq!(set.provider_keys()[1].revision, 2);
    assert_eq!(rig.status()["applied"]["apply_seq"], 2);
    rig.until("the callback", |rig| *rig.seen.lock().unwrap() == [2]).await;
}

#[tokio::test]
async fn a_replaced_file_is_picked_up() {
    let rig = Rig::start(ONE);
    let next = rig.dir.path().join("next");
    fs::write(&next, TWO).unwrap();
    fs::rename(next, rig.dir.path().join("r.yaml")).unwrap();
    rig.until("two keys", |rig| rig.state.current().len() == 2).await;
}

#[tokio::test]
async fn asking_reloads_even_without_a_change() {
    let rig = Rig::start(ONE);
    rig.asked().await;
    assert_eq!(rig.state.current().revision, 2);
    assert_eq!(rig.status()["applied"]["apply_seq"], 1);
}

#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let rig = Rig::start(ONE);
    let good = rig.status()["applied"].clone();
    rig.write(BAD);
    rig.asked().await;
    let status = rig.status();
    assert_eq!(rig.state.current().revision, 1);
    assert_eq!(status["state"], "out_of_sync");
    assert_eq!(status["applied"], good);
    assert_ne!(status["source"]["source_hash"], good["config_hash"]);
    assert_eq!(status["last_reload"]["successful"], false);
    assert_eq!(status["last_failure"]["last_error_kind"], "schema_failed");
    let rejected = status["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), 2);
    assert_eq!(rejected[0]["resource_kind"], "");
    assert_eq!(rejected[1]["resource_kind"], "provider_keys");
    assert_eq!(rejected[1]["resource_id"], "a");
    assert_eq!(
        rejected[1]["last_error"],
        "schema validation failed at `/api_key`: value is shorter than 1 character"
    );
    let metrics = rig.state.metrics();
    assert_eq!(metrics.rejected_resources, [("", 1), ("provider_keys", 1)].into());
    assert_eq!(metrics.reload_failures["validate"], 1);

    rig.write(TWO);
    rig.asked().await;
    let status = rig.status();
    assert_eq!((&status["state"], &status["rejected"]), (&json!("synced"), &json!([])));
    assert!(status["last_failure"].is_object(), "a failure is remembered");
    let metrics = rig.state.metrics();
    assert_eq!(metrics.rejected_resources, [("", 0), ("provider_keys", 0)].into());
    assert_eq!((metrics.reloads, metrics.last_reload_successful), (3, true));
    assert_eq!(metrics.reload_failures["validate"], 1);
    assert_eq!(metrics.previous_config_hash.as_deref(), good["config_hash"].as_str());
    assert_ne!(metrics.previous_config_hash.as_deref(), metrics.config_hash.as_deref());
}

#[tokio::test]
async fn a_missing_file_changes_nothing_and_may_come_back() {
    let rig = Rig::start(ONE);
    fs::remove_file(rig.dir.path().join("r.yaml")).unwrap();
    rig.until("the failure", |rig| rig.state.metrics().reload_failures["fetch"] == 1).await;
    let status = rig.status();
    assert_eq!(status["state"], "synced");
    assert_eq!(status["last_reload"]["successful"], false);
    assert_eq!(status["last_failure"]["last_error_kind"], "fetch");
    assert_eq!(status["last_failure"]["last_error"], "configuration source unreachable");
    assert_eq!(rig.state.current().revision, 1);
    rig.write(ONE);
    rig.until("the return", |rig| rig.status()["last_reload"]["successful"] == true).await;
}
