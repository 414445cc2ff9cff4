//! A reading that the monitor checks.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::log::kafka::health::stuck::StuckDetector;
use crate::log::kafka::read::feed::{PartitionProgress, Reading};
use crate::log::lag::{LagTracker, PartitionSample, SampleTime, now};
use crate::log::{Lag, LogError, Partition, TopicEvent};

/// The channel through which a reading receives its events.
pub(in crate::log::kafka) type TopicEvents = mpsc::UnboundedSender<Result<TopicEvent, LogError>>;

/// A reading that is monitored.
#[derive(Debug)]
pub(super) struct MonitoredReading {
    pub(super) reading: Weak<Reading>,
    /// The number of partitions that are read.
    pub(super) partitions: Partition,
    /// The number of partitions that the topic has.
    pub(super) topic_partitions: Partition,
    pub(super) events: TopicEvents,
    /// Whether the topic was missing at the last check.
    pub(super) is_missing: bool,
    pub(super) lags: LagTracker,
    pub(super) stuck: StuckDetector,
}

impl MonitoredReading {
    pub(super) fn new(reading: &Arc<Reading>, partitions: Partition, events: TopicEvents) -> Self {
        Self {
            reading: Arc::downgrade(reading),
            partitions,
            topic_partitions: partitions,
            events,
            is_missing: false,
            lags: LagTracker::new(now()),
            stuck: StuckDetector::default(),
        }
    }

    /// Whether this is the entry of a reading.
    pub(super) fn has_reading(&self, reading: &Arc<Reading>) -> bool {
        std::ptr::eq(self.reading.as_ptr(), Arc::as_ptr(reading))
    }

    /// Evaluates samples. Partitions that are not read yet count as lagging, too.
    pub(super) fn evaluate(
        &mut self,
        samples: &mut Vec<PartitionSample>,
        time: SampleTime,
        stale_after: Duration,
    ) -> Option<Vec<Lag>> {
        let unread = self.partitions..self.topic_partitions;
        samples.extend(unread.map(PartitionSample::unknown));
        self.lags.evaluate(samples, time, stale_after)
    }
}

/// Returns samples of the partitions of a reading, without their end offsets.
pub(super) fn samples(reading: &Reading) -> Vec<PartitionSample> {
    let sample = |progress: &Arc<PartitionProgress>| PartitionSample {
        read: progress.position.load(Ordering::Relaxed),
        position: progress.applied.get(),
        ..PartitionSample::unknown(progress.partition)
    };
    reading.progress().iter().map(sample).collect()
}
