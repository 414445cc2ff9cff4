//! The orders of the rows: by key, and by group and member.

use crate::table::entry::Entry;
use crate::table::view::rows::order::{Order, Slot};
use crate::table::view::rows::paged::Paged;

/// The orders of the rows. They hold the numbers of rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders {
    pub(super) by_key: Order,
    /// The rows that have a group.
    pub(super) by_group: Order,
    /// The number of groups.
    pub(super) groups: usize,
}

impl Orders {
    /// Adds a row.
    pub(super) fn insert(&mut self, rows: &Paged<Entry>, number: u32) {
        let slot = self.slot_by_key(rows, number);
        self.by_key.insert(slot, number);
        self.join_group(rows, number);
    }

    /// Removes a row, which is still in `rows`.
    pub(super) fn remove(&mut self, rows: &Paged<Entry>, number: u32) {
        let slot = self.slot_by_key(rows, number);
        self.by_key.remove(slot);
        self.leave_group(rows, number);
    }

    /// Adds a row to its group, if it has one.
    pub(super) fn join_group(&mut self, rows: &Paged<Entry>, number: u32) {
        if let Some((group, _)) = pair(rows, number) {
            let slot = self.slot_in_group(rows, number);
            let neighbors = [self.by_group.before(slot), self.by_group.at(slot)];
            self.groups += usize::from(!is_any_in_group(rows, neighbors, group));
            self.by_group.insert(slot, number);
        }
    }

    /// Removes a row from its group, if it has one.
    pub(super) fn leave_group(&mut self, rows: &Paged<Entry>, number: u32) {
        if let Some((group, _)) = pair(rows, number) {
            let slot = self.slot_in_group(rows, number);
            let neighbors = [self.by_group.before(slot), self.by_group.after(slot)];
            self.groups -= usize::from(!is_any_in_group(rows, neighbors, group));
            self.by_group.remove(slot);
        }
    }

    fn slot_by_key(&self, rows: &Paged<Entry>, number: u32) -> Slot {
        let key = |row| rows.get(row as usize).map_or("", Entry::key);
        self.by_key.seek(|row| key(row).cmp(key(number)))
    }

    fn slot_in_group(&self, rows: &Paged<Entry>, number: u32) -> Slot {
        // A group scheme may give two keys the same pair.
        let rank = |row| rows.get(row as usize).map(|row| (row.pair(), row.key()));
        self.by_group.seek(|row| rank(row).cmp(&rank(number)))
    }
}

/// Whether any of these rows is in a group.
fn is_any_in_group(rows: &Paged<Entry>, numbers: [Option<u32>; 2], group: &str) -> bool {
    numbers.into_iter().flatten().any(|row| pair(rows, row).is_some_and(|(other, _)| other == group))
}

/// Returns the group and the member of a row.
pub(super) fn pair(rows: &Paged<Entry>, number: u32) -> Option<(&str, &str)> {
    rows.get(number as usize).and_then(Entry::pair)
}
