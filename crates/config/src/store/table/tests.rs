//! Tests of following a store.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aisix_core::rows::{Change, Image, RawRow, Sink};
use serde_json::{Value, json};

use crate::store::status::rfc3339;
use crate::store::{ConfigState, Follower};

struct Rig {
    state: Arc<ConfigState>,
    follower: Arc<Follower>,
    /// Models in force at each change.
    seen: Arc<Mutex<Vec<usize>>>,
}

impl Rig {
    fn new() -> Self {
        let state = Arc::new(ConfigState::of_store("etcd", "/aisix/"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let follower = Follower::new(state.clone(), move |set| log.lock().unwrap().push(set.models().len()));
        Self { state, follower, seen }
    }

    fn put(&self, key: &str, revision: u64, value: &str) {
        self.follower.change(vec![Change::Put(row(key, revision, value))], revision);
    }

    fn delete(&self, key: &str, revision: u64) {
        self.follower.change(vec![Change::Delete { key: key.into() }], revision);
    }

    fn status(&self) -> Value {
        serde_json::to_value(self.state.status()).expect("JSON")
    }

    fn names(&self) -> Vec<String> {
        self.state.current().models().iter().map(|model| model.value.display_name.clone()).collect()
    }
}

fn row(key: &str, revision: u64, value: &str) -> RawRow {
    RawRow { key: key.into(), revision, value: value.to_owned().into() }
}

fn model(name: &str) -> String {
    json!({"display_name": name, "provider": "openai", "model_name": "u", "provider_key_id": "k"}).to_string()
}

#[test]
fn nothing_is_known_before_the_first_load() {
    let rig = Rig::new();
    let status = rig.status();
    assert_eq!((&status["state"], &status["source"]["connected"]), (&json!("never_loaded"), &json!(false)));
    assert!(status.get("applied").is_none() && !rig.state.is_loaded());
    assert_eq!(rig.state.freshness().map(|fresh| (fresh.revision, fresh.age_seconds)), Some((0, None)));
    rig.follower.lost("refused");
    assert_eq!(rig.status()["last_failure"]["last_error"], "configuration source unreachable");
    rig.follower.replace(Vec::new(), 7);
    let status = rig.status();
    assert_eq!((&status["state"], &status["applied"]["applied_revision"]), (&json!("empty"), &json!(7)));
    assert!(rig.state.is_loaded());
    assert_eq!(*rig.seen.lock().unwrap(), [0], "an empty store is applied too");
}

#[test]
fn a_bad_document_never_unloads_a_good_one() {
    let rig = Rig::new();
    rig.follower.replace(vec![row("models/a", 1, &model("a"))], 1);
    let clean = rig.status();
    assert_eq!(clean["state"], "synced");
    assert_eq!(clean["source"]["source_hash"], clean["applied"]["config_hash"]);
    rig.put("models/a", 2, r#"{"display_name": "sk-value"}"#);
    let status = rig.status();
    assert_eq!((rig.names(), &status["state"]), (vec!["a".to_owned()], &json!("degraded")));
    let rejected = &status["rejected"][0];
    assert_eq!(
        (&rejected["resource_id"], &rejected["last_error_kind"]),
        (&json!("a"), &json!("schema_failed"))
    );
    assert!(rejected["serving_stale_since"].is_string(), "{rejected}");
    assert!(!status.to_string().contains("sk-value"));
    assert_eq!(status["applied"]["config_hash"], clean["applied"]["config_hash"]);
    assert_eq!(status["applied"]["apply_seq"], 1);
    // A full read brings the same bad bytes: the good value stays.
    rig.follower.replace(vec![row("models/a", 2, r#"{"display_name": "sk-value"}"#)], 3);
    assert_eq!(rig.names(), ["a"]);
    rig.put("models/a", 4, &model("b"));
    assert_eq!((rig.names(), &rig.status()["state"]), (vec!["b".to_owned()], &json!("synced")));
    rig.put("models/a", 5, "[]");
    rig.delete("models/a", 6);
    let status = rig.status();
    assert_eq!((rig.names().len(), &status["state"], &status["rejected"]), (0, &json!("empty"), &json!([])));
    assert_eq!(rig.state.metrics().rejected_resources, [("models", 0)].into());
}

#[test]
fn what_is_refused_is_told_by_its_class() {
    let rig = Rig::new();
    let rows = [
        ("nothing", "{}", "bad_key"),
        ("models/", "{}", "bad_key"),
        ("models/a", "{", "non_json"),
        ("models/b", "{}", "schema_failed"),
        (
            "models/c",
            r#"{"display_name":"c","provider":"o","model_name":"u","provider_key_id":"k","retries":3.0}"#,
            "parse_failed",
        ),
        ("widgets/d", "{}", "unknown_kind"),
    ];
    rig.follower.replace(rows.iter().map(|(key, value, _)| row(key, 1, value)).collect(), 1);
    let status = rig.status();
    assert_eq!(status["state"], "out_of_sync");
    let mut told: Vec<_> = status["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["last_error_kind"].as_str().unwrap())
        .collect();
    let mut expected: Vec<_> = rows.iter().map(|(.., class)| *class).collect();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
    rig.delete("nothing", 2);
    assert_eq!(rig.status()["rejected"].as_array().unwrap().len(), 5, "a bad key can go too");
}

#[test]
fn unknown_fields_are_passed_over_and_told() {
    let rig = Rig::new();
    let mut value: Value = serde_json::from_str(&model("a")).unwrap();
    value["new"] = json!({"deep": 1});
    value["cooldown"] = json!({"later": 1});
    value["allowed_cidrs"] = json!(["nonsense"]);
    rig.follower.replace(vec![row("models/a", 1, &value.to_string())], 1);
    let status = rig.status();
    let fields: Vec<_> =
        status["partially_compatible"].as_array().unwrap().iter().map(|f| &f["field"]).collect();
    assert_eq!(fields, ["cooldown.later", "invalid:allowed_cidrs.[]", "new"]);
    assert_eq!(status["state"], "synced");
    let set = rig.state.current();
    assert_eq!(
        set.models()[0].value.allowed_cidrs.as_deref(),
        Some(&[][..]),
        "an unusable list admits nobody"
    );
}

#[test]
fn names_of_several_resolve_to_the_lowest_id_and_are_told() {
    let rig = Rig::new();
    let rows = ["b", "a", "c"].map(|id| row(&format!("models/{id}"), 1, &model("same")));
    rig.follower.replace(rows.to_vec(), 1);
    let conflict = &rig.status()["conflicts"][0];
    assert_eq!((&conflict["serving"], &conflict["shadowed"]), (&json!("a"), &json!(["b", "c"])));
    let dangling = &rig.status()["dangling"][0];
    assert_eq!((&dangling["field"], &dangling["target"]), (&json!("provider_key_id"), &json!("k")));
}

#[test]
fn models_that_stand_for_each_other_are_told() {
    let rig = Rig::new();
    let group = |name: &str, target: &str| {
        json!({"display_name": name, "routing": {"targets": [{"model": target}]}}).to_string()
    };
    let rows = vec![row("models/1", 1, &group("a", "b")), row("models/2", 1, &group("b", "a"))];
    rig.follower.replace(rows, 1);
    assert_eq!(rig.status()["cycles"], json!([["a", "b", "a"]]));
    rig.put("models/2", 2, &group("b", "c"));
    let status = rig.status();
    assert_eq!(status["cycles"], json!([]));
    assert_eq!(
        (&status["dangling"][0]["field"], &status["dangling"][0]["target"]),
        (&json!("routing.targets[0].model"), &json!("c"))
    );
}

#[test]
fn a_start_without_the_store_serves_what_was_served() {
    let rig = Rig::new();
    rig.follower.replace(vec![row("models/a", 1, &model("a")), row("models/b", 1, &model("b"))], 1);
    rig.put("models/a", 2, "{}");
    let mut image = rig.state.image().expect("an image");
    let confirmed = image.confirmed.expect("the store was reached") - Duration::from_secs(7_200);
    image.confirmed = Some(confirmed);
    let since = rig.status()["rejected"][0]["serving_stale_since"].clone();

    let next = Rig::new();
    next.follower.restore(image);
    let status = next.status();
    assert_eq!(next.names(), ["a", "b"]);
    assert_eq!(
        (&status["source"]["connected"], &status["source"]["from_cache"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(status["rejected"][0]["serving_stale_since"], since);
    let age = || next.state.freshness().and_then(|fresh| fresh.age_seconds);
    assert!(age().is_some_and(|age| (7_200..7_300).contains(&age)), "as old as it is: {:?}", age());
    assert_eq!(status["source"]["confirmed_at"], rfc3339(confirmed));
    assert_eq!(next.state.image().and_then(|image| image.confirmed), Some(confirmed));
    next.follower.replace(vec![row("models/a", 2, "{}")], 9);
    assert_eq!((next.names(), &next.status()["source"]["from_cache"]), (vec!["a".to_owned()], &Value::Null));
    assert!(age() < Some(100), "the store was reached");
    next.follower.restore(Image::default());
    assert_eq!(age(), None, "an image that does not say when");
    let later = SystemTime::now() + Duration::from_secs(7_200);
    next.follower.restore(Image { confirmed: Some(later), ..Image::default() });
    assert_eq!(age(), Some(0), "a clock that was ahead");
}

#[test]
fn steps_count_only_when_something_is_served_anew() {
    let rig = Rig::new();
    rig.follower.replace(vec![row("models/a", 1, &model("a"))], 1);
    let spaced = model("a").replace(',', " , ");
    rig.put("models/a", 2, &spaced);
    let status = rig.status();
    assert_eq!(
        (&status["applied"]["apply_seq"], &status["applied"]["applied_revision"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(rig.state.current().models()[0].revision, 2);
    rig.put("models/a", 3, &model("z"));
    assert_eq!(rig.status()["applied"]["apply_seq"], 2);
}
