//! Whether a log can be reached.

use std::fmt;
use std::time::SystemTime;

use tokio::sync::watch;

/// An outage: the log does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outage {
    /// The time of the last request that the log answered, or when reading began if that is later.
    pub since: SystemTime,
    /// The last error before the outage was reported.
    pub reason: String,
}

impl Outage {
    /// Creates an outage that began at `since`, with the last error as its reason.
    #[must_use]
    pub fn new(since: SystemTime, reason: String) -> Self {
        Self { since, reason }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = humantime::format_rfc3339_seconds(self.since);
        write!(f, "unreachable since {since}: {}", self.reason)
    }
}

/// The health of a log: healthy, or an outage.
#[derive(Debug, Clone)]
pub struct Health(watch::Receiver<Option<Outage>>);

impl Health {
    /// Creates the health of a log from a channel: the log sends its outage, or `None` when it is healthy.
    #[cfg(feature = "kafka")]
    pub(in crate::log) fn new(outages: watch::Receiver<Option<Outage>>) -> Self {
        Self(outages)
    }

    /// Creates the health of a log that can always be reached.
    #[must_use]
    pub fn always() -> Self {
        Self(watch::channel(None).1)
    }

    /// The current outage; `None` if the log is healthy.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.0.borrow().clone()
    }

    /// Waits until the health changes. Never returns if it cannot change.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no change is lost: the next call returns at once.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
