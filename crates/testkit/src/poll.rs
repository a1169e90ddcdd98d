//! Waiting with a deadline instead of sleeping for a guess.

use std::future::Future;
use std::time::{Duration, Instant};

/// The longest any single wait of a test may take before it counts as a failure.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// How often a polled condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Awaits `future`, and panics with `what` when it takes longer than [`DEADLINE`].
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("timed out after {DEADLINE:?}: {what}"),
    }
}

/// Calls `probe` until it answers `Some`, and panics with `what` when that takes longer than [`DEADLINE`].
pub async fn eventually<T, P, F>(what: &str, probe: P) -> T
where
    P: FnMut() -> F,
    F: Future<Output = Option<T>>,
{
    eventually_in(DEADLINE, what, probe).await
}

/// The same with a limit of its own, for what is slow by its nature.
pub async fn eventually_in<T, P, F>(limit: Duration, what: &str, mut probe: P) -> T
where
    P: FnMut() -> F,
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out after {limit:?}: {what}");
        tokio::time::sleep(STEP).await;
    }
}
