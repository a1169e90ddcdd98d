//! Names, ids and documents that nobody sends by accident, through every door of a store.

use aisix_e2e::cluster::{PREFIX, started};
use aisix_e2e::documents::{KINDS, World, direct, echo_key, name_member};
use aisix_e2e::stores::{ask, embedded, status_of, visible};
use aisix_testkit::admin::percent;
use aisix_testkit::gateway::builder::CALLER_KEY;
use aisix_testkit::{Admin, Gateway, Request};
use serde_json::{Value, json};

/// Names that break terminals, logs, labels, file formats and the eye.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "\u{1b}[31mred\u{1b}[0m",
        "line\nbreak level=ERROR forged=1",
        "tab\tcarriage\rreturn",
        "nul\0inside",
        "bell\u{7}delete\u{7f}",
        "rtl \u{202e}gnp.exe",
        "zero\u{200b}width\u{feff}",
        "e\u{301} against \u{e9}",
        "\u{1f9d1}\u{200d}\u{1f680} \u{fdfd}",
        "quote\" back\\slash 'single' `tick`",
        "a}b{c=\"d\"",
        "${HOME} $$ $(id) `id`",
        "*",
        "a*b*c",
        "../../etc/passwd",
        "a/b/c",
        "?query=1&x#fragment",
        "%00%2f%ff",
        "<script>alert(1)</script>",
        "{{7*7}} {0} %s %n",
        "null",
        "true",
        "~",
        "- yaml: [list",
        " leading and trailing ",
        " ",
        "__proto__",
        "\u{ffff}\u{e000}",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(10_000));
    names.push("\u{1F600}".repeat(2_500));
    names
}

/// The operator's surfaces stand: nothing is broken, no control character reaches the log.
async fn unharmed(gateway: &Gateway, admin: &Admin, what: &str) {
    for kind in KINDS {
        assert_eq!(admin.get(kind).await.status, 200, "{kind} after {what:.60}");
    }
    for path in ["/status/config", "/status/models"] {
        let mut reply = gateway.status_get(path).await;
        assert_eq!(reply.status, 200, "{path} after {what:.60}");
        reply.json().await;
    }
    gateway.scrape().await;
    for line in gateway.log() {
        let clean = line.chars().all(|c| !c.is_control() || c == '\t');
        assert!(clean, "a control character in the log after {what:.60}: {line:?}");
        assert!(!line.starts_with("break level=ERROR"), "a forged line: {line:?}");
    }
}

