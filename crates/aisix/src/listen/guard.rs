//! What a connection is doing, seen from its bytes.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ConnSettings, framing::Framing};

const IDLE: u8 = 0;
const HEAD: u8 = 1;
/// How an HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// HTTP/2 frames belong to the connection, not to one request.
const MULTIPLEXED: u8 = 2;
/// How much of what a client sends ahead is taken out of its socket. A client
/// that sends more is not seen to leave before the request under way is over.
const MAX_AHEAD: usize = 64 * 1024;

/// Shared between a connection's bytes, its requests and its clock.
pub(super) struct Activity {
    began: Instant,
    phase: AtomicU8,
    /// Milliseconds after `began` at which the phase began.
    since: AtomicU64,
    /// Requests whose response is not complete.
    busy: AtomicUsize,
    /// Whether bytes are held back until none is under way.
    holding: AtomicBool,
    /// The connection's task, to be woken then.
    held: Mutex<Option<Waker>>,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            phase: AtomicU8::new(IDLE),
            since: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            holding: AtomicBool::new(false),
            held: Mutex::new(None),
        })
    }

    /// Bytes are held back from this task.
    fn hold(&self, task: &Waker) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some(task.clone());
        self.holding.store(true, Ordering::Relaxed);
    }

    fn release(&self) {
        if self.holding.swap(false, Ordering::Relaxed) {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
            held.into_iter().for_each(Waker::wake);
        }
    }

    fn enter(&self, phase: u8) {
        self.since.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// A request was read.
    pub(super) fn request(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        if self.phase() == HEAD {
            self.phase.store(IDLE, Ordering::Relaxed);
        }
        Busy(self.clone())
    }

    /// Waits until no request has been under way for a while.
    pub(super) async fn quiet(&self, grace: Duration) {
        loop {
            tokio::time::sleep(grace).await;
            let age = self
                .began
                .elapsed()
                .saturating_sub(Duration::from_millis(self.since.load(Ordering::Relaxed)));
            if !self.is_busy() && age >= grace {
                return;
            }
        }
    }

    /// Waits until the connection has been idle, or reading a request head, for
    /// too long.
    pub(super) async fn overdue(&self, settings: ConnSettings) -> Overdue {
        loop {
            let (limit, verdict) = match self.phase() {
                HEAD => (settings.head_timeout, Overdue::Head),
                _ => (settings.idle_timeout, Overdue::Idle),
            };
            let age = self
                .began
                .elapsed()
                .saturating_sub(Duration::from_millis(self.since.load(Ordering::Relaxed)));
            let wait = match limit {
                Some(limit) if !self.is_busy() && age >= limit => return verdict,
                Some(limit) if !self.is_busy() => limit - age,
                // Look again when either limit could have passed by then.
                _ => match (settings.idle_timeout, settings.head_timeout) {
                    (Some(idle), Some(head)) => idle.min(head),
                    (idle, head) => idle.or(head).unwrap_or(Duration::from_secs(3600)),
                },
            };
            tokio::time::sleep(wait.max(Duration::from_millis(5))).await;
        }
    }
}

/// Which limit has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Idle,
    Head,
}

/// A request under way.
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::Relaxed) == 1 && self.0.phase() != MULTIPLEXED {
            self.0.enter(IDLE);
            self.0.release();
        } else {
            self.0.since.store(self.0.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
    }
}

/// Makes the response to an unreadable request head from its status.
pub(super) type Refuse = Box<dyn Fn(u16) -> Option<Response<Bytes>> + Send>;

/// A stream that watches requests go by.
///
/// The library gets a request and nothing behind it until its response is
/// complete: it looks for the end of the connection only while it has nothing
/// else to read, and without that a client that leaves would not be noticed.
pub(super) struct Guard<T> {
    io: T,
    activity: Arc<Activity>,
    framing: Framing,
    /// How much of the HTTP/2 preface has come; `None` once it cannot any more.
    preface: Option<usize>,
    refuse: Refuse,
    /// A response that takes the place of the library's bare one.
    instead: Option<BytesMut>,
    /// What came behind the request under way.
    ahead: BytesMut,
}

impl<T> Guard<T> {
    pub(super) fn new(io: T, activity: Arc<Activity>, refuse: Refuse) -> Self {
        let (framing, ahead) = (Framing::default(), BytesMut::new());
        Self { io, activity, framing, preface: Some(0), refuse, instead: None, ahead }
    }

    /// Says how many of the bytes may go on.
    fn saw(&mut self, bytes: &mut [u8]) -> usize {
        if bytes.is_empty() || self.activity.phase() == MULTIPLEXED || self.preface_follows(bytes) {
            return bytes.len();
        }
        if self.activity.phase() == IDLE && !self.activity.is_busy() {
            self.activity.enter(HEAD);
        }
        self.framing.inspect(bytes)
    }

