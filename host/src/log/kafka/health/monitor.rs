//! Monitors the topics that are read: added partitions, re-created and truncated topics, end offsets,
//! deleted records, and whether the cluster answers at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::timeout as within;

use crate::log::kafka::control::{Control, replaced_error};
use crate::log::kafka::ffi::admin::DescribedTopic;
use crate::log::kafka::ffi::offsets::OffsetKind;
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::health::monitored::{MonitoredReading, TopicEvents, samples};
use crate::log::kafka::health::stuck::Remedy;
use crate::log::kafka::read::feed::{Feed, Reading};
use crate::log::kafka::read::tail::{Refresh, TailClients};
use crate::log::kafka::write::cluster_writer::ClusterWriter;
use crate::log::{
    Isolation, LogError, Offset, Partition, PartitionSample, PartitionStream, TopicDescription,
};
use crate::sync::lock;

/// The longest time between two checks of the topics, each with one request for all of them. A third of
/// `stale_after` if that is shorter.
const CHECK_EVERY: Duration = Duration::from_secs(3);

/// The first offsets, which move only when the broker deletes records, are requested once in this many checks.
const CHECKS_PER_START_REQUEST: usize = 5;

/// After how long an answer counts as late.
const LATE_ANSWER: Duration = Duration::from_secs(1);

/// The shortest wait for something that is due.
const MIN_WAIT: Duration = Duration::from_millis(10);

/// A topic and one of its partitions.
type TopicPartition = (Arc<str>, Partition);

/// The monitor of a cluster.
#[derive(Debug)]
pub(in crate::log::kafka) struct Monitor {
    control: Arc<Control>,
    tails: Arc<TailClients>,
    writer: Arc<ClusterWriter>,
    health: Arc<ClusterHealth>,
    /// How long the cluster may be silent, or a partition lag, before that is reported: a little less than
    /// users are promised.
    stale_after: Duration,
    isolation: Isolation,
    /// When the control client was replaced last.
    replaced: Mutex<Option<Instant>>,
    /// Whether a topic's own request for end offsets failed at the last check. The next check then begins with
    /// requests for each topic, instead of one for all.
    must_request_separately: AtomicBool,
    /// The readings of each topic, by its name. A std lock: held to read or change it, never during a request.
    monitored: Mutex<BTreeMap<Arc<str>, Vec<MonitoredReading>>>,
}

impl Monitor {
    pub(in crate::log::kafka) fn new(
        control: Arc<Control>,
        tails: Arc<TailClients>,
        writer: Arc<ClusterWriter>,
        health: Arc<ClusterHealth>,
        stale_after: Duration,
        isolation: Isolation,
    ) -> Self {
        Self {
            control,
            tails,
            writer,
            health,
            stale_after,
            isolation,
            replaced: Mutex::default(),
            must_request_separately: AtomicBool::new(false),
            monitored: Mutex::default(),
        }
    }

    /// Monitors a reading of this many partitions from now on.
    pub(in crate::log::kafka) fn add(
        &self,
        reading: &Arc<Reading>,
        partitions: Partition,
        events: TopicEvents,
    ) {
        self.health.set_reads_topics(true);
        let monitored = MonitoredReading::new(reading, partitions, events);
        self.monitored().entry(reading.topic.clone()).or_default().push(monitored);
    }

    /// How long the cluster may be silent, or a partition lag, before that is reported.
    pub(in crate::log::kafka) fn stale_after(&self) -> Duration {
        self.stale_after
    }

    /// Reports outages in time although nobody answers, for ever.
    pub(in crate::log::kafka) async fn report_outages(&self) {
        // What becomes due during the sleep is reported late by this much at most.
        let longest = CHECK_EVERY.min(self.stale_after / 3);
        loop {
            let due = self.health.due();
            let wait = due.map_or(longest, |due| due.saturating_duration_since(Instant::now()));
            tokio::time::sleep(wait.clamp(MIN_WAIT, longest)).await;
            self.health.evaluate_if_due(Instant::now());
        }
    }

