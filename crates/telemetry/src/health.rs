//! Health of models as seen on real traffic: consecutive failures and
//! cooldowns. It outlives reloads and is keyed by the model's resource id.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aisix_core::Reason;
use serde::Serialize;

use crate::clock::{Clock, SystemClock};

/// When a failed attempt takes a model out of selection, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CooldownPolicy {
    /// Off means: failures never cool the model.
    pub enabled: bool,
    /// How long without a usable `Retry-After`. Zero turns cooldown off.
    pub default: Duration,
    /// Longest time a `Retry-After` may ask for.
    pub max: Duration,
    /// Whether the upstream's `Retry-After` sets the time.
    pub honor_retry_after: bool,
    /// Upstream statuses that cool.
    pub trigger_statuses: Vec<u16>,
    /// Whether a timeout cools.
    pub on_timeout: bool,
    /// Whether transport, decode and in-stream faults cool.
    pub on_transport: bool,
}

impl Default for CooldownPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            default: Duration::from_secs(30),
            max: Duration::from_secs(600),
            honor_retry_after: true,
            trigger_statuses: vec![401, 408, 429, 500, 502, 503, 504],
            on_timeout: true,
            on_transport: true,
        }
    }
}

impl CooldownPolicy {
    /// The `status_reason` a failure gives, if it cools.
    fn reason(&self, failure: &AttemptFailure) -> Option<&'static str> {
        let when = |condition: bool, reason| condition.then_some(reason);
        match (failure.reason, failure.upstream_status) {
            (Reason::UpstreamStatus | Reason::UpstreamInBand, Some(status)) => {
                when(self.trigger_statuses.contains(&status), status_reason(status))
            }
            (Reason::UpstreamInBand, None) => when(self.on_transport, "upstream_in_band_error"),
            (Reason::UpstreamTimeout, _) => when(self.on_timeout, "request_timeout"),
            (Reason::UpstreamDecode, _) => when(self.on_transport, "upstream_decode_error"),
            (Reason::UpstreamTransport | Reason::StreamAborted, _) => {
                when(self.on_transport, "transport_error")
            }
            _ => None,
        }
    }

    /// How long a cooldown lasts; zero when there is none.
    fn duration(&self, retry_after: Option<u64>) -> Duration {
        if !self.enabled || self.default.is_zero() {
            return Duration::ZERO;
        }
        match retry_after {
            // "Try again at once" from an upstream that just failed is no hint.
            Some(seconds) if self.honor_retry_after && seconds > 0 => {
                Duration::from_secs(seconds).min(self.max)
            }
            _ => self.default,
        }
    }
}

fn status_reason(status: u16) -> &'static str {
    match status {
        401 => "upstream_auth_failure",
        408 => "upstream_request_timeout",
        429 => "upstream_rate_limited",
        500..=599 => "upstream_server_error",
        _ => "upstream_status_failure",
    }
}

/// What health needs to know about a failed attempt.
#[derive(Clone, Copy, Debug)]
pub struct AttemptFailure {
    /// Why the attempt failed.
    pub reason: Reason,
    /// The upstream's own error status, also one embedded in a stream.
    pub upstream_status: Option<u16>,
    /// The upstream's `Retry-After` in seconds.
    pub retry_after: Option<u64>,
    /// Whether the failure is retryable; only those count towards the level.
    pub retryable: bool,
}

/// The health of all models.
pub struct HealthTable {
    models: Mutex<HashMap<Arc<str>, Arc<ModelHealth>>>,
    clock: Arc<dyn Clock>,
}

impl Default for HealthTable {
    fn default() -> Self {
        Self::new()
    }
}

impl HealthTable {
    /// An empty table on the system clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty table on a given clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { models: Mutex::default(), clock }
    }

    /// The health of the model with this resource id, healthy at first.
    pub fn model(&self, id: &str) -> Arc<ModelHealth> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(health) = models.get(id) {
            return health.clone();
        }
        let health = Arc::new(ModelHealth {
            troubled: AtomicBool::new(false),
            state: Mutex::default(),
            clock: self.clock.clone(),
        });
        models.insert(id.into(), health.clone());
        health
    }

    /// Forgets the models that are not among these ids.
    pub fn retain(&self, ids: &HashSet<&str>) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.retain(|id, _| ids.contains(&**id));
    }
}

/// The health of one model, shared by all workers.
pub struct ModelHealth {
    /// Whether a success has anything to clear: keeps the common case, a
    /// success of a healthy model, free of the lock and of shared writes.
    troubled: AtomicBool,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    consecutive_failures: u32,
    cooldown: Option<Cooldown>,
    reason: Option<&'static str>,
    ever_cooled: bool,
}

