//! A real etcd, alone or a member of a cluster, on free loopback ports, with its data in a temporary folder.

use crate::gateway::Signal;
use crate::gateway::builder::free_port;
use crate::tls::Authority;
use crate::{Client, Request, eventually, within};
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// What to install where the program is missing.
const MISSING: &str = "cannot start `etcd`; install it: apt-get install etcd-server";

/// A running, stopped or paused etcd.
pub struct Etcd {
    child: Option<Child>,
    dir: TempDir,
    args: Vec<String>,
    client: u16,
    metrics: u16,
    token: Mutex<Option<String>>,
}

/// An etcd to be.
#[derive(Default)]
pub struct EtcdBuilder {
    args: Vec<String>,
    tls: Option<[String; 3]>,
}

impl EtcdBuilder {
    /// An argument of the program, such as `--max-txn-ops=10`.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Takes only TLS clients with a certificate of this authority, and shows one itself.
    pub fn tls(mut self, authority: &Authority) -> Self {
        let identity = authority.issue();
        self.tls = Some([authority.pem(), identity.cert, identity.key]);
        self
    }

    /// Starts it and waits until it serves.
    pub async fn start(self) -> Etcd {
        let mut etcd = self.member(0, &[free_port()]);
        etcd.start().await;
        etcd
    }

    /// One member of a cluster whose members have these ports for each other.
    fn member(self, at: usize, peers: &[u16]) -> Etcd {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let [client, metrics] = [free_port(), free_port()];
        let peer = peers[at];
        let cluster = peers.iter().enumerate().map(|(n, port)| format!("m{n}=http://127.0.0.1:{port}"));
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut args = self.args;
        for (flag, value) in [
            ("name", format!("m{at}")),
            ("listen-client-urls", format!("{scheme}://127.0.0.1:{client}")),
            ("advertise-client-urls", format!("{scheme}://127.0.0.1:{client}")),
            ("listen-peer-urls", format!("http://127.0.0.1:{peer}")),
            ("initial-advertise-peer-urls", format!("http://127.0.0.1:{peer}")),
            ("initial-cluster", cluster.collect::<Vec<_>>().join(",")),
            ("listen-metrics-urls", format!("http://127.0.0.1:{metrics}")),
            ("heartbeat-interval", "50".to_owned()),
            ("election-timeout", "500".to_owned()),
        ] {
            args.push(format!("--{flag}={value}"));
        }
        if let Some(pems) = &self.tls {
            for (flag, pem) in ["trusted-ca-file", "cert-file", "key-file"].iter().zip(pems) {
                let path = dir.path().join(flag);
                std::fs::write(&path, pem).expect("write a PEM file");
                args.push(format!("--{flag}={}", path.display()));
            }
            args.push("--client-cert-auth".to_owned());
        }
        Etcd { child: None, dir, args, client, metrics, token: Mutex::default() }
    }
}

impl Etcd {
    /// An etcd with more than the usual settings.
    pub fn builder() -> EtcdBuilder {
        EtcdBuilder::default()
    }

    /// A plain one, serving.
    pub async fn running() -> Self {
        Self::builder().start().await
    }

    /// The members of a cluster, all serving.
    pub async fn cluster(count: usize) -> Vec<Self> {
        let peers: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let mut members: Vec<Self> = (0..count).map(|at| Self::builder().member(at, &peers)).collect();
        members.iter_mut().for_each(Self::spawn);
        for member in &members {
            member.serving().await;
        }
        members
    }

