//! A bounded buffer of lines and the loop that writes it out.

use std::{
    io::Write,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A batch this large is written without waiting for more.
const BATCH: usize = 64 * 1024;
/// How long lines may wait for company.
const LINGER: Duration = Duration::from_millis(20);
/// Lines beyond this many waiting bytes are dropped.
pub(super) const MAX_WAITING: usize = 8 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Sink {
    state: Mutex<State>,
    /// Wakes the writing thread.
    work: Condvar,
    /// Wakes those who wait for the writing thread.
    done: Condvar,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    /// Bytes that are being written right now.
    writing: usize,
    dropped: u64,
    /// The writing thread waits for the first line.
    idle: bool,
    /// Write now, without waiting for more.
    hurry: bool,
    closing: bool,
    finished: bool,
}

impl Sink {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes so many lines, or counts them as dropped. False once nobody
    /// writes any more.
    pub(super) fn append(&self, lines: &[u8], count: u64) -> bool {
        let mut state = self.state();
        if state.finished {
            return false;
        }
        let before = state.buffer.len();
        if before + state.writing + lines.len() > MAX_WAITING {
            state.dropped += count;
            return true;
        }
        state.buffer.extend_from_slice(lines);
        let full = before < BATCH && state.buffer.len() >= BATCH;
        let wake = std::mem::take(&mut state.idle) || full;
        drop(state);
        if wake {
            self.work.notify_one();
        }
        true
    }

    /// Asks for the waiting lines to be written at once, without waiting for it.
    pub(super) fn hurry(&self) {
        self.state().hurry = true;
        self.work.notify_one();
    }

    /// Writes what is left, for at most this long, and ends the writing.
    pub(super) fn close(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        state.closing = true;
        self.work.notify_one();
        while !state.finished {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        // From here on lines are written directly.
        state.finished = true;
    }

    /// Writes batches until the sink is closed and empty. `lost` is told how
    /// many lines had to be dropped before the ones that follow.
    pub(super) fn run(&self, mut output: impl Write, lost: impl Fn(u64)) {
        let mut batch = Vec::new();
        loop {
            let (dropped, more) = self.next_batch(&mut batch);
            // Nothing sensible can be done about a standard error that fails.
            let _ = output.write_all(&batch);
            let _ = output.flush();
            batch.clear();
            // A burst must not pin its memory.
            batch.shrink_to(BATCH * 2);
            self.state().writing = 0;
            if dropped > 0 {
                lost(dropped);
            }
            if !more && self.finish() {
                return;
            }
        }
    }

    /// Swaps the waiting lines into `batch` once it is worth it. Returns the
    /// number of dropped lines, and false when the sink is being closed.
    fn next_batch(&self, batch: &mut Vec<u8>) -> (u64, bool) {
        let mut state = self.state();
        while state.buffer.is_empty() && !state.closing {
            state.idle = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        let deadline = Instant::now() + LINGER;
        while state.buffer.len() < BATCH && !state.closing && !state.hurry {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.hurry = false;
        std::mem::swap(&mut state.buffer, batch);
        state.writing = batch.len();
        (std::mem::take(&mut state.dropped), !state.closing)
    }

    /// Marks the writing as over, if nothing is left.
    fn finish(&self) -> bool {
        let mut state = self.state();
        if !state.buffer.is_empty() {
            return false;
        }
        state.finished = true;
        self.done.notify_all();
        true
    }
}
