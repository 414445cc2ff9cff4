//! Watching over the topics that are read: partitions that are added, topics that
//! are made anew or truncated, partitions that lag, records that are deleted, and
//! whether the cluster answers at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::log::kafka::control::{Control, replaced};
use crate::log::kafka::ffi::admin::{Described, End};
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::health::stuck::{Cure, Stuck};
use crate::log::kafka::read::feed::{Feed, Progress, Reading};
use crate::log::kafka::read::tail::{Refresh, Tails};
use crate::log::kafka::write::writing::Writing;
use crate::log::lag::{Pace, SampleTime, Seen, now};
use crate::log::{Lag, LogError, Offset, Partition, PartitionStream, TopicDescription, TopicEvent};
use crate::sync::lock;

/// How often to ask what has become of the topics. One request for all of them.
const EVERY: Duration = Duration::from_secs(3);

/// At every how many looks to ask where partitions begin, which only retention moves.
const STARTS_EVERY: usize = 5;

/// The shortest wait for something that is due.
const SHORTEST: Duration = Duration::from_millis(10);

/// What is told of a reading: a stream for each partition, and which of them lag.
pub(in crate::log::kafka) type Streams = mpsc::UnboundedSender<Result<TopicEvent, LogError>>;

/// A partition of a topic.
type Place = (Arc<str>, Partition);

/// A reading that is watched over.
#[derive(Debug)]
struct Watched {
    reading: Weak<Reading>,
    /// How many partitions are read.
    partitions: Partition,
    /// How many the topic has.
    there: Partition,
    streams: Streams,
    /// The topic was not there when asked last.
    missing: bool,
    pace: Pace,
    stuck: Stuck,
}

impl Watched {
    fn is_of(&self, reading: &Arc<Reading>) -> bool {
        std::ptr::eq(self.reading.as_ptr(), Arc::as_ptr(reading))
    }

    /// Takes a look, also at the partitions that nobody tells of.
    fn look(&mut self, seen: &mut Vec<Seen>, asked: SampleTime, patience: Duration) -> Option<Vec<Lag>> {
        let unread = self.partitions..self.there;
        seen.extend(unread.map(Seen::unread));
        self.pace.look(seen, asked, patience)
    }
}

/// What a cluster's monitor knows and needs.
#[derive(Debug)]
pub(in crate::log::kafka) struct Monitor {
    control: Arc<Control>,
    tails: Arc<Tails>,
    writing: Arc<Writing>,
    health: Arc<ClusterHealth>,
    /// How long the cluster may be silent, or a partition lag, before that is told: somewhat less
    /// than is promised.
    patience: Duration,
    /// When the client that asks was replaced last.
    replaced: Mutex<Option<Instant>>,
    /// One question for all ends failed last.
    apart: AtomicBool,
    /// A std lock: held to look or to change, never across a question.
    watched: Mutex<Vec<Watched>>,
}

impl Monitor {
    pub(in crate::log::kafka) fn new(
        control: Arc<Control>,
        tails: Arc<Tails>,
        writing: Arc<Writing>,
        health: Arc<ClusterHealth>,
        patience: Duration,
    ) -> Self {
        let (apart, watched, replaced) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        Self { control, tails, writing, health, patience, replaced, apart, watched }
    }

    pub(in crate::log::kafka) fn watch_over(
        &self,
        reading: &Arc<Reading>,
        partitions: Partition,
        streams: Streams,
    ) {
        self.health.set_asking(true);
        let (pace, stuck) = (Pace::since(now()), Stuck::default());
        let (reading, there) = (Arc::downgrade(reading), partitions);
        self.watched().push(Watched { reading, partitions, there, streams, missing: false, pace, stuck });
    }

    /// Tells in time what must be told though nobody answers, for ever.
    pub(in crate::log::kafka) async fn keep_time(&self) {
        // Between two looks nothing becomes due sooner than this.
        let longest = EVERY.min(self.patience / 3);
        loop {
            let due = self.watched().iter().filter_map(|watched| watched.pace.due(self.patience)).min();
            let due = due.into_iter().chain(self.health.due()).min();
            let wait = due.map_or(longest, |due| due.saturating_duration_since(Instant::now()));
            tokio::time::sleep(wait.clamp(SHORTEST, longest)).await;
            let moment = now();
            self.health.evaluate_if_asking(moment.0);
            for watched in self.watched().iter_mut() {
                let Some(reading) = watched.reading.upgrade() else { continue };
                if let Some(lags) = watched.pace.overdue(&progress(&reading), moment, self.patience) {
                    // Fails if nobody reads any more.
                    let _ = watched.streams.send(Ok(TopicEvent::Lags(lags)));
                }
            }
        }
    }

