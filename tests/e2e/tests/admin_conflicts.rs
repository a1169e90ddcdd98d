//! Writers that meet: conditional writes, references, uniqueness, and writes that are only tried.

use aisix_e2e::cluster::{PREFIX, on};
use aisix_e2e::documents::{KINDS, World, change_of, direct, echo_key, group, name_member};
use aisix_e2e::stores::{dependants, embedded};
use aisix_testkit::gateway::builder::CALLER_KEY;
use aisix_testkit::{Admin, Etcd};
use serde_json::{Value, json};

#[tokio::test]
async fn if_match_guards_every_write() {
    let (_gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    for kind in KINDS {
        let created = admin.post(kind, &world.minimal(kind, "guarded")).await;
        let item = format!("{kind}/{}", created.expect(201)["id"].as_str().unwrap_or_default());
        let (first, document) = (created.revision(), world.minimal(kind, "guarded"));
        let (member, value) = change_of(kind);
        let second = admin.if_match(first).patch(&item, &json!({member: value})).await;
        second.expect(200);
        let stale = admin.if_match(first);
        for answer in [
            stale.put(&item, &document).await,
            stale.patch(&item, &json!({member: value})).await,
            stale.delete(&item).await,
        ] {
            assert_eq!(answer.refused(412), "the resource was changed meanwhile", "{kind}");
        }
        assert_eq!(admin.get(&item).await.revision(), second.revision(), "{kind}: nothing happened");
        admin.if_match(second.revision()).put(&item, &document).await.expect(200);
        admin.if_match_raw("*").patch(&item, &json!({})).await.expect(200);
        let current = admin.get(&item).await.revision();
        admin.if_match(current).delete(&item).await.expect(200);
        // 404 comes before 412.
        assert_eq!(admin.if_match(current).delete(&item).await.refused(404), "resource not found");
        assert!([404, 412].contains(&admin.if_match_raw("*").put(&item, &document).await.status));
    }
}

#[tokio::test]
async fn odd_preconditions() {
    let (_gateway, admin) = embedded().await;
    let id = admin.create("cache_policies", &json!({"name": "p"})).await;
    let item = format!("cache_policies/{id}");
    let revision = admin.get(&item).await.revision();
    // 412 comes before validation.
    assert_eq!(admin.if_match(revision + 5).put(&item, &json!({"bogus": 1})).await.status, 412);
    for odd in ["nonsense", "\"abc\"", "W/\"1\"", "\"99999999999999999999999\""] {
        let answer = admin.if_match_raw(odd).delete(&item).await;
        assert!([400, 412].contains(&answer.status), "{odd}: {answer:?}");
    }
    let listed = format!("\"0\", \"{revision}\"");
    assert_eq!(admin.if_match_raw(&listed).patch(&item, &json!({"ttl_seconds": 5})).await.status, 200);
}

/// Eight writers, one revision: one of them writes.
async fn one_of_many(writers: &[Admin]) {
    let id = writers[0].create("cache_policies", &json!({"name": "contended"})).await;
    let item = format!("cache_policies/{id}");
    for writer in writers {
        aisix_testkit::eventually("known everywhere", || async {
            (writer.get(&item).await.status == 200).then_some(())
        })
        .await;
    }
    for round in 0..5 {
        let revision = writers[0].get(&item).await.revision();
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let (writer, item) = (writers[number % writers.len()].if_match(revision), item.clone());
                let patch = json!({"ttl_seconds": 100 + 10 * round + number});
                tokio::spawn(async move { writer.patch(&item, &patch).await })
            })
            .collect();
        let mut winner = None;
        for task in tasks {
            let answer = task.await.expect("a writer");
            match answer.status {
                200 => assert!(winner.replace(answer.json()).is_none(), "two writers won"),
                _ => assert_eq!(answer.refused(412), "the resource was changed meanwhile"),
            }
        }
        let winner = winner.expect("somebody wins");
        for writer in writers {
            aisix_testkit::eventually("the winner's value is read", || async {
                (writer.get(&item).await.json() == winner).then_some(())
            })
            .await;
        }
    }
}

