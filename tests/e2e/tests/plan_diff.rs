//! `aisix schema` and `aisix diff`: seeing a change before it is made.

use aisix_e2e::cluster::{self, PREFIX};
use aisix_e2e::documents::{KINDS, World, direct};
use aisix_e2e::stores::embedded;
use aisix_testkit::gateway::ADMIN_KEY;
use aisix_testkit::gateway::builder::{MODEL, PROVIDER_SECRET};
use aisix_testkit::{Exit, Gateway, GatewayBuilder};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

const BASE: &str = "https://upstream.example/v1";

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn write(folder: &Path, name: &str, resources: &Value) {
    std::fs::write(folder.join(name), resources.to_string()).expect("write");
}

async fn aisix(folder: &Path, args: &[&str]) -> Exit {
    Gateway::run(args, &[("AISIX_ADMIN_KEY", ADMIN_KEY)], folder).await
}

fn lines(exit: &Exit) -> Vec<&str> {
    exit.stdout
        .lines()
        .filter(|line| ["+ ", "- ", "~ ", "! "].iter().any(|mark| line.starts_with(mark)))
        .collect()
}

#[tokio::test]
async fn a_schema_for_every_kind() {
    let folder = folder();
    let all = aisix(folder.path(), &["schema"]).await;
    assert_eq!(all.code, Some(0), "{all:?}");
    let all: Value = serde_json::from_str(&all.stdout).expect("one JSON object");
    for kind in KINDS {
        let one = aisix(folder.path(), &["schema", kind]).await;
        assert_eq!(one.code, Some(0), "{one:?}");
        let schema: Value = serde_json::from_str(&one.stdout).expect("a JSON schema");
        assert_eq!(schema, all[kind], "{kind}");
        assert!(
            schema["$schema"].as_str().is_some_and(|s| s.contains("json-schema.org")),
            "{kind}: {schema}"
        );
        let text = schema.to_string();
        assert!(text.contains("\"description\""), "{kind} is documented");
        assert!(!text.contains("/work"), "{kind}");
    }
    assert_eq!(all.as_object().map(serde_json::Map::len), Some(KINDS.len()));
    let unknown = aisix(folder.path(), &["schema", "widgets"]).await;
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    for kind in ["widgets", "provider_keys", "passthrough_routes"] {
        assert!(unknown.stderr.contains(kind), "{}", unknown.stderr);
    }
}

#[tokio::test]
async fn file_against_file() {
    let folder = folder();
    let mut old = GatewayBuilder::standard(BASE);
    old["models"][0]["timeout"] = json!(30_000);
    old["models"].as_array_mut().expect("models").push(json!({
        "display_name": "goes", "provider": "openai", "model_name": "x", "provider_key": "main",
    }));
    let mut new = old.clone();
    new["models"][0]["timeout"] = json!(60_000);
    new["models"][1]["display_name"] = json!("comes");
    new["provider_keys"][0]["api_key"] = json!("sk-another-MARKER");
    new["api_keys"][0]["allowed_models"] = json!([MODEL]);
    write(folder.path(), "old.yaml", &old);
    write(folder.path(), "new.yaml", &new);
    let same = aisix(folder.path(), &["diff", "old.yaml", "old.yaml"]).await;
    assert_eq!((same.code, lines(&same)), (Some(0), Vec::new()), "{same:?}");
    let exit = aisix(folder.path(), &["diff", "old.yaml", "new.yaml"]).await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let found = lines(&exit);
    for expected in [
        format!("~ model {MODEL}: timeout 30s → 60s"),
        "+ model comes".to_owned(),
        "- model goes".to_owned(),
        "~ provider key main: api_key (secret changed)".to_owned(),
    ] {
        assert!(found.iter().any(|line| line.starts_with(&expected)), "{expected:?} is not in {found:#?}");
    }
    assert!(found.iter().any(|line| line.contains("key caller: allowed_models")), "{found:#?}");
    let all = format!("{}{}", exit.stdout, exit.stderr);
    assert!(!all.contains("MARKER") && !all.contains(PROVIDER_SECRET), "{all}");
    // The other way round is the mirror image.
    let back = aisix(folder.path(), &["diff", "new.yaml", "old.yaml"]).await;
    assert!(
        lines(&back).iter().any(|l| l.starts_with(&format!("~ model {MODEL}: timeout 60s → 30s"))),
        "{back:?}"
    );
}

