//! The state of one watcher: what it still has to deliver, and what it keeps alive for that.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::task::AtomicWaker;

use crate::sync::lock;
use crate::table::change::{Cause, Effect};
use crate::table::status::Status;
use crate::table::view::View;
use crate::table::watch::event::WatchEvent;
use crate::table::watch::filter::WatchFilter;
use crate::table::watch::history::{History, Update, WatchBatch};
use crate::table::watch::listing::{Difference, Listing, SeenContents, Walk};
use crate::table::watch::resume::ReplayedEffects;
use crate::table::watch::token::{Cursor, WatchToken};

/// The state of one watcher, shared with the table, which announces batches to it.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// A std lock: held to examine some rows, or to change a field. Taken after the hub's lock.
    state: Mutex<State>,
    /// Wakes the watcher's task.
    pub(super) waker: AtomicWaker,
}

/// The batches that a watcher has not seen: those from a number on.
#[derive(Debug)]
struct PendingBatches {
    from: u64,
    /// The generation that was served before them.
    generation: u64,
    /// The view before them, if it is known.
    before: Option<Arc<View>>,
}

/// What is delivered next, in the order of the fields.
#[derive(Debug, Default)]
struct State {
    events: VecDeque<WatchEvent>,
    /// Effects from the log, for a watcher that resumed from there.
    replayed: ReplayedEffects,
    listing: Option<Listing>,
    difference: Option<Difference>,
    /// The status after these, if it changed while they were delivered.
    status: Option<Status>,
    /// The batch that is being delivered, and the number of its effects that were delivered.
    current: Option<(Arc<WatchBatch>, usize)>,
    /// The batches after it; `None` if there are none for this watcher.
    pending: Option<PendingBatches>,
    /// What the watcher has seen, while batches are pending; `None` if that is not known.
    seen: Option<SeenContents>,
    /// The number of the first batch that was published after the watcher subscribed.
    subscribed_at: u64,
    /// Whether the watcher wants every change, or a report of what it missed.
    wants_every: bool,
    must_restart: bool,
    /// Whether a final status was delivered.
    is_over: bool,
    /// The number of bytes that had been published when the watcher began to hold views.
    held_since: u64,
}

/// What a step of a watcher returns.
#[derive(Debug)]
pub(super) enum WatchStep {
    Event(WatchEvent),
    /// There is more to do, after other tasks had their turn.
    Yield,
    /// There is nothing to deliver now.
    Wait,
    /// There will never be anything to deliver again.
    Done,
}

impl Subscription {
    /// Begins after what was published. If the table has ended, delivers its final status.
    pub(super) fn begin(&self, history: &History) {
        let mut state = lock(&self.state);
        state.subscribed_at = history.next();
        state.continue_after_newest(history);
    }

    /// Delivers all entries of the newest view first.
    pub(super) fn begin_with_entries(&self, history: &History) {
        let mut state = lock(&self.state);
        state.subscribed_at = history.next();
        state.restart(history);
    }

    /// Resumes at a token that the history [reaches](History::reaches).
    pub(super) fn begin_at(&self, cursor: Cursor, history: &History) {
        let mut state = lock(&self.state);
        state.subscribed_at = history.next();
        state.continue_after_newest(history);
        let mut from = cursor.batch;
        if cursor.effects > 0 {
            state.current = history.batch(from).map(|batch| (batch.clone(), cursor.effects));
            from += 1;
        }
        if from < history.next() {
            let generation = history.newest().generation;
            // The final status is among the batches.
            (state.status, state.pending) = (None, Some(PendingBatches { from, generation, before: None }));
        }
    }

    /// Forgets what was announced before: the watcher continues after the newest view.
    pub(super) fn continue_after_newest(&self, history: &History) {
        lock(&self.state).continue_after_newest(history);
    }

    /// Starts again: what came after the token of an earlier watcher is not known.
    pub(super) fn restart(&self, history: &History) {
        let mut state = lock(&self.state);
        state.events.push_back(WatchEvent::Restarted);
        state.restart(history);
    }

    /// Delivers effects that were read from the log, before everything else.
    pub(super) fn deliver_replayed(&self, replayed: ReplayedEffects) {
        lock(&self.state).replayed = replayed;
    }

    pub(super) fn wants_every(&self) -> bool {
        lock(&self.state).wants_every
    }

    pub(super) fn want_every(&self) {
        lock(&self.state).wants_every = true;
    }

