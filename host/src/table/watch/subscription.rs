//! The state of one watcher: what it has still to deliver, and what it keeps alive for that.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::task::AtomicWaker;

use crate::sync::lock;
use crate::table::change::{Cause, Effect};
use crate::table::positions::Positions;
use crate::table::status::Status;
use crate::table::view::View;
use crate::table::watch::event::WatchEvent;
use crate::table::watch::filter::WatchFilter;
use crate::table::watch::history::{History, Update, WatchBatch};
use crate::table::watch::listing::{Difference, Listing, Seen, Walk};
use crate::table::watch::token::WatchToken;

/// The state of one watcher, shared with the table, which announces batches to it.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// A std lock: held to examine some rows, or to change a field. Taken after the hub's lock.
    state: Mutex<State>,
    /// Wakes the watcher's task.
    pub(super) waker: AtomicWaker,
}

/// The first batch that a watcher has not seen, and the view before it if that is known.
#[derive(Debug)]
struct Pending {
    from: u64,
    before: Option<Arc<View>>,
    /// The place before it.
    place: Place,
}

/// What a watcher has seen: all records below these positions, and the effects of no record until this
/// time.
#[derive(Debug, Clone)]
struct Place {
    positions: Positions,
    time: i64,
}

/// What is delivered next, in the order of the fields.
#[derive(Debug, Default)]
struct State {
    events: VecDeque<WatchEvent>,
    listing: Option<Listing>,
    difference: Option<Difference>,
    /// The status after these, if it changed meanwhile.
    status: Option<Status>,
    /// The batch that is being delivered, and how many of its effects were.
    current: Option<(Arc<WatchBatch>, usize)>,
    /// The batches after it; `None` if there are none for this watcher.
    pending: Option<Pending>,
    /// Effects from the log, for a watcher that resumed from there.
    replayed: VecDeque<Effect>,
    /// What an earlier watcher had seen already, as long as batches overlap with it.
    resumed_at: Option<Place>,
    /// What the watcher has seen, while batches are pending; `None` if that is not known.
    seen: Option<Seen>,
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
pub(super) enum Step {
    Event(WatchEvent),
    /// There is more to do, after other tasks had their turn.
    Yield,
    /// There is nothing to deliver now.
    Wait,
    /// There will never be anything to deliver again.
    Done,
}

impl Subscription {
    /// Delivers all entries of the newest view first.
    pub(super) fn begin_with_entries(&self, history: &History) {
        lock(&self.state).restart(history);
    }

    /// Resumes at a token, and forgets what was announced before. False if the history does not reach
    /// back to the token: then the watcher continues after the newest view.
    pub(super) fn resume(&self, token: &WatchToken, history: &History) -> bool {
        let place = Place { positions: token.positions.clone(), time: token.time };
        let from = history.resume_at(token);
        let mut state = lock(&self.state);
        state.reset();
        let is_behind = |from: &u64| *from < history.next();
        state.pending =
            from.filter(is_behind).map(|from| Pending { from, before: None, place: place.clone() });
        state.resumed_at = Some(place);
        if history.status().is_final() {
            state.status = Some(history.status().clone());
        }
        from.is_some()
    }

    /// Starts again: what came after the token of an earlier watcher is not known.
    pub(super) fn restart(&self, history: &History) {
        let mut state = lock(&self.state);
        state.events.push_back(WatchEvent::Restarted);
        state.restart(history);
    }

    /// Delivers effects that were read from the log, before everything else.
    pub(super) fn deliver_replayed(&self, effects: Vec<Effect>) {
        lock(&self.state).replayed = effects.into();
    }

    pub(super) fn wants_every(&self) -> bool {
        lock(&self.state).wants_every
    }

    /// Ends the watcher after what it has to deliver, because the table has ended.
    pub(super) fn end_with(&self, status: Status) {
        let mut state = lock(&self.state);
        if state.pending.is_none() {
            state.status = Some(status);
        }
    }

    pub(super) fn want_every(&self) {
        lock(&self.state).wants_every = true;
    }

