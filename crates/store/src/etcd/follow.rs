//! Following the rows: one read, then a watch; again from the start whenever
//! the watch ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aisix_core::rows::{BoxFuture, Change, Sink};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{Failure, Session, Watch, header, revision, signed};
use super::proto::{
    EventType, RangeRequest, RangeResponse, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse, WatchUnion, path,
};
use super::{EtcdStore, range};

/// How often the watch is asked whether it is current.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// The same while somebody waits for it.
const ASK_SOON: Duration = Duration::from_millis(50);
/// How long the answer may take before the rows are compared instead.
const ANSWER: Duration = Duration::from_secs(1);
/// A watch that was not known to be current for so long is stalled.
const STALLED: Duration = Duration::from_secs(15);
const READ_AGAIN: Duration = Duration::from_millis(100);
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LAST_DELAY: Duration = Duration::from_secs(60);
/// Reads in quick succession that are taken for normal.
const QUICK_READS: u32 = 3;

/// Why a watch ended.
enum End {
    /// The store is fine, but the watch cannot go on.
    ReadAgain(String),
    /// The store is not reached.
    Lost(String),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        // Compacted between two pages of the read.
        match failure.is_revision() {
            true => Self::ReadAgain(failure.to_string()),
            false => Self::Lost(failure.to_string()),
        }
    }
}

impl EtcdStore {
    /// Tells the sink what happens, until `stop` is ready.
    pub async fn run(&self, sink: Arc<dyn Sink>, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => {}
            () = self.follow(&*sink) => {}
        }
    }

    async fn follow(&self, sink: &dyn Sink) {
        let mut delay = FIRST_DELAY;
        let mut quick = 0;
        loop {
            let began = Instant::now();
            let mut watched = false;
            let end = self.cycle(sink, &mut watched).await;
            quick = if began.elapsed() > ASK_EVERY { 0 } else { quick + 1 };
            let detail = match end {
                End::ReadAgain(why) if quick <= QUICK_READS => {
                    tracing::info!(reason = %why, "reading all rows of etcd again");
                    sleep(READ_AGAIN).await;
                    continue;
                }
                End::ReadAgain(why) | End::Lost(why) => why,
            };
            tracing::warn!(error = %detail, "etcd is lost");
            sink.lost(&detail);
            if watched {
                delay = FIRST_DELAY;
            }
            sleep(jitter(delay)).await;
            delay = (delay * 2).min(LAST_DELAY);
        }
    }

    /// Reads everything and watches until that ends.
    async fn cycle(&self, sink: &dyn Sink, watched: &mut bool) -> End {
        let listing = match self.list(0).await {
            Ok(listing) => listing,
            Err(failure) => return failure.into(),
        };
        let mut state = Follower {
            store: self,
            sink,
            cluster: listing.cluster,
            applied: listing.revision,
            confirmed: listing.revision,
            count: listing.count,
            watched: false,
            heard: Instant::now(),
            ask_at: Instant::now() + ASK_EVERY,
            asked: false,
            wanted: None,
        };
        sink.replace(listing.rows, listing.revision);
        state.heard = Instant::now();
        let session = match self.client.session().await {
            Ok(session) => session,
            Err(failure) => return failure.into(),
        };
        // A watch from a revision to come is not told of progress before that
        // revision, by newer servers. What comes twice is dropped.
        let first = state.applied + u64::from(!session.ordered_progress);
        let rows = range(&self.prefix);
        let create = WatchCreateRequest {
            key: rows.key,
            range_end: rows.range_end,
            start_revision: signed(first),
            progress_notify: true,
        };
        let end = match session.watch(create, self.client.request_timeout()).await {
            Ok(watch) => state.watch(watch, &session).await,
            Err(failure) => failure.into(),
        };
        *watched = state.watched;
        // Whatever ended it, the connection or its token may be the cause.
        self.client.forget(&session).await;
        end
    }
}

/// What is known while a watch goes on.
struct Follower<'a> {
    store: &'a EtcdStore,
    sink: &'a dyn Sink,
    cluster: u64,
    /// The newest revision whose rows were handed on.
    applied: u64,
    /// The newest revision up to which nothing is missing.
    confirmed: u64,
    /// Keys under the prefix.
    count: i64,
    watched: bool,
    /// When the rows were last known to be current.
    heard: Instant,
    /// When the watch is asked next.
    ask_at: Instant,
    /// Whether the watch was asked and has not answered.
    asked: bool,
    /// A revision somebody waits for, and how long that matters.
    wanted: Option<(u64, Instant)>,
}

/// Asks the cluster for what changed since a revision.
type Check<'a> = BoxFuture<'a, (u64, Result<RangeResponse, Failure>)>;

