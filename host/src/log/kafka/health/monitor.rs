//! Monitors the topics that are read: added partitions, re-created and truncated topics, lagging
//! partitions, deleted records, and whether the cluster answers at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::timeout as within;

use crate::log::kafka::control::{Control, replaced_error};
use crate::log::kafka::ffi::admin::{DescribedTopic, OffsetKind};
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::health::monitored::{Monitored, TopicEvents, samples};
use crate::log::kafka::health::stuck::Remedy;
use crate::log::kafka::read::feed::{Feed, Reading};
use crate::log::kafka::read::tail::{Refresh, TailClients};
use crate::log::kafka::write::cluster_writer::ClusterWriter;
use crate::log::lag::{PartitionSample, SampleTime, now};
use crate::log::{LogError, Offset, Partition, PartitionStream, TopicDescription, TopicEvent};
use crate::sync::lock;

/// How often the topics are checked, with one request for all of them.
const CHECK_EVERY: Duration = Duration::from_secs(3);

/// After how many checks the first offsets are requested, which only retention moves.
const CHECKS_PER_START_REQUEST: usize = 5;

/// The shortest wait for something that is due.
const MIN_WAIT: Duration = Duration::from_millis(10);

/// A topic and one of its partitions.
type TopicPartition = (Arc<str>, Partition);

/// The monitor of a cluster.
#[derive(Debug)]
pub(in crate::log::kafka) struct Monitor {
    control: Arc<Control>,
    tails: Arc<TailClients>,
    writing: Arc<ClusterWriter>,
    health: Arc<ClusterHealth>,
    /// How long the cluster may be silent, or a partition lag, before that is reported: a little less
    /// than users are promised.
    stale_after: Duration,
    /// When the control client was replaced last.
    replaced: Mutex<Option<Instant>>,
    /// Whether the last request for the end offsets of all topics failed, so that each topic is
    /// requested alone.
    requests_alone: AtomicBool,
    /// A std lock: held to read or change it, never during a request.
    monitored: Mutex<Vec<Monitored>>,
}

