//! `aisix export`: from every place to a file that gives the same configuration again.

use aisix_e2e::cluster::{self, PREFIX, on, put, seed};
use aisix_e2e::documents::{KINDS, MARKER, World};
use aisix_e2e::stores::{embedded, status_of, visible};
use aisix_testkit::gateway::ADMIN_KEY;
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL, PROVIDER_SECRET};
use aisix_testkit::{Authority, Etcd, Exit, FakeProvider, Gateway, key_hash};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const PLACEHOLDER: &str = "AISIXSECRET_PROVIDER_KEY_MAIN_API_KEY";

async fn aisix(folder: &Path, args: &[&str]) -> Exit {
    aisix_with(folder, args, &[]).await
}

async fn aisix_with(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Exit {
    let mut all = vec![("AISIX_ADMIN_KEY", ADMIN_KEY)];
    all.extend(env);
    Gateway::run(args, &all, folder).await
}

/// The arguments that name a place.
type Arguments = Vec<String>;

fn words(text: &str) -> Arguments {
    text.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn the_form_of_the_file() {
    let (etcd, upstream, gateway) = cluster::started().await;
    let old = ["export", "--etcd", &etcd.endpoint(), "--prefix", PREFIX];
    let place = format!("etcd://{}{PREFIX}", etcd.endpoint());
    let exit = aisix(gateway.dir(), &old).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stderr.starts_with("Exported 3 resource(s) to stdout"), "{}", exit.stderr);
    let body = exit.stdout.trim_start_matches("---\n");
    assert!(body.starts_with("_format_version: \"1\"") || body.starts_with("_format_version: '1'"), "{body}");
    let at = |text: &str| body.find(text).unwrap_or_else(|| panic!("{text} is not in {body}"));
    assert!(at("\nprovider_keys:") < at("\nmodels:") && at("\nmodels:") < at("\napi_keys:"), "{body}");
    assert!(
        !body.contains("guardrails") && !body.contains("\n  id:") && !body.contains("provider_key_id"),
        "{body}"
    );
    assert!(body.contains("provider_key: main") && body.contains(&key_hash(CALLER_KEY)), "{body}");
    assert!(body.contains(&format!("${{{PLACEHOLDER}}}")), "{body}");
    assert!(!format!("{exit:?}").contains(PROVIDER_SECRET));
    assert!(exit.stderr.contains("1 secret value(s) were replaced"), "{}", exit.stderr);
    let told = exit.stderr.lines().find(|line| line.contains(PLACEHOLDER)).expect("the variable is named");
    assert!(told.contains("main") && told.contains("api_key"), "{told}");
    assert_eq!(aisix(gateway.dir(), &["export", &place]).await.stdout, exit.stdout, "both spellings are one");

    let revealed = aisix(gateway.dir(), &["export", &place, "--reveal-secrets"]).await;
    assert!(revealed.stdout.contains(PROVIDER_SECRET) && !revealed.stderr.contains(PROVIDER_SECRET));
    assert!(revealed.stderr.to_lowercase().contains("warning"), "{}", revealed.stderr);

    // A file is private, also when it was not.
    let path = gateway.dir().join("out.yaml");
    std::fs::write(&path, "old").expect("write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    let exit = aisix(gateway.dir(), &["export", &place, "-o", "out.yaml"]).await;
    assert_eq!((exit.code, exit.stdout.as_str()), (Some(0), ""), "{exit:?}");
    assert!(exit.stderr.starts_with("Exported 3 resource(s) to out.yaml"), "{}", exit.stderr);
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

    // The file, its variable set, is the same gateway.
    let text = std::fs::read_to_string(&path).expect("the export");
    let copy =
        Gateway::builder().file("resources.yaml", &text).env(PLACEHOLDER, PROVIDER_SECRET).start().await;
    assert_eq!(visible(&copy, CALLER_KEY).await, visible(&gateway, CALLER_KEY).await);
    assert_eq!(status_of(&copy, MODEL, CALLER_KEY).await, 200);
    let bearer = format!("Bearer {PROVIDER_SECRET}");
    assert_eq!(upstream.last_request().header("authorization"), Some(bearer.as_str()));
}

/// Fills a store with every kind, through its gateway, in both forms.
async fn fill(gateway: &Gateway) {
    let admin = gateway.admin_api();
    let world = World::create(&admin).await;
    for kind in KINDS {
        if kind != "mcp_auth_settings" {
            admin.create(kind, &world.minimal(kind, "plain")).await;
        }
        admin.create(kind, &world.rich(kind, "rich")).await;
    }
    let dollars = json!({"display_name": "dollars", "provider": "openai", "api_key": "$a-$$b-${C}-${",
                         "request": {"default_headers": {"x-model": "${model.name}"}}});
    admin.create("provider_keys", &dollars).await;
    for name in [
        "quote\" and 'quote'",
        "colon: # comment",
        "null",
        "1e3",
        "ünï \u{1F600}",
        " blank ",
        "- dash",
        "a\\b",
    ] {
        admin.create("cache_policies", &json!({"name": name})).await;
    }
    let classic = json!({"name": "of-model", "scope": "model", "scope_ref": world.model_id, "window": "day", "max_tokens": 5});
    admin.create("rate_limit_policies", &classic).await;
    let condition = json!([{"dimension": "api_key", "operator": "in", "value": [world.api_key]}]);
    let conditional = json!({"name": "of-key", "limits": {"rpm": 1}, "conditions": condition});
    admin.create("rate_limit_policies", &conditional).await;
    let cache = json!({"name": "of-key", "applies_to": format!("api_key:{}", world.api_key)});
    admin.create("cache_policies", &cache).await;
}

/// Exports a place and checks that the file validates and holds the same.
async fn round_trip(gateway: &Gateway, place: &str) {
    let dir = gateway.dir();
    let exit = aisix(dir, &["export", place, "--reveal-secrets", "-o", "all.yaml"]).await;
    assert_eq!(exit.code, Some(0), "{place}: {exit:?}");
    let valid = aisix(dir, &["validate", "--resources", "all.yaml"]).await;
    assert_eq!(valid.code, Some(0), "{place}: {valid:?}");
    for (from, to) in [(place, "all.yaml"), ("all.yaml", place)] {
        let same = aisix(dir, &["diff", from, to]).await;
        assert_eq!((same.code, same.stdout.trim()), (Some(0), ""), "{from} {to}: {same:?}");
    }
    // An export of the export is the export.
    let again = aisix(dir, &["export", "all.yaml", "--reveal-secrets"]).await;
    assert_eq!(again.stdout, std::fs::read_to_string(dir.join("all.yaml")).expect("the export"), "{place}");
    // Without the secrets, the variables that it names make it whole again.
    let hidden = aisix(dir, &["export", place, "-o", "hidden.yaml"]).await;
    assert_eq!(hidden.code, Some(0), "{hidden:?}");
    let text = std::fs::read_to_string(dir.join("hidden.yaml")).expect("the export");
    assert!(!text.contains(MARKER) && !hidden.stderr.contains(MARKER), "{text}");
    let bare = aisix(dir, &["validate", "--resources", "hidden.yaml"]).await;
    assert_eq!(bare.code, Some(1), "the variables are not set: {bare:?}");
    let names: Vec<&str> = text
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .filter(|n| n.starts_with("AISIXSECRET_"))
        .collect();
    let env: Vec<(&str, &str)> = names.iter().map(|name| (*name, "set")).collect();
    let whole = aisix_with(dir, &["validate", "--resources", "hidden.yaml"], &env).await;
    assert_eq!(whole.code, Some(0), "{whole:?}");
    for name in names {
        assert!(hidden.stderr.contains(name), "{name} is told: {}", hidden.stderr);
    }
}

#[tokio::test]
async fn every_kind_from_the_embedded_store() {
    let (mut gateway, _admin) = embedded().await;
    fill(&gateway).await;
    round_trip(&gateway, "store:data").await;
    gateway.stop().await;
    round_trip(&gateway, "store:data").await;
}

#[tokio::test]
async fn every_kind_from_etcd() {
    let etcd = Etcd::running().await;
    let gateway = on(&etcd).start().await;
    fill(&gateway).await;
    round_trip(&gateway, &format!("etcd://{}{PREFIX}", etcd.endpoint())).await;
}

#[tokio::test]
async fn every_kind_from_a_running_gateway() {
    let (gateway, admin) = embedded().await;
    fill(&gateway).await;
    let place = format!("http://{}", gateway.admin);
    let exit = aisix(gateway.dir(), &["export", &place]).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(!format!("{exit:?}").contains(MARKER));
    let direct = aisix(gateway.dir(), &["export", "store:data"]).await;
    assert_eq!(exit.stdout, direct.stdout, "the gateway and its store export the same");
    let answer = admin.get("export").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, exit.stdout.as_str()));
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.contains("yaml"), "{kind}");
}

