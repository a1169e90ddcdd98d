//! Tests of the editor, on a store in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use aisix_core::rows::{BoxFuture, Change, Edit, Expect, RawRow, Sink};
use serde_json::json;

use super::*;
use crate::store::Follower;

/// Rows, revision and earlier writes.
type Held = (BTreeMap<String, RawRow>, u64, Vec<AuditRecord>);

struct Memory {
    held: Mutex<Held>,
    sink: Arc<Follower>,
    /// Writes of somebody else that come just before the next commit.
    intrude: Mutex<Vec<(String, Value)>>,
}

impl Memory {
    fn put(&self, key: &str, value: &Value) {
        let mut held = self.held.lock().unwrap();
        held.1 += 1;
        let row = RawRow { key: key.into(), revision: held.1, value: value.to_string().into() };
        held.0.insert(key.into(), row.clone());
        self.sink.change(vec![Change::Put(row)], held.1);
    }
}

impl Writer for Memory {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<u64, CommitError>> {
        Box::pin(async move {
            for (key, value) in std::mem::take(&mut *self.intrude.lock().unwrap()) {
                self.put(&key, &value);
            }
            let mut held = self.held.lock().unwrap();
            let moved = commit.edits.iter().any(|edit| {
                let now = held.0.get(&edit.key).map(|row| row.revision);
                now != match edit.expect {
                    Expect::Absent => None,
                    Expect::Revision(revision) => Some(revision),
                }
            });
            if moved || commit.base < held.1 {
                return Err(CommitError::Moved);
            }
            held.1 += 1;
            let revision = held.1;
            let mut changes = Vec::new();
            for Edit { key, value, .. } in commit.edits {
                match value {
                    Some(value) => {
                        let row = RawRow { key: key.clone(), revision, value };
                        held.0.insert(key, row.clone());
                        changes.push(Change::Put(row));
                    }
                    None => {
                        held.0.remove(&key);
                        changes.push(Change::Delete { key });
                    }
                }
            }
            held.2.push(AuditRecord { revision, ..commit.audit });
            self.sink.change(changes, revision);
            Ok(revision)
        })
    }

    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<Vec<AuditRecord>, CommitError>> {
        let held = self.held.lock().unwrap();
        let found = held.2.iter().rev().filter(|record| query.matches(record)).take(query.limit);
        let found = found.cloned().collect();
        Box::pin(async move { Ok(found) })
    }

    fn rows_at(&self, _: u64) -> BoxFuture<'_, Result<Option<Vec<RawRow>>, CommitError>> {
        Box::pin(async { Ok(None) })
    }
}

struct Rig {
    memory: Arc<Memory>,
    state: Arc<ConfigState>,
    editor: Editor,
}

impl Rig {
    fn new() -> Self {
        let state = Arc::new(ConfigState::of_store("embedded", ""));
        let sink = Follower::new(state.clone(), |_| {});
        sink.replace(Vec::new(), 0);
        let memory = Arc::new(Memory { held: Mutex::default(), sink, intrude: Mutex::default() });
        let editor = Editor::new(state.clone(), memory.clone());
        Self { memory, state, editor }
    }

    async fn run(&self, operations: Vec<Operation>) -> Result<Outcome, EditError> {
        let requests: Vec<Request> = operations.into_iter().map(Request::from).collect();
        self.editor.run(&requests, &actor(), "batch", false).await
    }

    async fn one(&self, operation: Operation) -> Result<Outcome, Refusal> {
        self.run(vec![operation]).await.map_err(|error| error.refusal)
    }

    /// A provider key `k` and a model `m` on it.
    async fn filled() -> Self {
        let rig = Self::new();
        let done =
            rig.run(vec![create("provider_keys", "k1", key("k")), create("models", "m1", model("m"))]).await;
        done.expect("a good batch");
        rig
    }

    fn stored(&self, key: &str) -> Value {
        let row = self.state.newest(key).expect("a row");
        serde_json::from_slice(&row.value).expect("JSON")
    }
}

fn actor() -> Actor {
    Actor { name: "tester".into(), remote: Some([127, 0, 0, 1].into()) }
}

fn kind(name: &str) -> &'static ResourceKind {
    kind_of(name).expect("a kind")
}

fn create(name: &str, id: &str, value: Value) -> Operation {
    Operation::Create { kind: kind(name), id: Some(id.into()), value }
}

fn patch(name: &str, id: &str, patch: Value) -> Operation {
    Operation::Patch { kind: kind(name), id: id.into(), patch }
}

fn delete(name: &str, id: &str) -> Operation {
    Operation::Delete { kind: kind(name), id: id.into() }
}

