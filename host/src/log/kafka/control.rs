//! The control client of a cluster describes, creates, changes and deletes topics, and requests their settings
//! and offsets. It consumes nothing, so that no answer waits behind a fetch.

mod topics;

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
use tokio::sync::Semaphore;

use crate::log::kafka::config::{Configs, Purpose};
use crate::log::kafka::error::topic_error;
use crate::log::kafka::ffi::admin::{self, Answer, DescribedTopic, PendingReply};
use crate::log::kafka::ffi::client::Client;
use crate::log::kafka::ffi::event::{Event, Reply};
use crate::log::kafka::ffi::offsets::{ListedOffset, OffsetKind, join_ranges, list_offsets};
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::{LogError, Offset, OffsetRange, Partition, TopicDescription};
use crate::sync::lock;
use crate::thread::run_in_background;
use crate::time::now;

/// How long a request to the cluster is retried, and how long a probe waits for a broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for one answer of a cluster that has answered before, and has not failed since.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the polling thread waits for events, unless [`Client::wake`] ends the wait.
const POLL_TIMEOUT: Duration = Duration::from_secs(60);

/// The action of requesting a topic's settings, as errors name it.
const READ_SETTINGS: &str = "read the settings of";

/// How many requests for offsets may be under way, because each of them blocks a thread. The others wait.
const MAX_OFFSET_REQUESTS: usize = 32;

/// The action of requesting a topic's offsets, as errors name it.
const REQUEST_OFFSETS: &str = "request the offsets of";

/// The control client, which can be replaced while requests are under way.
#[derive(Debug)]
pub(super) struct Control {
    configs: Arc<Configs>,
    /// A std lock: held to clone or replace the `Arc`.
    polled_client: Mutex<Arc<PolledClient>>,
    log: Arc<str>,
    health: Arc<ClusterHealth>,
    /// The last probe, which may be under way. A std lock: held to clone or replace the probe.
    probe: Mutex<Option<Probe>>,
    /// One permit for each request for offsets that may start.
    offset_requests: Semaphore,
}

/// A client and the thread that polls it.
#[derive(Debug)]
struct PolledClient {
    client: Arc<Client>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PolledClient {
    fn start(configs: &Configs, log: &str, health: Arc<ClusterHealth>) -> Result<Arc<Self>, LogError> {
        let client = Arc::new(configs.start(Purpose::Control)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (polled, stopped) = (client.clone(), stop.clone());
        let thread = crate::thread::spawn("ktables-control", move || {
            while !stopped.load(Ordering::Acquire) {
                match polled.poll(POLL_TIMEOUT) {
                    Some(Event::Reply(reply)) => admin::deliver_reply(reply),
                    Some(Event::Failure(failure)) => {
                        health.record_failure(&failure);
                        health.record_refusal(&failure);
                    }
                    _ => {}
                }
            }
        });
        let failed = |error| {
            let reason = format!("cannot start a thread: {error}");
            LogError::Client { log: log.to_owned(), reason }
        };
        Ok(Arc::new(Self { client, stop, thread: Some(thread.map_err(failed)?) }))
    }
}

impl Drop for PolledClient {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.client.wake();
        let (client, thread) = (self.client.clone(), self.thread.take());
        run_in_background(move || {
            // An error means that the thread panicked, which was logged then.
            thread.map(JoinHandle::join);
            drop(client);
        });
    }
}

/// A request that any broker may answer. Its clones share one result.
type Probe = Shared<BoxFuture<'static, Result<(), RDKafkaErrorCode>>>;

impl Control {
    /// Starts the client and its thread.
    pub(super) fn start(
        configs: &Arc<Configs>,
        log: Arc<str>,
        health: Arc<ClusterHealth>,
    ) -> Result<Self, LogError> {
        let polled_client = Mutex::new(PolledClient::start(configs, &log, health.clone())?);
        let offset_requests = Semaphore::new(MAX_OFFSET_REQUESTS);
        Ok(Self {
            configs: configs.clone(),
            polled_client,
            log,
            health,
            probe: Mutex::default(),
            offset_requests,
        })
    }

    /// Replaces the client with a new one. Blocks.
    pub(super) fn replace_client(&self) -> Result<(), LogError> {
        let new = PolledClient::start(&self.configs, &self.log, self.health.clone())?;
        let old = std::mem::replace(&mut *lock(&self.polled_client), new);
        // A probe of the old client says nothing about the new one.
        lock(&self.probe).take();
        drop(old);
        Ok(())
    }

