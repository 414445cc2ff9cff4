//! Following a table's changes.

mod hub;
mod interest;
mod seat;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use hub::CHANGES_KEPT;
pub(super) use hub::{Hub, SharedHub, WatchItem};

use crate::log::{Offset, Partition};
use crate::table::entry::{Entry, Notice, Origin};
use crate::table::shared::Shared;
use crate::table::status::Status;
use hub::locked;
use seat::{Seat, Step};

/// What a watcher is to see first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchStart {
    /// All entries of the moment it begins, then the changes since.
    Entries,
    /// Only the changes since.
    Now,
    /// What came behind the place of an earlier watcher of the same table; if that is not
    /// known any more, [`WatchEvent::Restarted`] and all entries.
    Since(WatchToken),
}

/// Which keys a watcher is told of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WatchFilter {
    /// All.
    #[default]
    All,
    /// This one.
    Key(String),
    /// Those that begin with this.
    Prefix(String),
    /// Those of this group.
    Group(String),
}

impl WatchFilter {
    /// Whether no key behind this one is wanted.
    fn is_behind(&self, key: &str) -> bool {
        match self {
            Self::All | Self::Group(_) => false,
            Self::Key(wanted) => key >= wanted.as_str(),
            Self::Prefix(prefix) => key > prefix.as_str() && !key.starts_with(prefix.as_str()),
        }
    }

    fn accepts(&self, key: &str, group: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Key(wanted) => key == wanted,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
            Self::Group(wanted) => group == Some(wanted),
        }
    }

    fn accepts_item(&self, item: &WatchItem) -> bool {
        match item {
            WatchItem::Change(change) => {
                let either = change.new.as_ref().or(change.old.as_ref());
                self.accepts(change.key(), either.and_then(Entry::group))
            }
            WatchItem::Rejected { key: Some(key), group, .. } => self.accepts(key, group.as_deref()),
            WatchItem::Rejected { key: None, .. } => *self == Self::All,
        }
    }
}

/// A place in the changes of a table: everything before it was seen. Of use to the same
/// table only, for as long as its process runs. It has a text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchToken {
    /// Which table: no two have the same, whenever and wherever they are.
    pub(super) table: u64,
    /// The publication.
    pub(super) number: u64,
    /// How much of it was seen.
    pub(super) seen: usize,
}

impl fmt::Display for WatchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}-{}", self.table, self.number, self.seen)
    }
}

/// That a text is no [`WatchToken`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place to resume from: it has the form TABLE-NUMBER-SEEN")]
pub struct InvalidToken(String);

impl FromStr for WatchToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let mut parts = text.split('-');
        let mut parse = || {
            let table = u64::from_str_radix(parts.next()?, 16).ok()?;
            let (number, seen) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            parts.next().is_none().then_some(Self { table, number, seen })
        };
        parse().ok_or_else(|| InvalidToken(text.to_owned()))
    }
}

/// Why an entry changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// A record.
    Record,
    /// A record that was rejected, in a table whose rejected records remove.
    Rejected,
    /// Its time is over.
    Expired,
    /// Its time is not over any more: the clock went back.
    Revived,
    /// The log has lost its record: retention, or somebody deleted records.
    Retention,
    /// Another generation took over, or was there first.
    Generation,
    /// The watcher fell behind, or began while records were applied: this is the difference between
    /// what it has seen and what is there.
    Difference,
}

impl Cause {
    /// Its name, as users see it.
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
pub struct Change {
    /// The entry before; `None` if there was none.
    pub old: Option<Entry>,
    /// The entry now; `None` if it was deleted.
    pub new: Option<Entry>,
    /// Why. Where it was no record, what follows is about the entry's own.
    pub cause: Cause,
    /// The partition of the record that changed it.
    pub partition: Partition,
    /// The offset of that record.
    pub offset: Offset,
    /// The timestamp of that record: milliseconds since 1970, -1 if it has none.
    pub timestamp: i64,
}

impl Change {
    pub(super) fn set(old: Option<Entry>, new: Entry, cause: Cause) -> Self {
        let Origin { partition, offset, timestamp } = new.origin();
        Self { old, new: Some(new), cause, partition, offset, timestamp }
    }

