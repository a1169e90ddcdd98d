//! The body of an upstream's response.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};

use super::{
    Origin, chain,
    pool::{H1, Pool},
};

/// Bytes of a response as they arrive. When the end has been read, the
/// connection goes back to the pool; a body dropped before its end closes it.
pub struct UpstreamBody(Kind);

enum Kind {
    H1 { body: Incoming, connection: Option<(Box<H1>, Arc<Pool>, Arc<Origin>)> },
    Local(VecDeque<Bytes>),
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamBody")
    }
}

impl UpstreamBody {
    pub(super) fn h1(body: Incoming, connection: Box<H1>, pool: Arc<Pool>, origin: Arc<Origin>) -> Self {
        Self(Kind::H1 { body, connection: Some((connection, pool, origin)) })
    }

    /// A body made by the built-in provider.
    pub(crate) fn local(frames: impl IntoIterator<Item = Bytes>) -> Self {
        Self(Kind::Local(frames.into_iter().collect()))
    }

    /// The next bytes, `None` at the end, or what went wrong.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        match &mut self.0 {
            Kind::Local(frames) => Poll::Ready(frames.pop_front().map(Ok)),
            Kind::H1 { body, connection } => {
                let mut polled = poll_data(body, cx);
                if polled.is_pending()
                    && let Some((driver, ..)) = connection
                {
                    if driver.drive(cx).is_ready() {
                        *connection = None;
                    }
                    polled = poll_data(body, cx);
                }
                // A body with a content-length is over with its last bytes.
                if matches!(polled, Poll::Ready(None)) || body.is_end_stream() {
                    if let Some((driver, pool, origin)) = connection.take() {
                        pool.put_h1(&origin, driver);
                    }
                } else if matches!(polled, Poll::Ready(Some(Err(_)))) {
                    *connection = None;
                }
                polled
            }
        }
    }

    /// Reads at most `limit` bytes and says whether that was all. Anything
    /// beyond is not read and the connection is closed.
    pub async fn collect(mut self, limit: usize) -> Result<(Bytes, bool), String> {
        let Some(first) = poll_fn(|cx| self.poll_chunk(cx)).await.transpose()? else {
            return Ok((Bytes::new(), true));
        };
        let mut all = Collected::One(first);
        while all.len() <= limit {
            match poll_fn(|cx| self.poll_chunk(cx)).await.transpose()? {
                Some(chunk) => all = all.with(&chunk),
                None => return Ok((all.finish(), true)),
            }
        }
        Ok((all.finish().slice(..limit), false))
    }
}

/// One chunk stays as it is; only a second one makes a copy.
enum Collected {
    One(Bytes),
    Many(BytesMut),
}

impl Collected {
    fn len(&self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }

    fn with(self, chunk: &[u8]) -> Self {
        let mut bytes = match self {
            Self::One(first) => BytesMut::from(&first[..]),
            Self::Many(bytes) => bytes,
        };
        bytes.extend_from_slice(chunk);
        Self::Many(bytes)
    }

    fn finish(self) -> Bytes {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}

fn poll_data(body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
    loop {
        return Poll::Ready(match std::task::ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Some(Ok(data)),
                // Trailers carry nothing the gateway uses.
                Err(_) => continue,
            },
            Some(Err(error)) => Some(Err(chain(&error))),
            None => None,
        });
    }
}
