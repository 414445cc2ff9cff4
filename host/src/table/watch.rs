//! Following a table's changes.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::log::{Offset, Partition};
use crate::table::entry::Entry;
use crate::table::shared::Shared;
use crate::table::status::Status;
use crate::table::view::View;

/// What a watcher is to see first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchStart {
    /// All entries of the moment it begins, then the changes since.
    Entries,
    /// Only the changes since.
    Now,
}

/// A change of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The entry before; `None` if there was none.
    pub old: Option<Entry>,
    /// The entry now; `None` if it was deleted.
    pub new: Option<Entry>,
    /// The partition of the record that changed it.
    pub partition: Partition,
    /// The offset of that record.
    pub offset: Offset,
    /// The timestamp of that record: milliseconds since 1970, -1 if it has none.
    pub timestamp: i64,
}

impl Change {
    pub(super) fn set(old: Option<Entry>, new: Entry) -> Self {
        let (partition, offset, timestamp) = (new.partition(), new.offset(), new.timestamp());
        Self { old, new: Some(new), partition, offset, timestamp }
    }

    /// A deletion; `by` says where its record is.
    pub(super) fn deleted(old: Entry, by: &Entry) -> Self {
        let (partition, offset, timestamp) = (by.partition(), by.offset(), by.timestamp());
        Self { old: Some(old), new: None, partition, offset, timestamp }
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
    /// An entry changed.
    Change(Change),
    /// The table's status changed.
    Status(Status),
    /// Another generation took over, because the topic was replaced. The changes
    /// that follow lead from the old contents to the new.
    Generation(u64),
    /// The watcher was too slow, and this many publications are lost to it.
    Lagged(u64),
}

/// What is told to all watchers.
#[derive(Debug, Clone)]
pub(super) enum Published {
    Changes(Arc<[Change]>),
    Status(Status),
    Generation(u64),
}

impl Published {
    /// What leads from one view's entries to another's.
    pub(super) fn difference(old: &View, new: &View) -> Self {
        let gone = old.rows().iter().filter(|entry| new.rows().get(entry.key()).is_none());
        let gone = gone.map(|entry| Change::deleted(entry.clone(), entry));
        let came = new.rows().iter().filter_map(|entry| {
            let before = old.rows().get(entry.key());
            let same = before.is_some_and(|before| before.json() == entry.json());
            (!same).then(|| Change::set(before.cloned(), entry.clone()))
        });
        Self::Changes(gone.chain(came).collect())
    }
}

/// Sees every change of a table, in order. Never slows the table down: one that
/// is too slow is told that it lagged.
#[derive(Debug)]
pub struct Watcher {
    waiting: VecDeque<WatchEvent>,
    published: broadcast::Receiver<Published>,
    over: bool,
}

impl Watcher {
    pub(super) fn new(shared: &Shared, start: WatchStart) -> Self {
        let (published, view, status) = shared.subscribe();
        let mut waiting = VecDeque::new();
        if start == WatchStart::Entries {
            waiting.extend(view.rows().iter().cloned().map(WatchEvent::Entry));
            waiting.push_back(WatchEvent::Synced);
        }
        let over = status.is_over();
        if over {
            waiting.push_back(WatchEvent::Status(status));
        }
        Self { waiting, published, over }
    }

    /// The next event; `None` when the table is over.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if this is dropped.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            match self.published.recv().await {
                Ok(Published::Changes(changes)) => {
                    self.waiting.extend(changes.iter().cloned().map(WatchEvent::Change));
                }
                Ok(Published::Generation(generation)) => return Some(WatchEvent::Generation(generation)),
                Ok(Published::Status(status)) => {
                    self.over = status.is_over();
                    return Some(WatchEvent::Status(status));
                }
                Err(RecvError::Lagged(missed)) => return Some(WatchEvent::Lagged(missed)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