    /// Announces a batch that concerns the watcher. `before` is the view before it, and `time_before` a
    /// time between it and the batch before.
    pub(super) fn announce(&self, number: u64, before: &Arc<View>, time_before: i64, published: u64) {
        let mut state = lock(&self.state);
        if state.pending.is_none() && !state.must_restart {
            if state.holds_nothing() {
                state.held_since = published;
            }
            let place = Place { positions: before.positions().clone(), time: time_before };
            state.pending = Some(Pending { from: number, before: Some(before.clone()), place });
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
        let (seen, newest) = (Seen::new(before), history.newest().clone());
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
            *state = State { must_restart: true, wants_every: state.wants_every, ..State::default() };
        } else {
            state.held_since = published - held as u64;
        }
    }

    /// The place after what was delivered; `None` while entries or a difference are delivered.
    pub(super) fn token(&self, history: &mut History) -> Option<WatchToken> {
        let state = lock(&self.state);
        let is_listing = state.listing.is_some() || state.difference.is_some() || state.status.is_some();
        if is_listing || state.must_restart || !state.events.is_empty() || !state.replayed.is_empty() {
            return None;
        }
        match (&state.current, &state.pending) {
            (Some((batch, delivered)), _) => {
                let Place { positions, time } = place_within(batch, *delivered)?;
                Some(history.token(positions, time))
            }
            // Without the batch, a difference follows, or the watcher starts again.
            (None, Some(Pending { from, place, .. })) => {
                history.batch(*from)?;
                Some(history.token(place.positions.clone(), place.time))
            }
            (None, None) => Some(history.newest_token()),
        }
    }

    /// Delivers the next event without the history; `None` if that takes the history.
    pub(super) fn step(&self, filter: &WatchFilter) -> Option<Step> {
        lock(&self.state).step(filter)
    }

    /// Takes the next batch from the history. Call it when [`Subscription::step`] returned `None`,
    /// with the history locked.
    pub(super) fn take_next_batch(&self, history: &History) -> Step {
        let mut state = lock(&self.state);
        if state.difference.is_some() {
            // It was set between the two locks.
            return Step::Yield;
        }
        if std::mem::take(&mut state.must_restart) {
            state.events.push_back(WatchEvent::Restarted);
            state.restart(history);
            state.status = Some(history.status().clone());
            return Step::Yield;
        }
        let Some(Pending { from, before, .. }) = state.pending.take() else { return Step::Wait };
        if let Some(before) = before {
            state.seen = Some(Seen::new(before));
        }
        match history.batch(from).cloned() {
            Some(batch) => {
                if from + 1 < history.next() {
                    let place = Place { positions: batch.after_positions.clone(), time: batch.time };
                    state.pending = Some(Pending { from: from + 1, before: None, place });
                } else {
                    state.seen = None;
                }
                state.current = Some((batch, 0));
            }
            None => state.catch_up(history, from),
        }
        Step::Yield
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
        let current = self.current.iter().filter_map(|(batch, _)| batch.after.as_ref());
        listing.chain(difference).chain(current).chain(pending).chain(self.seen.iter().map(|seen| &seen.view))
    }

    /// Forgets everything that was announced.
    fn reset(&mut self) {
        (self.pending, self.seen, self.current, self.difference) = (None, None, None, None);
        (self.resumed_at, self.replayed) = (None, VecDeque::new());
    }

    /// Delivers all entries of the newest view, and nothing from before it.
    fn restart(&mut self, history: &History) {
        self.reset();
        self.listing = Some(Listing::new(history.newest().clone()));
    }