    /// Announces a batch that concerns the watcher. `before` is the view before it.
    pub(super) fn announce(&self, number: u64, before: &Arc<View>, published: u64) {
        let mut state = lock(&self.state);
        if state.pending.is_none() && !state.must_restart {
            if state.holds_nothing() {
                state.held_since = published;
            }
            let generation = before.generation;
            state.pending = Some(PendingBatches { from: number, generation, before: Some(before.clone()) });
        }
        drop(state);
        self.waker.wake();
    }

    /// Delivers the difference between `before` and the newest view, because the changes between
    /// them were not recorded; then the status, if it is new. The watcher has nothing else to
    /// deliver yet.
    pub(super) fn deliver_unrecorded(&self, before: Arc<View>, history: &History) {
        let has_records = before.counters.records != history.newest().counters.records;
        let mut state = lock(&self.state);
        let pending = state.pending.take();
        if let Some(status) = pending.and_then(|pending| history.status_since(pending.from)) {
            state.status = Some(status);
        }
        let (seen, newest) = (SeenContents::new(before), history.newest().clone());
        let missed = u64::from(has_records);
        state.difference = Some(Difference::new(seen, newest, Cause::Difference, missed));
        drop(state);
        self.waker.wake();
    }

    /// Makes the watcher start again if it keeps more than `limit` bytes of entries alive that the
    /// newest view does not have.
    pub(super) fn enforce_limit(&self, limit: usize, history: &History) {
        let (published, newest) = (history.published(), history.newest());
        let mut state = lock(&self.state);
        // A watcher cannot keep more alive than what was published since.
        if state.holds_nothing() || published - state.held_since <= limit as u64 {
            return;
        }
        let held: usize = state.views().map(|view| view.bytes_only_here(newest)).sum();
        if held > limit {
            let (wants_every, subscribed_at) = (state.wants_every, state.subscribed_at);
            *state = State { must_restart: true, wants_every, subscribed_at, ..State::default() };
        } else {
            state.held_since = published - held as u64;
        }
    }

    /// Returns the token of a watcher that has seen what was delivered; `None` while entries or a
    /// difference are delivered.
    pub(super) fn token(&self, history: &History) -> Option<WatchToken> {
        let state = lock(&self.state);
        let is_listing = state.listing.is_some() || state.difference.is_some() || state.status.is_some();
        if is_listing || state.must_restart || !state.events.is_empty() || !state.replayed.is_empty() {
            return None;
        }
        match (&state.current, &state.pending) {
            (Some((batch, effects)), _) => history.token(batch, *effects),
            // Without the batch, a difference follows, or the watcher starts again.
            (None, Some(pending)) => history.token(history.batch(pending.from)?, 0),
            (None, None) => Some(history.newest_token()),
        }
    }

    /// Delivers the next event without the history. Returns `None` if the history is needed.
    pub(super) fn deliver_next(&self, filter: &WatchFilter) -> Option<WatchStep> {
        lock(&self.state).deliver_next(filter)
    }

    /// Takes the next batch from the history. Call it when [`Subscription::deliver_next`] returned `None`,
    /// with the history locked.
    pub(super) fn take_next_batch(&self, history: &History) -> WatchStep {
        let mut state = lock(&self.state);
        if state.difference.is_some() {
            // It was set between the two locks.
            return WatchStep::Yield;
        }
        if std::mem::take(&mut state.must_restart) {
            state.events.push_back(WatchEvent::Restarted);
            state.restart(history);
            state.status = Some(history.status().clone());
            return WatchStep::Yield;
        }
        let Some(PendingBatches { from, generation, before }) = state.pending.take() else {
            return WatchStep::Wait;
        };
        if let Some(before) = before {
            state.seen = Some(SeenContents::new(before));
        }
        match history.batch(from).cloned() {
            Some(batch) => {
                if from + 1 < history.next() {
                    state.pending = Some(PendingBatches { from: from + 1, generation, before: None });
                } else {
                    state.seen = None;
                }
                state.current = Some((batch, 0));
            }
            None => state.catch_up(history, from, generation),
        }
        WatchStep::Yield
    }
}

impl State {
    fn holds_nothing(&self) -> bool {
        self.views().next().is_none()
    }

    /// The views that the watcher keeps alive.
    fn views(&self) -> impl Iterator<Item = &Arc<View>> {
        let difference = self.difference.iter().flat_map(Difference::views);
        let pending = self.pending.iter().filter_map(|pending| pending.before.as_ref());
        let listing = self.listing.iter().map(Listing::view);
        let current = self.current.iter().filter_map(|(batch, _)| batch.view.as_ref());
        listing.chain(difference).chain(current).chain(pending).chain(self.seen.iter().map(|seen| &seen.view))
    }

