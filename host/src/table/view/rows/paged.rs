//! A persistent vector. A clone shares all pages with its original, and a write copies only its page, if
//! that is shared. So between two clones, a page is copied at most once.

use std::array;

use triomphe::Arc;

use crate::thread::run_in_background;

/// The items with the same number in two clones.
pub(super) type Pair<'a, T> = (Option<&'a T>, Option<&'a T>);

/// The number of items of a page. It is small, because a write to a shared page copies all of them. 31
/// pointers and the reference count make 256 bytes, which no allocator rounds up.
const PAGE: usize = 31;

/// The number of pages of a branch.
const BRANCH: usize = 64;

type Page<T> = [Option<T>; PAGE];
type Branch<T> = Vec<Arc<Page<T>>>;

/// Freeing more branches than this takes too long for a thread of the runtime.
const MANY_BRANCHES: usize = 8;

/// Items by number. A number may have no item.
///
/// Whoever drops the last clone, such as a watcher or the user of a snapshot, does not have to free all
/// items: that happens in the background.
#[derive(Debug, Clone)]
pub(super) struct Paged<T: Send + Sync + 'static> {
    branches: Arc<Vec<Arc<Branch<T>>>>,
    len: usize,
}

impl<T: Send + Sync + 'static> Drop for Paged<T> {
    fn drop(&mut self) {
        if self.branches.len() <= MANY_BRANCHES || !self.branches.is_unique() {
            return;
        }
        // A newer clone usually shares nearly all branches, so a few of them show whether it exists.
        let step = self.branches.len() / MANY_BRANCHES;
        if self.branches.iter().step_by(step).all(Arc::is_unique) {
            let branches = std::mem::take(&mut self.branches);
            run_in_background(move || drop(branches));
        }
    }
}

impl<T: Send + Sync + 'static> Default for Paged<T> {
    fn default() -> Self {
        Self { branches: Arc::default(), len: 0 }
    }
}

impl<T: Clone + Send + Sync + 'static> Paged<T> {
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        let page = index / PAGE;
        self.branches.get(page / BRANCH)?.get(page % BRANCH)?[index % PAGE].as_ref()
    }

    /// Replaces or removes the item with this number. Returns the old item.
    ///
    /// # Panics
    ///
    /// If the number was never pushed.
    pub(super) fn replace(&mut self, index: usize, item: Option<T>) -> Option<T> {
        assert!(index < self.len, "{index} of {}", self.len);
        let page = index / PAGE;
        let branch = Arc::make_mut(&mut Arc::make_mut(&mut self.branches)[page / BRANCH]);
        std::mem::replace(&mut Arc::make_mut(&mut branch[page % BRANCH])[index % PAGE], item)
    }

    /// Appends an item, and returns its number.
    pub(super) fn push(&mut self, item: T) -> usize {
        let index = self.len;
        let page = index / PAGE;
        if index.is_multiple_of(PAGE) {
            let branches = Arc::make_mut(&mut self.branches);
            if page.is_multiple_of(BRANCH) {
                branches.push(Arc::default());
            }
            Arc::make_mut(&mut branches[page / BRANCH]).push(Arc::new(array::from_fn(|_| None)));
        }
        self.len += 1;
        self.replace(index, Some(item));
        index
    }

    /// Returns the items of the pages that this clone does not share with another one, paired by number, and
    /// the page to continue with. Begins at `page`, and visits at most `pages` pages.
    pub(super) fn differing<'a>(
        &'a self,
        other: &'a Self,
        page: usize,
        pages: usize,
    ) -> (Vec<Pair<'a, T>>, Option<usize>) {
        let mut items = Vec::new();
        let end = self.len.max(other.len).div_ceil(PAGE);
        let mut at = page;
        let mut visited = 0;
        while at < end && visited < pages {
            let branches = [self, other].map(|paged| paged.branches.get(at / BRANCH));
            if at.is_multiple_of(BRANCH)
                && let [Some(here), Some(there)] = branches
                && Arc::ptr_eq(here, there)
            {
                at += BRANCH;
                visited += 1;
                continue;
            }
            let [here, there] = branches.map(|branch| branch.and_then(|branch| branch.get(at % BRANCH)));
            let is_shared = matches!((here, there), (Some(here), Some(there)) if Arc::ptr_eq(here, there));
            if !is_shared {
                let item =
                    |page: Option<&'a Arc<Page<T>>>, index: usize| page.and_then(|page| page[index].as_ref());
                items.extend((0..PAGE).map(|index| (item(here, index), item(there, index))));
            }
            at += 1;
            visited += 1;
        }
        (items, (at < end).then_some(at))
    }

    /// Returns all items with their numbers, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let pages = self.branches.iter().flat_map(|branch| branch.iter());
        pages
            .flat_map(|page| page.iter())
            .enumerate()
            .filter_map(|(index, item)| Some((index, item.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn clones_keep_their_items(len in 1..5000_usize, writes: Vec<(usize, Option<u8>)>) {
            let mut paged = Paged::default();
            (0..len).for_each(|n| assert_eq!(paged.push(n), n));
            let mut expected: Vec<_> = (0..len).map(Some).collect();
            for (index, value) in writes {
                let (index, value) = (index % len, value.map(usize::from));
                let (before, clone) = (expected.clone(), paged.clone());
                prop_assert_eq!(paged.replace(index, value), expected[index]);
                expected[index] = value;
                prop_assert_eq!(clone.get(index), before[index].as_ref());
            }
            let items: Vec<_> = paged.iter().map(|(index, &item)| (index, item)).collect();
            let expected = expected.into_iter().enumerate().filter_map(|(index, item)| Some((index, item?)));
            prop_assert_eq!(items, expected.collect::<Vec<_>>());
            prop_assert_eq!(paged.get(len), None);
        }
    }
}