fn key(name: &str) -> Value {
    json!({"display_name": name, "api_key": "sk-secret", "provider": "openai"})
}

fn model(name: &str) -> Value {
    json!({"display_name": name, "provider": "openai", "model_name": "gpt", "provider_key_id": "k1"})
}

#[tokio::test]
async fn a_batch_is_made_whole_and_is_in_force_when_it_returns() {
    let rig = Rig::filled().await;
    assert_eq!(rig.state.current().models().len(), 1);
    assert_eq!(rig.state.current().revision, 1);
    let bad =
        rig.run(vec![create("provider_keys", "k2", key("k2")), create("models", "m2", json!({}))]).await;
    let error = bad.expect_err("a bad model");
    assert_eq!(error.at, 1);
    assert!(matches!(error.refusal, Refusal::Invalid(errors) if errors.len() == 4));
    assert_eq!(rig.state.current().provider_keys().len(), 1, "nothing of a bad batch is made");
    let trace = rig.editor.audit(AuditQuery { limit: 9, ..AuditQuery::default() }).await.expect("records");
    assert_eq!((trace.len(), trace[0].changes.len(), trace[0].actor.as_str()), (1, 2, "tester"));
    assert!(!serde_json::to_string(&trace).expect("JSON").contains("sk-secret"));
}

#[tokio::test]
async fn documents_are_stored_as_they_are_given() {
    let rig = Rig::filled().await;
    assert_eq!(rig.stored("models/m1"), model("m"));
    let outcome = rig.one(patch("models", "m1", json!({"timeout": 5, "cost": null}))).await.expect("a patch");
    let Done::Written { document, .. } = &outcome.done[0] else { panic!("{outcome:?}") };
    assert_eq!(document["timeout"], 5);
    let mut expected = model("m");
    expected["timeout"] = json!(5);
    assert_eq!(rig.stored("models/m1"), expected);
}

#[tokio::test]
async fn masked_secrets_keep_what_is_stored() {
    let rig = Rig::filled().await;
    let mut value = key("renamed");
    value["api_key"] = json!("***");
    let replace = Operation::Replace { kind: kind("provider_keys"), id: "k1".into(), value: value.clone() };
    let outcome = rig.one(replace).await.expect("a good document");
    let Done::Written { document, .. } = &outcome.done[0] else { panic!("{outcome:?}") };
    assert_eq!(
        (&document["api_key"], &rig.stored("provider_keys/k1")["api_key"]),
        (&json!("***"), &json!("sk-secret"))
    );
    // An older spelling meets the stored one.
    rig.one(patch("provider_keys", "k1", json!({"secret": "sk-other"}))).await.expect("a patch");
    assert_eq!(rig.stored("provider_keys/k1")["api_key"], "sk-other");
    value["display_name"] = json!("new");
    let refused = rig.one(create("provider_keys", "k2", value)).await.expect_err("no stored secret");
    assert!(matches!(&refused, Refusal::Invalid(errors) if errors[0].path == "/api_key"), "{refused:?}");
}

#[tokio::test]
async fn names_are_unique_and_references_hold() {
    let rig = Rig::filled().await;
    let taken = rig.one(create("models", "m2", model("m"))).await.expect_err("a taken name");
    assert_eq!(taken.to_string(), "name \"m\" already in use by another resource");
    let mut nowhere = model("n");
    nowhere["provider_key_id"] = json!("nope");
    let unknown = rig.one(create("models", "m2", nowhere)).await.expect_err("an unknown key");
    assert_eq!(unknown.to_string(), "`provider_key_id` references unknown provider key \"nope\"");
    let needed = rig.one(delete("provider_keys", "k1")).await.expect_err("a needed key");
    assert_eq!(needed.to_string(), "\"k\" is referenced by model \"m\" (provider_key_id)");
    let both = rig.run(vec![delete("provider_keys", "k1"), delete("models", "m1")]).await;
    assert!(both.is_ok(), "together they may go: {both:?}");
    assert!(rig.state.current().is_empty());
}

#[tokio::test]
async fn models_do_not_lead_back_to_themselves() {
    let rig = Rig::filled().await;
    let group =
        |name: &str, target: &str| json!({"display_name": name, "routing": {"targets": [{"model": target}]}});
    rig.one(create("models", "a", group("a", "m"))).await.expect("a group");
    rig.one(create("models", "b", group("b", "a"))).await.expect("a group of it");
    let back = rig.one(patch("models", "a", group("a", "b"))).await.expect_err("a cycle");
    assert_eq!(back.to_string(), "`routing.targets[0].model` leads back to this model: a → b → a");
    let both = vec![create("models", "c", group("c", "d")), create("models", "d", group("d", "c"))];
    assert!(rig.run(both).await.is_err(), "together they are a cycle too");
}

