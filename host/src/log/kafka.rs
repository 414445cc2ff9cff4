//! `kafka://HOST:PORT,…`, Apache Kafka and what speaks its protocol, through
//! librdkafka.
//!
//! Behind a cluster stand three kinds of clients, each polled by a thread of its
//! own:
//!
//! - the *control* client asks for topics and offsets. It consumes nothing, because
//!   a broker answers a connection's requests in turn, and an answer must not wait
//!   behind a fetch;
//! - *loading* clients read a topic from its first offset, fast, one for each topic
//!   that is being loaded, within a budget of memory for the whole process;
//! - the *tail* client follows all topics that are loaded.
//!
//! A fourth writes, from the first write on. Threads and connections grow with
//! clusters, not with tables. The only place that names librdkafka.

mod admin;
mod client;
mod config;
mod control;
mod error;
mod event;
mod feed;
mod heard;
mod load;
mod monitor;
mod produce;
mod reader;
mod tail;
mod token;
mod transaction;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::sync::{mpsc, oneshot};

use crate::log::{
    Ack, Delivery, Headers, Health, Isolation, Log, LogError, LogOptions, NewRecord, NewTopic, Offset,
    OffsetRange, Partition, TopicDescription, TopicNews, TopicStream, Unacknowledged,
};
use config::{Configs, Purpose};
use control::Control;
use feed::{Feed, Reading};
use heard::Heard;
use load::Loading;
use monitor::{Monitor, truncated};
use produce::Producer;
use tail::{Refresh, Tails};
use transaction::Transactions;

/// A Kafka cluster.
#[derive(Debug)]
pub struct KafkaLog {
    url: Arc<str>,
    configs: Arc<Configs>,
    heard: Arc<Heard>,
    control: Arc<Control>,
    loading: Loading,
    monitor: Arc<Monitor>,
    /// A std lock: held to take the client, or to start one.
    writing: Mutex<Writing>,
    /// What writes in transactions, from the first on. Held through a transaction.
    transactions: Arc<tokio::sync::Mutex<Option<Transactions>>>,
    background: tokio::runtime::Handle,
    /// Dropped with the log, which ends the background.
    _end: oneshot::Sender<()>,
}

impl KafkaLog {
    /// The cluster that these brokers (`HOST:PORT,…`) lead to. That it cannot be
    /// reached shows when something is asked.
    ///
    /// # Errors
    ///
    /// [`LogError::Property`] if an option is of no use, [`LogError::Client`] if no
    /// client can be started with them.
    pub fn open(brokers: &str, options: LogOptions) -> Result<Self, LogError> {
        let url: Arc<str> = format!("kafka://{brokers}").into();
        let configs = Arc::new(Configs::new(brokers, options)?);
        let stale_after = configs.options().stale_after;
        let heard = Arc::new(Heard::new(stale_after));
        let control = Arc::new(Control::start(&configs, url.clone(), heard.clone())?);
        let tails = Arc::new(Tails::new(configs.clone(), url.clone(), heard.clone()));
        let monitor = Arc::new(Monitor::new(control.clone(), tails.clone(), heard.clone(), stale_after));
        let (background, end) = background(&url, monitor.clone())?;
        let loading = Loading { configs: configs.clone(), log: url.clone(), heard: heard.clone(), tails };
        let writing = Mutex::default();
        let transactions = Arc::default();
        Ok(Self {
            url,
            configs,
            heard,
            control,
            loading,
            monitor,
            writing,
            transactions,
            background,
            _end: end,
        })
    }

    /// The client that writes to this topic. One that is dead, or that knows another
    /// topic of the name (and may stick to where that one was), is replaced.
    fn producer(&self, topic: &TopicDescription) -> Result<Arc<Producer>, LogError> {
        // OK because nothing panics while it holds the lock.
        let mut writing = self.writing.lock().expect("not poisoned");
        let known = writing.ids.entry(topic.name.clone()).or_default();
        let replaced = !known.is_empty() && !known.contains(&topic.id);
        if !known.contains(&topic.id) {
            known.push(topic.id.clone());
        }
        if let Some(producer) = writing.producer.as_ref().filter(|producer| !replaced && !producer.is_dead())
        {
            return Ok(producer.clone());
        }
        let (configs, url, heard) = (&self.configs, self.url.clone(), self.heard.clone());
        let new = Arc::new(Producer::start(configs, Purpose::Produce, url, heard)?);
        if let Some(old) = writing.producer.replace(new.clone()) {
            writing.retired.retain(|retired| retired.strong_count() > 0);
            writing.retired.push(Arc::downgrade(&old));
            Producer::retire(old);
        }
        Ok(new)
    }
}