#[tokio::test]
async fn a_plan_for_programs() {
    let folder = folder();
    let old = GatewayBuilder::standard(BASE);
    let mut new = old.clone();
    new["models"][0]["timeout"] = json!(5);
    new["provider_keys"][0]["api_key"] = json!("sk-another-MARKER");
    write(folder.path(), "old.yaml", &old);
    write(folder.path(), "new.yaml", &new);
    let exit = aisix(folder.path(), &["diff", "old.yaml", "new.yaml", "--json"]).await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let plan: Value = serde_json::from_str(&exit.stdout).expect("one JSON value and nothing else");
    let text = plan.to_string();
    assert!(text.contains("models") && text.contains("timeout") && !text.contains("MARKER"), "{text}");
    let same = aisix(folder.path(), &["diff", "old.yaml", "old.yaml", "--json"]).await;
    assert_eq!(same.code, Some(0));
    serde_json::from_str::<Value>(&same.stdout).expect("JSON also without a difference");
}

#[tokio::test]
async fn spelling_is_no_difference() {
    let folder = folder();
    write(folder.path(), "one.yaml", &GatewayBuilder::standard(BASE));
    let yaml = format!(
        "# the same, as a person writes it\n_format_version: '1'\nmodels:\n- {{provider_key: main, display_name: {MODEL}, model_name: upstream-model, provider: openai}}\n\
         provider_keys:\n- display_name: main\n  api_base: {BASE}\n  provider: openai\n  secret: ${{THE_SECRET}}\n\
         api_keys:\n- display_name: caller\n  key_env: THE_CALLER\n  allowed_models: ['*']\n"
    );
    std::fs::write(folder.path().join("two.yaml"), yaml).expect("write");
    let env = [("THE_SECRET", PROVIDER_SECRET), ("THE_CALLER", aisix_testkit::gateway::builder::CALLER_KEY)];
    let exit = Gateway::run(&["diff", "one.yaml", "two.yaml"], &env, folder.path()).await;
    assert_eq!((exit.code, lines(&exit)), (Some(0), Vec::new()), "{exit:?}");
}

#[tokio::test]
async fn pruning_everything_leaves_nothing_dangling() {
    let (gateway, admin) = embedded().await;
    let world = World::create(&admin).await;
    admin.create("models", &direct("needs-the-key", &world.provider_key)).await;
    // A file that knows nothing of the key on which the store's models stand.
    let only = json!({
        "_format_version": "1",
        "provider_keys": [{"display_name": "unrelated", "api_key": "x"}],
    });
    write(gateway.dir(), "only.yaml", &only);
    let place = format!("http://{}", gateway.admin);
    let exit = aisix(gateway.dir(), &["diff", &place, "only.yaml"]).await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(lines(&exit).contains(&"- provider key world-key"), "{exit:?}");
    // Everything goes, so nothing is left dangling.
    assert!(!lines(&exit).iter().any(|line| line.starts_with("! ")), "{exit:?}");
}

