//! Waits until acknowledged writes are visible.

use std::fmt;
use std::future::Future;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::log::{Ack, LogError, Offset, Partition};
use crate::sync::lock;
use crate::table::shared::Shared;
use crate::table::status::Status;
use crate::table::watch::{Source, WatchToken};

/// How long to wait before asking the log again after a transient error.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The result of waiting for writes.
#[derive(Debug, Clone)]
#[must_use = "the writes may not be visible"]
#[non_exhaustive]
pub enum Freshness {
    /// The writes are visible.
    Fresh,
    /// The writes may not be visible yet, for this reason.
    Stale(StaleReason),
}

/// Why the writes that a caller waited for may not be visible.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StaleReason {
    /// The timeout has passed.
    Timeout {
        /// The timeout.
        timeout: Duration,
        /// The last error of a request for the topic's end offsets, if all of them failed.
        last_error: Option<LogError>,
    },
    /// The table has failed or was stopped.
    Ended(Status),
    /// The end offsets of the topic cannot be read, and trying again will not help.
    Log(LogError),
}

impl std::error::Error for StaleReason {}

impl Freshness {
    /// Whether this is [`Freshness::Fresh`].
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh)
    }
}

/// `fresh`, or the reason why not.
impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("fresh"),
            Self::Stale(reason) => reason.fmt(f),
        }
    }
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { timeout, last_error: None } => {
                write!(f, "the table did not reach the writes within {timeout:?}")
            }
            Self::Timeout { timeout, last_error: Some(error) } => {
                write!(f, "the table did not reach the writes within {timeout:?}: {error}")
            }
            Self::Ended(status) => write!(f, "the table is {status}"),
            Self::Log(error) => error.fmt(f),
        }
    }
}

/// Waits until everything acknowledged before the call is visible.
pub(super) async fn barrier(shared: &Shared, timeout: Duration) -> Freshness {
    let last_error = Mutex::new(None);
    let wait = async {
        let mut published = shared.subscribe_published();
        loop {
            let status = shared.status();
            if status.is_final() {
                return Freshness::Stale(StaleReason::Ended(status));
            }
            let view = shared.view_to_keep();
            let is_truncated = |ends: &[(Partition, Offset)]| {
                ends.iter().any(|&(partition, end)| end < view.position(partition))
            };
            match shared.end_offsets.get(&*shared.log, &view.topic).await {
                // The log ends before what was read of it, so it is not the log that was read. The
                // table has not noticed yet.
                Ok(ends) if is_truncated(&ends) => tokio::time::sleep(RETRY_AFTER).await,
                Ok(ends) => return wait_for_positions(shared, &ends).await,
                // What was acknowledged is in a topic that is being loaded.
                Err(LogError::Replaced { .. }) => {
                    // OK to ignore: the sender lives in `shared`.
                    let _ = published.changed().await;
                }
                // A broker may not know a topic or a partition yet that was just created.
                Err(error) if error.is_transient() || matches!(error, LogError::UnknownTopic { .. }) => {
                    *lock(&last_error) = Some(error);
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(error) => return Freshness::Stale(StaleReason::Log(error)),
            }
        }
    };
    let began = Instant::now();
    match within(timeout, wait).await {
        Freshness::Fresh => {
            shared.barrier_latency.add(began.elapsed());
            Freshness::Fresh
        }
        Freshness::Stale(StaleReason::Timeout { timeout, .. }) => {
            let last_error = lock(&last_error).take();
            Freshness::Stale(StaleReason::Timeout { timeout, last_error })
        }
        freshness => freshness,
    }
}

/// Waits until acknowledged records are visible.
pub(super) async fn wait_for(shared: &Shared, acks: &[Ack], timeout: Duration) -> Freshness {
    let target = |ack: &Ack| Some((ack.partition, ack.offset? + 1));
    let Some(targets) = acks.iter().map(target).collect::<Option<Vec<_>>>() else {
        return barrier(shared, timeout).await;
    };
    within(timeout, wait_for_positions(shared, &targets)).await
}

/// Waits until the table has everything that a watcher had seen. Returns false if it has not in time.
pub(super) async fn wait_for_token(shared: &Shared, token: &WatchToken, timeout: Duration) -> bool {
    let wait = async {
        let mut published = shared.subscribe_published();
        loop {
            let view = shared.view_to_keep();
            // A watcher of another topic or of other codecs starts again, whatever it has seen.
            let is_other = || Source::new(&view, &shared.settings.describe_contents()) != token.source;
            if shared.is_serving() && (view.positions().has_reached(&token.place.positions) || is_other()) {
                return true;
            }
            if shared.status().is_final() {
                return false;
            }
            // OK to ignore: the sender lives in `shared`.
            let _ = published.changed().await;
        }
    };
    tokio::time::timeout(timeout, wait).await.unwrap_or(false)
}

async fn wait_for_positions(shared: &Shared, targets: &[(Partition, Offset)]) -> Freshness {
    let mut published = shared.subscribe_published();
    loop {
        let view = shared.view_to_keep();
        let is_reached = targets.iter().all(|&(partition, target)| view.position(partition) >= target);
        // The positions of a topic that was re-created say nothing about its successor.
        if is_reached && !shared.is_outdated() {
            return Freshness::Fresh;
        }
        let status = shared.status();
        if status.is_final() {
            return Freshness::Stale(StaleReason::Ended(status));
        }
        // OK to ignore: the sender lives in `shared`.
        let _ = published.changed().await;
    }
}

async fn within(timeout: Duration, wait: impl Future<Output = Freshness>) -> Freshness {
    let late = |_| Freshness::Stale(StaleReason::Timeout { timeout, last_error: None });
    tokio::time::timeout(timeout, wait).await.unwrap_or_else(late)
}
