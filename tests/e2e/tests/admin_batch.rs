//! Several writes as one: all or nothing, in one step for everybody.

use aisix_e2e::cluster::{PREFIX, on, rows};
use aisix_e2e::documents::{World, caller, direct, echo_key, group};
use aisix_e2e::stores::{embedded, status_of, visible};
use aisix_testkit::gateway::builder::CALLER_KEY;
use aisix_testkit::{Admin, Etcd, Gateway};
use serde_json::{Value, json};

fn create(kind: &str, id: &str, value: Value) -> Value {
    json!({"op": "create", "kind": kind, "id": id, "value": value})
}

/// A provider key, a model, a group and a caller key that build on each other.
fn stack() -> Value {
    let model =
        json!({"display_name": "m", "provider": "echo", "model_name": "x", "provider_key_id": "pk-1"});
    json!([
        create("provider_keys", "pk-1", echo_key("k")),
        create("models", "m-1", model),
        create("models", "g-1", group("g", &["m"])),
        create("api_keys", "a-1", caller("c", CALLER_KEY)),
    ])
}

#[tokio::test]
async fn later_operations_build_on_earlier_ones() {
    let (gateway, admin) = embedded().await;
    let body = admin.batch(stack()).await.expect(200);
    let results = body["results"].as_array().expect("results").clone();
    assert_eq!(results.len(), 4, "{body}");
    for (result, id) in results.iter().zip(["pk-1", "m-1", "g-1", "a-1"]) {
        assert_eq!((&result["id"], &result["revision"]), (&json!(id), &body["revision"]), "{body}");
    }
    assert_eq!(results[0]["value"]["api_key"], "***");
    assert_eq!(status_of(&gateway, "m", CALLER_KEY).await, 200);
    // Everything else in one go: replace, patch, delete with their conditions.
    let revision = body["revision"].as_u64().expect("a revision");
    let mixed = json!([
        {"op": "replace", "kind": "models", "id": "g-1", "value": group("renamed", &["m"]), "if_match": revision},
        {"op": "patch", "kind": "models", "id": "m-1", "value": {"timeout": 5000}},
        {"op": "delete", "kind": "api_keys", "id": "a-1"},
        {"op": "create", "kind": "api_keys", "value": {"display_name": "generated", "allowed_models": ["*"]}},
    ]);
    let body = admin.batch(mixed).await.expect(200);
    assert_eq!(body["results"][0]["value"]["display_name"], "renamed");
    assert_eq!(body["results"][1]["value"]["timeout"], 5000);
    assert_eq!(body["results"][2], json!({"deleted": true, "id": "a-1"}));
    let secret = body["results"][3]["plaintext"].as_str().expect("the new secret, once");
    assert_eq!(status_of(&gateway, "m", secret).await, 200);
    assert_eq!(status_of(&gateway, "m", CALLER_KEY).await, 401);
}

