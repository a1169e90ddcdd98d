//! Tokens that the upstream did not report are counted here.
//!
//! Counting would hold up a worker, so one thread does it for the whole
//! process, started when it is first needed. Until then the record stays open
//! and the request in flight, so that a drain waits for it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        OnceLock,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
};

use aisix_core::{Price, Usage};
use aisix_telemetry::{End, Record};
use aisix_wire::{Counter, Format, OutputText, Vocabulary};
use bytes::Bytes;

use super::{InFlight, charge};

/// Records that may wait. When more do, tokens are guessed by length.
const MAX_WAITING: usize = 1024;

/// What the input is counted from.
#[derive(Clone)]
pub(crate) struct Sent {
    /// The format of the upstream.
    pub(crate) format: &'static dyn Format,
    pub(crate) vocabulary: Vocabulary,
    /// The body as the upstream got it.
    pub(crate) body: Bytes,
}

/// What the output is counted from.
pub(super) enum Output {
    Reply(Bytes),
    Text(OutputText),
}

/// An answer whose upstream did not report all counts.
pub(super) struct Uncounted {
    pub(super) sent: Sent,
    pub(super) output: Output,
    pub(super) price: Option<Price>,
}

impl Uncounted {
    /// Closes the record soon. Its time ends now.
    pub(super) fn close(self, mut record: Record, end: End, in_flight: InFlight) {
        record.stop();
        let job = Job { answer: self, record, end, in_flight };
        // A process that is about to end has no time to count.
        let rejected = match queue().filter(|_| !job.in_flight.is_cut_off()) {
            Some(queue) => match queue.try_send(Box::new(job)) {
                Ok(()) => return,
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => *job,
            },
            None => job,
        };
        rejected.settle(Counter::rough);
    }

    /// What the upstream reported, completed.
    fn complete(&self, mut usage: Usage, counter: fn(Vocabulary) -> Counter) -> Usage {
        if usage.input == 0 {
            let mut counter = counter(self.sent.vocabulary);
            self.sent.format.count_prompt(&self.sent.body, &mut counter);
            usage.input = counter.total();
        }
        if usage.output == 0 {
            let mut counter = counter(self.sent.vocabulary);
            match &self.output {
                Output::Reply(reply) => self.sent.format.output_text(reply).count(&mut counter),
                Output::Text(text) => text.count(&mut counter),
            }
            usage.output = counter.total();
        }
        if usage.total < usage.processed() {
            // A total without what was missing.
            usage.total = 0;
        }
        usage
    }
}

/// A record that lacks nothing but counts.
struct Job {
    answer: Uncounted,
    record: Record,
    end: End,
    in_flight: InFlight,
}

impl Job {
    fn settle(mut self, counter: fn(Vocabulary) -> Counter) {
        let reported = self.record.usage;
        // Counts are not worth losing a record for.
        if let Ok(usage) = catch_unwind(AssertUnwindSafe(|| self.answer.complete(reported, counter))) {
            charge(&mut self.record, usage, self.answer.price);
        }
        self.record.close(self.end);
        drop(self.in_flight);
    }
}

/// `None` when there can be no thread.
fn queue() -> Option<&'static SyncSender<Box<Job>>> {
    static QUEUE: OnceLock<Option<SyncSender<Box<Job>>>> = OnceLock::new();
    let start = || {
        let (sender, receiver) = sync_channel::<Box<Job>>(MAX_WAITING);
        let count = move || receiver.into_iter().for_each(|job| job.settle(Counter::new));
        let thread = std::thread::Builder::new().name("aisix-tokens".into()).spawn(count);
        thread.map(|_| sender).inspect_err(|error| tracing::warn!(%error, "tokens are guessed")).ok()
    };
    QUEUE.get_or_init(start).as_ref()
}
