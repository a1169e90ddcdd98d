//! One command on a fresh machine: no file, no key, and an answer.

use aisix_e2e::stores::{ask, status_of, visible};
use aisix_testkit::{Admin, FakeProvider, Gateway, GatewayBuilder, Reply, within};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::Command;

fn fresh() -> GatewayBuilder {
    Gateway::builder().unconfigured()
}

/// What the first start printed.
struct Welcome {
    text: String,
    curl: String,
    caller_key: String,
    admin_key: String,
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// The words of a text that could be secrets.
fn keys_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !is_key_char(c)).filter(|word| word.len() >= 20);
    let mut keys: Vec<String> = words.map(str::to_owned).collect();
    keys.sort();
    keys.dedup();
    keys
}

async fn welcome(gateway: &Gateway) -> Welcome {
    gateway.wait_stdout("curl").await;
    // The command may go on over several lines; its body names the model.
    gateway.wait_stdout("messages").await;
    let lines = gateway.stdout();
    let start = lines.iter().position(|line| line.contains("curl")).expect("found above");
    let mut command = Vec::new();
    for line in &lines[start..] {
        command.push(line.trim().to_owned());
        if !line.trim_end().ends_with('\\') {
            break;
        }
    }
    let curl = command.join("\n");
    let curl = curl[curl.find("curl").expect("found above")..].to_owned();
    let bearer = curl.split("Bearer ").nth(1).expect("the command carries the key");
    let caller_key: String = bearer.chars().take_while(|c| is_key_char(*c)).collect();
    let text = lines.join("\n");
    let admin_line =
        lines.iter().find(|line| line.to_lowercase().contains("admin key")).expect("an admin key");
    let from = admin_line.to_lowercase().find("admin key").expect("found above");
    let mut words = keys_in(&admin_line[from..]);
    if words.is_empty() {
        let next = lines.iter().position(|line| line == admin_line).expect("found above") + 1;
        words = keys_in(&lines[next]);
    }
    Welcome { admin_key: words.pop().expect("the admin key"), text, curl, caller_key }
}

/// Runs the printed command as a shell would.
async fn run(curl: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(curl).kill_on_drop(true).output();
    let output = within("the printed command ends", output).await.expect("sh and curl are installed");
    assert!(output.status.success(), "{curl}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn the_printed_command_answers() {
    let since = Instant::now();
    let gateway = fresh().start().await;
    let welcome = welcome(&gateway).await;
    let answer = run(&welcome.curl).await;
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let answer: serde_json::Value =
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
    assert!(!text.is_empty(), "{answer}");
    assert!(visible(&gateway, &welcome.caller_key).await.contains(&"echo".to_owned()));
    assert_eq!(status_of(&gateway, "echo", &welcome.caller_key).await, 200);
    let admin = Admin::new(gateway.admin, &welcome.admin_key);
    assert_eq!(admin.list("models").await.len(), 1);
    // An owner, who is called so in the log of writes.
    let id = admin.create("cache_policies", &json!({"name": "p"})).await;
    admin.delete(&format!("cache_policies/{id}")).await.expect(200);
    assert_eq!(admin.get("audit?limit=1").await.expect(200)[0]["actor"], "generated");
    assert_eq!(admin.with_key(&welcome.caller_key).get("models").await.status, 401);
    assert_eq!(status_of(&gateway, "echo", &welcome.admin_key).await, 401);
}

#[tokio::test]
async fn secrets_are_printed_once() {
    let mut gateway = fresh().start().await;
    let first = welcome(&gateway).await;
    let log = gateway.log().join("\n");
    for secret in [&first.admin_key, &first.caller_key] {
        assert!(!log.contains(secret.as_str()), "{log}");
        assert!(!in_files(gateway.dir(), secret), "a printed key is kept as a hash only");
    }
    gateway.kill().await;
    gateway.start_again().await;
    assert_eq!(status_of(&gateway, "echo", &first.caller_key).await, 200);
    let admin = Admin::new(gateway.admin, &first.admin_key);
    assert_eq!(admin.list("models").await.len(), 1, "nothing was set up twice");
    assert_eq!(admin.list("api_keys").await.len(), 1);
    gateway.stop().await;
    let second = gateway.stdout().join("\n");
    for secret in keys_in(&first.text) {
        let is_path = secret.contains("aisix");
        assert!(is_path || !second.contains(&secret), "{second}");
    }
    assert!(!second.contains("sk-"), "{second}");
}

/// Whether any file below a folder holds this text.
fn in_files(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).expect("a folder").flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return in_files(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn the_data_is_in_the_usual_place_and_private() {
    let gateway = fresh().start().await;
    let data = gateway.dir().join(".local/share/aisix");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    for name in ["aisix.db", "store.key"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&data) & 0o077, 0, "the folder is private");
    for entry in std::fs::read_dir(&data).expect("the folder").flatten() {
        assert_eq!(mode(&entry.path()) & 0o077, 0, "{:?}", entry.path());
    }
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let place = elsewhere.path().to_string_lossy().into_owned();
    let gateway = fresh().env("XDG_DATA_HOME", &place).start().await;
    assert!(elsewhere.path().join("aisix/aisix.db").is_file());
    assert!(!gateway.dir().join(".local").exists());
    let gateway = fresh().env("AISIX_DATA_DIR", "own/data").start().await;
    assert!(gateway.dir().join("own/data/aisix.db").is_file());
}

#[tokio::test]
async fn no_place_for_the_data_ends_the_boot_with_its_name() {
    let exit = fresh().env("AISIX_DATA_DIR", "/proc/no/such/place").start_and_fail().await;
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("/proc/no/such/place"), "{}", exit.stderr);
}

