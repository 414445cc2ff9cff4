//! Where a watcher is: what it has still to be shown, and what it holds of the table for that.

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::table::entry::Entry;
use crate::table::shared::lock;
use crate::table::status::Status;
use crate::table::view::View;
use crate::table::watch::hub::{Hub, News, SharedHub, WatchBatch, WatchItem, locked};
use crate::table::watch::{Cause, Change, WatchEvent, WatchFilter, WatchStart, WatchToken};

/// How many rows are looked at before other tasks get their turn.
const ROWS_AT_ONCE: usize = 1024;

/// A watcher's place, which the table sees too.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// A std lock: held to look at some rows, or to change a field.
    state: Mutex<State>,
    pub(super) wake: Notify,
}

/// The first batch that a watcher has not seen, and the view before it, if that is known.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) from: u64,
    pub(super) before: Option<Arc<View>>,
}

/// What comes next, in this order.
#[derive(Debug, Default)]
struct State {
    /// Single events.
    queue: VecDeque<WatchEvent>,
    /// All entries of a view.
    entries: Option<Entries>,
    /// What leads from what was seen to a view.
    difference: Option<Difference>,
    /// The status behind these, if it changed meanwhile.
    status: Option<Status>,
    /// The batch under way, and how much of it was shown.
    current: Option<(Arc<WatchBatch>, usize)>,
    /// The batches behind it; `None` if there are none for this watcher.
    pending: Option<Pending>,
    /// How much of the first pending batch was shown before.
    skip: usize,
    /// What was seen, while batches are pending. `None` if that is not known.
    seen: Option<Seen>,
    /// Every change is wanted, or a report of what was missed.
    is_every: bool,
    must_restart: bool,
    /// The last status said that the table is over.
    is_over: bool,
    /// The bytes that were published when the watcher began to hold what it holds.
    held_since: u64,
}

/// What a watcher has seen: a view, and the changes behind it.
#[derive(Debug)]
struct Seen {
    view: Arc<View>,
    changed: HashMap<Box<str>, Option<Entry>>,
}

impl Seen {
    fn of(view: Arc<View>) -> Self {
        Self { view, changed: HashMap::new() }
    }

    fn get(&self, key: &str) -> Option<&Entry> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.view.rows().get(key),
        }
    }
}

/// Entries of a view that are still to be shown.
#[derive(Debug)]
struct Entries {
    view: Arc<View>,
    /// The key that was shown last.
    last: Option<Box<str>>,
}

/// Changes that lead from what was seen to a view.
#[derive(Debug)]
struct Difference {
    seen: Seen,
    view: Arc<View>,
    cause: Cause,
    /// How many publications it stands for that a watcher of every change would have seen.
    missed: u64,
    /// How many pages of rows were compared, and whether that is all of them.
    pages: usize,
    is_compared: bool,
    found: VecDeque<Change>,
}

/// What a step came to.
pub(super) enum Step {
    Event(WatchEvent),
    /// There is more, after others had their turn.
    Yield,
    /// There is nothing now.
    Wait,
    /// There will be nothing any more.
    Over,
}

impl Seat {
    /// A watcher's place, as it begins.
    pub(super) fn start(hub: &SharedHub, start: WatchStart) -> Arc<Self> {
        let seat = Arc::new(Self::default());
        let mut hub = locked(hub);
        let mut state = lock(&seat.state);
        hub.add(&seat, &WatchFilter::All);
        match start {
            WatchStart::Now => {}
            WatchStart::Entries => state.list(&hub),
            WatchStart::Since(token) if hub.knows(token) => {
                state.skip = token.seen;
                if token.number < hub.next() {
                    state.pending = Some(Pending { from: token.number, before: None });
                    drop(state);
                    drop(hub);
                    return seat;
                }
            }
            WatchStart::Since(_) => {
                state.queue.push_back(WatchEvent::Restarted);
                state.list(&hub);
            }
        }
        if hub.status().is_over() {
            state.status = Some(hub.status().clone());
        }
        drop(state);
        drop(hub);
        seat
    }

    pub(super) fn want_every(&self) {
        lock(&self.state).is_every = true;
    }

