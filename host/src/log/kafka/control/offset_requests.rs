//! The requests for offsets that are under way: how many there may be, and what they share.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::log::LogError;
use crate::log::kafka::control::polled_client::PolledClient;
use crate::sync::lock;

/// How many requests of tables and writers may block a thread at the same time. The others wait.
const MAX_OF_CALLERS: usize = 32;

/// How many requests of the monitor may block a thread at the same time: if one leader does not answer, it sends
/// one for each topic.
const MAX_OF_MONITOR: usize = 64;

/// How often leaders are requested, at most, while a partition has none.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// How long a client for last stable offsets is kept although nobody needs one.
const KEEP_UNUSED: Duration = Duration::from_secs(30);

/// For how long the requests of a client for last stable offsets may fail before another one is started.
const REPLACE_AFTER: Duration = Duration::from_secs(10);

/// The requests for offsets that are under way.
#[derive(Debug)]
pub(super) struct OffsetRequests {
    pub(super) of_callers: Arc<Semaphore>,
    /// Apart, so that the monitor notices the end of an outage however many callers wait.
    pub(super) of_monitor: Arc<Semaphore>,
    pub(super) committed: Arc<Mutex<CommittedClient>>,
    /// When leaders were requested last. A std lock: held to compare or set it.
    pub(super) refreshed: Arc<Mutex<Option<Instant>>>,
}

/// The client that reads only committed records, which brokers answer with last stable offsets. It is started when
/// it is needed. A std lock: held while it starts, and only on threads that may block.
#[derive(Debug, Default)]
pub(super) struct CommittedClient {
    client: Option<Arc<PolledClient>>,
    /// Since when its requests fail.
    failing_since: Option<Instant>,
    /// When it was used last.
    used: Option<Instant>,
}

impl CommittedClient {
    /// Returns the client. Starts one if there is none.
    pub(super) fn get_or_start(
        &mut self,
        now: Instant,
        start: impl FnOnce() -> Result<Arc<PolledClient>, LogError>,
    ) -> Result<Arc<PolledClient>, LogError> {
        self.used = Some(now);
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        self.failing_since = None;
        Ok(self.client.insert(start()?).clone())
    }

    /// Notes whether a request of this client failed. Returns the client if another one must take its place.
    /// Whoever drops it should not hold the lock.
    pub(super) fn note(
        &mut self,
        client: &Arc<PolledClient>,
        failed: bool,
        now: Instant,
    ) -> Option<Arc<PolledClient>> {
        let is_current = self.client.as_ref().is_some_and(|current| Arc::ptr_eq(current, client));
        (is_current && fails_for_long(&mut self.failing_since, failed, now)).then(|| self.client.take())?
    }

    /// Returns the client if it was not used for long.
    pub(super) fn take_unused(&mut self, now: Instant) -> Option<Arc<PolledClient>> {
        let is_unused = self.used.is_none_or(|used| now.saturating_duration_since(used) >= KEEP_UNUSED);
        self.client.take_if(|_| is_unused)
    }
}

/// Whether requests have failed for [`REPLACE_AFTER`], with this one. If so, the time begins anew.
fn fails_for_long(since: &mut Option<Instant>, failed: bool, now: Instant) -> bool {
    *since = failed.then(|| since.unwrap_or(now));
    since.take_if(|since| now.saturating_duration_since(*since) >= REPLACE_AFTER).is_some()
}

impl Default for OffsetRequests {
    fn default() -> Self {
        Self {
            of_callers: Arc::new(Semaphore::new(MAX_OF_CALLERS)),
            of_monitor: Arc::new(Semaphore::new(MAX_OF_MONITOR)),
            committed: Arc::default(),
            refreshed: Arc::default(),
        }
    }
}

/// Returns whether the caller should request leaders: nobody did so lately. If so, notes the time.
pub(super) fn claim_refresh(refreshed: &Mutex<Option<Instant>>, now: Instant) -> bool {
    let mut refreshed = lock(refreshed);
    let is_due = refreshed.is_none_or(|last| now.saturating_duration_since(last) >= REFRESH_EVERY);
    if is_due {
        *refreshed = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_fail_for_long_replace_a_client() {
        let (mut since, start) = (None, Instant::now());
        let mut fails = |failed, after| fails_for_long(&mut since, failed, start + after);
        assert!(!fails(true, Duration::ZERO));
        assert!(!fails(true, REPLACE_AFTER / 2));
        // A success begins the time anew.
        assert!(!fails(false, REPLACE_AFTER / 2));
        assert!(!fails(true, REPLACE_AFTER));
        assert!(fails(true, 2 * REPLACE_AFTER));
        assert!(!fails(true, 2 * REPLACE_AFTER));
    }

    #[test]
    fn leaders_are_requested_only_now_and_then() {
        let (refreshed, start) = (Mutex::default(), Instant::now());
        assert!(claim_refresh(&refreshed, start));
        assert!(!claim_refresh(&refreshed, start + REFRESH_EVERY / 2));
        assert!(claim_refresh(&refreshed, start + REFRESH_EVERY));
    }
}
