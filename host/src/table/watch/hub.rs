//! What a table publishes to its watchers: a history that all of them read, each from its own
//! place, and what of it concerns whom.
//!
//! A watcher that keeps up holds nothing of the table. One that does not holds the view it has
//! seen; when the history has lost what comes behind it, it goes on with the difference from that
//! view to the newest one. Before the first watcher, and some time after the last, there is no
//! history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::table::entry::Notice;
use crate::table::shared::lock;
use crate::table::status::Status;
use crate::table::view::View;
use crate::table::watch::interest::Interest;
use crate::table::watch::seat::{Pending, Seat};
use crate::table::watch::{Change, WatchFilter, WatchToken};

/// How many changes are kept for watchers that are behind or resume, at most.
pub const CHANGES_KEPT: usize = 10_000;

/// How many bytes of entries they may take, before and after the changes.
const HISTORY_BYTES: usize = 16 << 20;

/// How many bytes of the table a watcher may hold that nobody else does: more, and it starts again.
const WATCHER_BYTES: usize = 64 << 20;

/// How often to look for watchers that hold more, in bytes of changes.
const CHECK_BYTES: usize = WATCHER_BYTES / 8;

/// How long the history is kept after the last watcher has left, for those that come back.
const HISTORY_AGE: Duration = Duration::from_secs(5 * 60);

/// A batch keeps the view behind it if so many batches, or bytes, before it do not.
const VIEW_EVERY: usize = 64;
const VIEW_EVERY_BYTES: usize = 1 << 20;

/// What a change, a rejection or a status takes besides its entries.
const ITEM_BYTES: usize = 128;

/// Something about one key, or a record without one.
#[derive(Debug, Clone)]
pub(in crate::table) enum WatchItem {
    Change(Change),
    /// A record that was rejected, with its key if that can be decoded.
    Rejected {
        key: Option<Box<str>>,
        group: Option<Box<str>>,
        notice: Notice,
    },
}

impl WatchItem {
    fn byte_len(&self) -> usize {
        ITEM_BYTES
            + match self {
                Self::Change(change) => {
                    [&change.old, &change.new].into_iter().flatten().map(|entry| entry.byte_len()).sum()
                }
                Self::Rejected { key, group, notice } => {
                    let texts = [key, group].into_iter().flatten().map(|text| text.len());
                    texts.sum::<usize>() + notice.message.len()
                }
            }
    }
}

/// What is published at once.
#[derive(Debug)]
pub(super) enum News {
    Items(Vec<WatchItem>),
    Status(Status),
}

/// News with their number.
#[derive(Debug)]
pub(super) struct WatchBatch {
    pub(super) number: u64,
    pub(super) news: News,
    /// The view behind it, of some batches.
    pub(super) after: Option<Arc<View>>,
    bytes: usize,
}

/// The history and the watchers.
#[derive(Debug)]
pub(in crate::table) struct Hub {
    /// Which table this is.
    table: u64,
    /// Whether anybody watches, or did not long ago.
    is_on: bool,
    history: VecDeque<Arc<WatchBatch>>,
    /// Items and bytes in the history.
    items: usize,
    bytes: usize,
    /// The next batch's number.
    next: u64,
    /// Batches and bytes since the last one that keeps its view.
    since_view: (usize, usize),
    /// Bytes that were published ever, and when watchers were checked last.
    published: u64,
    checked: u64,
    /// The number behind the last status.
    status_number: u64,
    newest: Arc<View>,
    status: Status,
    interest: Interest,
    left: Option<Instant>,
}

impl Hub {
    pub(in crate::table) fn new(view: Arc<View>) -> Self {
        Self {
            table: uuid::Uuid::new_v4().as_u64_pair().0,
            is_on: false,
            history: VecDeque::new(),
            items: 0,
            bytes: 0,
            next: 0,
            since_view: (0, 0),
            published: 0,
            checked: 0,
            status_number: 0,
            newest: view,
            status: Status::Loading,
            interest: Interest::default(),
            left: None,
        }
    }

    /// Whether changes are to be published.
    pub(in crate::table) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Publishes a view of the same generation, and what led to it.
    pub(in crate::table) fn publish(&mut self, view: Arc<View>, items: Vec<WatchItem>) {
        let before = std::mem::replace(&mut self.newest, view);
        if !self.is_on || items.is_empty() {
            return;
        }
        let concerned = self.interest.concerned(&items);
        let bytes = items.iter().map(WatchItem::byte_len).sum();
        let count = items.len();
        self.push(News::Items(items), count, bytes);
        self.tell(&concerned, &before);
        self.check_watchers();
    }

