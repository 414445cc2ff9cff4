//! A consuming client and the feeds that it fills, which loading clients and tail clients share.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use tokio::runtime::Handle;

use crate::log::LogError;
use crate::log::kafka::error::{ErrorClass, classify};
use crate::log::kafka::ffi::client::{Client, partition_list_with_epochs};
use crate::log::kafka::ffi::event::{Event, Failure, FetchedRecord};
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::read::feed::{Feed, Feeds};

/// Why a reader cannot continue.
#[derive(Debug)]
pub(in crate::log::kafka) enum StopReason {
    /// The client has failed for good.
    Dead,
    /// There is no progress: a table accepts no items, or no data arrives.
    Stalled,
}

/// A consuming client with its feeds.
#[derive(Debug)]
pub(in crate::log::kafka) struct Reader {
    pub(in crate::log::kafka) client: Arc<Client>,
    pub(in crate::log::kafka) feeds: Feeds,
    when_full: WhenFull,
    log: Arc<str>,
    health: Arc<ClusterHealth>,
}

/// What to do when a stream is full because its table does not keep up.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) enum WhenFull {
    /// Wait, for this long at most, on this runtime. For clients whose feeds all belong to one table.
    Wait(Duration, Handle),
    /// Keep the items in the feed, and continue with other feeds.
    Buffer,
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

    /// Starts to read more partitions, each from the position of its feed.
    pub(in crate::log::kafka) fn assign(&mut self, mut feeds: Vec<Feed>) {
        if let Err(code) = self.client.assign(&positions(&feeds)) {
            for feed in &mut feeds {
                let reason = format!("cannot read topic `{}`: {code}", feed.reading.topic);
                feed.fail(LogError::Client { log: self.log.to_string(), reason });
            }
        }
        // A partition stays paused for the next reader of the same client.
        self.client.resume(&positions(&feeds));
        self.feeds.extend(feeds);
    }

    /// Replaces the client. The new one continues at the positions of the feeds.
    pub(in crate::log::kafka) fn replace(&mut self, client: Arc<Client>) {
        self.client = client;
        let mut feeds = std::mem::take(&mut self.feeds).into_feeds();
        feeds.iter_mut().for_each(|feed| feed.is_paused = false);
        self.assign(feeds);
    }

    /// Stops reading partitions whose streams nobody reads any more.
    pub(in crate::log::kafka) fn drop_closed(&mut self) {
        if self.feeds.iter().any(Feed::is_closed) {
            let closed = self.feeds.take_closed();
            for feed in &closed {
                // OK to ignore: it fails for partitions that could not be assigned.
                let _ = self.client.unassign(&positions([feed]));
            }
        }
    }

    /// Handles events until the queue is empty, `max_events` at most, and waits for the first one. Returns
    /// whether the queue is empty.
    pub(in crate::log::kafka) fn poll(
        &mut self,
        timeout: Duration,
        max_events: usize,
    ) -> Result<bool, StopReason> {
        let (mut timeout, mut is_empty) = (timeout, false);
        for _ in 0..max_events {
            match self.client.poll(timeout) {
                Some(event) => self.handle(event)?,
                None => {
                    is_empty = true;
                    break;
                }
            }
            timeout = Duration::ZERO;
        }
        self.wait_if_full()?;
        Ok(is_empty)
    }

    /// Takes the queued records in bulk, in `max_calls` calls of librdkafka at most. Positions must not be
    /// requested from the client afterwards, because they are one too high at the end of a partition.
    pub(in crate::log::kafka) fn poll_records(&mut self, max_calls: usize) -> Result<(), StopReason> {
        let client = self.client.clone();
        for _ in 0..max_calls {
            let mut result = Ok(());
            let count = client.poll_records(|event| match event {
                Event::Record(record) => self.push(&record),
                // The first error is returned.
                _ if result.is_err() => {}
                event => result = self.handle(event),
            });
            self.wait_if_full()?;
            result?;
            if count == 0 {
                break;
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), StopReason> {
        match event {
            Event::Record(record) => self.push(&record),
            Event::PartitionEnd(end) => {
                if let Some(feed) = self.feeds.get_mut(&end.topic, end.partition) {
                    feed.has_reached_end = true;
                    feed.advance(end.offset);
                    feed.flush();
                }
            }
            Event::Failure(failure) => return self.handle_failure(&failure),
            Event::Deliveries(_) | Event::Reply(_) | Event::TokenRequested => {}
        }
        Ok(())
    }

    fn push(&mut self, record: &FetchedRecord) {
        if let Some(feed) = self.feeds.for_record(record) {
            feed.push(record);
        }
    }

    /// Sends the collected records of all feeds to their streams, and waits for full streams if [`WhenFull`]
    /// says so.
    pub(in crate::log::kafka) fn flush(&mut self) -> Result<(), StopReason> {
        self.feeds.iter_mut().for_each(Feed::flush);
        self.wait_if_full()
    }

    /// Waits until all pending items are sent, with [`WhenFull::Wait`].
    fn wait_if_full(&mut self) -> Result<(), StopReason> {
        let WhenFull::Wait(timeout, runtime) = &self.when_full else { return Ok(()) };
        match self.feeds.iter_mut().all(|feed| feed.send_pending_within(*timeout, runtime)) {
            true => Ok(()),
            false => Err(StopReason::Stalled),
        }
    }

    /// Requests the positions of the client, which passes control records without an event, and advances the
    /// feeds.
    pub(in crate::log::kafka) fn update_positions(&mut self, list: &TopicPartitionList) {
        for (topic, partition, offset) in self.client.positions(list) {
            if let Some(feed) = self.feeds.get_mut(&topic, partition) {
                feed.advance(offset);
            }
        }
    }

    fn handle_failure(&mut self, failure: &Failure) -> Result<(), StopReason> {
        self.health.record_failure(failure);
        tracing::debug!(log = %self.log, "{failure}");
        if failure.is_fatal {
            return Err(StopReason::Dead);
        }
        let Some(failed) = &failure.partition_offset else { return Ok(()) };
        let (log, topic, partition) = (self.log.to_string(), failed.topic.clone(), failed.partition);
        let Some(feed) = self.feeds.get_mut(&failed.topic, partition) else { return Ok(()) };
        let (offset, reason) = (feed.position(), failure.reason.clone());
        match classify(failure.code) {
            ErrorClass::Denied => feed.fail(LogError::Denied { log, topic, action: "read", reason }),
            // A broker that has just started may not know the topic yet.
            ErrorClass::Missing => self.health.request_check(),
            ErrorClass::Gone => {
                let reason = format!("offset {offset} does not exist any more: {reason}");
                feed.fail(LogError::Replaced { topic, partition: Some(partition), reason });
            }
            ErrorClass::Damaged => feed.fail(LogError::CorruptBatch { topic, partition, offset, reason }),
            ErrorClass::Transient | ErrorClass::Authentication | ErrorClass::Refused => {}
        }
        Ok(())
    }
}

/// Returns the positions of feeds in librdkafka's form.
pub(in crate::log::kafka) fn positions<'a>(feeds: impl IntoIterator<Item = &'a Feed>) -> TopicPartitionList {
    let position = |feed: &'a Feed| (&*feed.reading.topic, feed.partition, feed.position(), feed.epoch());
    partition_list_with_epochs(feeds.into_iter().map(position))
}
