//! The body of a streamed answer.
//!
//! It pulls from the upstream inside the task that writes to the client, passes
//! on what has arrived without waiting for more, sends comments while nothing
//! comes, and ends in exactly one way: complete, failed with an error frame, or
//! dropped because the client left.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aisix_config::StreamDoneMarker;
use aisix_core::{Error, Source};
use aisix_telemetry::{End, Record, Shard};
use aisix_wire::{Format, StreamRelay};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Sleep;

use super::{InFlight, Output, Sent, Uncounted, fault, note};
use crate::{
    snapshot::Target,
    upstream::{UpstreamBody, transport},
};

/// Forwarded at once even if more has arrived.
const MAX_BATCH: usize = 64 * 1024;
/// How long the end of an upstream's body is waited for once its last event has
/// come, so that the connection can be used again.
const LINGER: Duration = Duration::from_millis(100);

/// A streamed answer before it has a record.
pub(crate) struct StreamReply {
    pub(crate) body: UpstreamBody,
    pub(crate) relay: Box<dyn StreamRelay>,
    /// The caller's format, for error frames.
    pub(crate) format: &'static dyn Format,
    pub(crate) target: Arc<Target>,
    pub(crate) sent: Sent,
    /// When the attempt began.
    pub(crate) started: Instant,
    /// Longest wait for the next bytes.
    pub(crate) gap: Option<Duration>,
    /// Silence after which a comment is sent.
    pub(crate) keepalive: Option<Duration>,
    pub(crate) shard: Arc<Shard>,
    /// Output that is ready for the client.
    pub(crate) ready: BytesMut,
}

impl StreamReply {
    /// Waits for the first output, so that an attempt that fails before it can
    /// still be answered with a status.
    pub(crate) async fn first_frame(&mut self) -> Result<(), Error> {
        while self.ready.is_empty() && !self.relay.ended() {
            match poll_fn(|cx| self.body.poll_chunk(cx)).await {
                Some(Ok(bytes)) => {
                    let pushed = self.relay.push(&bytes, &mut self.ready);
                    pushed.map_err(|e| fault::before_commit(e, &self.target))?;
                }
                Some(Err(text)) => return Err(transport(&text)),
                None => {
                    let finished = self.relay.finish(&mut self.ready);
                    return finished.map_err(|e| fault::before_commit(e, &self.target));
                }
            }
        }
        Ok(())
    }
}

enum State {
    /// Passing on.
    Relaying,
    /// The answer is complete; only the end of the upstream's body is missing.
    Lingering,
    Done,
}

/// A streamed answer under way.
pub(super) struct StreamBody {
    inner: StreamReply,
    record: Option<Record>,
    in_flight: InFlight,
    state: State,
    /// How much text was in the frames that were handed over; `None` before
    /// the first.
    handed: Option<u64>,
    /// Last bytes from the upstream.
    heard: Instant,
    /// Last bytes to the client.
    spoke: Instant,
    /// Fires at the earliest deadline; deadlines that moved are noticed then.
    timer: Option<Pin<Box<Sleep>>>,
}