    /// Looks for ever.
    pub(in crate::log::kafka) async fn run(&self) {
        let every = EVERY.min(self.patience / 3);
        let patience = every.max(Duration::from_millis(500));
        for look in 0_usize.. {
            // Either is a reason to look.
            let _ = timeout(every, self.health.check_requested()).await;
            let mut names = self.names();
            self.health.set_asking(!names.is_empty());
            if names.is_empty() {
                self.health.recover(Instant::now());
            }
            // Whether it is the cluster or the client that is silent, another client finds out.
            let unanswered = self.writing.unanswered(self.patience);
            // A question names a topic once, or is refused.
            names.extend(unanswered.filter(|name| !names.contains(name)));
            if names.is_empty() {
                continue;
            }
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            match self.control.topics(&names, patience).await {
                Ok(topics) => {
                    let leaderless = leaderless(&topics);
                    self.compare(topics, patience).await;
                    self.measure(&leaderless, look % STARTS_EVERY == 0, patience).await;
                    // What lags is told before: the silence is not over until that is known.
                    self.health.recover(Instant::now());
                    self.writing.replace_stuck(self.patience).await;
                }
                Err(error) => {
                    tracing::debug!("{error}");
                    self.replace_asking().await;
                    let nobody = HashMap::new();
                    self.judge_all(self.readings(), &nobody, &nobody, now(), Refresh::No);
                }
            }
        }
    }

    /// Goes on with another client that asks, if this one has had no answer for long: it may be
    /// the client, and not the cluster.
    async fn replace_asking(&self) {
        let moment = Instant::now();
        if self.health.silence(moment) < self.patience / 2 || !self.may_replace(moment) {
            return;
        }
        let control = self.control.clone();
        let replace = tokio::task::spawn_blocking(move || control.replace_client());
        if let Ok(Err(error)) = replace.await {
            tracing::debug!("{error}");
        }
    }

    /// Whether the client that asks was not replaced lately; it will be now.
    fn may_replace(&self, moment: Instant) -> bool {
        let mut replaced = lock(&self.replaced);
        let is_due = replaced.is_none_or(|last| moment.saturating_duration_since(last) >= self.patience);
        if is_due {
            *replaced = Some(moment);
        }
        is_due
    }

    /// The topics that are read, each once.
    fn names(&self) -> Vec<Arc<str>> {
        let mut watched = self.watched();
        watched.retain(|watched| !watched.streams.is_closed() && watched.reading.strong_count() > 0);
        let names = watched.iter().filter_map(|watched| Some(watched.reading.upgrade()?.topic.clone()));
        let mut names: Vec<Arc<str>> = names.collect();
        names.sort();
        names.dedup();
        names
    }

    async fn compare(&self, topics: Vec<(String, Result<Described, LogError>)>, patience: Duration) {
        for (name, topic) in topics {
            match topic {
                Ok(topic) => self.grow(&self.end_others(&topic), &topic, patience).await,
                Err(LogError::UnknownTopic { log, topic }) => self.end_missing(log, topic),
                Err(error @ LogError::Denied { .. }) => self.end(&name, &error),
                Err(error) => tracing::debug!(topic = name, "{error}"),
            }
        }
    }

    /// Ends the readings of topics that had this name; gives back those of this one.
    fn end_others(&self, topic: &Described) -> Vec<(Arc<Reading>, Partition, Streams)> {
        let mut same = Vec::new();
        self.watched().retain_mut(|watched| {
            let Some(reading) = watched.reading.upgrade().filter(|reading| *reading.topic == *topic.name)
            else {
                return true;
            };
            watched.missing = false;
            if reading.id == topic.id {
                watched.there = topic.partitions;
                same.push((reading, watched.partitions, watched.streams.clone()));
                return true;
            }
            // Fails if nobody reads any more.
            let _ = watched.streams.send(Err(replaced(&topic.name)));
            false
        });
        same
    }

    /// Ends the readings of a topic.
    fn end(&self, topic: &str, error: &LogError) {
        self.watched().retain(|watched| {
            let other = watched.reading.upgrade().is_none_or(|reading| *reading.topic != *topic);
            if !other {
                // Fails if nobody reads any more.
                let _ = watched.streams.send(Err(error.clone()));
            }
            other
        });
    }

