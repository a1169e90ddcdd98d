//! Tests of the first start and of later ones, on real stores.

mod crashes;
mod servers;

use std::{path::Path, sync::Arc};

use aisix_config::{ConfigState, Follower};
use aisix_store::embedded::KeySource;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;

/// Where nobody listens.
const NOWHERE: Local<'static> = Local { ollama: "127.0.0.1:1", llamacpp: "127.0.0.1:1" };
const PROBE: Duration = Duration::from_millis(300);

/// A process with a store of a folder.
struct World {
    store: Arc<EmbeddedStore>,
    editor: Editor,
    following: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl World {
    async fn open(folder: &Path) -> Self {
        let store = EmbeddedStore::open(folder, KeySource::Generated).expect("a store");
        let state = Arc::new(ConfigState::of_store("embedded", ""));
        let follower = Follower::new(state.clone(), |_| ());
        let followed = store.clone();
        let following = tokio::spawn(async move {
            followed.run(follower).await;
        });
        let mut applied = state.applied();
        while !state.is_loaded() {
            applied.changed().await.expect("the state lives");
        }
        Self { editor: Editor::new(state, store.clone()), store, following }
    }

    async fn start(&self, env: &[(&str, &str)]) -> Option<Welcome> {
        self.start_near(env, &NOWHERE).await
    }

    async fn start_near(&self, env: &[(&str, &str)], local: &Local<'_>) -> Option<Welcome> {
        start(&self.editor, &self.store, &around(env), local).await.expect("a start")
    }

    /// A start whose secrets were printed: what was printed.
    async fn show(&self, env: &[(&str, &str)]) -> Option<String> {
        let welcome = self.start(env).await?;
        let text = welcome.to_string();
        welcome.shown(&self.store).await.expect("noted");
        Some(text)
    }

    async fn edit(&self, operation: Operation) {
        let actor = Actor { name: "operator".into(), remote: None };
        self.editor.run(&[operation.into()], &actor, "test", false).await.expect("edited");
    }

    /// The documents of a kind, with their ids, ordered by name.
    async fn all(&self, kind: &str) -> Vec<(String, Value)> {
        let (rows, _) = self.store.current().await.expect("rows");
        let rows = rows.iter().filter_map(|row| {
            let id = row.key.strip_prefix(kind)?.strip_prefix('/')?;
            Some((id.to_owned(), serde_json::from_slice(&row.value).expect("JSON")))
        });
        let mut found: Vec<(String, Value)> = rows.collect();
        found.sort_by_key(|(_, document)| document["display_name"].to_string());
        found
    }

    async fn names(&self, kind: &str) -> Vec<String> {
        let all = self.all(kind).await;
        all.iter()
            .map(|(_, document)| document["display_name"].as_str().expect("a name").to_owned())
            .collect()
    }

    async fn only(&self, kind: &str) -> (String, Value) {
        let mut all = self.all(kind).await;
        assert_eq!(all.len(), 1, "{kind}: {all:?}");
        all.remove(0)
    }

    /// The number of commits.
    async fn commits(&self) -> usize {
        self.store.revisions(100, None).await.expect("revisions").len()
    }
}

fn around(env: &[(&str, &str)]) -> Surroundings {
    Surroundings {
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        proxy_addr: "0.0.0.0:3000".parse().expect("an address"),
        admin_addr: Some("127.0.0.1:3001".parse().expect("an address")),
        tls: false,
        probe: PROBE,
        admin_key_needed: true,
    }
}

/// The first word of a text that begins so and goes on with 32 digits.
fn secret(text: &str, prefix: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let digits = |word: &&str| {
        let rest = word.strip_prefix(prefix);
        rest.is_some_and(|rest| {
            rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    };
    words.clone().find(digits).unwrap_or_else(|| panic!("no {prefix} in {text}")).to_owned()
}

/// What was shown opens the gateway.
async fn opens(world: &World, text: &str) {
    let (_, key) = world.only("api_keys").await;
    assert_eq!(key["display_name"], "first key");
    assert_eq!(key["allowed_models"], json!(["*"]));
    assert_eq!(key["key_hash"], sha256(&secret(text, "sk-")));
    let digest = generated_admin_key(&world.store).await.expect("readable").expect("a key");
    assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(secret(text, "ak-"))));
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test]
async fn with_nothing_around_the_built_in_provider_answers() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    let text = world.show(&[]).await.expect("a first start");
    opens(&world, &text).await;
    let (id, key) = world.only("provider_keys").await;
    assert_eq!(key["provider"], "echo");
    let (_, model) = world.only("models").await;
    let expected =
        json!({"display_name": "echo", "provider": "echo", "model_name": "echo", "provider_key_id": id});
    assert_eq!(model, expected);
    let curl = format!(
        "  curl http://127.0.0.1:3000/v1/chat/completions \\\n    -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' \\\n    -d '{{\"model\":\"echo\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n",
        secret(&text, "sk-")
    );
    assert!(text.ends_with(&curl), "{text}");
    assert!(text.contains("admin API on 127.0.0.1:3001"), "{text}");
    assert!(text.contains(&folder.path().join("aisix.db").display().to_string()), "{text}");
    let revisions = world.store.revisions(10, None).await.expect("revisions");
    let told: Vec<_> = revisions.iter().map(|made| (made.actor.as_str(), made.action.as_str())).collect();
    assert_eq!(told, [("bootstrap", "bootstrap")]);
}