    /// Checks the topics, for ever.
    pub(in crate::log::kafka) async fn run(&self) {
        let every = CHECK_EVERY.min(self.stale_after / 3);
        let request_timeout = every.max(Duration::from_millis(500));
        // Since when all descriptions of the topics arrived in time.
        let mut answering_since = None;
        for check in 0_usize.. {
            // OK to ignore: both outcomes are reasons to check.
            let _ = within(every, self.health.wait_for_check_request()).await;
            self.control.drop_unused_client();
            let mut names = self.names();
            self.health.set_reads_topics(!names.is_empty());
            if names.is_empty() {
                self.health.recover(Instant::now());
            }
            // Asking with another client shows whether the cluster is silent, or only the producer.
            let unanswered = self.writer.silent_topic(self.stale_after);
            // A request that names a topic twice is refused.
            names.extend(unanswered.filter(|name| !names.contains(name)));
            if names.is_empty() {
                answering_since = None;
                continue;
            }
            let requested_at = Instant::now();
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            match self.control.describe_topics(&names, request_timeout).await {
                Ok(topics) => {
                    let answered_at = Instant::now();
                    // It may have waited until the end of an outage.
                    answering_since = answering_since.filter(|_| answered_at - requested_at < LATE_ANSWER);
                    let leaderless = leaderless(&topics);
                    self.update_readings(topics, request_timeout).await;
                    let wants_starts = check % CHECKS_PER_START_REQUEST == 0;
                    self.sample(&leaderless, wants_starts, request_timeout).await;
                    // Samples are sent first, so that lags are known when the outage is over.
                    self.health.recover(Instant::now());
                    let answering_since = *answering_since.get_or_insert(answered_at);
                    self.writer.check_producers(self.stale_after, answering_since).await;
                }
                Err(error) => {
                    tracing::debug!("{error}");
                    answering_since = None;
                    self.replace_control().await;
                    let none = HashMap::new();
                    self.evaluate_all(self.readings(), &none, &none, Instant::now(), Refresh::No);
                }
            }
        }
    }

    /// Replaces the control client if it has had no answer for long: the client may be the cause, and
    /// not the cluster.
    async fn replace_control(&self) {
        let now = Instant::now();
        if self.health.silence(now) < self.stale_after / 2 || !self.claim_control_replacement(now) {
            return;
        }
        let control = self.control.clone();
        let replace = tokio::task::spawn_blocking(move || control.replace_client());
        if let Ok(Err(error)) = replace.await {
            tracing::debug!("{error}");
        }
    }

    /// Returns whether the caller should replace the control client: nobody did so lately. If so, notes the
    /// time.
    fn claim_control_replacement(&self, now: Instant) -> bool {
        let mut replaced = lock(&self.replaced);
        let is_due = replaced.is_none_or(|last| now.saturating_duration_since(last) >= self.stale_after);
        if is_due {
            *replaced = Some(now);
        }
        is_due
    }

    /// Returns the names of the topics that are read.
    fn names(&self) -> Vec<Arc<str>> {
        let mut monitored = self.monitored();
        monitored.retain(|_, readings| {
            readings.retain(|reading| !reading.events.is_closed() && reading.reading.strong_count() > 0);
            !readings.is_empty()
        });
        monitored.keys().cloned().collect()
    }

    /// Adds partitions to the readings of these topics, and ends readings of topics that were re-created or
    /// deleted, or that must not be read.
    async fn update_readings(
        &self,
        topics: Vec<(String, Result<DescribedTopic, LogError>)>,
        timeout: Duration,
    ) {
        for (name, topic) in topics {
            match topic {
                Ok(topic) => self.add_partitions(&self.end_replaced(&topic), &topic, timeout).await,
                Err(LogError::UnknownTopic { log, topic }) => self.end_missing(&log, &topic),
                Err(error @ LogError::Denied { .. }) => self.end_readings(&name, &error),
                Err(error) => tracing::debug!(topic = name, "{error}"),
            }
        }
    }

    /// Ends the readings of earlier topics with the name of this one; returns the readings of this one.
    fn end_replaced(&self, topic: &DescribedTopic) -> Vec<(Arc<Reading>, Partition, TopicEvents)> {
        let mut current = Vec::new();
        if let Some(readings) = self.monitored().get_mut(&*topic.name) {
            readings.retain_mut(|monitored| {
                let Some(reading) = monitored.reading.upgrade() else { return false };
                monitored.is_missing = false;
                if reading.id == topic.id {
                    monitored.topic_partitions = topic.partitions;
                    current.push((reading, monitored.partitions, monitored.events.clone()));
                    return true;
                }
                monitored.events.end(replaced_error(&topic.name));
                false
            });
        }
        current
    }

    /// Ends the readings of a topic with an error.
    fn end_readings(&self, topic: &str, error: &LogError) {
        let ended = self.monitored().remove(topic);
        ended.iter().flatten().for_each(|monitored| monitored.events.end(error.clone()));
    }

    /// Ends the readings of a topic that was missing at two checks: a broker that has just started may
    /// not know it yet.
    fn end_missing(&self, log: &str, topic: &str) {
        if let Some(readings) = self.monitored().get_mut(topic) {
            readings.retain_mut(|monitored| {
                if monitored.is_missing {
                    let (log, topic) = (log.to_owned(), topic.to_owned());
                    monitored.events.end(LogError::UnknownTopic { log, topic });
                }
                !std::mem::replace(&mut monitored.is_missing, true)
            });
        }
    }

