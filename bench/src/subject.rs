//! What is measured: the gateway and nginx, each with a configuration made for the run.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::http1::Connection;
use crate::payload::{self, CALLER_KEY, CALLER_MODEL, Kind, UPSTREAM_MODEL};
use crate::process::{self, Process, StopWith};

const READY_WITHIN: Duration = Duration::from_secs(15);
/// The name of the variable that hands the caller key to the gateway.
const KEY_VARIABLE: &str = "BENCH_CALLER_KEY";

/// The fake upstream in a process of its own.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    pub(crate) pid: u32,
    _process: tokio::process::Child,
}

impl Upstream {
    pub(crate) async fn start(cpu: usize, pause: Duration) -> Result<Self> {
        let mut command = process::pinned(cpu, StopWith::Kill, std::env::current_exe()?)?;
        command.args(["upstream", "--pause-ms", &pause.as_millis().to_string()]);
        let mut command = tokio::process::Command::from(command);
        let mut process = command.stdout(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        let stdout = process.stdout.take().context("no output of the upstream")?;
        let line = BufReader::new(stdout).lines().next_line().await?.context("the upstream did not start")?;
        let pid = process.id().context("the upstream ended")?;
        Ok(Self { addr: line.parse()?, pid, _process: process })
    }
}

/// A running proxy.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
    /// The process that does the work.
    pub(crate) pid: u32,
    /// The model name its replies carry.
    pub(crate) model: &'static str,
    process: Process,
    dir: PathBuf,
}

impl Subject {
    /// nginx as plain reverse proxy in front of the upstream.
    pub(crate) async fn nginx(
        name: &'static str,
        dir: &Path,
        cpu: usize,
        upstream: SocketAddr,
    ) -> Result<Self> {
        let dir = new_dir(dir, name)?;
        let addr = free_addr()?;
        fs::write(dir.join("nginx.conf"), nginx_conf(&dir, addr, upstream))?;
        let mut command = process::pinned(cpu, StopWith::Term, "nginx")?;
        command.arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("log"));
        let process = spawn(command, &dir, StopWith::Term)?;
        // The upstream names its own model, and nginx leaves that alone.
        let mut subject = Self { name, addr, pid: process.pid(), model: UPSTREAM_MODEL, process, dir };
        subject.wait_until_ready().await?;
        subject.pid = process::only_child(subject.process.pid()).context("nginx has no worker")?;
        Ok(subject)
    }

    /// The gateway with one model, one provider key and one caller key; all else as it comes.
    pub(crate) async fn gateway(binary: &Path, dir: &Path, cpu: usize, upstream: SocketAddr) -> Result<Self> {
        let dir = new_dir(dir, "gateway")?;
        let addr = free_addr()?;
        // In a folder of their own, so that watching it does not mean watching the log.
        fs::create_dir(dir.join("resources"))?;
        let resources = Resources { path: dir.join("resources/resources.yaml"), upstream };
        resources.write(0)?;
        let config = format!(
            "resources_file: {}\nproxy:\n  addr: {addr}\n  workers: 1\nobservability:\n  metrics:\n    \
             prometheus:\n      addr: {}\n",
            resources.path.display(),
            free_addr()?
        );
        fs::write(dir.join("config.yaml"), config)?;
        let mut command = process::pinned(cpu, StopWith::Kill, binary)?;
        command.arg("--config").arg(dir.join("config.yaml"));
        // Nothing of the caller's environment (overrides, proxies, log level) may change the result.
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env(KEY_VARIABLE, CALLER_KEY);
        let process = spawn(command, &dir, StopWith::Kill)?;
        let mut subject =
            Self { name: "gateway", addr, pid: process.pid(), model: CALLER_MODEL, process, dir };
        subject.wait_until_ready().await?;
        Ok(subject)
    }

    /// Until a request gets its answer.
    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let error = match self.first_reply().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let ended = self.process.check_alive();
            if ended.is_err() || Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                let reason = ended.err().unwrap_or(error);
                bail!("{} does not answer: {reason:#}\n{}", self.name, log.trim_end());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn first_reply(&self) -> Result<()> {
        let mut body = Vec::new();
        let request = payload::request(Kind::Buffered, self.addr);
        collect(self.addr, &request, &mut body).await?;
        payload::check(Kind::Buffered, &body, self.model)
    }

    /// Empties the log: a run writes hundreds of megabytes of access lines.
    pub(crate) fn truncate_log(&self) -> Result<()> {
        Ok(File::options().write(true).open(self.dir.join("log"))?.set_len(0)?)
    }

    /// The resources file of a gateway.
    pub(crate) fn resources(&self, upstream: SocketAddr) -> Resources {
        Resources { path: self.dir.join("resources/resources.yaml"), upstream }
    }

    /// Whether the caller may use the model that generation `number` of the resources brought.
    pub(crate) async fn serves(&self, number: u32) -> Result<bool> {
        let request = format!(
            "GET /v1/models HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {CALLER_KEY}\r\n\r\n",
            self.addr
        );
        let mut body = Vec::new();
        collect(self.addr, request.as_bytes(), &mut body).await?;
        let wanted = format!("\"{}\"", generation(number));
        Ok(memchr::memmem::find(&body, wanted.as_bytes()).is_some())
    }
}

