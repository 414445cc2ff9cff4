//! Whether a log can be reached.

use std::fmt;
use std::time::SystemTime;

use tokio::sync::watch;

/// That nothing is heard of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// When something was heard of it last.
    pub since: SystemTime,
    /// What it looks like from here.
    pub reason: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = humantime::format_rfc3339_seconds(self.since);
        write!(f, "unreachable since {since}: {}", self.reason)
    }
}

/// What is known of a log's health: its trouble, or none.
#[derive(Debug, Clone)]
pub struct Health(watch::Receiver<Option<Trouble>>);

impl Health {
    /// The health that is told on the other end of the channel.
    #[must_use]
    pub fn new(news: watch::Receiver<Option<Trouble>>) -> Self {
        Self(news)
    }

    /// The health of a log that cannot be out of reach.
    #[must_use]
    pub fn always() -> Self {
        Self(watch::channel(None).1)
    }

    /// The trouble there is now.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.0.borrow().clone()
    }

    /// Waits for news. Never returns if there can be none.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if this is dropped.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
