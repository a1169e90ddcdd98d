//! Writing through the admin API and writing straight to etcd are the same thing.

use aisix_e2e::cluster::{PREFIX, on, put, rows, seeded, started};
use aisix_e2e::documents::{KINDS, MARKER, World, contains, direct};
use aisix_e2e::stores::{everything_shown, status_of};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL};
use aisix_testkit::{Etcd, eventually, key_hash};
use serde_json::{Value, json};

#[tokio::test]
async fn a_write_stores_exactly_the_document() {
    let etcd = Etcd::running().await;
    let gateway = on(&etcd).start().await;
    let admin = gateway.admin_api();
    let world = World::create(&admin).await;
    for kind in KINDS {
        for document in [world.minimal(kind, "plain"), world.rich(kind, "rich")] {
            let created = admin.post(kind, &document).await;
            let id = created.expect(201)["id"].as_str().unwrap_or_default().to_owned();
            let stored = rows(&etcd, &format!("{PREFIX}/{kind}/{id}")).await;
            assert_eq!(stored.len(), 1, "{kind}: {stored:?}");
            assert_eq!(stored[0].key, format!("{PREFIX}/{kind}/{id}"));
            let value = stored[0].json();
            for (name, member) in document.as_object().expect("an object") {
                assert_eq!(&value[name], member, "{kind}.{name}: {value}");
            }
            for name in value.as_object().expect("an object").keys() {
                assert!(document.get(name).is_some(), "{kind}.{name} was added: {value}");
            }
            assert_eq!(created.revision(), stored[0].revision, "{kind}: the revision is etcd's");
            // Secrets are kept when an entry is patched as it was read.
            let read = admin.get(&format!("{kind}/{id}")).await.expect(200);
            admin.put(&format!("{kind}/{id}"), &read["value"]).await.expect(200);
            let stored = rows(&etcd, &format!("{PREFIX}/{kind}/{id}")).await;
            for (name, member) in document.as_object().expect("an object") {
                let kept = &stored[0].json()[name];
                assert!(contains(kept, member), "{kind}.{name} after a round trip: {kept} is not {member}");
            }
            admin.delete(&format!("{kind}/{id}")).await.expect(200);
            assert_eq!(rows(&etcd, &format!("{PREFIX}/{kind}/{id}")).await, []);
        }
    }
    let shown = everything_shown(&gateway, &admin).await;
    assert!(!shown.contains(MARKER));
    let status = gateway.config_status().await;
    assert_eq!(
        (&status["state"], &status["partially_compatible"]),
        (&json!("synced"), &json!([])),
        "{status}"
    );
    assert_eq!(status["source"]["source_hash"], status["applied"]["config_hash"]);
}

