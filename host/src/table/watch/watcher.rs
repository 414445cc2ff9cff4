//! The handle with which a user follows the changes of a table.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokio::task::JoinSet;

use crate::sync::lock;
use crate::table::watch::event::WatchEvent;
use crate::table::watch::filter::WatchFilter;
use crate::table::watch::hub::SharedHub;
use crate::table::watch::resume::{ReplayedEffects, Resume};
use crate::table::watch::subscription::{Subscription, WatchStep};
use crate::table::watch::token::WatchToken;

/// What a watcher receives first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchStart {
    /// All entries of the newest view, then the changes after it.
    Entries,
    /// The changes from now on.
    Now,
    /// The changes after a token, once the table is loaded. The token may be of an earlier watcher of this
    /// table, of another process, or from before a restart. The table takes the changes from its history or
    /// reads the log again. From the log, it delivers the newest change of each key, or, with
    /// [`Watcher::every_change`], every record that the log still holds, and the entry before a change is
    /// unknown. If the changes are no longer known, or the topic or the codecs are others, the watcher
    /// receives [`WatchEvent::Restarted`] and all entries.
    Since(WatchToken),
}

/// Follows the changes of a table, in order.
///
/// A watcher never slows the table down. One that falls behind receives the difference between what
/// it has seen and the newest entries, with [`Cause::Difference`](crate::table::Cause::Difference);
/// with [`Watcher::every_change`], it receives how much it missed. A watcher keeps at most 64 MiB of
/// entries alive that the table no longer has. Beyond that, it starts again with
/// [`WatchEvent::Restarted`].
pub struct Watcher {
    hub: SharedHub,
    subscription: Arc<Subscription>,
    filter: WatchFilter,
    resume: Arc<dyn Resume>,
    stage: Stage,
    /// Whether everything that was published has been delivered.
    is_current: bool,
}

/// What a watcher is doing: following the table, or one of the stages of resuming.
enum Stage {
    /// The history does not reach back to the token.
    Resuming(WatchToken),
    /// The table has not reached the token yet.
    Waiting(JoinSet<()>, WatchToken),
    /// A task reads the log again. It ends and frees its memory even if nobody polls the watcher.
    Replaying(JoinSet<Option<ReplayedEffects>>),
    /// The watcher follows the table.
    Following,
}

/// Shows the filter.
impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Watcher {
    pub(in crate::table) fn new(hub: &SharedHub, start: WatchStart, resume: Arc<dyn Resume>) -> Self {
        let subscription = Arc::new(Subscription::default());
        let filter = WatchFilter::All;
        let mut locked = lock(hub);
        locked.subscribe(&subscription, &filter);
        let history = locked.history();
        let mut stage = Stage::Following;
        match start {
            WatchStart::Now => subscription.begin(history),
            WatchStart::Entries => subscription.begin_with_entries(history),
            WatchStart::Since(token) if history.reaches(&token) => {
                subscription.begin_at(token.cursor, history);
            }
            WatchStart::Since(token) => {
                subscription.begin(history);
                stage = Stage::Resuming(token);
            }
        }
        drop(locked);
        Self { hub: hub.clone(), subscription, filter, resume, stage, is_current: false }
    }

    /// Restricts the watcher to some keys. Events that are about no key are delivered in any case,
    /// except records whose key could not be decoded.
    #[must_use]
    pub fn with_filter(mut self, filter: WatchFilter) -> Self {
        let mut hub = lock(&self.hub);
        hub.unsubscribe(&self.subscription, &self.filter);
        hub.subscribe(&self.subscription, &filter);
        drop(hub);
        self.filter = filter;
        self
    }

    /// Delivers every change, or [`WatchEvent::Lagged`] if some were missed, instead of
    /// differences.
    #[must_use]
    pub fn every_change(self) -> Self {
        self.subscription.want_every();
        self
    }

    /// Returns the token to resume after what was delivered; `None` while entries, a difference, or the
    /// effects of one record are being delivered.
    #[must_use]
    pub fn token(&self) -> Option<WatchToken> {
        match self.stage {
            Stage::Following => self.subscription.token(lock(&self.hub).history()),
            Stage::Resuming(_) | Stage::Waiting(..) | Stage::Replaying(_) => None,
        }
    }

    /// Whether everything that was published when the watcher was last polled has been delivered.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.is_current
    }

    /// Returns the next event; `None` after the table has ended.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if this is dropped.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Resumes, as soon as the table has reached the token.
    fn poll_resume(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                Stage::Following => return Poll::Ready(()),
                Stage::Resuming(token) => {
                    let token = token.clone();
                    let mut wait = JoinSet::new();
                    wait.spawn(self.resume.wait_until_reached(token.clone()));
                    self.stage = Stage::Waiting(wait, token);
                }
                Stage::Waiting(wait, token) => {
                    ready!(wait.poll_join_next(context));
                    let token = token.clone();
                    self.stage = self.resume_from_log(token);
                }
                Stage::Replaying(replay) => {
                    // Without effects, or if the task panicked, nobody knows what came after the token.
                    match ready!(replay.poll_join_next(context)) {
                        Some(Ok(Some(replayed))) => self.subscription.deliver_replayed(replayed),
                        _ => self.subscription.restart(lock(&self.hub).history()),
                    }
                    self.stage = Stage::Following;
                }
            }
        }
    }

    /// Begins to read the log from a token to the newest view. The watcher continues after that view.
    fn resume_from_log(&self, token: WatchToken) -> Stage {
        let hub = lock(&self.hub);
        let history = hub.history();
        if !history.accepts(&token) {
            self.subscription.restart(history);
            return Stage::Following;
        }
        self.subscription.continue_after_newest(history);
        let mut replay = JoinSet::new();
        let view = history.newest().clone();
        replay.spawn(self.resume.replay(token, view, self.subscription.wants_every()));
        Stage::Replaying(replay)
    }

    fn deliver_next(&self) -> WatchStep {
        match self.subscription.deliver_next(&self.filter) {
            Some(step) => step,
            None => self.subscription.take_next_batch(lock(&self.hub).history()),
        }
    }
}

