//! Walking through a view, or through the difference between two, a few rows at a time.

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::table::change::{Cause, Change};
use crate::table::entry::Entry;
use crate::table::view::View;
use crate::table::watch::filter::WatchFilter;

/// How many rows are examined before other tasks get their turn.
const ROWS_AT_ONCE: usize = 1024;

/// One step of a walk through a difference.
#[derive(Debug)]
pub(super) enum Walk {
    Found(Change),
    /// Many rows were examined, and none is wanted. There are more.
    Continue,
    Done,
}

/// The entries of a view that a filter accepts, by key.
#[derive(Debug)]
pub(super) struct Listing {
    view: Arc<View>,
    /// The last entry that was returned.
    last: Option<Entry>,
}

impl Listing {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self { view, last: None }
    }

    pub(super) fn view(&self) -> &Arc<View> {
        &self.view
    }

    pub(super) fn next(&mut self, filter: &WatchFilter) -> Option<Entry> {
        let rows = self.view.rows();
        let last = self.last.as_ref();
        let next = match filter {
            WatchFilter::Key(key) => rows.get(key).filter(|_| last.is_none()),
            WatchFilter::Group(group) => rows.members_after(group, last).next(),
            WatchFilter::All => rows.range(start(last, ""), Bound::Unbounded).next(),
            WatchFilter::Prefix(prefix) => {
                let next = rows.range(start(last, prefix), Bound::Unbounded).next();
                next.filter(|entry| entry.key().starts_with(prefix.as_str()))
            }
        };
        let next = next.cloned();
        self.last.clone_from(&next);
        next
    }
}

/// Where to continue after an entry, or to begin.
fn start<'a>(last: Option<&'a Entry>, first: &'a str) -> Bound<&'a str> {
    last.map_or(Bound::Included(first), |last| Bound::Excluded(last.key()))
}

/// What a watcher has seen: a view, and changes that were delivered after it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) view: Arc<View>,
    pub(super) changed: HashMap<Box<str>, Option<Entry>>,
}

impl Seen {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self { view, changed: HashMap::new() }
    }

    fn get(&self, key: &str) -> Option<&Entry> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.view.rows().get(key),
        }
    }
}

/// The changes that lead from what a watcher has seen to a view.
#[derive(Debug)]
pub(super) struct Difference {
    seen: Seen,
    view: Arc<View>,
    cause: Cause,
    /// How many publications the difference stands for: a watcher of every change missed them.
    missed: u64,
    /// The next page of rows to compare.
    next_page: Option<usize>,
    found: VecDeque<Change>,
}

impl Difference {
    pub(super) fn new(seen: Seen, view: Arc<View>, cause: Cause, missed: u64) -> Self {
        Self { seen, view, cause, missed, next_page: Some(0), found: VecDeque::new() }
    }

    /// The views that the difference keeps alive.
    pub(super) fn views(&self) -> [&Arc<View>; 2] {
        [&self.seen.view, &self.view]
    }

    /// Returns the number of missed publications, once.
    pub(super) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    pub(super) fn next(&mut self, filter: &WatchFilter) -> Walk {
        if let Some(change) = self.found.pop_front() {
            return Walk::Found(change);
        }
        let Some(page) = self.next_page else { return Walk::Done };
        let Self { seen, view, cause, found, .. } = self;
        let mut compare = |key: &str| {
            let (old, new) = (seen.get(key), view.rows().get(key));
            if filter.accepts(key, new.or(old).and_then(Entry::group)) {
                found.extend(change(old, new, *cause));
            }
        };
        if page == 0 {
            seen.changed.keys().for_each(|key| compare(key));
        }
        let (rows, next_page) = seen.view.rows().differing(view.rows(), page, ROWS_AT_ONCE);
        for (old, new) in rows {
            // A row may be on another page in the newer view. Each key is compared at its place in
            // the newer view, or, if it is gone, at its place in the older one.
            let gone = old.filter(|old| view.rows().get(old.key()).is_none());
            for entry in gone.into_iter().chain(new) {
                if !seen.changed.contains_key(entry.key()) {
                    compare(entry.key());
                }
            }
        }
        self.next_page = next_page;
        Walk::Continue
    }
}

/// The change from one entry of a key to another; `None` if they are the same.
fn change(old: Option<&Entry>, new: Option<&Entry>, cause: Cause) -> Option<Change> {
    let is_same = |old: &Entry, new: &Entry| match cause {
        // Another generation may have another topic, whose offsets say nothing.
        Cause::Generation => old.json() == new.json(),
        _ => (old.partition(), old.offset()) == (new.partition(), new.offset()),
    };
    match (old, new) {
        (Some(old), Some(new)) if is_same(old, new) => None,
        (old, Some(new)) => Some(Change::set(old.cloned(), new.clone(), cause)),
        (Some(old), None) => Some(Change::deleted(old.clone(), old.place(), cause)),
        (None, None) => None,
    }
}
