//! Where a table publishes its views and the effects that led to them, and where watchers subscribe.
//!
//! Before the first watcher, and some time after the last one left, nothing is recorded.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::table::change::Effect;
use crate::table::clock::Clock;
use crate::table::status::Status;
use crate::table::view::View;
use crate::table::watch::filter::WatchFilter;
use crate::table::watch::history::History;
use crate::table::watch::subscription::Subscription;
use crate::table::watch::subscriptions::Subscriptions;

/// How many bytes of entries a watcher may keep alive that the table no longer has. A watcher that
/// keeps more starts again.
const MAX_WATCHER_BYTES: usize = 64 << 20;

/// How many bytes are published before the watchers are checked for [`MAX_WATCHER_BYTES`] again.
const CHECK_EVERY_BYTES: u64 = MAX_WATCHER_BYTES as u64 / 8;

/// How long the history is kept after the last watcher left, so that watchers can resume.
const HISTORY_AGE: Duration = Duration::from_secs(5 * 60);

/// The history and the watchers of a table.
#[derive(Debug)]
pub(in crate::table) struct Hub {
    /// Whether effects are recorded: somebody watches, or did so recently.
    is_recording: bool,
    history: History,
    subscriptions: Subscriptions,
    /// The number of published bytes at the last check of the watchers.
    checked: u64,
    /// The time at which the last watcher left.
    left: Option<Instant>,
}

/// The hub, shared by the table and its watchers. A std lock: held while a view is published or a
/// watcher takes its next batch; no read of the table takes it.
pub(in crate::table) type SharedHub = Arc<Mutex<Hub>>;

impl Hub {
    /// `settings` are those of the table that decide what it holds, `clock` is its clock.
    pub(in crate::table) fn new(view: Arc<View>, settings: Arc<str>, clock: Arc<dyn Clock>) -> Self {
        Self {
            is_recording: false,
            history: History::new(view, settings, clock),
            subscriptions: Subscriptions::default(),
            checked: 0,
            left: None,
        }
    }

    /// Whether effects have to be collected and published.
    pub(in crate::table) fn is_recording(&self) -> bool {
        self.is_recording
    }

    /// Publishes a view of the served generation, and the effects that led to it.
    pub(in crate::table) fn publish(&mut self, view: Arc<View>, effects: Vec<Effect>) {
        let before = self.history.replace_newest(view);
        if !self.is_recording || effects.is_empty() {
            return;
        }
        let concerned = self.subscriptions.of(&effects);
        self.history.push_effects(effects, &before);
        self.announce(&concerned, &before);
        self.enforce_limits();
    }

    /// Publishes a view of the served generation whose effects were not collected, because nobody
    /// watched when applying began. Watchers that subscribed since receive the difference.
    pub(in crate::table) fn publish_unrecorded(&mut self, view: Arc<View>) {
        let before = self.history.replace_newest(view);
        self.history.clear();
        for subscription in self.subscriptions.all() {
            subscription.deliver_unrecorded(before.clone(), &self.history);
        }
    }

    /// Publishes the view of another generation. Watchers receive the difference.
    pub(in crate::table) fn switch_generation(&mut self, view: Arc<View>) {
        let before = self.history.replace_newest(view);
        if self.is_recording {
            self.history.clear();
            // A watcher that does not read keeps all of it alive.
            self.history.add_published(before.byte_len());
            self.announce(&self.subscriptions.all(), &before);
        }
    }

    /// Publishes a status.
    pub(in crate::table) fn publish_status(&mut self, status: Status) {
        self.history.set_status(status);
        if self.is_recording {
            self.history.push_status();
            self.announce(&self.subscriptions.all(), self.history.newest());
        }
    }

    /// Announces the last number of the history, which may have no batch. `before` is the view before it.
    fn announce(&self, subscriptions: &[Arc<Subscription>], before: &Arc<View>) {
        for subscription in subscriptions {
            subscription.announce(self.history.next() - 1, before, self.history.published());
        }
    }

    /// Makes watchers that keep too many bytes alive start again. Called from time to time as well, because
    /// nothing may be published for long.
    pub(in crate::table) fn enforce_limits(&mut self) {
        if self.history.published() - self.checked < CHECK_EVERY_BYTES {
            return;
        }
        self.checked = self.history.published();
        for subscription in self.subscriptions.all() {
            subscription.enforce_limit(MAX_WATCHER_BYTES, &self.history);
        }
    }

    /// The bytes of the history.
    pub(in crate::table) fn byte_len(&self) -> usize {
        self.history.byte_len()
    }

    /// Stops recording if nobody has watched for [`HISTORY_AGE`].
    pub(in crate::table) fn expire(&mut self, now: Instant) {
        if self.left.is_some_and(|left| now.saturating_duration_since(left) >= HISTORY_AGE) {
            self.history.clear();
            (self.is_recording, self.left) = (false, None);
        }
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    pub(super) fn subscribe(&mut self, subscription: &Arc<Subscription>, filter: &WatchFilter) {
        (self.is_recording, self.left) = (true, None);
        self.subscriptions.add(subscription, filter);
    }

    pub(super) fn unsubscribe(&mut self, subscription: &Arc<Subscription>, filter: &WatchFilter) {
        self.subscriptions.remove(subscription, filter);
        if self.subscriptions.is_empty() {
            self.left = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::TopicDescription;
    use crate::table::clock::SystemClock;
    use crate::table::reject::RejectNotice;
    use crate::table::watch::history::MAX_HISTORY_EFFECTS;

    fn view() -> Arc<View> {
        let topic = TopicDescription { name: "t".to_owned(), id: "1".to_owned(), partitions: 1 };
        Arc::new(View::empty(1, topic.into(), "f".into()))
    }

    fn effect() -> Effect {
        let kind = crate::codec::RejectKind::Other;
        let notice = RejectNotice { partition: 0, offset: 0, kind, message: "x".repeat(1000) };
        Effect::Rejected { key: None, group: None, notice }
    }

    #[test]
    fn history_ends_some_time_after_the_last_watcher() {
        let view = view();
        let mut hub = Hub::new(view.clone(), "".into(), Arc::new(SystemClock));
        hub.publish(view.clone(), vec![effect()]);
        assert!(!hub.is_recording() && hub.byte_len() == 0, "nobody watches");
        let subscription = Arc::new(Subscription::default());
        hub.subscribe(&subscription, &WatchFilter::All);
        for _ in 0..100_000 {
            hub.publish(view.clone(), vec![effect()]);
        }
        let effects = hub.history.next() - hub.history.first();
        assert!(hub.byte_len() <= 16 << 20 && (5000..=MAX_HISTORY_EFFECTS as u64).contains(&effects));
        hub.unsubscribe(&subscription, &WatchFilter::All);
        let now = Instant::now();
        hub.expire(now + HISTORY_AGE / 2);
        assert!(hub.is_recording());
        hub.expire(now + HISTORY_AGE * 2);
        assert!(!hub.is_recording() && hub.byte_len() == 0 && hub.history.first() == hub.history.next());
    }
}
