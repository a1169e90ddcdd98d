//! A client side of HTTP/1.1 just large enough to read replies cheaply and notice every irregularity.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BUFFER: usize = 16 * 1024;

/// A keep-alive connection and what has been read but not used.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    used: usize,
    filled: usize,
    /// Whether a chunked body may end in fields, which are passed over.
    trailers: bool,
}

/// How far a reply body goes.
#[derive(Debug, PartialEq)]
enum Framing {
    Length(usize),
    Chunked(Chunked),
}

struct Head {
    status: u16,
    framing: Framing,
    length: usize,
    close: bool,
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).await.with_context(|| format!("connecting to {addr}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER], used: 0, filled: 0, trailers: false })
    }

    pub(crate) fn with_trailers(self) -> Self {
        Self { trailers: true, ..self }
    }

    /// Sends a request that must be answered with 200 and hands the body of its reply to `sink` as it
    /// arrives. `Ok(false)`: the server closes the connection after this reply.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        Ok(self.ask(request, |status| status == 200, sink).await?.1)
    }

    /// As [`exchange`](Self::exchange), where the caller says which statuses are good; also gives the
    /// status.
    pub(crate) async fn ask(
        &mut self,
        request: &[u8],
        good: impl Fn(u16) -> bool,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<(u16, bool)> {
        self.stream.write_all(request).await.context("sending the request")?;
        let mut head = loop {
            if let Some(head) = parse_head(&self.buffer[self.used..self.filled])? {
                break head;
            }
            self.fill().await.context("waiting for the reply head")?;
        };
        self.used += head.length;
        ensure!(good(head.status), "status {}: {}", head.status, self.rest());
        loop {
            let available = &self.buffer[self.used..self.filled];
            let (taken, done) = match &mut head.framing {
                Framing::Length(left) => {
                    let taken = available.len().min(*left);
                    sink(&available[..taken])?;
                    *left -= taken;
                    (taken, *left == 0)
                }
                Framing::Chunked(state) => {
                    (state.feed(available, self.trailers, &mut sink)?, *state == Chunked::Done)
                }
            };
            self.used += taken;
            if done {
                break;
            }
            self.fill().await.context("reading the reply body")?;
        }
        ensure!(self.used == self.filled, "bytes after the end of the reply: {}", self.rest());
        Ok((head.status, !head.close))
    }

    async fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.used..self.filled, 0);
        self.filled -= self.used;
        self.used = 0;
        ensure!(self.filled < self.buffer.len(), "a reply head or chunk line of more than {BUFFER} bytes");
        let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
        ensure!(read > 0, "the connection was closed");
        self.filled += read;
        Ok(())
    }

    /// What is in the buffer, for an error message.
    fn rest(&self) -> String {
        let end = self.filled.min(self.used + 300);
        String::from_utf8_lossy(&self.buffer[self.used..end]).into_owned()
    }
}

/// `None`: the head is not complete yet.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).context("parsing the reply head")? else {
        return Ok(None);
    };
    let (mut framing, mut close) = (None, false);
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default();
        let next = match header.name.to_ascii_lowercase().as_str() {
            "content-length" => Framing::Length(value.parse().context("content-length")?),
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => Framing::Chunked(Chunked::Size),
            "transfer-encoding" => bail!("transfer-encoding {value}"),
            "connection" => {
                close = value.eq_ignore_ascii_case("close");
                continue;
            }
            _ => continue,
        };
        ensure!(framing.replace(next).is_none(), "the reply has two lengths");
    }
    let framing = framing.context("the reply has no length and is not chunked")?;
    Ok(Some(Head { status: response.code.unwrap_or_default(), framing, length, close }))
}

/// Decoder of the chunked transfer coding. Keeps no bytes: an incomplete line stays with the caller.
#[derive(Debug, PartialEq)]
enum Chunked {
    Size,
    Data(usize),
    DataEnd,
    Trailer,
    Done,
}

impl Chunked {
    /// Decodes what it can and says how many bytes that were.
    fn feed(
        &mut self,
        input: &[u8],
        trailers: bool,
        sink: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<usize> {
        let mut at = 0;
        while at < input.len() && *self != Self::Done {
            if let Self::Data(left) = self {
                let taken = (input.len() - at).min(*left);
                sink(&input[at..at + taken])?;
                at += taken;
                *left -= taken;
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', &input[at..]) else { break };
            let line = input[at..at + end].strip_suffix(b"\r").context("a chunk line ends in a bare LF")?;
            at += end + 1;
            *self = match self {
                Self::Size => {
                    let digits = std::str::from_utf8(line).context("chunk size")?;
                    match usize::from_str_radix(digits, 16)
                        .with_context(|| format!("chunk size {digits:?}"))?
                    {
                        0 => Self::Trailer,
                        size => Self::Data(size),
                    }
                }
                Self::DataEnd if line.is_empty() => Self::Size,
                Self::Trailer if line.is_empty() => Self::Done,
                Self::Trailer if trailers => Self::Trailer,
                _ => bail!("unexpected line in a chunked body: {:?}", String::from_utf8_lossy(line)),
            };
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, Chunked)> {
        let (mut state, mut body, mut pending) = (Chunked::Size, Vec::new(), Vec::new());
        for piece in input.chunks(step) {
            pending.extend_from_slice(piece);
            let taken = state.feed(&pending, false, &mut |bytes| {
                body.extend_from_slice(bytes);
                Ok(())
            })?;
            pending.drain(..taken);
        }
        Ok((body, state))
    }

    #[test]
    fn any_split_of_a_chunked_body_decodes_alike() {
        let input = b"5\r\nhello\r\n1\r\n,\r\nA\r\n 0123\r\n789\r\n0\r\n\r\n";
        for step in 1..=input.len() {
            assert_eq!(decode(input, step).expect("valid"), (b"hello, 0123\r\n789".to_vec(), Chunked::Done));
        }
    }

    #[test]
    fn broken_chunks_are_noticed() {
        for input in [&b"5\r\nhelloX\r\n"[..], b"zz\r\n", b"5\nhello\r\n", b"0\r\nX: 1\r\n\r\n"] {
            assert!(decode(input, 64).is_err(), "{:?}", String::from_utf8_lossy(input));
        }
        assert_eq!(decode(b"5\r\nhel", 64).expect("so far valid").1, Chunked::Data(2));
    }

    #[test]
    fn trailers_are_passed_over_where_they_may_be() {
        let (mut state, input) = (Chunked::Size, b"0\r\nGrpc-Trailer-X: 1\r\n\r\n");
        assert_eq!(state.feed(input, true, &mut |_| Ok(())).expect("valid"), input.len());
        assert_eq!(state, Chunked::Done);
    }

    #[test]
    fn heads() {
        let head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
        let head = head.expect("valid").expect("complete");
        assert_eq!((head.status, head.framing, head.length, head.close), (200, Framing::Length(5), 57, true));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Le").expect("so far valid").is_none());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(
            parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n")
                .is_err()
        );
    }
}
