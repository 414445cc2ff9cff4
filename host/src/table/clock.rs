//! The wall clock, which may be set, and which tests can replace.

use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

/// How long [`SystemClock`] sleeps at most, because somebody may set the clock meanwhile.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// A clock by which entries expire and checkpoints age.
#[async_trait]
pub trait Clock: Debug + Send + Sync {
    /// The time in milliseconds since 1970.
    fn now(&self) -> i64;

    /// Waits until the clock shows this time (milliseconds since 1970). May return earlier, so the caller
    /// compares the time and waits again. Must return soon after the clock was set, in either direction.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if this is dropped.
    async fn sleep_until(&self, time: i64);
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    async fn sleep_until(&self, time: i64) {
        let left = u64::try_from(time.saturating_sub(self.now())).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(left).min(MAX_SLEEP)).await;
    }
}