#[tokio::test]
async fn a_later_start_shows_and_changes_nothing() {
    let folder = folder();
    let env = [("OPENAI_API_KEY", "sk-1")];
    let first = World::open(folder.path()).await;
    let text = first.show(&env).await.expect("a first start");
    drop(first);
    let world = World::open(folder.path()).await;
    assert_eq!(world.show(&env).await, None);
    assert_eq!(world.commits().await, 1);
    opens(&world, &text).await;
}

#[tokio::test]
async fn a_store_that_somebody_filled_gets_an_admin_key_only() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    let value = json!({"display_name": "mine", "provider": "echo", "api_key": "unused"});
    world.edit(Operation::Create { kind: kind("provider_keys").unwrap(), id: None, value }).await;
    let env = [("OPENAI_API_KEY", "sk-1")];
    let text = world.show(&env).await.expect("an admin key");
    let digest = generated_admin_key(&world.store).await.unwrap().expect("a key");
    assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(secret(&text, "ak-"))));
    assert!(!text.contains("sk-") && !text.contains("curl"), "{text}");
    assert_eq!(world.show(&env).await, None);
    assert_eq!(world.commits().await, 1);
    assert_eq!(world.names("provider_keys").await, ["mine"]);
}

#[tokio::test]
async fn a_configured_admin_key_needs_no_generated_one_until_it_is_gone() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    let mut around = around(&[]);
    around.admin_key_needed = false;
    let welcome = start(&world.editor, &world.store, &around, &NOWHERE).await.unwrap().expect("a caller key");
    assert!(!welcome.to_string().contains("ak-"));
    welcome.shown(&world.store).await.unwrap();
    assert_eq!(generated_admin_key(&world.store).await.unwrap(), None);

    let lost = world.start(&[]).await.expect("an admin key").to_string();
    let text = world.show(&[]).await.expect("an admin key, since nobody has seen the other");
    assert_ne!(secret(&lost, "ak-"), secret(&text, "ak-"));
    assert!(!text.contains("sk-"), "{text}");
    let digest = generated_admin_key(&world.store).await.unwrap().expect("a key");
    assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(secret(&text, "ak-"))));
    assert_eq!(world.show(&[]).await, None);
}