impl Monitor {
    pub(in crate::log::kafka) fn new(
        control: Arc<Control>,
        tails: Arc<TailClients>,
        writing: Arc<ClusterWriter>,
        health: Arc<ClusterHealth>,
        stale_after: Duration,
    ) -> Self {
        Self {
            control,
            tails,
            writing,
            health,
            stale_after,
            replaced: Mutex::default(),
            requests_alone: AtomicBool::new(false),
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
        self.health.set_asking(true);
        self.monitored().push(Monitored::new(reading, partitions, events));
    }

    /// Reports outages and lags in time although nobody answers, for ever.
    pub(in crate::log::kafka) async fn report_overdue(&self) {
        // Nothing that a check adds is due sooner.
        let longest = CHECK_EVERY.min(self.stale_after / 3);
        loop {
            let due =
                self.monitored().iter().filter_map(|monitored| monitored.lags.due(self.stale_after)).min();
            let due = due.into_iter().chain(self.health.due()).min();
            let wait = due.map_or(longest, |due| due.saturating_duration_since(Instant::now()));
            tokio::time::sleep(wait.clamp(MIN_WAIT, longest)).await;
            let time = now();
            self.health.evaluate_if_asking(time.0);
            for monitored in self.monitored().iter_mut() {
                let Some(reading) = monitored.reading.upgrade() else { continue };
                let samples = samples(&reading);
                if let Some(lags) = monitored.lags.evaluate_overdue(&samples, time, self.stale_after) {
                    // OK to ignore: the reader may be gone.
                    let _ = monitored.events.send(Ok(TopicEvent::Lags(lags)));
                }
            }
        }
    }

    /// Checks the topics, for ever.
    pub(in crate::log::kafka) async fn run(&self) {
        let every = CHECK_EVERY.min(self.stale_after / 3);
        let request_timeout = every.max(Duration::from_millis(500));
        for check in 0_usize.. {
            // OK to ignore: both outcomes are reasons to check.
            let _ = within(every, self.health.wait_for_check_request()).await;
            let mut names = self.names();
            self.health.set_asking(!names.is_empty());
            if names.is_empty() {
                self.health.recover(Instant::now());
            }
            // Asking with another client shows whether the cluster is silent, or only the producer.
            let unanswered = self.writing.silent_topic(self.stale_after);
            // A request that names a topic twice is refused.
            names.extend(unanswered.filter(|name| !names.contains(name)));
            if names.is_empty() {
                continue;
            }
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            match self.control.describe_topics(&names, request_timeout).await {
                Ok(topics) => {
                    let leaderless = leaderless(&topics);
                    self.compare(topics, request_timeout).await;
                    let wants_starts = check % CHECKS_PER_START_REQUEST == 0;
                    self.sample(&leaderless, wants_starts, request_timeout).await;
                    // Lags are reported first: the outage is not over before they are known.
                    self.health.recover(Instant::now());
                    self.writing.replace_stuck(self.stale_after).await;
                }
                Err(error) => {
                    tracing::debug!("{error}");
                    self.replace_control().await;
                    let none = HashMap::new();
                    self.evaluate_all(self.readings(), &none, &none, now(), Refresh::No);
                }
            }
        }
    }

    /// Replaces the control client if it has had no answer for long: the client may be the cause, and
    /// not the cluster.
    async fn replace_control(&self) {
        let now = Instant::now();
        if self.health.silence(now) < self.stale_after / 2 || !self.may_replace_control(now) {
            return;
        }
        let control = self.control.clone();
        let replace = tokio::task::spawn_blocking(move || control.replace_client());
        if let Ok(Err(error)) = replace.await {
            tracing::debug!("{error}");
        }
    }

    /// Whether the control client was not replaced lately. Counts the caller as replacing it.
    fn may_replace_control(&self, now: Instant) -> bool {
        let mut replaced = lock(&self.replaced);
        let is_due = replaced.is_none_or(|last| now.saturating_duration_since(last) >= self.stale_after);
        if is_due {
            *replaced = Some(now);
        }
        is_due
    }

    /// The topics that are read, each once.
    fn names(&self) -> Vec<Arc<str>> {
        let mut monitored = self.monitored();
        monitored.retain(|monitored| !monitored.events.is_closed() && monitored.reading.strong_count() > 0);
        let names = monitored.iter().filter_map(|monitored| Some(monitored.reading.upgrade()?.topic.clone()));
        let mut names: Vec<Arc<str>> = names.collect();
        names.sort();
        names.dedup();
        names
    }

    /// Compares the topics with what is read of them.
    async fn compare(&self, topics: Vec<(String, Result<DescribedTopic, LogError>)>, timeout: Duration) {
        for (name, topic) in topics {
            match topic {
                Ok(topic) => self.add_partitions(&self.end_replaced(&topic), &topic, timeout).await,
                Err(LogError::UnknownTopic { log, topic }) => self.end_missing(log, topic),
                Err(error @ LogError::Denied { .. }) => self.end(&name, &error),
                Err(error) => tracing::debug!(topic = name, "{error}"),
            }
        }
    }

    /// Ends the readings of earlier topics with the name of this one; returns the readings of this one.
    fn end_replaced(&self, topic: &DescribedTopic) -> Vec<(Arc<Reading>, Partition, TopicEvents)> {
        let mut same = Vec::new();
        self.monitored().retain_mut(|monitored| {
            let Some(reading) = monitored.reading.upgrade().filter(|reading| *reading.topic == *topic.name)
            else {
                return true;
            };
            monitored.is_missing = false;
            if reading.id == topic.id {
                monitored.topic_partitions = topic.partitions;
                same.push((reading, monitored.partitions, monitored.events.clone()));
                return true;
            }
            // OK to ignore: the reader may be gone.
            let _ = monitored.events.send(Err(replaced_error(&topic.name)));
            false
        });
        same
    }

    /// Ends the readings of a topic.
    fn end(&self, topic: &str, error: &LogError) {
        self.monitored().retain(|monitored| {
            let other = monitored.reading.upgrade().is_none_or(|reading| *reading.topic != *topic);
            if !other {
                // OK to ignore: the reader may be gone.
                let _ = monitored.events.send(Err(error.clone()));
            }
            other
        });
    }

    /// Ends the readings of a topic that was missing at two checks: a broker that has just started may
    /// not know it yet.
    fn end_missing(&self, log: String, topic: String) {
        self.monitored().retain_mut(|monitored| {
            if monitored.reading.upgrade().is_none_or(|reading| *reading.topic != *topic) {
                return true;
            }
            if monitored.is_missing {
                let error = LogError::UnknownTopic { log: log.clone(), topic: topic.clone() };
                // OK to ignore: the reader may be gone.
                let _ = monitored.events.send(Err(error));
            }
            !std::mem::replace(&mut monitored.is_missing, true)
        });
    }

    /// Reads the partitions that were added to a topic, from their first record. If no broker knows one,
    /// it and those after it are tried again at the next check.
    async fn add_partitions(
        &self,
        readings: &[(Arc<Reading>, Partition, TopicEvents)],
        topic: &DescribedTopic,
        timeout: Duration,
    ) {
        for (reading, known, streams) in readings {
            let ranges = self.control.known_ranges(&reading.topic, *known..topic.partitions, timeout).await;
            let Some(last) = ranges.last() else { continue };
            let partitions = last.partition + 1;
            tracing::info!(topic = topic.name, partitions, "partitions were added");
            let (feeds, new): (Vec<Feed>, Vec<PartitionStream>) =
                ranges.into_iter().map(|range| Feed::new(reading, range)).unzip();
            for stream in new {
                // OK to ignore: the reader may be gone.
                let _ = streams.send(Ok(TopicEvent::Partition(stream)));
            }
            let tails = self.tails.clone();
            // Starting a client blocks.
            let adopt = tokio::task::spawn_blocking(move || tails.adopt(feeds, Refresh::Yes));
            // It ends early only with its runtime.
            let _ = adopt.await;
            for monitored in self.monitored().iter_mut() {
                if monitored.is_of(reading) {
                    monitored.partitions = partitions;
                }
            }
        }
    }

    /// Samples the end offsets of all partitions, and sometimes their first offsets.
    async fn sample(&self, leaderless: &BTreeSet<TopicPartition>, wants_starts: bool, timeout: Duration) {
        let (readings, asked) = (self.readings(), now());
        let of_reading = |(reading, sample): &(Arc<Reading>, Vec<PartitionSample>)| {
            sample.iter().map(|sample| (reading.topic.clone(), sample.partition)).collect::<Vec<_>>()
        };
        let places: BTreeSet<TopicPartition> = readings.iter().flat_map(of_reading).collect();
        let led: BTreeSet<TopicPartition> = places.difference(leaderless).cloned().collect();
        let ends = self.ends(&led, timeout).await;
        let suspects = self.suspects(&ends, asked);
        let stable = self.control.known_offsets(&suspects, OffsetKind::LastStable, timeout).await;
        let stable = stable.unwrap_or_default();
        if wants_starts && let Ok(starts) = self.control.known_offsets(&led, OffsetKind::First, timeout).await
        {
            set_starts(&readings, &starts);
        }
        self.evaluate_all(readings, &ends, &stable, asked, Refresh::Yes);
    }

    /// Compares the positions of all readings with the end offsets, as far as they are known.
    fn evaluate_all(
        &self,
        readings: Vec<(Arc<Reading>, Vec<PartitionSample>)>,
        ends: &HashMap<TopicPartition, Offset>,
        stable: &HashMap<TopicPartition, Offset>,
        asked: SampleTime,
        refresh: Refresh,
    ) {
        for (reading, mut sample) in readings {
            for sample in &mut sample {
                let place = (reading.topic.clone(), sample.partition);
                (sample.end, sample.stable) = (ends.get(&place).copied(), stable.get(&place).copied());
            }
            self.evaluate(&reading, sample, asked, refresh);
        }
    }

    /// Requests end offsets. One leader that does not answer makes the whole request fail; then each topic
    /// is requested alone.
    async fn ends(
        &self,
        places: &BTreeSet<TopicPartition>,
        timeout: Duration,
    ) -> HashMap<TopicPartition, Offset> {
        if !self.requests_alone.load(Ordering::Relaxed) {
            match self.control.known_offsets(places, OffsetKind::End, timeout).await {
                Ok(ends) => return ends,
                Err(error) => tracing::debug!("{error}"),
            }
        }
        let mut topics: BTreeMap<&Arc<str>, BTreeSet<TopicPartition>> = BTreeMap::new();
        for place in places {
            topics.entry(&place.0).or_default().insert(place.clone());
        }
        let asked = topics.values().map(|led| self.control.known_offsets(led, OffsetKind::End, timeout));
        let answers = join_all(asked).await;
        self.requests_alone.store(answers.iter().any(Result::is_err), Ordering::Relaxed);
        answers.into_iter().flatten().flatten().collect()
    }

    /// Reports to a reading that its topic was truncated, or which partitions lag.
    fn evaluate(
        &self,
        reading: &Arc<Reading>,
        mut samples: Vec<PartitionSample>,
        asked: SampleTime,
        refresh: Refresh,
    ) {
        let cut = samples.iter().find_map(|sample| {
            let end = sample.end.filter(|&end| end < sample.read)?;
            Some(cut(&reading.topic, sample.partition, end, sample.read))
        });
        self.monitored().retain_mut(|monitored| {
            if !monitored.is_of(reading) {
                return true;
            }
            let stalled_before = monitored.lags.stalled();
            let event = match &cut {
                Some(error) => Some(Err(error.clone())),
                None => {
                    monitored.evaluate(&mut samples, asked, self.stale_after).map(TopicEvent::Lags).map(Ok)
                }
            };
            let stalled = monitored.lags.stalled();
            if refresh == Refresh::Yes {
                // While a topic is loaded, its loading client is responsible.
                let is_followed = reading.is_followed.load(Ordering::Relaxed);
                let waiting = samples.iter().filter(|sample| is_followed && sample.is_waiting());
                let waiting = waiting.map(|sample| (sample.partition, sample.read));
                let remedy = monitored.stuck.check(waiting, asked.0, self.stale_after);
                if remedy == Some(Remedy::Replace) {
                    self.tails.replace(reading);
                } else if remedy.is_some() || stalled.iter().any(|stalled| !stalled_before.contains(stalled))
                {
                    // The client may read from a broker that is no longer the leader.
                    self.tails.refresh(&reading.topic);
                }
            }
            // OK to ignore: the reader may be gone.
            event.map(|event| monitored.events.send(event));
            cut.is_none()
        });
    }

    /// All readings, with samples of their partitions.
    fn readings(&self) -> Vec<(Arc<Reading>, Vec<PartitionSample>)> {
        let monitored = self.monitored();
        let readings = monitored.iter().filter_map(|monitored| monitored.reading.upgrade());
        readings.map(|reading| (reading.clone(), samples(&reading))).collect()
    }

    /// The partitions that an open transaction may block.
    fn suspects(
        &self,
        ends: &HashMap<TopicPartition, Offset>,
        asked: SampleTime,
    ) -> BTreeSet<TopicPartition> {
        let mut suspects = BTreeSet::new();
        for monitored in self.monitored().iter() {
            let Some(reading) = monitored.reading.upgrade() else { continue };
            for sample in samples(&reading) {
                let place = (reading.topic.clone(), sample.partition);
                let sample = PartitionSample { end: ends.get(&place).copied(), ..sample };
                if sample.end.is_some()
                    && sample.is_behind()
                    && monitored.lags.is_suspect(&sample, asked, self.stale_after)
                {
                    suspects.insert(place);
                }
            }
        }
        suspects
    }

    /// How far each partition of a topic was read, by the reading that is farthest.
    pub(in crate::log::kafka) fn positions(&self, topic: &TopicDescription) -> HashMap<Partition, Offset> {
        let mut farthest = HashMap::new();
        for (reading, sample) in self.readings() {
            if *reading.topic == *topic.name && reading.id == topic.id {
                for PartitionSample { partition, read, .. } in sample {
                    let known = farthest.entry(partition).or_insert(read);
                    *known = read.max(*known);
                }
            }
        }
        farthest
    }

    fn monitored(&self) -> std::sync::MutexGuard<'_, Vec<Monitored>> {
        lock(&self.monitored)
    }
}

