//! Tests of plans.

use serde_json::json;

use super::*;
use crate::resource::kind_of;

fn document(kind: &str, id: &str, value: Value) -> Document {
    Document { kind: kind_of(kind).expect("a kind"), id: id.to_owned(), value }
}

fn key_document(id: &str, name: &str, secret: &str) -> Document {
    document("provider_keys", id, json!({"display_name": name, "api_key": secret, "provider": "openai"}))
}

fn model(id: &str, name: &str, key: &str, more: Value) -> Document {
    let mut value = json!({
        "display_name": name, "provider": "openai", "model_name": "gpt", "provider_key_id": key,
    });
    for (name, more) in more.as_object().expect("an object") {
        value[name] = more.clone();
    }
    document("models", id, value)
}

#[test]
fn the_same_under_other_ids_is_no_change() {
    let current = [key_document("1", "k", "sk"), model("2", "m", "1", json!({}))];
    let desired = [key_document("a", "k", "sk"), model("b", "m", "a", json!({}))];
    assert_eq!(plan(&current, &desired, true), Plan::default());
    assert_eq!(plan(&desired, &current, true), Plan::default());
}

#[test]
fn changes_are_told_by_field() {
    let current = [
        key_document("1", "k", "sk-one"),
        key_document("9", "old", "sk"),
        model("2", "fast", "1", json!({"timeout": 30000})),
    ];
    let desired = [
        key_document("a", "k", "sk-two"),
        model("b", "fast", "a", json!({"timeout": 60000, "retries": 1})),
        model("c", "slow", "a", json!({"timeout": 1500})),
    ];
    let plan = plan(&current, &desired, true);
    let text = "\
~ provider key k: api_key (secret changed)
- provider key old
~ model fast
    retries → 1
    timeout 30s → 60s
+ model slow
1 to add, 2 to change, 1 to remove";
    assert_eq!(plan.to_string(), text);
    let slow = plan.changes.iter().find(|planned| planned.name == "slow").expect("slow");
    let document = slow.document.as_ref().expect("a document");
    assert_eq!((slow.id.as_str(), &document.value["provider_key_id"]), ("c", &json!("1")));
    assert_eq!(plan.operations().len(), 4);
    assert!(!serde_json::to_string(&plan).expect("JSON").contains("sk-"));
}

#[test]
fn what_would_lead_nowhere_is_told() {
    let current = [key_document("1", "k", "sk"), model("2", "m", "1", json!({}))];
    let plan = plan(&current, &[model("2", "m", "1", json!({}))], true);
    let text = "\
- provider key k
! model m: provider_key_id names provider key \"1\", which is not there
0 to add, 0 to change, 1 to remove";
    assert_eq!(plan.to_string(), text);
    let kept = super::plan(&current, &[model("2", "m", "1", json!({}))], false);
    assert_eq!(kept, Plan::default());
}

#[test]
fn an_id_of_another_name_is_not_taken_over() {
    let current = [key_document("1", "k", "sk")];
    let desired = [key_document("1", "renamed", "sk"), model("2", "m", "1", json!({}))];
    let plan = plan(&current, &desired, false);
    let key = plan.changes.iter().find(|planned| planned.name == "renamed").expect("the key");
    assert_ne!(key.id, "1");
    let model = plan.changes.iter().find(|planned| planned.name == "m").and_then(|m| m.document.as_ref());
    assert_eq!(model.expect("the model").value["provider_key_id"], json!(key.id));
}

#[test]
fn secrets_that_are_not_told_count_as_equal() {
    let current = [key_document("1", "k", "***")];
    assert!(plan(&current, &[key_document("2", "k", "sk")], true).is_empty());
}

#[test]
fn names_cannot_disturb_a_terminal() {
    let plan = plan(&[], &[key_document("1", "a\u{1b}[31m\u{202e}b\n", "sk")], true);
    assert!(!plan.to_string().contains(['\u{1b}', '\u{202e}']), "{plan}");
}
