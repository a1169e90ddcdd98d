//! Who may do what on the admin listener, and the trace that every write leaves.

use aisix_e2e::cluster::{PREFIX, on, rows};
use aisix_e2e::documents::{KINDS, MARKER, World, direct};
use aisix_testkit::gateway::ADMIN_KEY;
use aisix_testkit::{Admin, Answer, Etcd, Gateway, GatewayBuilder, Request};
use serde_json::{Value, json};

fn with_roles(builder: GatewayBuilder) -> GatewayBuilder {
    builder.set(
        "/admin/keys",
        json!([
            {"name": "dashboard", "key": "key-of-the-dashboard", "role": "read_only"},
            {"name": "ci-bot", "key": "key-of-the-bot", "role": "editor"},
            {"name": "alice", "key": "key-of-alice", "role": "owner"},
        ]),
    )
}

/// A gateway with three roles: reader, editor, owner.
async fn roles() -> (Gateway, Admin, Admin, Admin) {
    let gateway = with_roles(Gateway::builder().embedded()).start().await;
    let key = |key: &str| Admin::new(gateway.admin, key);
    let (reader, editor, owner) = (key("key-of-the-dashboard"), key("key-of-the-bot"), key("key-of-alice"));
    (gateway, reader, editor, owner)
}

fn refused(answer: &Answer, role: &str) {
    assert_eq!(answer.refused(403), format!("this needs the role {role}"), "{answer:?}");
}

#[tokio::test]
async fn a_reader_reads() {
    let (_gateway, reader, editor, _owner) = roles().await;
    let id = editor.create("cache_policies", &json!({"name": "p"})).await;
    for kind in KINDS {
        assert_eq!(reader.get(kind).await.status, 200, "{kind}");
    }
    for path in ["health", "models/status", &format!("cache_policies/{id}")] {
        assert_eq!(reader.get(path).await.status, 200, "{path}");
    }
    refused(&reader.get("audit").await, "owner");
    assert_eq!(reader.get("export").await.status, 200, "it holds what reads show");
    let item = format!("cache_policies/{id}");
    for answer in [
        reader.post("cache_policies", &json!({"name": "q"})).await,
        reader.post("cache_policies?dry_run=true", &json!({"name": "q"})).await,
        reader.put(&item, &json!({"name": "q"})).await,
        reader.patch(&item, &json!({"enabled": false})).await,
        reader.delete(&item).await,
        reader.batch(json!([])).await,
        reader.post("apply", &json!({"documents": []})).await,
        reader.post("api_keys/x/rotate", &json!({})).await,
    ] {
        refused(&answer, "editor");
    }
    refused(&reader.post("rollback", &json!({"revision": 1})).await, "owner");
    assert_eq!(reader.get(&item).await.json()["value"]["name"], "p");
    // The role comes before everything else that is wrong.
    let junk = Request::new("POST", "/admin/v1/models").header("content-type", "text/plain").body("{");
    refused(&reader.send(junk).await, "editor");
}

#[tokio::test]
async fn an_editor_writes_resources_and_no_more() {
    let (_gateway, _reader, editor, owner) = roles().await;
    let world = World::create(&editor).await;
    for kind in KINDS {
        let id = editor.create(kind, &world.minimal(kind, "edited")).await;
        assert_eq!(editor.delete(&format!("{kind}/{id}")).await.status, 200, "{kind}");
    }
    editor.post(&format!("api_keys/{}/rotate", world.api_key), &json!({})).await.expect(200);
    refused(&editor.get("audit").await, "owner");
    assert_eq!(owner.get("audit").await.status, 200);
    refused(&editor.post("rollback", &json!({"revision": 1})).await, "owner");
    assert_ne!(owner.post("rollback?dry_run=true", &json!({"revision": 1})).await.status, 403);
}

#[tokio::test]
async fn admin_keys_of_the_old_list_are_owners_with_names() {
    let (gateway, _, _, owner) = roles().await;
    let old = Admin::new(gateway.admin, ADMIN_KEY);
    old.create("cache_policies", &json!({"name": "by-the-list"})).await;
    let newest = owner.get("audit?limit=1").await.expect(200);
    assert_eq!(newest[0]["actor"], "admin-1", "{newest}");
    assert_eq!(old.get("audit").await.status, 200);
}