#[tokio::test]
async fn a_damaged_admin_key_is_an_error() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    for text in ["", "00", &"zz".repeat(32), &"é".repeat(32), &"00".repeat(33)] {
        world.store.meta_set(ADMIN_KEY, text).await.unwrap();
        assert!(generated_admin_key(&world.store).await.is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn every_variable_brings_its_vendor() {
    let known: Vec<_> = vendors::VENDORS.iter().flat_map(|vendor| vendor.variables).collect();
    assert_eq!(known.len(), 16);
    for vendor in vendors::VENDORS {
        for variable in vendor.variables {
            let folder = folder();
            let world = World::open(folder.path()).await;
            let text =
                world.show(&[("PATH", "/bin"), (variable, " secret-1\n")]).await.expect("a first start");
            opens(&world, &text).await;
            let (id, key) = world.only("provider_keys").await;
            assert_eq!((&key["display_name"], &key["api_key"]), (&json!(vendor.name), &json!("secret-1")));
            assert_eq!(key["api_base"], vendor.api_base);
            // The OpenAI protocol is chosen by `openai` as the vendor or as the adapter.
            assert_ne!(key["provider"], "anthropic");
            assert!(key["provider"] == "openai" || key["adapter"] == "openai", "{key}");
            let (_, model) = world.only("models").await;
            let name = format!("{}/*", vendor.name);
            let expected = json!({
                "display_name": name, "provider": vendor.name, "model_name": "*", "provider_key_id": id,
            });
            assert_eq!(model, expected);
            assert!(text.contains(variable) && text.contains(&name), "{text}");
            assert!(text.contains(&format!("{{\"model\":\"{}/", vendor.name)), "{text}");
            assert!(!text.contains("secret-1"), "{text}");
        }
    }
}

#[tokio::test]
async fn several_variables_are_taken_together_and_unusable_ones_not_at_all() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    let env = [
        ("GOOGLE_API_KEY", "second"),
        ("GEMINI_API_KEY", "first"),
        ("OPENAI_API_KEY", "sk-1"),
        ("GROQ_API_KEY", "  "),
        ("MISTRAL_API_KEY", "two words"),
        ("XAI_API_KEY", "caf\u{e9}"),
        ("DEEPSEEK_API_KEY", "***"),
    ];
    let text = world.show(&env).await.expect("a first start");
    assert_eq!(world.names("models").await, ["gemini/*", "openai/*"]);
    let keys = world.all("provider_keys").await;
    assert_eq!(keys[0].1["api_key"], "first");
    assert!(text.contains("\"model\":\"openai/gpt-4o-mini\""), "{text}");
    assert_eq!(world.commits().await, 1);
    // What was unusable is taken once it is not.
    assert_eq!(world.show(&[("GROQ_API_KEY", "gsk"), ("DEEPSEEK_API_KEY", "sk-2")]).await, None);
    assert_eq!(world.names("models").await, ["deepseek/*", "gemini/*", "groq/*", "openai/*"]);
}

#[tokio::test]
async fn another_root_of_openai_is_used_if_it_is_one() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    let base = ("OPENAI_BASE_URL", "ftp://nowhere");
    world.show(&[("OPENAI_API_KEY", "sk-1"), base]).await.expect("a first start");
    assert_eq!(world.names("models").await, ["echo"]);
    let base = ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1");
    assert_eq!(world.show(&[("OPENAI_API_KEY", "sk-1"), base]).await, None);
    assert_eq!(world.names("models").await, ["echo", "openai/*"]);
    assert_eq!(world.all("provider_keys").await[1].1["api_base"], "http://127.0.0.1:9/v1");
    // The root goes with the credential: the new one must not reach the old root.
    assert_eq!(world.show(&[("OPENAI_API_KEY", "sk-2")]).await, None);
    let key = &world.all("provider_keys").await[1].1;
    assert_eq!((&key["api_base"], &key["api_key"]), (&json!("https://api.openai.com/v1"), &json!("sk-2")));
}

