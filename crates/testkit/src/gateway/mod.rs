//! Starts the real binary and watches it.

pub mod builder;
mod log;

pub use builder::{GatewayBuilder, free_port, write_private};
pub use log::LogLine;

use crate::admin::Admin;
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
    launch: Launch,
    child: Child,
    log: LogBuffer,
    stdout: LogBuffer,
}

/// How the process is started.
#[derive(Default)]
struct Launch {
    args: Vec<String>,
    env: Vec<(String, String)>,
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

    /// The binary, to be run by hand in a folder with these variables.
    pub fn command(dir: &Path, env: &[(&str, &str)]) -> Command {
        command(dir, env)
    }

    fn spawn(dir: TempDir, launch: Launch, ports: [u16; 3]) -> Self {
        let [proxy, admin, metrics] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let (child, log, stdout) = launch.spawn(dir.path());
        Self { proxy, admin, metrics, dir, launch, child, log, stdout }
    }

    /// Starts an ended process again, with the same files, ports and environment, and waits until it is ready.
    pub async fn start_again(&mut self) {
        self.respawn();
        let client = self.client();
        if let Err(exit) = self.wait_ready(&client).await {
            panic!("the gateway did not start again: {exit:#?}");
        }
    }

    /// The same, but waits only until it answers.
    pub async fn start_again_unready(&mut self) {
        self.respawn();
        self.wait_answering().await;
    }

    fn respawn(&mut self) {
        assert!(!self.is_running(), "the process still runs");
        (self.child, self.log, self.stdout) = self.launch.spawn(self.dir.path());
    }

    /// SIGKILL; waits for the end.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exit().await;
    }

    /// SIGTERM; waits for the end.
    pub async fn stop(&mut self) {
        self.term();
        self.exit().await;
    }

    /// Waits until the status listener answers.
    pub(super) async fn wait_answering(&mut self) {
        let client = Client::new(self.metrics);
        let deadline = std::time::Instant::now() + crate::DEADLINE;
        while client.try_send(Request::get("/status/config")).await.is_err() {
            let log = self.log();
            assert!(self.is_running(), "the gateway ended; log: {log:#?}");
            assert!(std::time::Instant::now() < deadline, "no answer; log: {log:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Directory of the configuration files; also the working directory of the process.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process was not awaited yet")
    }

    /// The admin API with the standard key.
    pub fn admin_api(&self) -> Admin {
        Admin::new(self.admin, ADMIN_KEY)
    }

    /// Lines on stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lines()
    }

    /// Waits for a line on stdout that contains `needle`.
    pub async fn wait_stdout(&self, needle: &str) -> String {
        self.stdout.wait_for(needle).await
    }

    /// Waits until `/status/config` satisfies a condition.
    pub async fn wait_config(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let what = format!("{what}; at first: {}", self.config_status().await);
        eventually(&what, || async {
            let status = self.config_status().await;
            holds(&status).then_some(status)
        })
        .await
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

    /// What an ended process left behind.
    async fn ended(&self, status: ExitStatus) -> Exit {
        self.log.wait_end().await;
        self.stdout.wait_end().await;
        Exit { code: status.code(), stdout: self.stdout().join("\n"), stderr: self.log().join("\n") }
    }

    /// Waits until the proxy answers `/readyz`, or the process is gone.
    async fn wait_ready(&mut self, client: &Client) -> Result<(), Exit> {
        let deadline = std::time::Instant::now() + crate::DEADLINE;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.ended(status).await);
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

impl Launch {
    fn spawn(&self, dir: &Path) -> (Child, LogBuffer, LogBuffer) {
        let env: Vec<(&str, &str)> = self.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut command = command(dir, &env);
        command.args(&self.args);
        let mut child = command.spawn().expect("start the binary");
        let (log, stdout) = (LogBuffer::default(), LogBuffer::default());
        if let Some(pipe) = child.stderr.take() {
            log.collect(pipe);
        }
        if let Some(pipe) = child.stdout.take() {
            stdout.collect(pipe);
        }
        (child, log, stdout)
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
