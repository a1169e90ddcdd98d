//! JSON calls on a kept connection: the admin API, the status listener, the caller's side, etcd's gateway.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http1::Connection;

/// One listener, called with one key, or with none if that is empty.
pub(crate) struct Api {
    addr: SocketAddr,
    key: String,
    connection: Option<Connection>,
}

impl Api {
    pub(crate) fn new(addr: SocketAddr, key: &str) -> Self {
        Self { addr, key: key.to_owned(), connection: None }
    }

    /// The status and the body, whatever they are.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Vec<u8>)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let authorization = match self.key.as_str() {
            "" => String::new(),
            key => format!("authorization: Bearer {key}\r\n"),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{authorization}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.addr,
            body.len()
        );
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.addr).await?.with_trailers(),
        };
        let mut reply = Vec::new();
        let sink = |piece: &[u8]| {
            reply.extend_from_slice(piece);
            Ok(())
        };
        let answer = connection.ask(request.as_bytes(), |_| true, sink).await;
        let (status, keep) = answer.with_context(|| format!("{method} {path} at {}", self.addr))?;
        self.connection = keep.then_some(connection);
        Ok((status, reply))
    }

    /// A call that must succeed; its document.
    pub(crate) async fn json(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, reply) = self.call(method, path, body).await?;
        let text = String::from_utf8_lossy(&reply);
        ensure!((200..300).contains(&status), "{method} {path}: status {status}: {text}");
        serde_json::from_slice(&reply).with_context(|| format!("{method} {path}: not JSON: {text}"))
    }

    /// The same key for the next calls on the same connection.
    pub(crate) fn use_key(&mut self, key: &str) {
        key.clone_into(&mut self.key);
    }
}
