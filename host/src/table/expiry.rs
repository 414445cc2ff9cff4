//! When entries expire: by the timestamps of their records, and a clock.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::table::entry::Entry;

/// Which entries expire next.
#[derive(Debug)]
pub(super) struct Deadlines {
    ttl: i64,
    /// An entry that was replaced stays in it until its time.
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

    /// An entry came. Without a timestamp it never expires.
    pub(super) fn add(&mut self, entry: &Entry) {
        if let Some(time) = self.of(entry) {
            self.heap.push(Reverse(Deadline(time, entry.clone())));
        }
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

    /// The entries whose time has come; some of them were replaced.
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