impl<'a> Follower<'a> {
    async fn watch(&mut self, mut watch: Watch, session: &Session) -> End {
        let mut wanted = self.store.wanted.subscribe();
        let mut check: Option<Check<'a>> = None;
        // Somebody may have begun to wait while the rows were read.
        let waited_for = *wanted.borrow_and_update();
        self.want(waited_for);
        loop {
            let wake = self.ask_at.min(self.heard + STALLED);
            let step = tokio::select! {
                response = watch.responses.message() => match response {
                    Ok(Some(response)) => self.take(response),
                    Ok(None) => Err(End::ReadAgain("etcd ended the watch".into())),
                    Err(status) => Err(failed(status)),
                },
                (since, answer) = settled(&mut check) => {
                    check = None;
                    self.checked(since, answer)
                },
                Ok(()) = wanted.changed() => {
                    let revision = *wanted.borrow_and_update();
                    self.want(revision);
                    Ok(())
                },
                () = sleep_until(wake) => self.ask(&watch.requests, session, &mut check),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// What the watch brought.
    fn take(&mut self, response: WatchResponse) -> Result<(), End> {
        let (cluster, at) = header(response.header.as_ref());
        if cluster != self.cluster {
            return Err(End::ReadAgain("the cluster was replaced".into()));
        }
        if response.canceled {
            return Err(End::ReadAgain(match response.compact_revision {
                0 => format!("etcd cancelled the watch: {}", response.cancel_reason),
                revision => format!("the history up to revision {revision} was compacted"),
            }));
        }
        if response.created {
            if at < self.applied {
                return Err(End::ReadAgain(format!("the cluster went back to revision {at}")));
            }
            self.watched = true;
        } else if response.events.is_empty() {
            self.confirm(at);
        } else {
            self.change(response);
        }
        Ok(())
    }

    /// One response is one step: a transaction is never split over two.
    fn change(&mut self, response: WatchResponse) {
        let mut newest = self.applied;
        let mut changes = Vec::with_capacity(response.events.len());
        for event in response.events {
            let Some(row) = event.kv else { continue };
            let at = revision(row.mod_revision);
            if at <= self.applied {
                continue;
            }
            newest = newest.max(at);
            if event.r#type == EventType::Delete as i32 {
                self.count -= 1;
                changes.extend(self.store.relative(&row.key).map(|key| Change::Delete { key }));
            } else {
                self.count += i64::from(row.create_revision == row.mod_revision);
                changes.extend(self.store.row(row).map(Change::Put));
            }
        }
        if newest == self.applied {
            return;
        }
        self.applied = newest;
        if changes.is_empty() {
            self.confirm(newest);
            return;
        }
        self.confirmed = self.confirmed.max(newest);
        self.sink.change(changes, newest);
        self.current();
    }

    /// Nothing is missing up to a revision.
    fn confirm(&mut self, revision: u64) {
        if revision >= self.confirmed {
            self.confirmed = revision;
            self.sink.confirm(revision);
        }
        self.current();
    }

    fn current(&mut self) {
        self.heard = Instant::now();
        self.ask_at = self.heard + ASK_EVERY;
        self.asked = false;
        match self.wanted {
            Some((revision, _)) if revision <= self.confirmed => self.wanted = None,
            // The answer was older than the wish.
            Some(_) => self.ask_at = self.heard,
            None => {}
        }
    }

    fn want(&mut self, revision: u64) {
        if revision > self.confirmed {
            let now = Instant::now();
            self.wanted = Some((revision, now + self.store.client.request_timeout()));
            self.ask_at = now;
        }
    }

    /// Asks whether the watch is current. Where the answer of the watch itself
    /// may overtake its events, and where there is no answer, the rows are
    /// compared with those of the cluster instead.
    fn ask(
        &mut self,
        requests: &mpsc::Sender<WatchRequest>,
        session: &Session,
        check: &mut Option<Check<'a>>,
    ) -> Result<(), End> {
        let now = Instant::now();
        if now >= self.heard + STALLED {
            return Err(End::Lost(format!("the watch was not current for {} s", STALLED.as_secs())));
        }
        self.wanted = self.wanted.filter(|(_, until)| now < *until);
        let next = if session.ordered_progress && !self.asked {
            let ask = WatchRequest { request: Some(WatchUnion::Progress(WatchProgressRequest {})) };
            // A full queue holds the same question already.
            let _ = requests.try_send(ask);
            self.asked = true;
            ANSWER
        } else {
            if check.is_none() {
                *check = Some(Box::pin(changes_since(self.store, self.applied)));
            }
            self.asked = false;
            ASK_EVERY
        };
        self.ask_at = now + if self.wanted.is_some() { ASK_SOON } else { next };
        Ok(())
    }

    /// No row is newer than the newest known one, and none is gone: then
    /// nothing is missing.
    fn checked(&mut self, since: u64, answer: Result<RangeResponse, Failure>) -> Result<(), End> {
        let answer = answer?;
        let (cluster, at) = header(answer.header.as_ref());
        if cluster != self.cluster || at < since {
            return Err(End::ReadAgain("the cluster was replaced or restored".into()));
        }
        if since == self.applied && answer.kvs.is_empty() && answer.count == self.count {
            self.confirm(at);
        }
        Ok(())
    }
}

/// The outcome of a check that is under way.
async fn settled(check: &mut Option<Check<'_>>) -> (u64, Result<RangeResponse, Failure>) {
    match check {
        Some(check) => check.await,
        None => std::future::pending().await,
    }
}

async fn changes_since(store: &EtcdStore, since: u64) -> (u64, Result<RangeResponse, Failure>) {
    let newer = RangeRequest {
        limit: 1,
        keys_only: true,
        min_mod_revision: signed(since.saturating_add(1)),
        ..range(&store.prefix)
    };
    (since, store.client.call(path::RANGE, newer).await)
}

fn failed(status: tonic::Status) -> End {
    End::Lost(format!("the watch broke off: {}", Failure::of(status)))
}

/// Between half and the whole of it, so that a fleet does not come back in step.
fn jitter(delay: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    delay.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
