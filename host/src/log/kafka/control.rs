//! The control client of a cluster describes, creates, changes and deletes topics, and requests their settings
//! and offsets. It consumes nothing, so that no answer waits behind a fetch.

mod offset_requests;
mod offsets;
mod polled_client;
mod topics;

use std::ffi::CString;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backon::{ConstantBuilder, Retryable};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use rdkafka::types::RDKafkaErrorCode;
use tokio::runtime::Handle;

use crate::log::kafka::config::Configs;
use crate::log::kafka::control::offset_requests::OffsetRequests;
use crate::log::kafka::control::polled_client::PolledClient;
use crate::log::kafka::error::topic_error;
use crate::log::kafka::ffi::admin::{self, Answer, DescribedTopic, PendingReply};
use crate::log::kafka::ffi::client::Client;
use crate::log::kafka::ffi::event::Reply;
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::{Isolation, LogError, TopicDescription};
use crate::sync::lock;
use crate::time::now;

/// How long a request to the cluster is retried, and how long a probe waits for a broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for one answer of a cluster that has answered before, and has not failed since.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the first request for the description of a topic waits for its answer. librdkafka sends it to the broker that
/// the others call the controller. If that broker is gone, the next request goes to the one that they name then.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The action of requesting a topic's settings, as errors name it.
const READ_SETTINGS: &str = "read the settings of";

/// The control client, which can be replaced while requests are under way.
#[derive(Debug)]
pub(super) struct Control {
    configs: Arc<Configs>,
    /// A std lock: held to clone or replace the `Arc`.
    polled_client: Mutex<Arc<PolledClient>>,
    log: Arc<str>,
    health: Arc<ClusterHealth>,
    /// Where the tasks run that take the events of clients.
    background: Handle,
    /// The last probe, which may be under way. A std lock: held to clone or replace the probe.
    probe: Mutex<Option<Probe>>,
    offset_requests: OffsetRequests,
}

/// A request that any broker may answer. Its clones share one result.
type Probe = Shared<BoxFuture<'static, Result<(), RDKafkaErrorCode>>>;

impl Control {
    /// Starts the client, and its task in the background.
    pub(super) fn start(
        configs: &Arc<Configs>,
        log: Arc<str>,
        health: Arc<ClusterHealth>,
        background: Handle,
    ) -> Result<Self, LogError> {
        let isolation = Isolation::ReadUncommitted;
        let client = PolledClient::start(configs, isolation, health.clone(), &background)?;
        Ok(Self {
            configs: configs.clone(),
            polled_client: Mutex::new(client),
            log,
            health,
            background,
            probe: Mutex::default(),
            offset_requests: OffsetRequests::default(),
        })
    }

    /// Replaces the client with a new one. Blocks.
    pub(super) fn replace_client(&self) -> Result<(), LogError> {
        let (isolation, health) = (Isolation::ReadUncommitted, self.health.clone());
        let new = PolledClient::start(&self.configs, isolation, health, &self.background)?;
        let old = std::mem::replace(&mut *lock(&self.polled_client), new);
        // A probe of the old client says nothing about the new one.
        lock(&self.probe).take();
        drop(old);
        Ok(())
    }

    /// Returns the client. A task takes its events until the last `Arc` is dropped.
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
        let send_and_parse = async || {
            let polled = self.polled_client();
            let reply = send(polled.client())?.await.map_err(|_| LogError::Closed)?;
            // The client is dropped last: the reply belongs to it.
            Ok(reply.error().map_or_else(|| Ok(parse(&reply)), Err))
        };
        self.ask(action, topic, timeout, send_and_parse).await
    }

    /// Asks the cluster something, after some broker has answered, and waits for the answer.
    async fn ask<T>(
        &self,
        action: &'static str,
        topic: &str,
        timeout: Duration,
        question: impl AsyncFnOnce() -> Result<Answer<T>, LogError>,
    ) -> Result<T, LogError> {
        let asked = now();
        let answer = async {
            // While a request waits for a broker, librdkafka connects in a loop without a pause.
            // So no request is sent before some broker has answered.
            if !self.health.is_healthy() {
                let probed = tokio::time::timeout(timeout, self.probe()).await;
                probed.unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut)).map_err(|code| {
                    self.error(topic, action, code, self.specific_reason(code.to_string()))
                })?;
            }
            question().await?.map_err(|(code, reason)| {
                if matches!(code, RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::AllBrokersDown) {
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
                let client = self.polled_client().client().clone();
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

    /// Requests identity and partitions of one topic. Retries transient errors.
    async fn describe_topic(&self, name: &str) -> Result<DescribedTopic, LogError> {
        let names = [name];
        let mut timeouts = answer_timeouts();
        let describe = || self.describe_topics(&names, timeouts.next().unwrap_or(ANSWER_TIMEOUT));
        let topics = retry(REQUEST_TIMEOUT, describe).await?;
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

/// How long each request for the description of a topic waits for its answer: twice as long as the one before it, up to
/// [`ANSWER_TIMEOUT`].
fn answer_timeouts() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_ANSWER_TIMEOUT), |timeout| Some((*timeout * 2).min(ANSWER_TIMEOUT)))
}

/// Sends a request. Sends it again after a transient error, as the broker may be gone that it was sent to, until `timeout`
/// is over.
async fn retry<T, F: Future<Output = Result<T, LogError>>>(
    timeout: Duration,
    request: impl FnMut() -> F,
) -> Result<T, LogError> {
    let started = Instant::now();
    let should_retry = |error: &LogError| error.is_transient() && started.elapsed() < timeout;
    request.retry(retry_policy()).when(should_retry).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_wait_longer_each_time_but_not_without_limit() {
        let first: Vec<_> = answer_timeouts().take(4).map(|timeout| timeout.as_secs()).collect();
        assert_eq!(first, [1, 2, 4, 5]);
        // Tries that fail at once are repeated every 30 ms, so there are hundreds of them.
        assert_eq!(answer_timeouts().nth(1000), Some(ANSWER_TIMEOUT));
    }
}
