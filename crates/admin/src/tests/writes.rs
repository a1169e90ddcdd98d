//! Changes of single resources: every kind, conditions, dry runs, secrets.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Answer,
    documents::{World, collections},
    plane::Plane,
};

const CHANGED: &str = r#"{"error_msg":"the resource was changed meanwhile"}"#;

/// The entity tag, which repeats the revision of the entry.
fn tag(answer: &Answer) -> String {
    let tag = format!("\"{}\"", answer.json()["revision"]);
    assert_eq!(answer.header("etag"), tag, "{answer:?}");
    tag
}

#[tokio::test]
async fn every_kind_is_created_read_changed_and_deleted() {
    for collection in collections() {
        let plane = Plane::new().await;
        let world = World::create(&plane).await;
        let (document, patch) = world.document(collection);
        plane
            .described
            .takes(&Method::POST, &format!("/admin/v1/{collection}"), &document)
            .unwrap_or_else(|why| panic!("{collection}: {why}"));

        let created = plane.post(collection, &document).await;
        assert_eq!(created.status, StatusCode::CREATED, "{collection}: {created:?}");
        let mut entry = created.json();
        let id = entry["id"].as_str().unwrap().to_owned();
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(created.header("location"), format!("/admin/v1/{collection}/{id}"));
        assert_eq!(entry["revision"], plane.store.revision());
        assert!(!created.text().contains("SECRET"), "{collection}: {created:?}");
        tag(&created);

        let path = format!("{collection}/{id}");
        let read = plane.get(&path).await;
        entry.as_object_mut().unwrap().remove("plaintext");
        assert_eq!(read.json(), entry, "{collection}");
        assert_eq!(tag(&read), tag(&created));

        // What was read can be written back, and that is no change.
        let before = plane.store.revision();
        let same = plane.put(&path, &read.json()["value"]).await;
        assert_eq!(same.status, StatusCode::OK, "{collection}: {same:?}");
        assert_eq!(same.json()["value"], entry["value"], "{collection}");
        let again = plane.put(&path, &same.json()["value"]).await;
        assert_eq!(again.json(), same.json(), "{collection}: nothing changed");
        assert!(plane.store.revision() <= before + 1, "{collection}: at most the defaults are new");

        let patched = plane.patch(&path, &patch).await;
        assert_eq!(patched.status, StatusCode::OK, "{collection}: {patched:?}");
        for (name, value) in patch.as_object().unwrap() {
            assert_eq!(patched.json()["value"][name], *value, "{collection}: {name}");
        }
        assert_eq!(patched.json()["revision"], plane.store.revision());
        assert_eq!(plane.get(&path).await.json(), patched.json());

        let deleted = plane.delete(&path).await;
        assert_eq!(deleted.text(), format!(r#"{{"deleted":true,"id":"{id}"}}"#));
        assert!(!plane.store.rows().contains_key(&path));
        for method in [Method::GET, Method::DELETE] {
            let gone = plane.ask(method, &path, &[], &Value::Null).await;
            assert_eq!(gone.status, StatusCode::NOT_FOUND);
            assert_eq!(gone.text(), r#"{"error_msg":"resource not found"}"#);
        }
        for method in [Method::PUT, Method::PATCH] {
            let gone = plane.ask(method, &path, &[], &json!({})).await;
            assert_eq!(gone.status, StatusCode::NOT_FOUND);
        }
    }
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let plane = Plane::new().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d", "e & f"] {
        ids.push(plane.create("cache_policies", &json!({ "name": name })).await);
    }
    ids.sort();
    let whole = plane.get("cache_policies").await;
    assert_eq!(whole.header("x-total-count"), "5");
    assert!(whole.header("link").is_empty());
    let shown = |answer: &Answer| -> Vec<String> {
        let list = answer.json();
        list.as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(shown(&whole), ids);

    let mut seen = Vec::new();
    let mut next = "cache_policies?limit=2".to_owned();
    for page in 0.. {
        assert!(page < 3, "{seen:?}");
        let answer = plane.get(&next).await;
        assert_eq!(answer.header("x-total-count"), "5");
        seen.extend(shown(&answer));
        let Some(link) = answer.headers.get("link") else { break };
        let link = link.to_str().unwrap().strip_suffix(">; rel=\"next\"").unwrap();
        next = link.strip_prefix("</admin/v1/").unwrap().to_owned();
    }
    assert_eq!(seen, ids);

    let named = plane.get("cache_policies?name=e%20%26%20f").await;
    assert_eq!(named.json()[0]["value"]["name"], "e & f");
    assert_eq!((named.header("x-total-count"), shown(&named).len()), ("1", 1));
    assert_eq!(plane.get("cache_policies?name=e").await.text(), "[]");
    let last = plane.get(&format!("cache_policies?limit=2&after={}", ids[3])).await;
    assert_eq!((shown(&last), last.header("link")), (vec![ids[4].clone()], ""));
    let exact = plane.get(&format!("cache_policies?limit=2&after={}", ids[2])).await;
    assert_eq!((shown(&exact).len(), exact.header("link")), (2, ""));
    // A filtered page leads to a filtered page.
    let filtered = plane.get("cache_policies?name=a&limit=1&after=").await;
    assert_eq!(filtered.header("link"), "");
    assert_eq!(plane.get("api_keys?limit=1").await.header("x-total-count"), "0");
}

#[tokio::test]
async fn if_match_decides() {
    let plane = Plane::new().await;
    let (_, id) = plane.standard().await;
    let path = format!("models/{id}");
    let patch = |value: u64| json!({ "timeout": value });
    let tried = |tags: String, method: Method, body: Value| {
        let (plane, path) = (&plane, &path);
        async move { plane.ask(method, path, &[("if-match", &tags)], &body).await }
    };
    let first = tag(&plane.get(&path).await);
    let second = tag(&tried(first.clone(), Method::PATCH, patch(1)).await);
    assert_ne!(first, second);

    let value = plane.get(&path).await.json()["value"].clone();
    for (method, body) in
        [(Method::PATCH, patch(2)), (Method::PUT, value.clone()), (Method::DELETE, Value::Null)]
    {
        for stale in [first.clone(), format!("W/{second}"), "\"x\"".to_owned(), format!("{first}, \"999\"")] {
            let answer = tried(stale.clone(), method.clone(), body.clone()).await;
            assert_eq!(answer.status, StatusCode::PRECONDITION_FAILED, "{method} {stale}");
            assert_eq!(answer.text(), CHANGED);
        }
        for malformed in ["5", "\"5", "*, \"5\"", "\"5\" \"6\""] {
            let answer = tried(malformed.to_owned(), method.clone(), body.clone()).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{method} {malformed}");
        }
        // What is not there is told first.
        let headers = [("if-match", first.as_str())];
        let missing = plane.ask(method.clone(), "models/nothing", &headers, &body).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND, "{method}");
        let missing = plane.ask(method.clone(), "models/nothing", &[("if-match", "*")], &body).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND, "{method}");
        let missing = plane.ask(method, "models/nothing", &[("if-match", "\"x\"")], &body).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(tag(&plane.get(&path).await), second, "nothing was written");

    let third = tried(format!("{first}, {second}"), Method::PATCH, patch(3)).await;
    assert_eq!((third.status, third.json()["value"]["timeout"].as_u64()), (StatusCode::OK, Some(3)));
    assert_eq!(tried("*".to_owned(), Method::PUT, value).await.status, StatusCode::OK);
    let fourth = tag(&plane.get(&path).await);
    assert_eq!(tried(fourth, Method::DELETE, Value::Null).await.status, StatusCode::OK);
}

#[tokio::test]
async fn of_two_writers_one_wins_and_nothing_is_lost() {
    let plane = Plane::new().await;
    let (_, id) = plane.standard().await;
    let path = format!("models/{id}");
    let tag = tag(&plane.get(&path).await);
    let headers = [("if-match", tag.as_str())];
    // Somebody else writes the same resource after this write was checked.
    let key = path.clone();
    plane.store.interlope(move |store| {
        let mut model = store.rows()[&key].clone();
        model["retries"] = json!(7);
        store.put(&key, Some(&model));
    });
    let answer = plane.ask(Method::PATCH, &path, &headers, &json!({"timeout": 1})).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::PRECONDITION_FAILED, CHANGED));
    assert_eq!(plane.store.rows()[&path].get("timeout"), None);

    // Without a condition the write is made on top of the other.
    let key = path.clone();
    plane.store.interlope(move |store| {
        let mut model = store.rows()[&key].clone();
        model["retries"] = json!(8);
        store.put(&key, Some(&model));
    });
    let answer = plane.patch(&path, &json!({"timeout": 1})).await;
    assert_eq!(answer.status, StatusCode::OK);
    let row = plane.store.rows()[&path].clone();
    assert_eq!((&row["timeout"], &row["retries"]), (&json!(1), &json!(8)));

    // A name that was free when it was checked is taken by now.
    let document = json!({"name": "n"});
    plane.store.interlope(|store| {
        store.put("cache_policies/other", Some(&json!({"name": "n"})));
    });
    let answer = plane.post("cache_policies", &document).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_at_once_lose_nothing() {
    let plane = std::sync::Arc::new(Plane::new().await);
    let (_, id) = plane.standard().await;
    let path = format!("models/{id}");
    let start = tag(&plane.get(&path).await);
    let tasks: Vec<_> = (0..16_u64)
        .map(|n| {
            let (plane, path, start) = (plane.clone(), path.clone(), start.clone());
            tokio::spawn(async move {
                let headers = [("if-match", start.as_str())];
                let body = json!({"timeout": n + 100});
                let conditional = plane.ask(Method::PATCH, &path, &headers, &body).await;
                let created = plane.post("cache_policies", &json!({"name": format!("p{n}")})).await;
                (conditional.status, created.status)
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        let (conditional, created) = task.await.unwrap();
        assert_eq!(created, StatusCode::CREATED);
        match conditional {
            StatusCode::OK => won += 1,
            other => assert_eq!(other, StatusCode::PRECONDITION_FAILED),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(plane.get("cache_policies").await.header("x-total-count"), "16");
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let plane = Plane::new().await;
    let (key, model) = plane.standard().await;
    let caller = plane.create("api_keys", &json!({"display_name": "c", "allowed_models": []})).await;
    let (rows, revision) = (plane.store.rows(), plane.store.revision());

    let policy = json!({"name": "p"});
    let created = plane.post("cache_policies?dry_run=true", &policy).await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert_eq!(created.header("x-aisix-dry-run"), "true");
    assert_eq!(created.json()["revision"], 0);
    assert_eq!(tag(&created), "\"0\"");
    assert!(created.header("location").starts_with("/admin/v1/cache_policies/"));
    let dry = plane.post("api_keys?dry_run=true", &json!({"display_name": "d", "allowed_models": []})).await;
    assert!(dry.json().get("plaintext").is_none(), "it would never work");
    let (path, dry) = (format!("models/{model}"), format!("models/{model}?dry_run=true"));
    let now = plane.get(&path).await;
    let patched = plane.patch(&dry, &json!({"timeout": 9})).await;
    assert_eq!(patched.json()["value"]["timeout"], 9);
    assert_eq!(patched.json()["revision"], now.json()["revision"]);
    let replaced = plane.put(&dry, &now.json()["value"]).await;
    assert_eq!(replaced.json()["value"], now.json()["value"]);
    assert_eq!(plane.delete(&dry).await.status, StatusCode::OK);
    let rotated = plane.post(&format!("api_keys/{caller}/rotate?dry_run=true"), &Value::Null).await;
    assert!(rotated.json().get("plaintext").is_none());
    let operations = json!({"operations": [{"op": "delete", "kind": "models", "id": model}]});
    let batch = plane.post("batch?dry_run=true", &operations).await;
    assert_eq!(batch.json()["revision"], 0);
    let plan = plane.post("apply?dry_run=true&prune=true", &json!({"documents": []})).await;
    assert_eq!(plan.json()["changes"].as_array().unwrap().len(), 3);
    let rollback = plane.post("rollback?dry_run=true", &json!({"revision": 1})).await;
    assert_eq!(rollback.json()["changes"].as_array().unwrap().len(), 2);

    // It fails as the write would.
    let refused = plane.delete(&format!("provider_keys/{key}?dry_run=true")).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.header("x-aisix-dry-run"), "true");
    assert_eq!(plane.post("models?dry_run=true", &json!({})).await.status, StatusCode::BAD_REQUEST);
    let headers = [("if-match", "\"0\"")];
    let stale = plane.ask(Method::DELETE, &dry, &headers, &Value::Null).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);

    assert_eq!((plane.store.rows(), plane.store.revision()), (rows, revision));
    assert_eq!(plane.get("audit").await.json().as_array().unwrap().len(), 3);
    // `false` is what it says.
    let real = plane.post("cache_policies?dry_run=false", &policy).await;
    assert_eq!((real.header("x-aisix-dry-run"), plane.store.revision()), ("", revision + 1));
}

#[tokio::test]
async fn secrets_are_masked_and_kept() {
    let plane = Plane::new().await;
    let key = json!({
        "display_name": "k", "api_key": "sk-SECRET",
        "request": {"default_headers": {"x-a": "SECRET-a", "x-b": "SECRET-b"}},
    });
    let id = plane.create("provider_keys", &key).await;
    let path = format!("provider_keys/{id}");
    let mut value = plane.get(&path).await.json()["value"].clone();
    assert_eq!(value["api_key"], "***");
    assert_eq!(value["request"]["default_headers"], json!({"x-a": "***", "x-b": "***"}));
    value["request"]["default_headers"]["x-b"] = json!("SECRET-new");
    value["api_base"] = json!("https://new.example");
    assert_eq!(plane.put(&path, &value).await.status, StatusCode::OK);
    let row = plane.store.rows()[&path].clone();
    assert_eq!(row["api_key"], "sk-SECRET");
    assert_eq!(row["request"]["default_headers"], json!({"x-a": "SECRET-a", "x-b": "SECRET-new"}));
    assert_eq!(plane.patch(&path, &json!({"api_key": "***"})).await.status, StatusCode::OK);
    assert_eq!(plane.store.rows()[&path]["api_key"], "sk-SECRET");

    // Where none is stored, the mask is no secret.
    let none = plane.post("provider_keys", &json!({"display_name": "n", "api_key": "***"})).await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST);
    assert_eq!(none.json()["errors"][0]["path"], "/api_key");
    let none = plane.patch(&path, &json!({"request": {"default_headers": {"x-c": "***"}}})).await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST);
    assert_eq!(none.json()["errors"][0]["path"], "/request/default_headers/x-c");
}

#[tokio::test]
async fn names_are_taken_once_and_references_hold() {
    let plane = Plane::new().await;
    let (key, model) = plane.standard().await;
    let other = json!({"display_name": "main", "api_key": "x"});
    let taken = plane.post("provider_keys", &other).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    assert_eq!(taken.text(), r#"{"error_msg":"name \"main\" already in use by another resource"}"#);

    let referenced = plane.delete(&format!("provider_keys/{key}")).await;
    assert_eq!(referenced.status, StatusCode::CONFLICT);
    let dependant = json!({"kind": "models", "id": model, "name": "fast", "field": "provider_key_id"});
    assert_eq!(
        referenced.json(),
        json!({
            "error_msg": "\"main\" is referenced by model \"fast\" (provider_key_id)",
            "dependants": [dependant],
        })
    );
    let nowhere = plane.patch(&format!("models/{model}"), &json!({"provider_key_id": "gone"})).await;
    assert_eq!(nowhere.status, StatusCode::BAD_REQUEST);
    assert_eq!(nowhere.json()["errors"][0]["path"], "/provider_key_id");

    let caller = json!({"display_name": "c", "allowed_models": ["fast"]});
    plane.create("api_keys", &caller).await;
    let renamed = plane.patch(&format!("models/{model}"), &json!({"display_name": "slow"})).await;
    assert_eq!(renamed.status, StatusCode::CONFLICT, "{renamed:?}");
    assert_eq!(renamed.json()["dependants"][0]["field"], "allowed_models[0]");
}

#[tokio::test]
async fn caller_keys_are_made_and_rotated() {
    let plane = Plane::new().await;
    let made = plane.post("apikeys", &json!({"display_name": "c", "allowed_models": []})).await;
    assert_eq!((made.status, made.header("cache-control")), (StatusCode::CREATED, "no-store"));
    let entry = made.json();
    let secret = entry["plaintext"].as_str().unwrap();
    let hex = |secret: &str| -> String {
        Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert_eq!(entry["value"]["key_hash"], hex(secret));
    assert_eq!(entry["value"]["key_prefix"], &secret[..8]);
    let id = entry["id"].as_str().unwrap();
    assert_eq!(made.header("location"), format!("/admin/v1/apikeys/{id}"));
    for path in [format!("api_keys/{id}"), "apikeys".to_owned(), "audit".to_owned()] {
        assert!(!plane.get(&path).await.text().contains(secret), "{path}");
    }

    let path = format!("api_keys/{id}/rotate");
    let rotated = plane.post(&path, &json!({"grace_seconds": 60})).await;
    assert_eq!(rotated.header("cache-control"), "no-store");
    let body = rotated.json();
    let new = body["plaintext"].as_str().unwrap();
    assert_ne!(new, secret);
    assert_eq!(body["entry"]["id"], id);
    assert_eq!(body["entry"]["value"]["key_hash"], hex(new));
    assert_eq!(body["entry"]["value"]["previous_key_hash"], hex(secret));
    assert_eq!(rotated.header("etag"), format!("\"{}\"", body["entry"]["revision"]));
    assert!(!plane.get("audit").await.text().contains(new));

    // Without a grace time the old secret is forgotten at once.
    let at_once = plane.post(&format!("apikeys/{id}/rotate"), &Value::Null).await;
    assert!(at_once.json()["entry"]["value"].get("previous_key_hash").is_none_or(Value::is_null));
    assert_ne!(at_once.json()["plaintext"], new);

    let month = 30 * 24 * 3600;
    assert_eq!(plane.post(&path, &json!({"grace_seconds": month})).await.status, StatusCode::OK);
    for (body, at) in [
        (json!({"grace_seconds": month + 1}), "/grace_seconds"),
        (json!({"grace_seconds": -1}), "/grace_seconds"),
        (json!({"grace_seconds": 1.5}), "/grace_seconds"),
        (json!({"grace_seconds": "1"}), "/grace_seconds"),
        (json!({"grace": 1}), ""),
        (json!([]), ""),
    ] {
        let refused = plane.post(&path, &body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(refused.json()["errors"][0]["path"], at, "{body}");
    }
    let missing = plane.post("api_keys/nothing/rotate", &Value::Null).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let headers = [("if-match", "\"1\"")];
    let stale = plane.ask(Method::POST, &path, &headers, &Value::Null).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);

    // A hash that the client chose has no plaintext to show.
    let own = json!({"display_name": "own", "allowed_models": [], "key_hash": "a".repeat(64)});
    let own = plane.post("api_keys", &own).await;
    assert!(own.json().get("plaintext").is_none());
}

#[tokio::test]
async fn a_write_is_in_force_when_it_is_answered() {
    let plane = Plane::new().await;
    let (_, model) = plane.standard().await;
    for timeout in 1..20_u64 {
        let answer = plane.patch(&format!("models/{model}"), &json!({ "timeout": timeout })).await;
        let set = plane.config.current();
        let stored = set.models().get(&model).unwrap();
        assert_eq!(stored.value.timeout.unwrap().as_millis(), timeout.into());
        assert_eq!(answer.json()["revision"], stored.revision);
    }
}

#[tokio::test]
async fn ids_of_other_programs_are_reached() {
    let plane = Plane::new().await;
    let id = "team/a b+\u{e9}?";
    plane.store.put(&format!("cache_policies/{id}"), Some(&json!({"name": "odd"})));
    let path = "cache_policies/team%2Fa%20b%2B%C3%A9%3F";
    assert_eq!(plane.get(path).await.json()["id"], id);
    assert_eq!(plane.patch(path, &json!({"enabled": false})).await.status, StatusCode::OK);
    assert_eq!(plane.delete(path).await.json()["id"], id);
    for odd in ["%ff", "%00", "..%2Fcache_policies", "%E2%80%AE", &"x".repeat(9000)] {
        let path = format!("cache_policies/{odd}");
        assert_eq!(plane.get(&path).await.status, StatusCode::NOT_FOUND, "{odd}");
        assert_eq!(plane.delete(&path).await.status, StatusCode::NOT_FOUND, "{odd}");
    }
}
