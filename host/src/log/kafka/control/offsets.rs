//! Requests for first and end offsets, and for last stable offsets. Each of them blocks a thread.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Semaphore;

use super::{ANSWER_TIMEOUT, Control, REQUEST_TIMEOUT, retry};
use crate::log::kafka::control::offset_requests::claim_refresh;
use crate::log::kafka::control::polled_client::PolledClient;
use crate::log::kafka::ffi::offsets::{ListedOffset, OffsetKind, join_ranges, list_offsets};
use crate::log::{Isolation, LogError, Offset, OffsetRange, Partition, TopicDescription};
use crate::sync::lock;

/// The action of requesting a topic's offsets, as errors name it.
const REQUEST_OFFSETS: &str = "request the offsets of";

/// How long a request for leaders may take.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

impl Control {
    /// Requests one offset of each of these partitions, on a thread that may block.
    ///
    /// If a leader does not answer in time, librdkafka closes the connection to it. So a frozen connection delays
    /// one request, and not the next one.
    async fn request_offsets(
        &self,
        partitions: Vec<(String, Partition)>,
        kind: OffsetKind,
        timeout: Duration,
        permits: &Arc<Semaphore>,
    ) -> Result<Vec<ListedOffset>, LogError> {
        let Some((topic, _)) = partitions.first().cloned() else { return Ok(Vec::new()) };
        let list = async || {
            let Ok(permit) = tokio::time::timeout(timeout, permits.clone().acquire_owned()).await else {
                let reason = "too many requests for offsets are under way: try again later".to_owned();
                return Ok(Err((RDKafkaErrorCode::Retry, reason)));
            };
            let list = self.blocking_request(partitions, kind, timeout.min(ANSWER_TIMEOUT));
            let list = move || {
                // Held until the thread is free again, even if nobody waits for the answer any more.
                let _permit = permit;
                list()
            };
            let listed = tokio::task::spawn_blocking(list).await.map_err(|_| LogError::Closed)??;
            Ok(listed.map_err(|code| (code, code.to_string())))
        };
        self.ask(REQUEST_OFFSETS, &topic, timeout, list).await
    }

    /// Drops the client for last stable offsets if nobody has needed it for long.
    pub(in crate::log::kafka) fn drop_unused_client(&self) {
        // It is locked while a client starts, which is not unused then.
        let unused = self.offset_requests.committed.try_lock().ok();
        drop(unused.and_then(|mut committed| committed.take_unused(Instant::now())));
    }

    /// Returns a function that sends a request for offsets with the client for this kind, and waits for the answers.
    fn blocking_request(
        &self,
        partitions: Vec<(String, Partition)>,
        kind: OffsetKind,
        timeout: Duration,
    ) -> impl FnOnce() -> Result<Result<Vec<ListedOffset>, RDKafkaErrorCode>, LogError> + Send + use<> {
        let requests = &self.offset_requests;
        let (current, committed) = (self.polled_client(), requests.committed.clone());
        let refreshed = requests.refreshed.clone();
        let (configs, health, background) =
            (self.configs.clone(), self.health.clone(), self.background.clone());
        move || {
            let polled = match kind {
                OffsetKind::First | OffsetKind::End => current,
                OffsetKind::LastStable => lock(&committed).get_or_start(Instant::now(), || {
                    PolledClient::start(&configs, Isolation::ReadCommitted, health, &background)
                })?,
            };
            let listed = list_offsets(polled.client(), &partitions, kind, timeout);
            if is_leader_missing(&listed) && claim_refresh(&refreshed, Instant::now()) {
                // A client that knows that there is no leader does not ask again by itself. OK to ignore: the next
                // request finds no leader then, either.
                let _ = polled.client().probe(REFRESH_TIMEOUT);
            }
            if kind == OffsetKind::LastStable {
                let replaced = lock(&committed).note(&polled, listed.is_err(), Instant::now());
                drop(replaced);
            }
            Ok(listed)
        }
    }

    /// Requests first and end offsets of these partitions.
    pub(in crate::log::kafka) async fn offset_ranges(
        &self,
        topic: &str,
        partitions: Range<Partition>,
    ) -> Result<Vec<OffsetRange>, LogError> {
        let (first, end) = tokio::join!(
            self.list_offsets(topic, partitions.clone(), OffsetKind::First),
            self.list_offsets(topic, partitions, OffsetKind::End)
        );
        Ok(join_ranges(&first?, &end?))
    }