#[tokio::test]
async fn keys_in_the_environment_become_models() {
    let secret = |name: &str| format!("sk-MARKER-{}", name.to_lowercase());
    let vendors = [
        ("OPENAI_API_KEY", "openai/*"),
        ("ANTHROPIC_API_KEY", "anthropic/*"),
        ("GEMINI_API_KEY", "gemini/*"),
        ("DEEPSEEK_API_KEY", "deepseek/*"),
        ("GROQ_API_KEY", "groq/*"),
        ("MISTRAL_API_KEY", "mistral/*"),
        ("OPENROUTER_API_KEY", "openrouter/*"),
    ];
    let mut builder = fresh();
    for (name, _) in vendors {
        builder = builder.env(name, &secret(name));
    }
    let gateway = builder.start().await;
    let first = welcome(&gateway).await;
    let admin = Admin::new(gateway.admin, &first.admin_key);
    for (name, model) in vendors {
        let entry = admin.named("models", model).await.unwrap_or_else(|| panic!("no {model} for {name}"));
        assert!(entry["value"]["model_name"].as_str().is_some_and(|n| n.contains('*')), "{entry}");
        assert!(!in_files(gateway.dir(), &secret(name)), "{name} is in a file in clear");
    }
    assert!(admin.named("models", "echo").await.is_none(), "echo is for those who have nothing else");
    let shown = aisix_e2e::stores::everything_shown(&gateway, &admin).await;
    assert!(!shown.contains("MARKER") && !first.text.contains("MARKER"));
    let keys = admin.list("provider_keys").await;
    assert_eq!(keys.len(), vendors.len(), "{keys:?}");
    assert!(keys.iter().all(|entry| entry["value"]["api_key"] == "***"), "{keys:?}");
    let google = fresh().env("GOOGLE_API_KEY", "x").env("OPENAI_API_KEY", "").start().await;
    let first = self::welcome(&google).await;
    let admin = Admin::new(google.admin, &first.admin_key);
    assert!(admin.named("models", "gemini/*").await.is_some());
    assert!(admin.named("models", "openai/*").await.is_none(), "an empty variable is none");
}

#[tokio::test]
async fn a_local_ollama_is_picked_up() {
    let ollama = FakeProvider::start().await;
    // Two looks: is it one, and what does it have.
    for answer in [json!({"version": "0.9.1"}), json!({"models": []})] {
        ollama.push(Reply::json(200, &answer).then_close());
    }
    let gateway = fresh().env("OLLAMA_HOST", &ollama.addr().to_string()).start().await;
    let first = welcome(&gateway).await;
    let mut reply = gateway.send(ask("ollama/llama3.2", &first.caller_key)).await;
    let text = reply.text().await;
    assert_eq!(reply.status, 200, "{text}");
    let request = ollama.last_request();
    assert_eq!((request.method.as_str(), &request.json()["model"]), ("POST", &json!("llama3.2")));
    let names = visible(&gateway, &first.caller_key).await;
    assert!(!names.contains(&"echo".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_store_that_was_emptied_stays_as_it_was_left() {
    let mut gateway = fresh().start().await;
    let first = welcome(&gateway).await;
    let admin = Admin::new(gateway.admin, &first.admin_key);
    for kind in ["models", "provider_keys"] {
        for entry in admin.list(kind).await {
            let id = entry["id"].as_str().unwrap_or_default();
            admin.delete(&format!("{kind}/{id}")).await.expect(200);
        }
    }
    gateway.kill().await;
    gateway.start_again().await;
    assert_eq!(admin.list("models").await.len(), 0, "a restart brings nothing back");
}

#[tokio::test]
async fn configured_admin_keys_are_not_joined_by_another() {
    let gateway = Gateway::builder().embedded().start().await;
    gateway.wait_stdout("messages").await;
    let text = gateway.stdout().join("\n").to_lowercase();
    assert!(!text.contains("admin-key-of-the-tests"), "a configured key is not repeated: {text}");
    assert_eq!(gateway.admin_api().get("models").await.status, 200);
}