impl Stream for Watcher {
    type Item = WatchEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        ready!(self.poll_resume(context));
        // Registered first, so that an announcement during the step is not missed.
        self.subscription.waker.register(context.waker());
        let step = self.deliver_next();
        self.is_current = matches!(step, WatchStep::Wait);
        match step {
            WatchStep::Event(event) => Poll::Ready(Some(event)),
            WatchStep::Done => Poll::Ready(None),
            WatchStep::Wait => Poll::Pending,
            WatchStep::Yield => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        lock(&self.hub).unsubscribe(&self.subscription, &self.filter);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use futures_util::future::BoxFuture;
    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::log::TopicDescription;
    use crate::table::change::Effect;
    use crate::table::clock::SystemClock;
    use crate::table::reject::RejectNotice;
    use crate::table::status::Status;
    use crate::table::view::View;
    use crate::table::watch::hub::Hub;

    fn view() -> Arc<View> {
        let topic = TopicDescription { name: "t".to_owned(), id: "1".to_owned(), partitions: 1 };
        Arc::new(View::empty(1, topic.into(), "f".into()))
    }

    fn effect() -> Effect {
        let kind = crate::codec::RejectKind::Other;
        let notice = RejectNotice { partition: 0, offset: 0, kind, message: "x".to_owned() };
        Effect::Rejected { key: None, group: None, notice }
    }

    fn hub() -> SharedHub {
        Arc::new(Mutex::new(Hub::new(view(), "".into(), Arc::new(SystemClock))))
    }

    /// A log that no longer has any record.
    struct Nothing;

    impl Resume for Nothing {
        fn wait_until_reached(&self, _: WatchToken) -> BoxFuture<'static, ()> {
            async {}.boxed()
        }

        fn replay(
            &self,
            _: WatchToken,
            _: Arc<View>,
            _: bool,
        ) -> BoxFuture<'static, Option<ReplayedEffects>> {
            async { None }.boxed()
        }
    }

    fn watch(hub: &SharedHub, start: WatchStart) -> Watcher {
        Watcher::new(hub, start, Arc::new(Nothing))
    }

    /// The events that the watcher delivers without waiting.
    async fn delivered(watcher: &mut Watcher) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        // The watcher gives others their turn now and then.
        for _ in 0..100 {
            tokio::task::yield_now().await;
            while let Some(Some(event)) = StreamExt::next(watcher).now_or_never() {
                events.push(event);
            }
        }
        events
    }

    #[tokio::test]
    async fn a_watcher_that_begins_while_records_are_applied_sees_every_change_after_them() {
        for wants_every in [false, true] {
            let hub = hub();
            let mut watcher = watch(&hub, WatchStart::Now);
            if wants_every {
                watcher = watcher.every_change();
            }
            let early = watcher.token().unwrap();
            let mut applied = View::clone(&view());
            applied.counters.records = 1;
            lock(&hub).publish_unrecorded(Arc::new(applied));
            for _ in 0..3 {
                lock(&hub).publish(view(), vec![effect()]);
            }
            let mut events = delivered(&mut watcher).await.into_iter().peekable();
            let lagged = events.next_if(|event| matches!(event, WatchEvent::Lagged(1)));
            assert_eq!(lagged.is_some(), wants_every);
            let is_rejected = |event: WatchEvent| matches!(event, WatchEvent::Rejected { .. });
            assert_eq!(events.map(is_rejected).collect::<Vec<_>>(), [true; 3]);
            let late = watcher.token().unwrap();
            let mut resumed = watch(&hub, WatchStart::Since(early));
            assert!(matches!(delivered(&mut resumed).await[0], WatchEvent::Restarted), "not recorded");
            let mut resumed = watch(&hub, WatchStart::Since(late));
            assert!(delivered(&mut resumed).await.is_empty());
        }
    }

    #[tokio::test]
    async fn nobody_resumes_before_what_was_not_recorded() {
        let hub = hub();
        let watcher = watch(&hub, WatchStart::Now);
        let token = watcher.token().unwrap();
        drop(watcher);
        lock(&hub).expire(Instant::now() + Duration::from_secs(3600));
        lock(&hub).publish(view(), vec![effect()]);
        let mut resumed = watch(&hub, WatchStart::Since(token));
        assert!(matches!(&delivered(&mut resumed).await[..], [WatchEvent::Restarted, WatchEvent::Synced]));
    }

    /// The view of another generation: of the same topic and codecs, or of others.
    fn other_view(fingerprint: &str) -> Arc<View> {
        let topic = TopicDescription { name: "t".to_owned(), id: "1".to_owned(), partitions: 1 };
        Arc::new(View::empty(2, topic.into(), fingerprint.into()))
    }

    #[tokio::test]
    async fn a_watcher_resumes_within_a_batch_and_on_a_table_that_has_ended() {
        let hub = hub();
        let mut watcher = watch(&hub, WatchStart::Now);
        let first = watcher.token().unwrap();
        lock(&hub).publish(view(), vec![effect()]);
        lock(&hub).publish_status(Status::Stopped);
        let events = delivered(&mut watcher).await;
        assert!(matches!(&events[..], [WatchEvent::Rejected { .. }, WatchEvent::Status(Status::Stopped)]));
        let mut resumed = watch(&hub, WatchStart::Since(first));
        let events = delivered(&mut resumed).await;
        assert!(
            matches!(&events[..], [WatchEvent::Rejected { .. }, WatchEvent::Status(Status::Stopped)]),
            "{events:?}"
        );
        assert!(resumed.next().await.is_none(), "the table has ended");
        let mut after = watch(&hub, WatchStart::Since(watcher.token().unwrap()));
        assert!(matches!(&delivered(&mut after).await[..], [WatchEvent::Status(Status::Stopped)]));
        assert!(after.next().await.is_none(), "the table has ended");
    }

    #[tokio::test]
    async fn a_status_that_is_announced_while_a_watcher_resumes_is_not_lost() {
        for status in [Status::CaughtUp, Status::Stopped] {
            let hub = hub();
            let token = watch(&hub, WatchStart::Now).token().unwrap();
            lock(&hub).expire(Instant::now() + Duration::from_secs(3600));
            lock(&hub).publish_unrecorded(view());
            let mut resumed = watch(&hub, WatchStart::Since(token));
            assert!(StreamExt::next(&mut resumed).now_or_never().is_none());
            lock(&hub).publish_status(status.clone());
            let events = delivered(&mut resumed).await;
            assert!(matches!(
                &events[..],
                [WatchEvent::Restarted, WatchEvent::Synced, WatchEvent::Status(_)]
            ));
        }
    }

    #[tokio::test]
    async fn a_token_from_within_a_batch_keeps_the_topic_and_the_codecs_of_that_batch() {
        let hub = hub();
        let mut watcher = watch(&hub, WatchStart::Now);
        lock(&hub).publish(view(), vec![effect(), effect()]);
        let Some(Some(WatchEvent::Rejected { .. })) =
            StreamExt::next(&mut watcher).now_or_never().or(Some(watcher.next().await))
        else {
            panic!("no reject")
        };
        lock(&hub).switch_generation(other_view("other codecs"));
        delivered(&mut watch(&hub, WatchStart::Now)).await;
        // Both effects are of one record, so there is no place between them; after them there is.
        assert_eq!(watcher.token(), None);
        while !matches!(watcher.next().await, Some(WatchEvent::Rejected { .. })) {}
        let token = watcher.token().unwrap();
        let mut resumed = watch(&hub, WatchStart::Since(token));
        assert!(matches!(&delivered(&mut resumed).await[..], [WatchEvent::Restarted, WatchEvent::Synced]));
    }

    #[tokio::test]
    async fn a_watcher_of_every_change_learns_what_it_missed_after_a_switch() {
        let hub = hub();
        let mut watcher = watch(&hub, WatchStart::Now).every_change();
        lock(&hub).switch_generation(other_view("f"));
        lock(&hub).publish(other_view("f"), vec![effect()]);
        let events = delivered(&mut watcher).await;
        assert!(matches!(&events[..], [WatchEvent::Generation(2), WatchEvent::Lagged(1)]), "{events:?}");
    }

    #[tokio::test]
    async fn a_watcher_of_every_change_that_does_not_know_the_old_generation_starts_again() {
        let hub = hub();
        let token = watch(&hub, WatchStart::Now).token().unwrap();
        lock(&hub).publish(view(), vec![effect()]);
        let mut resumed = watch(&hub, WatchStart::Since(token)).every_change();
        lock(&hub).switch_generation(other_view("f"));
        assert!(matches!(&delivered(&mut resumed).await[..], [WatchEvent::Restarted, WatchEvent::Synced]));
    }
}