    /// A deletion; `by` says where its record is.
    pub(super) fn deleted(old: Entry, by: Origin, cause: Cause) -> Self {
        let Origin { partition, offset, timestamp } = by;
        Self { old: Some(old), new: None, cause, partition, offset, timestamp }
    }

    /// The key whose entry changed.
    #[must_use]
    pub fn key(&self) -> &str {
        // One of the two is always there.
        self.new.as_ref().or(self.old.as_ref()).map_or("", Entry::key)
    }
}

/// What a watcher sees.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// An entry of the moment the watcher began.
    Entry(Entry),
    /// All entries of that moment were shown.
    Synced,
    /// What came since the place it was to resume from is not known any more, or the watcher fell too
    /// far behind: all entries follow, then [`WatchEvent::Synced`]. What is not among them is gone.
    Restarted,
    /// An entry changed.
    Change(Change),
    /// A record was rejected.
    Rejected {
        /// Its key, whose entry it did not become; `None` if it has none, or none that can be decoded.
        key: Option<Box<str>>,
        /// What is wrong with it.
        notice: Notice,
    },
    /// The table's status changed.
    Status(Status),
    /// Another generation took over, because the topic was replaced. The changes
    /// that follow lead from the old contents to the new.
    Generation(u64),
    /// A watcher of every change was too slow, and this many publications are lost to it.
    Lagged(u64),
}

/// Follows the changes of a table, in order. Never slows the table down: one that falls behind is
/// shown the difference between what it has seen and the newest entries, with
/// [`Cause::Difference`]; with [`Watcher::every`], it is told how much it missed. It never holds
/// more than 64 MiB of entries that the table has not any more: beyond that, it starts again with
/// [`WatchEvent::Restarted`].
#[derive(Debug)]
pub struct Watcher {
    hub: SharedHub,
    seat: Arc<Seat>,
    filter: WatchFilter,
}

impl Watcher {
    pub(super) fn new(shared: &Shared, start: WatchStart) -> Self {
        let seat = Seat::start(&shared.hub, start);
        Self { hub: shared.hub.clone(), seat, filter: WatchFilter::All }
    }

    /// Of these keys only. What is about no key is told in any case, but for records whose key
    /// cannot be decoded.
    #[must_use]
    pub fn only(mut self, filter: WatchFilter) -> Self {
        let mut hub = locked(&self.hub);
        hub.remove(&self.seat, &self.filter);
        hub.add(&self.seat, &filter);
        drop(hub);
        self.filter = filter;
        self
    }

    /// Every change, or [`WatchEvent::Lagged`] where some are missed, instead of differences.
    #[must_use]
    pub fn every(self) -> Self {
        self.seat.want_every();
        self
    }

    /// The place behind what was handed out, to resume from; `None` while entries or a difference
    /// are handed out, behind which it is.
    #[must_use]
    pub fn token(&self) -> Option<WatchToken> {
        self.seat.token(&self.hub)
    }

    /// The next event; `None` when the table is over.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if this is dropped.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            match self.seat.step(&self.hub, &self.filter) {
                Step::Event(event) => return Some(event),
                Step::Yield => tokio::task::yield_now().await,
                Step::Wait => self.seat.wake.notified().await,
                Step::Over => return None,
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        locked(&self.hub).remove(&self.seat, &self.filter);
    }
}

impl From<WatchItem> for WatchEvent {
    fn from(item: WatchItem) -> Self {
        match item {
            WatchItem::Change(change) => Self::Change(change),
            WatchItem::Rejected { key, notice, .. } => Self::Rejected { key, notice },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_text() {
        let token = WatchToken { table: 0xf00d, number: 7, seen: 3 };
        assert_eq!(token.to_string().parse(), Ok(token));
        for text in ["", "1-2", "1-2-3-4", "x-1-1", "1--1"] {
            assert!(text.parse::<WatchToken>().is_err(), "{text}");
        }
    }
}