#[derive(Clone, Copy)]
struct Cooldown {
    until: Instant,
    wall: SystemTime,
}

impl ModelHealth {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upstream answered successfully (a stream: it was committed).
    pub fn success(&self) {
        if !self.troubled.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        state.consecutive_failures = 0;
        state.cooldown = None;
        state.reason = None;
        self.troubled.store(false, Ordering::Relaxed);
    }

    /// An attempt failed. True when this took the model into cooldown.
    pub fn failure(&self, failure: &AttemptFailure, policy: &CooldownPolicy) -> bool {
        let mut state = self.state();
        if failure.retryable {
            state.consecutive_failures = state.consecutive_failures.saturating_add(1);
            self.troubled.store(true, Ordering::Relaxed);
        }
        let lasts = policy.duration(failure.retry_after);
        let Some(reason) = policy.reason(failure).filter(|_| !lasts.is_zero()) else {
            return false;
        };
        let now = self.clock.now();
        let was_cooling = state.cooling(now);
        state.cooldown = Some(Cooldown { until: now + lasts, wall: self.clock.wall() + lasts });
        state.reason = Some(reason);
        state.ever_cooled = true;
        self.troubled.store(true, Ordering::Relaxed);
        !was_cooling
    }

    /// 0 healthy, 1 after 4 to 7 consecutive failures, 2 after 8 or more.
    pub fn level(&self) -> u8 {
        match self.state().consecutive_failures {
            0..=3 => 0,
            4..=7 => 1,
            _ => 2,
        }
    }

    /// Whether the model is in cooldown now.
    pub fn cooling(&self) -> bool {
        self.troubled.load(Ordering::Relaxed) && self.state().cooling(self.clock.now())
    }

    /// What `/status/models` says about the model.
    pub fn view(&self) -> HealthView {
        let state = self.state();
        let cooldown = state.cooldown.filter(|c| self.clock.now() < c.until);
        HealthView {
            status: if cooldown.is_some() { "cooldown" } else { "healthy" },
            cooldown_until: cooldown.map(|c| c.wall.into()),
            status_reason: state.reason,
        }
    }

    /// The value of the deployment state gauge, once there is one: the series
    /// begins with the first cooldown.
    pub(crate) fn deployment_state(&self) -> Option<u64> {
        let state = self.state();
        let cooling = state.cooling(self.clock.now());
        state.ever_cooled.then_some(if cooling { 2 } else { 0 })
    }
}

impl State {
    fn cooling(&self, now: Instant) -> bool {
        self.cooldown.is_some_and(|c| now < c.until)
    }
}

/// The runtime part of an entry of `/status/models`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HealthView {
    /// `healthy` or `cooldown`.
    pub status: &'static str,
    /// When the cooldown ends, only while it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_until: Option<EpochTime>,
    /// Why the model was last taken out; outlives the cooldown until the next success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<&'static str>,
}

/// A point in time as `/status/models` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EpochTime {
    /// Whole seconds since 1970.
    pub secs_since_epoch: u64,
    /// The rest of the second.
    pub nanos_since_epoch: u32,
}

impl From<SystemTime> for EpochTime {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { secs_since_epoch: since.as_secs(), nanos_since_epoch: since.subsec_nanos() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::manual::ManualClock;

    fn status(status: u16) -> AttemptFailure {
        AttemptFailure {
            reason: Reason::UpstreamStatus,
            upstream_status: Some(status),
            retry_after: None,
            retryable: status >= 500,
        }
    }

    fn fault(reason: Reason) -> AttemptFailure {
        AttemptFailure { reason, upstream_status: None, retry_after: None, retryable: true }
    }

    fn setup() -> (Arc<ManualClock>, HealthTable, Arc<ModelHealth>) {
        let clock = Arc::new(ManualClock::new());
        let table = HealthTable::with_clock(clock.clone());
        let model = table.model("m-1");
        (clock, table, model)
    }