#[tokio::test]
async fn hostile_names_of_every_kind() {
    let (gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    for name in names() {
        for kind in KINDS {
            let Some(member) = name_member(kind) else { continue };
            let mut document = world.minimal(kind, "plain");
            document[member] = json!(name);
            let answer = admin.post(kind, &document).await;
            if answer.status != 201 {
                let paths = answer.error_paths();
                assert!(
                    paths.iter().any(|p| *p == format!("/{member}")),
                    "{kind} {name:.60?}: {}",
                    answer.text
                );
                assert!(answer.text.len() < 3000, "an error does not repeat 10 kB");
                continue;
            }
            let id = answer.json()["id"].as_str().unwrap_or_default().to_owned();
            assert_eq!(answer.json()["value"][member], json!(name), "{kind}");
            let item = format!("{kind}/{id}");
            assert_eq!(admin.get(&item).await.expect(200)["value"][member], json!(name), "{kind}");
            // A query of 30 kB is more than a request head need hold.
            if name.len() < 2000 {
                assert_eq!(
                    admin.named(kind, &name).await.expect("found by name")["id"],
                    json!(id),
                    "{kind} {name:?}"
                );
            }
            admin.delete(&item).await.expect(200);
        }
    }
    unharmed(&gateway, &admin, "hostile names").await;
}

#[tokio::test]
async fn hostile_model_names_are_served_or_refused() {
    let (gateway, admin) = embedded().await;
    admin.create("api_keys", &aisix_e2e::documents::caller("c", CALLER_KEY)).await;
    let key = admin.create("provider_keys", &echo_key("echo-key")).await;
    for name in names() {
        let model =
            json!({"display_name": name, "provider": "echo", "model_name": "x", "provider_key_id": key});
        let answer = admin.post("models", &model).await;
        if answer.status != 201 {
            answer.refused(400);
            continue;
        }
        // A pattern is served but not listed.
        let listed = visible(&gateway, CALLER_KEY).await.contains(&name);
        assert_eq!(listed, !name.contains('*'), "{name:.60?}");
        let mut reply = gateway.send(ask(&name, CALLER_KEY)).await;
        let body = reply.json().await;
        // A name with two stars never matches.
        if name.matches('*').count() < 2 {
            assert_eq!((reply.status, &body["model"]), (200, &json!(name)), "{name:.60?}: {body}");
        }
        unharmed(&gateway, &admin, &name).await;
        let id = answer.json()["id"].as_str().unwrap_or_default().to_owned();
        admin.delete(&format!("models/{id}")).await.expect(200);
    }
}

#[tokio::test]
async fn hostile_ids_in_the_path() {
    let (gateway, admin) = embedded().await;
    let ids = [
        "%00",
        "%ff",
        "%2e%2e",
        "..",
        "%2f",
        "a%0ab",
        "%22",
        "'; DROP TABLE rows; --",
        "*",
        "%25",
        "%",
        "%zz",
        "status",
    ];
    let long = "x".repeat(10_000);
    for id in ids.iter().copied().chain([long.as_str()]) {
        let path = format!("/admin/v1/cache_policies/{}", id.replace(' ', "%20"));
        for method in ["GET", "PUT", "PATCH", "DELETE"] {
            let mut request = Request::new(method, &path);
            if method != "GET" {
                request = request.header("content-type", "application/json").body("{\"name\": \"x\"}");
            }
            let answer = admin.send(request).await;
            assert!((400..500).contains(&answer.status), "{method} {id:.40}: {answer:?}");
        }
    }
    for query in
        ["name=%ff", "name=%00", "after=%00", "limit=%31", "name=a&name=b", "name=%zz", "&&&=", "a=b"]
    {
        let status = admin.get(&format!("cache_policies?{query}")).await.status;
        assert!([200, 400].contains(&status), "{query}: {status}");
    }
    unharmed(&gateway, &admin, "hostile ids").await;
}

#[tokio::test]
async fn huge_documents() {
    let (gateway, admin) = embedded().await;
    admin.create("api_keys", &aisix_e2e::documents::caller("c", CALLER_KEY)).await;
    let key = admin.create("provider_keys", &echo_key("echo-key")).await;
    // Close to the limit it works, beyond it is refused.
    let cidrs: Vec<String> = (0..100_000).map(|n| format!("10.{}.{}.0/24", n / 256 % 256, n % 256)).collect();
    let mut model = direct("wide", &key);
    model["allowed_cidrs"] = json!(cidrs);
    let id = admin.create("models", &model).await;
    assert_eq!(
        admin.get(&format!("models/{id}")).await.json()["value"]["allowed_cidrs"],
        model["allowed_cidrs"]
    );
    assert_eq!(status_of(&gateway, "wide", CALLER_KEY).await, 403);
    model["display_name"] = json!("wider");
    model["allowed_cidrs"] = json!([cidrs.clone(), cidrs.clone(), cidrs].concat());
    admin.post("models", &model).await.refused(413);
    let targets: Vec<Value> = (0..10_000).map(|_| json!({"model": "wide"})).collect();
    let answer = admin.post("models", &json!({"display_name": "g", "routing": {"targets": targets}})).await;
    assert!([201, 400].contains(&answer.status), "{}", answer.status);
    // Thousands of mistakes are told, but not in megabytes.
    let wrong: Vec<Value> = (0..50_000).map(|_| json!({"modle": 1})).collect();
    let answer = admin.post("models", &json!({"display_name": "g", "routing": {"targets": wrong}})).await;
    answer.refused(400);
    assert!(answer.text.len() < 100_000, "{} bytes of errors", answer.text.len());
    unharmed(&gateway, &admin, "huge documents").await;
}

#[tokio::test]
async fn deep_documents() {
    let (gateway, admin) = embedded().await;
    let key = admin.create("provider_keys", &echo_key("echo-key")).await;
    for depth in [100, 5_000, 300_000] {
        let nested = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        for body in [
            format!("{{\"request\": {{\"default_body_fields\": {{\"x\": {nested}}}}}}}"),
            format!("{{\"bogus\": {nested}}}"),
        ] {
            let request = Request::new("PATCH", &format!("/admin/v1/provider_keys/{key}"));
            let answer = admin.send(request.header("content-type", "application/json").body(body)).await;
            assert!([200, 400].contains(&answer.status), "{depth}: {answer:?}");
        }
    }
    unharmed(&gateway, &admin, "deep documents").await;
}

#[tokio::test]
async fn numbers_at_the_edge() {
    let (_gateway, admin) = embedded().await;
    let key = admin.create("provider_keys", &echo_key("echo-key")).await;
    let id = admin.create("models", &direct("m", &key)).await;
    for number in ["1e400", "-0", "1e19", "18446744073709551616", "4294967296", "0.1e1", "NaN", "01", "+1"] {
        for field in ["timeout", "retries"] {
            let body = format!("{{\"{field}\": {number}}}");
            let request = Request::new("PATCH", &format!("/admin/v1/models/{id}"));
            let answer = admin.send(request.header("content-type", "application/json").body(body)).await;
            assert!([200, 400].contains(&answer.status), "{field} {number}: {answer:?}");
            if answer.status == 200 {
                assert!(
                    admin.get(&format!("models/{id}")).await.json()["value"][field].is_u64(),
                    "{field} {number}"
                );
            }
        }
    }
}

#[tokio::test]
async fn junk_straight_into_etcd() {
    let (etcd, _upstream, gateway) = started().await;
    let admin = gateway.admin_api();
    let deep = format!("{{\"display_name\": {}", "[".repeat(200_000));
    let wide = json!({"display_name": "x".repeat(1_000_000), "routing": {"targets": []}}).to_string();
    let junk =
        ["", " ", "null", "[]", "\"text\"", "5", "{", "{}", "\u{feff}{}", "{\"a\":1}{\"b\":2}", &deep, &wide];
    for (number, value) in junk.iter().enumerate() {
        for kind in KINDS {
            etcd.put(&format!("{PREFIX}/{kind}/junk-{number}"), value).await;
        }
    }
    for name in names() {
        let key = format!("{PREFIX}/models/{name}");
        etcd.put(&key, &direct(&name, "main").to_string()).await;
        etcd.put(&format!("{PREFIX}/{name}/x"), "{}").await;
    }
    etcd.put(&format!("{PREFIX}/models/barrier"), &direct("barrier", "main").to_string()).await;
    aisix_testkit::eventually("the barrier", || async {
        visible(&gateway, CALLER_KEY).await.contains(&"barrier".to_owned()).then_some(())
    })
    .await;
    assert_eq!(gateway.chat(&Gateway::hello(false)).await.status, 200);
    let status = gateway.config_status().await;
    assert_eq!(status["state"], "degraded");
    assert!(status["rejected"].as_array().map_or(0, Vec::len) <= 256, "at most 256 rejections are kept");
    for entry in status["rejected"].as_array().into_iter().flatten() {
        let text = entry["last_error"].as_str().unwrap_or_default();
        assert!(text.len() < 2000, "{} bytes of error", text.len());
    }
    unharmed(&gateway, &admin, "junk in etcd").await;
    // Found and removed through the API, whatever it is called.
    for name in names().iter().filter(|name| name.len() < 500 && !name.contains('/')) {
        let status = admin.get(&format!("models/{}", percent(name))).await.status;
        assert!([200, 404].contains(&status), "{name:?}: {status}");
    }
}
