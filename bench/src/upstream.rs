//! The fake upstream: answers chat completions from bytes made in advance, as cheaply as it can.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::payload::{Kind, Replies};

/// Serves until the process ends. Prints the address first, for the parent to read.
pub(crate) async fn serve(pause: Duration) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    accept(listener, pause).await
}

/// Like [`serve`], inside this process.
#[cfg(test)]
pub(crate) async fn spawn(pause: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(accept(listener, pause));
    Ok(addr)
}

async fn accept(listener: TcpListener, pause: Duration) -> Result<()> {
    let replies = Arc::new(Replies::new());
    loop {
        let (stream, peer) = listener.accept().await?;
        let replies = Arc::clone(&replies);
        tokio::spawn(async move {
            if let Err(error) = connection(stream, &replies, pause).await {
                report(peer, &error);
            }
        });
    }
}

/// A proxy may drop a connection at any time; anything else is worth a line.
fn report(peer: SocketAddr, error: &anyhow::Error) {
    if !error.is::<std::io::Error>() {
        eprintln!("upstream: {peer}: {error:#}");
    }
}

async fn connection(mut stream: TcpStream, replies: &Replies, pause: Duration) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(8 * 1024);
    loop {
        let request = loop {
            if let Some(request) = parse(&buffer)? {
                break request;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                ensure!(buffer.is_empty(), "the connection was closed inside a request");
                return Ok(());
            }
        };
        buffer.drain(..request.length);
        match request.kind {
            Kind::Buffered => stream.write_all(&replies.buffered).await?,
            Kind::Burst => stream.write_all(&replies.burst).await?,
            Kind::Streamed => stream_reply(&mut stream, replies, None).await?,
            Kind::Slow => stream_reply(&mut stream, replies, Some(pause)).await?,
        }
    }
}

/// Writes each piece on its own and lets others run in between, so that pieces arrive as separate reads.
async fn stream_reply(stream: &mut TcpStream, replies: &Replies, pause: Option<Duration>) -> Result<()> {
    stream.write_all(&replies.stream_head).await?;
    for frame in &replies.frames {
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            None => tokio::task::yield_now().await,
        }
        stream.write_all(frame).await?;
    }
    Ok(())
}

struct Request {
    kind: Kind,
    /// Bytes of head and body.
    length: usize,
}

/// `None`: not complete yet.
fn parse(bytes: &[u8]) -> Result<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes).context("parsing the request head")? else {
        return Ok(None);
    };
    let path = request.path.unwrap_or_default();
    ensure!(path == "/v1/chat/completions", "a request for {path}");
    let length = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .context("a request without content-length")?;
    let length: usize = std::str::from_utf8(length.value)?.parse().context("content-length")?;
    if bytes.len() < head + length {
        return Ok(None);
    }
    Ok(Some(Request { kind: Kind::of_request(&bytes[head..head + length]), length: head + length }))
}
