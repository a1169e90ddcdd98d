//! Configuration of a test gateway.

use super::{ADMIN_KEY, Exit, Gateway, Launch, key_hash};
use crate::client::Client;
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The standard caller key.
pub const CALLER_KEY: &str = "sk-caller-of-the-tests";
/// The credential of the standard provider key.
pub const PROVIDER_SECRET: &str = "sk-secret-of-the-provider";
/// The standard model, as callers name it.
pub const MODEL: &str = "test-model";
/// The standard model, as the upstream names it.
pub const UPSTREAM_MODEL: &str = "upstream-model";

/// A gateway that is not started yet.
#[derive(Clone)]
pub struct GatewayBuilder {
    config: Value,
    resources: Value,
    files: Vec<(String, String)>,
    env: Vec<(String, String)>,
    configured: bool,
}

impl GatewayBuilder {
    pub(super) fn new() -> Self {
        let config = json!({
            "resources_file": "resources.yaml",
            "proxy": {"workers": 1},
            "admin": {"enabled": true, "admin_keys": [ADMIN_KEY]},
            "observability": {"metrics": {"prometheus": {"enabled": true}}},
            "upstream": {"retries": 0},
            "shutdown": {"min_drain_secs": 0},
        });
        let resources = json!({"_format_version": "1"});
        Self { config, resources, files: Vec::new(), env: Vec::new(), configured: true }
    }

    /// Resources from etcd instead of a file.
    pub fn etcd(self, endpoints: &[String], prefix: &str) -> Self {
        self.without("resources_file").set("/etcd", json!({"endpoints": endpoints, "prefix": prefix}))
    }

    /// Resources from the embedded store, in `data` below the working directory.
    pub fn embedded(self) -> Self {
        self.without("resources_file").set("/data_dir", json!("data"))
    }

    /// No configuration file at all: the addresses come from the environment, the home directory is the working directory.
    pub fn unconfigured(mut self) -> Self {
        self.configured = false;
        self
    }

    /// Sets a field of the process configuration by JSON pointer, making the blocks on the way.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut at = &mut self.config;
        for name in pointer.trim_start_matches('/').split('/') {
            at = &mut at[name];
        }
        *at = value;
        self
    }

    /// Removes a top-level block of the process configuration.
    pub fn without(mut self, block: &str) -> Self {
        if let Some(config) = self.config.as_object_mut() {
            config.remove(block);
        }
        self
    }

    /// Replaces the resources.
    pub fn resources(mut self, resources: Value) -> Self {
        self.resources = resources;
        self
    }

    /// Standard resources: one provider key on `base`, one model, one caller key that may use everything.
    pub fn upstream(self, base: &str) -> Self {
        let resources = Self::standard(base);
        self.resources(resources)
    }

    /// Changes the resources in place.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.resources);
        self
    }

    /// The standard resources.
    pub fn standard(base: &str) -> Value {
        json!({
            "_format_version": "1",
            "provider_keys": [
                {"display_name": "main", "provider": "openai", "api_key": PROVIDER_SECRET, "api_base": base},
            ],
            "models": [{
                "display_name": MODEL, "provider": "openai", "model_name": UPSTREAM_MODEL, "provider_key": "main",
            }],
            "api_keys": [
                {"display_name": "caller", "key_hash": key_hash(CALLER_KEY), "allowed_models": ["*"]},
            ],
        })
    }

    /// Sets an environment variable of the process.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a further file into the working directory.
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Gateway {
        self.start_with(|gateway| Client::new(gateway.proxy)).await
    }

    /// Starts it, probing readiness through a client of the test's choice (TLS).
    pub async fn start_with(self, client: impl Fn(&Gateway) -> Client) -> Gateway {
        for _ in 0..3 {
            let mut gateway = self.spawn();
            let client = client(&gateway);
            match gateway.wait_ready(&client).await {
                Ok(()) => return gateway,
                // Another process took the port between the choice and the bind.
                Err(exit) if exit.stderr.contains("Address already in use") => {}
                Err(exit) => panic!("the gateway did not start: {exit:#?}"),
            }
        }
        panic!("no free ports after three attempts");
    }

    /// Starts it and expects it to end by itself.
    pub async fn start_and_fail(self) -> Exit {
        self.start_and_fail_within(crate::DEADLINE).await
    }

    /// The same, for a failure that takes its time.
    pub async fn start_and_fail_within(self, limit: Duration) -> Exit {
        let mut gateway = self.spawn();
        let ended = tokio::time::timeout(limit, gateway.child.wait()).await;
        let Ok(status) = ended else {
            panic!("the gateway still runs after {limit:?}; log: {:#?}", gateway.log());
        };
        gateway.ended(status.expect("wait for the process")).await
    }

    /// Starts it and waits only until its status listener answers.
    pub async fn start_unready(self) -> Gateway {
        let mut gateway = self.spawn();
        gateway.wait_answering().await;
        gateway
    }

    fn spawn(&self) -> Gateway {
        let dir = TempDir::new().expect("a temporary directory");
        let ports = [free_port(), free_port(), free_port()];
        let args = if self.configured {
            self.write_config(dir.path(), ports);
            let config = dir.path().join("config.json");
            vec!["--config".to_owned(), config.to_string_lossy().into_owned()]
        } else {
            Vec::new()
        };
        for (name, content) in &self.files {
            write_private(&dir.path().join(name), content.as_bytes());
        }
        let mut env = if self.configured { Vec::new() } else { Self::addresses(dir.path(), ports) };
        env.extend(self.env.iter().cloned());
        Gateway::spawn(dir, Launch { args, env }, ports)
    }

    /// What replaces a configuration file.
    fn addresses(home: &Path, ports: [u16; 3]) -> Vec<(String, String)> {
        let [proxy, admin, metrics] = ports.map(|port| format!("127.0.0.1:{port}"));
        let env = [
            ("HOME", home.to_string_lossy().into_owned()),
            ("AISIX_PROXY__ADDR", proxy),
            ("AISIX_ADMIN__ADDR", admin),
            ("AISIX_OBSERVABILITY__METRICS__PROMETHEUS__ADDR", metrics),
            ("AISIX_SHUTDOWN__MIN_DRAIN_SECS", "0".to_owned()),
        ];
        env.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    fn write_config(&self, dir: &Path, ports: [u16; 3]) {
        let mut config = self.config.clone();
        let at = |port: u16| json!(format!("127.0.0.1:{port}"));
        default_to(&mut config["proxy"]["addr"], at(ports[0]));
        if config.get("admin").is_some() {
            default_to(&mut config["admin"]["addr"], at(ports[1]));
        }
        default_to(&mut config["observability"]["metrics"]["prometheus"]["addr"], at(ports[2]));
        std::fs::write(dir.join("config.json"), config.to_string()).expect("write a file");
        std::fs::write(dir.join("resources.yaml"), self.resources.to_string()).expect("write a file");
    }
}

/// Writes a file that only its owner may read, as keys want it.
pub fn write_private(path: &Path, content: &[u8]) {
    let _ = std::fs::remove_file(path);
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content)).expect("write a file");
}

fn default_to(place: &mut Value, value: Value) {
    if place.is_null() {
        *place = value;
    }
}

/// A port that was free a moment ago, below the range from which the kernel takes ports for outgoing connections.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Neighbouring processes start far apart.
    let spread = u16::try_from(std::process::id().wrapping_mul(7919) % u32::from(COUNT));
    let spread = spread.unwrap_or_default();
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::SeqCst) % COUNT;
        let port = FIRST + (u32::from(spread) + u32::from(step)).rem_euclid(u32::from(COUNT)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on the loopback interface");
}
