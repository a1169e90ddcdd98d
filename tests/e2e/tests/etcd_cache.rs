//! The snapshot on disk: a gateway that starts while etcd is down.

use aisix_e2e::cluster::{PREFIX, model, on, put, rejection, seeded};
use aisix_e2e::expect_error;
use aisix_e2e::stores::{status_of, visible};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL};
use aisix_testkit::{Etcd, FakeProvider, Gateway, Request, eventually};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// A gateway with a cache file that outlives it.
async fn cached(etcd: &Etcd, folder: &Path) -> Gateway {
    on(etcd).set("/managed", managed(folder)).start_unready().await
}

fn managed(folder: &Path) -> Value {
    json!({"snapshot_cache_path": file(folder)})
}

fn file(folder: &Path) -> PathBuf {
    folder.join("deep/config_cache.json")
}

/// Waits until the cache file is there and mentions a text (the values are coded, the keys are not).
async fn wait_cache(folder: &Path, holds: impl Fn(&str) -> bool) -> String {
    eventually("the cache file is written", || async {
        let text = std::fs::read(file(folder)).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        holds(&text).then_some(text)
    })
    .await
}

/// An etcd that was followed once and is down, and the folder of the cache.
async fn prepared() -> (Etcd, FakeProvider, TempDir) {
    let (mut etcd, upstream) = seeded().await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut gateway = cached(&etcd, folder.path()).await;
    gateway.wait_config("synced", |s| s["state"] == "synced").await;
    wait_cache(folder.path(), |text| text.contains("api_keys/caller")).await;
    gateway.stop().await;
    etcd.stop().await;
    (etcd, upstream, folder)
}

