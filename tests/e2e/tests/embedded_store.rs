//! The embedded store: nothing acknowledged is lost, nothing secret is readable, and there is a way back.

use aisix_e2e::documents::{KINDS, MARKER, World, openai_key};
use aisix_e2e::stores::{embedded, standard, status_of, visible};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL};
use aisix_testkit::gateway::write_private;
use aisix_testkit::{Admin, Exit, FakeProvider, Gateway, Request, eventually};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[tokio::test]
async fn everything_survives_a_restart() {
    let (mut gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    for kind in KINDS {
        admin.create(kind, &world.rich(kind, "kept")).await;
    }
    let lists = async |admin: &Admin| {
        let mut lists = BTreeMap::new();
        for kind in KINDS {
            lists.insert(kind, admin.list(kind).await);
        }
        lists
    };
    let before = (lists(&admin).await, gateway.config_status().await["applied"]["config_hash"].clone());
    for crash in [false, true] {
        if crash {
            gateway.kill().await
        } else {
            gateway.stop().await
        }
        gateway.start_again().await;
        let after = (lists(&admin).await, gateway.config_status().await["applied"]["config_hash"].clone());
        assert_eq!(before, after, "after a crash: {crash}");
        assert_eq!(gateway.config_status().await["state"], "synced");
    }
}

/// Writes until the process dies; returns what was acknowledged, by name and value.
async fn write_until_killed(admin: Admin, writer: usize, round: usize) -> Vec<(String, u64)> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let name = format!("w{writer}-r{round}-n{number}");
        let policy = json!({"name": name, "ttl_seconds": number + 1});
        let request = Request::post("/admin/v1/cache_policies", &policy);
        let Ok(mut reply) = admin.try_send(request).await else { return acknowledged };
        // Acknowledged is what was answered to the end.
        if reply.status != 201 || reply.try_bytes().await.is_err() {
            return acknowledged;
        }
        acknowledged.push((name, number + 1));
    }
    acknowledged
}

#[tokio::test]
async fn kill_while_writing_loses_nothing_acknowledged() {
    let (mut gateway, admin) = embedded().await;
    let mut expected = BTreeMap::new();
    for round in 0..12 {
        let writers: Vec<_> =
            (0..3).map(|writer| tokio::spawn(write_until_killed(admin.clone(), writer, round))).collect();
        // Each round dies at another moment of the writing.
        tokio::time::sleep(Duration::from_millis(30 + 17 * round as u64)).await;
        gateway.kill().await;
        for writer in writers {
            expected.extend(writer.await.expect("a writer"));
        }
        gateway.start_again().await;
        let mut found = BTreeMap::new();
        for entry in admin.list("cache_policies").await {
            let name = entry["value"]["name"].as_str().expect("a whole document").to_owned();
            found.insert(name, entry["value"]["ttl_seconds"].as_u64().expect("a whole document"));
        }
        for (name, ttl) in &expected {
            assert_eq!(found.get(name), Some(ttl), "round {round}: {name} was acknowledged");
        }
        // Each writer had at most one write under way that may have been made unacknowledged.
        assert!(found.len() <= expected.len() + 3 * (round + 1), "{} {}", found.len(), expected.len());
        assert_eq!(gateway.config_status().await["state"], "synced");
        assert_eq!(gateway.config_status().await["rejected"], json!([]));
    }
    assert!(expected.len() > 20, "only {} writes in all", expected.len());
}

#[tokio::test]
async fn after_a_clean_stop_one_file_and_its_key_are_everything() {
    let (mut gateway, upstream) = with_secret(Gateway::builder().embedded()).await;
    gateway.stop().await;
    let mut copy = Gateway::builder().embedded().start().await;
    copy.stop().await;
    for name in ["aisix.db-wal", "aisix.db-shm"] {
        let _ = std::fs::remove_file(copy.dir().join("data").join(name));
    }
    for name in ["aisix.db", "store.key"] {
        let bytes = std::fs::read(gateway.dir().join("data").join(name)).expect("a file");
        write_private(&copy.dir().join("data").join(name), &bytes);
    }
    copy.start_again().await;
    assert_secret_works(&copy, &upstream).await;
}