    /// Reads the partitions that were added to a topic, from their first record. If no broker knows one,
    /// it and those after it are tried again at the next check.
    async fn add_partitions(
        &self,
        readings: &[(Arc<Reading>, Partition, TopicEvents)],
        topic: &DescribedTopic,
        timeout: Duration,
    ) {
        for (reading, known, events) in readings {
            let ranges = self.control.known_ranges(&reading.topic, *known..topic.partitions, timeout).await;
            let Some(last) = ranges.last() else { continue };
            let partitions = last.partition + 1;
            tracing::info!(topic = topic.name, "partitions were added: {partitions} are read now");
            let (feeds, new): (Vec<Feed>, Vec<PartitionStream>) =
                ranges.into_iter().map(|range| Feed::new(reading, range)).unzip();
            for stream in new {
                events.add(stream);
            }
            let tails = self.tails.clone();
            // Starting a client blocks.
            let adopt = tokio::task::spawn_blocking(move || tails.adopt(feeds, Refresh::Yes));
            // It ends early only with its runtime.
            let _ = adopt.await;
            let mut monitored = self.monitored();
            let readings = monitored.get_mut(&reading.topic).into_iter().flatten();
            for monitored in readings.filter(|monitored| monitored.has_reading(reading)) {
                monitored.partitions = partitions;
            }
        }
    }

    /// Samples the end offsets of all partitions, and sometimes their first offsets.
    async fn sample(&self, leaderless: &BTreeSet<TopicPartition>, wants_starts: bool, timeout: Duration) {
        let (readings, requested_at) = (self.readings(), Instant::now());
        let of_reading = |(reading, samples): &(Arc<Reading>, Vec<PartitionSample>)| {
            samples.iter().map(|sample| (reading.topic.clone(), sample.partition)).collect::<Vec<_>>()
        };
        let partitions: BTreeSet<TopicPartition> = readings.iter().flat_map(of_reading).collect();
        let with_leader: BTreeSet<TopicPartition> = partitions.difference(leaderless).cloned().collect();
        let ends = self.request(&with_leader, OffsetKind::End, timeout).await;
        let stable = match self.isolation {
            Isolation::ReadUncommitted => HashMap::new(),
            Isolation::ReadCommitted => {
                self.request(&unread(&readings, &ends), OffsetKind::LastStable, timeout).await
            }
        };
        if wants_starts {
            set_starts(&readings, &self.request(&with_leader, OffsetKind::First, timeout).await);
        }
        self.evaluate_all(readings, &ends, &stable, requested_at, Refresh::Yes);
    }

    /// Evaluates the samples of all readings with the end offsets, as far as they are known. With
    /// [`Refresh::No`], no client is refreshed or replaced, because the cluster does not answer.
    fn evaluate_all(
        &self,
        readings: Vec<(Arc<Reading>, Vec<PartitionSample>)>,
        ends: &HashMap<TopicPartition, Offset>,
        stable: &HashMap<TopicPartition, Offset>,
        requested_at: Instant,
        refresh: Refresh,
    ) {
        for (reading, mut samples) in readings {
            for sample in &mut samples {
                let partition = (reading.topic.clone(), sample.partition);
                (sample.end, sample.stable) =
                    (ends.get(&partition).copied(), stable.get(&partition).copied());
            }
            self.evaluate(&reading, samples, requested_at, refresh);
        }
    }

    /// Requests offsets. One leader that does not answer makes the whole request fail; then each topic gets a
    /// request of its own.
    async fn request(
        &self,
        partitions: &BTreeSet<TopicPartition>,
        kind: OffsetKind,
        timeout: Duration,
    ) -> HashMap<TopicPartition, Offset> {
        if !self.must_request_separately.load(Ordering::Relaxed) {
            match self.control.known_offsets(partitions, kind, timeout).await {
                Ok(offsets) => return offsets,
                Err(error) => tracing::debug!("{error}"),
            }
        }
        let mut topics: BTreeMap<&Arc<str>, BTreeSet<TopicPartition>> = BTreeMap::new();
        for partition in partitions {
            topics.entry(&partition.0).or_default().insert(partition.clone());
        }
        let asked = topics.values().map(|own| self.control.known_offsets(own, kind, timeout));
        let answers = join_all(asked).await;
        if kind == OffsetKind::End {
            self.must_request_separately.store(answers.iter().any(Result::is_err), Ordering::Relaxed);
        }
        answers.into_iter().flatten().flatten().collect()
    }

