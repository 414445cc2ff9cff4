//! Writes to a cluster: chooses the client for each topic, by the limits of the topic.
//!
//! A broker accepts or refuses a batch as a whole. So that no record is refused because of others in its
//! batch, the limits of a topic are requested before the first record is sent to it, and a client with
//! batches no larger than that writes to it. The limits are requested again when a broker refuses a record
//! that they allow.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use crate::log::kafka::config::{BatchSize, Configs, Purpose, TransactionalId};
use crate::log::kafka::control::Control;
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::health::stuck::ProducerAction;
use crate::log::kafka::write::producer::Producer;
use crate::log::kafka::write::target::{MAX_MESSAGE_BYTES, Target, TopicLimits};
use crate::log::kafka::write::transaction::Transactions;
use crate::log::{
    Ack, Appended, CLEANUP_POLICY, Delivery, LogError, NewRecord, Offset, Partition, TopicDescription,
    Unacknowledged,
};
use crate::sync::lock;

/// How long a request for the limits of a topic may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(3);

/// How long to wait for the marker that ends a transaction, and how long between two requests for it.
const MARKER_TIMEOUT: Duration = Duration::from_secs(2);
const MARKER_PAUSE: Duration = Duration::from_millis(20);

/// How long a probe of a producer may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The producers of a cluster, which start at the first write.
#[derive(Debug)]
pub(in crate::log::kafka) struct ClusterWriter {
    configs: Arc<Configs>,
    log: Arc<str>,
    health: Arc<ClusterHealth>,
    control: Arc<Control>,
    /// A std lock, held only to read, or to add or remove a client.
    state: Mutex<State>,
    /// Held for the time of a transaction.
    transactions: Arc<tokio::sync::Mutex<Transactions>>,
}

#[derive(Debug, Default)]
struct State {
    producers: HashMap<BatchSize, Arc<Producer>>,
    /// Producers that were replaced and still have outstanding records.
    retired: Vec<Weak<Producer>>,
    /// The topics that were written to, by name. A re-created topic adds another target to its name.
    targets: HashMap<String, Vec<Arc<Target>>>,
    /// The transactions of appends at an expected offset, by topic. Each is locked for the time of an append.
    appends: HashMap<String, Arc<tokio::sync::Mutex<Transactions>>>,
}

impl State {
    fn retire(&mut self, producer: Arc<Producer>) {
        self.retired.retain(|retired| retired.strong_count() > 0);
        self.retired.push(Arc::downgrade(&producer));
        Producer::retire(producer);
    }

    /// Returns the target of a topic: the known one, or a new one if its limits are outdated.
    fn target(&mut self, topic: &TopicDescription) -> Arc<Target> {
        let known = self.targets.get(&topic.name).map_or(&[][..], Vec::as_slice);
        let found = known.iter().find(|target| target.id == topic.id);
        if let Some(target) = found.filter(|target| !target.is_outdated.load(Ordering::Acquire)) {
            return target.clone();
        }
        let previous = found.cloned();
        if previous.is_none() && !known.is_empty() {
            // Clients may stick to the leaders of the other topic of this name.
            let producers: Vec<_> = self.producers.drain().map(|(_, producer)| producer).collect();
            producers.into_iter().for_each(|producer| self.retire(producer));
        }
        let target = Target::new(topic, previous);
        let known = self.targets.entry(topic.name.clone()).or_default();
        known.retain(|known| known.id != topic.id);
        known.push(target.clone());
        target
    }
}

impl ClusterWriter {
    pub(in crate::log::kafka) fn new(
        configs: Arc<Configs>,
        log: Arc<str>,
        health: Arc<ClusterHealth>,
        control: Arc<Control>,
    ) -> Self {
        let id = TransactionalId::Unique;
        let transactions = Transactions::new(configs.clone(), log.clone(), health.clone(), id);
        let transactions = Arc::new(tokio::sync::Mutex::new(transactions));
        Self { configs, log, health, control, state: Mutex::default(), transactions }
    }

    /// Queues a record.
    pub(in crate::log::kafka) async fn send(
        &self,
        topic: &TopicDescription,
        record: &NewRecord,
    ) -> Result<Delivery, LogError> {
        let target = self.target(topic).await;
        target.check(record)?;
        loop {
            let producer = self.producer(target.batch_size()).await?;
            if let Some(delivery) = producer.send(&target, record).await? {
                return Ok(delivery);
            }
            // The producer failed while the record waited for its queue. Another one takes its place.
        }
    }

