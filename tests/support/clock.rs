//! A clock that stands still until a test sets it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ktables::table::{Clock, SystemClock};
use tokio::sync::watch;

/// A clock that a test holds.
#[derive(Debug, Clone)]
pub struct HeldClock(Arc<watch::Sender<i64>>);

impl Default for HeldClock {
    /// At what time it is.
    fn default() -> Self {
        Self(Arc::new(watch::channel(SystemClock.now()).0))
    }
}

impl HeldClock {
    /// Goes on by so much.
    pub fn advance(&self, time: Duration) {
        self.0.send_modify(|now| *now += millis(time));
    }

    /// Goes back by so much.
    pub fn set_back(&self, time: Duration) {
        self.0.send_modify(|now| *now -= millis(time));
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).expect("not that long")
}

#[async_trait]
impl Clock for HeldClock {
    fn now(&self) -> i64 {
        *self.0.borrow()
    }

    async fn until(&self, time: i64) {
        let mut news = self.0.subscribe();
        if self.now() < time {
            // The sender lives in `self`.
            let _ = news.changed().await;
        }
    }
}