#[tokio::test]
async fn it_serves_from_the_file_until_etcd_answers() {
    let (mut etcd, _upstream, folder) = prepared().await;
    let gateway = cached(&etcd, folder.path()).await;
    eventually("ready", || async {
        (gateway.send(Request::get("/readyz")).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(gateway.status_get("/status/ready").await.status, 200);
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    let status = gateway.config_status().await;
    assert_eq!(status["state"], "synced", "{status}");
    assert_eq!(status["source"]["connected"], false, "etcd was not reached: {status}");
    assert_eq!(status["source"]["from_cache"], true, "{status}");
    assert!(status["applied"]["applied_revision"].as_u64() > Some(0), "{status}");
    let health = gateway.admin_get("/admin/v1/health").await.json().await;
    assert!(health["config"]["snapshot_revision"].as_u64() > Some(0), "{health}");
    // As old as what was kept, however young the process is.
    let kept: Value =
        serde_json::from_slice(&std::fs::read(file(folder.path())).expect("the cache")).expect("JSON");
    let confirmed = kept["confirmed_unix_secs"].as_u64().expect("a time");
    assert_eq!(second_of_day(&status["source"]["confirmed_at"]), confirmed % 86_400, "{status}");
    eventually("the age is told", || async {
        let health = gateway.admin_get("/admin/v1/health").await.json().await;
        let age = health["config"]["snapshot_age_seconds"].as_u64().expect("an age");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        assert!(age.abs_diff(now - confirmed) <= 2, "{age}: {health}");
        (age >= 2).then_some(())
    })
    .await;
    etcd.start().await;
    etcd.delete(&format!("{PREFIX}/models/m")).await;
    put(&etcd, &format!("{PREFIX}/models/new"), &model("new")).await;
    eventually("etcd wins", || async { (visible(&gateway, CALLER_KEY).await == ["new"]).then_some(()) })
        .await;
    let status = gateway.config_status().await;
    assert_eq!(status["source"]["connected"], true, "{status}");
    assert_ne!(status["source"]["from_cache"], true, "{status}");
}

/// The seconds since midnight of an RFC 3339 time in UTC.
fn second_of_day(text: &Value) -> u64 {
    let time = text.as_str().and_then(|text| text.get(11..19)).expect("a time");
    time.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().expect("a number"))
}

#[tokio::test]
async fn with_a_password_it_also_serves_from_the_file() {
    const PASSWORD: &str = "007-password-MARKER";
    let (mut etcd, _upstream) = seeded().await;
    etcd.enable_auth("root-password").await;
    etcd.add_user("gateway", PASSWORD, &["/aisix/", "/_aisix/aisix/"]).await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let builder = on(&etcd)
        .set("/managed", managed(folder.path()))
        .set("/etcd/user", json!("gateway"))
        .set("/etcd/password_env", json!("STORE_PASSWORD"))
        .env("STORE_PASSWORD", PASSWORD);
    let mut gateway = builder.clone().start().await;
    wait_cache(folder.path(), |text| text.contains("api_keys/caller")).await;
    gateway.stop().await;
    etcd.stop().await;
    let gateway = builder.start().await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    let status = gateway.config_status().await;
    assert_eq!(status["source"]["from_cache"], true, "{status}");
    etcd.start().await;
    gateway.wait_config("connected", |s| s["source"]["connected"] == true).await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
}

/// Credentials are of no use where authentication is switched off, and no harm.
#[tokio::test]
async fn a_password_that_nobody_asks_for() {
    let (etcd, _upstream) = seeded().await;
    let gateway = on(&etcd)
        .set("/etcd/user", json!("gateway"))
        .set("/etcd/password_env", json!("STORE_PASSWORD"))
        .env("STORE_PASSWORD", "of no use")
        .start()
        .await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    gateway.wait_log("authentication is switched off").await;
}

#[tokio::test]
async fn the_file_is_private_and_follows_every_change() {
    let (etcd, _upstream) = seeded().await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let gateway = cached(&etcd, folder.path()).await;
    wait_cache(folder.path(), |text| text.contains("models/m")).await;
    let mode = || std::fs::metadata(file(folder.path())).expect("the file").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    put(&etcd, &format!("{PREFIX}/models/later"), &model("later")).await;
    wait_cache(folder.path(), |text| text.contains("models/later")).await;
    etcd.delete(&format!("{PREFIX}/models/later")).await;
    wait_cache(folder.path(), |text| !text.contains("models/later")).await;
    etcd.put(&format!("{PREFIX}/models/bad"), "{").await;
    wait_cache(folder.path(), |text| text.contains("models/bad")).await;
    assert_eq!(mode(), 0o600);
    let beside = std::fs::read_dir(folder.path().join("deep")).expect("the folder").count();
    assert_eq!(beside, 1, "no temporary file is left");
    drop(gateway);
}

#[tokio::test]
async fn a_damaged_file_is_ignored() {
    let (etcd, _upstream, folder) = prepared().await;
    let good = std::fs::read(file(folder.path())).expect("the cache");
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x04;
        bytes
    };
    let mut damaged = vec![
        Vec::new(),
        good[..good.len() / 2].to_vec(),
        good[..good.len() - 1].to_vec(),
        b"{\"version\": 99}".to_vec(),
        vec![0xff; 300],
    ];
    // Offsets all over the file, within keys, values and numbers alike.
    damaged.extend((1..6).map(|part| flipped(good.len() * part / 6)));
    for (number, bytes) in damaged.iter().enumerate() {
        std::fs::write(file(folder.path()), bytes).expect("write");
        let gateway = cached(&etcd, folder.path()).await;
        let fetch = |s: &Value| s["last_failure"]["last_error_kind"] == "fetch";
        let status = gateway.wait_config("the first failure", fetch).await;
        assert_eq!(status["state"], "never_loaded", "damage {number}: {status}");
        let denied = gateway.chat(&Gateway::hello(false)).await;
        expect_error(denied, 401, "invalid_api_key").await;
        assert_eq!(gateway.status_get("/status/ready").await.status, 503);
        let told = gateway.wait_log("cache").await;
        assert!(told.contains("WARN"), "damage {number} is told: {told}");
    }
    // The undamaged bytes still work.
    std::fs::write(file(folder.path()), &good).expect("write");
    let gateway = cached(&etcd, folder.path()).await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
}

#[tokio::test]
async fn the_file_of_another_prefix_is_ignored() {
    let (etcd, _upstream, folder) = prepared().await;
    for (field, value) in [("/etcd/prefix", "/other"), ("/etcd/env_id", "blue")] {
        let gateway =
            on(&etcd).set("/managed", managed(folder.path())).set(field, json!(value)).start_unready().await;
        let fetch = |s: &Value| s["last_failure"]["last_error_kind"] == "fetch";
        let status = gateway.wait_config("the first failure", fetch).await;
        assert_eq!(status["state"], "never_loaded", "{field}: {status}");
        assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 401);
    }
}