    #[test]
    fn level_follows_consecutive_failures() {
        let (_, _, model) = setup();
        let policy = CooldownPolicy::default();
        let mut levels = vec![model.level()];
        for _ in 0..9 {
            model.failure(&status(503), &policy);
            levels.push(model.level());
        }
        assert_eq!(levels, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
        model.success();
        assert_eq!(model.level(), 0);
    }

    #[test]
    fn failures_that_are_final_cool_but_do_not_count() {
        let (_, _, model) = setup();
        for _ in 0..9 {
            model.failure(&status(401), &CooldownPolicy::default());
        }
        assert_eq!(model.level(), 0);
        assert!(model.cooling());
        assert_eq!(model.view().status_reason, Some("upstream_auth_failure"));
    }

    #[test]
    fn cooldown_lapses_and_its_reason_stays_until_a_success() {
        let (clock, _, model) = setup();
        assert_eq!(model.deployment_state(), None);
        let policy = CooldownPolicy::default();
        assert!(model.failure(&status(500), &policy));
        assert_eq!(model.deployment_state(), Some(2));
        clock.advance(Duration::from_secs(20));
        // Already cooling: the time starts anew, but it is no second entry.
        assert!(!model.failure(&status(500), &policy));
        clock.advance(Duration::from_secs(29));
        assert!(model.cooling());
        assert_eq!(
            serde_json::to_string(&model.view()).unwrap(),
            r#"{"status":"cooldown","cooldown_until":{"secs_since_epoch":1050,"nanos_since_epoch":0},"status_reason":"upstream_server_error"}"#
        );
        clock.advance(Duration::from_secs(1));
        assert!(!model.cooling());
        assert_eq!(model.deployment_state(), Some(0));
        assert_eq!(
            serde_json::to_string(&model.view()).unwrap(),
            r#"{"status":"healthy","status_reason":"upstream_server_error"}"#
        );
        model.success();
        assert_eq!(serde_json::to_string(&model.view()).unwrap(), r#"{"status":"healthy"}"#);
        assert!(model.failure(&status(500), &policy));
        model.success();
        assert!(!model.cooling());
    }

    #[test]
    fn reasons_follow_the_table() {
        for (failure, reason) in [
            (status(401), Some("upstream_auth_failure")),
            (status(408), Some("upstream_request_timeout")),
            (status(429), Some("upstream_rate_limited")),
            (status(502), Some("upstream_server_error")),
            (status(400), None),
            (status(404), None),
            (fault(Reason::UpstreamTimeout), Some("request_timeout")),
            (fault(Reason::UpstreamTransport), Some("transport_error")),
            (fault(Reason::StreamAborted), Some("transport_error")),
            (fault(Reason::UpstreamDecode), Some("upstream_decode_error")),
            (fault(Reason::UpstreamInBand), Some("upstream_in_band_error")),
            (fault(Reason::UpstreamConfig), None),
            (fault(Reason::UpstreamCredential), None),
            (fault(Reason::Internal), None),
        ] {
            let (_, _, model) = setup();
            let entered = model.failure(&failure, &CooldownPolicy::default());
            assert_eq!(entered, reason.is_some(), "{failure:?}");
            assert_eq!(model.view().status_reason, reason, "{failure:?}");
        }
        let policy = CooldownPolicy {
            trigger_statuses: vec![418],
            on_timeout: false,
            on_transport: false,
            ..CooldownPolicy::default()
        };
        let (_, _, model) = setup();
        assert!(!model.failure(&status(500), &policy));
        assert!(!model.failure(&fault(Reason::UpstreamTimeout), &policy));
        assert!(!model.failure(&fault(Reason::UpstreamTransport), &policy));
        assert!(model.failure(&status(418), &policy));
        assert_eq!(model.view().status_reason, Some("upstream_status_failure"));
    }

    #[test]
    fn retry_after_sets_the_time_within_bounds() {
        let policy = CooldownPolicy::default();
        let seconds = |policy: &CooldownPolicy, hint| policy.duration(hint).as_secs();
        assert_eq!(seconds(&policy, None), 30);
        assert_eq!(seconds(&policy, Some(7)), 7);
        assert_eq!(seconds(&policy, Some(0)), 30);
        assert_eq!(seconds(&policy, Some(u64::MAX)), 600);
        let deaf = CooldownPolicy { honor_retry_after: false, ..policy.clone() };
        assert_eq!(seconds(&deaf, Some(7)), 30);
        let zero = CooldownPolicy { default: Duration::ZERO, ..policy.clone() };
        assert_eq!(seconds(&zero, Some(7)), 0);
        let off = CooldownPolicy { enabled: false, ..policy };
        let (_, _, model) = setup();
        assert!(!model.failure(&status(500), &off));
        assert!(!model.cooling());
        assert_eq!(model.deployment_state(), None);
    }

    #[test]
    fn the_table_keeps_what_is_still_configured() {
        let (_, table, model) = setup();
        model.failure(&status(500), &CooldownPolicy::default());
        table.model("gone").failure(&status(500), &CooldownPolicy::default());
        table.retain(&HashSet::from(["m-1"]));
        assert!(table.model("m-1").cooling());
        assert!(!table.model("gone").cooling());
    }
}
