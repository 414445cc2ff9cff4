//! Loading a topic: a client of its own, fast and with much memory, until every
//! partition is where it ended when loading began; then its feeds go to the shared
//! tail, and the client with its memory is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::log::LogError;
use crate::log::kafka::config::{Configs, Purpose};
use crate::log::kafka::feed::Feed;
use crate::log::kafka::heard::Heard;
use crate::log::kafka::reader::{Dead, Reader, WhenFull, at};
use crate::log::kafka::tail::{Refresh, Tails};

/// What all loading clients of the process may hold in their queues together, in
/// shares of [`SHARE_KIB`]: 256 MiB. One large topic may use all of it; a hundred
/// tables that start at once take turns.
const SHARES: u32 = 16;
const SHARE_KIB: u32 = 16 * 1024;

/// For how many records a loader takes another share: as if they had 1 KiB each.
const RECORDS_A_SHARE: i64 = 16 * 1024;

static BUDGET: Semaphore = Semaphore::const_new(SHARES as usize);

/// How long to wait for records before asking how far the client is.
const PATIENCE: Duration = Duration::from_millis(10);

/// How many events are taken in a row.
const BURST: usize = 10_000;

/// What a loader needs of its cluster.
#[derive(Debug, Clone)]
pub(super) struct Loading {
    pub(super) configs: Arc<Configs>,
    pub(super) log: Arc<str>,
    pub(super) heard: Arc<Heard>,
    pub(super) tails: Arc<Tails>,
}

impl Loading {
    /// Waits for its share of the budget, then loads on a thread of its own.
    pub(super) async fn load(self, mut feeds: Vec<Feed>) {
        let shares = shares(&feeds);
        // OK because the budget is never closed.
        let permit = BUDGET.acquire_many(shares).await.expect("never closed");
        let thread = std::thread::Builder::new().name("ktables-load".to_owned());
        let log = self.log.clone();
        let started = match self.reader(shares) {
            Ok(reader) => {
                let (sender, receiver) = std::sync::mpsc::channel();
                let spawned = thread.spawn(move || {
                    if let Ok(feeds) = receiver.recv() {
                        self.run(reader, shares, feeds);
                    }
                    drop(permit);
                });
                match spawned {
                    // The thread waits for them.
                    Ok(_) => sender.send(std::mem::take(&mut feeds)).map_err(|_| LogError::Closed),
                    Err(error) => {
                        Err(LogError::Client { log: log.to_string(), reason: format!("no thread: {error}") })
                    }
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            feeds.iter_mut().for_each(|feed| feed.fail(error.clone()));
        }
    }

    fn reader(&self, shares: u32) -> Result<Reader, LogError> {
        let client = Arc::new(self.configs.start(Purpose::Load { queue: shares * SHARE_KIB })?);
        Ok(Reader::new(client, WhenFull::Wait, self.log.clone(), self.heard.clone()))
    }

    fn run(self, mut reader: Reader, shares: u32, feeds: Vec<Feed>) {
        reader.assign(feeds);
        while !reader.feeds.iter().all(is_loaded) {
            if self.step(&mut reader).is_err() {
                match self.reader(shares) {
                    Ok(new) => reader.replace(new.client),
                    Err(error) => {
                        reader.feeds.iter_mut().for_each(|feed| feed.fail(error.clone()));
                        return;
                    }
                }
            }
        }
        let Reader { feeds, client, .. } = reader;
        let mut feeds = feeds.into_feeds();
        feeds.retain(|feed| !feed.is_closed());
        self.tails.adopt(feeds, Refresh::No);
        drop(client);
    }

    fn step(&self, reader: &mut Reader) -> Result<(), Dead> {
        let empty = reader.poll(PATIENCE, BURST)?;
        if empty {
            let list = at(reader.feeds.iter().filter(|feed| !is_loaded(feed)));
            reader.sample(&list);
            for feed in reader.feeds.iter_mut() {
                feed.flush();
                feed.settle_blocking();
            }
        }
        Ok(())
    }
}

/// Whether the partition is where it ended when loading began, or goes no further
/// now: an open transaction may hide the rest.
fn is_loaded(feed: &Feed) -> bool {
    feed.position() >= feed.target || feed.seen_end || feed.is_closed()
}

fn shares(feeds: &[Feed]) -> u32 {
    let records: i64 = feeds.iter().map(|feed| (feed.target - feed.position()).max(0)).sum();
    u32::try_from(records / RECORDS_A_SHARE).unwrap_or(SHARES).clamp(1, SHARES)
}