    /// Requests one offset of each of these partitions. Retries while leaders move.
    pub(super) async fn list_offsets(
        &self,
        topic: &str,
        partitions: Range<Partition>,
        kind: OffsetKind,
    ) -> Result<Vec<(Partition, Offset)>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        retry(REQUEST_TIMEOUT, || self.list_offsets_once(topic, partitions.clone(), kind)).await
    }

    /// Requests one offset of each of these partitions. Fails if one of them has no leader.
    async fn list_offsets_once(
        &self,
        topic: &str,
        partitions: Range<Partition>,
        kind: OffsetKind,
    ) -> Result<Vec<(Partition, Offset)>, LogError> {
        let partitions = partitions.map(|number| (topic.to_owned(), number)).collect();
        let permits = &self.offset_requests.of_callers;
        let listed = self.request_offsets(partitions, kind, REQUEST_TIMEOUT, permits).await?;
        let listed = listed.into_iter().map(|(_, partition, offset)| {
            let offset = offset.map_err(|code| {
                self.error(topic, REQUEST_OFFSETS, code, format!("partition {partition}: {code}"))
            })?;
            Ok((partition, offset))
        });
        listed.collect()
    }

    /// Requests one offset of each of these partitions, once, for the monitor. The result lacks the partitions
    /// that no broker answered for.
    pub(in crate::log::kafka) async fn known_offsets(
        &self,
        partitions: &BTreeSet<(Arc<str>, Partition)>,
        kind: OffsetKind,
        timeout: Duration,
    ) -> Result<HashMap<(Arc<str>, Partition), Offset>, LogError> {
        let partitions = partitions.iter().map(|(topic, partition)| (topic.to_string(), *partition));
        let permits = &self.offset_requests.of_monitor;
        let listed = self.request_offsets(partitions.collect(), kind, timeout, permits).await?.into_iter();
        Ok(listed
            .filter_map(|(topic, partition, offset)| Some(((topic.into(), partition), offset.ok()?)))
            .collect())
    }

    /// Requests first and end offsets of these partitions, once, for the monitor. The result ends before the first
    /// partition that no broker answered for.
    pub(in crate::log::kafka) async fn known_ranges(
        &self,
        topic: &Arc<str>,
        partitions: Range<Partition>,
        timeout: Duration,
    ) -> Vec<OffsetRange> {
        let requested: BTreeSet<_> = partitions.clone().map(|number| (topic.clone(), number)).collect();
        let (first, end) = tokio::join!(
            self.known_offsets(&requested, OffsetKind::First, timeout),
            self.known_offsets(&requested, OffsetKind::End, timeout)
        );
        let (first, end) = (first.unwrap_or_default(), end.unwrap_or_default());
        let range = |partition| {
            let key = (topic.clone(), partition);
            Some(OffsetRange { partition, start: *first.get(&key)?, end: *end.get(&key)? })
        };
        partitions.map_while(range).collect()
    }

    /// Requests first and end offsets of all partitions. Includes partitions that were added since `topic`
    /// was described.
    ///
    /// # Errors
    ///
    /// [`LogError::Replaced`] if the topic was deleted and created again.
    pub(in crate::log::kafka) async fn offsets(
        &self,
        topic: &TopicDescription,
    ) -> Result<Vec<OffsetRange>, LogError> {
        let (current, ranges) = tokio::join!(
            self.describe_topic(&topic.name),
            self.offset_ranges(&topic.name, 0..topic.partitions)
        );
        let current = self.check_identity(topic, current?)?;
        let mut ranges = ranges?;
        ranges.extend(self.offset_ranges(&topic.name, topic.partitions..current.partitions).await?);
        Ok(ranges)
    }

    /// Requests the end offsets of all partitions. Includes partitions that were added since `topic`
    /// was described.
    ///
    /// # Errors
    ///
    /// [`LogError::Replaced`] if the topic was deleted and created again.
    pub(in crate::log::kafka) async fn end_offsets(
        &self,
        topic: &TopicDescription,
    ) -> Result<Vec<(Partition, Offset)>, LogError> {
        let (current, ends) = tokio::join!(
            self.describe_topic(&topic.name),
            self.list_offsets(&topic.name, 0..topic.partitions, OffsetKind::End)
        );
        let current = self.check_identity(topic, current?)?;
        let mut ends = ends?;
        let added = topic.partitions..current.partitions;
        ends.extend(self.list_offsets(&topic.name, added, OffsetKind::End).await?);
        Ok(ends)
    }
}

/// Whether a partition has no leader that the client knows.
fn is_leader_missing(listed: &Result<Vec<ListedOffset>, RDKafkaErrorCode>) -> bool {
    const MISSING: RDKafkaErrorCode = RDKafkaErrorCode::LeaderNotAvailable;
    match listed {
        Ok(listed) => listed.iter().any(|(_, _, offset)| *offset == Err(MISSING)),
        Err(code) => *code == MISSING,
    }
}
