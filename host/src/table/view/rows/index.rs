//! Maps the hash of a key to the numbers of the rows that may have the key.
//!
//! One hash table serves all views that share it. An insertion writes one cell, readers take no lock, and
//! views copy nothing. The cells of removed rows stay until the index is rebuilt; older views keep the old
//! index.
//!
//! # Proof that readers need no lock
//!
//! A reader has a published view V, whose rows never change, and shares the cells with the writer, which
//! applies records to a newer view.
//!
//! 1. *There is one writer.* [`Index::insert`] takes the index of the view that records are applied to, and
//!    only the task of the generation has that one. Published views are behind an `Arc` and are never
//!    written to.
//! 2. *A cell is written once.* The writer stores only into a cell that it has seen empty, and by 1 nobody
//!    else stores. A cell is one atomic integer, so a reader sees it empty or complete.
//! 3. *A reader finds no wrong row.* A match counts only if the row of this number in V has the key. Cells
//!    of newer views, of removed rows and of other keys with the same hash lead to no row in V, or to one
//!    with another key.
//! 4. *A reader misses no row.* Let key k be in row r of V. Before V was published, the writer found or
//!    stored the cell (hash of k, r). When that cell was stored, all cells before it in the probing order of
//!    the hash were used, and by 2 they still are. All these stores come before the publication of V, which
//!    the reader has observed (a release store and an acquire load of the pointer to V). So the reader sees
//!    no empty cell before it comes to this one.
//! 5. *A search ends.* It visits each cell at most once, and a fifth of the cells is empty.
//!
//! By 3 and 4, it does not matter which of the newer cells a reader sees: the order of the loads and stores
//! of cells among themselves is free, and 4 rests on the publication alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::table::key_hash::KeyHash;

/// At most 4 of 5 cells are used, so that searches stay short: a search visits one cell after the other.
const MAX_LOAD_NUMERATOR: usize = 4;
const MAX_LOAD_DENOMINATOR: usize = 5;

/// A hash has more cells than this only if its key was removed and added again that many times, while other
/// keys were added in between.
const MAX_CELLS_PER_HASH: usize = 32;

/// A hash in the upper half and the number of a row plus one in the lower half; 0 is an empty cell.
type Cell = AtomicU64;

/// The hash table. Only the newest clone may be written to.
#[derive(Debug, Clone)]
pub(super) struct Index {
    cells: Arc<[Cell]>,
    used: usize,
}

impl Index {
    /// Creates an index with room for this many rows.
    pub(super) fn with_room_for(rows: usize) -> Self {
        let cells = (rows + 1) * MAX_LOAD_DENOMINATOR / MAX_LOAD_NUMERATOR + 1;
        Self { cells: (0..cells).map(|_| Cell::default()).collect(), used: 0 }
    }

    /// Whether there is no room for another row.
    pub(super) fn is_full(&self) -> bool {
        (self.used + 1) * MAX_LOAD_DENOMINATOR > self.cells.len() * MAX_LOAD_NUMERATOR
    }

    /// The number of used cells, including those of removed rows.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Returns the first match: calls `try_match` with each number that was inserted with this hash, until it
    /// returns `Some`.
    // Without inlining, reads take a sixth longer.
    #[inline(always)]
    pub(super) fn find<T>(&self, hash: KeyHash, try_match: impl Fn(u32) -> Option<T>) -> Option<T> {
        for cell in self.probe(hash) {
            let (found, row) = unpack(cell.load(Ordering::Acquire))?;
            if found == hash
                && let Some(matched) = try_match(row)
            {
                return Some(matched);
            }
        }
        None
    }

    /// Adds the number of a row whose key has this hash. Returns true if the hash has so many cells that the
    /// index should be rebuilt. The index must not be full.
    pub(super) fn insert(&mut self, hash: KeyHash, row: u32) -> bool {
        let (mut cells_of_hash, mut is_new) = (0, false);
        for cell in self.probe(hash) {
            match unpack(cell.load(Ordering::Relaxed)) {
                None => {
                    cell.store(pack(hash, row), Ordering::Release);
                    is_new = true;
                    break;
                }
                // The key was removed, and is added again.
                Some(found) if found == (hash, row) => break,
                Some((found, _)) => cells_of_hash += usize::from(found == hash),
            }
        }
        self.used += usize::from(is_new);
        cells_of_hash > MAX_CELLS_PER_HASH
    }

    /// Returns a new index with room for this many rows, with the numbers for which `is_live` returns true.
    pub(super) fn rebuild(&self, rows: usize, is_live: impl Fn(KeyHash, u32) -> bool) -> Self {
        let mut index = Self::with_room_for(rows);
        // In the order of hashes, so that both tables are accessed sequentially.
        for cell in self.cells.iter() {
            if let Some((hash, row)) = unpack(cell.load(Ordering::Relaxed))
                && is_live(hash, row)
            {
                index.insert(hash, row);
            }
        }
        index
    }

    /// Returns all cells, in the order in which a search for this hash visits them.
    fn probe(&self, hash: KeyHash) -> impl Iterator<Item = &Cell> {
        // The hash as a fraction of all hashes.
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
    fn numbers_are_found_after_the_index_grows() {
        let mut index = Index::with_room_for(0);
        let keys: Vec<String> = (0..10_000).map(|n| format!("key-{n}")).collect();
        for (row, key) in (0..).zip(&keys) {
            if index.is_full() {
                index = index.rebuild(index.used() * 3 / 2, |_, _| true);
            }
            index.insert(KeyHash::of(key), row);
        }
        for (row, key) in (0..).zip(&keys) {
            assert_eq!(index.find(KeyHash::of(key), |found| (found == row).then_some(found)), Some(row));
            assert_eq!(index.find(KeyHash::of(key), |_| None::<u32>), None);
        }
        let half = index.rebuild(5_000, |_, row| row % 2 == 0);
        assert_eq!(half.used(), 5_000);
        assert_eq!(half.find(KeyHash::of(&keys[1]), |row| (row == 1).then_some(row)), None);
        assert_eq!(half.find(KeyHash::of(&keys[2]), |row| (row == 2).then_some(row)), Some(2));
    }
}
