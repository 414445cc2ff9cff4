//! A consuming client and the feeds it fills: what loading and following share.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use tokio::runtime::Handle;

use crate::log::LogError;
use crate::log::kafka::error::{ErrorClass, classify};
use crate::log::kafka::ffi::client::{Client, places_in_epochs};
use crate::log::kafka::ffi::event::{Event, Failure, Fetched};
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::read::feed::{Feed, Feeds};

/// Why a reader does not go on.
#[derive(Debug)]
pub(in crate::log::kafka) enum Stop {
    /// The client is of no use any more.
    Dead,
    /// A table takes nothing any more.
    Stalled,
}

#[derive(Debug)]
pub(in crate::log::kafka) struct Reader {
    pub(in crate::log::kafka) client: Arc<Client>,
    pub(in crate::log::kafka) feeds: Feeds,
    when_full: WhenFull,
    log: Arc<str>,
    health: Arc<ClusterHealth>,
}

/// What to do when a table does not keep up.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) enum WhenFull {
    /// Wait for so long, on this runtime: all feeds are one table's.
    Wait(Duration, Handle),
    /// Keep what was taken and go on with the others.
    GoOn,
}

impl Reader {
    pub(in crate::log::kafka) fn new(
        client: Arc<Client>,
        when_full: WhenFull,
        log: Arc<str>,
        health: Arc<ClusterHealth>,
    ) -> Self {
        Self { client, feeds: Feeds::default(), when_full, log, health }
    }

    /// Begins to read more partitions, each where its feed is.
    pub(in crate::log::kafka) fn assign(&mut self, mut feeds: Vec<Feed>) {
        if let Err(code) = self.client.assign(&at(&feeds)) {
            for feed in &mut feeds {
                let reason = format!("cannot read topic `{}`: {code}", feed.reading.topic);
                feed.fail(LogError::Client { log: self.log.to_string(), reason });
            }
        }
        // A partition rests until it is resumed, whoever reads it.
        self.client.resume(&at(&feeds));
        self.feeds.extend(feeds);
    }

    /// Goes on with another client, where the old one stopped.
    pub(in crate::log::kafka) fn replace(&mut self, client: Arc<Client>) {
        self.client = client;
        let mut feeds = std::mem::take(&mut self.feeds).into_feeds();
        feeds.iter_mut().for_each(|feed| feed.paused = false);
        self.assign(feeds);
    }

    /// Stops reading what nobody wants any more.
    pub(in crate::log::kafka) fn drop_closed(&mut self) {
        if self.feeds.iter().any(Feed::is_closed) {
            let closed = self.feeds.take_closed();
            for feed in &closed {
                // Fails for what could not be assigned.
                let _ = self.client.unassign(&at([feed]));
            }
        }
    }

    /// Takes events until there are none, at most `burst`; waits for the first.
    /// True if the queue was found empty.
    pub(in crate::log::kafka) fn poll(&mut self, patience: Duration, burst: usize) -> Result<bool, Stop> {
        let (mut patience, mut empty) = (patience, false);
        for _ in 0..burst {
            match self.client.poll(patience) {
                Some(event) => self.take(event)?,
                None => {
                    empty = true;
                    break;
                }
            }
            patience = Duration::ZERO;
        }
        self.settle()?;
        Ok(empty)
    }

    /// Takes the records that are at hand, quickly, at most `times` as many as one call
    /// hands over. Positions must not be asked for afterwards.
    pub(in crate::log::kafka) fn poll_records(&mut self, times: usize) -> Result<(), Stop> {
        let client = self.client.clone();
        for _ in 0..times {
            let mut result = Ok(());
            let taken = client.poll_records(|event| match event {
                Event::Record(record) => self.push(&record),
                // The first error counts.
                _ if result.is_err() => {}
                news => result = self.take(news),
            });
            self.settle()?;
            result?;
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), Stop> {
        match event {
            Event::Record(record) => self.push(&record),
            Event::End(place) => {
                if let Some(feed) = self.feeds.at(&place.topic, place.partition) {
                    feed.seen_end = true;
                    feed.advance(place.offset);
                    feed.flush();
                }
            }
            Event::Failure(failure) => return self.failed(&failure),
            Event::Deliveries(_) | Event::Reply(_) | Event::TokenWanted => {}
        }
        Ok(())
    }

    fn push(&mut self, record: &Fetched) {
        if let Some(feed) = self.feeds.of(record) {
            feed.push(record);
        }
    }

    /// Hands on what was gathered, and waits until all of it is taken.
    pub(in crate::log::kafka) fn hand_on(&mut self) -> Result<(), Stop> {
        self.feeds.iter_mut().for_each(Feed::flush);
        self.settle()
    }

    /// Waits until all batches are taken, if that is what to do.
    fn settle(&mut self) -> Result<(), Stop> {
        let WhenFull::Wait(patience, runtime) = &self.when_full else { return Ok(()) };
        match self.feeds.iter_mut().all(|feed| feed.settle_within(*patience, runtime)) {
            true => Ok(()),
            false => Err(Stop::Stalled),
        }
    }

    /// Asks the client how far it is: control records are passed without an event.
    pub(in crate::log::kafka) fn sample(&mut self, list: &TopicPartitionList) {
        for (topic, partition, offset) in self.client.positions(list) {
            if let Some(feed) = self.feeds.at(&topic, partition) {
                feed.advance(offset);
            }
        }
    }

    fn failed(&mut self, failure: &Failure) -> Result<(), Stop> {
        self.health.record_failure(failure);
        tracing::debug!(log = %self.log, "{failure}");
        if failure.fatal {
            return Err(Stop::Dead);
        }
        let Some(place) = &failure.place else { return Ok(()) };
        let (log, topic, partition) = (self.log.to_string(), place.topic.clone(), place.partition);
        let Some(feed) = self.feeds.at(&place.topic, partition) else { return Ok(()) };
        let (offset, reason) = (feed.position(), failure.reason.clone());
        match classify(failure.code) {
            ErrorClass::Denied => feed.fail(LogError::Denied { log, topic, action: "read", reason }),
            // A broker that has just started may not know it yet.
            ErrorClass::Missing => self.health.request_check(),
            ErrorClass::Gone => {
                let reason = format!("offset {offset} is not there any more: {reason}");
                feed.fail(LogError::Replaced { topic, partition, reason });
            }
            ErrorClass::Damaged => feed.fail(LogError::CorruptBatch { topic, partition, offset, reason }),
            ErrorClass::Transient | ErrorClass::Authentication | ErrorClass::Refused => {}
        }
        Ok(())
    }
}

/// Where feeds are, for librdkafka.
pub(in crate::log::kafka) fn at<'a>(feeds: impl IntoIterator<Item = &'a Feed>) -> TopicPartitionList {
    let place = |feed: &'a Feed| (&*feed.reading.topic, feed.partition, feed.position(), feed.epoch());
    places_in_epochs(feeds.into_iter().map(place))
}
