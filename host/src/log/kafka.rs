//! `kafka://HOST:PORT,…`: Apache Kafka, and brokers that speak its protocol, through librdkafka. Nothing
//! outside of this module calls librdkafka.
//!
//! A cluster has these kinds of clients. Each but the first has a thread of its own that polls its event queue:
//!
//! - The *control client* describes and changes topics, and requests offsets. It consumes nothing, because a broker
//!   answers the requests of a connection in turn, and an answer must not wait behind a fetch. The background thread,
//!   which also monitors the topics, polls its queue.
//! - *Loading clients* read a topic fast, from the requested offsets to the end offsets, one for each topic that
//!   is being loaded, within a memory budget of the process.
//! - The *tail client* follows all loaded topics.
//! - *Producers* write, from the first write on: one for all topics that accept batches of the default size, one
//!   more for each smaller batch size (`max.message.bytes`), and one for transactions.
//!
//! Threads and connections grow with clusters, not with tables, except that each further table of the same
//! topic needs a tail client of its own.

mod config;
mod control;
mod error;
mod ffi;
mod health;
mod read;
mod write;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

use crate::log::{
    Ack, Appended, Delivery, Headers, Health, Isolation, Log, LogError, LogOptions, NewRecord, NewTopic,
    Offset, OffsetRange, Partition, TopicDescription, TopicStream, Unacknowledged,
};
use config::Configs;
use control::Control;
use health::cluster_health::ClusterHealth;
use health::monitor::{Monitor, find_truncation};
use health::monitored::TopicEvents;
use read::feed::{Feed, Reading};
use read::loader::Loader;
use read::tail::{Refresh, TailClients};
use write::cluster_writer::ClusterWriter;

/// A Kafka cluster.
#[derive(Debug)]
pub(in crate::log) struct KafkaLog {
    url: Arc<str>,
    configs: Arc<Configs>,
    health: Arc<ClusterHealth>,
    control: Arc<Control>,
    loader: Loader,
    monitor: Arc<Monitor>,
    writer: Arc<ClusterWriter>,
    background: Handle,
    /// Dropped with the log, which ends the background thread.
    _end: oneshot::Sender<()>,
}

impl KafkaLog {
    /// Opens the cluster of these brokers (`HOST:PORT,…`). Does not connect: the first request shows whether
    /// the cluster can be reached.
    ///
    /// # Errors
    ///
    /// [`LogError::InvalidProperty`] if an option is not valid, [`LogError::Client`] if no client can be
    /// started.
    pub(in crate::log) fn open(brokers: &str, options: LogOptions) -> Result<Self, LogError> {
        let url: Arc<str> = format!("kafka://{brokers}").into();
        let configs = Arc::new(Configs::new(brokers, options)?);
        // A little less than promised, because timers may be late.
        let stale_after = configs.options().stale_after * 19 / 20;
        let health = Arc::new(ClusterHealth::new(stale_after));
        let runtime = build_background(&url)?;
        let background = runtime.handle().clone();
        let control = Arc::new(Control::start(&configs, url.clone(), health.clone(), background.clone())?);
        let tails = Arc::new(TailClients::new(configs.clone(), url.clone(), health.clone()));
        let writer =
            Arc::new(ClusterWriter::new(configs.clone(), url.clone(), health.clone(), control.clone()));
        let isolation = configs.options().isolation;
        let monitor = Monitor::new(
            control.clone(),
            tails.clone(),
            writer.clone(),
            health.clone(),
            stale_after,
            isolation,
        );
        let monitor = Arc::new(monitor);
        let end = start_background(&url, runtime, monitor.clone())?;
        let loader = Loader { configs: configs.clone(), log: url.clone(), health: health.clone(), tails };
        Ok(Self { url, configs, health, control, loader, monitor, writer, background, _end: end })
    }
}

/// Checks that the topic has the partition of a record.
fn check_partition(topic: &TopicDescription, record: &NewRecord) -> Result<(), LogError> {
    match record.partition.filter(|number| !(0..topic.partitions).contains(number)) {
        None => Ok(()),
        Some(partition) => {
            let (topic, partitions) = (topic.name.clone(), topic.partitions);
            Err(LogError::UnknownPartition { topic, partition, partitions })
        }
    }
}

/// How long a thread for blocking requests is kept. Longer than the 3 s between two checks of the monitor, so that each
/// check finds one, and shorter than two, so that surplus threads end.
const KEEP_BLOCKING_THREADS: Duration = Duration::from_secs(4);

/// Builds the runtime for background work, which continues whatever happens to the runtime that opened the log.
fn build_background(url: &str) -> Result<Runtime, LogError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .thread_name("ktables-blocking")
        .thread_keep_alive(KEEP_BLOCKING_THREADS)
        .build();
    runtime.map_err(|error| cannot_start_thread(url, &error))
}