    /// Delivers what needs no look at the history.
    fn step(&mut self, filter: &WatchFilter) -> Option<Step> {
        if self.must_restart {
            return None;
        }
        if let Some(event) = self.events.pop_front() {
            return Some(self.deliver(event));
        }
        if let Some(effect) = self.replayed.pop_front() {
            let is_wanted = filter.accepts_effect(&effect);
            return Some(if is_wanted { Step::Event(effect.into()) } else { Step::Yield });
        }
        if let Some(listing) = &mut self.listing {
            return Some(match listing.next(filter) {
                Some(entry) => Step::Event(WatchEvent::Entry(entry)),
                None => {
                    self.listing = None;
                    Step::Event(WatchEvent::Synced)
                }
            });
        }
        if let Some(difference) = &mut self.difference {
            let missed = difference.take_missed();
            if missed > 0 && self.wants_every {
                return Some(Step::Event(WatchEvent::Lagged(missed)));
            }
            return Some(match difference.next(filter) {
                Walk::Found(change) => Step::Event(WatchEvent::Change(change)),
                Walk::Continue => Step::Yield,
                Walk::Done => {
                    self.difference = None;
                    Step::Yield
                }
            });
        }
        if let Some(status) = self.status.take() {
            return Some(self.deliver(WatchEvent::Status(status)));
        }
        if let Some(step) = self.next_effect(filter) {
            return Some(step);
        }
        self.is_over.then_some(Step::Done)
    }

    fn deliver(&mut self, event: WatchEvent) -> Step {
        if let WatchEvent::Status(status) = &event {
            self.is_over = status.is_final();
        }
        Step::Event(event)
    }

    /// Delivers the next effect of the current batch.
    fn next_effect(&mut self, filter: &WatchFilter) -> Option<Step> {
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
                    let is_old =
                        self.resumed_at.as_ref().is_some_and(|place| place.covers(effect, batch.time));
                    if !is_old && filter.accepts_effect(effect) {
                        return Some(Step::Event(effect.clone().into()));
                    }
                }
                self.finish(&batch);
                Some(Step::Yield)
            }
        }
    }

    /// Ends the delivery of the current batch.
    fn finish(&mut self, batch: &WatchBatch) {
        self.current = None;
        let is_passed =
            |place: &Place| batch.time > place.time && batch.after_positions.has_reached(&place.positions);
        if self.resumed_at.as_ref().is_some_and(is_passed) {
            self.resumed_at = None;
        }
        if let (Some(view), true) = (&batch.after, self.seen.is_some()) {
            self.seen = Some(Seen::new(view.clone()));
        }
    }

    /// Continues where the history begins, because it has dropped the batches before that, from
    /// number `from` on.
    fn catch_up(&mut self, history: &History, from: u64) {
        let newest = history.newest();
        let missed = history.first() - from;
        let seen = self.seen.take();
        let is_switch = seen.as_ref().is_some_and(|seen| seen.view.generation != newest.generation);
        if self.wants_every && !is_switch {
            self.events.push_back(WatchEvent::Lagged(missed));
            self.status = history.status_since(from).filter(|_| history.has_dropped_status());
            if let Some(first) = history.batch(history.first()) {
                let place = Place { positions: first.before.clone(), time: first.time - 1 };
                self.pending = Some(Pending { from: first.number, before: None, place });
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
                self.difference = Some(Difference::new(seen, newest.clone(), cause, missed - 1));
            }
        }
        self.status = history.status_since(from);
    }
}

impl Place {
    /// Whether a watcher at this place has seen an effect that was published at `time`.
    fn covers(&self, effect: &Effect, time: i64) -> bool {
        match effect.record() {
            Some((partition, offset)) => self.positions.get(partition).is_some_and(|next| offset < next),
            None => time <= self.time,
        }
    }
}

/// The place after some effects of a batch; `None` if no place describes them: after one of two effects
/// of the same record, or after effects of no record.
fn place_within(batch: &WatchBatch, delivered: usize) -> Option<Place> {
    let Update::Effects(effects) = &batch.update else { return None };
    if delivered == effects.len() {
        return Some(Place { positions: batch.after_positions.clone(), time: batch.time });
    }
    let mut positions = batch.before.clone();
    for effect in &effects[..delivered] {
        let (partition, offset) = effect.record()?;
        positions.raise(partition, offset + 1);
    }
    let last = delivered.checked_sub(1).and_then(|last| effects[last].record());
    (last.is_none() || last != effects[delivered].record())
        .then_some(Place { positions, time: batch.time - 1 })
}