#[tokio::test]
async fn a_file_gives_the_same_gateway() {
    let (gateway, admin) = embedded().await;
    fill(&gateway).await;
    let exit = aisix(gateway.dir(), &["export", "store:data", "--reveal-secrets"]).await;
    let copy = Gateway::builder().file("resources.yaml", &exit.stdout).start().await;
    for kind in KINDS {
        let values = async |gateway: &Gateway| {
            let mut list = gateway.admin_api().list(kind).await;
            list.retain(|entry| entry["value"].is_object());
            list.len()
        };
        assert_eq!(values(&copy).await, admin.list(kind).await.len(), "{kind}");
    }
    let counts =
        async |gateway: &Gateway| gateway.config_status().await["applied"]["resource_counts"].clone();
    assert_eq!(counts(&copy).await, counts(&gateway).await);
    assert_eq!(visible(&copy, "sk-world-caller").await, visible(&gateway, "sk-world-caller").await);
}

#[tokio::test]
async fn rows_that_cannot_be_exported_are_told() {
    let (etcd, _upstream, gateway) = cluster::started().await;
    let place = format!("etcd://{}{PREFIX}", etcd.endpoint());
    let good = aisix(gateway.dir(), &["export", &place]).await;
    let cases = [
        ("models/bad", "{\"display_name\": 5, \"x\": \"MARKER\"}".to_owned(), "models/bad"),
        ("models/junk", "MARKER".to_owned(), "models/junk"),
        ("models/dangling", cluster::model("dangling").to_string().replace("\"main\"", "\"gone\""), "gone"),
        ("models/twin", cluster::model(MODEL).to_string(), MODEL),
    ];
    for (row, value, told) in cases {
        let key = format!("{PREFIX}/{row}");
        etcd.put(&key, &value).await;
        let exit = aisix(gateway.dir(), &["export", &place]).await;
        assert_eq!(exit.code, Some(1), "{row}: {exit:?}");
        assert!(
            exit.stdout.contains("_format_version") && exit.stdout.contains("display_name: main"),
            "{row}: {exit:?}"
        );
        assert!(exit.stderr.contains(told), "{row}: {}", exit.stderr);
        assert!(!exit.stderr.contains("MARKER") && !exit.stdout.contains("MARKER"), "{exit:?}");
        etcd.delete(&key).await;
    }
    // Unknown fields vanish, which is no error.
    let mut newer = cluster::model(MODEL);
    newer["from_the_future"] = json!(1);
    put(&etcd, &format!("{PREFIX}/models/m"), &newer).await;
    let exit = aisix(gateway.dir(), &["export", &place]).await;
    assert_eq!((exit.code, exit.stdout), (Some(0), good.stdout));
}

