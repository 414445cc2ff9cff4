//! The times at which entries expire: the timestamps of their records plus the time to live.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::table::entry::Entry;

/// How many superfluous deadlines are tolerated, besides two for each entry.
const MAX_SUPERFLUOUS: usize = 1024;

/// The deadlines of a table's entries.
#[derive(Debug)]
pub(in crate::table) struct Deadlines {
    ttl: i64,
    /// Usually one for each key: when the deadline of an entry that was replaced is due, the view looks up its
    /// key, and adds the deadline of the present entry.
    /// Keys that are deleted and written again have more, until [`Deadlines::rebuild`].
    heap: BinaryHeap<Reverse<Deadline>>,
    /// The time of the clock when it was read last.
    now: i64,
}

/// The time at which an entry expires. Ordered by time only.
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
    pub(in crate::table) fn new(ttl: Duration) -> Self {
        let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        Self { ttl, heap: BinaryHeap::new(), now: i64::MIN }
    }

    /// Adds the deadline of an entry, unless the entry that it replaced has one that is not later: when that
    /// one is due, the view adds the deadline of the present entry. An entry without a timestamp never expires.
    pub(in crate::table) fn add(&mut self, old: Option<&Entry>, entry: &Entry) {
        let known = old.and_then(|old| self.deadline_of(old));
        if let Some(time) = self.deadline_of(entry)
            && known.is_none_or(|known| time < known)
        {
            self.heap.push(Reverse(Deadline(time, entry.clone())));
        }
    }

    /// Whether most deadlines belong to entries that no longer exist, in a table of `entries` entries.
    pub(in crate::table) fn is_crowded(&self, entries: usize) -> bool {
        self.heap.len() > 2 * entries + MAX_SUPERFLUOUS
    }

    /// Replaces all deadlines by those of the existing entries.
    pub(in crate::table) fn rebuild<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) {
        self.heap.clear();
        entries.for_each(|entry| self.add(None, entry));
    }

    /// The time at which an entry expires.
    fn deadline_of(&self, entry: &Entry) -> Option<i64> {
        Some(entry.timestamp()?.saturating_add(self.ttl))
    }

    /// The next deadline.
    pub(in crate::table) fn next(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse(deadline)| deadline.0)
    }

    /// Sets the time. Returns true if it is earlier than before.
    pub(in crate::table) fn set_clock(&mut self, now: i64) -> bool {
        now < std::mem::replace(&mut self.now, now)
    }

    /// Whether an entry has expired.
    pub(in crate::table) fn is_expired(&self, entry: &Entry) -> bool {
        self.deadline_of(entry).is_some_and(|time| time <= self.now)
    }

    /// Removes and returns the entries whose deadlines have passed. Some of them were replaced or deleted
    /// since.
    pub(in crate::table) fn take_due(&mut self) -> Vec<Entry> {
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
    use crate::log::{OffsetRange, TopicDescription};
    use crate::table::decoded::{DecodedRecords, Outcome};
    use crate::table::entry::EntryMaker;
    use crate::table::key_hash::KeyHash;
    use crate::table::record_place::RecordPlace;
    use crate::table::settings::OnReject;
    use crate::table::view::{ApplyOptions, ApplyResult, View};

    fn entry(time: i64) -> Entry {
        let place = RecordPlace { partition: 0, offset: time, timestamp: (time >= 0).then_some(time) };
        EntryMaker::default().make(place, "k", None, b"1")
    }

    #[test]
    fn keys_that_are_deleted_and_written_again_leave_few_deadlines() {
        let topic = TopicDescription { name: "t".to_owned(), id: "1".to_owned(), partitions: 1 };
        let mut view = View::empty(1, topic.into(), "f".into());
        view.add_partition(OffsetRange { partition: 0, start: 0, end: 0 });
        let mut deadlines = Deadlines::new(Duration::from_millis(100));
        let hash = KeyHash::of("k");
        let outcomes = (0..=10_000).map(|time| match time % 2 {
            0 => Outcome::Set(entry(time), hash),
            _ => Outcome::Delete(entry(time), hash),
        });
        let decoded = DecodedRecords::new(0, 10_001, None, outcomes.collect());
        let options = ApplyOptions { on_reject: OnReject::Keep, collect_effects: false };
        view.apply(decoded, options, Some(&mut deadlines), &mut ApplyResult::default());
        assert!(deadlines.heap.len() <= MAX_SUPERFLUOUS + 2, "{} deadlines", deadlines.heap.len());
        // The last entry still expires.
        deadlines.set_clock(10_100);
        assert!(deadlines.take_due().iter().any(|entry| entry.offset() == 10_000));
    }

    #[test]
    fn a_key_that_is_written_often_has_one_deadline() {
        let mut deadlines = Deadlines::new(Duration::from_millis(100));
        deadlines.add(None, &entry(0));
        for beat in 1..50 {
            deadlines.add(Some(&entry(beat - 1)), &entry(beat));
        }
        assert_eq!((deadlines.heap.len(), deadlines.next()), (1, Some(100)));
        // An older timestamp expires sooner.
        deadlines.add(Some(&entry(49)), &entry(-1));
        deadlines.add(Some(&entry(49)), &entry(3));
        assert_eq!(deadlines.next(), Some(100));
        deadlines.set_clock(103);
        assert_eq!(deadlines.take_due().len(), 2);
    }
}
