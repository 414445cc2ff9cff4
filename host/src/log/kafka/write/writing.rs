//! Writing to a cluster: which client writes to which topic, and what the topic takes.
//!
//! A broker takes or refuses a batch as a whole. So that no record is refused for the sake of
//! others, a topic is asked for what it takes before the first record is sent to it, and is
//! written to by a client whose batches are no larger. It is asked again when a broker refuses
//! what it should take.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use crate::log::kafka::config::{BatchSize, Configs, Purpose};
use crate::log::kafka::control::Control;
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::write::producer::{Producer, RETIREMENT};
use crate::log::kafka::write::target::{MAX_MESSAGE_BYTES, Takes, Target};
use crate::log::kafka::write::transaction::Transactions;
use crate::log::{Ack, CLEANUP_POLICY, Delivery, LogError, NewRecord, TopicDescription, Unacknowledged};
use crate::sync::lock;

/// How long a topic may take to tell what it takes.
const ASKING: Duration = Duration::from_secs(3);

/// How long a client that writes may take to hear of its cluster.
const PROBE: Duration = Duration::from_secs(2);

/// What writes to a cluster, from the first write on.
#[derive(Debug)]
pub(in crate::log::kafka) struct Writing {
    configs: Arc<Configs>,
    log: Arc<str>,
    health: Arc<ClusterHealth>,
    control: Arc<Control>,
    /// A std lock: held to look, or to start a client.
    state: Mutex<State>,
    /// What writes in transactions. Held through a transaction.
    transactions: Arc<tokio::sync::Mutex<Option<(BatchSize, Transactions)>>>,
}

#[derive(Debug, Default)]
struct State {
    producers: HashMap<BatchSize, Arc<Producer>>,
    /// Those that were replaced, while they have something.
    retired: Vec<Weak<Producer>>,
    /// The topics that were written to. Of one name there are as many as there were topics of it.
    targets: HashMap<String, Vec<Arc<Target>>>,
}

impl State {
    fn retire(&mut self, producer: Arc<Producer>) {
        self.retired.retain(|retired| retired.strong_count() > 0);
        self.retired.push(Arc::downgrade(&producer));
        Producer::retire(producer);
    }

    /// The topic, as it is known.
    fn target(&mut self, topic: &TopicDescription) -> Arc<Target> {
        let known = self.targets.get(&topic.name).map_or(&[][..], Vec::as_slice);
        let found = known.iter().find(|target| target.id == topic.id);
        if let Some(target) = found.filter(|target| !target.is_outdated.load(Ordering::Acquire)) {
            return target.clone();
        }
        let before = found.cloned();
        if before.is_none() && !known.is_empty() {
            // Clients may stick to where the other topic of the name was.
            let producers: Vec<_> = self.producers.drain().map(|(_, producer)| producer).collect();
            producers.into_iter().for_each(|producer| self.retire(producer));
        }
        let target = Target::new(topic, before);
        let known = self.targets.entry(topic.name.clone()).or_default();
        known.retain(|known| known.id != topic.id);
        known.push(target.clone());
        target
    }
}

impl Writing {
    pub(in crate::log::kafka) fn new(
        configs: Arc<Configs>,
        log: Arc<str>,
        health: Arc<ClusterHealth>,
        control: Arc<Control>,
    ) -> Self {
        let (state, transactions) = (Mutex::default(), Arc::default());
        Self { configs, log, health, control, state, transactions }
    }

    /// Queues a record.
    pub(in crate::log::kafka) async fn send(
        &self,
        topic: &TopicDescription,
        record: &NewRecord,
    ) -> Result<Delivery, LogError> {
        let target = self.target(topic).await;
        target.check(record)?;
        self.producer(target.batch()).await?.send(&target, record).await
    }