async fn collect(addr: SocketAddr, request: &[u8], body: &mut Vec<u8>) -> Result<()> {
    let sink = |piece: &[u8]| {
        body.extend_from_slice(piece);
        Ok(())
    };
    Connection::open(addr).await?.exchange(request, sink).await?;
    Ok(())
}

/// The resources file, which the reload row rewrites.
pub(crate) struct Resources {
    path: PathBuf,
    upstream: SocketAddr,
}

fn generation(number: u32) -> String {
    format!("generation-{number}")
}

impl Resources {
    /// Replaces the file in one step. Each generation has a model of its own to be recognised by.
    pub(crate) fn write(&self, number: u32) -> Result<()> {
        let model = |name: &str| {
            format!(
                "  - display_name: {name}\n    provider: openai\n    model_name: {UPSTREAM_MODEL}\n    \
                 provider_key: upstream\n"
            )
        };
        let text = format!(
            "_format_version: \"1\"\nprovider_keys:\n  - display_name: upstream\n    provider: openai\n    \
             api_key: upstream-secret\n    api_base: http://{}/v1\nmodels:\n{}{}api_keys:\n  - display_name: caller\n    \
             key_env: {KEY_VARIABLE}\n    allowed_models: [{CALLER_MODEL}, \"generation-*\"]\n",
            self.upstream,
            model(CALLER_MODEL),
            model(&generation(number)),
        );
        let next = self.path.with_extension("next");
        fs::write(&next, text)?;
        Ok(fs::rename(next, &self.path)?)
    }
}

fn nginx_conf(dir: &Path, addr: SocketAddr, upstream: SocketAddr) -> String {
    let dir = dir.display();
    // Without it, root's nginx runs its worker as a user who may not enter the folder.
    let user = if rustix::process::getuid().is_root() { "user root root;" } else { "" };
    // The request limits on kept connections only keep them from being reopened every 1,000 requests.
    format!(
        "{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {dir}/nginx.pid;
error_log {dir}/log error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    keepalive_requests 1000000000;
    upstream fake {{
        server {upstream};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {addr} backlog=4096;
        location / {{
            proxy_pass http://fake;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
        }}
    }}
}}
"
    )
}

/// The version nginx reports; where there is none, installs it or says how.
pub(crate) fn nginx_version(install: bool) -> Result<String> {
    let version = || -> Option<String> {
        let output = Command::new("nginx").arg("-v").output().ok()?;
        Some(String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("nginx version: ").to_owned())
    };
    if let Some(version) = version() {
        return Ok(version);
    }
    let command = ["apt-get", "install", "-y", "--no-install-recommends", "nginx-light"];
    ensure!(install, "nginx is not installed. Run `{}` as root, or use --install", command.join(" "));
    let status = Command::new(command[0]).args(&command[1..]).status().context("running apt-get")?;
    ensure!(status.success(), "`{}` failed", command.join(" "));
    version().context("nginx was installed but does not start")
}

/// A new folder; several instances of one subject may run.
pub(crate) fn new_dir(parent: &Path, name: &str) -> Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix(name).tempdir_in(parent)?.keep())
}

pub(crate) fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

pub(crate) fn spawn(mut command: Command, dir: &Path, stop_with: StopWith) -> Result<Process> {
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    let program = command.get_args().last().unwrap_or(OsStr::new("")).to_owned();
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().with_context(|| format!("starting {}", program.to_string_lossy()))?;
    Ok(Process::new(child, stop_with))
}
