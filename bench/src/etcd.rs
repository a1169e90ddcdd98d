//! A real etcd on loopback with its data in a folder of the run, and calls of its JSON gateway.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::api::Api;
use crate::http1::Connection;
use crate::process::{self, Process, StopWith};
use crate::subject::{free_addr, new_dir, spawn};

const READY_WITHIN: Duration = Duration::from_secs(20);
/// Operations in a transaction; etcd takes 128.
const TRANSACTION: usize = 100;

pub(crate) struct Etcd {
    pub(crate) endpoint: SocketAddr,
    _process: Process,
}

impl Etcd {
    pub(crate) async fn start(dir: &Path, cpu: usize) -> Result<Self> {
        let dir = new_dir(dir, "etcd")?;
        let (client, peer) = (free_addr()?, free_addr()?);
        let mut command = process::pinned(cpu, StopWith::Term, "etcd")?;
        for (flag, value) in [
            ("name", "bench".to_owned()),
            ("listen-client-urls", format!("http://{client}")),
            ("advertise-client-urls", format!("http://{client}")),
            ("listen-peer-urls", format!("http://{peer}")),
            ("initial-advertise-peer-urls", format!("http://{peer}")),
            ("initial-cluster", format!("bench=http://{peer}")),
            ("data-dir", dir.join("data").display().to_string()),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        let mut process = spawn(command, &dir, StopWith::Term).context("apt-get install etcd-server")?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let health = Api::new(client, "").json("GET", "/health", None).await;
            if health.as_ref().is_ok_and(|health| health["health"] == "true") {
                return Ok(Self { endpoint: client, _process: process });
            }
            process.check_alive().context("etcd (apt-get install etcd-server)")?;
            ensure!(Instant::now() < deadline, "etcd does not serve: {health:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client(Api::new(self.endpoint, ""))
    }

    /// Notes when each revision of the keys under a prefix is delivered to a watch.
    pub(crate) async fn watch(&self, prefix: &str) -> Result<Watch> {
        let body = json!({"create_request": {"key": base64(prefix), "range_end": base64(end(prefix))}});
        let body = body.to_string();
        let request = format!(
            "POST /v3/watch HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.endpoint,
            body.len()
        );
        let mut connection = Connection::open(self.endpoint).await?;
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let (into, (created, ready)) = (Arc::clone(&seen), tokio::sync::oneshot::channel());
        let task = tokio::spawn(async move {
            let mut created = Some(created);
            let mut pending = Vec::new();
            let sink = |piece: &[u8]| {
                let now = Instant::now();
                pending.extend_from_slice(piece);
                while let Some(end) = memchr::memchr(b'\n', &pending) {
                    let line: Value = serde_json::from_slice(&pending[..end]).context("a watch message")?;
                    pending.drain(..=end);
                    if let Some(created) = created.take() {
                        let _ = created.send(());
                    }
                    let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
                    for event in line["result"]["events"].as_array().into_iter().flatten() {
                        into.insert(number(&event["kv"]["mod_revision"])?, now);
                    }
                }
                Ok(())
            };
            connection.exchange(request.as_bytes(), sink).await.map(drop)
        });
        ready.await.context("the watch of the benchmark did not begin")?;
        Ok(Watch { seen, task })
    }
}

/// A watch beside the one of the gateway.
pub(crate) struct Watch {
    seen: Arc<Mutex<HashMap<u64, Instant>>>,
    task: JoinHandle<Result<()>>,
}

impl Watch {
    /// When a revision was delivered; waits for it.
    pub(crate) async fn seen(&self, revision: u64) -> Result<Instant> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(at) = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&revision) {
                return Ok(*at);
            }
            ensure!(!self.task.is_finished() && Instant::now() < deadline, "no watch event of {revision}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A kept connection.
pub(crate) struct Client(Api);

impl Client {
    /// Writes one key; its revision.
    pub(crate) async fn put(&mut self, key: &str, value: &str) -> Result<u64> {
        let body = json!({"key": base64(key), "value": base64(value)});
        number(&self.0.json("POST", "/v3/kv/put", Some(&body)).await?["header"]["revision"])
    }

    /// Writes many keys.
    pub(crate) async fn put_all(&mut self, rows: &[(String, String)]) -> Result<()> {
        for piece in rows.chunks(TRANSACTION) {
            let puts: Vec<Value> = piece
                .iter()
                .map(|(key, value)| json!({"requestPut": {"key": base64(key), "value": base64(value)}}))
                .collect();
            self.0.json("POST", "/v3/kv/txn", Some(&json!({"success": puts}))).await?;
        }
        Ok(())
    }
}

/// What etcd says its version is.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("etcd").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next()?.to_owned())
}

/// Whole numbers are texts in the JSON of etcd.
fn number(value: &Value) -> Result<u64> {
    let text = value.as_str().with_context(|| format!("a number of etcd: {value}"))?;
    text.parse().context("a number of etcd")
}

/// The first key after those that begin with a text.
fn end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encode = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        [0, 1, 2, 3].map(|at| {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            if at <= chunk.len() { char::from(digit) } else { '=' }
        })
    };
    bytes.as_ref().chunks(3).flat_map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("/a?~", "L2E/fg==")]
        {
            assert_eq!(base64(plain), coded);
        }
    }

    #[test]
    fn a_prefix_ends_before_its_neighbours() {
        assert_eq!(end("/a/"), b"/a0");
    }
}