#[tokio::test]
async fn a_renamed_model_must_not_be_named_any_more() {
    let rig = Rig::filled().await;
    let caller = json!({"display_name": "c", "allowed_models": ["m"]});
    rig.one(create("api_keys", "a1", caller)).await.expect("a caller key");
    let refused = rig.one(patch("models", "m1", json!({"display_name": "n"}))).await.expect_err("named");
    assert_eq!(refused.to_string(), "\"m\" is referenced by caller key \"c\" (allowed_models[0])");
    let both = vec![
        patch("models", "m1", json!({"display_name": "n"})),
        patch("api_keys", "a1", json!({"allowed_models": ["n"]})),
    ];
    rig.run(both).await.expect("together");
}

#[tokio::test]
async fn caller_secrets_are_made_and_rotated() {
    let rig = Rig::filled().await;
    let created =
        rig.one(create("api_keys", "a1", json!({"allowed_models": ["*"]}))).await.expect("a caller key");
    let Done::Written { plaintext: Some(first), document, .. } = &created.done[0] else {
        panic!("{created:?}")
    };
    assert!(first.starts_with("sk-") && first.len() == 35, "{first}");
    assert_eq!(document["key_prefix"], first[..8]);
    let rotate = |grace| Operation::Rotate { id: "a1".into(), grace: Duration::from_secs(grace) };
    let rotated = rig.one(rotate(60)).await.expect("a rotation");
    let Done::Written { plaintext: Some(second), document: after, .. } = &rotated.done[0] else {
        panic!("{rotated:?}")
    };
    assert_ne!(first, second);
    assert_eq!(after["previous_key_hash"], document["key_hash"]);
    assert!(after["previous_key_expires_at"].is_string());
    let rotated = rig.one(rotate(0)).await.expect("a rotation");
    let Done::Written { document, .. } = &rotated.done[0] else { panic!("{rotated:?}") };
    assert!(document.get("previous_key_hash").is_none(), "{document}");
    assert!(matches!(rig.one(rotate(31 * 24 * 3600)).await, Err(Refusal::Invalid(_))));
    assert_eq!(
        rig.one(Operation::Rotate { id: "x".into(), grace: Duration::ZERO }).await,
        Err(Refusal::NotFound)
    );
}

#[tokio::test]
async fn writers_that_race_lose_nothing() {
    let rig = Rig::filled().await;
    let mut theirs = model("m");
    theirs["retries"] = json!(7);
    // Somebody else changes another resource: this one is checked again and made.
    rig.memory.intrude.lock().unwrap().push(("provider_keys/k9".into(), key("k9")));
    rig.one(patch("models", "m1", json!({"timeout": 5}))).await.expect("made at the second try");
    // Somebody else changes the same one: a patch goes on top of it.
    rig.memory.intrude.lock().unwrap().push(("models/m1".into(), theirs.clone()));
    rig.one(patch("models", "m1", json!({"timeout": 6}))).await.expect("made at the second try");
    let stored = rig.stored("models/m1");
    assert_eq!((&stored["retries"], &stored["timeout"]), (&json!(7), &json!(6)));
    // With the revision that was read, it is refused.
    let revision = rig.state.newest("models/m1").expect("a row").revision;
    rig.memory.intrude.lock().unwrap().push(("models/m1".into(), model("m")));
    let request =
        Request { operation: patch("models", "m1", json!({"timeout": 7})), if_match: Some(revision) };
    let refused = rig.editor.run(&[request], &actor(), "patch", false).await.expect_err("changed");
    assert_eq!(refused.refusal, Refusal::Changed);
    assert_eq!(rig.stored("models/m1"), model("m"));
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let rig = Rig::filled().await;
    let requests = [Request::from(delete("models", "m1")), Request::from(create("models", "m2", model("n")))];
    let outcome = rig.editor.run(&requests, &actor(), "batch", true).await.expect("checked");
    assert_eq!((outcome.revision, outcome.done.len()), (0, 2));
    assert_eq!(rig.state.current().revision, 1);
    let bad = [Request::from(create("models", "m2", model("m")))];
    assert!(rig.editor.run(&bad, &actor(), "create", true).await.is_err());
}

