//! What a watcher receives.

use crate::table::change::{Change, Effect};
use crate::table::entry::Entry;
use crate::table::reject::RejectNotice;
use crate::table::status::Status;

/// What a watcher receives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WatchEvent {
    /// An entry of the view with which the watcher began, or started again.
    Entry(Entry),
    /// All entries of that view were delivered. Sent for an empty table, too.
    Synced,
    /// The watcher starts again: the changes since its token are not known any more, or it fell too
    /// far behind. All entries follow, then [`WatchEvent::Synced`]. An entry that is not among them
    /// no longer exists.
    Restarted,
    /// An entry changed.
    Change(Change),
    /// A record was rejected.
    Rejected {
        /// The key of the record; `None` if it is null or could not be decoded. With
        /// [`OnReject::Remove`](crate::table::OnReject::Remove), the removal of its entry comes before this,
        /// as a change.
        key: Option<Box<str>>,
        /// What is wrong with the record.
        notice: RejectNotice,
    },
    /// The status of the table changed.
    Status(Status),
    /// Another generation, with this number, replaced the one that was served: the topic was re-created,
    /// truncated or loaded again after an error, or the codecs were swapped. The changes that follow lead
    /// from the old contents to the new ones.
    Generation(u64),
    /// A watcher that asked for every change missed up to this many publications of the table (batches of
    /// changes of any key, or statuses): it fell behind, or it began
    /// while a batch was being applied.
    Lagged(u64),
}

impl From<Effect> for WatchEvent {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Change(change) => Self::Change(change),
            Effect::Rejected { key, notice, .. } => Self::Rejected { key, notice },
        }
    }
}