    /// Forgets everything that was announced. The status is delivered if it has changed since the
    /// watcher subscribed, or if it is final.
    fn continue_after_newest(&mut self, history: &History) {
        (self.pending, self.seen, self.current, self.difference) = (None, None, None, None);
        (self.replayed, self.must_restart) = (ReplayedEffects::default(), false);
        let status = history.status();
        self.status = match status.is_final() {
            true => Some(status.clone()),
            false => history.status_since(self.subscribed_at),
        };
    }

    /// Delivers all entries of the newest view, and nothing from before it.
    fn restart(&mut self, history: &History) {
        self.continue_after_newest(history);
        self.listing = Some(Listing::new(history.newest().clone()));
    }

    /// Delivers the next event without the history. Returns `None` if the history is needed.
    fn deliver_next(&mut self, filter: &WatchFilter) -> Option<WatchStep> {
        if self.must_restart {
            return None;
        }
        if let Some(event) = self.events.pop_front() {
            return Some(self.deliver(event));
        }
        if let Some(effect) = self.replayed.next() {
            let is_wanted = filter.accepts_effect(&effect);
            return Some(if is_wanted { WatchStep::Event(effect.into()) } else { WatchStep::Yield });
        }
        if let Some(listing) = &mut self.listing {
            return Some(match listing.next(filter) {
                Some(entry) => WatchStep::Event(WatchEvent::Entry(entry)),
                None => {
                    self.listing = None;
                    WatchStep::Event(WatchEvent::Synced)
                }
            });
        }
        if let Some(difference) = &mut self.difference {
            let missed = difference.take_missed();
            if missed > 0 && self.wants_every {
                return Some(WatchStep::Event(WatchEvent::Lagged(missed)));
            }
            return Some(match difference.next(filter) {
                Walk::Found(change) => WatchStep::Event(WatchEvent::Change(change)),
                Walk::Continue => WatchStep::Yield,
                Walk::Done => {
                    self.difference = None;
                    WatchStep::Yield
                }
            });
        }
        if let Some(status) = self.status.take() {
            return Some(self.deliver(WatchEvent::Status(status)));
        }
        if let Some(step) = self.next_effect(filter) {
            return Some(step);
        }
        self.is_over.then_some(WatchStep::Done)
    }

    fn deliver(&mut self, event: WatchEvent) -> WatchStep {
        if let WatchEvent::Status(status) = &event {
            self.is_over = status.is_final();
        }
        WatchStep::Event(event)
    }

    /// Delivers the next effect of the current batch.
    fn next_effect(&mut self, filter: &WatchFilter) -> Option<WatchStep> {
        let (batch, delivered) = self.current.as_mut()?;
        let batch = batch.clone();
        match &batch.update {
            Update::Status(status) => {
                self.finish(&batch);
                Some(self.deliver(WatchEvent::Status(status.clone())))
            }
            Update::Effects(effects) => {
                for effect in effects.iter().skip(*delivered) {
                    *delivered += 1;
                    if let (Effect::Change(change), Some(seen)) = (effect, &mut self.seen) {
                        seen.changed.insert(change.key().into(), change.new.clone());
                    }
                    if filter.accepts_effect(effect) {
                        return Some(WatchStep::Event(effect.clone().into()));
                    }
                }
                self.finish(&batch);
                Some(WatchStep::Yield)
            }
        }
    }

    /// Ends the delivery of the current batch.
    fn finish(&mut self, batch: &WatchBatch) {
        self.current = None;
        if let (Some(view), true) = (&batch.view, self.seen.is_some()) {
            self.seen = Some(SeenContents::new(view.clone()));
        }
    }

    /// Continues where the history begins, because the history has dropped the batches from number
    /// `from` up to there. `generation` was served before them.
    fn catch_up(&mut self, history: &History, from: u64, generation: u64) {
        let newest = history.newest();
        let missed = history.first() - from;
        let seen = self.seen.take();
        let is_switch = generation != newest.generation;
        if self.wants_every && !is_switch {
            self.events.push_back(WatchEvent::Lagged(missed));
            self.status = history.status_since(from).filter(|_| history.has_dropped_status());
            if history.first() < history.next() {
                self.pending = Some(PendingBatches { from: history.first(), generation, before: None });
            }
            return;
        }
        match seen {
            None => {
                self.events.push_back(WatchEvent::Restarted);
                self.restart(history);
            }
            Some(seen) => {
                let mut cause = Cause::Difference;
                if is_switch {
                    self.events.push_back(WatchEvent::Generation(newest.generation));
                    cause = Cause::Generation;
                }
                // The difference leads to the newest view, and stands for what was published until then.
                let missed = history.next() - from - 1;
                self.difference = Some(Difference::new(seen, newest.clone(), cause, missed));
            }
        }
        self.status = history.status_since(from);
    }
}
