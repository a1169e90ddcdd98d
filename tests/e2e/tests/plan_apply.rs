//! `aisix apply`, `history` and `rollback`: making a store match a file, and the way back.

use aisix_e2e::cluster::{PREFIX, on, rows};
use aisix_e2e::documents::{World, direct};
use aisix_e2e::stores::{embedded, status_of, visible};
use aisix_testkit::gateway::ADMIN_KEY;
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL, PROVIDER_SECRET};
use aisix_testkit::{Admin, Etcd, Exit, FakeProvider, Gateway, GatewayBuilder, eventually};
use serde_json::{Value, json};
use std::path::Path;

async fn aisix(folder: &Path, args: &[&str]) -> Exit {
    Gateway::run(args, &[("AISIX_ADMIN_KEY", ADMIN_KEY)], folder).await
}

fn write(gateway: &Gateway, resources: &Value) {
    std::fs::write(gateway.dir().join("wanted.yaml"), resources.to_string()).expect("write");
}

async fn apply(gateway: &Gateway, to: &str, more: &[&str]) -> Exit {
    let mut args = vec!["apply", "-f", "wanted.yaml", "--to", to];
    args.extend(more);
    aisix(gateway.dir(), &args).await
}

/// Makes a place match a file, changes the file, and does it again.
async fn converge(gateway: &Gateway, to: &str) {
    let upstream = FakeProvider::start().await;
    let admin = gateway.admin_api();
    let mut wanted = GatewayBuilder::standard(&upstream.base());
    write(gateway, &wanted);
    let planned = apply(gateway, to, &["--dry-run"]).await;
    assert_eq!(planned.code, Some(0), "{planned:?}");
    assert!(planned.stdout.contains(&format!("+ model {MODEL}")), "{planned:?}");
    assert!(admin.named("models", MODEL).await.is_none(), "a dry run writes nothing");
    let unsure = apply(gateway, to, &[]).await;
    assert!(unsure.code.is_some_and(|code| code != 0) && unsure.stderr.contains("--yes"), "{unsure:?}");
    assert!(admin.named("models", MODEL).await.is_none(), "without a terminal --yes is needed");

    let done = apply(gateway, to, &["--yes"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains(&format!("+ model {MODEL}")), "the plan is shown: {done:?}");
    assert!(!format!("{done:?}").contains(PROVIDER_SECRET));
    eventually("it is in force", || async {
        (status_of(gateway, MODEL, CALLER_KEY).await == 200).then_some(())
    })
    .await;
    assert_eq!(
        upstream.last_request().header("authorization"),
        Some(format!("Bearer {PROVIDER_SECRET}").as_str())
    );
    assert_eq!(visible(gateway, CALLER_KEY).await, [MODEL], "what the file does not know is gone");
    let ids = (admin.named("models", MODEL).await, admin.named("provider_keys", "main").await);

    // The second time there is nothing to do, and nothing is written.
    let revision = gateway.config_status().await["applied"]["applied_revision"].clone();
    let again = apply(gateway, to, &["--yes"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(gateway.config_status().await["applied"]["applied_revision"], revision);

    // A change keeps the ids.
    wanted["models"][0]["timeout"] = json!(60_000);
    wanted["api_keys"].as_array_mut().expect("keys").push(
        json!({"display_name": "second", "key_hash": aisix_testkit::key_hash("sk-2"), "allowed_models": [MODEL]}),
    );
    write(gateway, &wanted);
    let done = apply(gateway, to, &["--yes"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains(&format!("~ model {MODEL}: timeout")), "{done:?}");
    eventually("the second key works", || async {
        (status_of(gateway, MODEL, "sk-2").await == 200).then_some(())
    })
    .await;
    let model = admin.named("models", MODEL).await.expect("there");
    assert_eq!(model["value"]["timeout"], 60_000);
    assert_eq!(model["id"], ids.0.expect("there")["id"]);
    assert_eq!(admin.named("provider_keys", "main").await, ids.1, "what did not change was not written");

    // A program reads the plan.
    wanted["models"][0]["timeout"] = json!(1000);
    write(gateway, &wanted);
    let done = apply(gateway, to, &["--yes", "--json"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    serde_json::from_str::<Value>(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.stdout));
}

#[tokio::test]
async fn an_embedded_store_through_the_running_gateway() {
    let (gateway, admin) = embedded().await;
    converge(&gateway, &format!("http://{}", gateway.admin)).await;
    let record = admin.get("audit?limit=1").await.expect(200)[0].clone();
    assert_eq!((&record["action"], &record["actor"]), (&json!("apply"), &json!("admin-1")), "{record}");
}

#[tokio::test]
async fn an_embedded_store_directly() {
    let (gateway, admin) = embedded().await;
    converge(&gateway, "store:data").await;
    let record = admin.get("audit?limit=1").await.expect(200)[0].clone();
    assert_eq!(record["action"], "apply", "{record}");
}

#[tokio::test]
async fn an_etcd_directly_and_through_a_gateway() {
    let etcd = Etcd::running().await;
    let gateway = on(&etcd).start().await;
    converge(&gateway, &format!("etcd://{}{PREFIX}", etcd.endpoint())).await;
    for row in rows(&etcd, &format!("{PREFIX}/")).await {
        etcd.delete(&row.key).await;
    }
    eventually("empty", || async { (gateway.config_status().await["state"] == "empty").then_some(()) }).await;
    converge(&gateway, &format!("http://{}", gateway.admin)).await;
}

#[tokio::test]
async fn without_pruning_the_rest_stays() {
    let (gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    let place = format!("http://{}", gateway.admin);
    write(&gateway, &GatewayBuilder::standard("https://upstream.example/v1"));
    let done = apply(&gateway, &place, &["--yes", "--prune=false"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!done.stdout.lines().any(|line| line.starts_with("- ")), "{done:?}");
    for name in [MODEL, &world.model] {
        assert!(admin.named("models", name).await.is_some(), "{name}");
    }
}

#[tokio::test]
async fn it_is_all_or_nothing_and_breaks_no_reference() {
    let (gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    let place = format!("http://{}", gateway.admin);
    let before = snapshot(&admin).await;
    // The file itself is wrong.
    let mut wanted = GatewayBuilder::standard("https://upstream.example/v1");
    wanted["models"][0]["provider_key"] = json!("nowhere");
    write(&gateway, &wanted);
    for to in [place.as_str(), "store:data"] {
        let refused = apply(&gateway, to, &["--yes"]).await;
        assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
        assert!(refused.stderr.contains("nowhere"), "{refused:?}");
    }
    // The file takes the secret of a key that stays.
    let taken = json!({
        "_format_version": "1",
        "api_keys": [{"display_name": "thief", "key_hash": aisix_testkit::key_hash("sk-world-caller"), "allowed_models": []}],
        "cache_policies": [{"name": "innocent"}],
    });
    write(&gateway, &taken);
    let refused = apply(&gateway, &place, &["--yes", "--prune=false"]).await;
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    assert_eq!(snapshot(&admin).await, before, "nothing was written");
    assert!(admin.get(&format!("models/{}", world.model_id)).await.status == 200);
    // Exit codes of wrong usage.
    for args in [
        vec!["apply"],
        vec!["apply", "-f", "wanted.yaml"],
        vec!["apply", "--to", "store:data"],
        vec!["apply", "-f", "wanted.yaml", "--to", "store:data", "--prune=perhaps"],
    ] {
        assert_eq!(aisix(gateway.dir(), &args).await.code, Some(2), "{args:?}");
    }
    let nowhere = apply(&gateway, "wanted.yaml", &["--yes"]).await;
    assert!(nowhere.code.is_some_and(|code| code != 0), "a file is no store: {nowhere:?}");
}

async fn snapshot(admin: &Admin) -> Vec<Vec<Value>> {
    let mut lists = Vec::new();
    for kind in aisix_e2e::documents::KINDS {
        lists.push(admin.list(kind).await);
    }
    lists
}

#[tokio::test]
async fn a_gateway_on_a_file_refuses() {
    let gateway = Gateway::builder().upstream("https://upstream.example/v1").start().await;
    write(&gateway, &json!({"_format_version": "1"}));
    let refused = apply(&gateway, &format!("http://{}", gateway.admin), &["--yes"]).await;
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    assert!(refused.stderr.contains("resources"), "it says why: {refused:?}");
}

#[tokio::test]
async fn a_reader_may_not_apply() {
    let keys = json!([{"name": "reader", "key": "key-of-the-reader", "role": "read_only"}]);
    let gateway = Gateway::builder().embedded().set("/admin/keys", keys).start().await;
    write(&gateway, &json!({"_format_version": "1"}));
    let place = format!("http://{}", gateway.admin);
    let args = ["apply", "-f", "wanted.yaml", "--to", &place, "--yes"];
    let refused = Gateway::run(&args, &[("AISIX_ADMIN_KEY", "key-of-the-reader")], gateway.dir()).await;
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    assert!(refused.stderr.contains("role editor"), "{refused:?}");
}

/// The revision of the newest row.
async fn newest(admin: &Admin, kind: &str) -> u64 {
    let list = admin.list(kind).await;
    list.iter().filter_map(|entry| entry["revision"].as_u64()).max().expect("an entry")
}

#[tokio::test]
async fn history_and_rollback_from_the_command_line() {
    let (mut gateway, admin) = embedded().await;
    let upstream = FakeProvider::start().await;
    aisix_e2e::stores::standard(&admin, &upstream.base(), "sk-first", MODEL).await;
    let good = newest(&admin, "api_keys").await.max(newest(&admin, "models").await);
    let key = admin.named("provider_keys", &format!("key-of-{MODEL}")).await.expect("there");
    let key = key["id"].as_str().unwrap_or_default();
    admin.create("models", &direct("mistake", key)).await;
    let history = aisix(gateway.dir(), &["history", "--store", "data"]).await;
    assert_eq!(history.code, Some(0), "{history:?}");
    for part in ["admin-1", "create", &good.to_string()] {
        assert!(history.stdout.contains(part), "{part}: {}", history.stdout);
    }
    assert!(!history.stdout.contains("sk-first"));
    let limited = aisix(gateway.dir(), &["history", "--store", "data", "--limit", "1"]).await;
    assert!(limited.stdout.len() < history.stdout.len() && limited.stdout.contains("create"), "{limited:?}");

    let revision = good.to_string();
    let place = format!("http://{}", gateway.admin);
    let dry = aisix(gateway.dir(), &["rollback", &revision, "--to", &place, "--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(dry.stdout.contains("- model mistake"), "{dry:?}");
    assert!(admin.named("models", "mistake").await.is_some());
    let done = aisix(gateway.dir(), &["rollback", &revision, "--to", &place, "--yes"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(admin.named("models", "mistake").await.is_none());
    assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 200);

    // Directly on the store of a gateway that does not run.
    admin.create("models", &direct("mistake", key)).await;
    gateway.stop().await;
    let done = aisix(gateway.dir(), &["rollback", &revision, "--to", "store:data", "--yes"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    gateway.start_again().await;
    assert!(admin.named("models", "mistake").await.is_none());
    assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 200);
    for bad in ["999999", "x", "-1"] {
        let refused = aisix(gateway.dir(), &["rollback", bad, "--to", "store:data", "--yes"]).await;
        assert!(refused.code.is_some_and(|code| code != 0), "{bad}: {refused:?}");
        assert!(!refused.stderr.trim().is_empty(), "{refused:?}");
    }
    let none = aisix(gateway.dir(), &["history", "--store", "nowhere"]).await;
    assert!(none.code.is_some_and(|code| code != 0) && !gateway.dir().join("nowhere").exists(), "{none:?}");
}