#[tokio::test]
async fn keys_without_a_label_get_one() {
    let (etcd, _upstream, gateway) = cluster::started().await;
    let hash = key_hash("sk-nameless");
    put(&etcd, &format!("{PREFIX}/api_keys/nameless"), &json!({"key_hash": hash, "allowed_models": []}))
        .await;
    let exit = aisix(gateway.dir(), &["export", "--etcd", &etcd.endpoint()]).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stdout.contains(&format!("display_name: apikey-{}", &hash[..16])), "{}", exit.stdout);
    assert!(exit.stdout.contains("display_name: caller"), "a label is kept: {}", exit.stdout);
}

#[tokio::test]
async fn a_locked_etcd() {
    let (etcd, upstream) = (Etcd::running().await, FakeProvider::start().await);
    seed(&etcd, PREFIX, &upstream.base()).await;
    etcd.enable_auth("root-password").await;
    etcd.add_user("reader", "007", &["/aisix"]).await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let place = format!("etcd://{}{PREFIX}", etcd.endpoint());
    let args = ["export", &place, "--etcd-user", "reader", "--etcd-password-env", "PASSWORD"];
    let exit = aisix_with(folder.path(), &args, &[("PASSWORD", "007")]).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stderr.starts_with("Exported 3 resource(s)"), "{}", exit.stderr);
    for (name, value) in [("PASSWORD", "wrong-MARKER"), ("OTHER", "x")] {
        let exit = aisix_with(folder.path(), &args, &[(name, value)]).await;
        assert!(exit.code == Some(1) && !exit.stderr.contains("MARKER"), "{exit:?}");
    }
    assert_eq!(aisix(folder.path(), &["export", &place]).await.code, Some(1));
}

#[tokio::test]
async fn an_encrypted_etcd() {
    let authority = Authority::new("etcd authority");
    let etcd = Etcd::builder().tls(&authority).start().await;
    let files = tempfile::tempdir().expect("a temporary directory");
    let (cert, key) = authority.issue().write(files.path());
    std::fs::write(files.path().join("ca.pem"), authority.pem()).expect("write");
    let ca = files.path().join("ca.pem");
    let tls = json!({"ca_cert_file": ca, "client_cert_file": cert, "client_key_file": key});
    let endpoint = vec![format!("https://{}", etcd.endpoint())];
    let gateway = Gateway::builder().etcd(&endpoint, PREFIX).set("/etcd/tls", tls).start().await;
    gateway.admin_api().create("cache_policies", &json!({"name": "through-tls"})).await;
    let mut args: Arguments = words(&format!("export etcd://{}{PREFIX}", etcd.endpoint()));
    let flags =
        format!("--etcd-ca {} --etcd-cert {} --etcd-key {}", ca.display(), cert.display(), key.display());
    args.extend(words(&flags));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let exit = aisix(files.path(), &args).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stdout.contains("through-tls"), "{exit:?}");
}

#[tokio::test]
async fn places_that_cannot_be_exported() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for args in [
        vec!["export", "--etcd", "127.0.0.1:1"],
        vec!["export", "etcd://127.0.0.1:1/aisix"],
        vec!["export", "http://127.0.0.1:1"],
        vec!["export", "store:nowhere"],
        vec!["export", "missing.yaml"],
    ] {
        let exit = aisix(folder.path(), &args).await;
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(1), ""), "{args:?}: {exit:?}");
        assert!(!exit.stderr.trim().is_empty() && !exit.stderr.contains("panicked"), "{exit:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "nothing was made");
}
