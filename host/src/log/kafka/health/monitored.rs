//! A reading that the monitor checks.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{select, unfold};
use tokio::sync::{mpsc, watch};

use crate::log::kafka::health::stuck::{Remedy, SilenceDetector, StuckDetector};
use crate::log::kafka::read::feed::{PartitionProgress, Reading};
use crate::log::{
    LogError, Offset, Partition, PartitionSample, PartitionStream, TopicEvent, TopicSample, TopicStream,
};

/// The channels through which the reader of a topic receives its events.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) struct TopicEvents {
    partitions: mpsc::UnboundedSender<Result<PartitionStream, LogError>>,
    /// The newest sample only: a reader may be busy for long.
    sample: watch::Sender<Option<TopicSample>>,
}

impl TopicEvents {
    /// Creates the channels, and the stream of their events.
    pub(in crate::log::kafka) fn new() -> (Self, TopicStream) {
        let (partitions, added) = mpsc::unbounded_channel();
        let (sample, samples) = watch::channel(None);
        let added =
            unfold(added, |mut added: mpsc::UnboundedReceiver<Result<PartitionStream, LogError>>| async {
                let partition = added.recv().await?;
                Some((partition.map(TopicEvent::Partition), added))
            });
        let samples = unfold(samples, |mut samples: watch::Receiver<Option<TopicSample>>| async {
            samples.changed().await.ok()?;
            let sample = samples.borrow_and_update().clone()?;
            Some((Ok(TopicEvent::Sample(sample)), samples))
        });
        (Self { partitions, sample }, select(added, samples).boxed())
    }

    /// Adds a partition to the reading.
    pub(in crate::log::kafka) fn add(&self, partition: PartitionStream) {
        // OK to ignore: the reader may be gone.
        let _ = self.partitions.send(Ok(partition));
    }

    /// Ends the reading with an error.
    pub(super) fn end(&self, error: LogError) {
        // OK to ignore: the reader may be gone.
        let _ = self.partitions.send(Err(error));
    }

    /// Whether the reader is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.partitions.is_closed()
    }
}

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
    stuck: StuckDetector,
    silence: SilenceDetector,
}

impl MonitoredReading {
    pub(super) fn new(reading: &Arc<Reading>, partitions: Partition, events: TopicEvents) -> Self {
        Self {
            reading: Arc::downgrade(reading),
            partitions,
            topic_partitions: partitions,
            events,
            is_missing: false,
            stuck: StuckDetector::default(),
            silence: SilenceDetector::default(),
        }
    }

    /// Whether this is the entry of a reading.
    pub(super) fn has_reading(&self, reading: &Arc<Reading>) -> bool {
        std::ptr::eq(self.reading.as_ptr(), Arc::as_ptr(reading))
    }

    /// Reports samples to the reader. Partitions that are not read yet are included, with unknown ends.
    pub(super) fn report(&self, mut samples: Vec<PartitionSample>, requested_at: Instant) {
        let unread = self.partitions..self.topic_partitions;
        samples.extend(unread.map(PartitionSample::unknown));
        self.events.sample.send_replace(Some(TopicSample::new(requested_at, samples)));
    }

    /// Checks whether the client receives what the cluster has. Returns what may help if it does not.
    pub(super) fn check_client(
        &mut self,
        reading: &Reading,
        samples: &[PartitionSample],
        now: Instant,
        stale_after: Duration,
    ) -> Option<Remedy> {
        let has_silence_changed = self.silence.check(samples, now, stale_after);
        if has_silence_changed {
            // What was tried before the silence says nothing about what helps now.
            self.stuck = StuckDetector::default();
        }
        // While nobody answers, nothing shows that the client is the cause.
        let is_answered = samples.iter().any(|sample| sample.end.is_some());
        let waiting = is_answered.then(|| waiting(reading, samples));
        let remedy = waiting.and_then(|waiting| self.stuck.check(waiting, now, stale_after));
        remedy.or_else(|| has_silence_changed.then_some(Remedy::Refresh))
    }
}

/// Returns the positions of the partitions that have records which the client could deliver now: the reader
/// has taken everything, and no open transaction hides what follows.
fn waiting(reading: &Reading, samples: &[PartitionSample]) -> Vec<(Partition, Offset)> {
    // While a topic is loaded, its loading client is responsible.
    if !reading.is_followed.load(Ordering::Relaxed) {
        return Vec::new();
    }
    let progress = reading.progress();
    let drained = progress.iter().filter(|progress| progress.is_drained());
    let drained: HashSet<Partition> = drained.map(|progress| progress.partition).collect();
    let is_waiting = |sample: &&PartitionSample| {
        let visible = [sample.end, sample.stable].into_iter().flatten().min();
        drained.contains(&sample.partition) && visible.is_some_and(|visible| sample.read < visible)
    };
    samples.iter().filter(is_waiting).map(|sample| (sample.partition, sample.read)).collect()
}

/// Returns samples of the partitions of a reading, without their end offsets.
pub(super) fn samples(reading: &Reading) -> Vec<PartitionSample> {
    let sample = |progress: &Arc<PartitionProgress>| PartitionSample {
        read: progress.position.load(Ordering::Relaxed),
        ..PartitionSample::unknown(progress.partition)
    };
    reading.progress().iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::log::kafka::read::feed::Feed;
    use crate::log::{Headers, OffsetRange};

    fn sample(end: Option<Offset>) -> PartitionSample {
        PartitionSample { end, ..PartitionSample::unknown(0) }
    }

    #[tokio::test]
    async fn a_reader_receives_the_newest_sample_and_the_error_that_ends_it() {
        let (events, mut stream) = TopicEvents::new();
        let reading = Arc::new(Reading::new("t", "1", Headers::Unwanted));
        let monitored = MonitoredReading::new(&reading, 1, events.clone());
        for end in 1..4 {
            monitored.report(vec![sample(Some(end))], Instant::now());
        }
        let Some(Ok(TopicEvent::Sample(newest))) = stream.next().await else { panic!("not a sample") };
        assert_eq!(newest.partitions, [sample(Some(3))]);
        assert!(stream.next().now_or_never().is_none() && !events.is_closed());
        events.end(LogError::Closed);
        drop((events, monitored));
        assert!(matches!(stream.next().await, Some(Err(LogError::Closed))));
        assert!(stream.next().await.is_none());
    }

    #[test]
    fn a_client_is_refreshed_only_if_the_reader_waits_for_data() {
        let reading = Arc::new(Reading::new("t", "1", Headers::Unwanted));
        reading.is_followed.store(true, Ordering::Relaxed);
        let (mut feed, stream) = Feed::new(&reading, OffsetRange { partition: 0, start: 0, end: 9 });
        let mut monitored = MonitoredReading::new(&reading, 1, TopicEvents::new().0);
        let stale_after = Duration::from_secs(10);
        let mut check = |samples: &[PartitionSample]| {
            monitored.check_client(&reading, samples, Instant::now(), stale_after)
        };
        let behind = |read| [PartitionSample { read, ..sample(Some(9)) }];
        assert_eq!((check(&behind(0)), check(&behind(0))), (None, Some(Remedy::Refresh)));
        // An open transaction hides the rest.
        let hidden = [PartitionSample { stable: Some(0), ..behind(0)[0] }];
        assert_eq!((check(&hidden), check(&hidden)), (None, None));
        // The reader has not taken what was sent.
        feed.advance(5);
        feed.flush();
        assert_eq!((check(&behind(5)), check(&behind(5))), (None, None));
        drop(stream);
    }
}
