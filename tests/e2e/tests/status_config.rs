//! What `/status/config` says beyond loading: what is not enforced, what collides, what points nowhere.

use aisix_e2e::cluster::{self, PREFIX, model, put, started};
use aisix_e2e::documents::{World, caller};
use aisix_e2e::expect_error;
use aisix_e2e::stores::{ask, embedded, status_of, visible};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL};
use aisix_testkit::{Gateway, eventually};
use serde_json::{Value, json};

fn entries(status: &Value, member: &str) -> Vec<Value> {
    status[member].as_array().unwrap_or_else(|| panic!("{member} is always an array: {status}")).clone()
}

#[tokio::test]
async fn the_extra_lists_are_always_there() {
    let (_upstream, on_file) = aisix_e2e::started().await;
    let (_etcd, _upstream, on_etcd) = started().await;
    let (on_store, _admin) = embedded().await;
    for gateway in [&on_file, &on_etcd, &on_store] {
        let status = gateway.config_status().await;
        for member in ["not_enforced", "conflicts", "dangling", "rejected", "partially_compatible"] {
            assert_eq!(entries(&status, member), Vec::<Value>::new(), "{member} {status}");
        }
    }
    for gateway in [&on_etcd, &on_store] {
        let status = gateway.config_status().await;
        let at = status["source"]["confirmed_at"].as_str().unwrap_or_default();
        assert!(at.len() == 20 && at.ends_with('Z'), "{status}");
    }
}

