//! Loading a topic: a client of its own, fast and with much memory, until every
//! partition is where it ended when loading began; then its feeds go to the shared
//! tail, and the client with its memory is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::log::LogError;
use crate::log::kafka::config::{Configs, Purpose};
use crate::log::kafka::ffi::client::RECORDS_AT_ONCE;
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::read::feed::Feed;
use crate::log::kafka::read::reader::{Reader, Stop, WhenFull};
use crate::log::kafka::read::tail::{Refresh, Tails};

/// What all loading clients of the process may hold in their queues together, in
/// shares of [`SHARE_KIB`]: 320 MiB. A large topic takes no more than three quarters of what is
/// there, so that others load meanwhile; a hundred tables that start at once take turns.
const SHARES: u32 = 16;
const SHARE_KIB: u32 = 16 * 1024;

/// The shares that only small topics take, which would wait for large ones.
const SMALL_SHARES: u32 = 4;

/// For how many records a loader takes another share: as if they had 1 KiB each.
const RECORDS_A_SHARE: i64 = 16 * 1024;

static BUDGET: Semaphore = Semaphore::const_new(SHARES as usize);
static SMALL_BUDGET: Semaphore = Semaphore::const_new(SMALL_SHARES as usize);

/// How long to wait for records before what was gathered is handed on.
const PATIENCE: Duration = Duration::from_millis(10);

/// How many records are taken before looking at how far it is.
const BURST: usize = 16 * RECORDS_AT_ONCE;

/// A load that gets nowhere for so long leaves its share of the budget to others, and
/// goes on behind the tail client: its broker is down, or its table takes nothing.
const STALLED: Duration = Duration::from_secs(10);

/// What a loader needs of its cluster.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) struct Loading {
    pub(in crate::log::kafka) configs: Arc<Configs>,
    pub(in crate::log::kafka) log: Arc<str>,
    pub(in crate::log::kafka) health: Arc<ClusterHealth>,
    pub(in crate::log::kafka) tails: Arc<Tails>,
}

impl Loading {
    /// Waits for its share of the budget, then loads on a thread of its own.
    pub(in crate::log::kafka) async fn load(self, feeds: Vec<Feed>) {
        let (permit, shares) = acquire(&BUDGET, &SMALL_BUDGET, wanted(&feeds)).await;
        let runtime = Handle::current();
        let (sender, receiver) = std::sync::mpsc::channel();
        let run = move || {
            if let Ok(feeds) = receiver.recv() {
                self.run(shares, feeds, runtime);
            }
            drop(permit);
        };
        match crate::thread::spawn("ktables-load", run) {
            // Fails if the thread is gone, and with it the feeds.
            Ok(_) => drop(sender.send(feeds)),
            Err(error) => tracing::error!("no thread to load a topic: {error}"),
        }
    }

    fn reader(&self, shares: u32, runtime: Handle) -> Result<Reader, LogError> {
        let client = Arc::new(self.configs.start(Purpose::Load { queue: shares * SHARE_KIB })?);
        let when_full = WhenFull::Wait(STALLED, runtime);
        Ok(Reader::new(client, when_full, self.log.clone(), self.health.clone()))
    }

    fn run(self, shares: u32, mut feeds: Vec<Feed>, runtime: Handle) {
        // Whoever wanted them may have gone while the budget was spent.
        feeds.retain(|feed| !feed.is_closed());
        while !feeds.iter().all(is_loaded) {
            let mut reader = match self.reader(shares, runtime.clone()) {
                Ok(reader) => reader,
                Err(error) => return feeds.iter_mut().for_each(|feed| feed.fail(error.clone())),
            };
            reader.assign(feeds);
            let stop = read(&mut reader);
            feeds = reader.feeds.into_feeds();
            feeds.retain(|feed| !feed.is_closed());
            if matches!(stop, Err(Stop::Stalled)) {
                break;
            }
        }
        self.tails.adopt(feeds, Refresh::No);
    }
}

/// Reads until everything is loaded.
fn read(reader: &mut Reader) -> Result<(), Stop> {
    let (mut records, mut since) = (0, Instant::now());
    while !reader.feeds.iter().all(is_loaded) {
        // The first event tells all kinds of news, and what comes in bulk is records.
        let in_bulk = reader.client.polls_records();
        let empty = reader.poll(PATIENCE, if in_bulk { 1 } else { BURST })?;
        if in_bulk {
            reader.poll_records(BURST / RECORDS_AT_ONCE)?;
        }
        if empty {
            reader.hand_on()?;
        }
        let now = reader.feeds.iter().map(Feed::position).sum();
        if now != records {
            (records, since) = (now, Instant::now());
        } else if since.elapsed() > STALLED {
            return Err(Stop::Stalled);
        }
    }
    reader.hand_on()
}

/// Whether the partition is where it ended when loading began, or goes no further
/// now: an open transaction may hide the rest.
fn is_loaded(feed: &Feed) -> bool {
    feed.position() >= feed.target || feed.seen_end || feed.is_closed()
}

/// Waits for one share, and takes some of what is there besides; tells how many it has.
async fn acquire<'a>(budget: &'a Semaphore, small: &'a Semaphore, wanted: u32) -> (SemaphorePermit<'a>, u32) {
    // OK because they are never closed.
    let mut permit = if wanted > 1 {
        budget.acquire().await.expect("never closed")
    } else {
        tokio::select! {
            biased;
            permit = budget.acquire() => permit.expect("never closed"),
            permit = small.acquire() => permit.expect("never closed"),
        }
    };
    if wanted > 1 {
        let free = u32::try_from(budget.available_permits()).unwrap_or(SHARES);
        let more = (wanted - 1).min(free / 4 * 3);
        // Others may have been quicker.
        if let Ok(more) = budget.try_acquire_many(more) {
            permit.merge(more);
        }
    }
    let shares = u32::try_from(permit.num_permits()).unwrap_or(SHARES);
    (permit, shares)
}

/// How many shares these feeds can use.
fn wanted(feeds: &[Feed]) -> u32 {
    let records: i64 = feeds.iter().map(|feed| (feed.target - feed.position()).max(0)).sum();
    u32::try_from(records / RECORDS_A_SHARE).unwrap_or(SHARES).clamp(1, SHARES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn large_topics_leave_room_and_small_ones_do_not_wait() {
        let (budget, small) = (Semaphore::new(16), Semaphore::new(4));
        let take = |wanted| acquire(&budget, &small, wanted).now_or_never();
        let mut large = Vec::new();
        while let Some((permit, shares)) = take(16) {
            large.push((permit, shares));
        }
        let shares: Vec<u32> = large.iter().map(|(_, shares)| *shares).collect();
        assert!(shares.len() >= 4 && shares[0] > 8 && shares.iter().sum::<u32>() == 16, "{shares:?}");
        let small: Vec<_> = std::iter::from_fn(|| take(1)).collect();
        assert_eq!(small.len(), 4);
        drop(large);
        assert!(take(16).is_some());
    }
}
