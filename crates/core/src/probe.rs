//! Liveness and readiness: shared process state and the bodies of the probes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What the process is doing. One per process, shared by all listeners.
#[derive(Debug, Default)]
pub struct Lifecycle {
    draining: AtomicBool,
    configured: AtomicBool,
    cut_off: AtomicBool,
    in_flight: AtomicUsize,
}

impl Lifecycle {
    /// A process that is starting: not draining, no configuration yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process was told to stop.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Whether the process was told to stop.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The time to drain is over: what is under way has to end now.
    pub fn cut_off(&self) {
        self.cut_off.store(true, Ordering::SeqCst);
    }

    /// Whether what is under way has to end.
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// A configuration was applied. Readiness never turns false again for
    /// configuration reasons.
    pub fn config_applied(&self) {
        self.configured.store(true, Ordering::SeqCst);
    }

    /// Whether any configuration was applied since boot.
    pub fn ready(&self) -> bool {
        self.configured.load(Ordering::Relaxed)
    }

    /// A proxy request was accepted.
    pub fn request_started(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// The response body of a proxy request was completely written or dropped.
    pub fn request_ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Release);
    }

    /// Proxy requests whose response is not complete yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }
}

/// Answer of a probe. It is sent as `text/plain; charset=utf-8` with
/// `x-content-type-options: nosniff`.
#[derive(Debug, PartialEq, Eq)]
pub struct Probe {
    /// HTTP status.
    pub status: u16,
    /// Response body.
    pub body: String,
}

/// `/livez`: 200 while running, 500 once the process drains.
pub fn livez(lifecycle: &Lifecycle, verbose: bool) -> Probe {
    let body = if lifecycle.draining() {
        "[+]ping ok\n[-]shutdown failed: reason withheld\nlivez check failed"
    } else if verbose {
        "[+]ping ok\n[+]shutdown ok\nlivez check passed\n"
    } else {
        "ok"
    };
    let status = if lifecycle.draining() { 500 } else { 200 };
    Probe { status, body: body.into() }
}

/// `/readyz`: 200 once a configuration was applied and until the drain begins.
pub fn readyz(lifecycle: &Lifecycle, verbose: bool) -> Probe {
    let (draining, ready) = (lifecycle.draining(), lifecycle.ready());
    let passed = ready && !draining;
    if passed && !verbose {
        return Probe { status: 200, body: "ok".into() };
    }
    let shutdown = if draining { "[-]shutdown failed: draining" } else { "[+]shutdown ok" };
    let config = if ready { "[+]config ok" } else { "[-]config failed: not ready" };
    let (status, verdict) =
        if passed { (200, "readyz check passed\n") } else { (503, "readyz check failed") };
    Probe { status, body: format!("{shutdown}\n{config}\n{verdict}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_follow_the_lifecycle() {
        let state = Lifecycle::new();
        assert_eq!(livez(&state, false).body, "ok");
        assert_eq!(readyz(&state, false).status, 503);
        state.config_applied();
        assert_eq!(readyz(&state, false).body, "ok");
        assert_eq!(readyz(&state, true).body, "[+]shutdown ok\n[+]config ok\nreadyz check passed\n");
        state.begin_drain();
        assert_eq!(livez(&state, false).status, 500);
        assert!(livez(&state, true).body.ends_with("livez check failed"));
        assert_eq!(readyz(&state, false).status, 503);
    }
}
