//! From a key's hash to the numbers of the rows that may have it.
//!
//! One table of cells serves all moments that share it: a cell, once written, never
//! changes, and a number that a moment does not know, or knows by another key, is none
//! of its rows. So an insertion writes one cell, readers take no lock, and no moment has to
//! copy anything. Cells whose row is gone stay until the table is made anew, and older
//! moments keep the one they have.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use foldhash::fast::RandomState;

/// The hash of a key, in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::table) struct KeyHash(u32);

impl KeyHash {
    pub(in crate::table) fn of(key: &str) -> Self {
        static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        // The upper half; any is as good.
        Self((STATE.hash_one(key.as_bytes()) >> 32) as u32)
    }
}

/// Of so many cells..
const OF: usize = 5;

/// ..at most so many are used: searches stay short, as cells lie side by side.
const USED: usize = 4;

/// A hash has more cells than this only if its key came and went as often, with others
/// in between.
const CROWD: usize = 32;

/// A hash above, a row's number plus one below; 0 is an empty cell.
type Cell = AtomicU64;

/// The cells. Of all clones only the newest is written to.
#[derive(Debug, Clone)]
pub(super) struct Index {
    cells: Arc<[Cell]>,
    used: usize,
}

impl Index {
    /// An index with room for so many rows.
    pub(super) fn with_room_for(rows: usize) -> Self {
        let cells = (rows + 1) * OF / USED + 1;
        Self { cells: (0..cells).map(|_| Cell::default()).collect(), used: 0 }
    }

    /// Whether another row has no room.
    pub(super) fn is_full(&self) -> bool {
        (self.used + 1) * OF > self.cells.len() * USED
    }

    /// How many cells are used, be their row there or gone.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// What is made of the first number under this hash of which anything can be made.
    // A call, and what is worked out twice because of it, cost a reader a sixth.
    #[inline(always)]
    pub(super) fn find<T>(&self, hash: KeyHash, make: impl Fn(u32) -> Option<T>) -> Option<T> {
        for cell in self.from(hash) {
            let (found, row) = unpack(cell.load(Ordering::Acquire))?;
            if found == hash
                && let Some(made) = make(row)
            {
                return Some(made);
            }
        }
        None
    }

    /// Adds a number under a hash; true if the hash has so many that the index should be
    /// made anew. There must be room.
    pub(super) fn insert(&mut self, hash: KeyHash, row: u32) -> bool {
        let (mut of_hash, mut added) = (0, false);
        for cell in self.from(hash) {
            match unpack(cell.load(Ordering::Relaxed)) {
                None => {
                    cell.store(pack(hash, row), Ordering::Release);
                    added = true;
                    break;
                }
                // The key was here before, and went.
                Some(found) if found == (hash, row) => break,
                Some((found, _)) => of_hash += usize::from(found == hash),
            }
        }
        self.used += usize::from(added);
        of_hash > CROWD
    }

    /// An index with room for so many rows, of those numbers here that are still of
    /// their hash.
    pub(super) fn made_anew(&self, rows: usize, is_of: impl Fn(KeyHash, u32) -> bool) -> Self {
        let mut index = Self::with_room_for(rows);
        // In the order of hashes, so that old and new cells are visited side by side.
        for cell in self.cells.iter() {
            if let Some((hash, row)) = unpack(cell.load(Ordering::Relaxed))
                && is_of(hash, row)
            {
                index.insert(hash, row);
            }
        }
        index
    }

    /// The cells from a hash's own on, once around.
    fn from(&self, hash: KeyHash) -> impl Iterator<Item = &Cell> {
        // The hash as a fraction of all there are.
        let start = ((u64::from(hash.0) * self.cells.len() as u64) >> 32) as usize;
        let (before, after) = self.cells.split_at(start);
        after.iter().chain(before)
    }
}

fn pack(KeyHash(hash): KeyHash, row: u32) -> u64 {
    (u64::from(hash) << 32) | (u64::from(row) + 1)
}

fn unpack(cell: u64) -> Option<(KeyHash, u32)> {
    let row = (cell as u32).checked_sub(1)?;
    Some((KeyHash((cell >> 32) as u32), row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_found_through_growth() {
        let mut index = Index::with_room_for(0);
        let keys: Vec<String> = (0..10_000).map(|n| format!("key-{n}")).collect();
        for (row, key) in (0..).zip(&keys) {
            if index.is_full() {
                index = index.made_anew(index.used() * 3 / 2, |_, _| true);
            }
            index.insert(KeyHash::of(key), row);
        }
        for (row, key) in (0..).zip(&keys) {
            assert_eq!(index.find(KeyHash::of(key), |found| (found == row).then_some(found)), Some(row));
            assert_eq!(index.find(KeyHash::of(key), |_| None::<u32>), None);
        }
        let half = index.made_anew(5_000, |_, row| row % 2 == 0);
        assert_eq!(half.used(), 5_000);
        assert_eq!(half.find(KeyHash::of(&keys[1]), |row| (row == 1).then_some(row)), None);
        assert_eq!(half.find(KeyHash::of(&keys[2]), |row| (row == 2).then_some(row)), Some(2));
    }
}