#[tokio::test]
async fn a_changed_variable_is_followed_until_somebody_edits_the_provider_key() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    world.show(&[("OPENAI_API_KEY", "sk-1")]).await.expect("a first start");
    assert_eq!(world.show(&[("OPENAI_API_KEY", "sk-2")]).await, None);
    let (id, key) = world.only("provider_keys").await;
    assert_eq!(key["api_key"], "sk-2");
    assert_eq!(world.show(&[("OPENAI_API_KEY", "sk-2")]).await, None);
    assert_eq!(world.show(&[]).await, None);
    assert_eq!(world.commits().await, 2);

    let patch = json!({"api_key": "sk-other"});
    let kind = kind("provider_keys").unwrap();
    world.edit(Operation::Patch { kind, id: id.clone(), patch }).await;
    assert_eq!(world.show(&[("OPENAI_API_KEY", "sk-3")]).await, None);
    assert_eq!(world.only("provider_keys").await.1["api_key"], "sk-other");
    // Edited to what the variable says: in step again.
    let patch = json!({"api_key": "sk-3"});
    world.edit(Operation::Patch { kind, id, patch }).await;
    assert_eq!(world.show(&[("OPENAI_API_KEY", "sk-3")]).await, None);
    assert_eq!(world.show(&[("OPENAI_API_KEY", "sk-4")]).await, None);
    assert_eq!(world.only("provider_keys").await.1["api_key"], "sk-4");
}

#[tokio::test]
async fn what_was_deleted_stays_deleted() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    let env = [("OPENAI_API_KEY", "sk-1"), ("GROQ_API_KEY", "gsk-1")];
    world.show(&env).await.expect("a first start");
    for (id, document) in world.all("models").await {
        if document["display_name"] == "openai/*" {
            world.edit(Operation::Delete { kind: kind("models").unwrap(), id }).await;
        }
    }
    assert_eq!(world.show(&env).await, None);
    assert_eq!(world.names("models").await, ["groq/*"]);
    for (id, document) in world.all("provider_keys").await {
        if document["display_name"] == "openai" {
            world.edit(Operation::Delete { kind: kind("provider_keys").unwrap(), id }).await;
        }
    }
    let changed = [("OPENAI_API_KEY", "sk-2"), ("GROQ_API_KEY", "gsk-1")];
    assert_eq!(world.show(&changed).await, None);
    assert_eq!(world.names("provider_keys").await, ["groq"]);
    let (id, _) = world.only("api_keys").await;
    world.edit(Operation::Delete { kind: kind("api_keys").unwrap(), id }).await;
    assert_eq!(world.show(&changed).await, None);
    assert_eq!(world.names("api_keys").await, [""; 0]);
}

#[tokio::test]
async fn names_that_somebody_took_are_left_alone() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    world.show(&[]).await.expect("a first start");
    let value = json!({"display_name": "groq", "provider": "groq", "adapter": "openai", "api_key": "own"});
    let (kind, id) = (kind("provider_keys").unwrap(), Some("own".to_owned()));
    world.edit(Operation::Create { kind, id, value }).await;
    let env = [("GROQ_API_KEY", "gsk-1"), ("XAI_API_KEY", "xai-1")];
    assert_eq!(world.show(&env).await, None);
    assert_eq!(world.names("models").await, ["echo", "xai/*"]);
    assert_eq!(world.all("provider_keys").await[1].1["api_key"], "own");
    world.edit(Operation::Delete { kind, id: "own".into() }).await;
    assert_eq!(world.show(&env).await, None);
    assert_eq!(world.names("models").await, ["echo", "xai/*"]);
}

#[tokio::test]
async fn the_command_fits_the_listener() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    let mut around = around(&[]);
    around.tls = true;
    around.proxy_addr = "[::]:8443".parse().unwrap();
    let welcome =
        start(&world.editor, &world.store, &around, &NOWHERE).await.unwrap().expect("a first start");
    let text = welcome.to_string();
    assert!(text.contains("curl -k https://[::1]:8443/v1/chat/completions"), "{text}");
}
