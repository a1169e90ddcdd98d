//! Starts the real binary and watches it.

pub mod builder;
mod log;

pub use builder::GatewayBuilder;
pub use log::LogLine;

use crate::client::{Client, Reply, Request};
use crate::metrics::Samples;
use crate::{eventually, within};
use log::LogBuffer;
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// The admin key every test gateway has.
pub const ADMIN_KEY: &str = "admin-key-of-the-tests";

/// Lower-case hex SHA-256, as `key_hash` wants it.
pub fn key_hash(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Everything on stdout.
    pub stdout: String,
    /// Everything on stderr.
    pub stderr: String,
}

/// A running gateway. Dropping it kills the process.
pub struct Gateway {
    /// Proxy listener.
    pub proxy: SocketAddr,
    /// Admin listener.
    pub admin: SocketAddr,
    /// Metrics and status listener.
    pub metrics: SocketAddr,
    dir: TempDir,
    child: Child,
    log: LogBuffer,
}

impl Gateway {
    /// A gateway with one provider key, model and caller key, on `provider`'s address.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::new()
    }

    /// Runs the binary with these arguments until it ends by itself.
    pub async fn run(args: &[&str], env: &[(&str, &str)], dir: &Path) -> Exit {
        let mut command = command(dir, env);
        command.args(args);
        let output = within("the binary ends by itself", command.output()).await;
        let output = output.expect("run the binary");
        Exit {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn spawn(dir: TempDir, env: &[(&str, &str)], ports: [u16; 3]) -> Self {
        let mut command = command(dir.path(), env);
        command.arg("--config").arg(dir.path().join("config.json"));
        let mut child = command.spawn().expect("start the binary");
        let log = LogBuffer::default();
        if let Some(stderr) = child.stderr.take() {
            log.collect(stderr);
        }
        let [proxy, admin, metrics] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        Self { proxy, admin, metrics, dir, child, log }
    }

    /// Directory of the configuration files; also the working directory of the process.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process was not awaited yet")
    }

    /// Client of the proxy listener.
    pub fn client(&self) -> Client {
        Client::new(self.proxy)
    }

    /// Sends a request to the proxy listener.
    pub async fn send(&self, request: Request) -> Reply {
        self.client().send(request).await
    }

    /// Sends a chat request with the standard caller key.
    pub async fn chat(&self, body: &Value) -> Reply {
        self.send(Self::chat_request(body)).await
    }

    /// A chat request with the standard caller key.
    pub fn chat_request(body: &Value) -> Request {
        Request::post("/v1/chat/completions", body).bearer(builder::CALLER_KEY)
    }

    /// The smallest chat body for the standard model.
    pub fn hello(stream: bool) -> Value {
        json!({"model": builder::MODEL, "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
    }

    /// GET on the admin listener, with the admin key.
    pub async fn admin_get(&self, path: &str) -> Reply {
        let request = Request::get(path).bearer(ADMIN_KEY);
        Client::new(self.admin).send(request).await
    }

    /// GET on the metrics and status listener.
    pub async fn status_get(&self, path: &str) -> Reply {
        Client::new(self.metrics).send(Request::get(path)).await
    }

    /// `/status/config`.
    pub async fn config_status(&self) -> Value {
        self.status_get("/status/config").await.json().await
    }

    /// Scrapes `/metrics`.
    pub async fn scrape(&self) -> Samples {
        let text = self.status_get("/metrics").await.text().await;
        Samples::parse(&text)
    }

    /// Waits until a series has exactly this sum.
    pub async fn wait_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let what = format!("{name} {labels:?} becomes {value}");
        eventually(&what, || async { (self.scrape().await.sum(name, labels) == value).then_some(()) }).await;
    }

    /// The health level of a model on the admin listener.
    pub async fn health_of(&self, model: &str) -> Value {
        let health = self.admin_get("/admin/v1/health").await.json().await;
        let models = health["models"].as_array().cloned().unwrap_or_default();
        let found = models.into_iter().find(|entry| entry["name"] == model);
        found.map_or(Value::Null, |entry| entry["health"].clone())
    }

    /// All log lines so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Waits for a log line that contains `needle`.
    pub async fn wait_log(&self, needle: &str) -> String {
        self.log.wait_for(needle).await
    }

    /// Access-log lines so far.
    pub fn access_log(&self) -> Vec<LogLine> {
        let lines = self.log.lines();
        lines.iter().filter_map(|l| LogLine::access(l)).collect()
    }

    /// Waits for the access-log lines of one request: those with its id, once there is at least one.
    pub async fn access_of(&self, request_id: &str) -> Vec<LogLine> {
        let what = format!("an access line of {request_id}; log: {:#?}", self.log());
        eventually(&what, || async {
            let mut lines = self.access_log();
            lines.retain(|line| line.get("request_id") == Some(request_id));
            (!lines.is_empty()).then_some(lines)
        })
        .await
    }

    /// Writes a file into the gateway's directory and returns its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        // Written beside and renamed, so that a watcher never sees half a file.
        let beside = self.dir.path().join(format!(".{name}.new"));
        std::fs::write(&beside, content).expect("write a file");
        std::fs::rename(&beside, &path).expect("rename a file");
        path
    }

    /// Replaces the resources file.
    pub fn write_resources(&self, resources: &Value) {
        self.write("resources.yaml", &resources.to_string());
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("signal the process");
    }

    /// SIGHUP.
    pub fn hup(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGTERM.
    pub fn term(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end of the process.
    pub async fn exit(&mut self) -> ExitStatus {
        let status = within("the gateway ends", self.child.wait()).await;
        status.expect("wait for the process")
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// A resident-memory reading in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("/proc is readable");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let value = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
        value.expect("VmRSS")
    }

    /// How many file descriptors the process has open.
    pub fn open_files(&self) -> usize {
        let listing = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        listing.expect("/proc is readable").count()
    }

    /// Waits until the proxy answers `/readyz`, or the process is gone.
    async fn wait_ready(&mut self, client: &Client) -> Result<(), Exit> {
        let deadline = std::time::Instant::now() + crate::DEADLINE;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.log.wait_end().await;
                return Err(Exit {
                    code: status.code(),
                    stdout: String::new(),
                    stderr: self.log.lines().join("\n"),
                });
            }
            let probe = client.try_send(Request::get("/readyz"));
            let probe = tokio::time::timeout(Duration::from_secs(1), probe).await;
            if matches!(&probe, Ok(Ok(reply)) if reply.status == 200) {
                return Ok(());
            }
            let log = self.log();
            assert!(std::time::Instant::now() < deadline, "not ready; log: {log:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The binary with nothing of the test's environment but what a process needs to run.
fn command(dir: &Path, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().current_dir(dir).kill_on_drop(true);
    for name in ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `GATEWAY_BIN`, else the debug build, else the release build of the workspace.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("GATEWAY_BIN") {
        return PathBuf::from(path);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let built = ["debug", "release"].map(|profile| target.join(profile).join("aisix"));
    match built.into_iter().find(|path| path.is_file()) {
        Some(path) => path,
        None => panic!("the gateway is not built; run: cargo build -p aisix (or set GATEWAY_BIN)"),
    }
}

/// Reads what is left of a pipe.
async fn read_all(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut text = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut text).await;
    }
    String::from_utf8_lossy(&text).into_owned()
}