    /// The bytes of the history.
    pub(in crate::table) fn byte_len(&self) -> usize {
        self.bytes
    }

    /// Publishes a status.
    pub(in crate::table) fn publish_status(&mut self, status: Status) {
        self.status = status.clone();
        if self.is_on {
            self.push(News::Status(status), 1, ITEM_BYTES);
            self.status_number = self.next;
            let view = self.newest.clone();
            self.tell(&self.interest.all(), &view);
        }
    }

    /// Publishes a view of the same generation, of which nobody wrote down what led to it because
    /// nobody watched when that began. Those who came meanwhile are shown the difference, and
    /// then every change.
    pub(in crate::table) fn publish_unrecorded(&mut self, view: Arc<View>) {
        let before = std::mem::replace(&mut self.newest, view);
        self.forget_history();
        for seat in self.interest.all() {
            seat.bridge(before.clone(), self);
        }
    }

    /// Publishes the view of another generation: what led to it is the difference between both.
    pub(in crate::table) fn replace(&mut self, view: Arc<View>) {
        let before = std::mem::replace(&mut self.newest, view);
        if self.is_on {
            self.forget_history();
            self.tell_of(&self.interest.all(), &before, self.next - 1);
        }
    }

    fn push(&mut self, news: News, items: usize, bytes: usize) {
        let (batches, since) = (self.since_view.0 + 1, self.since_view.1 + bytes);
        let keeps_view = batches >= VIEW_EVERY || since >= VIEW_EVERY_BYTES;
        self.since_view = if keeps_view { (0, 0) } else { (batches, since) };
        let after = keeps_view.then(|| self.newest.clone());
        self.history.push_back(Arc::new(WatchBatch { number: self.next, news, after, bytes }));
        self.next += 1;
        self.items += items;
        self.bytes += bytes;
        self.published += bytes as u64;
        while (self.items > CHANGES_KEPT || self.bytes > HISTORY_BYTES)
            && let Some(oldest) = self.history.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.items -= match &oldest.news {
                News::Items(items) => items.len(),
                News::Status(_) => 1,
            };
        }
    }

    /// Tells watchers that the last batch concerns them; this was the view before it.
    fn tell(&self, seats: &[Arc<Seat>], before: &Arc<View>) {
        self.tell_of(seats, before, self.next - 1);
    }

    fn tell_of(&self, seats: &[Arc<Seat>], before: &Arc<View>, number: u64) {
        for seat in seats {
            seat.tell(Pending { from: number, before: Some(before.clone()) }, self.published);
        }
    }

    /// Lets watchers start again that hold too much.
    fn check_watchers(&mut self) {
        if self.published - self.checked < CHECK_BYTES as u64 {
            return;
        }
        self.checked = self.published;
        for seat in self.interest.all() {
            seat.check(self.published, WATCHER_BYTES, &self.newest);
        }
    }

    /// Forgets the history, and counts what it does not tell: nobody can resume before that.
    fn forget_history(&mut self) {
        self.history = VecDeque::new();
        (self.items, self.bytes, self.since_view) = (0, 0, (0, 0));
        self.next += 1;
    }

    /// Forgets the history if nobody has watched for some time.
    pub(in crate::table) fn expire(&mut self, now: Instant) {
        if self.left.is_some_and(|left| now.saturating_duration_since(left) >= HISTORY_AGE) {
            self.forget_history();
            (self.is_on, self.left) = (false, None);
        }
    }

    /// The number of the oldest batch in the history, or of the next one.
    pub(super) fn first(&self) -> u64 {
        self.next - self.history.len() as u64
    }

    /// The next batch's number.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn newest(&self) -> &Arc<View> {
        &self.newest
    }

    /// The status, if it was published at this number or later.
    pub(super) fn status_since(&self, number: u64) -> Option<Status> {
        (self.status_number > number).then(|| self.status.clone())
    }

    /// Whether the history does not have the last status any more.
    pub(super) fn status_is_lost(&self) -> bool {
        self.status_number <= self.first()
    }

    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    /// The batch with this number, if it is in the history.
    pub(super) fn batch(&self, number: u64) -> Option<&Arc<WatchBatch>> {
        let index = usize::try_from(number.checked_sub(self.first())?).ok()?;
        self.history.get(index)
    }

    /// Whether a watcher can go on at a place.
    pub(super) fn knows(&self, token: WatchToken) -> bool {
        token.table == self.table && (self.first()..=self.next).contains(&token.number)
    }

    /// A place.
    pub(super) fn token(&self, number: u64, seen: usize) -> WatchToken {
        WatchToken { table: self.table, number, seen }
    }

    pub(super) fn add(&mut self, seat: &Arc<Seat>, filter: &WatchFilter) {
        (self.is_on, self.left) = (true, None);
        self.interest.add(seat, filter);
    }

    pub(super) fn remove(&mut self, seat: &Arc<Seat>, filter: &WatchFilter) {
        self.interest.remove(seat, filter);
        if self.interest.is_empty() {
            self.left = Some(Instant::now());
        }
    }
}

