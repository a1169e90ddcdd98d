//! Following etcd: what is loaded, in what order changes become visible, and what a bad row does.

use aisix_e2e::cluster::{self, PREFIX, hash, model, on, put, rejection, rows, seed, seeded, started};
use aisix_e2e::stores::{status_of, visible};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL, PROVIDER_SECRET};
use aisix_testkit::{Etcd, FakeProvider, Gateway, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn wait_visible(gateway: &Gateway, name: &str, wanted: bool) {
    let what = format!("{name} is visible: {wanted}");
    eventually(&what, || async {
        let names = visible(gateway, CALLER_KEY).await;
        (names.iter().any(|n| n == name) == wanted).then_some(())
    })
    .await;
}

fn key(kind: &str, id: &str) -> String {
    format!("{PREFIX}/{kind}/{id}")
}

#[tokio::test]
async fn what_is_stored_is_served_and_reported() {
    let (etcd, upstream, gateway) = started().await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    let bearer = format!("Bearer {PROVIDER_SECRET}");
    assert_eq!(upstream.only_request().header("authorization"), Some(bearer.as_str()));
    let stored = rows(&etcd, "/aisix/").await;
    let status = gateway.config_status().await;
    assert_eq!(status["state"], "synced", "{status}");
    assert_eq!((&status["source"]["type"], &status["source"]["connected"]), (&json!("etcd"), &json!(true)));
    let newest = stored.iter().map(|row| row.revision).max().expect("rows");
    assert!(status["applied"]["applied_revision"].as_u64() >= Some(newest), "{status}");
    assert!(
        status["source"]["observed_revision"].as_u64() >= status["applied"]["applied_revision"].as_u64(),
        "{status}"
    );
    assert_eq!(
        status["applied"]["resource_counts"],
        json!({"provider_keys": 1, "models": 1, "api_keys": 1}),
        "{status}"
    );
    assert_eq!(status["last_reload"]["successful"], true);
    assert_eq!((&status["rejected"], &status["partially_compatible"]), (&json!([]), &json!([])));
    let scrape = gateway.scrape().await;
    assert_eq!(scrape.sum("aisix_config_source_connected", &[]), 1.0);
    assert!(scrape.sum("aisix_config_applied_revision", &[]) >= newest as f64);
    assert!(scrape.sum("aisix_config_observed_revision", &[]) >= newest as f64);
    let health = gateway.admin_get("/admin/v1/health").await.json().await;
    assert!(health["config"]["snapshot_revision"].as_u64() >= Some(newest), "{health}");
    assert!(health["config"]["snapshot_age_seconds"].as_u64() <= Some(15), "{health}");
}

#[tokio::test]
async fn the_hashes_are_those_of_the_contract() {
    let (etcd, _upstream, gateway) = started().await;
    // Order of members and blanks do not count; nested members are sorted too.
    let text = "{ \"provider_key_id\" : \"main\", \"cost\" : {\"output_per_1k\":2, \"input_per_1k\":1},\n\
                \"model_name\":\"x\",\"provider\":\"openai\",\"display_name\":\"g\"}";
    etcd.put(&key("models", "g"), text).await;
    wait_visible(&gateway, "g", true).await;
    let expected = hash(&rows(&etcd, "/aisix/").await);
    let status = gateway.config_status().await;
    assert_eq!(status["source"]["source_hash"], expected);
    assert_eq!(status["applied"]["config_hash"], expected);
    let good = rows(&etcd, "/aisix/").await;
    // A rejected row counts for what was observed, its pinned value for what is served.
    etcd.put(&key("models", "g"), "{not json").await;
    let status = gateway.wait_config("degraded", |s| s["state"] == "degraded").await;
    assert_eq!(status["source"]["source_hash"], hash(&rows(&etcd, "/aisix/").await));
    assert_eq!(status["applied"]["config_hash"], hash(&good));
    let seq = status["applied"]["apply_seq"].as_u64();
    etcd.put(&key("models", "g"), text).await;
    let status = gateway.wait_config("synced", |s| s["state"] == "synced").await;
    assert_eq!(status["applied"]["apply_seq"].as_u64(), seq, "nothing new was served: {status}");
    assert_eq!(status["source"]["source_hash"], status["applied"]["config_hash"]);
}

#[tokio::test]
async fn changes_are_visible_within_half_a_second() {
    let (etcd, _upstream, gateway) = started().await;
    let mut late = Vec::new();
    const ROUNDS: usize = 20;
    for round in 0..ROUNDS {
        let (name, stored) = (format!("new-{round}"), key("models", "new"));
        put(&etcd, &stored, &model(&name)).await;
        let since = Instant::now();
        wait_visible(&gateway, &name, true).await;
        late.push(since.elapsed());
        etcd.delete(&stored).await;
        let since = Instant::now();
        wait_visible(&gateway, &name, false).await;
        late.push(since.elapsed());
    }
    late.sort();
    // One in ten may be late on a busy machine.
    assert!(late[ROUNDS * 2 * 9 / 10] < Duration::from_millis(500), "{late:?}");
}

#[tokio::test]
async fn a_later_write_is_a_barrier_for_earlier_ones() {
    let (etcd, _upstream, gateway) = started().await;
    const COUNT: usize = 60;
    let writer = async {
        for number in 0..COUNT {
            put(&etcd, &key("models", &format!("z-{number:03}")), &model(&format!("n-{number:03}"))).await;
        }
    };
    let reader = async {
        loop {
            let names = visible(&gateway, CALLER_KEY).await;
            let seen: Vec<&String> = names.iter().filter(|name| name.starts_with("n-")).collect();
            let expected: Vec<String> = (0..seen.len()).map(|n| format!("n-{n:03}")).collect();
            assert!(seen.into_iter().eq(expected.iter()), "a write overtook another: {names:?}");
            if expected.len() == COUNT {
                return;
            }
        }
    };
    aisix_testkit::within("all writes are seen", async { tokio::join!(writer, reader) }).await;
}

#[tokio::test]
async fn a_rename_frees_the_old_name_in_the_same_step() {
    let (etcd, upstream, gateway) = started().await;
    let writer = async {
        for round in 0..20 {
            let name = if round % 2 == 0 { "renamed" } else { MODEL };
            put(&etcd, &key("models", "m"), &model(name)).await;
        }
        put(&etcd, &key("models", "m"), &model("last")).await;
    };
    let reader = async {
        loop {
            let names = visible(&gateway, CALLER_KEY).await;
            assert_eq!(names.len(), 1, "{names:?}");
            if names == ["last"] {
                return;
            }
        }
    };
    aisix_testkit::within("the last name", async { tokio::join!(writer, reader) }).await;
    assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 404);
    assert_eq!(status_of(&gateway, "last", CALLER_KEY).await, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_new_row_that_is_invalid_harms_nobody() {
    let (etcd, _upstream, gateway) = started().await;
    let both = json!({"display_name": "x", "api_key": "a", "secret": "b"});
    let cases = [
        ("models", "not-json", "{\"display_name\": \"MARKER".to_owned(), "non_json"),
        ("models", "array", "[]".to_owned(), "schema_failed"),
        ("models", "type", json!({"display_name": 5, "routing": {}}).to_string(), "schema_failed"),
        ("models", "strategy", bad_strategy(), "schema_failed"),
        ("api_keys", "lacks", json!({"key_hash": "MARKER"}).to_string(), "schema_failed"),
        ("provider_keys", "both", both.to_string(), "parse_failed"),
        ("widgets", "w", "{}".to_owned(), "unknown_kind"),
    ];
    for (kind, id, value, expected) in &cases {
        etcd.put(&key(kind, id), value).await;
        let found = |s: &Value| rejection(s, kind, id).is_some();
        let status = gateway.wait_config(&format!("{kind}/{id} is rejected"), found).await;
        let entry = rejection(&status, kind, id).expect("found above");
        assert_eq!(entry["last_error_kind"], *expected, "{entry}");
        assert!(entry["last_error"].as_str().is_some_and(|text| !text.is_empty()), "{entry}");
        assert!(entry.get("serving_stale_since").is_none(), "{entry}");
        assert_eq!(status["state"], "degraded", "{status}");
        assert!(!status.to_string().contains("MARKER"), "{status}");
        assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    }
    let status = gateway.config_status().await;
    let entry = rejection(&status, "widgets", "w").expect("a rejection");
    assert_eq!(entry["last_error"], "unknown kind \"widgets\"");
    let listed = status["rejected"].as_array().expect("an array").clone();
    let of = |r: &Value| (r["resource_kind"].to_string(), r["resource_id"].to_string());
    assert!(listed.is_sorted_by_key(of), "{status}");
    assert_eq!(gateway.scrape().await.sum("aisix_config_rejected_resources", &[]), cases.len() as f64);
    for (kind, id, ..) in &cases {
        etcd.delete(&key(kind, id)).await;
    }
    let status = gateway.wait_config("synced", |s| s["state"] == "synced").await;
    assert_eq!(status["rejected"], json!([]));
    assert_eq!(gateway.scrape().await.sum("aisix_config_rejected_resources", &[]), 0.0);
    assert!(!gateway.log().join("\n").contains("MARKER"));
}

fn bad_strategy() -> String {
    json!({"display_name": "g", "routing": {"targets": [{"model": MODEL}], "strategy": "by-moonlight"}})
        .to_string()
}

#[tokio::test]
async fn a_key_that_is_no_row_is_reported_until_it_is_deleted() {
    let (etcd, _upstream, gateway) = started().await;
    for bad in ["/aisix/models", "/aisix/x", "/aisix/models/"] {
        etcd.put(bad, "{}").await;
        let status = gateway.wait_config(bad, |s| s["state"] == "degraded").await;
        let entry = rejection(&status, "", "").unwrap_or_else(|| panic!("{bad}: {status}"));
        assert_eq!(entry["last_error_kind"], "bad_key", "{entry}");
        etcd.delete(bad).await;
        let status = gateway.wait_config("synced", |s| s["state"] == "synced").await;
        assert_eq!(status["source"]["source_hash"], status["applied"]["config_hash"]);
    }
}

#[tokio::test]
async fn only_bad_rows_are_out_of_sync_and_none_at_all_is_empty() {
    let etcd = Etcd::running().await;
    let gateway = on(&etcd).start().await;
    assert_eq!(gateway.config_status().await["state"], "empty");
    assert_eq!(gateway.status_get("/status/ready").await.status, 200);
    etcd.put(&key("models", "bad"), "nonsense").await;
    gateway.wait_config("out_of_sync", |s| s["state"] == "out_of_sync").await;
    etcd.delete(&key("models", "bad")).await;
    gateway.wait_config("empty", |s| s["state"] == "empty").await;
}

#[tokio::test]
async fn an_overwritten_row_serves_its_last_good_value() {
    let (mut etcd, _upstream, gateway) = started().await;
    etcd.put(&key("models", "m"), "{\"display_name\": 1}").await;
    let pinned = |s: &Value| rejection(s, "models", "m").is_some();
    let status = gateway.wait_config("pinned", pinned).await;
    let entry = rejection(&status, "models", "m").expect("found above");
    assert_eq!(status["state"], "degraded");
    let since = entry["serving_stale_since"].as_str().expect("a time").to_owned();
    assert!(entry["serving_stale_age_seconds"].as_u64().is_some(), "{entry}");
    let stale = "aisix_config_stale_served_resources";
    assert_eq!(gateway.scrape().await.sum(stale, &[("kind", "models")]), 1.0);
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    // A full read does not forget it.
    etcd.restart().await;
    put(&etcd, &key("models", "barrier"), &model("barrier")).await;
    wait_visible(&gateway, "barrier", true).await;
    let status = gateway.config_status().await;
    let entry = rejection(&status, "models", "m").unwrap_or_else(|| panic!("{status}"));
    assert_eq!(entry["serving_stale_since"], since);
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    // Another bad value changes nothing; a good one clears it.
    etcd.put(&key("models", "m"), "{").await;
    gateway
        .wait_config("newer", |s| {
            rejection(s, "models", "m").is_some_and(|r| r["last_error_kind"] == "non_json")
        })
        .await;
    put(&etcd, &key("models", "m"), &model("good-again")).await;
    let status = gateway.wait_config("synced", |s| s["state"] == "synced").await;
    assert_eq!(status["rejected"], json!([]));
    assert_eq!(visible(&gateway, CALLER_KEY).await, ["barrier", "good-again"]);
    // Deleting ends it at once.
    etcd.put(&key("models", "m"), "{").await;
    gateway.wait_config("pinned again", pinned).await;
    etcd.delete(&key("models", "m")).await;
    wait_visible(&gateway, "good-again", false).await;
    let status = gateway.config_status().await;
    assert_eq!((&status["state"], &status["rejected"]), (&json!("synced"), &json!([])));
    assert_eq!(gateway.scrape().await.sum(stale, &[]), 0.0);
}

#[tokio::test]
async fn a_bad_row_of_a_fresh_gateway_is_absent() {
    let (etcd, _upstream) = seeded().await;
    etcd.put(&key("models", "m"), "{").await;
    let gateway = on(&etcd).start().await;
    assert_eq!(gateway.config_status().await["state"], "degraded");
    assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 404);
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_counted() {
    let (etcd, _upstream, gateway) = started().await;
    let newer = json!({
        "display_name": "g", "from_the_future": 1, "cost": {"input_per_1k": 1, "output_per_1k": 1}, "retries": 2,
        "routing": {"targets": [{"model": MODEL, "x": 1}, {"model": "barrier", "x": 2}]},
    });
    put(&etcd, &key("models", "g"), &newer).await;
    put(&etcd, &key("cache_policies", "c"), &json!({"name": "c", "typo": true})).await;
    put(&etcd, &key("models", "barrier"), &model("barrier")).await;
    wait_visible(&gateway, "barrier", true).await;
    let status = gateway.config_status().await;
    assert_eq!(status["state"], "synced", "{status}");
    assert_eq!(status["source"]["source_hash"], status["applied"]["config_hash"]);
    let listed = status["partially_compatible"].as_array().expect("an array").clone();
    let seen: Vec<(&str, &str, u64)> = listed
        .iter()
        .map(|e| {
            let text = |member: &str| e[member].as_str().unwrap_or_default();
            (text("resource_kind"), text("field"), e["count"].as_u64().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("cache_policies", "typo", 1),
            ("models", "from_the_future", 1),
            ("models", "inapplicable:cost", 1),
            ("models", "inapplicable:retries", 1),
            ("models", "routing.targets.[].x", 1),
        ],
        "{status}"
    );
    let gauge = "aisix_config_partially_compatible_resources";
    assert_eq!(gateway.scrape().await.sum(gauge, &[("kind", "models")]), 1.0);
    assert_eq!(status["applied"]["resource_counts"]["models"], 3, "{status}");
    etcd.transaction(&[], &[&key("models", "g"), &key("cache_policies", "c")]).await;
    let empty = |s: &Value| s["partially_compatible"] == json!([]);
    gateway.wait_config("cleared", empty).await;
    assert_eq!(gateway.scrape().await.sum(gauge, &[]), 0.0);
}

#[tokio::test]
async fn a_sibling_prefix_is_somebody_elses() {
    let (etcd, upstream) = seeded().await;
    seed(&etcd, "/aisix-b", &upstream.base()).await;
    put(&etcd, "/aisix-b/models/other", &model("other")).await;
    etcd.put("/aisixx", "{").await;
    for prefix in ["/aisix", "/aisix/"] {
        let gateway = on(&etcd).set("/etcd/prefix", json!(prefix)).start().await;
        let status = gateway.config_status().await;
        assert_eq!((&status["state"], &status["rejected"]), (&json!("synced"), &json!([])));
        assert_eq!(status["source"]["source_hash"], hash(&rows(&etcd, "/aisix/").await));
        assert_eq!(visible(&gateway, CALLER_KEY).await, [MODEL]);
        put(&etcd, "/aisix-b/models/late", &model("late")).await;
        let barrier = format!("barrier-{}", prefix.len());
        put(&etcd, &key("models", "barrier"), &model(&barrier)).await;
        wait_visible(&gateway, &barrier, true).await;
        assert_eq!(gateway.config_status().await["state"], "synced");
        assert_eq!(visible(&gateway, CALLER_KEY).await, [&barrier, MODEL]);
        etcd.delete(&key("models", "barrier")).await;
    }
}

#[tokio::test]
async fn an_environment_has_its_own_rows() {
    let (etcd, upstream) = (Etcd::running().await, FakeProvider::start().await);
    for env in ["blue", "green"] {
        let prefix = format!("/company/gateways/{env}");
        seed(&etcd, &prefix, &upstream.base()).await;
        put(&etcd, &format!("{prefix}/models/m"), &model(env)).await;
    }
    for (prefix, env) in [("/company/gateways", "blue"), ("/company/gateways/", "green")] {
        let gateway =
            on(&etcd).set("/etcd/prefix", json!(prefix)).set("/etcd/env_id", json!(env)).start().await;
        assert_eq!(visible(&gateway, CALLER_KEY).await, [env]);
        assert_eq!(gateway.config_status().await["state"], "synced");
    }
}

#[tokio::test]
async fn ids_may_hold_slashes_and_any_text() {
    let (etcd, _upstream, gateway) = started().await;
    for id in ["team/a/model", "ümläut", "with space", "%2F", "..", "a:b"] {
        let name = format!("model {id}");
        put(&etcd, &key("models", id), &model(&name)).await;
        wait_visible(&gateway, &name, true).await;
        let entry = gateway.admin_api().named("models", &name).await;
        assert_eq!(entry.expect("listed")["id"], id);
        let path = format!("models/{}", aisix_testkit::admin::percent(id));
        assert_eq!(gateway.admin_api().get(&path).await.expect(200)["id"], id);
    }
    assert_eq!(gateway.config_status().await["state"], "synced");
}

#[tokio::test]
async fn a_transaction_is_visible_as_one_step() {
    let (etcd, _upstream, gateway) = started().await;
    let (a, b) = (key("models", "a"), key("models", "b"));
    let writer = async {
        for _ in 0..20 {
            let (left, right) = (model("left").to_string(), model("right").to_string());
            etcd.transaction(&[(&a, &left), (&b, &right)], &[]).await;
            etcd.transaction(&[], &[&a, &b]).await;
        }
        put(&etcd, &key("models", "end"), &model("end")).await;
    };
    let reader = async {
        loop {
            let names = visible(&gateway, CALLER_KEY).await;
            let pair = names.iter().filter(|n| *n == "left" || *n == "right").count();
            assert!(pair != 1, "half a transaction: {names:?}");
            if names.iter().any(|n| n == "end") {
                return;
            }
        }
    };
    aisix_testkit::within("the end", async { tokio::join!(writer, reader) }).await;
}

#[tokio::test]
async fn several_gateways_follow_one_prefix() {
    let (etcd, _upstream) = seeded().await;
    let mut fleet = Vec::new();
    for _ in 0..3 {
        fleet.push(on(&etcd).start().await);
    }
    for round in 0..5 {
        let name = format!("round-{round}");
        put(&etcd, &key("models", "m"), &model(&name)).await;
        for gateway in &fleet {
            wait_visible(gateway, &name, true).await;
        }
    }
    // A write through one is a write for all.
    let id = fleet[0].admin_api().create("models", &cluster::model("through-the-first")).await;
    for gateway in &fleet {
        wait_visible(gateway, "through-the-first", true).await;
        assert_eq!(gateway.admin_api().get(&format!("models/{id}")).await.status, 200);
    }
    let statuses =
        [fleet[0].config_status().await, fleet[1].config_status().await, fleet[2].config_status().await];
    for status in &statuses {
        assert_eq!(status["state"], "synced", "{status}");
        assert_eq!(status["applied"]["config_hash"], statuses[0]["applied"]["config_hash"]);
    }
}
