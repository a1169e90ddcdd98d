//! A TCP connection on which a test sends any bytes it likes.

use crate::{eventually, within};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// Bytes in both directions, encrypted or not.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A raw client connection.
pub struct RawConnection {
    socket: Box<dyn Duplex>,
    /// The ports of this side and of the other.
    ports: (u16, u16),
    buffer: Vec<u8>,
}

/// An HTTP/1.1 reply read from a raw connection.
#[derive(Debug, Clone)]
pub struct RawReply {
    /// Status code.
    pub status: u16,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// Body, unframed.
    pub body: Vec<u8>,
}

impl RawReply {
    /// First value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter();
        let found = found.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Body as JSON; panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("reply is not JSON ({error}): {self:?}"),
        }
    }
}

fn ports(socket: &TcpStream) -> (u16, u16) {
    let near = socket.local_addr().expect("own address").port();
    (near, socket.peer_addr().map_or(0, |addr| addr.port()))
}

impl RawConnection {
    /// Connects.
    pub async fn open(addr: SocketAddr) -> Self {
        let socket = within("connect", TcpStream::connect(addr)).await;
        Self::over(socket.unwrap_or_else(|error| panic!("connect to {addr}: {error}")))
    }

    /// Connects from this IPv4 address of the machine; all of 127.0.0.0/8 belongs to it.
    pub async fn open_from(source: IpAddr, addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(source, 0)).unwrap_or_else(|error| panic!("bind to {source}: {error}"));
        let socket = within("connect", socket.connect(addr)).await;
        Self::over(socket.unwrap_or_else(|error| panic!("connect to {addr} from {source}: {error}")))
    }

    /// Connects; dropping the connection resets it (RST) instead of closing it.
    pub async fn open_abrupt(addr: SocketAddr) -> Self {
        let socket = within("connect", TcpStream::connect(addr)).await.expect("connect");
        socket.set_zero_linger().expect("linger");
        Self::over(socket)
    }

    /// Connects with TLS.
    pub async fn open_tls(addr: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let socket = within("connect", TcpStream::connect(addr)).await.expect("connect");
        let ports = ports(&socket);
        let handshake = TlsConnector::from(config).connect(ServerName::from(addr.ip()), socket);
        let socket = within("a TLS handshake", handshake).await.expect("a TLS handshake");
        Self { socket: Box::new(socket), ports, buffer: Vec::new() }
    }

    fn over(socket: TcpStream) -> Self {
        let _ = socket.set_nodelay(true);
        let ports = ports(&socket);
        Self { socket: Box::new(socket), ports, buffer: Vec::new() }
    }

    /// Sends bytes; an error means the other side has left, which is an answer too.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let sent = async {
            self.socket.write_all(bytes).await?;
            self.socket.flush().await
        };
        within("send bytes", sent).await
    }

    /// Waits until the other side has taken everything sent so far out of its socket, or has closed it. What is sent
    /// next comes to it as a read of its own. Only for the loopback interface: the kernel's table shows both ends.
    pub async fn taken(&self) {
        let (near, far) = self.ports;
        let ends = (format!(":{far:04X}"), format!(":{near:04X}"));
        eventually("the other side reads what was sent", || async {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc is readable");
            let waiting = table.lines().any(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let local = fields.next().is_some_and(|local| local.ends_with(&ends.0));
                let remote = fields.next().is_some_and(|remote| remote.ends_with(&ends.1));
                local && remote && !fields.nth(1).is_some_and(|queues| queues.ends_with(":00000000"))
            });
            (!waiting).then_some(())
        })
        .await;
    }

    /// Reads until this text has come; the connection must not end before.
    pub async fn until(&mut self, text: &str) {
        within(text, async {
            while !String::from_utf8_lossy(&self.buffer).contains(text) {
                assert!(self.fill().await, "the connection ended before {text:?}");
            }
        })
        .await;
    }

    /// Says that nothing more will be sent.
    pub async fn finish_sending(&mut self) {
        let _ = self.socket.shutdown().await;
    }

    /// Reads one reply; `None` when the connection ended before a whole one.
    pub async fn reply(&mut self) -> Option<RawReply> {
        within("a reply on the raw connection", self.read_reply()).await
    }

    /// Reads until the other side closes, and returns everything.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        within("the other side closes", async { while self.fill().await {} }).await;
        std::mem::take(&mut self.buffer)
    }

    async fn fill(&mut self) -> bool {
        matches!(self.socket.read_buf(&mut self.buffer).await, Ok(count) if count > 0)
    }

    async fn read_reply(&mut self) -> Option<RawReply> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut reply = RawReply { status, headers, body: Vec::new() };
        if status == 100 {
            return Box::pin(self.read_reply()).await;
        }
        reply.body = self.read_body(&reply).await?;
        Some(reply)
    }

    async fn read_body(&mut self, reply: &RawReply) -> Option<Vec<u8>> {
        if let Some(length) = reply.header("content-length") {
            let length: usize = length.parse().ok()?;
            while self.buffer.len() < length {
                if !self.fill().await {
                    return None;
                }
            }
            return Some(self.buffer.drain(..length).collect());
        }
        if reply.header("transfer-encoding").is_none() {
            while self.fill().await {}
            return Some(std::mem::take(&mut self.buffer));
        }
        let mut body = Vec::new();
        loop {
            let line_end = loop {
                if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                    break at;
                }
                if !self.fill().await {
                    return None;
                }
            };
            let line: Vec<u8> = self.buffer.drain(..line_end + 2).collect();
            let size = String::from_utf8_lossy(&line[..line_end]).into_owned();
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            while self.buffer.len() < size + 2 {
                if !self.fill().await {
                    return None;
                }
            }
            body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
            if size == 0 {
                return Some(body);
            }
        }
    }
}
