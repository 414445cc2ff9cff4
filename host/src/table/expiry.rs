//! When entries expire: by the timestamps of their records, and a clock.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::table::entry::Entry;

/// So few make no crowd.
const CROWD: usize = 1024;

/// Which entries expire next.
#[derive(Debug)]
pub(super) struct Deadlines {
    ttl: i64,
    /// For each key one, as a rule: of an entry that was replaced, it leads to the one that
    /// did that. Of keys that go and come again there are more, until [`Deadlines::renew`].
    heap: BinaryHeap<Reverse<Deadline>>,
    /// What the clock said last.
    now: i64,
}

/// By time only: which of two comes first makes no difference.
#[derive(Debug)]
struct Deadline(i64, Entry);

impl PartialEq for Deadline {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Deadline {}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl Deadlines {
    pub(super) fn new(ttl: Duration) -> Self {
        let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        Self { ttl, heap: BinaryHeap::new(), now: i64::MIN }
    }

    /// An entry came, maybe in the place of another, which is known. Without a timestamp it
    /// never expires.
    pub(super) fn add(&mut self, old: Option<&Entry>, entry: &Entry) {
        let known = old.and_then(|old| self.of(old));
        if let Some(time) = self.of(entry)
            && known.is_none_or(|known| time < known)
        {
            self.heap.push(Reverse(Deadline(time, entry.clone())));
        }
    }

    /// Whether most of what is here stands for entries that are gone, beside so many that are
    /// not.
    pub(super) fn is_crowded(&self, entries: usize) -> bool {
        self.heap.len() > 2 * entries + CROWD
    }

    /// Begins anew, with the entries that there are.
    pub(super) fn renew<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) {
        self.heap.clear();
        entries.for_each(|entry| self.add(None, entry));
    }

    /// When an entry expires.
    fn of(&self, entry: &Entry) -> Option<i64> {
        (entry.timestamp() >= 0).then(|| entry.timestamp().saturating_add(self.ttl))
    }

    /// When the next one expires.
    pub(super) fn next(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse(deadline)| deadline.0)
    }

    /// The clock says this; true if it went back.
    pub(super) fn set_clock(&mut self, now: i64) -> bool {
        now < std::mem::replace(&mut self.now, now)
    }

    /// Whether an entry is expired now.
    pub(super) fn is_over(&self, entry: &Entry) -> bool {
        self.of(entry).is_some_and(|time| time <= self.now)
    }

    /// The entries whose time has come; some of them were replaced or are gone.
    pub(super) fn due(&mut self) -> Vec<Entry> {
        let mut due = Vec::new();
        while self.next().is_some_and(|time| time <= self.now)
            && let Some(Reverse(Deadline(_, entry))) = self.heap.pop()
        {
            due.push(entry);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codecs;
    use crate::log::{OffsetRange, RecordBatch, TopicDescription};
    use crate::table::decode::decode;
    use crate::table::entry::{EntryMaker, Origin};
    use crate::table::settings::OnReject;
    use crate::table::view::{Effects, View};

    #[test]
    fn keys_that_come_and_go_leave_no_crowd() {
        let topic = TopicDescription { name: "t".to_owned(), id: "1".to_owned(), partitions: 1 };
        let mut view = View::empty(1, topic.into());
        view.begin(OffsetRange { partition: 0, start: 0, end: 0 });
        let mut deadlines = Deadlines::new(Duration::from_millis(100));
        let mut batch = RecordBatch::new(0);
        for offset in 0..10_000 {
            let value = (offset % 2 == 0).then_some(&b"1"[..]);
            batch.push(offset, offset, Some(b"k"), value, Vec::new());
        }
        batch.push(10_000, 10_000, Some(b"k"), Some(b"1"), Vec::new());
        let mut effects = Effects {
            told: None,
            rejected: &mut drop,
            on_reject: OnReject::Keep,
            deadlines: Some(&mut deadlines),
        };
        view.apply(decode(&Codecs::default(), &batch).unwrap(), &mut effects).unwrap();
        assert!(deadlines.heap.len() <= CROWD + 2, "{} deadlines", deadlines.heap.len());
        // The key there is still expires.
        deadlines.set_clock(10_100);
        assert!(deadlines.due().iter().any(|entry| entry.offset() == 10_000));
    }

    #[test]
    fn heartbeats_of_a_key_take_one_place() {
        let entry = |offset: i64| {
            let origin = Origin { partition: 0, offset, timestamp: offset };
            EntryMaker::default().make(origin, "k", None, b"1")
        };
        let mut deadlines = Deadlines::new(Duration::from_millis(100));
        deadlines.add(None, &entry(0));
        for beat in 1..50 {
            deadlines.add(Some(&entry(beat - 1)), &entry(beat));
        }
        assert_eq!((deadlines.heap.len(), deadlines.next()), (1, Some(100)));
        // One that is older expires sooner.
        deadlines.add(Some(&entry(49)), &entry(-1));
        deadlines.add(Some(&entry(49)), &entry(3));
        assert_eq!(deadlines.next(), Some(100));
        deadlines.set_clock(103);
        assert_eq!(deadlines.due().len(), 2);
    }
}