#[tokio::test]
async fn a_write_straight_to_etcd_is_as_good() {
    let (etcd, _upstream, gateway) = started().await;
    let admin = gateway.admin_api();
    let revision = put(&etcd, &format!("{PREFIX}/models/direct"), &direct("direct", "main")).await;
    let read = eventually("it is listed", || async {
        let answer = admin.get("models/direct").await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(read.revision(), revision);
    // The admin API goes on from what was written behind its back.
    let patched = admin.if_match(revision).patch("models/direct", &json!({"timeout": 7})).await;
    assert_eq!(patched.expect(200)["value"]["timeout"], 7);
    let behind = put(&etcd, &format!("{PREFIX}/models/direct"), &direct("again", "main")).await;
    let stale = admin.if_match(patched.revision()).patch("models/direct", &json!({"timeout": 8})).await;
    assert_eq!(stale.refused(412), "the resource was changed meanwhile");
    eventually("the newer one is read", || async {
        (admin.get("models/direct").await.revision() == behind).then_some(())
    })
    .await;
    admin.if_match(behind).patch("models/direct", &json!({"timeout": 9})).await.expect(200);
    let stored = rows(&etcd, &format!("{PREFIX}/models/direct")).await[0].json();
    assert_eq!((&stored["display_name"], &stored["timeout"]), (&json!("again"), &json!(9)));
    // A dangling row straight from etcd is somebody's choice; it is shown and can be mended here.
    put(&etcd, &format!("{PREFIX}/models/dangling"), &direct("dangling", "gone")).await;
    eventually("it is listed", || async { (admin.get("models/dangling").await.status == 200).then_some(()) })
        .await;
    assert_eq!(status_of(&gateway, "dangling", CALLER_KEY).await, 400);
    admin.patch("models/dangling", &json!({"provider_key_id": "main"})).await.expect(200);
    assert_eq!(status_of(&gateway, "dangling", CALLER_KEY).await, 200);
}

#[tokio::test]
async fn unknown_fields_of_a_newer_writer_survive_a_patch() {
    let (etcd, _upstream, gateway) = started().await;
    let admin = gateway.admin_api();
    let mut newer = direct("newer", "main");
    newer["from_the_future"] = json!({"a": [1, 2]});
    put(&etcd, &format!("{PREFIX}/models/newer"), &newer).await;
    eventually("it is listed", || async { (admin.get("models/newer").await.status == 200).then_some(()) })
        .await;
    let answer = admin.patch("models/newer", &json!({"timeout": 5})).await;
    let stored = rows(&etcd, &format!("{PREFIX}/models/newer")).await[0].json();
    match answer.status {
        200 => assert_eq!(stored["from_the_future"], newer["from_the_future"], "silently dropped: {stored}"),
        // To refuse and to say why is honest too.
        _ => {
            assert!(answer.refused(400).contains("from_the_future"), "{answer:?}");
            assert_eq!(stored, newer);
        }
    }
}

#[tokio::test]
async fn a_rejected_row_can_be_mended_and_removed() {
    let (etcd, _upstream, gateway) = started().await;
    let admin = gateway.admin_api();
    etcd.put(&format!("{PREFIX}/models/broken"), "{\"display_name\": 5}").await;
    gateway.wait_config("degraded", |s| s["state"] == "degraded").await;
    assert_eq!(admin.get("models").await.status, 200, "a bad row does not spoil the list");
    admin.put("models/broken", &direct("mended", "main")).await.expect(200);
    assert_eq!(gateway.config_status().await["state"], "synced");
    assert_eq!(status_of(&gateway, "mended", CALLER_KEY).await, 200);
    etcd.put(&format!("{PREFIX}/models/junk"), "nonsense").await;
    gateway.wait_config("degraded", |s| s["state"] == "degraded").await;
    admin.delete("models/junk").await.expect(200);
    assert_eq!(gateway.config_status().await["state"], "synced");
}

#[tokio::test]
async fn rotation_in_etcd_reaches_every_gateway() {
    let (etcd, _upstream) = seeded().await;
    let (one, two) = (on(&etcd).start().await, on(&etcd).start().await);
    let body = one.admin_api().post("api_keys/caller/rotate", &json!({"grace_seconds": 3})).await.expect(200);
    let new = body["plaintext"].as_str().expect("the new secret").to_owned();
    for gateway in [&one, &two] {
        eventually("the new secret works", || async {
            (status_of(gateway, MODEL, &new).await == 200).then_some(())
        })
        .await;
    }
    for gateway in [&one, &two] {
        eventually("the old one ends", || async {
            (status_of(gateway, MODEL, CALLER_KEY).await == 401).then_some(())
        })
        .await;
        assert_eq!(status_of(gateway, MODEL, &new).await, 200);
    }
    let stored = rows(&etcd, &format!("{PREFIX}/api_keys/caller")).await[0].json();
    assert_eq!(stored["key_hash"], key_hash(&new));
    assert!(!stored.to_string().contains(&new));
}

#[tokio::test]
async fn rollback_in_etcd_as_far_as_it_remembers() {
    let (etcd, _upstream, gateway) = started().await;
    let admin = gateway.admin_api();
    let before = rows(&etcd, &format!("{PREFIX}/")).await;
    let good = before.iter().map(|row| row.revision).max().expect("rows");
    admin.patch("models/m", &json!({"display_name": "broken-name"})).await.expect(200);
    admin.create("cache_policies", &json!({"name": "unwanted"})).await;
    let dry = admin.post("rollback?dry_run=true", &json!({"revision": good})).await;
    assert_eq!(dry.status, 200, "{dry:?}");
    assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 404);
    admin.post("rollback", &json!({"revision": good})).await.expect(200);
    assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 200);
    let after = rows(&etcd, &format!("{PREFIX}/")).await;
    let documents = |rows: &[aisix_e2e::cluster::Row]| -> Vec<(String, Value)> {
        rows.iter().map(|row| (row.key.clone(), row.json())).collect()
    };
    assert_eq!(documents(&after), documents(&before));
    etcd.compact(after.iter().map(|row| row.revision).max().expect("rows")).await;
    let forgotten = admin.post("rollback", &json!({"revision": good})).await;
    assert!((400..500).contains(&forgotten.status), "{forgotten:?}");
    forgotten.refused(forgotten.status);
}
