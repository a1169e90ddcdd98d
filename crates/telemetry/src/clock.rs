//! Time as something that can be handed in.

use std::time::{Instant, SystemTime};

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// Monotonic time, for durations.
    fn now(&self) -> Instant;
    /// Wall-clock time, for timestamps that people read.
    fn wall(&self) -> SystemTime;
}

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

#[cfg(test)]
pub(crate) mod manual {
    //! A clock that only moves when told to.

    use std::{
        sync::Mutex,
        time::{Duration, Instant, SystemTime},
    };

    use super::Clock;

    pub(crate) struct ManualClock {
        start: Instant,
        passed: Mutex<Duration>,
    }

    impl ManualClock {
        pub(crate) fn new() -> Self {
            Self { start: Instant::now(), passed: Mutex::default() }
        }

        pub(crate) fn advance(&self, by: Duration) {
            *self.passed.lock().unwrap() += by;
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> Instant {
            self.start + *self.passed.lock().unwrap()
        }

        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000) + *self.passed.lock().unwrap()
        }
    }
}
