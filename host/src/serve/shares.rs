//! Limits how much each of many has in use.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// Counts what each of many has in use, up to a limit.
#[derive(Debug)]
pub(super) struct Shares<K> {
    limit: usize,
    /// A std lock: held to change a number.
    used: Arc<Mutex<HashMap<K, usize>>>,
}

/// A part of somebody's share, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Share<K: Hash + Eq> {
    key: K,
    used: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: Arc::default() }
    }

    /// Takes a part of a share; `None` if all of it is in use.
    pub(super) fn take(&self, key: &K) -> Option<Share<K>> {
        let mut used = lock(&self.used);
        let count = used.entry(key.clone()).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Share { key: key.clone(), used: self.used.clone() })
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut used = lock(&self.used);
        if let Some(count) = used.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                used.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_limited_and_free_again_when_it_is_dropped() {
        let shares = Shares::new(2);
        let (first, second) = (shares.take(&"a"), shares.take(&"a"));
        assert!(first.is_some() && second.is_some() && shares.take(&"a").is_none());
        assert!(shares.take(&"b").is_some());
        drop(first);
        assert!(shares.take(&"a").is_some());
        drop(second);
        assert!(lock(&shares.used).is_empty());
    }
}
