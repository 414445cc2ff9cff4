//! Waiting for what others wrote.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::log::{Ack, LogError, Offset, Partition};
use crate::table::shared::Shared;

/// How long to wait before asking a log again that could not tell.
const AGAIN: Duration = Duration::from_millis(100);

/// Whether what was waited for is visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// It is.
    Fresh,
    /// It may not be, for this reason.
    Stale(String),
}

impl Freshness {
    /// Whether it is [`Freshness::Fresh`].
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh)
    }
}

/// The end offsets a barrier waits for. At most one request for them is under way;
/// who comes meanwhile shares the next one.
#[derive(Debug, Default)]
pub(super) struct EndOffsets {
    /// How many requests have begun.
    begun: AtomicU64,
    /// The last answer, and which request's it is. Held through a request.
    last: tokio::sync::Mutex<(u64, Option<Answer>)>,
}

type Answer = Result<Arc<[(Partition, Offset)]>, LogError>;

impl EndOffsets {
    /// The end offsets of a topic at some moment after the call.
    async fn ask(&self, shared: &Shared) -> Answer {
        let before = self.begun.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        if let (number, Some(answer)) = &*last
            && *number > before
        {
            return answer.clone();
        }
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let topic = shared.view().topic.clone();
        let answer = shared.log.end_offsets(&topic).await.map(Arc::from);
        *last = (number, Some(answer.clone()));
        answer
    }
}

pub(super) async fn barrier(shared: &Shared, timeout: Duration) -> Freshness {
    // What the log said last, if it could not tell.
    let why = Mutex::new(None);
    let wait = async {
        let mut applied = shared.subscribe_applied();
        loop {
            let status = shared.status();
            if status.is_over() {
                return Freshness::Stale(format!("the table is {status}"));
            }
            let before = shared.view_to_keep();
            let is_cut = |ends: &[(Partition, Offset)]| {
                ends.iter().any(|&(partition, end)| end < before.position(partition))
            };
            match shared.end_offsets.ask(shared).await {
                // A log that ends before what was read of it is not the one that was read: the
                // table has not heard of it yet.
                Ok(ends) if is_cut(&ends) => tokio::time::sleep(AGAIN).await,
                Ok(ends) => return reach(shared, &ends).await,
                // What was acknowledged is in a topic that is being loaded.
                Err(LogError::Replaced { .. }) => {
                    if applied.changed().await.is_err() {
                        return Freshness::Stale("the table is gone".to_owned());
                    }
                }
                // It may pass in the time there is: a broker may not know a topic or a partition
                // yet that was just made.
                Err(error) if error.is_transient() || matches!(error, LogError::UnknownTopic { .. }) => {
                    *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Freshness::Stale(error.to_string()),
            }
        }
    };
    let waited = within(timeout, wait).await;
    match (waited, why.into_inner().unwrap_or_else(PoisonError::into_inner)) {
        (Freshness::Stale(late), Some(why)) => Freshness::Stale(format!("{late}: {why}")),
        (waited, _) => waited,
    }
}

pub(super) async fn wait_for(shared: &Shared, acks: &[Ack], timeout: Duration) -> Freshness {
    if acks.iter().any(|ack| ack.offset < 0) {
        return barrier(shared, timeout).await;
    }
    let targets: Vec<_> = acks.iter().map(|ack| (ack.partition, ack.offset + 1)).collect();
    within(timeout, reach(shared, &targets)).await
}

/// Waits until each position is there.
async fn reach(shared: &Shared, targets: &[(Partition, Offset)]) -> Freshness {
    let mut applied = shared.subscribe_applied();
    loop {
        let view = shared.view_to_keep();
        // Positions in a topic that was replaced say nothing of the one there is.
        let reached = targets.iter().all(|&(partition, target)| view.position(partition) >= target);
        if reached && !shared.is_outdated() {
            return Freshness::Fresh;
        }
        let status = shared.status();
        if status.is_over() {
            return Freshness::Stale(format!("the table is {status}"));
        }
        if applied.changed().await.is_err() {
            return Freshness::Stale("the table is gone".to_owned());
        }
    }
}

async fn within(timeout: Duration, wait: impl Future<Output = Freshness>) -> Freshness {
    let late = |_| Freshness::Stale(format!("not reached within {timeout:?}"));
    tokio::time::timeout(timeout, wait).await.unwrap_or_else(late)
}