/// Whether any file of the store holds this text.
fn in_store(gateway: &Gateway, text: &str) -> Option<PathBuf> {
    let files = std::fs::read_dir(gateway.dir().join("data")).expect("the store").flatten();
    files.map(|entry| entry.path()).find(|path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn secrets_are_encrypted_at_rest() {
    let (mut gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    for kind in KINDS {
        let id = admin.create(kind, &world.rich(kind, "first")).await;
        admin.put(&format!("{kind}/{id}"), &world.rich(kind, "second")).await.expect(200);
        assert_eq!(in_store(&gateway, MARKER), None, "a secret of {kind}");
    }
    gateway.stop().await;
    assert_eq!(in_store(&gateway, MARKER), None);
    assert!(gateway.dir().join("data/aisix.db").is_file(), "this is where it was looked for");
}

/// A gateway with a provider secret in its store, and the upstream that should see it.
async fn with_secret(builder: aisix_testkit::GatewayBuilder) -> (Gateway, FakeProvider) {
    let upstream = FakeProvider::start().await;
    let gateway = builder.start().await;
    standard(&gateway.admin_api(), &upstream.base(), "sk-of-the-upstream", MODEL).await;
    (gateway, upstream)
}

async fn assert_secret_works(gateway: &Gateway, upstream: &FakeProvider) {
    assert_eq!(status_of(gateway, MODEL, CALLER_KEY).await, 200);
    assert_eq!(upstream.last_request().header("authorization"), Some("Bearer sk-of-the-upstream"));
}

async fn aisix(gateway: &Gateway, args: &[&str], env: &[(&str, &str)]) -> Exit {
    Gateway::run(args, env, gateway.dir()).await
}

fn key_file(gateway: &Gateway) -> PathBuf {
    gateway.dir().join("data/store.key")
}

#[tokio::test]
async fn the_generated_key_can_be_rotated() {
    let (mut gateway, upstream) = with_secret(Gateway::builder().embedded()).await;
    for round in 0..2 {
        gateway.stop().await;
        let old = std::fs::read(key_file(&gateway)).expect("the key");
        let exit = aisix(&gateway, &["store", "rotate-key", "--data-dir", "data"], &[]).await;
        assert_eq!(exit.code, Some(0), "{exit:?}");
        let new = std::fs::read(key_file(&gateway)).expect("the key");
        assert_ne!(old, new, "round {round}");
        let shown = format!("{}{}", exit.stdout, exit.stderr);
        assert!(!shown.contains(String::from_utf8_lossy(&new).trim()), "{shown}");
        gateway.start_again().await;
        assert_secret_works(&gateway, &upstream).await;
        // The old key is of no use any more.
        gateway.stop().await;
        write_private(&key_file(&gateway), &old);
        let refused = refused_start(&gateway).await;
        assert!(refused.contains("key"), "{refused}");
        write_private(&key_file(&gateway), &new);
        gateway.start_again().await;
        assert_secret_works(&gateway, &upstream).await;
    }
}

/// Starts on the same files and expects it to end with an error; the error.
async fn refused_start(gateway: &Gateway) -> String {
    let config = gateway.dir().join("config.json");
    let exit = aisix(gateway, &["--config", &config.to_string_lossy()], &[]).await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    exit.stderr
}

#[tokio::test]
async fn a_wrong_or_missing_key_ends_the_boot_and_harms_nothing() {
    let (mut gateway, upstream) = with_secret(Gateway::builder().embedded()).await;
    let (mut other, _) = embedded().await;
    other.stop().await;
    gateway.stop().await;
    let good = std::fs::read(key_file(&gateway)).expect("the key");
    let foreign = std::fs::read(key_file(&other)).expect("the key");
    for bad in [foreign.as_slice(), b"", b"short", &[0xff; 64]] {
        write_private(&key_file(&gateway), bad);
        let text = refused_start(&gateway).await;
        assert!(text.contains("key"), "{text}");
        assert!(!text.contains("sk-of-the-upstream"));
    }
    std::fs::remove_file(key_file(&gateway)).expect("remove");
    let text = refused_start(&gateway).await;
    assert!(text.contains("store.key"), "{text}");
    assert!(!key_file(&gateway).exists(), "no new key is made for an old store");
    write_private(&key_file(&gateway), &good);
    gateway.start_again().await;
    assert_secret_works(&gateway, &upstream).await;
}

#[tokio::test]
async fn a_store_can_be_filled_before_the_first_start() {
    let (mut gateway, upstream) = with_secret(Gateway::builder().embedded()).await;
    let export = ["export", "store:data", "--reveal-secrets", "-o", "resources.yaml"];
    gateway.stop().await;
    let exit = aisix(&gateway, &export, &[]).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let apply = |more| ["apply", "-f", "resources.yaml", "--to", "store:fresh", more];
    let exit = aisix(&gateway, &apply("--dry-run"), &[]).await;
    assert!(exit.code == Some(1) && exit.stderr.contains("there is no store"), "{exit:?}");
    assert!(!gateway.dir().join("fresh").exists(), "a plan makes nothing");
    let exit = aisix(&gateway, &apply("--yes"), &[]).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    std::fs::rename(gateway.dir().join("data"), gateway.dir().join("former")).expect("move");
    std::fs::rename(gateway.dir().join("fresh"), gateway.dir().join("data")).expect("move");
    gateway.start_again().await;
    assert_secret_works(&gateway, &upstream).await;
    for place in [["diff", "store:none", "resources.yaml"], ["diff", "resources.yaml", "store:none"]] {
        let exit = aisix(&gateway, &place, &[]).await;
        assert!(exit.stderr.contains("there is no store"), "{exit:?}");
    }
    assert!(!gateway.dir().join("none").exists(), "reading makes nothing");
}

/// A key in the form in which the gateway writes one.
async fn generated_key() -> String {
    let (mut gateway, _) = embedded().await;
    gateway.stop().await;
    let key = std::fs::read(key_file(&gateway)).expect("the key");
    String::from_utf8(key).expect("a key file is text, so that it fits a variable").trim().to_owned()
}

#[tokio::test]
async fn a_key_from_the_environment() {
    let (first, second) = (generated_key().await, generated_key().await);
    let builder =
        Gateway::builder().embedded().set("/store/key_env", json!("STORE_KEY")).env("STORE_KEY", &first);
    let (mut gateway, upstream) = with_secret(builder).await;
    assert!(!key_file(&gateway).exists(), "no file is made");
    assert_secret_works(&gateway, &upstream).await;
    gateway.kill().await;
    gateway.start_again().await;
    assert_secret_works(&gateway, &upstream).await;
    gateway.stop().await;
    let args =
        ["store", "rotate-key", "--data-dir", "data", "--key-env", "STORE_KEY", "--new-key-env", "NEXT_KEY"];
    let exit = aisix(&gateway, &args, &[("STORE_KEY", &first), ("NEXT_KEY", &second)]).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let text = refused_with_key(&gateway, &first).await;
    assert!(text.contains("key") && !text.contains(&first), "{text}");
    // With the new one it is as before.
    let config = gateway.dir().join("config.json");
    let dir = gateway.dir().to_path_buf();
    let child = start_by_hand(&config, &dir, &second);
    eventually("it is ready", || async {
        let probe = gateway.client().try_send(Request::get("/readyz")).await;
        probe.is_ok_and(|reply| reply.status == 200).then_some(())
    })
    .await;
    assert_secret_works(&gateway, &upstream).await;
    drop(child);
    let exit = Gateway::builder().embedded().set("/store/key_env", json!("NOT_SET")).start_and_fail().await;
    assert!(exit.code == Some(1) && exit.stderr.contains("NOT_SET"), "{exit:?}");
    let both = json!({"key_env": "A", "key_file": "b"});
    let exit = Gateway::builder().embedded().set("/store", both).env("A", &first).start_and_fail().await;
    assert!(exit.code == Some(1) && exit.stderr.contains("store"), "{exit:?}");
}

async fn refused_with_key(gateway: &Gateway, key: &str) -> String {
    let config = gateway.dir().join("config.json");
    let exit = aisix(gateway, &["--config", &config.to_string_lossy()], &[("STORE_KEY", key)]).await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    exit.stderr
}

fn start_by_hand(config: &Path, dir: &Path, key: &str) -> tokio::process::Child {
    let mut command = Gateway::command(dir, &[("STORE_KEY", key)]);
    command.arg("--config").arg(config).spawn().expect("start the binary")
}

#[tokio::test]
async fn a_key_file_of_ones_own() {
    let key = generated_key().await;
    let builder =
        Gateway::builder().embedded().set("/store/key_file", json!("own.key")).file("own.key", &key);
    let (mut gateway, upstream) = with_secret(builder).await;
    assert!(!key_file(&gateway).exists());
    gateway.stop().await;
    let args = ["store", "rotate-key", "--data-dir", "data", "--key-file", "own.key"];
    let exit = aisix(&gateway, &args, &[]).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_ne!(std::fs::read_to_string(gateway.dir().join("own.key")).expect("the key").trim(), key);
    gateway.start_again().await;
    assert_secret_works(&gateway, &upstream).await;
}

#[tokio::test]
async fn a_damaged_database_is_told_and_not_overwritten() {
    let (mut gateway, _upstream) = with_secret(Gateway::builder().embedded()).await;
    gateway.stop().await;
    let path = gateway.dir().join("data/aisix.db");
    // With all that belongs to it out of the way.
    let (data, aside) = (gateway.dir().join("data"), gateway.dir().join("aside"));
    std::fs::create_dir(&aside).expect("a folder");
    let parts = ["aisix.db", "aisix.db-wal", "aisix.db-shm"];
    let take = |from: &Path, to: &Path| {
        for part in parts.iter().filter(|part| from.join(part).exists()) {
            std::fs::rename(from.join(part), to.join(part)).expect("move a file");
        }
    };
    let good = std::fs::read(&path).expect("the database");
    take(&data, &aside);
    for bad in
        [b"this is not a database at all, but long enough to look like one".to_vec(), vec![0xA5; good.len()]]
    {
        std::fs::write(&path, &bad).expect("write");
        let text = refused_start(&gateway).await;
        assert!(text.contains("aisix.db"), "{text}");
        assert_eq!(std::fs::read(&path).expect("the database"), bad);
    }
    take(&aside, &data);
    gateway.start_again().await;
    assert!(visible(&gateway, CALLER_KEY).await.contains(&MODEL.to_owned()));
}

#[tokio::test]
async fn history_and_rollback() {
    let (gateway, admin) = embedded().await;
    let upstream = FakeProvider::start().await;
    let (key, model) = standard(&admin, &upstream.base(), "sk-first", MODEL).await;
    let good = admin.get("api_keys?limit=1000").await.expect(200);
    let good =
        good.as_array().into_iter().flatten().filter_map(|e| e["revision"].as_u64()).max().expect("rows");
    admin.patch(&format!("provider_keys/{key}"), &json!({"api_key": "sk-second"})).await.expect(200);
    admin.patch(&format!("models/{model}"), &json!({"display_name": "renamed"})).await.expect(200);
    let extra = admin.create("cache_policies", &json!({"name": "extra"})).await;
    let newest = admin.get(&format!("cache_policies/{extra}")).await.revision();

    let listed = admin.get("revisions").await.expect(200);
    let revisions: Vec<u64> =
        listed.as_array().into_iter().flatten().filter_map(|r| r["revision"].as_u64()).collect();
    assert!(revisions.contains(&good) && revisions.contains(&newest), "{listed}");

    let dry = admin.post("rollback?dry_run=true", &json!({"revision": good})).await;
    dry.expect(200);
    assert_eq!(admin.get(&format!("cache_policies/{extra}")).await.status, 200);
    admin.post("rollback", &json!({"revision": good})).await.expect(200);
    assert_eq!(admin.get(&format!("cache_policies/{extra}")).await.status, 404);
    assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 200);
    assert_eq!(
        upstream.last_request().header("authorization"),
        Some("Bearer sk-first"),
        "secrets come back too"
    );
    assert_eq!(status_of(&gateway, "renamed", CALLER_KEY).await, 404);
    let record = admin.get("audit?limit=1").await.expect(200)[0].clone();
    assert_eq!(record["action"], "rollback", "{record}");
    assert!(record["revision"].as_u64() > Some(newest), "history goes on, it is not cut: {record}");
    // And forward again.
    admin.post("rollback", &json!({"revision": newest})).await.expect(200);
    assert_eq!(status_of(&gateway, "renamed", CALLER_KEY).await, 200);
    assert_eq!(upstream.last_request().header("authorization"), Some("Bearer sk-second"));
    for bad in
        [json!({"revision": 1_000_000}), json!({"revision": "x"}), json!({}), json!({"revision": 1, "x": 1})]
    {
        let answer = admin.post("rollback", &bad).await;
        assert!((400..500).contains(&answer.status), "{bad}: {answer:?}");
        answer.refused(answer.status);
    }
}

#[tokio::test]
async fn another_process_may_write_while_it_runs() {
    let (gateway, admin) = embedded().await;
    let upstream = FakeProvider::start().await;
    standard(&admin, &upstream.base(), "sk-up", MODEL).await;
    let mut file = aisix_testkit::GatewayBuilder::standard(&upstream.base());
    file["api_keys"] = json!([]);
    for round in 0..3 {
        file["models"][0]["display_name"] = json!(format!("from-the-file-{round}"));
        std::fs::write(gateway.dir().join("new.yaml"), file.to_string()).expect("write");
        let args = ["apply", "-f", "new.yaml", "--to", "store:data", "--yes", "--prune=false"];
        let meanwhile = json!({"name": format!("meanwhile-{round}")});
        let (exit, written) =
            tokio::join!(aisix(&gateway, &args, &[]), admin.post("cache_policies", &meanwhile));
        assert_eq!(exit.code, Some(0), "{exit:?}");
        written.expect(201);
        let since = std::time::Instant::now();
        let name = format!("from-the-file-{round}");
        eventually("the gateway follows", || async {
            let found = visible(&gateway, CALLER_KEY).await.contains(&name);
            found.then_some(())
        })
        .await;
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    }
    assert_eq!(admin.list("cache_policies").await.len(), 3, "neither writer overwrote the other");
    let mut updated = openai_key("main", &upstream.base(), "x");
    updated["api_key"] = json!("***");
    let key = admin.named("provider_keys", "main").await.expect("from the file");
    admin
        .put(&format!("provider_keys/{}", key["id"].as_str().unwrap_or_default()), &updated)
        .await
        .expect(200);
}
