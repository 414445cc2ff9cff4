//! The control client of a cluster: it asks, and consumes nothing, so that no
//! answer waits behind a fetch.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use backon::{ConstantBuilder, Retryable};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use rdkafka::types::RDKafkaErrorCode;

use crate::log::kafka::config::{Configs, Purpose};
use crate::log::kafka::error::about_topic;
use crate::log::kafka::ffi::admin::{self, Described, End, Pending};
use crate::log::kafka::ffi::client::Client;
use crate::log::kafka::ffi::event::{Event, Reply};
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::lag::now;
use crate::log::{CLEANUP_POLICY, LogError, NewTopic, Offset, OffsetRange, Partition, TopicDescription};
use crate::sync::lock;
use crate::thread::run_aside;

/// How long to wait for a cluster to answer, whatever is asked.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for one answer of a broker that was well just now.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the thread waits for events: [`Client::wake`] ends the wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is done when a topic's settings are asked for.
const SETTINGS: &str = "look at the settings of";

#[derive(Debug)]
pub(super) struct Control {
    configs: Arc<Configs>,
    /// A std lock: held to look or to replace.
    polled: Mutex<Arc<Polled>>,
    log: Arc<str>,
    health: Arc<ClusterHealth>,
    /// A std lock: held to look or to replace. The probe that is under way, or was.
    probe: Mutex<Option<Probe>>,
}

/// A client and the thread that polls it.
#[derive(Debug)]
struct Polled {
    client: Arc<Client>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Polled {
    fn start(configs: &Configs, log: &str, health: Arc<ClusterHealth>) -> Result<Arc<Self>, LogError> {
        let client = Arc::new(configs.start(Purpose::Control)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (polled, stopped) = (client.clone(), stop.clone());
        let thread = crate::thread::spawn("ktables-control", move || {
            while !stopped.load(Ordering::Acquire) {
                match polled.poll(PATIENCE) {
                    Some(Event::Reply(reply)) => admin::answer(reply),
                    Some(Event::Failure(failure)) => {
                        health.record_failure(&failure);
                        health.record_refusal(&failure);
                    }
                    _ => {}
                }
            }
        });
        let failed = |error| LogError::Client { log: log.to_owned(), reason: format!("no thread: {error}") };
        Ok(Arc::new(Self { client, stop, thread: Some(thread.map_err(failed)?) }))
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.client.wake();
        let (client, thread) = (self.client.clone(), self.thread.take());
        run_aside(move || {
            // That it panicked it has said.
            thread.map(JoinHandle::join);
            drop(client);
        });
    }
}

/// Whether some broker answered.
type Probe = Shared<BoxFuture<'static, Result<(), RDKafkaErrorCode>>>;

impl Control {
    pub(super) fn start(
        configs: &Arc<Configs>,
        log: Arc<str>,
        health: Arc<ClusterHealth>,
    ) -> Result<Self, LogError> {
        let polled = Mutex::new(Polled::start(configs, &log, health.clone())?);
        Ok(Self { configs: configs.clone(), polled, log, health, probe: Mutex::default() })
    }

    /// Goes on with another client. Blocks.
    pub(super) fn replace_client(&self) -> Result<(), LogError> {
        let new = Polled::start(&self.configs, &self.log, self.health.clone())?;
        let old = std::mem::replace(&mut *lock(&self.polled), new);
        // A probe of the old one says nothing of the new one.
        lock(&self.probe).take();
        drop(old);
        Ok(())
    }

    /// The client, which is polled for as long as this is held.
    fn polled(&self) -> Arc<Polled> {
        // OK as above.
        lock(&self.polled).clone()
    }

    /// Asks, and waits for the answer.
    async fn ask(
        &self,
        action: &'static str,
        topic: &str,
        patience: Duration,
        request: impl FnOnce(&Client) -> Result<Pending, LogError>,
    ) -> Result<Reply, LogError> {
        let asked = now();
        let answer = async {
            // An admin request that waits for a broker makes librdkafka try to
            // connect without a pause: before one is made, some broker must answer.
            if !self.health.is_healthy() {
                let probed = tokio::time::timeout(patience, self.probe()).await;
                probed
                    .unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut))
                    .map_err(|code| self.error(topic, action, code, self.why(code.to_string())))?;
            }
            let polled = self.polled();
            let reply = request(&polled.client)?.await.map_err(|_| LogError::Closed)?;
            match reply.error() {
                None => Ok(reply),
                Some((code, reason)) => {
                    if code == RDKafkaErrorCode::OperationTimedOut {
                        // Maybe it waited for a broker that is gone. Before the next question,
                        // librdkafka is to learn which there are.
                        self.health.mark_suspect(&reason);
                    }
                    Err(self.error(topic, action, code, self.why(reason)))
                }
            }
        };
        tokio::select! {
            reply = answer => reply.inspect(|_| self.health.record_answer(asked)),
            reason = self.health.refused() => {
                Err(LogError::Authentication { log: self.log.to_string(), reason })
            }
        }
    }

