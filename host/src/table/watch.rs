//! Following a table's changes.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::log::{Offset, Partition};
use crate::table::entry::{Entry, Notice, Origin};
use crate::table::publish::{News, Publication, Told};
use crate::table::shared::Shared;
use crate::table::status::Status;

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
    fn accepts(&self, key: &str, group: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Key(wanted) => key == wanted,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
            Self::Group(wanted) => group == Some(wanted),
        }
    }

    fn accepts_told(&self, told: &Told) -> bool {
        match told {
            Told::Change(change) => {
                let either = change.new.as_ref().or(change.old.as_ref());
                self.accepts(change.key(), either.and_then(Entry::group))
            }
            Told::Rejected { key, group, .. } => self.accepts(key, group.as_deref()),
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
    /// What came since the place it was to resume from is not known any more: all entries
    /// follow, then [`WatchEvent::Synced`]. What is not among them is gone.
    Restarted,
    /// An entry changed.
    Change(Change),
    /// A record was rejected.
    Rejected {
        /// Its key, whose entry it did not become.
        key: Box<str>,
        /// What is wrong with it.
        notice: Notice,
    },
    /// The table's status changed.
    Status(Status),
    /// Another generation took over, because the topic was replaced. The changes
    /// that follow lead from the old contents to the new.
    Generation(u64),
    /// The watcher was too slow, and this many publications are lost to it. Where they
    /// began is [`Watcher::token`].
    Lagged(u64),
}

/// Sees every change of a table, in order. Never slows the table down: one that
/// is too slow is told that it lagged.
#[derive(Debug)]
pub struct Watcher {
    filter: WatchFilter,
    /// What comes before all publications.
    first: VecDeque<WatchEvent>,
    /// What was published and not yet asked for.
    backlog: VecDeque<Publication>,
    published: broadcast::Receiver<Publication>,
    /// The publication under way, and how much of it was handed out.
    token: WatchToken,
    current: Arc<[Told]>,
    over: bool,
}

impl Watcher {
    pub(super) fn new(shared: &Shared, start: WatchStart) -> Self {
        let since = match start {
            WatchStart::Since(token) => Some(token),
            WatchStart::Entries | WatchStart::Now => None,
        };
        let subscription = shared.subscribe(since);
        let resumed = since.filter(|_| subscription.missed.is_some());
        let mut first = VecDeque::new();
        if start != WatchStart::Now && resumed.is_none() {
            if since.is_some() {
                first.push_back(WatchEvent::Restarted);
            }
            first.extend(subscription.view.rows().iter().cloned().map(WatchEvent::Entry));
            first.push_back(WatchEvent::Synced);
        }
        let over = subscription.status.is_over();
        if over && resumed.is_none() {
            first.push_back(WatchEvent::Status(subscription.status));
        }
        Self {
            filter: WatchFilter::All,
            first,
            backlog: subscription.missed.unwrap_or_default(),
            published: subscription.published,
            token: resumed.unwrap_or(subscription.token),
            current: Arc::default(),
            over,
        }
    }

    /// Of these keys only. What is about no key is told in any case.
    #[must_use]
    pub fn only(mut self, filter: WatchFilter) -> Self {
        self.first.retain(|event| match event {
            WatchEvent::Entry(entry) => filter.accepts(entry.key(), entry.group()),
            _ => true,
        });
        self.filter = filter;
        self
    }

    /// The place behind what was handed out, to resume from; `None` before the first
    /// entries were handed out, behind which it is.
    #[must_use]
    pub fn token(&self) -> Option<WatchToken> {
        self.first.is_empty().then_some(self.token)
    }

    /// The next event; `None` when the table is over.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if this is dropped.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.first.pop_front().or_else(|| self.next_told()) {
                return Some(event);
            }
            let publication = match self.backlog.pop_front() {
                Some(publication) => publication,
                None if self.over => return None,
                None => match self.published.recv().await {
                    Ok(publication) => publication,
                    Err(RecvError::Lagged(missed)) => return Some(WatchEvent::Lagged(missed)),
                    Err(RecvError::Closed) => return None,
                },
            };
            if let Some(event) = self.begin(publication) {
                return Some(event);
            }
        }
    }

    /// The next of the publication under way.
    fn next_told(&mut self) -> Option<WatchEvent> {
        while let Some(told) = self.current.get(self.token.seen) {
            self.token.seen += 1;
            if self.filter.accepts_told(told) {
                return Some(told.clone().into());
            }
        }
        if !self.current.is_empty() {
            self.current = Arc::default();
            self.pass();
        }
        None
    }

    /// Takes up a publication; what it is, if it is no changes.
    fn begin(&mut self, Publication { number, news }: Publication) -> Option<WatchEvent> {
        // The one that was under way where it resumes from.
        if number != self.token.number {
            self.token = WatchToken { number, seen: 0, ..self.token };
        }
        let event = match news {
            News::Changes(changes) if changes.len() > self.token.seen => {
                self.current = changes;
                return None;
            }
            News::Changes(_) => None,
            News::Status(status) => {
                self.over = status.is_over();
                Some(WatchEvent::Status(status))
            }
            News::Generation(generation) => Some(WatchEvent::Generation(generation)),
        };
        self.pass();
        event
    }

    /// The publication under way was handed out.
    fn pass(&mut self) {
        self.token = WatchToken { number: self.token.number + 1, seen: 0, ..self.token };
    }
}

impl From<Told> for WatchEvent {
    fn from(told: Told) -> Self {
        match told {
            Told::Change(change) => Self::Change(change),
            Told::Rejected { key, notice, .. } => Self::Rejected { key, notice },
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