#[tokio::test]
async fn keys_that_make_no_sense_end_the_boot() {
    let key = |name: &str, key: &str, role: &str| json!({"name": name, "key": key, "role": role});
    let cases = [
        (json!([key("a", "secret-MARKER", "emperor")]), "role"),
        (json!([key("a", "secret-MARKER", "owner"), key("a", "other-MARKER", "editor")]), "name"),
        (json!([key("a", "same-MARKER", "owner"), key("b", "same-MARKER", "read_only")]), "key"),
        (json!([key("a", "", "owner")]), "key"),
        (json!([key("", "secret-MARKER", "owner")]), "name"),
        (json!([{"name": "a", "role": "owner"}]), "key"),
        (json!([{"name": "a", "key": "secret-MARKER", "role": "owner", "scope": "x"}]), "scope"),
    ];
    for (keys, fragment) in cases {
        let exit = Gateway::builder().embedded().set("/admin/keys", keys.clone()).start_and_fail().await;
        assert_eq!(exit.code, Some(1), "{keys}");
        assert!(
            exit.stderr.contains("admin.keys") && exit.stderr.contains(fragment),
            "{fragment}: {}",
            exit.stderr
        );
        assert!(!exit.stderr.contains("MARKER"), "{}", exit.stderr);
    }
}

/// All records, newest first, checked for their form.
async fn audit(admin: &Admin, query: &str) -> Vec<Value> {
    let body = admin.get(&format!("audit{query}")).await.expect(200);
    let records = body.as_array().unwrap_or_else(|| panic!("not a bare array: {body}")).clone();
    let revision = |r: &Value| std::cmp::Reverse(r["revision"].as_u64().expect("a revision"));
    assert!(records.is_sorted_by_key(revision), "newest first: {body}");
    for record in &records {
        let at = record["at"].as_str().unwrap_or_default();
        assert!(at.len() >= 20 && at.ends_with('Z') && at.contains('T'), "{record}");
        assert!(record["changes"].is_array(), "{record}");
    }
    records
}

#[tokio::test]
async fn every_write_leaves_a_record() {
    let (mut gateway, _reader, editor, owner) = roles().await;
    let world = World::create(&owner).await;
    let start = audit(&owner, "").await.len();
    let created = editor.post("provider_keys", &world.rich("provider_keys", "audited")).await;
    let id = created.expect(201)["id"].as_str().unwrap_or_default().to_owned();
    let item = format!("provider_keys/{id}");
    editor
        .patch(&item, &json!({"api_base": "https://new.example/v1", "api_key": format!("sk-{MARKER}-2")}))
        .await
        .expect(200);
    let key = editor.post("api_keys", &json!({"display_name": "k", "allowed_models": []})).await.expect(201);
    let key = key["id"].as_str().unwrap_or_default();
    editor.post(&format!("api_keys/{key}/rotate"), &json!({})).await.expect(200);
    editor
        .batch(json!([
            {"op": "create", "kind": "cache_policies", "id": "one", "value": {"name": "one"}},
            {"op": "create", "kind": "cache_policies", "id": "two", "value": {"name": "two"}},
        ]))
        .await
        .expect(200);
    let last = owner.delete(&item).await;
    last.expect(200);
    // What was refused or only tried leaves none.
    editor.post("models", &json!({})).await.refused(400);
    editor.delete("models/none").await.refused(404);
    editor.post("cache_policies?dry_run=true", &json!({"name": "dry"})).await.expect(201);

    let records = audit(&owner, "").await;
    assert_eq!(records.len(), start + 6, "{records:#?}");
    let summary: Vec<(&str, &str, usize)> = records[..6]
        .iter()
        .map(|r| {
            let text = |member: &str| r[member].as_str().unwrap_or_default();
            (text("action"), text("actor"), r["changes"].as_array().map_or(0, Vec::len))
        })
        .collect();
    assert_eq!(
        summary,
        [
            ("delete", "alice", 1),
            ("batch", "ci-bot", 2),
            ("rotate", "ci-bot", 1),
            ("create", "ci-bot", 1),
            ("patch", "ci-bot", 1),
            ("create", "ci-bot", 1),
        ]
    );
    for record in &records[..6] {
        assert_eq!(record["remote"], "127.0.0.1", "{record}");
    }
    let create = &records[5]["changes"][0];
    assert_eq!(
        (&create["kind"], &create["id"], &create["name"]),
        (&json!("provider_keys"), &json!(id), &json!("audited"))
    );
    assert!(create.get("before").is_none(), "{create}");
    assert_eq!(
        (&create["after"]["api_key"], &create["after"]["provider"]),
        (&json!("***"), &json!("openai"))
    );
    let patch = &records[4]["changes"][0];
    assert_eq!(patch["before"]["api_base"], "https://upstream.example/v1", "{patch}");
    assert_eq!(patch["after"]["api_base"], "https://new.example/v1", "{patch}");
    let delete = &records[0]["changes"][0];
    assert!(delete.get("after").is_none() && delete["before"]["display_name"] == "audited", "{delete}");
    let text = json!(records).to_string();
    assert!(!text.contains(MARKER) && !text.contains("\"plaintext\""), "{text}");
    assert_eq!(records[5]["revision"], created.revision(), "a record names the revision it made");

    // It outlives the process, and nobody can take anything out of it.
    gateway.kill().await;
    gateway.start_again().await;
    assert_eq!(audit(&owner, "").await, records);
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = owner.send(Request::new(method, "/admin/v1/audit").body("{}")).await;
        assert_eq!(answer.status, 405, "{method}");
        let answer = owner.send(Request::new(method, "/admin/v1/audit/1").body("{}")).await;
        assert!([404, 405].contains(&answer.status), "{method}: {answer:?}");
    }
    assert_eq!(audit(&owner, "").await, records);
}