#[tokio::test]
async fn a_pinned_row_survives_restarts() {
    let (mut etcd, _upstream) = seeded().await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut gateway = cached(&etcd, folder.path()).await;
    gateway.wait_config("synced", |s| s["state"] == "synced").await;
    etcd.put(&format!("{PREFIX}/models/m"), "{").await;
    let pinned = |s: &Value| rejection(s, "models", "m").is_some();
    let status = gateway.wait_config("pinned", pinned).await;
    let since = rejection(&status, "models", "m").expect("found above")["serving_stale_since"].clone();
    assert!(since.is_string(), "{status}");
    // Once as it is stored, once as it is served.
    wait_cache(folder.path(), |text| text.matches("models/m\"").count() == 2).await;
    gateway.kill().await;
    // With etcd up and with etcd down.
    for up in [true, false] {
        if !up {
            etcd.stop().await;
        }
        let mut gateway = cached(&etcd, folder.path()).await;
        let status = gateway.wait_config("pinned", pinned).await;
        if up {
            gateway.wait_config("connected", |s| s["source"]["connected"] == true).await;
        }
        assert_eq!(
            rejection(&status, "models", "m").expect("found")["serving_stale_since"],
            since,
            "{status}"
        );
        assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200, "etcd is up: {up}");
        gateway.stop().await;
    }
    etcd.start().await;
    etcd.delete(&format!("{PREFIX}/models/m")).await;
    let gateway = cached(&etcd, folder.path()).await;
    gateway.wait_config("gone", |s| s["state"] == "synced" && s["source"]["connected"] == true).await;
    assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 404);
}

#[tokio::test]
async fn the_place_of_the_file() {
    let (etcd, upstream) = seeded().await;
    // Below data_dir when there is one; nowhere when it is switched off or nothing is said.
    let with_dir = on(&etcd).set("/data_dir", json!("data")).start().await;
    let expected = with_dir.dir().join("data/config_cache.json");
    eventually("the default file", || async { expected.is_file().then_some(()) }).await;
    let off = on(&etcd)
        .set("/data_dir", json!("data"))
        .set("/managed", json!({"snapshot_cache_path": ""}))
        .start()
        .await;
    let silent = on(&etcd).start().await;
    put(&etcd, &format!("{PREFIX}/models/m"), &model("barrier")).await;
    for gateway in [&off, &silent] {
        eventually("the barrier", || async {
            (visible(gateway, CALLER_KEY).await == ["barrier"]).then_some(())
        })
        .await;
        let found = walk(gateway.dir());
        assert!(!found.iter().any(|name| name.contains("cache")), "{found:?}");
    }
    // A cache that cannot be written is no reason to stop.
    let gateway =
        on(&etcd).set("/managed", json!({"snapshot_cache_path": "/proc/no/such/place.json"})).start().await;
    gateway.wait_log("WARN").await;
    assert_eq!(status_of(&gateway, "barrier", CALLER_KEY).await, 200);
    upstream.only_request();
}

fn walk(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            let mut names = vec![path.to_string_lossy().into_owned()];
            if path.is_dir() {
                names.extend(walk(&path));
            }
            names
        })
        .collect()
}
