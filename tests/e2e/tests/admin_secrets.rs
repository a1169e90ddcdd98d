//! Secrets behind the admin API: masked in every read, kept by `***`, generated and rotated by the server.

use aisix_e2e::documents::{KINDS, MARKER, World, openai_key};
use aisix_e2e::stores::{embedded, everything_shown, standard, status_of};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL};
use aisix_testkit::{FakeProvider, Gateway, eventually, key_hash};
use serde_json::{Value, json};

#[tokio::test]
async fn no_secret_is_ever_shown() {
    let (gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    for kind in KINDS {
        let document = world.rich(kind, "secretive");
        let created = admin.post(kind, &document).await;
        let id = created.expect(201)["id"].as_str().unwrap_or_default().to_owned();
        let item = format!("{kind}/{id}");
        let answers = [
            created,
            admin.get(&item).await,
            admin.get(kind).await,
            admin.put(&item, &document).await,
            admin.patch(&item, &json!({})).await,
            admin.put(&format!("{item}?dry_run=true"), &document).await,
        ];
        for answer in &answers {
            assert!(!answer.text.contains(MARKER), "{kind}: {answer:?}");
        }
        if document.to_string().contains(MARKER) {
            assert!(answers[1].text.contains("\"***\""), "{kind} has a secret: {}", answers[1].text);
        }
        // Errors quote no value.
        let mut bad = document.clone();
        bad["bogus"] = json!(MARKER);
        for (member, value) in document.as_object().expect("an object") {
            if value.to_string().contains(MARKER) {
                bad[member] = json!({"wrong": {"type": MARKER}});
            }
        }
        let refused = admin.put(&item, &bad).await;
        refused.refused(400);
        assert!(!refused.text.contains(MARKER), "{kind}: {}", refused.text);
    }
    let shown = everything_shown(&gateway, &admin).await;
    assert!(!shown.contains(MARKER), "{}", around(&shown));
}

/// The neighbourhood of the first leak.
fn around(text: &str) -> String {
    let at = text.find(MARKER).unwrap_or_default();
    let chars: Vec<char> = text.chars().collect();
    let at = text[..at].chars().count();
    chars[at.saturating_sub(200)..(at + 60).min(chars.len())].iter().collect()
}

#[tokio::test]
async fn three_stars_keep_the_stored_secret() {
    let (gateway, admin) = embedded().await;
    let upstream = FakeProvider::start().await;
    let (key, _) = standard(&admin, &upstream.base(), "sk-the-real-one", MODEL).await;
    let item = format!("provider_keys/{key}");
    let mut value = admin.get(&item).await.expect(200)["value"].clone();
    assert_eq!(value["api_key"], "***");
    value["telemetry_tags"] = json!({"featured": true});
    admin.put(&item, &value).await.expect(200);
    admin.patch(&item, &json!({"api_key": "***", "strip_headers": ["x"]})).await.expect(200);
    assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 200);
    assert_eq!(upstream.last_request().header("authorization"), Some("Bearer sk-the-real-one"));
    admin.patch(&item, &json!({"api_key": "sk-another"})).await.expect(200);
    assert_eq!(status_of(&gateway, MODEL, CALLER_KEY).await, 200);
    assert_eq!(upstream.last_request().header("authorization"), Some("Bearer sk-another"));
    // There is nothing to keep in a new entry.
    let paths = admin.post("provider_keys", &openai_key("new", &upstream.base(), "***")).await.error_paths();
    assert_eq!(paths, ["/api_key"]);
}

