//! A clock for the open loop. The timer of the runtime counts whole milliseconds, in which dozens of
//! requests fall due; this one is a kernel timer without that rounding.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

pub(crate) struct Pacer {
    timer: AsyncFd<OwnedFd>,
}

impl Pacer {
    pub(crate) fn every(period: Duration) -> Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let period = Timespec::try_from(period).context("the period is too long")?;
        timerfd_settime(
            &timer,
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: period, it_value: period },
        )?;
        #[expect(
            deprecated,
            reason = "its flaw needs a type that changes its descriptor; an OwnedFd does not, \
                                       and the replacement is an unsafe function"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer })
    }

    /// Waits until at least one period has passed since the last call.
    pub(crate) async fn tick(&self) -> Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?));
            if let Ok(read) = read {
                read?;
                return Ok(());
            }
        }
    }
}