/// Sets the first offsets of partitions, which their feeds report.
fn set_starts(readings: &[(Arc<Reading>, Vec<PartitionSample>)], starts: &HashMap<TopicPartition, Offset>) {
    for (reading, _) in readings {
        for place in reading.progress() {
            if let Some(&start) = starts.get(&(reading.topic.clone(), place.partition)) {
                place.start.store(start, Ordering::Relaxed);
            }
        }
    }
}

/// The partitions that have no leader.
fn leaderless(topics: &[(String, Result<DescribedTopic, LogError>)]) -> BTreeSet<TopicPartition> {
    let described = topics.iter().filter_map(|(_, topic)| topic.as_ref().ok());
    let partitions = described.flat_map(|topic| topic.leaderless.iter().map(|&number| (&topic.name, number)));
    partitions.map(|(name, number)| (name.as_str().into(), number)).collect()
}

/// The error of a topic that ends before what was read of it.
pub(in crate::log::kafka) fn truncated(
    topic: &str,
    positions: &HashMap<Partition, Offset>,
    ends: &[(Partition, Offset)],
) -> Option<LogError> {
    ends.iter().find_map(|&(partition, end)| {
        let position = *positions.get(&partition).filter(|&&position| end < position)?;
        Some(cut(topic, partition, end, position))
    })
}

fn cut(topic: &str, partition: Partition, end: Offset, position: Offset) -> LogError {
    let reason = format!("the log was truncated: it ends at {end}, and was read up to {position}");
    LogError::Replaced { topic: topic.to_owned(), partition, reason }
}