#[tokio::test]
async fn what_is_accepted_but_not_enforced_is_named() {
    let (gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    let first = gateway.config_status().await;
    for kind in ["mcp_servers", "a2a_agents", "cache_policies"] {
        for name in ["one", "two"] {
            admin.create(kind, &world.minimal(kind, name)).await;
        }
        let of = |e: &&Value| e["resource_kind"] == kind && e.get("field").is_none();
        let status = gateway.config_status().await;
        let list = entries(&status, "not_enforced");
        // A kind that is enforced one day leaves the list and this test.
        let entry = list.iter().find(of).unwrap_or_else(|| panic!("{kind}: {status}"));
        assert_eq!(entry["count"], 2, "{entry}");
        assert_eq!(status["state"], "synced", "{status}");
    }
    assert_ne!(entries(&first, "not_enforced"), entries(&gateway.config_status().await, "not_enforced"));
    for kind in ["mcp_servers", "a2a_agents", "cache_policies"] {
        for entry in admin.list(kind).await {
            admin.delete(&format!("{kind}/{}", entry["id"].as_str().unwrap_or_default())).await.expect(200);
        }
    }
    assert_eq!(gateway.config_status().await["not_enforced"], first["not_enforced"]);
}

#[tokio::test]
async fn a_name_taken_twice_goes_to_the_lowest_id() {
    let (etcd, upstream, gateway) = started().await;
    let variant = |id: &str, upstream_name: &str| {
        let mut document = model("twin");
        document["model_name"] = json!(upstream_name);
        (format!("{PREFIX}/models/{id}"), document)
    };
    let rows = [variant("t-2", "second"), variant("t-3", "third"), variant("t-1", "first")];
    for (key, document) in &rows {
        put(&etcd, key, document).await;
    }
    let serving = |s: &Value| s["conflicts"][0]["serving"] == "t-1";
    let status = gateway.wait_config("the conflict", serving).await;
    assert_eq!(
        status["conflicts"],
        json!([{"resource_kind": "models", "field": "display_name", "value": "twin", "serving": "t-1", "shadowed": ["t-2", "t-3"]}])
    );
    assert_eq!(status["state"], "synced", "{status}");
    let reaches = async |expected: &str| {
        assert_eq!(status_of(&gateway, "twin", CALLER_KEY).await, 200);
        assert_eq!(upstream.last_request().json()["model"], expected);
    };
    reaches("first").await;
    // Unrelated events and rewrites of the losers change nothing.
    for round in 0..5 {
        put(&etcd, &rows[round % 2].0, &rows[round % 2].1).await;
        put(&etcd, &format!("{PREFIX}/models/other"), &model(&format!("other-{round}"))).await;
        eventually("the barrier", || async {
            visible(&gateway, CALLER_KEY).await.contains(&format!("other-{round}")).then_some(())
        })
        .await;
        reaches("first").await;
    }
    let names = visible(&gateway, CALLER_KEY).await;
    assert_eq!(names.iter().filter(|name| *name == "twin").count(), 1, "{names:?}");
    // The next lowest takes over, at once.
    etcd.delete(&rows[2].0).await;
    gateway.wait_config("the second", |s| s["conflicts"][0]["serving"] == "t-2").await;
    reaches("second").await;
    etcd.delete(&rows[0].0).await;
    gateway.wait_config("no conflict", |s| s["conflicts"] == json!([])).await;
    reaches("third").await;
}

#[tokio::test]
async fn a_secret_given_twice_belongs_to_the_lowest_id() {
    let (etcd, _upstream, gateway) = started().await;
    let key = |label: &str, models: Value| {
        let mut key = caller(label, "sk-shared");
        key["allowed_models"] = models;
        key
    };
    put(&etcd, &format!("{PREFIX}/api_keys/z"), &key("z", json!(["*"]))).await;
    put(&etcd, &format!("{PREFIX}/api_keys/a"), &key("a", json!([]))).await;
    let status = gateway.wait_config("the conflict", |s| s["conflicts"][0]["serving"] == "a").await;
    assert_eq!(status["conflicts"][0]["shadowed"], json!(["z"]), "{status}");
    assert_eq!(status["conflicts"][0]["field"], "key_hash", "{status}");
    for _ in 0..5 {
        assert_eq!(status_of(&gateway, MODEL, "sk-shared").await, 403);
        put(&etcd, &format!("{PREFIX}/api_keys/z"), &key("z", json!(["*"]))).await;
    }
    etcd.delete(&format!("{PREFIX}/api_keys/a")).await;
    gateway.wait_config("resolved", |s| s["conflicts"] == json!([])).await;
    assert_eq!(status_of(&gateway, MODEL, "sk-shared").await, 200);
}

#[tokio::test]
async fn what_points_nowhere_is_named() {
    let (etcd, _upstream, gateway) = started().await;
    let mut orphan = model("orphan");
    orphan["provider_key_id"] = json!("gone");
    put(&etcd, &format!("{PREFIX}/models/orphan"), &orphan).await;
    let group =
        json!({"display_name": "group", "routing": {"targets": [{"model": MODEL}, {"model": "missing"}]}});
    put(&etcd, &format!("{PREFIX}/models/group"), &group).await;
    let two = |s: &Value| entries(s, "dangling").len() == 2;
    let status = gateway.wait_config("two dangling references", two).await;
    assert_eq!(status["state"], "synced", "{status}");
    let list = entries(&status, "dangling");
    let of =
        |id: &str| list.iter().find(|e| e["resource_id"] == id).unwrap_or_else(|| panic!("{id}: {status}"));
    let entry = of("orphan");
    assert_eq!(
        (&entry["resource_kind"], &entry["field"], &entry["target_kind"], &entry["target"]),
        (&json!("models"), &json!("provider_key_id"), &json!("provider_keys"), &json!("gone"))
    );
    let entry = of("group");
    assert_eq!((&entry["target_kind"], &entry["target"]), (&json!("models"), &json!("missing")), "{entry}");
    let denied = gateway.send(ask("orphan", CALLER_KEY)).await;
    let error = expect_error(denied, 400, "invalid_request_error").await;
    assert!(
        error["message"].as_str().is_some_and(|m| m.contains("references unknown provider_key_id")),
        "{error}"
    );
    assert!(visible(&gateway, CALLER_KEY).await.contains(&"orphan".to_owned()), "it stays listed");
    // It becomes whole when what it needs arrives.
    put(&etcd, &format!("{PREFIX}/provider_keys/gone"), &cluster::provider_key("http://127.0.0.1:9/v1"))
        .await;
    put(&etcd, &format!("{PREFIX}/models/missing"), &model("missing")).await;
    gateway.wait_config("nothing dangles", |s| s["dangling"] == json!([])).await;
    assert_ne!(status_of(&gateway, "orphan", CALLER_KEY).await, 400);
}

#[tokio::test]
async fn a_security_control_that_cannot_be_built_is_no_secret() {
    // Through the strict door it does not come in at all.
    let (_gateway, admin) = embedded().await;
    let bad = json!({"name": "g", "kind": "keyword", "patterns": [{"kind": "regex", "value": "("}]});
    assert_eq!(admin.post("guardrails", &bad).await.error_paths(), ["/patterns/0/value"]);
    let model_on = |key: &str, cidr: &str| {
        let mut document = aisix_e2e::documents::direct("closed", key);
        document["allowed_cidrs"] = json!([cidr]);
        document
    };
    let key = admin.create("provider_keys", &aisix_e2e::documents::echo_key("k")).await;
    assert_eq!(
        admin.post("models", &model_on(&key, "10.0.0.0/99")).await.error_paths(),
        ["/allowed_cidrs/0"]
    );
    // Through etcd its scope is closed until it is mended, and status says so.
    let (etcd, upstream, gateway) = started().await;
    put(&etcd, &format!("{PREFIX}/models/closed"), &model_on("main", "not-a-range")).await;
    eventually("the row has arrived", || async {
        let listed = visible(&gateway, CALLER_KEY).await.contains(&"closed".to_owned());
        let told = gateway.config_status().await.to_string().contains("allowed_cidrs");
        (listed || told).then_some(())
    })
    .await;
    let status = status_of(&gateway, "closed", CALLER_KEY).await;
    assert!([403, 404].contains(&status), "{status}");
    assert!(upstream.requests().is_empty(), "nothing is let through");
    let shown = gateway.config_status().await;
    assert!(shown.to_string().contains("allowed_cidrs"), "status names the field: {shown}");
    put(&etcd, &format!("{PREFIX}/models/closed"), &model_on("main", "127.0.0.0/8")).await;
    eventually("mended", || async { (status_of(&gateway, "closed", CALLER_KEY).await == 200).then_some(()) })
        .await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
}
