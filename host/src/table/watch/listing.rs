//! Walking through a view, or through the difference between two, a few rows at a time.

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::table::change::{Cause, Change};
use crate::table::entry::Entry;
use crate::table::view::{Rows, View};
use crate::table::watch::filter::WatchFilter;

/// How many rows are examined before other tasks get their turn.
const ROWS_AT_ONCE: usize = 1024;

/// One step of a walk through a difference.
#[derive(Debug)]
pub(super) enum Walk {
    Found(Change),
    /// Some rows were examined. To be called again: it may have found changes, and there may be more rows.
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
        let next = next_accepted(self.view.rows(), filter, self.last.as_ref()).cloned();
        self.last.clone_from(&next);
        next
    }
}

/// Returns the first row after `last` that a filter accepts, by key.
fn next_accepted<'a>(rows: &'a Rows, filter: &WatchFilter, last: Option<&Entry>) -> Option<&'a Entry> {
    match filter {
        WatchFilter::Key(key) => rows.get(key).filter(|_| last.is_none()),
        WatchFilter::Group(group) => rows.members_after(group, last).next(),
        WatchFilter::All => rows.range(start(last, ""), Bound::Unbounded).next(),
        WatchFilter::Prefix(prefix) => {
            let next = rows.range(start(last, prefix), Bound::Unbounded).next();
            next.filter(|entry| entry.key().starts_with(prefix.as_str()))
        }
    }
}

/// Where to continue after an entry, or to begin.
fn start<'a>(last: Option<&'a Entry>, first: &'a str) -> Bound<&'a str> {
    last.map_or(Bound::Included(first), |last| Bound::Excluded(last.key()))
}

/// What a watcher has seen: a view, and changes that were delivered after it.
#[derive(Debug)]
pub(super) struct SeenContents {
    pub(super) view: Arc<View>,
    pub(super) changed: HashMap<Box<str>, Option<Entry>>,
}

impl SeenContents {
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
    seen: SeenContents,
    view: Arc<View>,
    cause: Cause,
    /// How many publications the difference stands for: a watcher of every change missed them.
    missed: u64,
    walk: DifferenceWalk,
    found: VecDeque<Change>,
}

/// How far the walk through a difference is.
#[derive(Debug)]
enum DifferenceWalk {
    /// Nothing was compared yet.
    Start,
    /// Compares pages of rows, from this one on. Views of one generation share most of their pages.
    Pages(usize),
    /// Compares the newer rows that the filter accepts, after this one.
    Newer(Option<Entry>),
    /// Compares the older rows that the filter accepts, after this one: those that are gone.
    Older(Option<Entry>),
    Done,
}

impl Difference {
    pub(super) fn new(seen: SeenContents, view: Arc<View>, cause: Cause, missed: u64) -> Self {
        Self { seen, view, cause, missed, walk: DifferenceWalk::Start, found: VecDeque::new() }
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
        self.walk = match std::mem::replace(&mut self.walk, DifferenceWalk::Done) {
            DifferenceWalk::Start => {
                let changed: Vec<Box<str>> = self.seen.changed.keys().cloned().collect();
                changed.iter().for_each(|key| self.compare(key, filter));
                // Two generations share no pages, and a watcher of few keys must not compare them all.
                let is_selective = match filter {
                    WatchFilter::All => false,
                    WatchFilter::Key(_) => true,
                    WatchFilter::Prefix(_) | WatchFilter::Group(_) => self.cause == Cause::Generation,
                };
                if is_selective { DifferenceWalk::Newer(None) } else { DifferenceWalk::Pages(0) }
            }
            DifferenceWalk::Pages(page) => self.compare_pages(page, filter),
            DifferenceWalk::Newer(last) => {
                match self.compare_rows(self.view.clone(), last, filter, |_, _| true) {
                    Some(last) => DifferenceWalk::Newer(Some(last)),
                    None => DifferenceWalk::Older(None),
                }
            }
            DifferenceWalk::Older(last) => {
                // Also those that another group scheme has moved to another group.
                let is_kept = |key: &str, newer: &Entry| filter.accepts(key, newer.group());
                let is_gone =
                    |key: &str, newer: &View| newer.rows().get(key).is_none_or(|newer| !is_kept(key, newer));
                match self.compare_rows(self.seen.view.clone(), last, filter, is_gone) {
                    Some(last) => DifferenceWalk::Older(Some(last)),
                    None => DifferenceWalk::Done,
                }
            }
            DifferenceWalk::Done => return Walk::Done,
        };
        Walk::Continue
    }

    /// Compares some rows of a view that the filter accepts, after `last`. Returns the last one; `None` at
    /// the end.
    fn compare_rows(
        &mut self,
        rows_of: Arc<View>,
        mut last: Option<Entry>,
        filter: &WatchFilter,
        is_wanted: impl Fn(&str, &View) -> bool,
    ) -> Option<Entry> {
        for _ in 0..ROWS_AT_ONCE {
            let entry = next_accepted(rows_of.rows(), filter, last.as_ref())?;
            if !self.seen.changed.contains_key(entry.key()) && is_wanted(entry.key(), &self.view) {
                self.compare(entry.key(), filter);
            }
            last = Some(entry.clone());
        }
        last
    }

    /// Compares the rows of some pages, from this one on.
    fn compare_pages(&mut self, page: usize, filter: &WatchFilter) -> DifferenceWalk {
        let (seen, newer) = (self.seen.view.clone(), self.view.clone());
        let (rows, next_page) = seen.rows().differing(newer.rows(), page, ROWS_AT_ONCE);
        for (old, new) in rows {
            // A row may be on another page in the newer view. Each key is compared at its place in
            // the newer view, or, if it is gone, at its place in the older one.
            let gone = old.filter(|old| newer.rows().get(old.key()).is_none());
            for entry in gone.into_iter().chain(new) {
                if !self.seen.changed.contains_key(entry.key()) {
                    self.compare(entry.key(), filter);
                }
            }
        }
        next_page.map_or(DifferenceWalk::Done, DifferenceWalk::Pages)
    }

    /// Compares the entries of a key.
    fn compare(&mut self, key: &str, filter: &WatchFilter) {
        let (old, new) = (self.seen.get(key), self.view.rows().get(key));
        let is_accepted = |entry: &&Entry| filter.accepts(key, entry.group());
        self.found.extend(match (old.filter(is_accepted), new.filter(is_accepted)) {
            (_, Some(new)) => change(old, Some(new), self.cause),
            (old, None) => change(old, None, self.cause),
        });
    }
}

/// The change from one entry of a key to another; `None` if they are the same.
fn change(old: Option<&Entry>, new: Option<&Entry>, cause: Cause) -> Option<Change> {
    let is_same = |old: &Entry, new: &Entry| match cause {
        // Another generation may have another topic, whose offsets say nothing, and another group scheme.
        Cause::Generation => {
            (old.json(), old.group(), old.member()) == (new.json(), new.group(), new.member())
        }
        _ => (old.partition(), old.offset()) == (new.partition(), new.offset()),
    };
    match (old, new) {
        (Some(old), Some(new)) if is_same(old, new) => None,
        (old, Some(new)) => Some(Change::set(old.cloned(), new.clone(), cause)),
        (Some(old), None) => Some(Change::deleted(old.clone(), old.place(), cause)),
        (None, None) => None,
    }
}