#[tokio::test]
async fn applying_a_file_makes_the_store_match_it() {
    let rig = Rig::filled().await;
    let document = |kind: &str, id: &str, value: Value| {
        let kind = super::tests::kind(kind);
        let node = crate::tree::Node::of_json(value);
        let value = kind.check(&node, crate::schema::Mode::Strict).document;
        Document { kind, id: id.into(), value }
    };
    let mut fast = model("fast");
    fast["provider_key_id"] = json!("file-key");
    let wanted = [document("provider_keys", "file-key", key("k")), document("models", "file-model", fast)];
    let (plan, revision) = rig.editor.apply(&wanted, true, &actor(), true).await.expect("a plan");
    assert_eq!((plan.changes.len(), revision), (2, 0), "{plan}");
    let (_, revision) = rig.editor.apply(&wanted, true, &actor(), false).await.expect("applied");
    assert_eq!(revision, 2);
    assert_eq!(rig.stored("models/file-model")["provider_key_id"], "k1", "the key keeps its id");
    let (again, revision) = rig.editor.apply(&wanted, true, &actor(), false).await.expect("applied");
    assert!(again.is_empty() && revision == 0, "{again}");
    let (broken, revision) = rig.editor.apply(&wanted[1..], true, &actor(), false).await.expect("a plan");
    assert_eq!((broken.broken.len(), revision), (1, 0), "a plan that breaks references is not carried out");
}

#[tokio::test]
async fn a_patch_keeps_fields_of_another_version() {
    let rig = Rig::filled().await;
    let mut newer = model("m");
    newer["later"] = json!({"deep": 1});
    rig.memory.put("models/m1", &newer);
    rig.one(patch("models", "m1", json!({"timeout": 5}))).await.expect("a patch");
    assert_eq!(rig.stored("models/m1")["later"], json!({"deep": 1}));
    let refused = rig.one(patch("models", "m1", json!({"later": {"deep": 2}}))).await.expect_err("unknown");
    assert!(matches!(&refused, Refusal::Invalid(errors) if errors[0].path == "/later"), "{refused:?}");
    let replace = Operation::Replace { kind: kind("models"), id: "m1".into(), value: newer };
    assert!(rig.one(replace).await.is_err(), "a whole document holds what is known");
}

#[tokio::test]
async fn a_condition_in_a_batch_is_about_what_the_store_holds() {
    let rig = Rig::filled().await;
    let revision = rig.state.newest("models/m1").expect("a row").revision;
    rig.one(patch("models", "m1", json!({"timeout": 1}))).await.expect("a patch");
    let stale = Request { operation: delete("models", "m1"), if_match: Some(revision) };
    let requests = [Request::from(patch("models", "m1", json!({"timeout": 2}))), stale];
    let refused = rig.editor.run(&requests, &actor(), "batch", false).await.expect_err("stale");
    assert_eq!((refused.at, refused.refusal), (1, Refusal::Changed));
}

#[tokio::test]
async fn the_trace_of_a_refused_document_tells_what_was_served() {
    let rig = Rig::filled().await;
    rig.memory.put("models/m1", &json!({"display_name": 7}));
    rig.one(delete("models", "m1")).await.expect("gone");
    let trace = rig.editor.audit(AuditQuery { limit: 1, ..AuditQuery::default() }).await.expect("records");
    let change = &trace[0].changes[0];
    assert_eq!(
        (change.name.as_deref(), &change.before.as_ref().expect("before")["model_name"]),
        (Some("m"), &json!("gpt"))
    );
}

#[tokio::test]
async fn a_secret_changed_by_hand_ends_the_older_ones() {
    let rig = Rig::filled().await;
    rig.one(create("api_keys", "a1", json!({"allowed_models": ["*"]}))).await.expect("a caller key");
    rig.one(Operation::Rotate { id: "a1".into(), grace: Duration::from_secs(60) }).await.expect("a rotation");
    rig.one(patch("api_keys", "a1", json!({"key_hash": "2".repeat(64)}))).await.expect("a patch");
    let stored = rig.stored("api_keys/a1");
    for field in ["key_prefix", "previous_key_hash", "previous_key_expires_at"] {
        assert!(stored.get(field).is_none(), "{stored}");
    }
}

#[tokio::test]
async fn masked_secrets_of_a_list_that_changed_are_refused() {
    let rig = Rig::new();
    let mut value = key("k");
    value["request"] = json!({"default_body_fields": {"tok": ["first", "second"]}});
    rig.one(create("provider_keys", "k1", value)).await.expect("a provider key");
    let shorter = json!({"request": {"default_body_fields": {"tok": ["***"]}}});
    let refused = rig.one(patch("provider_keys", "k1", shorter)).await.expect_err("which one?");
    assert!(matches!(refused, Refusal::Invalid(_)));
    let same = json!({"request": {"default_body_fields": {"tok": ["***", "third"]}}});
    rig.one(patch("provider_keys", "k1", same)).await.expect("the first stays");
    assert_eq!(
        rig.stored("provider_keys/k1")["request"]["default_body_fields"]["tok"],
        json!(["first", "third"])
    );
}
