//! A gateway whose resources come from a store, with its three listeners.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::api::Api;
use crate::process::{self, Process, StopWith};
use crate::rows::{Row, Size};
use crate::subject::{free_addr, new_dir, spawn};

/// The name the gateway gives to threads that serve.
const WORKER: &str = "aisix-worker";
const ADMIN_KEY: &str = "bench-admin-key-0123456789abcdef";
const SYNCED_WITHIN: Duration = Duration::from_secs(60);
/// Operations in a batch of the admin API.
const BATCH: usize = 500;

/// Where the resources come from.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    /// A folder, which may be new.
    Embedded(PathBuf),
    Etcd {
        endpoint: SocketAddr,
        prefix: &'static str,
        cache: Option<PathBuf>,
    },
}

impl Store {
    fn config(&self) -> String {
        match self {
            Self::Embedded(data) => format!("data_dir: {}\n", data.display()),
            Self::Etcd { endpoint, prefix, cache } => {
                let cache = cache.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
                format!(
                    "etcd:\n  endpoints: [\"http://{endpoint}\"]\n  prefix: {prefix}\nmanaged:\n  \
                     snapshot_cache_path: \"{cache}\"\n"
                )
            }
        }
    }
}

/// A running gateway.
pub(crate) struct Plane {
    pub(crate) proxy: SocketAddr,
    admin: SocketAddr,
    status: SocketAddr,
    pub(crate) started: Instant,
    process: Process,
    dir: PathBuf,
}

/// Time that threads have run, by what they do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    /// Requests of callers.
    pub(crate) workers: Duration,
    /// Everything else: control, store, log.
    pub(crate) others: Duration,
}

impl Plane {
    pub(crate) fn start(binary: &Path, dir: &Path, cpu: usize, store: &Store) -> Result<Self> {
        let dir = new_dir(dir, "plane")?;
        let [proxy, admin, status] = [free_addr()?, free_addr()?, free_addr()?];
        let config = format!(
            "{}proxy:\n  addr: {proxy}\n  workers: 1\nadmin:\n  addr: {admin}\n  admin_keys: [{ADMIN_KEY}]\n\
             observability:\n  metrics:\n    prometheus:\n      addr: {status}\n",
            store.config()
        );
        fs::write(dir.join("config.yaml"), config)?;
        let mut command = process::pinned(cpu, StopWith::Kill, binary)?;
        command.arg("--config").arg(dir.join("config.yaml"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let started = Instant::now();
        let process = spawn(command, &dir, StopWith::Kill)?;
        Ok(Self { proxy, admin, status, started, process, dir })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn admin(&self) -> Api {
        Api::new(self.admin, ADMIN_KEY)
    }

    pub(crate) fn caller(&self, key: &str) -> Api {
        Api::new(self.proxy, key)
    }

    /// Until `/status/config` is as wanted; how long after the start that was.
    pub(crate) async fn reaches(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Duration> {
        let mut status = Api::new(self.status, "");
        let mut last = None;
        loop {
            match status.json("GET", "/status/config", None).await {
                Ok(seen) if wanted(&seen) => return Ok(self.started.elapsed()),
                Ok(seen) => last = Some(seen),
                // It does not listen yet.
                Err(_) => status = Api::new(self.status, ""),
            }
            self.still_comes("/status/config is not as it should be", last.as_ref())?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Until a caller's key is known; how long after the start that was.
    pub(crate) async fn knows(&mut self, secret: &str) -> Result<Duration> {
        let mut caller = self.caller(secret);
        loop {
            match caller.call("POST", "/v1/chat/completions", Some(&crate::rows::question(None))).await {
                Ok((crate::rows::KEY_KNOWN, _)) => return Ok(self.started.elapsed()),
                Ok(_) => {}
                Err(_) => caller = self.caller(secret),
            }
            self.still_comes("a caller key is not known", None)?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn still_comes(&mut self, what: &str, last: Option<&Value>) -> Result<()> {
        let ended = self.process.check_alive();
        if ended.is_err() || self.started.elapsed() > SYNCED_WITHIN {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let last = last.map(|last| last.to_string().chars().take(2000).collect::<String>());
            bail!("{what}: {ended:?}\n{}\n{}", last.unwrap_or_default(), log.trim_end());
        }
        Ok(())
    }

    /// Makes the store hold these resources and no others, through the admin API.
    pub(crate) async fn fill(&mut self, size: Size, rows: &[Row]) -> Result<()> {
        self.reaches(|status| !status["applied"].is_null()).await?;
        let mut admin = self.admin();
        // What a first start has made. Those that refer to others go first.
        for kind in ["api_keys", "models", "provider_keys"] {
            let path = format!("/admin/v1/{kind}");
            let entries = admin.json("GET", &path, None).await?;
            for entry in entries.as_array().into_iter().flatten() {
                let id = entry["id"].as_str().unwrap_or_default();
                admin.json("DELETE", &format!("{path}/{id}"), None).await?;
            }
        }
        for piece in rows.chunks(BATCH) {
            let operations: Vec<Value> = piece
                .iter()
                .map(|(kind, id, value)| json!({"op": "create", "kind": kind, "id": id, "value": value}))
                .collect();
            admin.json("POST", "/admin/v1/batch", Some(&json!({"operations": operations}))).await?;
        }
        self.reaches(|status| is_whole(status, size)).await?;
        Ok(())
    }

    /// The threads that serve stay where they are and become urgent; all others go to a core.
    /// `false`: nothing can be made urgent.
    pub(crate) fn set_apart(&self, others: usize) -> Result<bool> {
        let mut urgent = true;
        let threads = process::threads(self.pid())?;
        ensure!(threads.iter().any(|thread| thread.name.starts_with(WORKER)), "no thread that serves");
        for thread in threads {
            if thread.name.starts_with(WORKER) {
                urgent &= process::make_urgent(thread.id);
            } else {
                process::pin_thread(thread.id, others)?;
            }
        }
        Ok(urgent)
    }

    pub(crate) fn ran(&self) -> Result<Ran> {
        let mut ran = Ran { workers: Duration::ZERO, others: Duration::ZERO };
        for thread in process::threads(self.pid())? {
            let sum = if thread.name.starts_with(WORKER) { &mut ran.workers } else { &mut ran.others };
            *sum += thread.ran;
        }
        Ok(ran)
    }

    /// Empties the log.
    pub(crate) fn truncate_log(&self) -> Result<()> {
        Ok(File::options().write(true).open(self.dir.join("log"))?.set_len(0)?)
    }
}

/// Everything is in force, and nothing is wrong with it.
pub(crate) fn is_whole(status: &Value, size: Size) -> bool {
    status["state"] == "synced" && status["applied"]["resource_counts"] == size.counts()
}
