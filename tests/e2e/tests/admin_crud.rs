//! Every kind through the writing admin API, and the answers around it.

use aisix_e2e::documents::{KINDS, World, change_of, contains, echo_key, name_member};
use aisix_e2e::stores::{ask, embedded, status_of, visible};
use aisix_testkit::admin::percent;
use aisix_testkit::gateway::ADMIN_KEY;
use aisix_testkit::gateway::builder::CALLER_KEY;
use aisix_testkit::{Admin, Answer, Gateway, Request};
use serde_json::{Value, json};

fn is_uuid_v4(id: &str) -> bool {
    let parts: Vec<&str> = id.split('-').collect();
    let hex = id.chars().all(|c| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c));
    hex && parts.iter().map(|p| p.len()).eq([8, 4, 4, 4, 12]) && parts[2].starts_with('4')
}

/// Whether a 400 points at a field, or at its parent with the field named in the text.
fn names(answer: &Answer, path: &str) -> bool {
    answer.refused(400);
    let (parent, field) = path.rsplit_once('/').expect("a path");
    let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().any(|error| {
        let message = error["message"].as_str().unwrap_or_default();
        error["path"] == path || (error["path"] == parent && message.contains(field))
    })
}

/// A document without what reads mask.
fn without_secrets(kind: &str, mut document: Value) -> Value {
    if kind == "provider_keys" {
        document["api_key"] = json!("***");
    }
    document
}