    /// A batch concerns the watcher.
    pub(super) fn tell(&self, batch: Pending, published: u64) {
        let mut state = lock(&self.state);
        if state.pending.is_none() && !state.must_restart {
            if state.holds_nothing() {
                state.held_since = published;
            }
            state.pending = Some(batch);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// What led from a view to the newest one was not recorded: the difference is shown
    /// instead, with the status if that is new. Nothing else is known to the watcher yet.
    pub(super) fn bridge(&self, before: Arc<View>, hub: &Hub) {
        let has_records = before.counters.records != hub.newest().counters.records;
        let mut state = lock(&self.state);
        let pending = state.pending.take();
        if let Some(status) = pending.and_then(|pending| hub.status_since(pending.from)) {
            state.status = Some(status);
        }
        let difference = Difference::new(Seen::of(before), hub.newest().clone(), Cause::Difference);
        state.difference = Some(Difference { missed: u64::from(has_records), ..difference });
        drop(state);
        self.wake.notify_one();
    }

    /// Takes what the watcher holds away from it if that is too much: it starts again.
    pub(super) fn check(&self, published: u64, limit: usize, newest: &View) {
        let mut state = lock(&self.state);
        // More was not changed, so more cannot be held.
        if state.holds_nothing() || published - state.held_since <= limit as u64 {
            return;
        }
        let held: usize = state.views().map(|view| view.bytes_beside(newest)).sum();
        if held > limit {
            *state = State { must_restart: true, is_every: state.is_every, ..State::default() };
        } else {
            state.held_since = published - held as u64;
        }
    }

    /// The place behind what was shown; `None` while entries or differences are being shown.
    pub(super) fn token(&self, hub: &SharedHub) -> Option<WatchToken> {
        let hub = locked(hub);
        let state = lock(&self.state);
        let is_listing = state.entries.is_some() || state.difference.is_some() || state.status.is_some();
        if is_listing || state.must_restart || !state.queue.is_empty() {
            return None;
        }
        Some(match (&state.current, &state.pending) {
            (Some((batch, shown)), _) => hub.token(batch.number, *shown),
            (None, Some(pending)) => hub.token(pending.from, state.skip),
            (None, None) => hub.token(hub.next(), 0),
        })
    }

    /// The next event, or what to do before there is one.
    pub(super) fn step(&self, hub: &SharedHub, filter: &WatchFilter) -> Step {
        if let Some(step) = lock(&self.state).step(filter) {
            return step;
        }
        let hub = locked(hub);
        let mut state = lock(&self.state);
        if state.difference.is_some() {
            // It came between the two locks.
            return Step::Yield;
        }
        if std::mem::take(&mut state.must_restart) {
            state.queue.push_back(WatchEvent::Restarted);
            state.list(&hub);
            state.status = Some(hub.status().clone());
            return Step::Yield;
        }
        let Some(Pending { from, before }) = state.pending.take() else { return Step::Wait };
        if let Some(before) = before {
            state.seen = Some(Seen::of(before));
        }
        match hub.batch(from).cloned() {
            Some(batch) => {
                if from + 1 < hub.next() {
                    state.pending = Some(Pending { from: from + 1, before: None });
                } else {
                    state.seen = None;
                }
                state.begin(batch);
            }
            None => state.catch_up(&hub, from),
        }
        Step::Yield
    }
}

impl State {
    fn holds_nothing(&self) -> bool {
        self.views().next().is_none()
    }

    /// The views that are held.
    fn views(&self) -> impl Iterator<Item = &Arc<View>> {
        let difference =
            self.difference.iter().flat_map(|difference| [&difference.seen.view, &difference.view]);
        let pending = self.pending.iter().filter_map(|pending| pending.before.as_ref());
        let entries = self.entries.iter().map(|entries| &entries.view);
        let current = self.current.iter().filter_map(|(batch, _)| batch.after.as_ref());
        entries.chain(difference).chain(current).chain(pending).chain(self.seen.iter().map(|seen| &seen.view))
    }

    /// Shows all entries of the newest view.
    fn list(&mut self, hub: &Hub) {
        self.entries = Some(Entries { view: hub.newest().clone(), last: None });
        (self.pending, self.seen, self.current, self.difference) = (None, None, None, None);
    }

    /// What comes without looking at the hub.
    fn step(&mut self, filter: &WatchFilter) -> Option<Step> {
        if self.must_restart {
            return None;
        }
        if let Some(event) = self.queue.pop_front() {
            return Some(self.shown(event));
        }
        if let Some(entries) = &mut self.entries {
            return Some(match entries.next(filter) {
                Some(Some(entry)) => Step::Event(WatchEvent::Entry(entry)),
                Some(None) => Step::Yield,
                None => {
                    self.entries = None;
                    Step::Event(WatchEvent::Synced)
                }
            });
        }
        if let Some(difference) = &mut self.difference {
            let missed = std::mem::take(&mut difference.missed);
            if missed > 0 && self.is_every {
                return Some(Step::Event(WatchEvent::Lagged(missed)));
            }
            return Some(match difference.next(filter) {
                Some(Some(change)) => Step::Event(WatchEvent::Change(change)),
                Some(None) => Step::Yield,
                None => {
                    self.difference = None;
                    Step::Yield
                }
            });
        }
        if let Some(status) = self.status.take() {
            return Some(self.shown(WatchEvent::Status(status)));
        }
        if let Some(step) = self.next_item(filter) {
            return Some(step);
        }
        self.is_over.then_some(Step::Over)
    }

    fn shown(&mut self, event: WatchEvent) -> Step {
        if let WatchEvent::Status(status) = &event {
            self.is_over = status.is_over();
        }
        Step::Event(event)
    }

    /// The next item of the batch under way.
    fn next_item(&mut self, filter: &WatchFilter) -> Option<Step> {
        let (batch, shown) = self.current.as_mut()?;
        let batch = batch.clone();
        match &batch.news {
            News::Status(status) => {
                self.pass(&batch);
                Some(self.shown(WatchEvent::Status(status.clone())))
            }
            News::Items(items) => {
                for item in items.iter().skip(*shown) {
                    *shown += 1;
                    if let (WatchItem::Change(change), Some(seen)) = (item, &mut self.seen) {
                        seen.changed.insert(change.key().into(), change.new.clone());
                    }
                    if filter.accepts_item(item) {
                        return Some(Step::Event(item.clone().into()));
                    }
                }
                self.pass(&batch);
                Some(Step::Yield)
            }
        }
    }

    /// A batch was shown.
    fn pass(&mut self, batch: &WatchBatch) {
        self.current = None;
        if let (Some(view), true) = (&batch.after, self.seen.is_some()) {
            self.seen = Some(Seen::of(view.clone()));
        }
    }

    fn begin(&mut self, batch: Arc<WatchBatch>) {
        self.current = Some((batch, std::mem::take(&mut self.skip)));
    }

    /// The history has lost batches from this one on.
    fn catch_up(&mut self, hub: &Hub, from: u64) {
        let newest = hub.newest();
        self.skip = 0;
        let seen = self.seen.take();
        let switched = seen.as_ref().filter(|seen| seen.view.generation != newest.generation);
        let missed = hub.first() - from;
        match (self.is_every, switched.is_some(), seen) {
            (true, false, _) => {
                self.queue.push_back(WatchEvent::Lagged(missed));
                self.status = hub.status_since(from).filter(|_| hub.status_is_lost());
                if hub.first() < hub.next() {
                    self.pending = Some(Pending { from: hub.first(), before: None });
                }
                return;
            }
            (_, _, None) => {
                self.queue.push_back(WatchEvent::Restarted);
                self.list(hub);
            }
            (_, is_switched, Some(seen)) => {
                if is_switched {
                    self.queue.push_back(WatchEvent::Generation(newest.generation));
                }
                let cause = if is_switched { Cause::Generation } else { Cause::Difference };
                let difference = Difference::new(seen, newest.clone(), cause);
                self.difference = Some(Difference { missed: missed - 1, ..difference });
            }
        }
        self.status = hub.status_since(from);
    }
}

impl Entries {
    /// The next entry; `Some(None)` if many were looked at that are not wanted.
    fn next(&mut self, filter: &WatchFilter) -> Option<Option<Entry>> {
        let before = self.last.take();
        let start = match (&before, filter) {
            (Some(before), _) => Bound::Excluded(&**before),
            (None, WatchFilter::Key(start) | WatchFilter::Prefix(start)) => Bound::Included(start.as_str()),
            (None, _) => Bound::Unbounded,
        };
        let mut last = None;
        for entry in self.view.rows().range(start, Bound::Unbounded).take(ROWS_AT_ONCE) {
            if filter.accepts(entry.key(), entry.group()) {
                self.last = Some(entry.key().into());
                return Some(Some(entry.clone()));
            }
            if filter.is_behind(entry.key()) {
                return None;
            }
            last = Some(entry.key());
        }
        self.last = Some(last?.into());
        Some(None)
    }
}

impl Difference {
    fn new(seen: Seen, view: Arc<View>, cause: Cause) -> Self {
        Self { seen, view, cause, missed: 0, pages: 0, is_compared: false, found: VecDeque::new() }
    }

    /// The next change; `Some(None)` if many rows were looked at.
    fn next(&mut self, filter: &WatchFilter) -> Option<Option<Change>> {
        if let Some(change) = self.found.pop_front() {
            return Some(Some(change));
        }
        if self.is_compared {
            return None;
        }
        let Self { seen, view, cause, pages, found, .. } = self;
        let mut note = |key: &str| {
            let (old, new) = (seen.get(key), view.rows().get(key));
            if filter.accepts(key, new.or(old).and_then(Entry::group)) {
                found.extend(change(old, new, *cause));
            }
        };
        if *pages == 0 {
            seen.changed.keys().for_each(|key| note(key));
        }
        let (rows, next) = seen.view.rows().differing(view.rows(), *pages, ROWS_AT_ONCE);
        for (old, new) in rows {
            // Rows may have moved: each key is noted where it is now, or where it was if it is gone.
            let gone = old.filter(|old| view.rows().get(old.key()).is_none());
            for entry in gone.into_iter().chain(new) {
                if !seen.changed.contains_key(entry.key()) {
                    note(entry.key());
                }
            }
        }
        match next {
            Some(next) => *pages = next,
            None => self.is_compared = true,
        }
        Some(None)
    }
}

/// The change from one entry of a key to another.
fn change(old: Option<&Entry>, new: Option<&Entry>, cause: Cause) -> Option<Change> {
    let is_same = |old: &Entry, new: &Entry| match cause {
        // Of another generation, places say nothing.
        Cause::Generation => old.json() == new.json(),
        _ => (old.partition(), old.offset()) == (new.partition(), new.offset()),
    };
    match (old, new) {
        (Some(old), Some(new)) if is_same(old, new) => None,
        (old, Some(new)) => Some(Change::set(old.cloned(), new.clone(), cause)),
        (Some(old), None) => Some(Change::deleted(old.clone(), old.origin(), cause)),
        (None, None) => None,
    }
}