    /// `127.0.0.1:port`, for clients.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client)
    }

    /// Starts it again, with the data it had, and waits until it serves.
    pub async fn start(&mut self) {
        self.spawn();
        self.serving().await;
    }

    /// Starts it, although it may have to wait for other members before it serves.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "etcd runs already");
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log"));
        let mut command = Command::new("etcd");
        command.args(&self.args).arg(format!("--data-dir={}", self.dir.path().join("data").display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log file"));
        let child = command.kill_on_drop(true).spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{MISSING} ({error})")));
    }

    /// Waits until it serves.
    pub async fn serving(&self) {
        let metrics = Client::new(SocketAddr::from(([127, 0, 0, 1], self.metrics)));
        let metrics = &metrics;
        eventually("etcd serves", || async move {
            let mut reply = metrics.try_send(Request::get("/health")).await.ok()?;
            let text = String::from_utf8(reply.try_bytes().await.ok()?.to_vec()).ok()?;
            text.contains(r#""health":"true""#).then_some(())
        })
        .await;
    }

    fn pid(&self) -> Pid {
        let id = self.child.as_ref().and_then(Child::id).expect("etcd runs");
        Pid::from_raw(i32::try_from(id).expect("a process id")).expect("a process id")
    }

    /// Ends it in order.
    pub async fn stop(&mut self) {
        self.end(Signal::TERM).await;
    }

    /// Ends it at once.
    pub async fn kill(&mut self) {
        self.end(Signal::KILL).await;
    }

    async fn end(&mut self, signal: Signal) {
        kill_process(self.pid(), signal).expect("signal etcd");
        let mut child = self.child.take().expect("etcd runs");
        within("etcd ends", child.wait()).await.expect("wait for etcd");
    }

    /// Stops and starts it; the data stays.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn pause(&self) {
        kill_process(self.pid(), Signal::STOP).expect("pause etcd");
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).expect("resume etcd");
    }

    /// Removes the data of a stopped etcd: it comes back as a new, empty cluster.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "etcd runs");
        std::fs::remove_dir_all(self.dir.path().join("data")).expect("remove the data");
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A call of the JSON gateway, such as `kv/put`; the text of an error otherwise. Not with TLS.
    pub async fn try_call(&self, path: &str, body: &Value) -> Result<Value, String> {
        let mut request = Request::post(&format!("/v3/{path}"), body);
        if let Some(token) = &*self.token.lock().unwrap_or_else(PoisonError::into_inner) {
            request = request.header("authorization", token);
        }
        let client = Client::new(SocketAddr::from(([127, 0, 0, 1], self.client)));
        let mut reply = client.try_send(request).await.map_err(|error| error.to_string())?;
        let value = reply.json().await;
        if reply.status == 200 { Ok(value) } else { Err(value.to_string()) }
    }

    /// The same, when it must work.
    pub async fn call(&self, path: &str, body: &Value) -> Value {
        match self.try_call(path, body).await {
            Ok(value) => value,
            Err(error) => panic!("etcd answers {path} with {error}"),
        }
    }

    /// Writes a key; the revision.
    pub async fn put(&self, key: &str, value: &str) -> u64 {
        revision(&self.call("kv/put", &json!({"key": base64(key), "value": base64(value)})).await)
    }

    /// Removes a key; the revision.
    pub async fn delete(&self, key: &str) -> u64 {
        revision(&self.call("kv/deleterange", &json!({"key": base64(key)})).await)
    }

    /// Writes and removes keys in one transaction; the revision.
    pub async fn transaction(&self, puts: &[(&str, &str)], deletes: &[&str]) -> u64 {
        let puts = puts
            .iter()
            .map(|(key, value)| json!({"requestPut": {"key": base64(key), "value": base64(value)}}));
        let deletes = deletes.iter().map(|key| json!({"requestDeleteRange": {"key": base64(key)}}));
        let operations: Vec<Value> = puts.chain(deletes).collect();
        revision(&self.call("kv/txn", &json!({"success": operations})).await)
    }

    /// Number of keys that begin with this text.
    pub async fn count(&self, prefix: &str) -> u64 {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix") += 1;
        let range = json!({"key": base64(prefix), "range_end": base64(end), "count_only": true});
        let answer = self.call("kv/range", &range).await;
        answer["count"].as_str().map_or(0, |count| count.parse().expect("a count"))
    }

    /// Forgets the history before a revision.
    pub async fn compact(&self, revision: u64) {
        self.call("kv/compaction", &json!({"revision": revision.to_string(), "physical": true})).await;
    }

    /// Switches authentication on, with one administrator. Later calls of this value use its name.
    pub async fn enable_auth(&self, password: &str) {
        self.call("auth/user/add", &json!({"name": "root", "password": password})).await;
        self.call("auth/role/add", &json!({"name": "root"})).await;
        self.call("auth/user/grant", &json!({"user": "root", "role": "root"})).await;
        self.call("auth/enable", &json!({})).await;
        self.log_in(password).await;
    }

    /// Takes a new token of the administrator.
    pub async fn log_in(&self, password: &str) {
        let answer = self.call("auth/authenticate", &json!({"name": "root", "password": password})).await;
        let token = answer["token"].as_str().expect("a token").to_owned();
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }

    /// Adds a user who may read and write what begins with one of these texts.
    pub async fn add_user(&self, name: &str, password: &str, prefixes: &[&str]) {
        self.call("auth/user/add", &json!({"name": name, "password": password})).await;
        self.call("auth/role/add", &json!({"name": name})).await;
        for prefix in prefixes {
            let mut end = prefix.as_bytes().to_vec();
            *end.last_mut().expect("a prefix") += 1;
            let right = json!({"permType": "READWRITE", "key": base64(prefix), "range_end": base64(end)});
            self.call("auth/role/grant", &json!({"name": name, "perm": right})).await;
        }
        self.call("auth/user/grant", &json!({"user": name, "role": name})).await;
    }
}

fn revision(answer: &Value) -> u64 {
    let revision = answer["header"]["revision"].as_str().expect("a revision");
    revision.parse().expect("a number")
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encode = |chunk: &[u8]| {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digit = |at: usize| match at <= chunk.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]),
            false => '=',
        };
        [0, 1, 2, 3].map(digit)
    };
    bytes.as_ref().chunks(3).flat_map(encode).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_padded() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("/a?~", "L2E/fg==")]
        {
            assert_eq!(super::base64(plain), coded);
        }
    }
}