/// Writers that retry after a 412 lose no increment.
async fn no_lost_update(writers: &[Admin]) {
    const EACH: usize = 10;
    let id = writers[0].create("cache_policies", &json!({"name": "counter", "purge_generation": 0})).await;
    let tasks: Vec<_> = (0..4)
        .map(|number| {
            let (writer, item) = (writers[number % writers.len()].clone(), format!("cache_policies/{id}"));
            tokio::spawn(async move {
                let mut won = Vec::new();
                while won.len() < EACH {
                    let read = writer.get(&item).await;
                    if read.status == 404 {
                        // A gateway that has not heard of it yet.
                        continue;
                    }
                    let mut value = read.expect(200)["value"].clone();
                    value["purge_generation"] =
                        json!(value["purge_generation"].as_u64().unwrap_or_default() + 1);
                    let answer = writer.if_match(read.revision()).put(&item, &value).await;
                    assert!([200, 412].contains(&answer.status), "{answer:?}");
                    if answer.status == 200 {
                        won.push((read.revision(), value["purge_generation"].as_u64().unwrap_or_default()));
                    }
                }
                won
            })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        won.extend(task.await.expect("a writer"));
    }
    won.sort_unstable();
    // Each revision was replaced once, by the next value.
    let expected: Vec<u64> = (1..=4 * EACH as u64).collect();
    let values: Vec<u64> = won.iter().map(|(_, value)| *value).collect();
    assert_eq!(values, expected, "(revision read, value written): {won:?}");
}

/// Patches of different fields, without conditions, all survive.
async fn patches_merge(writers: &[Admin]) {
    let world_key = writers[0].create("provider_keys", &echo_key("merge-key")).await;
    let id = writers[0].create("models", &direct("merge", &world_key)).await;
    let item = format!("models/{id}");
    for writer in writers {
        aisix_testkit::eventually("known everywhere", || async {
            (writer.get(&item).await.status == 200).then_some(())
        })
        .await;
    }
    let fields = ["rps", "rpm", "rph", "rpd", "tpm", "tpd", "concurrency"];
    let tasks: Vec<_> = fields
        .iter()
        .enumerate()
        .map(|(number, field)| {
            let (writer, item) = (writers[number % writers.len()].clone(), item.clone());
            let patch = json!({"rate_limit": {*field: number + 1}});
            tokio::spawn(async move { writer.patch(&item, &patch).await.expect(200) })
        })
        .collect();
    for task in tasks {
        task.await.expect("a writer");
    }
    aisix_testkit::eventually("every field is there", || async {
        let value = writers[0].get(&item).await.json()["value"]["rate_limit"].clone();
        fields.iter().enumerate().all(|(number, field)| value[field] == number + 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn racing_writers_of_one_gateway() {
    let (_gateway, admin) = embedded().await;
    let writers = [admin];
    one_of_many(&writers).await;
    no_lost_update(&writers).await;
    patches_merge(&writers).await;
}

#[tokio::test]
async fn racing_writers_of_two_gateways_on_one_etcd() {
    let etcd = Etcd::running().await;
    let (one, two) = (on(&etcd).start().await, on(&etcd).start().await);
    let writers = [one.admin_api(), two.admin_api()];
    one_of_many(&writers).await;
    no_lost_update(&writers).await;
    patches_merge(&writers).await;
    // A name is taken once, whoever asks.
    for round in 0..5 {
        let document = json!({"name": format!("unique-{round}")});
        let (left, right) = tokio::join!(
            writers[0].post("cache_policies", &document),
            writers[1].post("cache_policies", &document)
        );
        let mut statuses = [left.status, right.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409], "{left:?} {right:?}");
    }
    let names = aisix_e2e::cluster::rows(&etcd, &format!("{PREFIX}/cache_policies/")).await;
    let unique =
        names.iter().filter(|row| row.json()["name"].as_str().is_some_and(|n| n.starts_with("unique-")));
    assert_eq!(unique.count(), 5);
}

#[tokio::test]
async fn racing_deletes_and_references() {
    // Whoever comes first wins: a model never names a key that is gone.
    let etcd = Etcd::running().await;
    let (one, two) = (on(&etcd).start().await, on(&etcd).start().await);
    let (left, right) = (one.admin_api(), two.admin_api());
    for round in 0..8 {
        let key = left.create("provider_keys", &echo_key(&format!("key-{round}"))).await;
        let item = format!("provider_keys/{key}");
        aisix_testkit::eventually("known", || async { (right.get(&item).await.status == 200).then_some(()) })
            .await;
        let model = direct(&format!("model-{round}"), &key);
        let (deleted, created) = tokio::join!(left.delete(&item), right.post("models", &model));
        match (deleted.status, created.status) {
            (200, 400) | (409, 201) => {}
            _ => panic!("{deleted:?} {created:?}"),
        }
    }
    let status = one.config_status().await;
    assert_eq!(status["dangling"], json!([]), "{status}");
}

#[tokio::test]
async fn names_are_unique_within_a_kind() {
    let (_gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    for kind in KINDS {
        let Some(member) = name_member(kind) else { continue };
        if kind == "api_keys" {
            continue;
        }
        let taken = admin.create(kind, &world.minimal(kind, "taken")).await;
        let other = admin.create(kind, &world.minimal(kind, "other")).await;
        let expected = "name \"taken\" already in use by another resource";
        assert_eq!(admin.post(kind, &world.minimal(kind, "taken")).await.refused(409), expected, "{kind}");
        let rename = world.minimal(kind, "taken");
        assert_eq!(admin.put(&format!("{kind}/{other}"), &rename).await.refused(409), expected, "{kind}");
        let patch = json!({member: "taken"});
        assert_eq!(admin.patch(&format!("{kind}/{other}"), &patch).await.refused(409), expected, "{kind}");
        // Its own name is not in its way, and a name that is given up is free.
        admin.put(&format!("{kind}/{taken}"), &world.minimal(kind, "taken")).await.expect(200);
        admin.put(&format!("{kind}/{taken}"), &world.minimal(kind, "moved")).await.expect(200);
        admin.put(&format!("{kind}/{other}"), &world.minimal(kind, "taken")).await.expect(200);
    }
}

#[tokio::test]
async fn one_secret_one_caller_and_one_singleton() {
    let (_gateway, admin) = embedded().await;
    let key = |name: &str| aisix_e2e::documents::caller(name, "sk-shared");
    admin.create("api_keys", &key("one")).await;
    let refused = admin.post("api_keys", &key("two")).await.refused(409);
    assert!(refused.ends_with("already in use by another resource"), "{refused}");
    admin.create("mcp_auth_settings", &json!({})).await;
    admin.post("mcp_auth_settings", &json!({})).await.refused(409);
    let bound = |name: &str| {
        let mut key = aisix_e2e::documents::caller(name, name);
        key["jwt_provider"] = json!("idp");
        key["jwt_subject"] = json!("same");
        key
    };
    admin
        .create("oidc_providers", &json!({"name": "idp", "issuer": "https://i.example", "audiences": ["a"]}))
        .await;
    admin.create("api_keys", &bound("first")).await;
    let twin = admin.post("api_keys", &bound("second")).await;
    assert!([400, 409].contains(&twin.status), "{twin:?}");
    let issuer = json!({"name": "idp-2", "issuer": "https://i.example", "audiences": ["a"]});
    let twin = admin.post("oidc_providers", &issuer).await;
    assert!([400, 409].contains(&twin.status), "{twin:?}");
}

#[tokio::test]
async fn what_does_not_exist_cannot_be_named() {
    let (_gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    let changed = |kind: &str, pointer: &str, value: Value| {
        let mut document = world.rich(kind, "dangling");
        *document.pointer_mut(pointer).expect(pointer) = value;
        document
    };
    let cases = [
        ("models", changed("models", "/provider_key_id", json!("gone")), "/provider_key_id"),
        ("models", group("g", &[&world.model, "gone"]), "/routing/targets/1/model"),
        (
            "models",
            json!({"display_name": "e", "ensemble": {"panel": [{"model": "gone"}], "judge": {"model": world.model}}}),
            "/ensemble/panel/0/model",
        ),
        (
            "models",
            json!({"display_name": "e", "ensemble": {"panel": [{"model": world.model}], "judge": {"model": "gone"}}}),
            "/ensemble/judge/model",
        ),
        ("api_keys", changed("api_keys", "/allowed_models/0", json!("gone")), "/allowed_models/0"),
        (
            "guardrail_attachments",
            changed("guardrail_attachments", "/guardrail_id", json!("gone")),
            "/guardrail_id",
        ),
        ("claim_mappings", changed("claim_mappings", "/jwt_provider", json!("gone")), "/jwt_provider"),
        (
            "claim_mappings",
            changed("claim_mappings", "/resolve/api_key_id", json!("gone")),
            "/resolve/api_key_id",
        ),
        (
            "passthrough_routes",
            changed("passthrough_routes", "/provider_key_id", json!("gone")),
            "/provider_key_id",
        ),
        (
            "passthrough_routes",
            changed("passthrough_routes", "/anonymous_key_id", json!("gone")),
            "/anonymous_key_id",
        ),
    ];
    for (kind, document, path) in cases {
        let answer = admin.post(kind, &document).await;
        let paths = answer.error_paths();
        assert_eq!(paths, [path], "{}", answer.text);
        assert!(answer.text.contains("gone"), "{}", answer.text);
    }
    // Patterns name nothing in particular.
    let key = json!({"key_hash": aisix_testkit::key_hash("p"), "allowed_models": ["free/*", "*"]});
    admin.create("api_keys", &key).await;
}

#[tokio::test]
async fn what_is_named_cannot_be_deleted() {
    let (_gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    let grouped = admin.create("models", &group("the-group", &[&world.model])).await;
    admin.create("guardrail_attachments", &world.minimal("guardrail_attachments", "")).await;
    let mapping = admin.create("claim_mappings", &world.minimal("claim_mappings", "mapping")).await;
    let answer = admin.delete(&format!("provider_keys/{}", world.provider_key)).await;
    let expected = "\"world-key\" is referenced by model \"world-model\" (provider_key_id)";
    assert!(answer.refused(409).contains(expected), "{answer:?}");
    let list = dependants(&answer);
    assert_eq!(
        list,
        [json!({"kind": "models", "id": world.model_id, "name": "world-model", "field": "provider_key_id"})]
    );
    let answer = admin.delete(&format!("models/{}", world.model_id)).await;
    let list = dependants(&answer);
    assert!(list.iter().any(|d| d["id"] == grouped && d["name"] == "the-group"), "{list:?}");
    // A rename would break them in the same way.
    let rename = json!({"display_name": "elsewhere"});
    let answer = admin.patch(&format!("models/{}", world.model_id), &rename).await;
    assert!(dependants(&answer).iter().any(|d| d["id"] == grouped), "{answer:?}");
    for item in [format!("guardrails/{}", world.guardrail), format!("api_keys/{}", world.api_key)] {
        dependants(&admin.delete(&item).await);
        assert_eq!(admin.get(&item).await.status, 200);
    }
    // From the leaves to the root it works.
    admin.delete(&format!("claim_mappings/{mapping}")).await.expect(200);
    admin.delete(&format!("api_keys/{}", world.api_key)).await.expect(200);
    admin.delete(&format!("models/{grouped}")).await.expect(200);
    admin.delete(&format!("models/{}", world.model_id)).await.expect(200);
    admin.delete(&format!("provider_keys/{}", world.provider_key)).await.expect(200);
}

#[tokio::test]
async fn cycles_are_no_trap() {
    let (gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    let id = admin.create("models", &group("ring", &[&world.model])).await;
    // A group that names itself is refused or harmless, but never a loop.
    let answer = admin.put(&format!("models/{id}"), &group("ring", &["ring"])).await;
    assert!([200, 400].contains(&answer.status), "{answer:?}");
    let other = admin.post("models", &group("other", &["ring"])).await;
    assert!([201, 400].contains(&other.status), "{other:?}");
    admin.create("api_keys", &aisix_e2e::documents::caller("c", CALLER_KEY)).await;
    let status = aisix_e2e::stores::status_of(&gateway, "ring", CALLER_KEY).await;
    assert!(status == 200 || (400..=599).contains(&status), "{status}");
    assert_eq!(admin.get("models").await.status, 200);
}

#[tokio::test]
async fn a_dry_run_answers_and_writes_nothing() {
    let (gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    let audited = admin.get("audit").await.expect(200);
    let hash = gateway.config_status().await["applied"]["config_hash"].clone();
    for kind in KINDS {
        let before = admin.list(kind).await;
        let dry = admin.post(&format!("{kind}?dry_run=true"), &world.minimal(kind, "dry")).await;
        let entry = dry.expect(201);
        assert_eq!((&entry["revision"], dry.header("x-aisix-dry-run")), (&json!(0), Some("true")), "{kind}");
        assert!(entry["id"].as_str().is_some_and(|id| id.len() == 36), "{entry}");
        assert_eq!(admin.list(kind).await, before, "{kind}");
    }
    let item = format!("models/{}", world.model_id);
    let current = admin.get(&item).await.json();
    let dry = admin.patch(&format!("{item}?dry_run=true"), &json!({"timeout": 5})).await;
    assert_eq!(dry.expect(200)["value"]["timeout"], 5);
    let dry = admin.put(&format!("{item}?dry_run=true"), &direct("other", &world.provider_key)).await;
    assert_eq!(dry.expect(200)["value"]["display_name"], "other");
    assert_eq!(dry.header("x-aisix-dry-run"), Some("true"));
    let dry = admin.delete(&format!("{item}?dry_run=true")).await;
    assert_eq!(dry.expect(200), json!({"deleted": true, "id": world.model_id}));
    assert_eq!(admin.get(&item).await.json(), current);
    // It refuses what the write would refuse.
    admin.post("models?dry_run=true", &json!({})).await.refused(400);
    admin.post("provider_keys?dry_run=true", &echo_key("world-key")).await.refused(409);
    admin.delete(&format!("provider_keys/{}?dry_run=true", world.provider_key)).await.refused(409);
    admin.delete("models/none?dry_run=true").await.refused(404);
    admin.if_match(1_000_000).delete(&format!("{item}?dry_run=true")).await.refused(412);
    admin.post("models?dry_run=perhaps", &json!({})).await.refused(400);
    let wrote = admin.post("cache_policies?dry_run=false", &json!({"name": "real"})).await;
    assert_eq!(
        (wrote.expect(201)["value"]["name"].clone(), wrote.header("x-aisix-dry-run")),
        (json!("real"), None)
    );
    let now = admin.get("audit").await.expect(200);
    let count = |list: &Value| list.as_array().map_or(0, Vec::len);
    assert_eq!(count(&now), count(&audited) + 1, "{now}");
    assert_ne!(gateway.config_status().await["applied"]["config_hash"], hash);
}

#[tokio::test]
async fn a_batch_of_dry_runs_is_dry() {
    let (_gateway, admin) = embedded().await;
    let operations = json!({"operations": [
        {"op": "create", "kind": "cache_policies", "value": {"name": "a"}},
        {"op": "create", "kind": "cache_policies", "value": {"name": "b"}},
    ]});
    let dry = admin.post("batch?dry_run=true", &operations).await;
    assert_eq!(dry.expect(200)["results"].as_array().map(Vec::len), Some(2), "{dry:?}");
    assert_eq!(dry.header("x-aisix-dry-run"), Some("true"));
    assert_eq!(admin.list("cache_policies").await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_same_document_twice_is_no_excuse_for_a_stale_condition() {
    let (_gateway, admin) = embedded().await;
    let created = admin.post("cache_policies", &json!({"name": "p"})).await;
    let item = format!("cache_policies/{}", created.expect(201)["id"].as_str().unwrap_or_default());
    let stale = admin.if_match(created.revision());
    let wanted = json!({"name": "p", "ttl_seconds": 9});
    stale.put(&item, &wanted).await.expect(200);
    for _ in 0..2 {
        assert_eq!(stale.put(&item, &wanted).await.status, 412);
        assert_eq!(stale.patch(&item, &json!({"ttl_seconds": 9})).await.status, 412);
    }
    // Many at once with one revision and one value: still one winner.
    for round in 10..20 {
        let revision = admin.get(&item).await.revision();
        let tasks: Vec<_> = (0..6)
            .map(|_| {
                let (writer, item) = (admin.if_match(revision), item.clone());
                tokio::spawn(async move { writer.patch(&item, &json!({"ttl_seconds": round})).await.status })
            })
            .collect();
        let mut statuses = Vec::new();
        for task in tasks {
            statuses.push(task.await.expect("a writer"));
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412, 412, 412], "round {round}");
    }
}
