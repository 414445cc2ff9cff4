//! A sorted list of row numbers, each of which identifies a row, in blocks that clones of the list share. The
//! caller provides the comparison whenever it searches for a slot.

use std::cmp::Ordering;

use triomphe::Arc;

/// A block that exceeds this many rows is split. Tests use small blocks, to have many of them.
const BLOCK: usize = if cfg!(test) { 4 } else { 512 };

/// Row numbers, sorted.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    blocks: Arc<Vec<Arc<Vec<u32>>>>,
}

/// A position among the rows in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    block: usize,
    index: usize,
}

impl Order {
    /// Creates an order of rows that are sorted already.
    pub(super) fn from_sorted(sorted: impl ExactSizeIterator<Item = u32>) -> Self {
        let mut sorted = sorted.peekable();
        let mut blocks = Vec::with_capacity(sorted.len().div_ceil(BLOCK));
        while sorted.peek().is_some() {
            let mut rows = Vec::with_capacity(sorted.len().min(BLOCK));
            rows.extend(sorted.by_ref().take(BLOCK));
            blocks.push(Arc::new(rows));
        }
        Self { blocks: Arc::new(blocks) }
    }

    /// Returns the slot of the first row that is not less than the target. `compare` compares a row with the
    /// target.
    pub(super) fn seek(&self, compare: impl Fn(u32) -> Ordering) -> Slot {
        let is_before = |row: &u32| compare(*row).is_lt();
        // No block is empty.
        let after = self.blocks.partition_point(|rows| is_before(&rows[0]));
        let Some(block) = after.checked_sub(1) else { return Slot { block: 0, index: 0 } };
        let index = self.blocks[block].partition_point(is_before);
        if index == self.blocks[block].len() {
            Slot { block: after, index: 0 }
        } else {
            Slot { block, index }
        }
    }

    /// Returns the row at a slot.
    pub(super) fn at(&self, slot: Slot) -> Option<u32> {
        self.blocks.get(slot.block)?.get(slot.index).copied()
    }

    /// Returns the row before a slot.
    pub(super) fn before(&self, slot: Slot) -> Option<u32> {
        match slot.index.checked_sub(1) {
            Some(index) => self.at(Slot { index, ..slot }),
            None => self.blocks.get(slot.block.checked_sub(1)?)?.last().copied(),
        }
    }

    /// Returns the row after the one at a slot.
    pub(super) fn after(&self, slot: Slot) -> Option<u32> {
        let next = Slot { index: slot.index + 1, ..slot };
        self.at(next).or_else(|| self.at(Slot { block: slot.block + 1, index: 0 }))
    }

    /// Returns the rows from a slot on.
    pub(super) fn from(&self, slot: Slot) -> impl Iterator<Item = u32> {
        let blocks = self.blocks.get(slot.block..).unwrap_or_default();
        blocks.iter().flat_map(|rows| rows.iter().copied()).skip(slot.index)
    }

    /// Returns the number of rows from one slot to another.
    pub(super) fn distance(&self, from: Slot, to: Slot) -> usize {
        let whole = self.blocks.get(from.block..to.block).unwrap_or_default();
        (whole.iter().map(|rows| rows.len()).sum::<usize>() + to.index).saturating_sub(from.index)
    }

    /// Inserts a row at a slot.
    pub(super) fn insert(&mut self, slot: Slot, row: u32) {
        let blocks = Arc::make_mut(&mut self.blocks);
        // The slot after the last block means the end of that block.
        let slot = match blocks.last() {
            None => {
                blocks.push(Arc::default());
                slot
            }
            Some(last) if slot.block == blocks.len() => Slot { block: slot.block - 1, index: last.len() },
            Some(_) => slot,
        };
        let rows = Arc::make_mut(&mut blocks[slot.block]);
        rows.insert(slot.index, row);
        if rows.len() > BLOCK {
            let upper = rows.split_off(BLOCK / 2);
            rows.shrink_to_fit();
            blocks.insert(slot.block + 1, Arc::new(upper));
        }
    }

    /// Removes the row at a slot.
    pub(super) fn remove(&mut self, slot: Slot) {
        let blocks = Arc::make_mut(&mut self.blocks);
        let rows = Arc::make_mut(&mut blocks[slot.block]);
        rows.remove(slot.index);
        if rows.is_empty() {
            blocks.remove(slot.block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_order_is_a_sorted_set(start: bool, steps in proptest::collection::vec(0..3000_u32, 0..3000)) {
            let mut expected: Vec<u32> = if start { (0..2000).map(|n| n * 2).collect() } else { Vec::new() };
            let mut order = Order::from_sorted(expected.iter().copied());
            for row in steps {
                let slot = order.seek(|other| other.cmp(&row));
                match expected.binary_search(&row) {
                    Ok(index) => {
                        prop_assert_eq!(order.at(slot), Some(row));
                        prop_assert_eq!(order.after(slot), expected.get(index + 1).copied());
                        expected.remove(index);
                        order.remove(slot);
                    }
                    Err(index) => {
                        prop_assert_eq!(order.before(slot), index.checked_sub(1).map(|before| expected[before]));
                        expected.insert(index, row);
                        order.insert(slot, row);
                    }
                }
            }
            let first = order.seek(|_| Ordering::Greater);
            prop_assert_eq!(order.from(first).collect::<Vec<_>>(), expected.clone());
            let (low, high) = (order.seek(|row| row.cmp(&500)), order.seek(|row| row.cmp(&1500)));
            let between = expected.iter().filter(|row| (500..1500).contains(*row)).count();
            prop_assert_eq!(order.distance(low, high), between);
        }
    }
}
