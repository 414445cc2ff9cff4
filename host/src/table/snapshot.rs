//! A moment of a table that somebody keeps.

use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

use crate::log::{Offset, Partition};
use crate::table::entry::{Entry, Notice};
use crate::table::view::View;

/// One consistent moment of a table. Later changes do not touch it; a clone is a
/// handle to the same moment.
#[derive(Clone)]
pub struct Snapshot(Arc<View>);

/// Topic, generation and size.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("topic", &self.0.topic.name)
            .field("generation", &self.generation())
            .field("entries", &self.len())
            .finish()
    }
}

impl Snapshot {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self(view)
    }

    /// The generation it is of.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// For each partition, by number, the offset behind the last record in it.
    pub fn positions(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        (0..).zip(self.0.positions().iter().copied())
    }

    /// The entry of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.0.rows().get(key)
    }

    /// Whether there is an entry for a key.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.0.rows().get(key).is_some()
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.rows().len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.rows().iter()
    }

    /// The entries in a range of keys, by key: `range("a".."c")`.
    pub fn range<'a>(&'a self, range: impl RangeBounds<&'a str>) -> impl Iterator<Item = &'a Entry> {
        self.0.rows().range(range.start_bound().cloned(), range.end_bound().cloned())
    }

    /// The entries whose keys begin with `prefix`, by key.
    pub fn prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.0.prefix(prefix)
    }

    /// The keys whose newest record was rejected, with what was wrong.
    pub fn notices(&self) -> impl Iterator<Item = (&str, &Notice)> {
        self.0.notices().map(|(key, notice)| (&**key, notice))
    }

    /// The entries whose time is over, by key, in a table whose entries expire. They are
    /// among no others.
    pub fn expired(&self) -> impl Iterator<Item = &Entry> {
        self.0.all_expired()
    }

    /// The notice on a key whose newest record was rejected.
    #[must_use]
    pub fn notice(&self, key: &str) -> Option<&Notice> {
        self.0.notice(key)
    }

    /// The entry of a member of a group.
    #[must_use]
    pub fn member(&self, group: &str, member: &str) -> Option<&Entry> {
        self.0.rows().member(group, member)
    }

    /// The entries of a group, by member.
    pub fn members(&self, group: &str) -> impl Iterator<Item = &Entry> {
        self.0.rows().members(group)
    }

    /// The number of members of a group.
    #[must_use]
    pub fn member_count(&self, group: &str) -> usize {
        self.0.rows().member_count(group)
    }

    /// The names of the groups that have members, in order. With
    /// [`Snapshot::members`], the whole nested view of one moment.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.rows().groups()
    }
}
