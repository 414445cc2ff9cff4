//! The rows of a view: found by key in one step, and listed in the order of keys, and in a grouped table
//! in the order of groups and members.
//!
//! Each row has a number. An [`Index`], which views share until it is rebuilt, maps keys to numbers. Pages
//! map numbers to rows ([`Paged`]); views share the pages that do not differ. The [`Order`]s hold numbers.
//! So a new value for a known key changes one page, and nothing else.
//!
//! While a topic is loaded, the rows are not sorted. [`Rows::sort`] sorts them all at once, and from then
//! on they stay sorted.

mod index;
mod order;
mod orders;
mod paged;
mod sort;

use std::cmp::Ordering;
use std::hint::black_box;
use std::ops::Bound;

use rpds::StackSync;

use crate::table::entry::Entry;
use crate::table::key_hash::KeyHash;
use crate::thread::run_long;
use index::Index;
use order::{Order, Slot};
use orders::{Orders, pair};
use paged::{Paged, Pair};
use sort::{RankedRow, sort_by_group, sort_by_key};

/// The approximate number of rows of a page.
const ROWS_PER_PAGE: usize = 32;

/// An index of this many rows takes longer to rebuild than a task may hold its runtime thread:
/// 0.1 ms.
const LARGE_INDEX: usize = 4096;

/// The rows of a view. Only the newest clone may be written to.
#[derive(Debug, Clone)]
pub(in crate::table) struct Rows {
    rows: Paged<Entry>,
    index: Index,
    /// Numbers that no row has at present.
    free: StackSync<u32>,
    len: usize,
    orders: Option<Orders>,
}

impl Rows {
    /// Creates an empty collection to load a topic into.
    pub(in crate::table) fn unsorted() -> Self {
        Self {
            rows: Paged::default(),
            index: Index::with_room_for(0),
            free: StackSync::new_sync(),
            len: 0,
            orders: None,
        }
    }

    /// Creates an empty collection for readers.
    pub(in crate::table) fn sorted() -> Self {
        Self { orders: Some(Orders::default()), ..Self::unsorted() }
    }

    /// Whether the rows are sorted.
    pub(in crate::table) fn is_sorted(&self) -> bool {
        self.orders.is_some()
    }

    /// Sorts the rows, if they are not. From then on they stay sorted.
    pub(in crate::table) fn sort(&mut self) {
        if self.orders.is_none() {
            let order = |rows: Vec<RankedRow>| Order::from_sorted(rows.into_iter().map(|(_, row)| row));
            let by_key = order(sort_by_key(&self.rows));
            let (by_group, groups) = sort_by_group(&self.rows);
            self.orders = Some(Orders { by_key, by_group: order(by_group), groups });
        }
    }