    /// Returns the client. Its thread polls it until the last `Arc` is dropped.
    fn polled_client(&self) -> Arc<PolledClient> {
        lock(&self.polled_client).clone()
    }

    /// Sends an admin request, waits for its reply, and parses it.
    async fn request<T>(
        &self,
        action: &'static str,
        topic: &str,
        timeout: Duration,
        send: impl FnOnce(&Client) -> Result<PendingReply, LogError>,
        parse: impl FnOnce(&Reply) -> T,
    ) -> Result<T, LogError> {
        let send_and_parse = async |polled: Arc<PolledClient>| {
            let reply = send(&polled.client)?.await.map_err(|_| LogError::Closed)?;
            // The reply is dropped before the client that it belongs to.
            Ok(reply.error().map_or_else(|| Ok(parse(&reply)), Err))
        };
        self.ask(action, topic, timeout, send_and_parse).await
    }

    /// Requests one offset of each of these partitions, on a thread that may block.
    async fn request_offsets(
        &self,
        partitions: Vec<(String, Partition)>,
        kind: OffsetKind,
        timeout: Duration,
    ) -> Result<Vec<ListedOffset>, LogError> {
        let Some((topic, _)) = partitions.first().cloned() else { return Ok(Vec::new()) };
        let answer_timeout = timeout.min(ANSWER_TIMEOUT);
        let list = async |polled: Arc<PolledClient>| {
            // OK because the semaphore is never closed.
            let _permit = self.offset_requests.acquire().await.expect("a permit");
            let client = polled.client.clone();
            let list = move || {
                let partitions = partitions.iter().map(|(topic, partition)| (&**topic, *partition));
                list_offsets(&client, partitions, kind, answer_timeout)
            };
            let listed = tokio::task::spawn_blocking(list).await.map_err(|_| LogError::Closed)?;
            Ok(listed.map_err(|code| (code, code.to_string())))
        };
        self.ask(REQUEST_OFFSETS, &topic, timeout, list).await
    }