/// Fails if a record is for a partition that the topic has not.
fn check_partition(topic: &TopicDescription, record: &NewRecord) -> Result<(), LogError> {
    match record.partition.filter(|number| !(0..topic.partitions).contains(number)) {
        None => Ok(()),
        Some(partition) => {
            let (topic, partitions) = (topic.name.clone(), topic.partitions);
            Err(LogError::UnknownPartition { topic, partition, partitions })
        }
    }
}

/// What writes, from the first write on.
#[derive(Debug, Default)]
struct Writing {
    producer: Option<Arc<Producer>>,
    /// Those that were replaced, while they have something.
    retired: Vec<Weak<Producer>>,
    /// The identities that topics had when they were written to.
    ids: HashMap<String, Vec<String>>,
}

/// A runtime on a thread of its own, for what a cluster does by itself: it must go on
/// whatever becomes of the runtime that opened the log.
fn background(
    url: &str,
    monitor: Arc<Monitor>,
) -> Result<(tokio::runtime::Handle, oneshot::Sender<()>), LogError> {
    let failed = |error| LogError::Client { log: url.to_owned(), reason: format!("no thread: {error}") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    let (end, ended) = oneshot::channel();
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                // An error means that the log was dropped.
                _ = ended => {}
                () = monitor.run() => {}
            }
        });
    };
    crate::thread::spawn("ktables-monitor", run).map_err(failed)?;
    Ok((handle, end))
}

#[async_trait]
impl Log for KafkaLog {
    fn url(&self) -> &str {
        &self.url
    }

    fn isolation(&self) -> Isolation {
        self.configs.options().isolation
    }

    fn health(&self) -> Health {
        self.heard.health()
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
        // Whoever made it, it is there from now on.
        let topic = self.control.appear(topic).await?;
        exists.map_or(Ok(topic), Err)
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
        let ends = ends.and_then(|ends| match truncated(&topic.name, &before, &ends) {
            None => Ok(ends),
            Some(error) => Err(error),
        });
        match &ends {
            Ok(ends) => {
                self.loading.tails.hurry(&topic.name, ends);
                if !before.is_empty() && ends.len() > before.len() {
                    self.heard.look();
                }
            }
            Err(LogError::Replaced { .. }) => self.heard.look(),
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
        let (sender, streams) = mpsc::unbounded_channel();
        let mut feeds = Vec::with_capacity(from.len());
        for &range in from {
            let (feed, stream) = Feed::new(&reading, range);
            feeds.push(feed);
            // The receiver is here.
            let _ = sender.send(Ok(TopicNews::Partition(stream)));
        }
        // OK because a topic's partitions are numbered by 32 bits.
        let partitions = Partition::try_from(from.len()).expect("few enough");
        self.monitor.watch_over(&reading, partitions, sender);
        if feeds.iter().all(|feed| feed.target <= feed.position()) {
            self.loading.tails.adopt(feeds, Refresh::No);
        } else {
            self.background.spawn(self.loading.clone().load(feeds));
        }
        Ok(unfold(streams, |mut streams| async { streams.recv().await.map(|stream| (stream, streams)) })
            .boxed())
    }

    async fn send(&self, topic: &TopicDescription, record: NewRecord) -> Result<Delivery, LogError> {
        check_partition(topic, &record)?;
        self.producer(topic)?.send(topic, &record).await
    }

    async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError> {
        records.iter().try_for_each(|record| check_partition(topic, record))?;
        let options = self.configs.options();
        if !options.idempotence {
            let reason = "transactions, which write many records as one, rest on it: leave it on".to_owned();
            return Err(LogError::Property { name: "idempotence".to_owned(), reason });
        }
        let (configs, url, heard) = (self.configs.clone(), self.url.clone(), self.heard.clone());
        let (topic, mut current) = (topic.clone(), self.transactions.clone().lock_owned().await);
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            if current.as_ref().is_some_and(Transactions::is_dead) {
                *current = None;
            }
            let transactions = match &mut *current {
                Some(transactions) => transactions,
                none => {
                    let producer = Producer::start(&configs, Purpose::Transact, url.clone(), heard)?;
                    none.insert(Transactions::start(producer, &url, &topic.name)?)
                }
            };
            transactions.write(&topic, &records, &runtime).map_err(|failed| {
                if failed.is_client_dead {
                    *current = None;
                }
                failed.error
            })
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(LogError::Closed))
    }

    async fn flush(&self, patience: Duration) -> Vec<Unacknowledged> {
        let producers: Vec<_> = {
            // OK because nothing panics while it holds the lock.
            let writing = self.writing.lock().expect("not poisoned");
            writing.retired.iter().filter_map(Weak::upgrade).chain(writing.producer.clone()).collect()
        };
        let flush = move || {
            let until = Instant::now() + patience;
            let left = || until.saturating_duration_since(Instant::now());
            producers.iter().flat_map(|producer| producer.flush(left())).collect()
        };
        tokio::task::spawn_blocking(flush).await.unwrap_or_default()
    }
}