    pub(in crate::table) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::table) fn get(&self, key: &str) -> Option<&Entry> {
        self.index.find(KeyHash::of(key), |number| self.row(number).filter(|row| row.has_key(key)))
    }

    /// Brings the rows that will be written next into the processor's cache. These lookups do not depend on
    /// each other, so the processor waits for memory for several at once. Without them, each write would wait
    /// on its own.
    pub(in crate::table) fn prefetch<'a>(&self, rows: impl Iterator<Item = (&'a Entry, KeyHash)>) {
        for (row, hash) in rows {
            black_box(self.find(row.key(), hash));
        }
    }

    /// Adds a row, or replaces the row of its key. Returns the replaced row.
    pub(in crate::table) fn set(&mut self, row: Entry, hash: KeyHash) -> Option<Entry> {
        match self.find(row.key(), hash) {
            Some(number) => self.overwrite(number, row),
            None => {
                self.insert(row, hash);
                None
            }
        }
    }

    /// Removes the row of a key, and returns it.
    pub(in crate::table) fn remove(&mut self, key: &str, hash: KeyHash) -> Option<Entry> {
        let number = self.find(key, hash)?;
        if let Some(orders) = &mut self.orders {
            orders.remove(&self.rows, number);
        }
        self.free.push_mut(number);
        self.len -= 1;
        self.rows.replace(number as usize, None)
    }

    /// Returns all rows, in no particular order.
    pub(in crate::table) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.rows.iter().map(|(_, row)| row)
    }

    /// Returns all rows, by key; none if they are not sorted.
    pub(in crate::table) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.range(Bound::Unbounded, Bound::Unbounded)
    }

    /// Returns the rows that differ between this view and another one, in pairs, and the page to continue
    /// with. Begins at `page`, stops after pages of about `rows` rows, and skips pages that both views share.
    pub(in crate::table) fn differing<'a>(
        &'a self,
        other: &'a Self,
        page: usize,
        rows: usize,
    ) -> (Vec<Pair<'a, Entry>>, Option<usize>) {
        let (mut differing, next) = self.rows.differing(&other.rows, page, rows.div_ceil(ROWS_PER_PAGE));
        differing.retain(
            |(here, there)| !matches!((here, there), (Some(here), Some(there)) if here.is_same(there)),
        );
        (differing, next)
    }

    /// Returns the rows from one bound to another, by key.
    pub(in crate::table) fn range<'a>(
        &'a self,
        start: Bound<&str>,
        end: Bound<&'a str>,
    ) -> impl Iterator<Item = &'a Entry> {
        let rows = self.orders.as_ref().map(|Orders { by_key, .. }| {
            by_key.from(match start {
                Bound::Unbounded => by_key.seek(|_| Ordering::Greater),
                Bound::Included(start) => by_key.seek(|row| self.key(row).cmp(start)),
                Bound::Excluded(start) => by_key.seek(|row| self.key(row).cmp(start).then(Ordering::Less)),
            })
        });
        let rows = rows.into_iter().flatten();
        rows.filter_map(|row| self.row(row)).take_while(move |row| match end {
            Bound::Unbounded => true,
            Bound::Included(end) => row.key() <= end,
            Bound::Excluded(end) => row.key() < end,
        })
    }

    pub(in crate::table) fn member(&self, group: &str, member: &str) -> Option<&Entry> {
        let order = &self.orders.as_ref()?.by_group;
        let row = order.at(order.seek(|row| self.pair(row).cmp(&(group, member))))?;
        (self.pair(row) == (group, member)).then(|| self.row(row)).flatten()
    }

    /// Returns the members of a group, in order.
    pub(in crate::table) fn members(&self, group: &str) -> impl Iterator<Item = &Entry> {
        self.members_after(group, None)
    }

    /// Returns the members of a group that follow an entry of the group, in order.
    pub(in crate::table) fn members_after<'a>(
        &'a self,
        group: &str,
        last: Option<&Entry>,
    ) -> impl Iterator<Item = &'a Entry> {
        let members = self.orders.as_ref().map(|Orders { by_group, .. }| {
            let (first, end) = self.group_bounds(by_group, group);
            let start = last.map_or(first, |last| {
                let last = (last.pair().unwrap_or_default(), last.key());
                by_group.seek(|row| (self.pair(row), self.key(row)).cmp(&last).then(Ordering::Less))
            });
            by_group.from(start).take(by_group.distance(start, end))
        });
        members.into_iter().flatten().filter_map(|row| self.row(row))
    }

    pub(in crate::table) fn member_count(&self, group: &str) -> usize {
        self.orders.as_ref().map_or(0, |orders| {
            let (first, end) = self.group_bounds(&orders.by_group, group);
            orders.by_group.distance(first, end)
        })
    }

    pub(in crate::table) fn group_count(&self) -> usize {
        self.orders.as_ref().map_or(0, |orders| orders.groups)
    }

    /// Returns the names of all groups, in order.
    pub(in crate::table) fn groups(&self) -> impl Iterator<Item = &str> {
        let order = self.orders.as_ref().map(|orders| &orders.by_group);
        let group_at = move |slot| Some(self.pair(order?.at(slot)?).0);
        let first = order.and_then(|order| group_at(order.seek(|_| Ordering::Greater)));
        std::iter::successors(first, move |group| group_at(self.group_bounds(order?, group).1))
    }

    /// Returns the first slot of a group, and the slot after its last one.
    fn group_bounds(&self, order: &Order, group: &str) -> (Slot, Slot) {
        let first = order.seek(|row| self.pair(row).0.cmp(group));
        (first, order.seek(|row| self.pair(row).0.cmp(group).then(Ordering::Less)))
    }

    fn find(&self, key: &str, hash: KeyHash) -> Option<u32> {
        self.index.find(hash, |number| self.row(number).filter(|row| row.has_key(key)).map(|_| number))
    }

    fn row(&self, number: u32) -> Option<&Entry> {
        self.rows.get(number as usize)
    }

    fn key(&self, number: u32) -> &str {
        self.row(number).map_or("", Entry::key)
    }

    fn pair(&self, number: u32) -> (&str, &str) {
        pair(&self.rows, number).unwrap_or_default()
    }

    /// Replaces the row with this number.
    fn overwrite(&mut self, number: u32, row: Entry) -> Option<Entry> {
        if self.group_count() > 0 || row.is_grouped() {
            return self.overwrite_in_groups(number, row);
        }
        self.rows.replace(number as usize, Some(row))
    }

    /// Replaces the row with this number in a grouped table. A group scheme should always give a key the same
    /// group; if it does not, the row moves to its new group.
    #[inline(never)]
    fn overwrite_in_groups(&mut self, number: u32, row: Entry) -> Option<Entry> {
        let changes_group = self.row(number).is_some_and(|old| old.pair() != row.pair());
        let mut orders = self.orders.as_mut().filter(|_| changes_group);
        if let Some(orders) = &mut orders {
            orders.leave_group(&self.rows, number);
        }
        let old = self.rows.replace(number as usize, Some(row));
        if let Some(orders) = &mut orders {
            orders.join_group(&self.rows, number);
        }
        old
    }

    fn insert(&mut self, row: Entry, hash: KeyHash) {
        if self.index.is_full() {
            self.rebuild_index();
        }
        let number = match self.free.peek().copied() {
            Some(number) => {
                self.free.pop_mut();
                self.rows.replace(number as usize, Some(row));
                number
            }
            // OK because that many rows need more than 300 GB of memory, besides their keys and values.
            None => u32::try_from(self.rows.push(row)).expect("fewer than 2^32 rows"),
        };
        let is_crowded = self.index.insert(hash, number);
        self.len += 1;
        if is_crowded && self.index.used() > self.len {
            self.rebuild_index();
        }
        if let Some(orders) = &mut self.orders {
            orders.insert(&self.rows, number);
        }
    }

    /// Rebuilds the index with room for half as many rows again, without the cells of removed rows.
    fn rebuild_index(&mut self) {
        let are_all_live = self.index.used() == self.len;
        let (rows, index) = (&self.rows, &self.index);
        let rebuild = || {
            index.rebuild(self.len + self.len / 2 + 8, |hash, number| {
                are_all_live || rows.get(number as usize).is_some_and(|row| KeyHash::of(row.key()) == hash)
            })
        };
        self.index = if index.used() < LARGE_INDEX { rebuild() } else { run_long(rebuild) };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use arc_swap::ArcSwap;

    use super::*;
    use crate::table::entry::EntryMaker;
    use crate::table::record_place::RecordPlace;
    use crate::thread::long_calls;

    fn row(key: &str, pair: Option<(&str, &str)>) -> (Entry, KeyHash) {
        let place = RecordPlace { partition: 0, offset: 0, timestamp: Some(0) };
        (EntryMaker::default().make(place, key, pair, b"1"), KeyHash::of(key))
    }

    #[test]
    fn a_row_whose_group_changes_moves_to_the_new_group() {
        let mut rows = Rows::sorted();
        for pair in [Some(("a", "x")), Some(("b", "x")), None, Some(("b", "y"))] {
            let (entry, hash) = row("k", pair);
            rows.set(entry, hash);
            let groups: Vec<_> =
                rows.groups().flat_map(|group| rows.members(group).map(Entry::pair)).collect();
            assert_eq!(groups, pair.map(Some).into_iter().collect::<Vec<_>>());
            assert_eq!(rows.group_count(), groups.len());
        }
        rows.remove("k", KeyHash::of("k"));
        assert_eq!((rows.len(), rows.group_count(), rows.iter().count()), (0, 0, 0));
    }

    #[test]
    fn keys_that_are_removed_and_added_again_are_found_and_do_not_grow_the_index() {
        let mut rows = Rows::sorted();
        let keys: Vec<String> = (0..100).map(|n| format!("key-{n}")).collect();
        for round in 0..200 {
            for key in keys.iter().skip(round % 3) {
                let (entry, hash) = row(key, None);
                rows.set(entry, hash);
                assert!(rows.get(key).is_some());
            }
            for key in keys.iter().skip(round % 5).rev() {
                rows.remove(key, KeyHash::of(key));
                assert!(rows.get(key).is_none());
            }
        }
        assert!(rows.index.used() < 400, "{}", rows.index.used());
        assert_eq!(rows.iter().count(), rows.len());
    }

    #[test]
    fn a_row_that_makes_a_large_index_grow_does_not_block_the_runtime() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let growing = runtime.spawn(async {
            let mut rows = Rows::unsorted();
            let (mut growths, mut moved) = (0, 0);
            for n in 0..20 * LARGE_INDEX {
                let (entry, hash) = row(&format!("key-{n}"), None);
                let (grows, before) = (rows.index.is_full() && n >= LARGE_INDEX, long_calls());
                rows.set(entry, hash);
                growths += usize::from(grows);
                moved += long_calls() - before;
            }
            (growths, moved)
        });
        let (growths, moved) = runtime.block_on(growing).unwrap();
        assert!(growths > 3, "{growths}");
        assert_eq!(moved, growths);
    }

    #[test]
    fn a_key_that_is_often_removed_and_added_among_others_is_found_in_few_steps() {
        let mut rows = Rows::sorted();
        let set = |rows: &mut Rows, key: &str| {
            let (entry, hash) = row(key, None);
            drop(rows.set(entry, hash));
        };
        (0..10_000).for_each(|n| set(&mut rows, &format!("key-{n}")));
        for n in 0..2_000 {
            // `leader` gets the number of the removed key, and the new key that of `leader`.
            for gone in ["leader".to_owned(), format!("key-{n}")] {
                rows.remove(&gone, KeyHash::of(&gone));
            }
            set(&mut rows, "leader");
            set(&mut rows, &format!("key-{}", 10_000 + n));
        }
        let visited = Cell::new(0);
        let count = |_| {
            visited.set(visited.get() + 1);
            None::<()>
        };
        assert_eq!(rows.index.find(KeyHash::of("leader"), count), None);
        assert!(visited.get() < 50, "{}", visited.get());
    }

    #[test]
    fn readers_find_the_rows_of_their_view_while_keys_are_removed_and_added() {
        const STABLE_KEYS: usize = 50;
        const CHANGING_KEYS: usize = 50;
        let keys: Vec<String> = (0..STABLE_KEYS + CHANGING_KEYS).map(|n| format!("key-{n}")).collect();
        let mut rows = Rows::sorted();
        let set = |rows: &mut Rows, key: &str| {
            let (entry, hash) = row(key, None);
            drop(rows.set(entry, hash));
        };
        keys[..STABLE_KEYS].iter().for_each(|key| set(&mut rows, key));
        let published = ArcSwap::from_pointee(rows.clone());
        let is_done = AtomicBool::new(false);
        let read = || {
            while !is_done.load(Ordering::Relaxed) {
                let view = published.load_full();
                let found: Vec<&str> = keys
                    .iter()
                    .filter_map(|key| view.get(key).filter(|row| row.has_key(key)))
                    .map(Entry::key)
                    .collect();
                assert_eq!(found.len(), view.len());
                assert!(keys[..STABLE_KEYS].iter().zip(&found).all(|(key, found)| key == found));
            }
        };
        std::thread::scope(|scope| {
            (0..2).for_each(|_| drop(scope.spawn(read)));
            for n in 0..20_000 {
                let key = &keys[STABLE_KEYS + n * 7 % CHANGING_KEYS];
                match rows.get(key).is_some() {
                    true => drop(rows.remove(key, KeyHash::of(key))),
                    false => set(&mut rows, key),
                }
                published.store(Arc::new(rows.clone()));
            }
            is_done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn two_keys_with_the_same_group_and_member_are_two_rows() {
        let mut rows = Rows::sorted();
        for key in ["k1", "k2", "k3"] {
            let (entry, hash) = row(key, Some(("g", "m")));
            rows.set(entry, hash);
        }
        for (left, key) in [(2, "k1"), (1, "k2"), (0, "k3")] {
            rows.remove(key, KeyHash::of(key));
            assert_eq!((rows.members("g").count(), rows.group_count()), (left, left.min(1)));
        }
    }
}
