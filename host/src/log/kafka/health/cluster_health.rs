//! Tracks whether the cluster answers, and its last error.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::{Notify, watch};

use crate::log::kafka::error::{ErrorClass, classify};
use crate::log::kafka::ffi::event::Failure;
use crate::log::{Health, Outage};
use crate::sync::lock;
use crate::time::{TimePoint, now};

/// How long to wait for the cluster to accept our credentials after it refused them before.
const AUTHENTICATION_RETRY: Duration = Duration::from_secs(2);

/// The health of a cluster: the answers to its control client, and the errors of all its clients.
#[derive(Debug)]
pub(in crate::log::kafka) struct ClusterHealth {
    stale_after: Duration,
    /// A std lock: held to read or change a field.
    state: Mutex<State>,
    outage: watch::Sender<Option<Outage>>,
    /// Why the cluster refused our credentials; `None` after an answer.
    refusal: watch::Sender<Option<String>>,
    check_request: Notify,
}

#[derive(Debug)]
struct State {
    /// The time of the last request of the control client that was answered, or since when topics are read.
    answered: TimePoint,
    /// Whether topics are read, so that requests are sent regularly.
    reads_topics: bool,
    /// The last error since the last answer.
    reason: Option<String>,
    /// Whether the cluster has answered at all.
    has_answered: bool,
}

impl ClusterHealth {
    pub(in crate::log::kafka) fn new(stale_after: Duration) -> Self {
        let state = State { answered: now(), reads_topics: false, reason: None, has_answered: false };
        Self {
            stale_after,
            state: Mutex::new(state),
            outage: watch::channel(None).0,
            refusal: watch::channel(None).0,
            check_request: Notify::new(),
        }
    }

    pub(in crate::log::kafka) fn health(&self) -> Health {
        Health::new(self.outage.subscribe())
    }

    /// Records that the cluster answered a request that was sent at this time.
    pub(in crate::log::kafka) fn record_answer(&self, asked: TimePoint) {
        let mut state = self.state();
        if asked.0 > state.answered.0 {
            state.answered = asked;
        }
        (state.reason, state.has_answered) = (None, true);
        drop(state);
        self.refusal.send_if_modified(|refusal| refusal.take().is_some());
        if self.outage.borrow().is_some() {
            // A check decides whether the outage is over.
            self.request_check();
        }
    }

    /// Whether the cluster has answered, and no error followed.
    pub(in crate::log::kafka) fn is_healthy(&self) -> bool {
        let state = self.state();
        state.has_answered && state.reason.is_none()
    }

    /// Records an error of a client.
    pub(in crate::log::kafka) fn record_failure(&self, failure: &Failure) {
        // Fetching needs no right to the consumer group, because none is used.
        if failure.code == Code::GroupAuthorizationFailed {
            return;
        }
        // The errors of single brokers are more specific.
        if failure.code != Code::AllBrokersDown {
            self.state().reason = Some(failure.to_string());
        }
    }

    /// Records that a request was not answered in time.
    pub(in crate::log::kafka) fn mark_suspect(&self, reason: &str) {
        self.state().reason.get_or_insert_with(|| reason.to_owned());
    }

    /// Records an error of the control client, if it is about our credentials.
    pub(in crate::log::kafka) fn record_refusal(&self, failure: &Failure) {
        if classify(failure.code) == ErrorClass::Authentication {
            self.refusal.send_replace(Some(failure.reason.clone()));
        }
    }

    /// Requests a check of the topics.
    pub(in crate::log::kafka) fn request_check(&self) {
        self.check_request.notify_one();
    }

    /// Waits until a check is requested.
    pub(in crate::log::kafka) async fn wait_for_check_request(&self) {
        self.check_request.notified().await;
    }

    /// Returns the last error since the last answer.
    pub(in crate::log::kafka) fn reason(&self) -> Option<String> {
        self.state().reason.clone()
    }