    /// Ends the readings of a topic that is gone. Once does not count: a broker that
    /// has just started may not know it yet.
    fn end_missing(&self, log: String, topic: String) {
        self.watched().retain_mut(|watched| {
            if watched.reading.upgrade().is_none_or(|reading| *reading.topic != *topic) {
                return true;
            }
            if watched.missing {
                let error = LogError::UnknownTopic { log: log.clone(), topic: topic.clone() };
                // Fails if nobody reads any more.
                let _ = watched.streams.send(Err(error));
            }
            !std::mem::replace(&mut watched.missing, true)
        });
    }

    /// Reads the partitions that were added to a topic, from their first record. One that no
    /// broker tells of, and those behind it, are asked for again at the next look.
    async fn grow(
        &self,
        readings: &[(Arc<Reading>, Partition, Streams)],
        topic: &Described,
        patience: Duration,
    ) {
        for (reading, known, streams) in readings {
            let ranges = self.control.told_ranges(&reading.topic, *known..topic.partitions, patience).await;
            let Some(last) = ranges.last() else { continue };
            let partitions = last.partition + 1;
            tracing::info!(topic = topic.name, partitions, "partitions were added");
            let (feeds, new): (Vec<Feed>, Vec<PartitionStream>) =
                ranges.into_iter().map(|range| Feed::new(reading, range)).unzip();
            for stream in new {
                // Fails if nobody reads any more.
                let _ = streams.send(Ok(TopicEvent::Partition(stream)));
            }
            let tails = self.tails.clone();
            // Starting a client blocks.
            let adopt = tokio::task::spawn_blocking(move || tails.adopt(feeds, Refresh::Yes));
            // It ends early only with its runtime.
            let _ = adopt.await;
            for watched in self.watched().iter_mut() {
                if watched.is_of(reading) {
                    watched.partitions = partitions;
                }
            }
        }
    }

    /// Compares how far partitions are read with where they begin and end.
    async fn measure(&self, leaderless: &BTreeSet<Place>, starts: bool, patience: Duration) {
        let (readings, asked) = (self.readings(), now());
        let of_reading = |(reading, seen): &(Arc<Reading>, Vec<Seen>)| {
            seen.iter().map(|seen| (reading.topic.clone(), seen.partition)).collect::<Vec<_>>()
        };
        let places: BTreeSet<Place> = readings.iter().flat_map(of_reading).collect();
        let led: BTreeSet<Place> = places.difference(leaderless).cloned().collect();
        let ends = self.ends(&led, patience).await;
        let stable = self.control.told_ends(&self.suspects(&ends, asked), End::Stable, patience).await;
        let stable = stable.unwrap_or_default();
        if starts && let Ok(starts) = self.control.told_ends(&led, End::First, patience).await {
            tell_starts(&readings, &starts);
        }
        self.judge_all(readings, &ends, &stable, asked, Refresh::Yes);
    }

    /// Compares how far partitions are read with where they end, as far as that is told.
    fn judge_all(
        &self,
        readings: Vec<(Arc<Reading>, Vec<Seen>)>,
        ends: &HashMap<Place, Offset>,
        stable: &HashMap<Place, Offset>,
        asked: SampleTime,
        refresh: Refresh,
    ) {
        for (reading, mut seen) in readings {
            for seen in &mut seen {
                let place = (reading.topic.clone(), seen.partition);
                (seen.end, seen.stable) = (ends.get(&place).copied(), stable.get(&place).copied());
            }
            self.judge(&reading, seen, asked, refresh);
        }
    }

    /// Where partitions end. One leader that does not answer makes a whole question fail:
    /// then each topic is asked for alone, so that it hides no others.
    async fn ends(&self, places: &BTreeSet<Place>, patience: Duration) -> HashMap<Place, Offset> {
        if !self.apart.load(Ordering::Relaxed) {
            match self.control.told_ends(places, End::Last, patience).await {
                Ok(ends) => return ends,
                Err(error) => tracing::debug!("{error}"),
            }
        }
        let mut topics: BTreeMap<&Arc<str>, BTreeSet<Place>> = BTreeMap::new();
        for place in places {
            topics.entry(&place.0).or_default().insert(place.clone());
        }
        let asked = topics.values().map(|places| self.control.told_ends(places, End::Last, patience));
        let answers = join_all(asked).await;
        self.apart.store(answers.iter().any(Result::is_err), Ordering::Relaxed);
        answers.into_iter().flatten().flatten().collect()
    }

