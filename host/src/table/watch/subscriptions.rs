//! The watchers of a table, by what they want to see. A watcher of a key, a prefix or a group is
//! not woken for other keys, however many watchers there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::table::change::Effect;
use crate::table::watch::filter::WatchFilter;
use crate::table::watch::subscription::Subscription;

type List = Vec<Arc<Subscription>>;

/// The watchers of a table, by filter.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    all: List,
    by_key: HashMap<String, List>,
    by_group: HashMap<String, List>,
    /// By length of the prefix, then by prefix.
    by_prefix: BTreeMap<usize, HashMap<String, List>>,
}

impl Subscriptions {
    fn list_mut(&mut self, filter: &WatchFilter) -> &mut List {
        match filter {
            WatchFilter::All => &mut self.all,
            WatchFilter::Key(key) => self.by_key.entry(key.clone()).or_default(),
            WatchFilter::Group(group) => self.by_group.entry(group.clone()).or_default(),
            WatchFilter::Prefix(prefix) => {
                self.by_prefix.entry(prefix.len()).or_default().entry(prefix.clone()).or_default()
            }
        }
    }

    pub(super) fn add(&mut self, subscription: &Arc<Subscription>, filter: &WatchFilter) {
        self.list_mut(filter).push(subscription.clone());
    }

    pub(super) fn remove(&mut self, subscription: &Arc<Subscription>, filter: &WatchFilter) {
        self.list_mut(filter).retain(|other| !Arc::ptr_eq(other, subscription));
        self.by_key.retain(|_, list| !list.is_empty());
        self.by_group.retain(|_, list| !list.is_empty());
        self.by_prefix.retain(|_, prefixes| {
            prefixes.retain(|_, list| !list.is_empty());
            !prefixes.is_empty()
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.by_key.is_empty() && self.by_group.is_empty() && self.by_prefix.is_empty()
    }

    /// All watchers.
    pub(super) fn all(&self) -> List {
        let by_prefix = self.by_prefix.values().flat_map(HashMap::values);
        let filtered = self.by_key.values().chain(self.by_group.values()).chain(by_prefix);
        self.all.iter().chain(filtered.flatten()).cloned().collect()
    }

    /// The watchers that want to see some of these effects. A watcher may be listed several times.
    pub(super) fn of(&self, effects: &[Effect]) -> List {
        let mut found = self.all.clone();
        for effect in effects {
            let (key, group) = match effect {
                Effect::Change(change) => (change.key(), change.group()),
                Effect::Rejected { key: Some(key), group, .. } => (&**key, group.as_deref()),
                Effect::Rejected { key: None, .. } => continue,
            };
            found.extend(self.by_key.get(key).into_iter().flatten().cloned());
            let group = group.and_then(|group| self.by_group.get(group));
            found.extend(group.into_iter().flatten().cloned());
            for (&len, prefixes) in self.by_prefix.range(..=key.len()) {
                let list = key.get(..len).and_then(|prefix| prefixes.get(prefix));
                found.extend(list.into_iter().flatten().cloned());
            }
        }
        found
    }
}
