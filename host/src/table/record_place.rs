//! The place of a record in its topic.

use crate::log::{Offset, Partition};

/// The place of a record in its topic, and its timestamp.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordPlace {
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    /// Milliseconds since 1970.
    pub(super) timestamp: Option<i64>,
}
