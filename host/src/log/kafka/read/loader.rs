//! Loads a topic with a client of its own, which is fast and may use much memory, until every partition has
//! reached the end offset that it had when loading began. Then the feeds move to the shared tail client, and
//! the loading client is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::log::LogError;
use crate::log::kafka::config::{Configs, Purpose};
use crate::log::kafka::ffi::client::MAX_RECORDS_PER_POLL;
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::read::feed::Feed;
use crate::log::kafka::read::reader::{Reader, StopReason, WhenFull};
use crate::log::kafka::read::tail::{Refresh, TailClients};

/// The memory budget for the queues of all loading clients of the process, in shares of [`SHARE_KIB`]: 320
/// MiB with [`SMALL_SHARES`]. A large topic acquires one share, and three quarters of the free ones at most,
/// so that others can load meanwhile. A hundred tables that start at once take turns.
const SHARES: u32 = 16;
const SHARE_KIB: u32 = 16 * 1024;

/// Shares that are reserved for small topics, which would otherwise wait for large ones.
const SMALL_SHARES: u32 = 4;

/// How many records justify another share: estimated at 1 KiB each.
const RECORDS_PER_SHARE: i64 = 16 * 1024;

static BUDGET: Semaphore = Semaphore::const_new(SHARES as usize);
static SMALL_BUDGET: Semaphore = Semaphore::const_new(SMALL_SHARES as usize);

/// How long to wait for records before the collected ones are sent.
const POLL_TIMEOUT: Duration = Duration::from_millis(10);

/// How many events are handled between two checks of the progress.
const MAX_EVENTS: usize = 16 * MAX_RECORDS_PER_POLL;

/// A load without progress for this long returns its share of the budget, and continues with the tail client.
/// Its broker is down, or its table accepts nothing.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Loads the topics of a cluster.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) struct Loader {
    pub(in crate::log::kafka) configs: Arc<Configs>,
    pub(in crate::log::kafka) log: Arc<str>,
    pub(in crate::log::kafka) health: Arc<ClusterHealth>,
    pub(in crate::log::kafka) tails: Arc<TailClients>,
}

impl Loader {
    /// Loads the partitions of these feeds on a thread of its own, once it has a share of the budget.
    pub(in crate::log::kafka) async fn load(self, feeds: Vec<Feed>) {
        let (permit, shares) = acquire(&BUDGET, &SMALL_BUDGET, useful_shares(&feeds)).await;
        let runtime = Handle::current();
        let log = self.log.to_string();
        let (sender, receiver) = std::sync::mpsc::channel();
        let run = move || {
            if let Ok(feeds) = receiver.recv() {
                self.run(shares, feeds, runtime);
            }
            drop(permit);
        };
        match crate::thread::spawn("ktables-load", run) {
            // OK to ignore: it fails only if the thread has ended.
            Ok(_) => drop(sender.send(feeds)),
            Err(error) => {
                let reason = format!("cannot start a thread to load a topic: {error}");
                fail(feeds, &LogError::Client { log, reason });
            }
        }
    }

    fn reader(&self, shares: u32, runtime: Handle) -> Result<Reader, LogError> {
        let client = Arc::new(self.configs.start(Purpose::Load { queue_kib: shares * SHARE_KIB })?);
        let when_full = WhenFull::Wait(STALL_TIMEOUT, runtime);
        Ok(Reader::new(client, when_full, self.log.clone(), self.health.clone()))
    }

    fn run(self, shares: u32, mut feeds: Vec<Feed>, runtime: Handle) {
        // Readers may have gone while this load waited for the budget.
        feeds.retain(|feed| !feed.is_closed());
        while !feeds.iter().all(is_loaded) {
            let mut reader = match self.reader(shares, runtime.clone()) {
                Ok(reader) => reader,
                Err(error) => return fail(feeds, &error),
            };
            reader.assign(feeds);
            let stop = read_until_loaded(&mut reader);
            feeds = reader.feeds.into_feeds();
            feeds.retain(|feed| !feed.is_closed());
            if matches!(stop, Err(StopReason::Stalled)) {
                break;
            }
        }
        if let Some(feed) = feeds.first() {
            feed.reading.is_followed.store(true, Ordering::Relaxed);
        }
        self.tails.adopt(feeds, Refresh::No);
    }
}