    /// Asks the cluster something, after some broker has answered, and waits for the answer.
    async fn ask<T>(
        &self,
        action: &'static str,
        topic: &str,
        timeout: Duration,
        question: impl AsyncFnOnce(Arc<PolledClient>) -> Result<Answer<T>, LogError>,
    ) -> Result<T, LogError> {
        let asked = now();
        let answer = async {
            // While an admin request waits for a broker, librdkafka connects in a loop without a pause.
            // So no request is sent before some broker answers.
            if !self.health.is_healthy() {
                let probed = tokio::time::timeout(timeout, self.probe()).await;
                probed.unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut)).map_err(|code| {
                    self.error(topic, action, code, self.specific_reason(code.to_string()))
                })?;
            }
            question(self.polled_client()).await?.map_err(|(code, reason)| {
                if code == RDKafkaErrorCode::OperationTimedOut {
                    // The request may have waited for a broker that is gone. The next request then
                    // begins with a probe, with which librdkafka fetches the brokers again.
                    self.health.mark_suspect(&reason);
                }
                self.error(topic, action, code, self.specific_reason(reason))
            })
        };
        tokio::select! {
            answer = answer => answer.inspect(|_| self.health.record_answer(asked)),
            reason = self.health.wait_for_refusal() => {
                Err(LogError::Authentication { log: self.log.to_string(), reason })
            }
        }
    }

    /// Waits until some broker answers, for [`REQUEST_TIMEOUT`] at most. All callers share one probe, so at
    /// most one thread blocks.
    fn probe(&self) -> Probe {
        let mut current = lock(&self.probe);
        match &*current {
            // It is under way.
            Some(probe) if probe.clone().now_or_never().is_none() => probe.clone(),
            _ => {
                let client = self.polled_client().client.clone();
                let probe = tokio::task::spawn_blocking(move || client.probe(REQUEST_TIMEOUT));
                // The join fails if the runtime shuts down, or if the probe panicked.
                let probe = probe.map(|probed| probed.unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut)));
                current.insert(probe.boxed().shared()).clone()
            }
        }
    }

    /// Returns the last error of a connection if there is one, because it says more than that a request
    /// timed out. Otherwise returns `reason`.
    fn specific_reason(&self, reason: String) -> String {
        self.health.reason().unwrap_or(reason)
    }

    fn error(&self, topic: &str, action: &'static str, code: RDKafkaErrorCode, reason: String) -> LogError {
        topic_error(&self.log, topic, action, code, reason)
    }

    /// Requests identity and partitions of topics. Each topic has a result of its own.
    pub(super) async fn describe_topics(
        &self,
        names: &[&str],
        timeout: Duration,
    ) -> Result<Vec<(String, Result<DescribedTopic, LogError>)>, LogError> {
        let action = "describe";
        let names = names.iter().map(|name| c_name(name)).collect::<Result<Vec<_>, _>>()?;
        let first = names.first().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let send = |client: &Client| Ok(admin::describe_topics(client, &names, timeout.min(ANSWER_TIMEOUT)));
        let topics = self.request(action, &first, timeout, send, admin::parse_topics).await?;
        let described = topics.into_iter().map(|(name, answer)| {
            let answer = answer.map_err(|(code, reason)| self.error(&name, action, code, reason));
            (name, answer)
        });
        Ok(described.collect())
    }

    /// Requests identity and partitions of one topic. Retries transient errors, because the broker that
    /// received the request may be gone.
    async fn describe_topic(&self, name: &str) -> Result<DescribedTopic, LogError> {
        let names = [name];
        let describe = || self.describe_topics(&names, REQUEST_TIMEOUT);
        let started = Instant::now();
        let should_retry = |error: &LogError| error.is_transient() && started.elapsed() < REQUEST_TIMEOUT;
        let topics = describe.retry(retry_policy()).when(should_retry).await?;
        let unknown = || LogError::UnknownTopic { log: self.log.to_string(), topic: name.to_owned() };
        topics.into_iter().next().map_or_else(|| Err(unknown()), |(_, topic)| topic)
    }

    /// Requests identity and number of partitions of a topic. Fails while the topic has no partitions.
    pub(super) async fn describe(&self, name: &str) -> Result<TopicDescription, LogError> {
        let topic = self.describe_topic(name).await?;
        if topic.partitions == 0 {
            let reason = "it has no partitions yet".to_owned();
            return Err(self.unreachable(name, "describe", reason));
        }
        Ok(TopicDescription { name: topic.name, id: topic.id, partitions: topic.partitions })
    }

    /// The error of a request that may succeed later.
    fn unreachable(&self, topic: &str, action: &'static str, reason: String) -> LogError {
        LogError::Unreachable { log: self.log.to_string(), topic: topic.to_owned(), action, reason }
    }

    /// Requests first and end offsets of these partitions.
    pub(super) async fn offset_ranges(
        &self,
        topic: &str,
        partitions: std::ops::Range<Partition>,
    ) -> Result<Vec<OffsetRange>, LogError> {
        let (first, end) = tokio::join!(
            self.list_offsets(topic, partitions.clone(), OffsetKind::First),
            self.list_offsets(topic, partitions, OffsetKind::End)
        );
        Ok(join_ranges(&first?, &end?))
    }

    /// Requests one offset of each of these partitions. Retries while leaders move.
    async fn list_offsets(
        &self,
        topic: &str,
        partitions: std::ops::Range<Partition>,
        kind: OffsetKind,
    ) -> Result<Vec<(Partition, Offset)>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let list = || self.list_offsets_once(topic, partitions.clone(), kind);
        let started = Instant::now();
        let should_retry = |error: &LogError| error.is_transient() && started.elapsed() < REQUEST_TIMEOUT;
        list.retry(retry_policy()).when(should_retry).await
    }

    /// Requests one offset of each of these partitions. Fails if one of them has no leader.
    async fn list_offsets_once(
        &self,
        topic: &str,
        partitions: std::ops::Range<Partition>,
        kind: OffsetKind,
    ) -> Result<Vec<(Partition, Offset)>, LogError> {
        let partitions = partitions.map(|number| (topic.to_owned(), number)).collect();
        let listed = self.request_offsets(partitions, kind, REQUEST_TIMEOUT).await?;
        let listed = listed.into_iter().map(|(_, partition, offset)| {
            let offset = offset.map_err(|code| {
                self.error(topic, REQUEST_OFFSETS, code, format!("partition {partition}: {code}"))
            })?;
            Ok((partition, offset))
        });
        listed.collect()
    }

    /// Requests one offset of each of these partitions, once. The result lacks the partitions that no
    /// broker answered for.
    pub(super) async fn known_offsets(
        &self,
        partitions: &BTreeSet<(Arc<str>, Partition)>,
        kind: OffsetKind,
        timeout: Duration,
    ) -> Result<HashMap<(Arc<str>, Partition), Offset>, LogError> {
        let partitions = partitions.iter().map(|(topic, partition)| (topic.to_string(), *partition));
        let listed = self.request_offsets(partitions.collect(), kind, timeout).await?;
        Ok(known(listed))
    }

    /// Requests first and end offsets of these partitions, once. The result ends before the first
    /// partition that no broker answered for.
    pub(super) async fn known_ranges(
        &self,
        topic: &Arc<str>,
        partitions: std::ops::Range<Partition>,
        timeout: Duration,
    ) -> Vec<OffsetRange> {
        let requested: BTreeSet<_> = partitions.clone().map(|number| (topic.clone(), number)).collect();
        let (first, end) = tokio::join!(
            self.known_offsets(&requested, OffsetKind::First, timeout),
            self.known_offsets(&requested, OffsetKind::End, timeout)
        );
        let (first, end) = (first.unwrap_or_default(), end.unwrap_or_default());
        let range = |partition| {
            let key = (topic.clone(), partition);
            Some(OffsetRange { partition, start: *first.get(&key)?, end: *end.get(&key)? })
        };
        partitions.map_while(range).collect()
    }

    /// Requests first and end offsets of all partitions. Includes partitions that were added since `topic`
    /// was described.
    ///
    /// # Errors
    ///
    /// [`LogError::Replaced`] if the topic was deleted and created again.
    pub(super) async fn offsets(&self, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError> {
        let (current, ranges) = tokio::join!(
            self.describe_topic(&topic.name),
            self.offset_ranges(&topic.name, 0..topic.partitions)
        );
        let current = self.check_identity(topic, current?)?;
        let mut ranges = ranges?;
        ranges.extend(self.offset_ranges(&topic.name, topic.partitions..current.partitions).await?);
        Ok(ranges)
    }

    /// Requests the end offsets of all partitions. Includes partitions that were added since `topic`
    /// was described.
    ///
    /// # Errors
    ///
    /// [`LogError::Replaced`] if the topic was deleted and created again.
    pub(super) async fn end_offsets(
        &self,
        topic: &TopicDescription,
    ) -> Result<Vec<(Partition, Offset)>, LogError> {
        let (current, ends) = tokio::join!(
            self.describe_topic(&topic.name),
            self.list_offsets(&topic.name, 0..topic.partitions, OffsetKind::End)
        );
        let current = self.check_identity(topic, current?)?;
        let mut ends = ends?;
        let added = topic.partitions..current.partitions;
        ends.extend(self.list_offsets(&topic.name, added, OffsetKind::End).await?);
        Ok(ends)
    }

    /// Checks that the name still belongs to the same topic.
    fn check_identity(
        &self,
        topic: &TopicDescription,
        current: DescribedTopic,
    ) -> Result<DescribedTopic, LogError> {
        if current.id == topic.id {
            return Ok(current);
        }
        Err(replaced_error(&topic.name))
    }
}

/// Leaves out the partitions that have no offset.
pub(super) fn known(listed: Vec<ListedOffset>) -> HashMap<(Arc<str>, Partition), Offset> {
    let known = listed
        .into_iter()
        .filter_map(|(topic, partition, offset)| Some(((topic.into(), partition), offset.ok()?)));
    known.collect()
}

/// Retries every 30 ms, without a limit: callers bound the time.
fn retry_policy() -> ConstantBuilder {
    ConstantBuilder::default().with_delay(Duration::from_millis(30)).without_max_times()
}

/// The error of a topic that was deleted and created again.
pub(super) fn replaced_error(topic: &str) -> LogError {
    let reason = "the topic was deleted and created again".to_owned();
    LogError::Replaced { topic: topic.to_owned(), partition: None, reason }
}

/// Converts a topic's name to a C string. librdkafka does not accept an empty name.
fn c_name(topic: &str) -> Result<CString, LogError> {
    let invalid =
        |reason: &str| LogError::InvalidTopic { topic: topic.to_owned(), reason: reason.to_owned() };
    if topic.is_empty() {
        return Err(invalid("a topic needs a name"));
    }
    CString::new(topic).map_err(|_| invalid("the name contains a NUL byte"))
}