    /// Reports to a reading that its topic was truncated, or its end offsets. Refreshes or replaces the
    /// client of a partition that receives no data, unless [`Refresh::No`] is given.
    fn evaluate(
        &self,
        reading: &Arc<Reading>,
        samples: Vec<PartitionSample>,
        requested_at: Instant,
        refresh: Refresh,
    ) {
        let truncation = samples.iter().find_map(|sample| {
            let end = sample.end.filter(|&end| end < sample.read)?;
            Some(truncation_error(&reading.topic, sample.partition, end, sample.read))
        });
        let mut monitored = self.monitored();
        let Some(readings) = monitored.get_mut(&reading.topic) else { return };
        let Some(index) = readings.iter().position(|monitored| monitored.has_reading(reading)) else {
            return;
        };
        if let Some(error) = truncation {
            readings.swap_remove(index).events.end(error);
            return;
        }
        let Some(monitored) = readings.get_mut(index) else { return };
        let remedy = monitored.check_client(reading, &samples, requested_at, self.stale_after);
        monitored.report(samples, requested_at);
        if refresh == Refresh::Yes {
            match remedy {
                Some(Remedy::Replace) => self.tails.replace(reading),
                // The client may read from a broker that is no longer the leader.
                Some(Remedy::Refresh) => self.tails.refresh(&reading.topic),
                None => {}
            }
        }
    }

    /// Returns all readings, with samples of their partitions.
    fn readings(&self) -> Vec<(Arc<Reading>, Vec<PartitionSample>)> {
        let monitored = self.monitored();
        let readings = monitored.values().flatten().filter_map(|monitored| monitored.reading.upgrade());
        readings.map(|reading| (reading.clone(), samples(&reading))).collect()
    }

    /// Returns the next offset to read of each partition of a topic, by the reading that is farthest.
    pub(in crate::log::kafka) fn positions(&self, topic: &TopicDescription) -> HashMap<Partition, Offset> {
        let mut farthest = HashMap::new();
        let monitored = self.monitored();
        let readings = monitored.get(&*topic.name).into_iter().flatten();
        let readings = readings.filter_map(|monitored| monitored.reading.upgrade());
        for reading in readings.filter(|reading| reading.id == topic.id) {
            for PartitionSample { partition, read, .. } in samples(&reading) {
                let known = farthest.entry(partition).or_insert(read);
                *known = read.max(*known);
            }
        }
        farthest
    }

    fn monitored(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Vec<MonitoredReading>>> {
        lock(&self.monitored)
    }
}

/// Returns the partitions with records that were not read yet. An open transaction may hide them.
fn unread(
    readings: &[(Arc<Reading>, Vec<PartitionSample>)],
    ends: &HashMap<TopicPartition, Offset>,
) -> BTreeSet<TopicPartition> {
    let partitions = readings.iter().flat_map(|(reading, samples)| {
        samples.iter().map(|sample| ((reading.topic.clone(), sample.partition), sample.read))
    });
    let unread = partitions.filter(|(partition, read)| ends.get(partition).is_some_and(|end| read < end));
    unread.map(|(partition, _)| partition).collect()
}

/// Sets the first offsets of partitions, which their feeds report.
fn set_starts(readings: &[(Arc<Reading>, Vec<PartitionSample>)], starts: &HashMap<TopicPartition, Offset>) {
    for (reading, _) in readings {
        for progress in reading.progress() {
            if let Some(&start) = starts.get(&(reading.topic.clone(), progress.partition)) {
                progress.start.store(start, Ordering::Relaxed);
            }
        }
    }
}

/// Returns the partitions that have no leader.
fn leaderless(topics: &[(String, Result<DescribedTopic, LogError>)]) -> BTreeSet<TopicPartition> {
    let described = topics.iter().filter_map(|(_, topic)| topic.as_ref().ok());
    let partitions = described.flat_map(|topic| topic.leaderless.iter().map(|&number| (&topic.name, number)));
    partitions.map(|(name, number)| (name.as_str().into(), number)).collect()
}

/// Returns the error of a topic if one of its partitions ends before the position of its reader.
pub(in crate::log::kafka) fn find_truncation(
    topic: &str,
    positions: &HashMap<Partition, Offset>,
    ends: &[(Partition, Offset)],
) -> Option<LogError> {
    ends.iter().find_map(|&(partition, end)| {
        let position = *positions.get(&partition).filter(|&&position| end < position)?;
        Some(truncation_error(topic, partition, end, position))
    })
}

fn truncation_error(topic: &str, partition: Partition, end: Offset, position: Offset) -> LogError {
    let reason = format!("the log was truncated: it ends at {end}, and was read up to {position}");
    LogError::Replaced { topic: topic.to_owned(), partition: Some(partition), reason }
}
