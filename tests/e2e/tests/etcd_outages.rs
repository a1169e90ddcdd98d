//! etcd late, down, frozen, compacted, replaced, full, locked, encrypted: traffic goes on, and the gateway says what it knows.

use aisix_e2e::cluster::{PREFIX, base64, model, on, put, seed, seeded, started, url};
use aisix_e2e::expect_error;
use aisix_e2e::stores::{status_of, visible};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL};
use aisix_testkit::gateway::free_port;
use aisix_testkit::{Authority, Etcd, FakeProvider, Gateway, Request, eventually, eventually_in};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn connected(gateway: &Gateway, wanted: bool, limit: Duration) -> Value {
    eventually_in(limit, &format!("connected: {wanted}"), || async {
        let status = gateway.config_status().await;
        (status["source"]["connected"] == wanted).then_some(status)
    })
    .await
}

async fn age(gateway: &Gateway) -> Option<u64> {
    let health = gateway.admin_get("/admin/v1/health").await.json().await;
    assert_eq!(health["status"], "ok", "{health}");
    let config = &health["config"];
    assert!(config["snapshot_revision"].is_u64(), "{health}");
    assert!(config["snapshot_age_seconds"].is_u64() || config["snapshot_age_seconds"].is_null(), "{health}");
    config["snapshot_age_seconds"].as_u64()
}

async fn wait_age(gateway: &Gateway, what: &str, holds: impl Fn(u64) -> bool) {
    eventually_in(Duration::from_secs(40), what, || async {
        age(gateway).await.is_some_and(&holds).then_some(())
    })
    .await;
}

async fn wait_names(gateway: &Gateway, limit: Duration, names: &[&str]) {
    eventually_in(limit, &format!("{names:?} are visible"), || async {
        (visible(gateway, CALLER_KEY).await == names).then_some(())
    })
    .await;
}

fn key(id: &str) -> String {
    format!("{PREFIX}/models/{id}")
}

const QUICK: Duration = Duration::from_secs(5);
const PATIENT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn it_boots_without_etcd_and_loads_when_etcd_comes() {
    let (mut etcd, upstream) = seeded().await;
    etcd.stop().await;
    let gateway = on(&etcd).start_unready().await;
    let status = gateway.config_status().await;
    assert_eq!(status["state"], "never_loaded", "{status}");
    assert_eq!(status["source"]["connected"], false);
    assert!(status.get("applied").is_none(), "{status}");
    let mut ready = gateway.status_get("/status/ready").await;
    assert_eq!((ready.status, ready.text().await.trim()), (503, "no configuration available"));
    let mut ready = gateway.send(Request::get("/readyz?verbose=1")).await;
    let text = ready.text().await;
    assert!(ready.status == 503 && text.contains("[-]config failed: not ready"), "{text}");
    assert_eq!(gateway.send(Request::get("/livez")).await.status, 200);
    let denied = gateway.chat(&Gateway::hello(false)).await;
    let error = expect_error(denied, 401, "invalid_api_key").await;
    assert_eq!(error["message"], "invalid API key");
    assert_eq!(age(&gateway).await, None);
    let health = gateway.admin_get("/admin/v1/health").await.json().await;
    assert_eq!(health["config"]["snapshot_revision"], 0);
    let fetch = |s: &Value| s["last_failure"]["last_error_kind"] == "fetch";
    let status = gateway.wait_config("the failure is told", fetch).await;
    assert_eq!(status["last_failure"]["last_error"], "configuration source unreachable");
    assert_eq!(status["last_reload"]["successful"], false);
    assert_eq!(gateway.scrape().await.sum("aisix_config_source_connected", &[]), 0.0);
    etcd.start().await;
    connected(&gateway, true, PATIENT).await;
    gateway.wait_config("synced", |s| s["state"] == "synced").await;
    assert_eq!(gateway.send(Request::get("/readyz")).await.status, 200);
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    upstream.only_request();
}

