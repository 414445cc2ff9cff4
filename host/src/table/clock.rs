//! The wall clock, which may be set, and which tests can replace.

use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

/// How long to wait at most before reading the clock again, because somebody may have set it.
const READ_EVERY: Duration = Duration::from_secs(1);

/// A clock by which entries expire and checkpoints age.
#[async_trait]
pub trait Clock: Debug + Send + Sync {
    /// The time in milliseconds since 1970.
    fn now(&self) -> i64;

    /// Waits until this time (milliseconds since 1970). May return earlier, and does so soon after
    /// the clock was set.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if this is dropped.
    async fn until(&self, time: i64);
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

    async fn until(&self, time: i64) {
        let left = u64::try_from(time.saturating_sub(self.now())).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(left).min(READ_EVERY)).await;
    }
}