    /// Tells a reading that its topic was truncated, or what of it lags.
    fn judge(&self, reading: &Arc<Reading>, mut seen: Vec<Seen>, asked: SampleTime, refresh: Refresh) {
        let cut = seen.iter().find_map(|seen| {
            let end = seen.end.filter(|&end| end < seen.read)?;
            Some(cut(&reading.topic, seen.partition, end, seen.read))
        });
        self.watched().retain_mut(|watched| {
            if !watched.is_of(reading) {
                return true;
            }
            let stood = watched.pace.standing();
            let news = match &cut {
                Some(error) => Some(Err(error.clone())),
                None => watched.look(&mut seen, asked, self.patience).map(TopicEvent::Lags).map(Ok),
            };
            let stands = watched.pace.standing();
            if refresh == Refresh::Yes {
                // What is being loaded is up to its loader.
                let is_followed = reading.is_followed.load(Ordering::Relaxed);
                let waiting = seen.iter().filter(|seen| is_followed && seen.is_waiting());
                let waiting = waiting.map(|seen| (seen.partition, seen.read));
                let cure = watched.stuck.look(waiting, asked.0, self.patience);
                if cure == Some(Cure::Replace) {
                    self.tails.replace(reading);
                } else if cure.is_some() || stands.iter().any(|stands| !stood.contains(stands)) {
                    // Maybe it is read from a broker that does not lead it any more.
                    self.tails.refresh(&reading.topic);
                }
            }
            // Fails if nobody reads any more.
            news.map(|news| watched.streams.send(news));
            cut.is_none()
        });
    }

    /// What is read, and how far.
    fn readings(&self) -> Vec<(Arc<Reading>, Vec<Seen>)> {
        let watched = self.watched();
        let readings = watched.iter().filter_map(|watched| watched.reading.upgrade());
        readings.map(|reading| (reading.clone(), progress(&reading))).collect()
    }

    /// The partitions that a transaction may hold up.
    fn suspects(&self, ends: &HashMap<Place, Offset>, asked: SampleTime) -> BTreeSet<Place> {
        let mut suspects = BTreeSet::new();
        for watched in self.watched().iter() {
            let Some(reading) = watched.reading.upgrade() else { continue };
            for seen in progress(&reading) {
                let place = (reading.topic.clone(), seen.partition);
                let seen = Seen { end: ends.get(&place).copied(), ..seen };
                if seen.end.is_some()
                    && seen.is_behind()
                    && watched.pace.is_suspect(&seen, asked, self.patience)
                {
                    suspects.insert(place);
                }
            }
        }
        suspects
    }

    /// How far a topic is read, by whoever is farthest.
    pub(in crate::log::kafka) fn positions(&self, topic: &TopicDescription) -> HashMap<Partition, Offset> {
        let mut farthest = HashMap::new();
        for (reading, seen) in self.readings() {
            if *reading.topic == *topic.name && reading.id == topic.id {
                for Seen { partition, read, .. } in seen {
                    let known = farthest.entry(partition).or_insert(read);
                    *known = read.max(*known);
                }
            }
        }
        farthest
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, Vec<Watched>> {
        lock(&self.watched)
    }
}

/// How far each partition of a reading is; where it ends nobody was asked yet.
fn progress(reading: &Reading) -> Vec<Seen> {
    let seen = |place: &Arc<Progress>| Seen {
        read: place.position.load(Ordering::Relaxed),
        position: place.applied.get(),
        ..Seen::unread(place.partition)
    };
    reading.progress().iter().map(seen).collect()
}

/// Lets feeds tell where their partitions begin now.
fn tell_starts(readings: &[(Arc<Reading>, Vec<Seen>)], starts: &HashMap<Place, Offset>) {
    for (reading, _) in readings {
        for place in reading.progress() {
            if let Some(&start) = starts.get(&(reading.topic.clone(), place.partition)) {
                place.start.store(start, Ordering::Relaxed);
            }
        }
    }
}

/// The partitions that have no leader.
fn leaderless(topics: &[(String, Result<Described, LogError>)]) -> BTreeSet<Place> {
    let described = topics.iter().filter_map(|(_, topic)| topic.as_ref().ok());
    let partitions = described.flat_map(|topic| topic.leaderless.iter().map(|&number| (&topic.name, number)));
    partitions.map(|(name, number)| (name.as_str().into(), number)).collect()
}

/// That a topic ends before what was read of it, if so.
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
