//! Watching over the topics that are read: partitions that are added, topics that
//! are made anew, and whether the cluster answers at all.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::log::kafka::admin::Described;
use crate::log::kafka::control::{Control, replaced};
use crate::log::kafka::feed::{Feed, Reading};
use crate::log::kafka::heard::Heard;
use crate::log::kafka::tail::{Refresh, Tails};
use crate::log::{LogError, Partition, PartitionStream};

/// How often to ask what has become of the topics. One request for all of them.
const EVERY: Duration = Duration::from_secs(3);

/// What comes of a reading: a stream for each partition.
pub(super) type Streams = mpsc::UnboundedSender<Result<PartitionStream, LogError>>;

/// A reading that is watched over.
#[derive(Debug)]
struct Watched {
    reading: Weak<Reading>,
    partitions: Partition,
    streams: Streams,
    /// The topic was not there when asked last.
    missing: bool,
}

/// What a cluster's monitor knows and needs.
#[derive(Debug)]
pub(super) struct Monitor {
    control: Arc<Control>,
    tails: Arc<Tails>,
    heard: Arc<Heard>,
    stale_after: Duration,
    /// A std lock: held to look or to change, never across a question.
    watched: Mutex<Vec<Watched>>,
}

impl Monitor {
    pub(super) fn new(
        control: Arc<Control>,
        tails: Arc<Tails>,
        heard: Arc<Heard>,
        stale_after: Duration,
    ) -> Self {
        Self { control, tails, heard, stale_after, watched: Mutex::default() }
    }

    pub(super) fn watch_over(&self, reading: &Arc<Reading>, partitions: Partition, streams: Streams) {
        let watched = Watched { reading: Arc::downgrade(reading), partitions, streams, missing: false };
        self.watched().push(watched);
    }

    /// Looks for ever.
    pub(super) async fn run(&self) {
        let every = EVERY.min(self.stale_after / 3);
        loop {
            // Either is a reason to look.
            let _ = timeout(every, self.heard.looked_at()).await;
            let names = self.names();
            if names.is_empty() {
                continue;
            }
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            match self.control.topics(&names, every.max(Duration::from_millis(500))).await {
                Ok(topics) => self.compare(topics).await,
                Err(error) => tracing::debug!("{error}"),
            }
            self.heard.judge();
        }
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

    async fn compare(&self, topics: Vec<(String, Result<Described, LogError>)>) {
        for (name, topic) in topics {
            match topic {
                Ok(topic) => self.grow(&self.end_others(&topic), &topic).await,
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

    /// Reads the partitions that were added to a topic, from their first record.
    async fn grow(&self, readings: &[(Arc<Reading>, Partition, Streams)], topic: &Described) {
        for (reading, known, streams) in readings {
            if topic.partitions <= *known {
                continue;
            }
            let ranges = match self.control.ranges(&topic.name, *known..topic.partitions).await {
                Ok(ranges) => ranges,
                // They are there at the next look.
                Err(error) => {
                    tracing::debug!(topic = topic.name, "{error}");
                    continue;
                }
            };
            tracing::info!(topic = topic.name, partitions = topic.partitions, "partitions were added");
            let (feeds, new): (Vec<Feed>, Vec<PartitionStream>) =
                ranges.into_iter().map(|range| Feed::new(reading, range)).unzip();
            for stream in new {
                // Fails if nobody reads any more.
                let _ = streams.send(Ok(stream));
            }
            self.tails.adopt(feeds, Refresh::Yes);
            for watched in self.watched().iter_mut() {
                if std::ptr::eq(watched.reading.as_ptr(), Arc::as_ptr(reading)) {
                    watched.partitions = topic.partitions;
                }
            }
        }
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, Vec<Watched>> {
        // OK because nothing panics while it holds the lock.
        self.watched.lock().expect("not poisoned")
    }
}