/// Ends the streams of all partitions with an error.
fn fail(feeds: Vec<Feed>, error: &LogError) {
    feeds.into_iter().for_each(|mut feed| feed.fail(error.clone()));
}

/// Reads until all partitions are loaded.
fn read_until_loaded(reader: &mut Reader) -> Result<(), StopReason> {
    let (mut progress, mut since) = (0, Instant::now());
    while !reader.feeds.iter().all(is_loaded) {
        // Poll once for events of other kinds, then take records in bulk.
        let in_bulk = reader.client.can_poll_records();
        let is_empty = reader.poll(POLL_TIMEOUT, if in_bulk { 1 } else { MAX_EVENTS })?;
        if in_bulk {
            reader.poll_records(MAX_EVENTS / MAX_RECORDS_PER_POLL)?;
        }
        if is_empty {
            reader.flush()?;
        }
        let current = reader.feeds.iter().map(Feed::position).sum();
        if current != progress {
            (progress, since) = (current, Instant::now());
        } else if since.elapsed() > STALL_TIMEOUT {
            return Err(StopReason::Stalled);
        }
    }
    reader.flush()
}

/// Whether the partition has reached the end offset that it had when loading began, or the last offset that
/// can be read now: an open transaction may hide the rest.
fn is_loaded(feed: &Feed) -> bool {
    feed.position() >= feed.target || feed.has_reached_end || feed.is_closed()
}

/// Waits for one share, and acquires more of the free ones if they are useful. Returns the number of acquired
/// shares, too.
async fn acquire<'a>(budget: &'a Semaphore, small: &'a Semaphore, useful: u32) -> (SemaphorePermit<'a>, u32) {
    // OK because the semaphores are never closed.
    let mut permit = if useful > 1 {
        budget.acquire().await.expect("never closed")
    } else {
        tokio::select! {
            biased;
            permit = budget.acquire() => permit.expect("never closed"),
            permit = small.acquire() => permit.expect("never closed"),
        }
    };
    if useful > 1 {
        let free = u32::try_from(budget.available_permits()).unwrap_or(SHARES);
        let more = (useful - 1).min(free / 4 * 3);
        // Others may have acquired them meanwhile.
        if let Ok(more) = budget.try_acquire_many(more) {
            permit.merge(more);
        }
    }
    let shares = u32::try_from(permit.num_permits()).unwrap_or(SHARES);
    (permit, shares)
}

/// Returns how many shares these feeds can use.
fn useful_shares(feeds: &[Feed]) -> u32 {
    let records: i64 = feeds.iter().map(|feed| (feed.target - feed.position()).max(0)).sum();
    u32::try_from(records / RECORDS_PER_SHARE).unwrap_or(SHARES).clamp(1, SHARES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn large_topics_leave_shares_for_others_and_small_topics_do_not_wait() {
        let (budget, small) = (Semaphore::new(16), Semaphore::new(4));
        let try_acquire = |useful| acquire(&budget, &small, useful).now_or_never();
        let mut large = Vec::new();
        while let Some((permit, shares)) = try_acquire(16) {
            large.push((permit, shares));
        }
        let shares: Vec<u32> = large.iter().map(|(_, shares)| *shares).collect();
        assert!(shares.len() >= 4 && shares[0] > 8 && shares.iter().sum::<u32>() == 16, "{shares:?}");
        let small: Vec<_> = std::iter::from_fn(|| try_acquire(1)).collect();
        assert_eq!(small.len(), 4);
        drop(large);
        assert!(try_acquire(16).is_some());
    }
}