    /// Whether a request was read to its end and is being answered.
    fn answering(&self) -> bool {
        self.framing.between() && self.activity.is_busy() && self.activity.phase() != MULTIPLEXED
    }

    /// Hands over what was held back. Blank lines in front of a request mean
    /// nothing (RFC 9112, 2.2) and would look like a request that is slow to come.
    fn replay(&mut self, buf: &mut ReadBuf<'_>) {
        while self.framing.between() {
            match &self.ahead[..] {
                [b'\r', b'\n', ..] => self.ahead.advance(2),
                [b'\n', ..] => self.ahead.advance(1),
                _ => break,
            }
        }
        let before = buf.filled().len();
        buf.put_slice(&self.ahead[..buf.remaining().min(self.ahead.len())]);
        let taken = self.saw(&mut buf.filled_mut()[before..]);
        buf.set_filled(before + taken);
        self.ahead.advance(taken);
    }

    /// Whether the connection begins, as far as it has come, like HTTP/2
    /// (RFC 9113, 3.4). No HTTP/1 request does.
    fn preface_follows(&mut self, bytes: &[u8]) -> bool {
        let Some(matched) = self.preface else { return false };
        let expected = &PREFACE[matched..];
        let seen = expected.len().min(bytes.len());
        if bytes[..seen] != expected[..seen] {
            self.preface = None;
            // What came before is the start of a request head.
            self.activity.enter(HEAD);
            let mut before = PREFACE[..matched].to_vec();
            self.framing.inspect(&mut before);
            return false;
        }
        self.preface = Some(matched + seen);
        self.activity.enter(if matched + seen == PREFACE.len() { MULTIPLEXED } else { HEAD });
        true
    }

    /// A response while no request was handed out is the library refusing a
    /// head it could not read.
    fn replacement(&self, bytes: &[u8]) -> Option<BytesMut> {
        if self.activity.phase() != HEAD || self.activity.is_busy() {
            return None;
        }
        let status = std::str::from_utf8(bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?).ok()?.parse().ok()?;
        let response = (self.refuse)(match status {
            // Not the head is too large but the length that it declares.
            431 if self.framing.lost() => 413,
            status => status,
        })?;
        let mut out = BytesMut::with_capacity(512);
        out.put_slice(format!("HTTP/1.1 {}\r\n", response.status()).as_bytes());
        for (name, value) in response.headers() {
            out.put_slice(name.as_str().as_bytes());
            out.put_slice(b": ");
            out.put_slice(value.as_bytes());
            out.put_slice(b"\r\n");
        }
        let length = response.body().len();
        out.put_slice(format!("connection: close\r\ncontent-length: {length}\r\n\r\n").as_bytes());
        out.put_slice(response.body());
        Some(out)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guard<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.answering() {
            return this.poll_ahead(cx);
        }
        if !this.ahead.is_empty() {
            this.replay(buf);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        std::task::ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let taken = this.saw(&mut buf.filled_mut()[before..]);
        this.ahead.extend_from_slice(&buf.filled()[before + taken..]);
        buf.set_filled(before + taken);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> Guard<T> {
    /// Waits for the end of the connection; what comes before it is kept.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < MAX_AHEAD {
            let mut space = [std::mem::MaybeUninit::uninit(); 2048];
            let mut piece = ReadBuf::uninit(&mut space);
            match Pin::new(&mut self.io).poll_read(cx, &mut piece)? {
                Poll::Ready(()) if piece.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(()) => self.ahead.extend_from_slice(piece.filled()),
                Poll::Pending => break,
            }
        }
        if !self.ahead.is_empty() {
            self.activity.hold(cx.waker());
        }
        Poll::Pending
    }
}

impl<T: AsyncWrite + Unpin> Guard<T> {
    /// Writes the replacement out; the caller's bytes count as written.
    fn poll_instead(&mut self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        while let Some(pending) = self.instead.as_mut().filter(|pending| !pending.is_empty()) {
            let written = std::task::ready!(Pin::new(&mut self.io).poll_write(cx, pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _ = pending.split_to(written);
        }
        Poll::Ready(Ok(length))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guard<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.instead.is_none() {
            this.instead = this.replacement(buf);
        }
        if this.instead.is_some() {
            return this.poll_instead(cx, buf.len());
        }
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.instead.is_none() {
            this.instead = bufs.iter().find(|buf| !buf.is_empty()).and_then(|buf| this.replacement(buf));
        }
        if this.instead.is_some() {
            return this.poll_instead(cx, bufs.iter().map(|buf| buf.len()).sum());
        }
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool
    where
        Self: Sized,
    {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// Waits for nothing when there is no limit at all.
pub(super) async fn watch(activity: Arc<Activity>, settings: ConnSettings) -> Overdue {
    if settings.idle_timeout.is_none() && settings.head_timeout.is_none() {
        return std::future::pending().await;
    }
    let overdue: Pin<Box<dyn Future<Output = Overdue> + Send + '_>> = Box::pin(activity.overdue(settings));
    overdue.await
}
