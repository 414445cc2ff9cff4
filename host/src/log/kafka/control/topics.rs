//! Requests that list, create, change and delete topics.

use std::collections::HashMap;
use std::time::Duration;

use backon::Retryable;

use super::{ANSWER_TIMEOUT, Control, READ_SETTINGS, REQUEST_TIMEOUT, c_name, retry, retry_policy};
use crate::log::ensure::is_same_policy;
use crate::log::kafka::ffi::admin;
use crate::log::kafka::ffi::client::Client;
use crate::log::kafka::ffi::offsets::OffsetKind;
use crate::log::{CLEANUP_POLICY, LogError, NewTopic, TopicDescription};

impl Control {
    /// Requests one setting of a topic.
    pub(in crate::log::kafka) async fn setting(&self, topic: &str, name: &str) -> Result<String, LogError> {
        self.settings(topic, REQUEST_TIMEOUT).await?.remove(name).ok_or_else(|| {
            let (log, topic) = (self.log.to_string(), topic.to_owned());
            let reason = format!("the broker did not return its {name}");
            LogError::Broker { log, topic, action: READ_SETTINGS, reason }
        })
    }

    /// Requests all settings of a topic. Retries transient errors.
    pub(in crate::log::kafka) async fn settings(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<HashMap<String, String>, LogError> {
        let request = async || {
            let send = |client: &Client| {
                Ok(admin::describe_configuration(client, &c_name(topic)?, timeout.min(ANSWER_TIMEOUT)))
            };
            let answer = self.request(READ_SETTINGS, topic, timeout, send, admin::parse_settings).await?;
            answer.map_err(|(code, reason)| self.error(topic, READ_SETTINGS, code, reason))
        };
        retry(timeout, request).await
    }

    /// Changes the `cleanup.policy` of a topic, and waits until brokers return the new one.
    pub(in crate::log::kafka) async fn set_cleanup_policy(
        &self,
        name: &str,
        policy: &str,
    ) -> Result<(), LogError> {
        let action = "change the settings of";
        let invalid = |reason| LogError::InvalidTopic { topic: name.to_owned(), reason };
        let send = |client: &Client| {
            admin::alter_configuration(client, &c_name(name)?, CLEANUP_POLICY, policy, ANSWER_TIMEOUT)
                .map_err(invalid)
        };
        let answer = self.request(action, name, REQUEST_TIMEOUT, send, admin::parse_alteration).await?;
        answer.map_err(|(code, reason)| self.error(name, action, code, reason))?;
        let check_changed = || async {
            let actual = self.setting(name, CLEANUP_POLICY).await?;
            let reason = || format!("brokers still return {CLEANUP_POLICY}={actual}");
            if is_same_policy(&actual, policy) {
                Ok(())
            } else {
                Err(self.unreachable(name, action, reason()))
            }
        };
        let reason = "the change was accepted, but brokers have not confirmed it in time: describe the topic";
        self.confirm(name, action, check_changed, reason).await
    }

    /// Creates a topic. Other brokers may not know it yet: see [`Control::wait_until_visible`].
    pub(in crate::log::kafka) async fn create(
        &self,
        name: &str,
        settings: &NewTopic,
    ) -> Result<(), LogError> {
        let action = "create";
        let invalid = |reason| LogError::InvalidTopic { topic: name.to_owned(), reason };
        let send = |client: &Client| {
            admin::create_topic(client, &c_name(name)?, settings, REQUEST_TIMEOUT).map_err(invalid)
        };
        let answer = self.request(action, name, REQUEST_TIMEOUT, send, admin::parse_creation).await?;
        answer.map_err(|(code, reason)| self.error(name, action, code, reason))
    }

    /// Returns the names of all topics, in order, without those that begin with `__`, as internal ones do.
    pub(in crate::log::kafka) async fn topics(&self) -> Result<Vec<String>, LogError> {
        let client = self.polled_client().client().clone();
        let list = tokio::task::spawn_blocking(move || client.list_topics(REQUEST_TIMEOUT));
        let listed = list.await.map_err(|_| LogError::Closed)?;
        let mut names =
            listed.map_err(|code| self.error("*", "list", code, self.specific_reason(code.to_string())))?;
        names.retain(|name| !name.starts_with("__"));
        names.sort();
        Ok(names)
    }

    /// Deletes a topic, and waits until brokers no longer describe it.
    pub(in crate::log::kafka) async fn delete(&self, name: &str) -> Result<(), LogError> {
        let action = "delete";
        let send = |client: &Client| Ok(admin::delete_topic(client, &c_name(name)?, REQUEST_TIMEOUT));
        let answer = self.request(action, name, REQUEST_TIMEOUT, send, admin::parse_deletion).await?;
        answer.map_err(|(code, reason)| self.error(name, action, code, reason))?;
        let check_gone = || async {
            match self.describe(name).await {
                Err(LogError::UnknownTopic { .. }) => Ok(()),
                Ok(_) => Err(self.unreachable(name, action, "brokers still describe it".to_owned())),
                Err(error) => Err(error),
            }
        };
        let reason =
            "it was deleted, but brokers have not confirmed in time that it is gone: list the topics";
        self.confirm(name, action, check_gone, reason).await
    }

    /// Repeats a check until it succeeds: brokers learn of a change a moment after it was made. Fails with
    /// this reason when the time for a request has passed.
    async fn confirm<C: Future<Output = Result<(), LogError>>>(
        &self,
        name: &str,
        action: &'static str,
        check: impl FnMut() -> C,
        reason: &str,
    ) -> Result<(), LogError> {
        let timed_out = |_| Err(self.unreachable(name, action, reason.to_owned()));
        tokio::time::timeout(REQUEST_TIMEOUT, check.retry(retry_policy()).when(LogError::is_transient))
            .await
            .unwrap_or_else(timed_out)
    }

    /// Waits until brokers describe a topic that was just created, and its partitions have leaders: other
    /// brokers learn of it a moment later.
    pub(in crate::log::kafka) async fn wait_until_visible(
        &self,
        name: &str,
    ) -> Result<TopicDescription, LogError> {
        let describe = || async {
            let topic = self.describe(name).await?;
            self.list_offsets(name, 0..topic.partitions, OffsetKind::End).await?;
            Ok(topic)
        };
        let should_retry =
            |error: &LogError| error.is_transient() || matches!(error, LogError::UnknownTopic { .. });
        let reason =
            "it exists, but not all of its partitions can be reached yet: try again later".to_owned();
        let timed_out = |_| Err(self.unreachable(name, "describe", reason));
        tokio::time::timeout(REQUEST_TIMEOUT, describe.retry(retry_policy()).when(should_retry))
            .await
            .unwrap_or_else(timed_out)
    }
}