#[tokio::test]
async fn what_is_wrong_anywhere_refuses_everything() {
    let (gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    let policy = json!({"name": "good"});
    let taken = admin.create("cache_policies", &json!({"name": "taken"})).await;
    let before = admin.list("cache_policies").await;
    let status = gateway.config_status().await;
    let bad = [
        (create("cache_policies", "b", json!({"name": "x", "typo": 1})), 400),
        (create("models", "b", direct("x", "gone")), 400),
        (create("models", "b", group("x", &["gone"])), 400),
        (create("widgets", "b", json!({})), 400),
        (create("cache_policies", "b", json!({"name": "taken"})), 409),
        (create("cache_policies", "b", json!({"name": "good"})), 409),
        (create("cache_policies", &taken, json!({"name": "another"})), 409),
        (create("cache_policies", "a b/c", json!({"name": "x"})), 400),
        (create("cache_policies", &"x".repeat(129), json!({"name": "x"})), 400),
        (create("cache_policies", "", json!({"name": "x"})), 400),
        (json!({"op": "upsert", "kind": "cache_policies", "value": {}}), 400),
        (json!({"op": "create", "kind": "cache_policies"}), 400),
        (json!({"op": "create", "kind": "cache_policies", "value": {"name": "x"}, "bogus": 1}), 400),
        (json!({"op": "replace", "kind": "cache_policies", "value": {"name": "x"}}), 400),
        (json!({"op": "replace", "kind": "cache_policies", "id": "none", "value": {"name": "x"}}), 404),
        (json!({"op": "patch", "kind": "cache_policies", "id": "none", "value": {}}), 404),
        (json!({"op": "delete", "kind": "cache_policies", "id": "none"}), 404),
        (json!({"op": "delete", "kind": "provider_keys", "id": world.provider_key}), 409),
        (json!({"op": "delete", "kind": "cache_policies", "id": taken, "if_match": 0}), 412),
        (json!("not an operation"), 400),
    ];
    for (operation, expected) in bad {
        let answer = admin.batch(json!([create("cache_policies", "first", policy.clone()), operation])).await;
        let message = answer.refused(expected);
        let named = message.contains("operations[1]") || answer.text.contains("/operations/1");
        assert!(named, "{operation}: {}", answer.text);
        assert_eq!(admin.list("cache_policies").await, before, "{operation}");
    }
    assert_eq!(gateway.config_status().await["applied"], status["applied"]);
    for body in [json!({}), json!([]), json!({"operations": {}}), json!({"operations": [], "bogus": 1})] {
        admin.post("batch", &body).await.refused(400);
    }
}

#[tokio::test]
async fn only_the_end_must_make_sense() {
    let (_gateway, admin) = embedded().await;
    admin.batch(stack()).await.expect(200);
    // Names change hands; the root goes before its leaves.
    let (one, two) = (json!({"name": "one"}), json!({"name": "two"}));
    admin
        .batch(json!([
            create("cache_policies", "1", one.clone()),
            create("cache_policies", "2", two.clone())
        ]))
        .await
        .expect(200);
    let swap = json!([
        {"op": "replace", "kind": "cache_policies", "id": "1", "value": two},
        {"op": "replace", "kind": "cache_policies", "id": "2", "value": one},
    ]);
    admin.batch(swap).await.expect(200);
    assert_eq!(admin.named("cache_policies", "one").await.expect("there")["id"], "2");
    let gone = json!([
        {"op": "delete", "kind": "provider_keys", "id": "pk-1"},
        {"op": "delete", "kind": "models", "id": "m-1"},
        {"op": "delete", "kind": "models", "id": "g-1"},
    ]);
    admin.batch(gone).await.expect(200);
    assert_eq!(admin.get("provider_keys/pk-1").await.status, 404);
}

/// Two models that come and go together are never seen apart.
async fn together(writer: &Admin, watched: &[&Gateway]) {
    writer.create("api_keys", &caller("reader", CALLER_KEY)).await;
    writer.batch(json!([create("provider_keys", "pk", echo_key("k"))])).await.expect(200);
    let pair = ["left", "right"];
    let coming: Vec<Value> = pair.iter().map(|name| create("models", name, direct(name, "pk"))).collect();
    let going: Vec<Value> =
        pair.iter().map(|name| json!({"op": "delete", "kind": "models", "id": name})).collect();
    for gateway in watched {
        aisix_testkit::eventually("the reader is known", || async {
            (status_of(gateway, "nothing", CALLER_KEY).await == 404).then_some(())
        })
        .await;
    }
    let writes = async {
        for _ in 0..15 {
            writer.batch(json!(coming)).await.expect(200);
            writer.batch(json!(going)).await.expect(200);
        }
        writer.batch(json!([create("models", "end", direct("end", "pk"))])).await.expect(200);
    };
    let reads = async {
        let mut ended = vec![false; watched.len()];
        while !ended.iter().all(|ended| *ended) {
            for (gateway, ended) in watched.iter().zip(&mut ended) {
                let names = visible(gateway, CALLER_KEY).await;
                let seen = names.iter().filter(|name| pair.contains(&name.as_str())).count();
                assert!(seen != 1, "half a batch: {names:?}");
                *ended = names.iter().any(|name| name == "end");
            }
        }
    };
    aisix_testkit::within("the end", async { tokio::join!(writes, reads) }).await;
}

#[tokio::test]
async fn a_batch_is_one_step_for_readers() {
    let (gateway, admin) = embedded().await;
    together(&admin, &[&gateway]).await;
}

#[tokio::test]
async fn a_batch_is_one_step_for_readers_of_etcd() {
    let etcd = Etcd::running().await;
    let (one, two) = (on(&etcd).start().await, on(&etcd).start().await);
    together(&one.admin_api(), &[&one, &two]).await;
    let revisions: Vec<u64> =
        rows(&etcd, &format!("{PREFIX}/models/")).await.iter().map(|r| r.revision).collect();
    assert_eq!(revisions.len(), 1);
}

#[tokio::test]
async fn a_batch_in_etcd_is_one_transaction() {
    let etcd = Etcd::running().await;
    let gateway = on(&etcd).start().await;
    let body = gateway.admin_api().batch(stack()).await.expect(200);
    let stored = rows(&etcd, &format!("{PREFIX}/")).await;
    assert_eq!(stored.len(), 4, "{stored:?}");
    for row in &stored {
        assert_eq!(Some(row.revision), body["revision"].as_u64(), "{}", row.key);
    }
    // More than one transaction of etcd can hold is refused whole, with a reason, or works whole.
    let many = |count: usize, name: &str| -> Value {
        (0..count)
            .map(|n| create("cache_policies", &format!("{name}-{n}"), json!({"name": format!("{name} {n}")})))
            .collect()
    };
    gateway.admin_api().batch(many(50, "few")).await.expect(200);
    let answer = gateway.admin_api().batch(many(500, "many")).await;
    let there = rows(&etcd, &format!("{PREFIX}/cache_policies/many-")).await.len();
    match answer.status {
        200 => assert_eq!(there, 500),
        _ => {
            assert!([400, 413].contains(&answer.status), "{answer:?}");
            answer.refused(answer.status);
            assert_eq!(there, 0);
        }
    }
}

#[tokio::test]
async fn a_large_batch_of_the_embedded_store() {
    let (gateway, admin) = embedded().await;
    let many: Value = (0..1000)
        .map(|n| create("cache_policies", &format!("p-{n}"), json!({"name": format!("p {n}")})))
        .collect();
    let body = admin.batch(many).await.expect(200);
    assert_eq!(body["results"].as_array().map(Vec::len), Some(1000));
    let counts = gateway.config_status().await["applied"]["resource_counts"].clone();
    assert_eq!(counts["cache_policies"], 1000, "{counts}");
}