    /// Writes all records, or none.
    pub(in crate::log::kafka) async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError> {
        if !self.configs.options().idempotence {
            let reason = "transactions, which write many records as one, rest on it: leave it on".to_owned();
            return Err(LogError::Property { name: "idempotence".to_owned(), reason });
        }
        let target = self.target(topic).await;
        records.iter().try_for_each(|record| target.check(record))?;
        let (configs, url, health) = (self.configs.clone(), self.log.clone(), self.health.clone());
        let mut current = self.transactions.clone().lock_owned().await;
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            let batch = target.batch();
            if current.as_ref().is_some_and(|(size, client)| *size != batch || client.is_dead()) {
                *current = None;
            }
            let (_, transactions) = match &mut *current {
                Some(transactions) => transactions,
                none => {
                    let producer = Producer::start(&configs, Purpose::Transact(batch), url.clone(), health)?;
                    none.insert((batch, Transactions::start(producer, &url, target.name())?))
                }
            };
            transactions.write(&target, &records, &runtime).map_err(|failed| {
                if failed.is_client_dead {
                    *current = None;
                }
                failed.error
            })
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(LogError::Closed))
    }

    /// Whether nothing is outstanding within this time.
    pub(in crate::log::kafka) async fn flush(&self, patience: Duration) -> bool {
        let wait = |producer: &Producer, left| producer.flush(left);
        self.each(patience, wait).await.is_some_and(|done| done.into_iter().all(|done| done))
    }

    /// Waits until nothing is outstanding; gives up what is after this time.
    pub(in crate::log::kafka) async fn close(&self, patience: Duration) -> Vec<Unacknowledged> {
        let give_up = |producer: &Producer, left| producer.close(left);
        self.each(patience, give_up).await.into_iter().flatten().flatten().collect()
    }

    /// Waits for one client after the other, all within this time; `None` if the runtime ended.
    async fn each<T: Send + 'static>(
        &self,
        patience: Duration,
        wait: impl Fn(&Producer, Duration) -> T + Send + 'static,
    ) -> Option<Vec<T>> {
        let producers: Vec<Arc<Producer>> = {
            let state = self.state();
            state.retired.iter().filter_map(Weak::upgrade).chain(state.producers.values().cloned()).collect()
        };
        let wait_for_all = move || {
            let began = Instant::now();
            let left = || patience.saturating_sub(began.elapsed());
            producers.iter().map(|producer| wait(producer, left())).collect()
        };
        tokio::task::spawn_blocking(wait_for_all).await.ok()
    }

    /// The topic, which has told what it takes.
    async fn target(&self, topic: &TopicDescription) -> Arc<Target> {
        let target = self.state().target(topic);
        target.takes.get_or_init(|| self.ask(&target)).await;
        target
    }

    /// Asks a topic what it takes.
    async fn ask(&self, target: &Target) -> Takes {
        let before = target.before();
        let takes = match self.control.settings(&target.name, ASKING).await {
            Ok(mut settings) => {
                let max_message_bytes = settings.get(MAX_MESSAGE_BYTES).and_then(|limit| limit.parse().ok());
                let batch =
                    max_message_bytes.map_or(BatchSize::Default, |limit| self.configs.batch_of(limit));
                let cleanup_policy = settings.remove(CLEANUP_POLICY).unwrap_or_default();
                Takes { batch, max_message_bytes, cleanup_policy }
            }
            Err(error) => {
                tracing::debug!("what the topic takes is found out by trying: {error}");
                let batch = match &before {
                    Some(before) if before.refused_size.load(Ordering::Acquire) => BatchSize::OneRecord,
                    Some(before) => before.batch(),
                    None => BatchSize::Default,
                };
                Takes { batch, max_message_bytes: None, cleanup_policy: String::new() }
            }
        };
        // What the other client has still to write must not come behind what is written now.
        if let Some(before) = before.filter(|before| before.batch() != takes.batch) {
            let other = self.state().producers.get(&before.batch()).cloned();
            let wait = move || other.is_none_or(|other| other.flush_target(&before, RETIREMENT));
            // It ends early only with its runtime.
            let _ = tokio::task::spawn_blocking(wait).await;
        }
        target.forget_before();
        takes
    }

    /// The client that makes batches of this size. One that is dead is replaced.
    async fn producer(&self, batch: BatchSize) -> Result<Arc<Producer>, LogError> {
        let alive = |producer: &&Arc<Producer>| !producer.is_dead();
        if let Some(producer) = self.state().producers.get(&batch).filter(alive) {
            return Ok(producer.clone());
        }
        let (configs, log, health) = (self.configs.clone(), self.log.clone(), self.health.clone());
        // Starting a client blocks.
        let start = move || Producer::start(&configs, Purpose::Produce(batch), log, health);
        let new = Arc::new(tokio::task::spawn_blocking(start).await.unwrap_or(Err(LogError::Closed))?);
        let mut state = self.state();
        if let Some(producer) = state.producers.get(&batch).filter(alive) {
            // Another was quicker.
            return Ok(producer.clone());
        }
        if let Some(old) = state.producers.insert(batch, new.clone()) {
            state.retire(old);
        }
        Ok(new)
    }

    /// A topic that was written to, if a client that writes has had no answer for long.
    pub(in crate::log::kafka) fn unanswered(&self, patience: Duration) -> Option<Arc<str>> {
        let (now, state) = (Instant::now(), self.state());
        let is_silent = state.producers.values().any(|producer| producer.silence(now) >= patience / 2);
        state.targets.keys().next().filter(|_| is_silent).map(|name| name.as_str().into())
    }

    /// Gives up clients that get no answer while others do: what they have not written may have
    /// been written or not, and is never written by another.
    pub(in crate::log::kafka) async fn replace_stuck(&self, patience: Duration) {
        let now = Instant::now();
        let silent: Vec<(BatchSize, Arc<Producer>)> = {
            let state = self.state();
            let producers = state.producers.iter().map(|(&batch, producer)| (batch, producer.clone()));
            producers.filter(|(_, producer)| producer.silence(now) >= patience / 2).collect()
        };
        for (batch, producer) in silent {
            let asked = producer.clone();
            let is_stuck = move || {
                let is_stuck = (0..2).all(|_| asked.client().probe(PROBE).is_err());
                if is_stuck {
                    asked.give_up("the client that wrote it got no answer");
                }
                is_stuck
            };
            if tokio::task::spawn_blocking(is_stuck).await.unwrap_or(false) {
                tracing::warn!(log = %self.log, "a client that writes gets no answer: another takes its place");
                let mut state = self.state();
                if state.producers.get(&batch).is_some_and(|current| Arc::ptr_eq(current, &producer)) {
                    state.producers.remove(&batch);
                    state.retire(producer);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
