//! A clock that stands still until a test changes it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ktables::table::{Clock, SystemClock};
use tokio::sync::watch;

/// A clock that stands still until a test changes it.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<watch::Sender<i64>>);

impl Default for ManualClock {
    /// Starts at the current time.
    fn default() -> Self {
        Self(Arc::new(watch::channel(SystemClock.now()).0))
    }
}

impl ManualClock {
    /// Advances the clock by a duration.
    pub fn advance(&self, time: Duration) {
        self.0.send_modify(|now| *now += millis(time));
    }

    /// Sets the clock back by a duration.
    pub fn rewind(&self, time: Duration) {
        self.0.send_modify(|now| *now -= millis(time));
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).expect("not that long")
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> i64 {
        *self.0.borrow()
    }

    async fn sleep_until(&self, time: i64) {
        let mut changes = self.0.subscribe();
        if self.now() < time {
            // OK to ignore: the sender lives in `self`.
            let _ = changes.changed().await;
        }
    }
}
