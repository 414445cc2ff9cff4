//! How far a view has come.

use std::sync::Arc;

use crate::table::positions::Positions;

/// How far a view has come: the records that were applied, those that the log has lost since, and the time
/// until which entries have expired. It determines the contents: two views of the same topic and codecs at
/// the same place have the same contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The next offset to apply, by partition.
    pub(super) positions: Positions,
    /// The offset of the first record that the log holds, by partition, as far as known.
    pub(super) starts: Arc<Positions>,
    /// The time until which entries have expired: milliseconds since 1970. 0 in a table without a time
    /// to live.
    pub(super) expired_until: i64,
}

impl Place {
    /// The bytes of memory that it uses, without what it shares with others.
    pub(super) fn byte_len(&self) -> usize {
        self.positions.byte_len() + size_of::<Self>()
    }
}