#[tokio::test]
async fn rows_that_dangle_are_marked() {
    let (etcd, _upstream) = cluster::seeded().await;
    let folder = folder();
    let (from, prefix) = (format!("etcd://{}{PREFIX}", etcd.endpoint()), "/edited");
    for row in cluster::rows(&etcd, &format!("{PREFIX}/")).await {
        if !row.key.contains("provider_keys") {
            etcd.put(&row.key.replace(PREFIX, prefix), &row.json().to_string()).await;
        }
    }
    let to = format!("etcd://{}{prefix}", etcd.endpoint());
    let exit = aisix(folder.path(), &["diff", &from, &to]).await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let found = lines(&exit);
    assert!(found.contains(&"- provider key main"), "{found:#?}");
    let broken: Vec<_> = found.iter().filter(|line| line.starts_with("! ")).collect();
    assert_eq!(broken.len(), 1, "{found:#?}");
    assert!(
        broken[0].starts_with(&format!("! model {MODEL}: provider_key_id names provider key \"main\"")),
        "{broken:?}"
    );
    assert!(broken[0].ends_with("which is not there"), "{broken:?}");
}

#[tokio::test]
async fn places_that_hold_the_same_are_equal() {
    // A file, an etcd, an embedded store and two running gateways with one configuration.
    let (etcd, upstream) = cluster::seeded().await;
    let (gateway, admin) = embedded().await;
    let mut resources = GatewayBuilder::standard(&upstream.base());
    resources["models"][0]["model_name"] = json!("upstream");
    write(gateway.dir(), "file.yaml", &resources);
    for kind in ["api_keys", "models", "provider_keys"] {
        for entry in admin.list(kind).await {
            admin.delete(&format!("{kind}/{}", entry["id"].as_str().unwrap_or_default())).await.expect(200);
        }
    }
    for row in cluster::rows(&etcd, &format!("{PREFIX}/")).await {
        if row.key.contains("provider_keys") {
            let id = admin.create("provider_keys", &row.json()).await;
            let mut model = cluster::model(MODEL);
            model["provider_key_id"] = json!(id);
            admin.create("models", &model).await;
        } else if row.key.contains("api_keys") {
            admin.create("api_keys", &row.json()).await;
        }
    }
    let on_etcd = cluster::on(&etcd).start().await;
    let places = [
        "file.yaml".to_owned(),
        format!("etcd://{}{PREFIX}", etcd.endpoint()),
        "store:data".to_owned(),
        format!("http://{}", gateway.admin),
        format!("http://{}", on_etcd.admin),
    ];
    for from in &places {
        for to in &places {
            let exit = aisix(gateway.dir(), &["diff", from, to]).await;
            assert_eq!((exit.code, lines(&exit)), (Some(0), Vec::new()), "{from} {to}: {exit:?}");
        }
    }
}

#[tokio::test]
async fn places_that_cannot_be_read() {
    let (gateway, _admin) = embedded().await;
    write(gateway.dir(), "good.yaml", &GatewayBuilder::standard(BASE));
    std::fs::write(gateway.dir().join("bad.yaml"), "models: {").expect("write");
    let here = format!("http://{}", gateway.admin);
    for place in [
        "missing.yaml",
        "bad.yaml",
        "http://127.0.0.1:1",
        "etcd://127.0.0.1:1/aisix",
        "store:nowhere",
        "ftp://x/y",
        "",
    ] {
        let exit = aisix(gateway.dir(), &["diff", "good.yaml", place]).await;
        assert_eq!(exit.code, Some(2), "{place}: {exit:?}");
        assert!(!exit.stderr.trim().is_empty() && !exit.stderr.contains("panicked"), "{place}: {exit:?}");
    }
    assert!(!gateway.dir().join("nowhere").exists(), "looking does not make a store");
    for (name, key) in [("AISIX_ADMIN_KEY", "wrong-MARKER"), ("OTHER", ADMIN_KEY)] {
        let exit = Gateway::run(&["diff", "good.yaml", &here], &[(name, key)], gateway.dir()).await;
        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert!(!exit.stderr.contains("MARKER"), "{exit:?}");
    }
    let named = ["diff", "good.yaml", &here, "--admin-key-env", "OTHER"];
    let exit = Gateway::run(&named, &[("OTHER", ADMIN_KEY)], gateway.dir()).await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
}
