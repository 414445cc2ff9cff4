//! Which watchers a change concerns. A watcher of a key, a prefix or a group is not woken for
//! others, however many watch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::table::entry::Entry;
use crate::table::watch::WatchFilter;
use crate::table::watch::hub::WatchItem;
use crate::table::watch::seat::Seat;

type Seats = Vec<Arc<Seat>>;

/// The watchers by what they want.
#[derive(Debug, Default)]
pub(super) struct Interest {
    of_all: Seats,
    of_keys: HashMap<String, Seats>,
    of_groups: HashMap<String, Seats>,
    /// By length, then by prefix.
    of_prefixes: BTreeMap<usize, HashMap<String, Seats>>,
}

impl Interest {
    fn seats(&mut self, filter: &WatchFilter) -> &mut Seats {
        match filter {
            WatchFilter::All => &mut self.of_all,
            WatchFilter::Key(key) => self.of_keys.entry(key.clone()).or_default(),
            WatchFilter::Group(group) => self.of_groups.entry(group.clone()).or_default(),
            WatchFilter::Prefix(prefix) => {
                self.of_prefixes.entry(prefix.len()).or_default().entry(prefix.clone()).or_default()
            }
        }
    }

    pub(super) fn add(&mut self, seat: &Arc<Seat>, filter: &WatchFilter) {
        self.seats(filter).push(seat.clone());
    }

    pub(super) fn remove(&mut self, seat: &Arc<Seat>, filter: &WatchFilter) {
        self.seats(filter).retain(|other| !Arc::ptr_eq(other, seat));
        self.of_keys.retain(|_, seats| !seats.is_empty());
        self.of_groups.retain(|_, seats| !seats.is_empty());
        self.of_prefixes.retain(|_, prefixes| {
            prefixes.retain(|_, seats| !seats.is_empty());
            !prefixes.is_empty()
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of_all.is_empty()
            && self.of_keys.is_empty()
            && self.of_groups.is_empty()
            && self.of_prefixes.is_empty()
    }

    /// All watchers.
    pub(super) fn all(&self) -> Seats {
        let prefixes = self.of_prefixes.values().flat_map(HashMap::values);
        let named = self.of_keys.values().chain(self.of_groups.values()).chain(prefixes);
        self.of_all.iter().chain(named.flatten()).cloned().collect()
    }

    /// The watchers that some of these items concern, some of them more than once.
    pub(super) fn concerned(&self, items: &[WatchItem]) -> Seats {
        let mut concerned = self.of_all.clone();
        for item in items {
            let (key, group) = match item {
                WatchItem::Change(change) => {
                    let entry = change.new.as_ref().or(change.old.as_ref());
                    (change.key(), entry.and_then(Entry::group))
                }
                WatchItem::Rejected { key: Some(key), group, .. } => (&**key, group.as_deref()),
                WatchItem::Rejected { key: None, .. } => continue,
            };
            concerned.extend(self.of_keys.get(key).into_iter().flatten().cloned());
            let group = group.and_then(|group| self.of_groups.get(group));
            concerned.extend(group.into_iter().flatten().cloned());
            for (&len, prefixes) in self.of_prefixes.range(..=key.len()) {
                let seats = key.get(..len).and_then(|prefix| prefixes.get(prefix));
                concerned.extend(seats.into_iter().flatten().cloned());
            }
        }
        concerned
    }
}