#[tokio::test]
async fn every_kind_is_created_read_changed_and_deleted() {
    let (gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    for kind in KINDS {
        let document = world.minimal(kind, "fresh");
        let created = admin.post(kind, &document).await;
        let entry = created.expect(201);
        let id = entry["id"].as_str().unwrap_or_default().to_owned();
        assert!(is_uuid_v4(&id), "{kind}: {entry}");
        let revision = created.revision();
        let location = format!("/admin/v1/{kind}/{id}");
        assert_eq!(created.header("location"), Some(location.as_str()), "{kind}");
        let shown = without_secrets(kind, document.clone());
        assert!(contains(&entry["value"], &shown), "{kind}: {entry}");

        let item = format!("{kind}/{id}");
        let read = admin.get(&item).await;
        assert_eq!((read.expect(200), read.revision()), (entry.clone(), revision), "{kind}");
        assert!(admin.list(kind).await.contains(&entry), "{kind}");

        let (member, value) = change_of(kind);
        let mut changed = document.clone();
        changed[member] = value.clone();
        let replaced = admin.put(&item, &changed).await;
        assert_eq!(replaced.expect(200)["value"][member], value, "{kind}");
        assert!(replaced.revision() > revision, "{kind}");

        let back = admin.put(&item, &document).await;
        assert_ne!(back.expect(200)["value"][member], value, "{kind}: a replacement is no merge");
        let patched = admin.patch(&item, &json!({member: value})).await;
        assert_eq!(patched.expect(200), admin.get(&item).await.json(), "{kind}");
        assert_eq!(patched.json()["value"][member], value, "{kind}");
        assert!(patched.revision() > back.revision(), "{kind}");

        let deleted = admin.delete(&item).await;
        assert_eq!(deleted.expect(200), json!({"deleted": true, "id": id}), "{kind}");
        assert_eq!(admin.get(&item).await.refused(404), "resource not found");
        for gone in [
            admin.put(&item, &document).await,
            admin.patch(&item, &json!({})).await,
            admin.delete(&item).await,
        ] {
            assert_eq!(gone.refused(404), "resource not found", "{kind}");
        }
    }
    let status = gateway.config_status().await;
    assert_eq!((&status["state"], &status["rejected"]), (&json!("synced"), &json!([])));
    assert_eq!(status["partially_compatible"], json!([]));
}

#[tokio::test]
async fn rich_documents_come_back_whole_and_are_fully_understood() {
    let (gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    for kind in KINDS {
        let document = world.rich(kind, "rich");
        let entry = admin.post(kind, &document).await.expect(201);
        let read =
            admin.get(&format!("{kind}/{}", entry["id"].as_str().unwrap_or_default())).await.expect(200);
        for (name, value) in document.as_object().expect("an object") {
            let found = &read["value"][name];
            let masked = value.to_string().contains(aisix_e2e::documents::MARKER);
            assert!(masked || contains(found, value), "{kind}.{name}: {found} is not {value}");
        }
    }
    let status = gateway.config_status().await;
    assert_eq!(
        (&status["state"], &status["partially_compatible"]),
        (&json!("synced"), &json!([])),
        "{status}"
    );
}

#[tokio::test]
async fn the_other_spelling_of_api_keys_is_the_same_collection() {
    let (_gateway, admin) = embedded().await;
    let document = aisix_e2e::documents::caller("spelled", "sk-spelled");
    let created = admin.post("apikeys", &document).await.expect(201);
    let id = created["id"].as_str().unwrap_or_default();
    assert_eq!(admin.get(&format!("api_keys/{id}")).await.expect(200), created);
    assert_eq!(admin.patch(&format!("apikeys/{id}"), &json!({"team_id": "t"})).await.status, 200);
    assert_eq!(admin.list("apikeys").await, admin.list("api_keys").await);
    assert_eq!(admin.delete(&format!("apikeys/{id}")).await.status, 200);
}

#[tokio::test]
async fn old_spellings_of_fields_are_taken_and_the_new_ones_shown() {
    let (_gateway, admin) = embedded().await;
    let key =
        admin.post("provider_keys", &json!({"display_name": "old", "secret": "sk-old"})).await.expect(201);
    assert_eq!((&key["value"]["api_key"], key["value"].get("secret")), (&json!("***"), None), "{key}");
    for kind in ["mcp_servers", "a2a_agents"] {
        let document = json!({"display_name": "old", "url": "https://x.example"});
        let entry = admin.post(kind, &document).await.expect(201);
        assert_eq!((&entry["value"]["name"], entry["value"].get("display_name")), (&json!("old"), None));
    }
    let both = json!({"display_name": "both", "secret": "a", "api_key": "b"});
    admin.post("provider_keys", &both).await.refused(400);
}

#[tokio::test]
async fn a_write_is_in_force_when_its_answer_arrives() {
    let (gateway, admin) = embedded().await;
    admin.create("api_keys", &aisix_e2e::documents::caller("c", CALLER_KEY)).await;
    let key = admin.create("provider_keys", &echo_key("echo-key")).await;
    for round in 0..10 {
        let name = format!("model-{round}");
        let model =
            json!({"display_name": name, "provider": "echo", "model_name": "x", "provider_key_id": key});
        let id = admin.create("models", &model).await;
        assert_eq!(status_of(&gateway, &name, CALLER_KEY).await, 200, "created");
        let other = format!("renamed-{round}");
        admin.patch(&format!("models/{id}"), &json!({"display_name": other})).await.expect(200);
        assert_eq!(status_of(&gateway, &name, CALLER_KEY).await, 404, "renamed");
        assert_eq!(status_of(&gateway, &other, CALLER_KEY).await, 200, "renamed");
        admin.delete(&format!("models/{id}")).await.expect(200);
        assert_eq!(status_of(&gateway, &other, CALLER_KEY).await, 404, "deleted");
    }
}

#[tokio::test]
async fn validation_names_the_field() {
    let (_gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    let with = |kind: &str, member: &str, value: Value| {
        let mut document = world.minimal(kind, "bad");
        document[member] = value;
        (kind.to_owned(), document)
    };
    let lacking = |kind: &str, member: &str| {
        let mut document = world.minimal(kind, "bad");
        document.as_object_mut().expect("an object").remove(member);
        (kind.to_owned(), document)
    };
    let group = json!({"targets": [{"model": world.model}, {"model": world.model, "wieght": 1}]});
    let cases = [
        (with("models", "timeout", json!("30s")), "/timeout"),
        (with("models", "timeot", json!(1)), "/timeot"),
        (with("models", "retries", json!(-1)), "/retries"),
        (with("models", "retries", json!(1.5)), "/retries"),
        (with("models", "allowed_cidrs", json!(["10.0.0.0/99"])), "/allowed_cidrs/0"),
        (lacking("models", "model_name"), ""),
        (("models".to_owned(), json!({"display_name": "g", "routing": group})), "/routing/targets/1/wieght"),
        (with("provider_keys", "api_key", json!("")), "/api_key"),
        (with("provider_keys", "adapter", json!("carrier-pigeon")), "/adapter"),
        (lacking("provider_keys", "api_key"), "/api_key"),
        (with("api_keys", "key_hash", json!("ABC")), "/key_hash"),
        (with("api_keys", "expires_at", json!("tomorrow")), "/expires_at"),
        (with("guardrails", "patterns", json!([{"kind": "regex", "value": "("}])), "/patterns/0/value"),
        (with("guardrails", "kind", json!("crystal_ball")), "/kind"),
        (with("guardrail_attachments", "scope_type", json!("galaxy")), "/scope_type"),
        (with("cache_policies", "ttl_seconds", json!(0)), "/ttl_seconds"),
        (with("cache_policies", "ttl", json!(5)), "/ttl"),
        (with("rate_limit_policies", "max_requests", json!(0)), "/max_requests"),
        (with("observability_exporters", "endpoint", json!("ftp://x")), "/endpoint"),
        (with("mcp_servers", "name", json!("a__b")), "/name"),
        (with("a2a_agents", "name", json!("a/b")), "/name"),
        (with("oidc_providers", "audiences", json!([])), "/audiences"),
        (with("oidc_providers", "leeway_secs", json!(301)), "/leeway_secs"),
        (with("claim_mappings", "match", json!([])), "/match"),
        (with("passthrough_routes", "path_prefix", json!("/v1/x")), "/path_prefix"),
        (with("mcp_policies", "scope", json!("team")), ""),
        (with("mcp_auth_settings", "resource_url", json!(7)), "/resource_url"),
    ];
    for ((kind, document), path) in cases {
        let before = admin.list(&kind).await;
        let answer = admin.post(&kind, &document).await;
        let paths = answer.error_paths();
        assert!(!paths.is_empty() && (path.is_empty() || names(&answer, path)), "{path:?}: {}", answer.text);
        for error in answer.json()["errors"].as_array().into_iter().flatten() {
            assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{error}");
        }
        assert_eq!(admin.list(&kind).await, before, "{kind}: nothing was written");
    }
    // Everything that is wrong is told at once.
    let two = json!({"display_name": "", "provider": "openai", "model_name": "m", "provider_key_id": world.provider_key,
                     "timeout": "x", "bogus": 1});
    let answer = admin.post("models", &two).await;
    for path in ["/display_name", "/timeout", "/bogus"] {
        assert!(names(&answer, path), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_in_the_envelope() {
    let (_gateway, admin) = embedded().await;
    let send = async |method: &str, content_type: Option<&str>, body: Vec<u8>| {
        let mut request = Request::new(method, "/admin/v1/models").body(body);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        admin.send(request).await
    };
    let json_type = Some("application/json");
    for body in ["", "{", "{\"a\":1}}", "nonsense", "{\"display_name\": \"\u{1}\"}"] {
        send("POST", json_type, body.into()).await.refused(400);
    }
    send("POST", json_type, vec![b'{', b'"', 0xff, b'"', b':', b'1', b'}']).await.refused(400);
    for body in ["[]", "null", "5", "\"text\""] {
        send("POST", json_type, body.into()).await.refused(400);
    }
    send("POST", json_type, "[".repeat(200_000).into_bytes()).await.refused(400);
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        send("POST", content_type, b"{}".to_vec()).await.refused(415);
    }
    let charset = "application/json; charset=utf-8";
    send("POST", Some(charset), b"{}".to_vec()).await.refused(400);
    let large = json!({"display_name": "x".repeat(4 * 1024 * 1024)}).to_string();
    send("POST", json_type, large.into_bytes()).await.refused(413);
    assert_eq!(admin.get("models").await.status, 200);
}

#[tokio::test]
async fn a_merge_patch_follows_its_standard() {
    let (_gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    let id = admin.create("models", &world.rich("models", "patched")).await;
    let item = format!("models/{id}");
    let patch =
        json!({"timeout": null, "rate_limit": {"rps": null, "rpm": 99}, "allowed_cidrs": ["10.0.0.0/8"]});
    let value = admin.patch(&item, &patch).await.expect(200)["value"].clone();
    assert!(value.get("timeout").is_none_or(Value::is_null), "{value}");
    assert_eq!(value["rate_limit"]["rpm"], 99);
    assert!(value["rate_limit"].get("rps").is_none_or(Value::is_null), "{value}");
    assert_eq!((&value["rate_limit"]["rph"], &value["allowed_cidrs"]), (&json!(3), &json!(["10.0.0.0/8"])));
    assert_eq!(value["stream_timeout"], 5000, "what is not named stays");
    let plain = Request::new("PATCH", &format!("/admin/v1/{item}"))
        .header("content-type", "application/json")
        .body("{\"timeout\": 7}");
    assert_eq!(admin.send(plain).await.expect(200)["value"]["timeout"], 7);
    let paths = admin.patch(&item, &json!({"timeout": "x"})).await.error_paths();
    assert_eq!(paths, ["/timeout"]);
    let answer = admin.patch(&item, &json!({"display_name": null})).await;
    assert!(names(&answer, "/display_name"), "{answer:?}");
    admin.patch(&item, &json!([])).await.refused(400);
    assert_eq!(admin.get(&item).await.json()["value"]["timeout"], 7);
}

#[tokio::test]
async fn lists_are_ordered_filtered_and_paged() {
    let (_gateway, admin) = embedded().await;
    for number in 0..7 {
        admin.create("cache_policies", &json!({"name": format!("policy {number} & more")})).await;
    }
    let all = admin.get("cache_policies").await;
    let entries = all.expect(200).as_array().expect("a bare array").clone();
    assert_eq!((entries.len(), all.header("x-total-count")), (7, Some("7")));
    let id = |entry: &Value| entry["id"].as_str().unwrap_or_default().to_owned();
    assert!(entries.is_sorted_by_key(id), "{entries:?}");
    let mut next = Some("cache_policies?limit=3".to_owned());
    let (mut seen, mut sizes) = (Vec::new(), Vec::new());
    while let Some(path) = next {
        let page = admin.get(&path).await;
        let items = page.expect(200).as_array().expect("a bare array").clone();
        assert_eq!(page.header("x-total-count"), Some("7"), "{path}");
        sizes.push(items.len());
        seen.extend(items);
        next = page.header("link").map(next_page);
    }
    assert_eq!((sizes, seen), (vec![3, 3, 1], entries.clone()));
    let found = admin.list(&format!("cache_policies?name={}", percent("policy 4 & more"))).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["value"]["name"], "policy 4 & more");
    for none in ["policy 4", "policy", "POLICY 4 & MORE", ""] {
        assert_eq!(admin.list(&format!("cache_policies?name={}", percent(none))).await, Vec::<Value>::new());
    }
    for bad in ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=99999999999999999999"] {
        admin.get(&format!("cache_policies?{bad}")).await.refused(400);
    }
    let last = id(&entries[6]);
    assert_eq!(admin.list(&format!("cache_policies?after={last}")).await, Vec::<Value>::new());
    // A cursor whose entry is gone still knows its place.
    admin.delete(&format!("cache_policies/{}", id(&entries[2]))).await.expect(200);
    let rest = admin.list(&format!("cache_policies?after={}", id(&entries[2]))).await;
    assert_eq!(rest, entries[3..]);
}

/// The path of a `Link: <…>; rel="next"`, relative to the API.
fn next_page(link: &str) -> String {
    assert!(link.contains("rel=\"next\""), "{link}");
    let target = link.split(['<', '>']).nth(1).expect("a target");
    let (_, path) = target.split_once("/admin/v1/").expect("a path of the API");
    path.to_owned()
}

#[tokio::test]
async fn every_kind_is_found_by_its_name() {
    let (_gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    for kind in KINDS {
        let Some(member) = name_member(kind) else { continue };
        let id = admin.create(kind, &world.minimal(kind, "needle")).await;
        let found = admin.named(kind, "needle").await.unwrap_or_else(|| panic!("{kind} is not found"));
        assert_eq!((&found["id"], &found["value"][member]), (&json!(id), &json!("needle")));
    }
}

#[tokio::test]
async fn methods_and_paths_that_do_not_exist() {
    let (_gateway, admin) = embedded().await;
    let method = async |method: &str, path: &str| {
        let request = Request::new(method, &format!("/admin/v1/{path}"));
        admin.send(request.header("content-type", "application/json").body("{}")).await
    };
    for (verb, path, allowed) in [
        ("PUT", "models", "POST"),
        ("DELETE", "models", "POST"),
        ("POST", "models/some-id", "PATCH"),
        ("POST", "audit", "GET"),
        ("DELETE", "audit", "GET"),
        ("GET", "batch", "POST"),
        ("GET", "api_keys/x/rotate", "POST"),
    ] {
        let answer = method(verb, path).await;
        assert_eq!(answer.status, 405, "{verb} {path}: {}", answer.text);
        let allow = answer.header("allow").unwrap_or_default();
        assert!(allow.contains(allowed), "{verb} {path}: {allow}");
    }
    for path in ["widgets", "widgets/x", "models/x/y", ""] {
        assert_eq!(method("POST", path).await.status, 404, "{path}");
        assert_eq!(admin.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_file_store_refuses_writes_and_says_why() {
    let gateway = Gateway::builder().upstream("http://127.0.0.1:9/v1").start().await;
    let admin = Admin::new(gateway.admin, ADMIN_KEY);
    for kind in KINDS {
        let answers = [
            admin.post(kind, &json!({})).await,
            admin.put(&format!("{kind}/x"), &json!({})).await,
            admin.patch(&format!("{kind}/x"), &json!({})).await,
            admin.delete(&format!("{kind}/x")).await,
        ];
        for answer in answers {
            let message = answer.refused(405);
            assert!(message.contains("resources"), "{kind}: {message}");
            let allow = answer.header("allow").unwrap_or_default();
            assert!(allow.contains("GET") && allow.contains("HEAD") && !allow.contains("POST"), "{allow}");
        }
    }
    for kind in KINDS {
        assert_eq!(admin.get(kind).await.status, 200, "{kind}");
    }
    assert_eq!(admin.batch(json!([])).await.status, 405);
}

#[tokio::test]
async fn writes_from_a_stranger_change_nothing() {
    let (gateway, admin) = embedded().await;
    let secret = "sk-just-a-caller";
    admin.create("api_keys", &aisix_e2e::documents::caller("c", secret)).await;
    let before = visible(&gateway, secret).await;
    for stranger in [admin.with_key(secret), admin.with_key("wrong"), admin.with_key("")] {
        let answer = stranger.post("models", &json!({"not even": "valid"})).await;
        assert_eq!(answer.refused(401), "missing or malformed admin authorization");
        assert_eq!(stranger.delete("models/x").await.status, 401);
    }
    assert_eq!(gateway.send(ask("x", ADMIN_KEY)).await.status, 401);
    assert_eq!(visible(&gateway, secret).await, before);
}

#[tokio::test]
async fn health_tells_the_revision_and_age() {
    let (gateway, admin) = embedded().await;
    let id = admin.create("cache_policies", &json!({"name": "p"})).await;
    let revision = admin.get(&format!("cache_policies/{id}")).await.revision();
    let health = admin.get("health").await.expect(200);
    assert_eq!(health["config"]["snapshot_revision"], revision, "{health}");
    assert!(health["config"]["snapshot_age_seconds"].as_u64() <= Some(5), "{health}");
    let status = gateway.config_status().await;
    assert_eq!(status["applied"]["applied_revision"], revision, "{status}");
    assert_eq!(status["source"]["type"], "embedded", "{status}");
}
