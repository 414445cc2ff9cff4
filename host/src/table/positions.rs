//! Offsets by partition.

use crate::log::{Offset, Partition};

/// An offset for each of some partitions.
///
/// A sorted vector, because each published view has its own copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Positions(Vec<(Partition, Offset)>);

impl Positions {
    /// The offset of a partition, if it has one.
    pub(super) fn get(&self, partition: Partition) -> Option<Offset> {
        let index = self.find(partition).ok()?;
        Some(self.0[index].1)
    }

    /// The offset of a partition, to be changed.
    pub(super) fn get_mut(&mut self, partition: Partition) -> Option<&mut Offset> {
        let index = self.find(partition).ok()?;
        Some(&mut self.0[index].1)
    }

    /// Sets the offset of a partition.
    pub(super) fn insert(&mut self, partition: Partition, offset: Offset) {
        match self.find(partition) {
            Ok(index) => self.0[index].1 = offset,
            Err(index) => self.0.insert(index, (partition, offset)),
        }
    }

    /// All partitions with their offsets, by partition.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        self.0.iter().copied()
    }

    /// The highest partition.
    pub(super) fn last_partition(&self) -> Option<Partition> {
        self.0.last().map(|(partition, _)| *partition)
    }

    /// The bytes of memory that it uses.
    pub(super) fn byte_len(&self) -> usize {
        self.0.capacity() * size_of::<(Partition, Offset)>()
    }

    /// Raises the offset of a partition to at least this.
    pub(super) fn raise(&mut self, partition: Partition, offset: Offset) {
        let known = self.get(partition).unwrap_or(0);
        self.insert(partition, offset.max(known));
    }

    /// Whether every offset of `other` is reached.
    pub(super) fn has_reached(&self, other: &Self) -> bool {
        other.iter().all(|(partition, offset)| self.get(partition).unwrap_or(0) >= offset)
    }

    fn find(&self, partition: Partition) -> Result<usize, usize> {
        self.0.binary_search_by_key(&partition, |(partition, _)| *partition)
    }
}

impl FromIterator<(Partition, Offset)> for Positions {
    fn from_iter<T: IntoIterator<Item = (Partition, Offset)>>(offsets: T) -> Self {
        let mut positions = Self::default();
        offsets.into_iter().for_each(|(partition, offset)| positions.insert(partition, offset));
        positions
    }
}
