//! The changes that applying records makes, as watchers see them.

use crate::log::{Offset, Partition};
use crate::table::entry::Entry;
use crate::table::record_place::RecordPlace;
use crate::table::reject::RejectNotice;

/// Why an entry changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// A record was applied.
    Record,
    /// A record was rejected, in a table with [`OnReject::Remove`](crate::table::OnReject::Remove).
    Rejected,
    /// The entry's time to live has passed.
    Expired,
    /// The entry had expired, and the clock was set back to a time before that.
    Revived,
    /// The log no longer holds the entry's record: retention, or somebody deleted records.
    Retention,
    /// Another generation replaced the one that was served.
    Generation,
    /// The watcher fell behind, or began while records were being applied. The change leads from
    /// what the watcher has seen to the newest entry.
    Difference,
}

impl Cause {
    /// The name that users see, in snake case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Revived => "revived",
            Self::Retention => "retention",
            Self::Generation => "generation",
            Self::Difference => "difference",
        }
    }
}

/// A change of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The entry before; `None` if there was none, or if it is unknown because the watcher resumed from
    /// the log.
    pub old: Option<Entry>,
    /// The entry now; `None` if it was deleted.
    pub new: Option<Entry>,
    /// Why it changed.
    pub cause: Cause,
    /// The partition of the record that changed it. If no record did, the partition, offset and
    /// timestamp are those of the entry's own record.
    pub partition: Partition,
    /// The offset of that record.
    pub offset: Offset,
    /// The timestamp of that record: milliseconds since 1970; `None` if it has none.
    pub timestamp: Option<i64>,
    /// If the deleted entry is unknown: its tombstone, an entry without a value, which has the key.
    tombstone: Option<Entry>,
}

impl Change {
    /// Returns the change of an entry that was added or replaced.
    pub(super) fn set(old: Option<Entry>, new: Entry, cause: Cause) -> Self {
        let RecordPlace { partition, offset, timestamp } = new.place();
        Self { old, new: Some(new), cause, partition, offset, timestamp, tombstone: None }
    }

    /// Returns the change of an entry that the record at `place` deleted.
    pub(super) fn deleted(old: Entry, place: RecordPlace, cause: Cause) -> Self {
        let RecordPlace { partition, offset, timestamp } = place;
        Self { old: Some(old), new: None, cause, partition, offset, timestamp, tombstone: None }
    }

    /// Returns the change of a deleted entry of which only the key is known, from its tombstone.
    pub(super) fn deleted_unknown(tombstone: Entry, cause: Cause) -> Self {
        let RecordPlace { partition, offset, timestamp } = tombstone.place();
        Self { old: None, new: None, cause, partition, offset, timestamp, tombstone: Some(tombstone) }
    }

    fn entry(&self) -> Option<&Entry> {
        self.new.as_ref().or(self.old.as_ref()).or(self.tombstone.as_ref())
    }

    /// The key whose entry changed.
    #[must_use]
    pub fn key(&self) -> &str {
        // One of the three is always there.
        self.entry().map_or("", Entry::key)
    }

    /// The group of the entry that changed.
    pub(super) fn group(&self) -> Option<&str> {
        self.entry().and_then(Entry::group)
    }
}

/// What applying a record did, as watchers see it.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    Change(Change),
    /// A record was rejected. `key` is `None` if it is null, or could not be decoded.
    Rejected {
        key: Option<Box<str>>,
        group: Option<Box<str>>,
        notice: RejectNotice,
    },
}

impl Effect {
    /// The partition and the offset of the record that had the effect; `None` if the cause was not a record.
    pub(super) fn record(&self) -> Option<(Partition, Offset)> {
        match self {
            Self::Change(change) if matches!(change.cause, Cause::Record | Cause::Rejected) => {
                Some((change.partition, change.offset))
            }
            Self::Change(_) => None,
            Self::Rejected { notice, .. } => Some((notice.partition, notice.offset)),
        }
    }
}