impl StreamBody {
    pub(super) fn new(inner: StreamReply, record: Record, in_flight: InFlight) -> Self {
        let now = Instant::now();
        let mut body = Self {
            inner,
            record: Some(record),
            in_flight,
            state: State::Relaying,
            handed: None,
            heard: now,
            spoke: now,
            timer: None,
        };
        body.note_first_frame(now);
        body
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done) && self.inner.ready.is_empty()
    }

    /// The next bytes for the client, `None` at the end.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match self.state {
                State::Relaying if self.in_flight.is_cut_off() => self.fail(&fault::cut_off()),
                State::Relaying => self.pull(cx),
                State::Lingering | State::Done => {}
            }
            if !self.inner.ready.is_empty() {
                self.spoke = Instant::now();
                if self.inner.relay.facts().frames > 0 {
                    self.handed = Some(self.inner.relay.output().len());
                }
                return Poll::Ready(Some(self.inner.ready.split().freeze()));
            }
            match self.state {
                State::Done => return Poll::Ready(None),
                State::Lingering => {
                    while let Poll::Ready(chunk) = self.inner.body.poll_chunk(cx) {
                        if !matches!(chunk, Some(Ok(_))) {
                            self.state = State::Done;
                            return Poll::Ready(None);
                        }
                    }
                }
                State::Relaying => {}
            }
            if !self.check_deadlines(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Takes what has arrived from the upstream.
    fn pull(&mut self, cx: &mut Context<'_>) {
        while self.inner.ready.len() < MAX_BATCH {
            match self.inner.body.poll_chunk(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(bytes))) => {
                    self.heard = Instant::now();
                    if let Err(error) = self.inner.relay.push(&bytes, &mut self.inner.ready) {
                        return self.fail(&fault::in_stream(error, &self.inner.target));
                    }
                    self.note_first_frame(self.heard);
                    if self.inner.relay.ended() {
                        return self.complete(State::Lingering);
                    }
                }
                Poll::Ready(Some(Err(text))) => return self.fail(&transport(&text)),
                Poll::Ready(None) => return self.complete(State::Done),
            }
        }
    }

    fn note_first_frame(&mut self, now: Instant) {
        if let Some(record) = &mut self.record
            && record.ttft.is_none()
            && self.inner.relay.facts().frames > 0
        {
            record.ttft = Some(now.duration_since(self.inner.started));
        }
    }

    /// The upstream has said all it will say.
    fn complete(&mut self, next: State) {
        if let Err(error) = self.inner.relay.finish(&mut self.inner.ready) {
            return self.fail(&fault::in_stream(error, &self.inner.target));
        }
        self.state = next;
        self.timer = None;
        self.heard = Instant::now();
        fault::succeeded(&self.inner.shard, &self.inner.target);
        let facts = self.inner.relay.facts();
        let Some(mut record) = self.record.take() else { return };
        note(&mut record, facts, self.inner.target.price);
        if self.inner.target.done_marker == Some(StreamDoneMarker::Required) && !facts.done_marker {
            record.scope(|| tracing::warn!("the upstream ended its stream without [DONE]"));
        }
        self.close(record, End::Complete, true);
    }

    /// Closes the record; what the upstream did not report is counted first,
    /// if anything was delivered.
    fn close(&mut self, record: Record, end: End, delivered: bool) {
        if !delivered || record.usage.is_complete() {
            return record.close(end);
        }
        let output = Output::Text(std::mem::take(self.inner.relay.output()));
        let (price, sent) = (self.inner.target.price, self.inner.sent.clone());
        Uncounted { sent, output, price }.close(record, end, self.in_flight.clone());
    }

    /// Ends the stream with an error frame. What was already passed on stays.
    fn fail(&mut self, error: &Error) {
        self.state = State::Done;
        self.timer = None;
        // What is ready goes out before the error.
        let delivered = self.handed.is_some() || !self.inner.ready.is_empty();
        self.inner.ready.put_slice(&self.inner.format.encode_stream_error(error));
        match error.reason().row().source {
            Source::Upstream => fault::failed(&self.inner.shard, &self.inner.target, error),
            _ => self.given_up(),
        }
        if let Some(mut record) = self.record.take() {
            note(&mut record, self.inner.relay.facts(), self.inner.target.price);
            record.fail(error);
            self.close(record, End::Failed, delivered);
        }
    }

    fn given_up(&self) {
        if self.inner.relay.facts().frames > 0 {
            fault::given_up(&self.inner.shard, &self.inner.target);
        }
    }

    /// Looks at the clock. `true` when something happened and the loop should
    /// go round; otherwise the timer will wake the task.
    fn check_deadlines(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let Some((deadline, what)) = self.next_deadline() else { return false };
        if deadline <= now {
            match what {
                Deadline::Gap(limit) => self.fail(&fault::timed_out(limit)),
                Deadline::Keepalive => {
                    self.inner.ready.put_slice(b":\n\n");
                    self.spoke = now;
                }
                Deadline::Linger => self.state = State::Done,
            }
            return true;
        }
        let due = tokio::time::Instant::from_std(deadline);
        match &mut self.timer {
            // A timer that is early only costs one more look.
            Some(timer) if timer.deadline() <= due && !timer.is_elapsed() => {}
            Some(timer) => timer.as_mut().reset(due),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(due))),
        }
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }

    fn next_deadline(&self) -> Option<(Instant, Deadline)> {
        match self.state {
            State::Done => None,
            State::Lingering => Some((self.heard + LINGER, Deadline::Linger)),
            State::Relaying => {
                let gap = self.inner.gap.map(|limit| (self.heard + limit, Deadline::Gap(limit)));
                let keepalive =
                    self.inner.keepalive.map(|silence| (self.spoke + silence, Deadline::Keepalive));
                match (gap, keepalive) {
                    (Some(gap), Some(keepalive)) => Some(if gap.0 <= keepalive.0 { gap } else { keepalive }),
                    (gap, keepalive) => gap.or(keepalive),
                }
            }
        }
    }
}

enum Deadline {
    Gap(Duration),
    Keepalive,
    Linger,
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        // The client left: what it was sent still counts.
        if let Some(mut record) = self.record.take() {
            self.given_up();
            note(&mut record, self.inner.relay.facts(), self.inner.target.price);
            self.inner.relay.output().truncate(self.handed.unwrap_or(0));
            let cut = self.in_flight.is_cut_off();
            if cut {
                // It is the gateway that left, and the client did not read that.
                record.fail(&fault::cut_off());
            }
            let end = if cut || std::thread::panicking() { End::Failed } else { End::ClientGone };
            self.close(record, end, self.handed.is_some());
        }
    }
}