/// Runs the background work and the monitor on a thread of their own, until the returned sender is dropped.
fn start_background(
    url: &str,
    runtime: Runtime,
    monitor: Arc<Monitor>,
) -> Result<oneshot::Sender<()>, LogError> {
    let (end, ended) = oneshot::channel();
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                // An error means that the log was dropped.
                _ = ended => {}
                () = monitor.run() => {}
                () = monitor.report_outages() => {}
            }
        });
    };
    crate::thread::spawn("ktables-monitor", run).map_err(|error| cannot_start_thread(url, &error))?;
    Ok(end)
}

fn cannot_start_thread(url: &str, error: &std::io::Error) -> LogError {
    LogError::Client { log: url.to_owned(), reason: format!("cannot start a thread: {error}") }
}

#[async_trait]
impl Log for KafkaLog {
    fn url(&self) -> &str {
        &self.url
    }

    fn isolation(&self) -> Isolation {
        self.configs.options().isolation
    }

    fn stale_after(&self) -> Duration {
        self.monitor.stale_after()
    }

    fn health(&self) -> Health {
        self.health.health()
    }

    async fn describe(&self, topic: &str) -> Result<TopicDescription, LogError> {
        self.control.describe(topic).await
    }

    async fn create(&self, topic: &str, settings: NewTopic) -> Result<TopicDescription, LogError> {
        let exists = match self.control.create(topic, &settings).await {
            Ok(()) => None,
            Err(error @ LogError::TopicExists { .. }) => Some(error),
            Err(error) => return Err(error),
        };
        // Whoever created it, it exists now.
        let topic = self.control.wait_until_visible(topic).await?;
        exists.map_or(Ok(topic), Err)
    }

    async fn topics(&self) -> Result<Vec<String>, LogError> {
        self.control.topics().await
    }

    async fn delete(&self, topic: &str) -> Result<(), LogError> {
        self.control.delete(topic).await
    }

    async fn setting(&self, topic: &str, name: &str) -> Result<String, LogError> {
        self.control.setting(topic, name).await
    }

    async fn set_cleanup_policy(&self, topic: &str, policy: &str) -> Result<(), LogError> {
        self.control.set_cleanup_policy(topic, policy).await
    }

    async fn offsets(&self, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError> {
        self.control.offsets(topic).await
    }

    async fn end_offsets(&self, topic: &TopicDescription) -> Result<Vec<(Partition, Offset)>, LogError> {
        let before = self.monitor.positions(topic);
        let ends = self.control.end_offsets(topic).await;
        let ends = ends.and_then(|ends| match find_truncation(&topic.name, &before, &ends) {
            None => Ok(ends),
            Some(error) => Err(error),
        });
        match &ends {
            Ok(ends) => {
                self.loader.tails.request_positions(&topic.name, ends);
                if !before.is_empty() && ends.len() > before.len() {
                    self.health.request_check();
                }
            }
            Err(LogError::Replaced { .. }) => self.health.request_check(),
            Err(_) => {}
        }
        ends
    }

    async fn read(
        &self,
        topic: &TopicDescription,
        from: &[OffsetRange],
        headers: Headers,
    ) -> Result<TopicStream, LogError> {
        let reading = Arc::new(Reading::new(&topic.name, &topic.id, headers));
        let (events, stream) = TopicEvents::new();
        let mut feeds = Vec::with_capacity(from.len());
        for &range in from {
            let (feed, partition) = Feed::new(&reading, range);
            feeds.push(feed);
            events.add(partition);
        }
        // OK because a topic's partitions are numbered by 32 bits.
        let partitions = Partition::try_from(from.len()).expect("few enough");
        self.monitor.add(&reading, partitions, events);
        if feeds.iter().all(|feed| feed.target <= feed.position()) {
            reading.is_followed.store(true, Ordering::Relaxed);
            let tails = self.loader.tails.clone();
            // Starting a client blocks.
            self.background.spawn_blocking(move || tails.adopt(feeds, Refresh::No));
        } else {
            self.background.spawn(self.loader.clone().load(feeds));
        }
        Ok(stream)
    }

    async fn send(&self, topic: &TopicDescription, record: NewRecord) -> Result<Delivery, LogError> {
        check_partition(topic, &record)?;
        self.writer.send(topic, &record).await
    }

    async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError> {
        records.iter().try_for_each(|record| check_partition(topic, record))?;
        self.writer.send_atomically(topic, records).await
    }

    async fn append_at(
        &self,
        topic: &TopicDescription,
        partition: Partition,
        end: Offset,
        records: Vec<NewRecord>,
    ) -> Result<Option<Appended>, LogError> {
        let records: Vec<_> =
            records.into_iter().map(|record| NewRecord { partition: Some(partition), ..record }).collect();
        records.iter().try_for_each(|record| check_partition(topic, record))?;
        self.writer.append_at(topic, partition, end, records).await
    }

    async fn flush(&self, timeout: Duration) -> bool {
        self.writer.flush(timeout).await
    }

    async fn close(&self, timeout: Duration) -> Vec<Unacknowledged> {
        self.writer.close(timeout).await
    }
}