/// The hub, as the table and its watchers share it. A std lock: held while a view is published or
/// a watcher takes its place; no read takes it.
pub(in crate::table) type SharedHub = Arc<Mutex<Hub>>;

/// Locks the hub.
pub(super) fn locked(hub: &SharedHub) -> std::sync::MutexGuard<'_, Hub> {
    lock(hub)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::TopicDescription;
    use crate::table::watch::seat::Step;
    use crate::table::watch::{WatchEvent, WatchStart};

    fn view() -> Arc<View> {
        let topic = TopicDescription { name: "t".to_owned(), id: "1".to_owned(), partitions: 1 };
        Arc::new(View::empty(1, topic.into()))
    }

    fn item() -> WatchItem {
        let kind = crate::codec::RejectKind::Other;
        let notice = Notice { partition: 0, offset: 0, kind, message: "x".repeat(1000) };
        WatchItem::Rejected { key: None, group: None, notice }
    }

    /// The events that are there.
    fn shown(seat: &Seat, hub: &SharedHub) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        loop {
            match seat.step(hub, &WatchFilter::All) {
                Step::Event(event) => events.push(event),
                Step::Yield => {}
                Step::Wait | Step::Over => return events,
            }
        }
    }

    #[test]
    fn a_watcher_that_comes_while_records_are_applied_sees_every_change_behind_them() {
        for is_every in [false, true] {
            let hub: SharedHub = Arc::new(Mutex::new(Hub::new(view())));
            let seat = Seat::start(&hub, WatchStart::Now);
            let early = seat.token(&hub).unwrap();
            let mut applied = View::clone(&view());
            applied.counters.records = 1;
            locked(&hub).publish_unrecorded(Arc::new(applied));
            for _ in 0..3 {
                locked(&hub).publish(view(), vec![item()]);
            }
            if is_every {
                seat.want_every();
            }
            let mut events = shown(&seat, &hub).into_iter().peekable();
            let lagged = events.next_if(|event| matches!(event, WatchEvent::Lagged(1)));
            assert_eq!(lagged.is_some(), is_every);
            let rejected = |event: &WatchEvent| matches!(event, WatchEvent::Rejected { .. });
            assert_eq!(events.map(|event| rejected(&event)).collect::<Vec<_>>(), [true; 3]);
            assert!(!locked(&hub).knows(early), "what came behind it was not recorded");
            let late = seat.token(&hub).unwrap();
            assert!(locked(&hub).knows(late));
        }
    }

    #[test]
    fn nobody_resumes_in_what_was_not_recorded() {
        let hub: SharedHub = Arc::new(Mutex::new(Hub::new(view())));
        let seat = Seat::start(&hub, WatchStart::Now);
        let token = seat.token(&hub).unwrap();
        locked(&hub).remove(&seat, &WatchFilter::All);
        locked(&hub).expire(Instant::now() + HISTORY_AGE * 2);
        locked(&hub).publish(view(), vec![item()]);
        let back = Seat::start(&hub, WatchStart::Since(token));
        assert!(matches!(&shown(&back, &hub)[..], [WatchEvent::Restarted, WatchEvent::Synced]));
    }

    #[test]
    fn history_ends_some_time_after_the_last_watcher() {
        let view = view();
        let mut hub = Hub::new(view.clone());
        hub.publish(view.clone(), vec![item()]);
        assert!(!hub.is_on() && hub.history.is_empty(), "nobody watches");
        let seat = Arc::new(Seat::default());
        hub.add(&seat, &WatchFilter::All);
        for _ in 0..100_000 {
            hub.publish(view.clone(), vec![item()]);
        }
        assert!(hub.bytes <= HISTORY_BYTES && hub.items <= CHANGES_KEPT && hub.items > 5000);
        hub.remove(&seat, &WatchFilter::All);
        let now = Instant::now();
        hub.expire(now + HISTORY_AGE / 2);
        assert!(hub.is_on());
        hub.expire(now + HISTORY_AGE * 2);
        assert!(!hub.is_on() && hub.history.is_empty() && hub.history.capacity() == 0);
    }
}