/// Queries of the audit log, whatever keeps it.
async fn queries(editor: &Admin, owner: &Admin) {
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(editor.create("cache_policies", &json!({"name": format!("p{number}")})).await);
    }
    let key = owner.create("provider_keys", &aisix_e2e::documents::echo_key("k")).await;
    owner.create("models", &direct("m", &key)).await;
    editor.patch(&format!("cache_policies/{}", ids[2]), &json!({"enabled": false})).await.expect(200);
    let all = audit(owner, "").await;
    let of_kind = audit(owner, "?kind=cache_policies").await;
    assert_eq!(of_kind.len(), 6, "{of_kind:#?}");
    assert_eq!(audit(owner, "?actor=ci-bot").await.len(), 6);
    let by_owner = audit(owner, "?actor=alice").await;
    assert_eq!(by_owner.len(), 2, "{by_owner:#?}");
    let of_one = audit(owner, &format!("?kind=cache_policies&id={}", ids[2])).await;
    let actions: Vec<&str> = of_one.iter().filter_map(|r| r["action"].as_str()).collect();
    assert_eq!(actions, ["patch", "create"]);
    assert_eq!(audit(owner, "?limit=3").await, all[..3]);
    let mut paged = audit(owner, "?kind=cache_policies&limit=4").await;
    let oldest = paged.last().expect("a record")["revision"].as_u64().expect("a revision");
    paged.extend(audit(owner, &format!("?kind=cache_policies&limit=4&before={oldest}")).await);
    assert_eq!(paged, of_kind, "pages do not overlap and miss nothing");
    assert_eq!(audit(owner, "?kind=guardrails").await, Vec::<Value>::new());
    for bad in ["?limit=0", "?limit=x", "?before=x"] {
        owner.get(&format!("audit{bad}")).await.refused(400);
    }
}

#[tokio::test]
async fn the_audit_log_can_be_searched() {
    let (_gateway, _reader, editor, owner) = roles().await;
    queries(&editor, &owner).await;
}

#[tokio::test]
async fn the_audit_log_with_etcd() {
    let etcd = Etcd::running().await;
    let gateway = with_roles(on(&etcd)).start().await;
    let key = |key: &str| Admin::new(gateway.admin, key);
    let (editor, owner) = (key("key-of-the-bot"), key("key-of-alice"));
    queries(&editor, &owner).await;
    // Another gateway sees the same log, and the log is no resource to anybody.
    let second = with_roles(on(&etcd)).start().await;
    assert_eq!(audit(&Admin::new(second.admin, "key-of-alice"), "").await, audit(&owner, "").await);
    let status = second.config_status().await;
    assert_eq!((&status["state"], &status["rejected"]), (&json!("synced"), &json!([])));
    for row in rows(&etcd, &format!("{PREFIX}/")).await {
        let kind = row.key.split('/').nth(2).unwrap_or_default();
        assert!(KINDS.contains(&kind), "{} is not a resource", row.key);
    }
}