    /// Waits until the cluster refuses our credentials, and returns the reason. A refusal before the call
    /// counts only after [`AUTHENTICATION_RETRY`], because the credentials may have been repaired.
    pub(in crate::log::kafka) async fn wait_for_refusal(&self) -> String {
        let mut refusals = self.refusal.subscribe();
        let before = refusals.borrow_and_update().clone();
        let next = async {
            loop {
                if refusals.changed().await.is_err() {
                    // Unreachable: the sender lives in `self`.
                    return std::future::pending().await;
                }
                if let Some(reason) = &*refusals.borrow_and_update() {
                    return reason.clone();
                }
            }
        };
        match before {
            None => next.await,
            Some(before) => tokio::time::timeout(AUTHENTICATION_RETRY, next).await.unwrap_or(before),
        }
    }

    /// Sets whether topics are read. While none are, silence is not an outage.
    pub(in crate::log::kafka) fn set_reads_topics(&self, reads_topics: bool) {
        let mut state = self.state();
        if reads_topics && !state.reads_topics {
            state.answered = now();
        }
        state.reads_topics = reads_topics;
    }

    /// Returns the time at which the silence becomes an outage if no answer comes before, or `None` if no
    /// topics are read or an outage is reported already.
    pub(in crate::log::kafka) fn due(&self) -> Option<Instant> {
        let state = self.state();
        (state.reads_topics && self.outage.borrow().is_none()).then(|| state.answered.0 + self.stale_after)
    }

    /// Reports an outage if it is due.
    pub(in crate::log::kafka) fn evaluate_if_due(&self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.evaluate(now);
        }
    }

    /// Returns the time since the last request that was answered was sent.
    pub(in crate::log::kafka) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.state().answered.0)
    }

    /// Reports the end of an outage, if the cluster answers again.
    pub(in crate::log::kafka) fn recover(&self, now: Instant) {
        if self.silence(now) < self.stale_after
            && self.outage.send_if_modified(|outage| outage.take().is_some())
        {
            tracing::info!("the cluster answers again");
        }
    }

    /// Reports an outage, if the cluster has been silent for `stale_after`.
    pub(in crate::log::kafka) fn evaluate(&self, now: Instant) {
        if self.silence(now) < self.stale_after {
            return;
        }
        let state = self.state();
        let reason = state.reason.clone().unwrap_or_else(|| "no answer".to_owned());
        let outage = Outage::new(state.answered.1, reason);
        drop(state);
        self.outage.send_if_modified(|current| {
            // A new reason alone is not reported.
            let is_new = current.is_none();
            if is_new {
                *current = Some(outage);
            }
            is_new
        });
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_reported_in_time_and_only_while_requests_are_sent() {
        let health = ClusterHealth::new(Duration::from_secs(10));
        assert_eq!(health.due(), None, "no requests are sent");
        health.set_reads_topics(true);
        let (start, time) = now();
        let at = |seconds| (start + Duration::from_secs(seconds), time + Duration::from_secs(seconds));
        // The time of the request counts, not the order of the answers.
        health.record_answer(at(3));
        health.record_answer(at(1));
        assert_eq!(health.due(), Some(at(13).0));
        health.evaluate(at(12).0);
        assert_eq!(health.health().outage(), None);
        health.evaluate(at(13).0);
        assert_eq!(health.health().outage().map(|outage| outage.since), Some(at(3).1));
        assert_eq!(health.due(), None, "it is reported already");
    }

    #[test]
    fn an_answer_alone_does_not_end_an_outage() {
        let health = ClusterHealth::new(Duration::ZERO);
        health.set_reads_topics(true);
        health.evaluate(Instant::now());
        let health = ClusterHealth { stale_after: Duration::from_secs(3600), ..health };
        health.record_answer(now());
        assert!(health.health().outage().is_some());
        // Only a check, which finds what was written meanwhile, ends it.
        health.recover(Instant::now());
        assert_eq!(health.health().outage(), None);
    }
}