#[tokio::test]
async fn an_outage_leaves_the_last_configuration_and_is_told() {
    let (mut etcd, _upstream, gateway) = started().await;
    etcd.stop().await;
    connected(&gateway, false, PATIENT).await;
    wait_age(&gateway, "the age grows", |age| age >= 2).await;
    let status = gateway.config_status().await;
    assert_eq!(status["state"], "synced", "what was applied stays: {status}");
    assert_eq!(status["last_failure"]["last_error_kind"], "fetch", "{status}");
    assert_eq!(gateway.scrape().await.sum("aisix_config_source_connected", &[]), 0.0);
    assert_eq!(gateway.send(Request::get("/readyz")).await.status, 200);
    assert_eq!(gateway.status_get("/status/ready").await.status, 200);
    assert_eq!(gateway.status_get("/status/models").await.status, 200);
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    // Reads come from memory, writes say that they were not made.
    let admin = gateway.admin_api();
    assert_eq!(admin.list("models").await.len(), 1);
    let since = Instant::now();
    let refused = admin.post("models", &model("not-now")).await;
    assert!(refused.refused(503).starts_with("store error: "), "{refused:?}");
    assert!(
        since.elapsed() < Duration::from_secs(12),
        "a write waits no longer than the store's time limits"
    );
    etcd.start().await;
    let since = Instant::now();
    connected(&gateway, true, PATIENT).await;
    assert!(since.elapsed() < QUICK, "recovered after {:?}", since.elapsed());
    put(&etcd, &key("m"), &model("after")).await;
    wait_names(&gateway, QUICK, &["after"]).await;
    wait_age(&gateway, "current again", |age| age <= 1).await;
    assert_eq!(gateway.scrape().await.sum("aisix_config_source_connected", &[]), 1.0);
    admin.create("models", &model("now")).await;
}

#[tokio::test]
async fn changes_made_while_it_was_cut_off_are_reconciled() {
    let (mut etcd, _upstream, gateway) = started().await;
    put(&etcd, &key("goes"), &model("goes")).await;
    wait_names(&gateway, QUICK, &["goes", MODEL]).await;
    for round in 0..4 {
        // Flapping must not make the recovery slower and slower.
        etcd.restart().await;
        etcd.delete(&key("goes")).await;
        let name = format!("new-{round}");
        put(&etcd, &key("goes"), &model(&name)).await;
        wait_names(&gateway, QUICK, &[&name, MODEL]).await;
        assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    }
    etcd.stop().await;
    etcd.start().await;
    etcd.delete(&key("goes")).await;
    wait_names(&gateway, QUICK, &[MODEL]).await;
}

