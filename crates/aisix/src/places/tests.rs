//! Tests of places and of what a gateway answers.

use aisix_config::plan;
use serde_json::json;

use super::{
    Place,
    access::secret,
    gateway::{encoded, plan_of},
};

#[test]
fn places_are_told_apart() {
    let gateway = |https, host: &str, port| Place::Gateway { https, host: host.into(), port };
    let etcd = |endpoints: &[&str], prefix: &str| Place::Etcd {
        endpoints: endpoints.iter().map(|host| (*host).to_owned()).collect(),
        prefix: prefix.into(),
    };
    for (text, place, shown) in [
        ("resources.yaml", Place::File("resources.yaml".into()), "resources.yaml"),
        ("/a b/c:d.yaml", Place::File("/a b/c:d.yaml".into()), "/a b/c:d.yaml"),
        ("./odd dir://x", Place::File("./odd dir://x".into()), "./odd dir://x"),
        ("http://127.0.0.1:3001", gateway(false, "127.0.0.1", 3001), "http://127.0.0.1:3001"),
        ("http://localhost/", gateway(false, "localhost", 80), "http://localhost:80"),
        (
            "https://admin.example.com",
            gateway(true, "admin.example.com", 443),
            "https://admin.example.com:443",
        ),
        ("https://[::1]:3001", gateway(true, "::1", 3001), "https://[::1]:3001"),
        ("etcd://a:1", etcd(&["a:1"], "/aisix/"), "etcd://a:1/aisix"),
        ("etcd://a:1,b:2/x/y", etcd(&["a:1", "b:2"], "/x/y/"), "etcd://a:1,b:2/x/y"),
        ("etcd://a:1/x//", etcd(&["a:1"], "/x/"), "etcd://a:1/x"),
        ("store:data", Place::Store("data".into()), "store:data"),
        ("store:/var/lib/aisix", Place::Store("/var/lib/aisix".into()), "store:/var/lib/aisix"),
    ] {
        let parsed = Place::parse(text).expect(text);
        assert_eq!(parsed, place, "{text}");
        assert_eq!(parsed.to_string(), shown);
    }
}

#[test]
fn what_is_no_place_is_refused() {
    for (text, why) in [
        ("", "empty"),
        ("store:", "no folder"),
        ("ftp://host/x", "\"ftp\""),
        ("http://", "HOST:PORT"),
        ("http://host:port", "HOST:PORT"),
        ("http://host:99999", "HOST:PORT"),
        ("http://host:1/admin", "HOST:PORT"),
        ("http://host:1?x=y", "HOST:PORT"),
        ("http://me:word@host", "credentials"),
        ("etcd://", "empty"),
        ("etcd:///x", "empty"),
        ("etcd://a:1,,b:2/x", "empty"),
        ("etcd://me:word@a:1/x", "credentials"),
    ] {
        let refusal = Place::parse(text).expect_err(text);
        assert!(refusal.contains(why), "{text}: {refusal}");
        assert!(!refusal.contains("word@"), "{refusal}");
    }
}

#[test]
fn a_secret_in_the_place_of_a_name_is_not_repeated() {
    for given in ["sk-0123", "a b", "1a", "", "pässword"] {
        let refusal = secret("--admin-key-env", given, "a key").expect_err(given).to_string();
        assert_eq!(refusal, "--admin-key-env takes the name of an environment variable");
    }
    let refusal = secret("--x", "AISIX_TEST_NOT_SET", "a key").expect_err("not set").to_string();
    assert!(refusal.contains("AISIX_TEST_NOT_SET"), "{refusal}");
    assert!(secret("--x", "PATH", "something").is_ok());
}

#[test]
fn plans_survive_the_way() {
    let document = |id: &str, value| aisix_config::Document {
        kind: aisix_config::kind_of("models").expect("a kind"),
        id: id.into(),
        value,
    };
    let model = |id: &str, name: &str, timeout: u64| {
        let value = json!({
            "display_name": name, "provider": "openai", "model_name": "m", "provider_key_id": "gone",
            "timeout": timeout,
        });
        document(id, value)
    };
    let plan = plan::plan(
        &[model("1", "a", 30_000), model("2", "b", 1)],
        &[model("1", "a", 60_000), model("3", "c", 1)],
        true,
    );
    assert_eq!((plan.changes.len(), plan.broken.len()), (3, 2));
    let sent = serde_json::to_value(&plan).expect("JSON");
    let read = plan_of(&sent).expect("a plan");
    assert_eq!(serde_json::to_value(&read).expect("JSON"), sent);
    assert_eq!(read.to_string(), plan.to_string());
    for strange in [json!({}), json!([]), json!({"changes": [{"kind": "models"}], "broken": []})] {
        assert!(plan_of(&strange).is_none(), "{strange}");
    }
}

#[test]
fn ids_are_encoded() {
    assert_eq!(encoded("aB1").to_string(), "aB1");
    assert_eq!(encoded("a/b &ä").to_string(), "a%2Fb%20%26%C3%A4");
}