    /// Writes all records, or none.
    pub(in crate::log::kafka) async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError> {
        let target = self.transaction_target(topic, &records).await?;
        let mut transactions = self.transactions.clone().lock_owned().await;
        let runtime = tokio::runtime::Handle::current();
        let work = move || transactions.write(&target, &records, &runtime).map_err(|failure| failure.error);
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(LogError::Closed))
    }

    /// Writes all records to one partition if it ends at `end`, or none. Returns `None` if it ends elsewhere, or if
    /// somebody else began such a write meanwhile.
    pub(in crate::log::kafka) async fn append_at(
        &self,
        topic: &TopicDescription,
        partition: Partition,
        end: Offset,
        records: Vec<NewRecord>,
    ) -> Result<Option<Appended>, LogError> {
        let target = self.transaction_target(topic, &records).await?;
        let transactions = self.appends(&topic.name);
        let mut transactions = transactions.lock_owned().await;
        let prepared_target = target.clone();
        // From here on, a write that another process began fails, so the end that is requested next stays.
        let must_start = records.is_empty();
        let prepare = move || {
            if must_start {
                // Only a client that starts ends the open transactions of others.
                transactions.drop_client();
            }
            transactions.prepare(&prepared_target).map(|()| transactions)
        };
        let mut transactions = tokio::task::spawn_blocking(prepare).await.unwrap_or(Err(LogError::Closed))?;
        if self.end_offset(topic, partition).await? != Some(end) {
            return Ok(None);
        }
        if records.is_empty() {
            return Ok(Some(Appended::new(Vec::new(), end)));
        }
        let runtime = tokio::runtime::Handle::current();
        let write = move || transactions.write_prepared(&target, &records, Some(end), &runtime);
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(acks)) => {
                let last = acks.last().and_then(|ack| ack.offset).unwrap_or(end);
                // The marker that ends the transaction has an offset, too. It is written after the confirmation.
                let next = last + 2;
                let began = Instant::now();
                while matches!(self.end_offset(topic, partition).await, Ok(Some(end)) if end < next)
                    && began.elapsed() < MARKER_TIMEOUT
                {
                    tokio::time::sleep(MARKER_PAUSE).await;
                }
                Ok(Some(Appended::new(acks, next)))
            }
            Ok(Err(failure)) if failure.is_conflict => Ok(None),
            Ok(Err(failure)) => Err(failure.error),
            Err(_) => Err(LogError::Closed),
        }
    }

    /// Returns the end offset of a partition, if it exists.
    async fn end_offset(
        &self,
        topic: &TopicDescription,
        partition: Partition,
    ) -> Result<Option<Offset>, LogError> {
        let ends = self.control.end_offsets(topic).await?;
        Ok(ends.into_iter().find(|end| end.0 == partition).map(|end| end.1))
    }

    /// Returns the target of a topic, if these records can be written to it in a transaction.
    async fn transaction_target(
        &self,
        topic: &TopicDescription,
        records: &[NewRecord],
    ) -> Result<Arc<Target>, LogError> {
        if !self.configs.options().idempotence {
            let reason = "transactions, which atomic writes use, need it: leave it enabled".to_owned();
            return Err(LogError::InvalidProperty { name: "idempotence".to_owned(), reason });
        }
        let target = self.target(topic).await;
        records.iter().try_for_each(|record| target.check(record))?;
        Ok(target)
    }

    /// Returns the transactions of the appends to a topic.
    fn appends(&self, topic: &str) -> Arc<tokio::sync::Mutex<Transactions>> {
        let new = || {
            let id = TransactionalId::AppendTo(topic.to_owned());
            let (configs, log, health) = (self.configs.clone(), self.log.clone(), self.health.clone());
            Arc::new(tokio::sync::Mutex::new(Transactions::new(configs, log, health, id)))
        };
        self.state().appends.entry(topic.to_owned()).or_insert_with(new).clone()
    }

    /// Waits until no record is outstanding. Returns false after the timeout.
    pub(in crate::log::kafka) async fn flush(&self, timeout: Duration) -> bool {
        let wait = |producer: &Producer, left| producer.flush(left);
        let results = self.wait_for_producers(timeout, wait).await;
        results.is_some_and(|results| results.into_iter().all(|is_flushed| is_flushed))
    }

    /// Waits until no record is outstanding, and purges those that are after the timeout. Returns the purged
    /// records.
    pub(in crate::log::kafka) async fn close(&self, timeout: Duration) -> Vec<Unacknowledged> {
        let close = |producer: &Producer, left| producer.close(left);
        self.wait_for_producers(timeout, close).await.into_iter().flatten().flatten().collect()
    }

    /// Waits for one producer after the other, with one timeout for all. Returns their results, or `None` if
    /// the runtime has ended.
    async fn wait_for_producers<T: Send + 'static>(
        &self,
        timeout: Duration,
        wait: impl Fn(&Producer, Duration) -> T + Send + 'static,
    ) -> Option<Vec<T>> {
        let producers: Vec<Arc<Producer>> = {
            let state = self.state();
            state.retired.iter().filter_map(Weak::upgrade).chain(state.producers.values().cloned()).collect()
        };
        let wait_for_all = move || {
            let began = Instant::now();
            let left = || timeout.saturating_sub(began.elapsed());
            producers.iter().map(|producer| wait(producer, left())).collect()
        };
        tokio::task::spawn_blocking(wait_for_all).await.ok()
    }

    /// Returns the target of a topic, with its limits.
    async fn target(&self, topic: &TopicDescription) -> Arc<Target> {
        let target = self.state().target(topic);
        target.limits.get_or_init(|| self.query_limits(&target)).await;
        target
    }

    /// Requests the limits of a topic.
    async fn query_limits(&self, target: &Target) -> TopicLimits {
        let previous = target.previous();
        let limits = match self.control.settings(&target.name, QUERY_TIMEOUT).await {
            Ok(mut settings) => {
                let max_message_bytes = settings.get(MAX_MESSAGE_BYTES).and_then(|limit| limit.parse().ok());
                let batch =
                    max_message_bytes.map_or(BatchSize::Default, |limit| self.configs.batch_size_for(limit));
                let cleanup_policy = settings.remove(CLEANUP_POLICY).unwrap_or_default();
                TopicLimits { batch, max_message_bytes, cleanup_policy }
            }
            Err(error) => {
                tracing::debug!(
                    topic = target.name,
                    "cannot request the settings of a topic; writing without known limits: {error}"
                );
                let batch = match &previous {
                    Some(previous) if previous.has_refused_size.load(Ordering::Acquire) => {
                        BatchSize::OneRecord
                    }
                    Some(previous) => previous.batch_size(),
                    None => BatchSize::Default,
                };
                TopicLimits { batch, max_message_bytes: None, cleanup_policy: String::new() }
            }
        };
        // Records that the other client has queued must be written before records that are written now.
        if let Some(previous) = previous.filter(|previous| previous.batch_size() != limits.batch) {
            let other = self.state().producers.get(&previous.batch_size()).cloned();
            let timeout = self.configs.retire_timeout();
            let wait = move || other.is_none_or(|other| other.flush_target(&previous, timeout));
            // OK to ignore: it fails only if the runtime has ended.
            let _ = tokio::task::spawn_blocking(wait).await;
        }
        target.forget_previous();
        limits
    }

    /// Returns the producer for batches of this size. Starts one if there is none, or if it is dead.
    async fn producer(&self, batch: BatchSize) -> Result<Arc<Producer>, LogError> {
        let is_alive = |producer: &&Arc<Producer>| !producer.is_dead();
        if let Some(producer) = self.state().producers.get(&batch).filter(is_alive) {
            return Ok(producer.clone());
        }
        let (configs, log, health) = (self.configs.clone(), self.log.clone(), self.health.clone());
        // Starting a client blocks.
        let start = move || Producer::start(&configs, Purpose::Produce(batch), log, health);
        let new = Arc::new(tokio::task::spawn_blocking(start).await.unwrap_or(Err(LogError::Closed))?);
        let mut state = self.state();
        if let Some(producer) = state.producers.get(&batch).filter(is_alive) {
            // Another task has started one meanwhile.
            return Ok(producer.clone());
        }
        if let Some(old) = state.producers.insert(batch, new.clone()) {
            state.retire(old);
        }
        Ok(new)
    }

    /// Returns the name of a topic that was written to, if a producer has received no delivery report for
    /// half of the timeout.
    pub(in crate::log::kafka) fn silent_topic(&self, timeout: Duration) -> Option<Arc<str>> {
        let (now, state) = (Instant::now(), self.state());
        let is_silent = state.producers.values().any(|producer| {
            producer.silent_since().is_some_and(|since| now.saturating_duration_since(since) >= timeout / 2)
        });
        state.targets.keys().next().filter(|_| is_silent).map(|name| name.as_str().into())
    }

    /// Probes producers that receive no delivery reports, and replaces those that are stuck: see
    /// [`StuckProducerDetector::check`]. Called at a check that the cluster answered, as it has answered all checks
    /// since `answering_since`.
    ///
    /// The outstanding records of a replaced producer may have been written or not, and no other producer writes
    /// them again.
    ///
    /// [`StuckProducerDetector::check`]: crate::log::kafka::health::stuck::StuckProducerDetector::check
    pub(in crate::log::kafka) async fn check_producers(&self, timeout: Duration, answering_since: Instant) {
        let producers = self.state().producers.clone();
        for (batch, producer) in producers {
            let probed = producer.clone();
            match producer.check(answering_since, timeout) {
                None => {}
                Some(ProducerAction::Probe) => {
                    // Not awaited, so that the next check is not late. A later check finds the result.
                    tokio::task::spawn_blocking(move || probed.probe(PROBE_TIMEOUT));
                }
                Some(ProducerAction::Replace) => {
                    let give_up = move || probed.give_up("the producer received no answer");
                    let Ok(given_up) = tokio::task::spawn_blocking(give_up).await else { continue };
                    tracing::warn!(
                        log = %self.log,
                        "a producer receives no answer and is replaced; {given_up} of its records were not \
                         acknowledged, and may have been written or not"
                    );
                    let mut state = self.state();
                    if state.producers.get(&batch).is_some_and(|current| Arc::ptr_eq(current, &producer)) {
                        state.producers.remove(&batch);
                        state.retire(producer);
                    }
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