#[tokio::test]
async fn an_idle_watch_stays_young() {
    let (_etcd, _upstream, gateway) = started().await;
    let first = Instant::now();
    while first.elapsed() < Duration::from_secs(13) {
        let age = age(&gateway).await;
        assert!(age.is_some_and(|age| age <= 10), "an idle store looks {age:?} s old");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_frozen_etcd_is_noticed() {
    let (etcd, _upstream) = seeded().await;
    let gateway = on(&etcd)
        .set("/etcd/dial_timeout_ms", json!(1000))
        .set("/etcd/request_timeout_ms", json!(1000))
        .start()
        .await;
    etcd.pause();
    wait_age(&gateway, "the age grows", |age| age >= 3).await;
    connected(&gateway, false, Duration::from_secs(60)).await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    let since = Instant::now();
    let refused = gateway.admin_api().post("models", &model("not-now")).await;
    assert!(refused.refused(503).starts_with("store error: "), "{refused:?}");
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    etcd.resume();
    let since = Instant::now();
    connected(&gateway, true, PATIENT).await;
    put(&etcd, &key("m"), &model("thawed")).await;
    eventually("the new name", || async {
        visible(&gateway, CALLER_KEY).await.contains(&"thawed".to_owned()).then_some(())
    })
    .await;
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
}

#[tokio::test]
async fn compaction_loses_nothing() {
    let (mut etcd, _upstream, gateway) = started().await;
    put(&etcd, &key("goes"), &model("goes")).await;
    wait_names(&gateway, QUICK, &["goes", MODEL]).await;
    for round in 0..3 {
        etcd.stop().await;
        etcd.start().await;
        // What happened since is forgotten before the gateway is back.
        etcd.delete(&key("goes")).await;
        let name = format!("after-{round}");
        let revision = put(&etcd, &key("comes"), &model(&name)).await;
        etcd.compact(revision).await;
        wait_names(&gateway, QUICK, &[&name, MODEL]).await;
        let status = gateway.config_status().await;
        assert_eq!((&status["state"], &status["rejected"]), (&json!("synced"), &json!([])));
        // A live watch is not disturbed either.
        let revision = put(&etcd, &key("goes"), &model("goes")).await;
        etcd.compact(revision).await;
        put(&etcd, &key("comes"), &model("later")).await;
        wait_names(&gateway, QUICK, &["goes", "later", MODEL]).await;
    }
}

#[tokio::test]
async fn an_empty_cluster_in_its_place_is_believed_and_followed() {
    let (mut etcd, upstream, gateway) = started().await;
    for number in 0..20 {
        put(&etcd, &key("m"), &model(&format!("old-{number}"))).await;
    }
    let old =
        gateway.wait_config("the old rows", |s| s["applied"]["applied_revision"].as_u64() >= Some(20)).await;
    etcd.stop().await;
    etcd.wipe();
    etcd.start().await;
    gateway.wait_config("empty", |s| s["state"] == "empty").await;
    assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 401);
    let revision = seed(&etcd, PREFIX, &upstream.base()).await;
    wait_served(&gateway).await;
    let status = gateway.config_status().await;
    assert_eq!(status["applied"]["applied_revision"].as_u64(), Some(revision), "{status}");
    assert!(Some(revision) < old["applied"]["applied_revision"].as_u64());
    let admin = gateway.admin_api();
    admin.create("models", &model("written")).await;
    wait_names(&gateway, QUICK, &[MODEL, "written"]).await;
}

async fn wait_served(gateway: &Gateway) {
    eventually("the standard model is served", || async {
        (status_of(gateway, MODEL, CALLER_KEY).await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_etcd_refuses_writes_and_keeps_serving() {
    let etcd = Etcd::builder().arg("--quota-backend-bytes=2097152").start().await;
    let upstream = FakeProvider::start().await;
    seed(&etcd, PREFIX, &upstream.base()).await;
    let gateway = on(&etcd).start().await;
    let filler = "x".repeat(500_000);
    let mut full = false;
    for number in 0..20 {
        let put = json!({"key": "eA==", "value": base64(format!("{number}{filler}"))});
        full = etcd.try_call("kv/put", &put).await.is_err();
        if full {
            break;
        }
    }
    assert!(full, "etcd has a quota");
    let refused = gateway.admin_api().post("models", &model("too-much")).await;
    assert!(refused.refused(503).starts_with("store error: "), "{refused:?}");
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    assert_eq!(visible(&gateway, CALLER_KEY).await, [MODEL]);
    assert_eq!(gateway.config_status().await["state"], "synced");
}

#[tokio::test]
async fn the_second_endpoint_serves_when_the_first_is_dead() {
    let (etcd, _upstream) = seeded().await;
    let dead = format!("http://127.0.0.1:{}", free_port());
    let gateway = Gateway::builder().etcd(&[dead, url(&etcd)], PREFIX).start().await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    put(&etcd, &key("m"), &model("followed")).await;
    wait_names(&gateway, QUICK, &["followed"]).await;
    // An endpoint without a scheme is plain text.
    let gateway = Gateway::builder().etcd(&[etcd.endpoint()], PREFIX).start().await;
    assert_eq!(visible(&gateway, CALLER_KEY).await, ["followed"]);
}

#[tokio::test]
async fn user_and_password() {
    const PASSWORD: &str = "007-password-MARKER";
    let (mut etcd, upstream) = (Etcd::running().await, FakeProvider::start().await);
    seed(&etcd, PREFIX, &upstream.base()).await;
    etcd.enable_auth("root-password").await;
    // The trace of writes is kept beside the prefix, where no gateway looks for resources.
    etcd.add_user("gateway", PASSWORD, &["/aisix/", "/_aisix/aisix/"]).await;
    let builder = on(&etcd)
        .set("/etcd/user", json!("gateway"))
        .set("/etcd/password_env", json!("STORE_PASSWORD"))
        .env("STORE_PASSWORD", PASSWORD);
    let gateway = builder.clone().start().await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    gateway.admin_api().create("models", &model("written")).await;
    wait_names(&gateway, QUICK, &[MODEL, "written"]).await;
    // The token dies with the server that gave it: reading and writing must log in again.
    let second = builder.start().await;
    etcd.restart().await;
    for (writer, reader, name) in [(&gateway, &second, "a"), (&second, &gateway, "b")] {
        eventually_in(PATIENT, "a write works again", || async {
            let patch = json!({"display_name": name});
            (writer.admin_api().patch("models/m", &patch).await.status == 200).then_some(())
        })
        .await;
        wait_names(reader, PATIENT, &[name, "written"]).await;
    }
    assert!(!gateway.log().join("\n").contains("MARKER"));
    let config = gateway.status_get("/status/config").await.text().await;
    assert!(!config.contains("MARKER"), "{config}");
}

#[tokio::test]
async fn a_wrong_password_and_a_dead_server_end_the_boot() {
    let etcd = Etcd::running().await;
    etcd.enable_auth("root-password").await;
    let dead = vec![format!("http://127.0.0.1:{}", free_port())];
    let builder = |endpoints: &[String]| {
        Gateway::builder()
            .etcd(endpoints, PREFIX)
            .set("/etcd/user", json!("root"))
            .set("/etcd/password_env", json!("STORE_PASSWORD"))
            .env("STORE_PASSWORD", "wrong-MARKER")
    };
    let since = Instant::now();
    let limit = Duration::from_secs(60);
    let (wrong, gone) = tokio::join!(
        builder(&[url(&etcd)]).start_and_fail_within(limit),
        builder(&dead).start_and_fail_within(limit)
    );
    for exit in [wrong, gone] {
        assert_eq!(exit.code, Some(1), "{exit:?}");
        assert!(exit.stderr.contains("etcd connect failed: "), "{}", exit.stderr);
        assert!(!exit.stderr.contains("MARKER"), "{}", exit.stderr);
    }
    assert!(since.elapsed() > Duration::from_secs(19), "five attempts, 5 s apart: {:?}", since.elapsed());
}

#[tokio::test]
async fn credentials_are_complete_or_refused() {
    let dead = vec![format!("http://127.0.0.1:{}", free_port())];
    let builder = Gateway::builder().etcd(&dead, PREFIX);
    let lonely = builder.clone().set("/etcd/user", json!("gateway")).start_and_fail().await;
    assert_eq!(lonely.code, Some(1));
    assert!(lonely.stderr.contains("password_env"), "{}", lonely.stderr);
    let missing = builder
        .clone()
        .set("/etcd/user", json!("gateway"))
        .set("/etcd/password_env", json!("NOT_SET_ANYWHERE"))
        .start_and_fail()
        .await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("NOT_SET_ANYWHERE"), "{}", missing.stderr);
    let pointless = builder.set("/etcd/password_env", json!("X")).env("X", "y").start_and_fail().await;
    assert_eq!(pointless.code, Some(1));
    assert!(pointless.stderr.contains("user"), "{}", pointless.stderr);
}

#[tokio::test]
async fn encrypted_and_mutually_authenticated() {
    let authority = Authority::new("etcd authority");
    let etcd = Etcd::builder().tls(&authority).start().await;
    let files = tempfile::tempdir().expect("a temporary directory");
    let (cert, secret) = authority.issue().write(files.path());
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("write");
    let endpoint = vec![format!("https://{}", etcd.endpoint())];
    let tls = json!({"ca_cert_file": ca, "client_cert_file": cert, "client_key_file": secret});
    for domain in [None, Some("localhost")] {
        let mut tls = tls.clone();
        if let Some(domain) = domain {
            tls["domain_name"] = json!(domain);
        }
        let gateway = Gateway::builder().etcd(&endpoint, PREFIX).set("/etcd/tls", tls).start().await;
        let admin = gateway.admin_api();
        let name = domain.unwrap_or("by-address");
        admin.create("cache_policies", &json!({"name": name})).await;
        assert_eq!(gateway.config_status().await["source"]["connected"], true);
    }
    let gateway = Gateway::builder().etcd(&endpoint, PREFIX).set("/etcd/tls", tls.clone()).start().await;
    assert_eq!(gateway.admin_api().list("cache_policies").await.len(), 2, "both wrote to the same store");
    // Another authority, and another name, are not believed.
    let other = files.path().join("other.pem");
    std::fs::write(&other, Authority::new("somebody else").pem()).expect("write");
    for (field, value) in [("ca_cert_file", json!(other)), ("domain_name", json!("elsewhere.example"))] {
        let mut tls = tls.clone();
        tls[field] = value;
        let gateway = Gateway::builder().etcd(&endpoint, PREFIX).set("/etcd/tls", tls).start_unready().await;
        let fetch = |s: &Value| s["last_failure"]["last_error_kind"] == "fetch";
        let status = gateway.wait_config("the failure", fetch).await;
        assert_eq!(
            (&status["state"], &status["source"]["connected"]),
            (&json!("never_loaded"), &json!(false))
        );
    }
    for field in ["ca_cert_file", "client_cert_file", "client_key_file"] {
        let mut tls = tls.clone();
        tls[field] = json!("/nowhere/at/all.pem");
        let exit = Gateway::builder().etcd(&endpoint, PREFIX).set("/etcd/tls", tls).start_and_fail().await;
        assert_eq!(exit.code, Some(1));
        assert!(exit.stderr.contains(field), "{field}: {}", exit.stderr);
    }
}

#[tokio::test]
async fn two_sources_are_refused() {
    let exit =
        Gateway::builder().set("/etcd", json!({"endpoints": ["http://127.0.0.1:1"]})).start_and_fail().await;
    assert_eq!(exit.code, Some(1));
    for part in ["mutually exclusive", "etcd.endpoints", "resources_file"] {
        assert!(exit.stderr.contains(part), "{part}: {}", exit.stderr);
    }
}
