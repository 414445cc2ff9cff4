//! When the cluster was heard of last, and what its silence looks like.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::{Notify, watch};

use crate::log::kafka::error::{Meaning, meaning};
use crate::log::kafka::event::Failure;
use crate::log::lag::{Moment, now};
use crate::log::{Health, Trouble};

/// How long a cluster that refused us has to let us in.
const SECOND_CHANCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Heard {
    stale_after: Duration,
    /// A std lock: held to look or to change a field.
    state: Mutex<State>,
    trouble: watch::Sender<Option<Trouble>>,
    /// Why we were refused, since the last answer.
    refused: watch::Sender<Option<String>>,
    look: Notify,
}

#[derive(Debug)]
struct State {
    /// When the last question was asked that was answered: until then all was well.
    well: Moment,
    /// Whether questions are asked.
    is_asking: bool,
    /// What was said since.
    reason: Option<String>,
    /// There was an answer at all.
    once: bool,
}

impl Heard {
    pub(super) fn new(stale_after: Duration) -> Self {
        let state = State { well: now(), is_asking: false, reason: None, once: false };
        Self {
            stale_after,
            state: Mutex::new(state),
            trouble: watch::channel(None).0,
            refused: watch::channel(None).0,
            look: Notify::new(),
        }
    }

    pub(super) fn health(&self) -> Health {
        Health::new(self.trouble.subscribe())
    }

    /// The cluster answered what it was asked at this moment.
    pub(super) fn answered(&self, asked: Moment) {
        let mut state = self.state();
        if asked.0 > state.well.0 {
            state.well = asked;
        }
        (state.reason, state.once) = (None, true);
        drop(state);
        self.refused.send_if_modified(|refused| refused.take().is_some());
        if self.trouble.borrow().is_some() {
            // Whether the silence is over, a look tells.
            self.look();
        }
    }

    /// Whether the last thing heard was an answer.
    pub(super) fn is_well(&self) -> bool {
        let state = self.state();
        state.once && state.reason.is_none()
    }

    /// A client has something to say.
    pub(super) fn failed(&self, failure: &Failure) {
        // Fetching goes on without a right to the group that there is not.
        if failure.code == Code::GroupAuthorizationFailed {
            return;
        }
        // That all brokers are down says less than why each of them is.
        if failure.code != Code::AllBrokersDown {
            self.state().reason = Some(failure.to_string());
        }
    }

    /// A question was not answered in time.
    pub(super) fn doubt(&self, reason: &str) {
        self.state().reason.get_or_insert_with(|| reason.to_owned());
    }

    /// The client that asks has something to say.
    pub(super) fn refused_by(&self, failure: &Failure) {
        if meaning(failure.code) == Meaning::Authentication {
            self.refused.send_replace(Some(failure.reason.clone()));
        }
    }

    /// Somebody saw something of the topics that is worth a look.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    /// Resolves when somebody did.
    pub(super) async fn looked_at(&self) {
        self.look.notified().await;
    }

    /// What the silence looks like from here.
    pub(super) fn reason(&self) -> Option<String> {
        self.state().reason.clone()
    }

    /// Resolves when the cluster does not accept who we say we are. That it did not
    /// earlier may be mended by now, so that counts after a while only.
    pub(super) async fn refused(&self) -> String {
        let mut refused = self.refused.subscribe();
        let before = refused.borrow_and_update().clone();
        let again = async {
            loop {
                if refused.changed().await.is_err() {
                    // The sender lives in `self`.
                    return std::future::pending().await;
                }
                if let Some(reason) = &*refused.borrow_and_update() {
                    return reason.clone();
                }
            }
        };
        match before {
            None => again.await,
            Some(before) => tokio::time::timeout(SECOND_CHANCE, again).await.unwrap_or(before),
        }
    }

    /// From now on the cluster is asked, or not any more: while nobody asks, nobody answers.
    pub(super) fn asking(&self, is_asking: bool) {
        let mut state = self.state();
        if is_asking && !state.is_asking {
            state.well = now();
        }
        state.is_asking = is_asking;
    }

    /// When the silence is trouble, if it lasts until then.
    pub(super) fn due(&self) -> Option<Instant> {
        let state = self.state();
        (state.is_asking && self.trouble.borrow().is_none()).then(|| state.well.0 + self.stale_after)
    }

    /// Judges, if somebody asks.
    pub(super) fn judge_asking(&self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.judge(now);
        }
    }

    /// For how long nothing was answered.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.state().well.0)
    }

    /// Tells that the trouble is over, if the cluster answers again.
    pub(super) fn recover(&self, now: Instant) {
        if self.silence(now) < self.stale_after
            && self.trouble.send_if_modified(|trouble| trouble.take().is_some())
        {
            tracing::info!("the cluster answers again");
        }
    }

    /// Tells that the silence has become trouble, if so.
    pub(super) fn judge(&self, now: Instant) {
        if self.silence(now) < self.stale_after {
            return;
        }
        let state = self.state();
        let reason = state.reason.clone().unwrap_or_else(|| "no answer".to_owned());
        let trouble = Trouble { since: state.well.1, reason };
        drop(state);
        self.trouble.send_if_modified(|current| {
            // Since when matters, not the words.
            let new = current.is_none();
            if new {
                *current = Some(trouble);
            }
            new
        });
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // OK because nothing panics while it holds the lock.
        self.state.lock().expect("not poisoned")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_in_time_and_only_while_somebody_asks() {
        let patience = Duration::from_secs(10);
        let heard = Heard::new(patience);
        assert_eq!(heard.due(), None, "nobody asks");
        heard.asking(true);
        let (start, time) = now();
        let at = |seconds| (start + Duration::from_secs(seconds), time + Duration::from_secs(seconds));
        // What counts is when it was asked, not when the answer came.
        heard.answered(at(3));
        heard.answered(at(1));
        assert_eq!(heard.due(), Some(at(13).0));
        heard.judge(at(12).0);
        assert_eq!(heard.health().trouble(), None);
        heard.judge(at(13).0);
        assert_eq!(heard.health().trouble().map(|trouble| trouble.since), Some(at(3).1));
        assert_eq!(heard.due(), None, "it is told");
    }

    #[test]
    fn an_answer_alone_does_not_end_the_trouble() {
        let heard = Heard::new(Duration::ZERO);
        heard.asking(true);
        heard.judge(Instant::now());
        let heard = Heard { stale_after: Duration::from_secs(3600), ..heard };
        heard.answered(now());
        assert!(heard.health().trouble().is_some());
        // What was written meanwhile is known of now.
        heard.recover(Instant::now());
        assert_eq!(heard.health().trouble(), None);
    }
}
