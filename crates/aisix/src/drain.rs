//! Stopping: keep serving until no request is in flight, then close. Requests
//! that take too long are cut off, and get the time to say so.

use std::time::Duration;

use aisix_config::ShutdownConfig;
use aisix_core::Lifecycle;
use tokio::time::{Instant, sleep};

use crate::listen::Stopper;

const POLL: Duration = Duration::from_millis(100);
const REPORT: Duration = Duration::from_secs(5);
/// For the last words of requests that are cut off.
const CUT_GRACE: Duration = Duration::from_secs(1);
/// For connections to close that did not by themselves.
const END_GRACE: Duration = Duration::from_millis(200);

/// Drains and closes. `false` when the time was up before the last request was
/// answered.
pub(crate) async fn drain(lifecycle: &Lifecycle, settings: &ShutdownConfig, stopper: &Stopper) -> bool {
    let started = Instant::now();
    let deadline = started + settings.max_drain.max(settings.min_drain);
    lifecycle.begin_drain();
    tracing::info!(in_flight = lifecycle.in_flight(), "draining: still serving, no longer ready");
    sleep(settings.min_drain).await;
    let mut reported = Instant::now();
    while lifecycle.in_flight() > 0 && Instant::now() < deadline {
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            tracing::info!(in_flight = lifecycle.in_flight(), "still draining in-flight requests");
        }
        sleep(POLL).await;
    }
    let left = lifecycle.in_flight();
    if left > 0 {
        tracing::warn!(in_flight = left, "shutdown.max_drain_secs is over; requests under way are cut");
        lifecycle.cut_off();
    } else {
        tracing::info!("drain complete");
    }
    let closed = || lifecycle.in_flight() == 0 && stopper.open() == 0;
    stopper.stop();
    wait(if left > 0 { Instant::now() + CUT_GRACE } else { deadline }, closed).await;
    stopper.end();
    wait(Instant::now() + END_GRACE, closed).await;
    left == 0
}

async fn wait(deadline: Instant, closed: impl Fn() -> bool) {
    while !closed() && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
}
