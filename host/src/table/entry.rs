//! What a table holds for a key.

use std::sync::Arc;

use crate::codec::{GroupKey, RejectKind};
use crate::log::{Offset, Partition};

/// A key's newest accepted value, and where it came from. A clone is a handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry(Arc<Row>);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: Box<str>,
    pub(super) pair: Option<GroupKey>,
    pub(super) value: Box<str>,
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    pub(super) timestamp: i64,
}

impl Entry {
    pub(super) fn new(row: Row) -> Self {
        Self(Arc::new(row))
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// Its group and member; `None` in a table without a group scheme.
    #[must_use]
    pub fn group_key(&self) -> Option<&GroupKey> {
        self.0.pair.as_ref()
    }

    /// Its value: JSON text on one line.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.0.value
    }

    /// Its value as a Rust type.
    ///
    /// # Errors
    ///
    /// If the JSON does not fit the type.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_str(self.json())
    }

    /// The partition of its record.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.0.partition
    }

    /// The offset of its record.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.0.offset
    }

    /// The timestamp of its record: milliseconds since 1970, -1 if it has none.
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        self.0.timestamp
    }
}

/// A key's newest record was rejected: its entry, if there is one, is older.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The partition of the rejected record.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// What was wrong with it.
    pub kind: RejectKind,
    /// The same in words.
    pub message: String,
}