    /// Waits until some broker answers. However many wait, one thread does.
    fn probe(&self) -> Probe {
        let mut current = lock(&self.probe);
        match &*current {
            Some(probe) if probe.peek().is_none() => probe.clone(),
            _ => {
                let client = self.polled().client.clone();
                let probe = tokio::task::spawn_blocking(move || client.probe(REQUEST_TIMEOUT));
                // It ends early only with its runtime.
                let probe = probe.map(|probed| probed.unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut)));
                current.insert(probe.boxed().shared()).clone()
            }
        }
    }

    /// That time ran out says less than what a connection said.
    fn why(&self, reason: String) -> String {
        self.health.reason().unwrap_or(reason)
    }

    fn error(&self, topic: &str, action: &'static str, code: RDKafkaErrorCode, reason: String) -> LogError {
        about_topic(&self.log, topic, action, code, reason)
    }

    /// Identity and partitions of topics, each with an answer of its own.
    pub(super) async fn topics(
        &self,
        names: &[&str],
        patience: Duration,
    ) -> Result<Vec<(String, Result<Described, LogError>)>, LogError> {
        let action = "describe";
        let names = names.iter().map(|name| c_name(name)).collect::<Result<Vec<_>, _>>()?;
        let first = names.first().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let request =
            |client: &Client| Ok(admin::describe_topics(client, &names, patience.min(ANSWER_TIMEOUT)));
        let reply = self.ask(action, &first, patience, request).await?;
        let described = admin::described(&reply).into_iter().map(|(name, answer)| {
            let answer = answer.map_err(|(code, reason)| self.error(&name, action, code, reason));
            (name, answer)
        });
        Ok(described.collect())
    }

    /// A topic. Asks again while the broker that was asked may be gone.
    async fn topic(&self, name: &str) -> Result<Described, LogError> {
        let names = [name];
        let ask = || self.topics(&names, REQUEST_TIMEOUT);
        let started = Instant::now();
        let passing = |error: &LogError| error.is_transient() && started.elapsed() < REQUEST_TIMEOUT;
        let topics = ask.retry(again()).when(passing).await?;
        let unknown = || LogError::UnknownTopic { log: self.log.to_string(), topic: name.to_owned() };
        topics.into_iter().next().map_or_else(|| Err(unknown()), |(_, topic)| topic)
    }

    pub(super) async fn describe(&self, name: &str) -> Result<TopicDescription, LogError> {
        let topic = self.topic(name).await?;
        if topic.partitions == 0 {
            let reason = "it has no partitions yet".to_owned();
            return Err(self.not_now(name, "describe", reason));
        }
        Ok(TopicDescription { name: topic.name, id: topic.id, partitions: topic.partitions })
    }

    pub(super) async fn setting(&self, topic: &str, name: &str) -> Result<String, LogError> {
        self.settings(topic, REQUEST_TIMEOUT).await?.remove(name).ok_or_else(|| {
            let (log, topic) = (self.log.to_string(), topic.to_owned());
            let reason = format!("its {name} is not told");
            LogError::Broker { log, topic, action: SETTINGS, reason }
        })
    }

    /// All settings of a topic.
    pub(super) async fn settings(
        &self,
        topic: &str,
        patience: Duration,
    ) -> Result<HashMap<String, String>, LogError> {
        let request = |client: &Client| {
            Ok(admin::describe_configuration(client, &c_name(topic)?, patience.min(ANSWER_TIMEOUT)))
        };
        let reply = self.ask(SETTINGS, topic, patience, request).await?;
        admin::settings(&reply).map_err(|(code, reason)| self.error(topic, SETTINGS, code, reason))
    }

    pub(super) async fn set_cleanup_policy(&self, name: &str, policy: &str) -> Result<(), LogError> {
        let action = "change the settings of";
        let invalid = |reason| LogError::InvalidTopic { topic: name.to_owned(), reason };
        let request = |client: &Client| {
            admin::alter_configuration(client, &c_name(name)?, CLEANUP_POLICY, policy, ANSWER_TIMEOUT)
                .map_err(invalid)
        };
        let reply = self.ask(action, name, REQUEST_TIMEOUT, request).await?;
        admin::altered(&reply).map_err(|(code, reason)| self.error(name, action, code, reason))
    }

    pub(super) async fn create(&self, name: &str, settings: &NewTopic) -> Result<(), LogError> {
        let action = "create";
        let invalid = |reason| LogError::InvalidTopic { topic: name.to_owned(), reason };
        let request = |client: &Client| {
            admin::create_topic(client, &c_name(name)?, settings, REQUEST_TIMEOUT).map_err(invalid)
        };
        let reply = self.ask(action, name, REQUEST_TIMEOUT, request).await?;
        admin::created(&reply).map_err(|(code, reason)| self.error(name, action, code, reason))
    }

    /// Waits until a topic that was created can be seen: the broker that is asked may
    /// hear of it a moment later.
    pub(super) async fn appear(&self, name: &str) -> Result<TopicDescription, LogError> {
        let describe = || async {
            let topic = self.describe(name).await?;
            self.ends(name, 0..topic.partitions, End::Last).await?;
            Ok(topic)
        };
        let passing =
            |error: &LogError| error.is_transient() || matches!(error, LogError::UnknownTopic { .. });
        let late = |_| Err(self.not_now(name, "describe", "it was created a while ago".to_owned()));
        tokio::time::timeout(REQUEST_TIMEOUT, describe.retry(again()).when(passing))
            .await
            .unwrap_or_else(late)
    }

    fn not_now(&self, topic: &str, action: &'static str, reason: String) -> LogError {
        LogError::Unreachable { log: self.log.to_string(), topic: topic.to_owned(), action, reason }
    }

    /// First and end offsets of these partitions.
    pub(super) async fn ranges(
        &self,
        topic: &str,
        partitions: std::ops::Range<Partition>,
    ) -> Result<Vec<OffsetRange>, LogError> {
        let (first, last) = tokio::join!(
            self.ends(topic, partitions.clone(), End::First),
            self.ends(topic, partitions, End::Last)
        );
        Ok(admin::ranges(&first?, &last?))
    }

    /// One end of these partitions. Waits while leaders move.
    async fn ends(
        &self,
        topic: &str,
        partitions: std::ops::Range<Partition>,
        end: End,
    ) -> Result<Vec<(Partition, Offset)>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let ask = || self.ends_now(topic, partitions.clone(), end);
        let started = Instant::now();
        let passing = |error: &LogError| error.is_transient() && started.elapsed() < REQUEST_TIMEOUT;
        ask.retry(again()).when(passing).await
    }

    async fn ends_now(
        &self,
        topic: &str,
        partitions: std::ops::Range<Partition>,
        end: End,
    ) -> Result<Vec<(Partition, Offset)>, LogError> {
        let action = "ask for the offsets of";
        let request = |client: &Client| {
            Ok(admin::list_offsets(client, partitions.map(|number| (topic, number)), end, ANSWER_TIMEOUT))
        };
        let reply = self.ask(action, topic, REQUEST_TIMEOUT, request).await?;
        let listed = admin::listed(&reply).into_iter().map(|(_, partition, offset)| {
            let offset = offset
                .map_err(|code| self.error(topic, action, code, format!("partition {partition}: {code}")))?;
            Ok((partition, offset))
        });
        listed.collect()
    }

    /// One end of partitions of topics, as far as they are told at once.
    pub(super) async fn told_ends(
        &self,
        places: &BTreeSet<(Arc<str>, Partition)>,
        end: End,
        patience: Duration,
    ) -> Result<HashMap<(Arc<str>, Partition), Offset>, LogError> {
        let Some((first, _)) = places.first() else { return Ok(HashMap::new()) };
        let request = |client: &Client| {
            let places = places.iter().map(|(topic, partition)| (&**topic, *partition));
            Ok(admin::list_offsets(client, places, end, patience.min(ANSWER_TIMEOUT)))
        };
        let reply = self.ask("ask for the offsets of", first, patience, request).await?;
        let listed = admin::listed(&reply).into_iter();
        Ok(listed
            .filter_map(|(topic, partition, offset)| Some(((topic.into(), partition), offset.ok()?)))
            .collect())
    }

    /// First and end offsets of these partitions, up to the first that no broker tells of.
    pub(super) async fn told_ranges(
        &self,
        topic: &Arc<str>,
        partitions: std::ops::Range<Partition>,
        patience: Duration,
    ) -> Vec<OffsetRange> {
        let places: BTreeSet<_> = partitions.clone().map(|number| (topic.clone(), number)).collect();
        let (first, last) = tokio::join!(
            self.told_ends(&places, End::First, patience),
            self.told_ends(&places, End::Last, patience)
        );
        let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
        let range = |partition| {
            let place = (topic.clone(), partition);
            Some(OffsetRange { partition, start: *first.get(&place)?, end: *last.get(&place)? })
        };
        partitions.map_while(range).collect()
    }

    /// First and end offsets of all partitions, if this is still the topic.
    pub(super) async fn offsets(&self, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError> {
        let (now, ranges) =
            tokio::join!(self.topic(&topic.name), self.ranges(&topic.name, 0..topic.partitions));
        let now = self.same(topic, now?)?;
        let mut ranges = ranges?;
        ranges.extend(self.ranges(&topic.name, topic.partitions..now.partitions).await?);
        Ok(ranges)
    }

    /// The end offsets of all partitions, if this is still the topic.
    pub(super) async fn end_offsets(
        &self,
        topic: &TopicDescription,
    ) -> Result<Vec<(Partition, Offset)>, LogError> {
        let (now, ends) =
            tokio::join!(self.topic(&topic.name), self.ends(&topic.name, 0..topic.partitions, End::Last));
        let now = self.same(topic, now?)?;
        let mut ends = ends?;
        ends.extend(self.ends(&topic.name, topic.partitions..now.partitions, End::Last).await?);
        Ok(ends)
    }

    fn same(&self, topic: &TopicDescription, now: Described) -> Result<Described, LogError> {
        if now.id == topic.id {
            return Ok(now);
        }
        Err(replaced(&topic.name))
    }
}

/// Asking again what passes in a moment, for as long as the caller waits.
fn again() -> ConstantBuilder {
    ConstantBuilder::default().with_delay(Duration::from_millis(30)).without_max_times()
}

/// That a topic's name is another topic's now.
pub(super) fn replaced(topic: &str) -> LogError {
    let reason = "the topic was deleted and created again".to_owned();
    LogError::Replaced { topic: topic.to_owned(), partition: 0, reason }
}

/// A name as C has it; librdkafka takes no empty one.
fn c_name(topic: &str) -> Result<CString, LogError> {
    let invalid =
        |reason: &str| LogError::InvalidTopic { topic: topic.to_owned(), reason: reason.to_owned() };
    if topic.is_empty() {
        return Err(invalid("a topic needs a name"));
    }
    CString::new(topic).map_err(|_| invalid("a name has no NUL"))
}