#[tokio::test]
async fn three_stars_round_trip_for_every_kind() {
    let (_gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    for kind in KINDS {
        let id = admin.create(kind, &world.rich(kind, "kept")).await;
        let item = format!("{kind}/{id}");
        let before = admin.get(&item).await.expect(200);
        admin.put(&item, &before["value"]).await.expect(200);
        let after = admin.get(&item).await.expect(200);
        assert_eq!(after["value"], before["value"], "{kind}");
    }
}

#[tokio::test]
async fn the_server_makes_caller_keys() {
    let (gateway, admin) = embedded().await;
    let upstream = FakeProvider::start().await;
    standard(&admin, &upstream.base(), "sk-up", MODEL).await;
    let answer = admin.post("api_keys", &json!({"display_name": "made", "allowed_models": [MODEL]})).await;
    let body = answer.expect(201);
    let secret = body["plaintext"].as_str().expect("the secret, once").to_owned();
    assert!(secret.len() >= 35 && secret.starts_with("sk-"), "{secret}");
    assert!(secret[3..].chars().all(|c| c.is_ascii_alphanumeric()), "{secret}");
    assert_eq!(body["value"]["key_hash"], key_hash(&secret), "{body}");
    assert_eq!(body["value"]["key_prefix"], secret[..8], "{body}");
    assert_eq!(status_of(&gateway, MODEL, &secret).await, 200, "in force at once");
    let again = admin.get(&format!("api_keys/{}", body["id"].as_str().unwrap_or_default())).await;
    assert_eq!(again.expect(200).get("plaintext"), None);
    assert_eq!(again.json()["value"]["key_prefix"], secret[..8]);
    let other = admin.post("api_keys", &json!({"display_name": "other", "allowed_models": []})).await;
    assert_ne!(other.expect(201)["plaintext"], secret);
    // A given hash is taken and no secret made up.
    let given = json!({"display_name": "given", "key_hash": key_hash("sk-given"), "allowed_models": [MODEL]});
    assert_eq!(admin.post("api_keys", &given).await.expect(201).get("plaintext"), None);
    assert_eq!(status_of(&gateway, MODEL, "sk-given").await, 200);
    assert!(!everything_shown(&gateway, &admin).await.contains(&secret));
    // A replacement never throws the secret away silently.
    let item = format!("api_keys/{}", body["id"].as_str().unwrap_or_default());
    admin.put(&item, &json!({"display_name": "made", "allowed_models": [MODEL]})).await.refused(400);
    assert_eq!(status_of(&gateway, MODEL, &secret).await, 200);
    // A dry run makes no key that could ever work.
    let dry =
        admin.post("api_keys?dry_run=true", &json!({"display_name": "dry", "allowed_models": [MODEL]})).await;
    if let Some(secret) = dry.expect(201)["plaintext"].as_str() {
        assert_eq!(status_of(&gateway, MODEL, secret).await, 401);
    }
}

/// A model behind an upstream and a generated caller key: its id and secret.
async fn caller(gateway: &Gateway, upstream: &FakeProvider) -> (String, String) {
    let admin = gateway.admin_api();
    standard(&admin, &upstream.base(), "sk-up", MODEL).await;
    let key = json!({"display_name": "rotating", "allowed_models": [MODEL], "team_id": "t", "rate_limit": {"rpm": 1000}});
    let body = admin.post("api_keys", &key).await.expect(201);
    let text = |member: &str| body[member].as_str().expect(member).to_owned();
    (text("id"), text("plaintext"))
}

#[tokio::test]
async fn rotation_replaces_the_secret_at_once() {
    let (gateway, admin) = embedded().await;
    let upstream = FakeProvider::start().await;
    let (id, old) = caller(&gateway, &upstream).await;
    let item = format!("api_keys/{id}");
    let before = admin.get(&item).await.expect(200);
    let rotate =
        |suffix: &str| aisix_testkit::Request::new("POST", &format!("/admin/v1/{item}/rotate{suffix}"));
    let answer = admin.send(rotate("")).await;
    let body = answer.expect(200);
    let new = body["plaintext"].as_str().expect("the new secret").to_owned();
    assert!(new.len() >= 35 && new.starts_with("sk-") && new != old, "{new}");
    assert_eq!(body["entry"]["id"], id, "{body}");
    assert!(body["entry"]["revision"].as_u64() > before["revision"].as_u64(), "{body}");
    assert_eq!(body["entry"]["value"]["key_hash"], key_hash(&new));
    assert_eq!(body["entry"]["value"]["key_prefix"], new[..8]);
    assert_eq!(status_of(&gateway, MODEL, &new).await, 200);
    assert_eq!(status_of(&gateway, MODEL, &old).await, 401);
    let after = admin.get(&item).await.expect(200);
    for member in ["display_name", "allowed_models", "team_id", "rate_limit"] {
        assert_eq!(after["value"][member], before["value"][member], "{member}");
    }
    let grace = |seconds: Value| json!({"grace_seconds": seconds});
    for bad in [json!(-1), json!("5"), json!(30 * 24 * 3600 + 1), json!(1.5)] {
        admin.post(&format!("{item}/rotate"), &grace(bad)).await.refused(400);
    }
    admin.post(&format!("{item}/rotate"), &json!({"grace": 5})).await.refused(400);
    assert_eq!(status_of(&gateway, MODEL, &new).await, 200, "a refused rotation changes nothing");
    admin.post("api_keys/none/rotate", &json!({})).await.refused(404);
    admin.if_match(1).post(&format!("{item}/rotate"), &json!({})).await.refused(412);
    admin.post(&format!("apikeys/{id}/rotate"), &grace(json!(30 * 24 * 3600))).await.expect(200);
    assert_eq!(status_of(&gateway, MODEL, &new).await, 200, "within its grace");
    let shown = everything_shown(&gateway, &admin).await;
    assert!(!shown.contains(&new) && !shown.contains(&old));
}

#[tokio::test]
async fn both_secrets_work_during_the_grace() {
    let (mut gateway, admin) = embedded().await;
    let upstream = FakeProvider::start().await;
    let (id, old) = caller(&gateway, &upstream).await;
    let rotated = std::time::Instant::now();
    let body = admin.post(&format!("api_keys/{id}/rotate"), &json!({"grace_seconds": 3})).await.expect(200);
    let new = body["plaintext"].as_str().expect("the new secret").to_owned();
    for secret in [&old, &new] {
        let status = status_of(&gateway, MODEL, secret).await;
        assert!(status == 200 || rotated.elapsed().as_secs() >= 3, "{status}");
    }
    eventually("the grace ends", || async { (status_of(&gateway, MODEL, &old).await == 401).then_some(()) })
        .await;
    let took = rotated.elapsed().as_secs_f32();
    assert!((2.0..8.0).contains(&took), "{took} s");
    assert_eq!(status_of(&gateway, MODEL, &new).await, 200);
    assert_eq!(gateway.config_status().await["state"], "synced");
    // A restart neither forgets the grace nor prolongs it.
    let body =
        admin.post(&format!("api_keys/{id}/rotate"), &json!({"grace_seconds": 3600})).await.expect(200);
    let newest = body["plaintext"].as_str().expect("the newest secret").to_owned();
    gateway.kill().await;
    gateway.start_again().await;
    for (secret, status) in [(&old, 401), (&new, 200), (&newest, 200)] {
        assert_eq!(status_of(&gateway, MODEL, secret).await, status);
    }
    // A rotation without grace ends every older secret: that is what it is for after a leak.
    let body = admin.post(&format!("api_keys/{id}/rotate"), &json!({})).await.expect(200);
    let last = body["plaintext"].as_str().expect("the last secret").to_owned();
    for (secret, status) in [(&new, 401), (&newest, 401), (&last, 200)] {
        assert_eq!(status_of(&gateway, MODEL, secret).await, status);
    }
    // A disabled key stays disabled under both secrets.
    admin.patch(&format!("api_keys/{id}"), &json!({"disabled": true})).await.expect(200);
    let body = admin.post(&format!("api_keys/{id}/rotate"), &json!({"grace_seconds": 60})).await.expect(200);
    let next = body["plaintext"].as_str().expect("a secret");
    for secret in [last.as_str(), next] {
        assert_eq!(status_of(&gateway, MODEL, secret).await, 401);
    }
}
