//! A consistent view of a table, to be iterated or kept.

use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

use crate::log::{Offset, Partition, TopicDescription};
use crate::table::entry::Entry;
use crate::table::reject::RejectNotice;
use crate::table::view::View;

/// The contents of a table at one time, consistent across all partitions as they were applied. Later
/// changes do not affect it. Copies nothing, and a clone is a handle to the same contents.
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

    /// The topic, with the identity it had when the table's generation began.
    #[must_use]
    pub fn topic(&self) -> &TopicDescription {
        &self.0.topic
    }

    /// The fingerprint of the codecs: snapshots with the same fingerprint were decoded alike.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    /// The number of the table's generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// For each partition, by number, the next offset that the table had to apply.
    pub fn positions(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        self.0.positions().iter()
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

    /// The keys whose newest record was rejected, with the notices, by key.
    pub fn notices(&self) -> impl Iterator<Item = (&str, &RejectNotice)> {
        self.0.notices().map(|(key, notice)| (&**key, notice))
    }

    /// The expired entries, by key, in a table with a time to live. No other method returns them.
    pub fn expired(&self) -> impl Iterator<Item = &Entry> {
        self.0.all_expired()
    }

    /// The notice on a key whose newest record was rejected.
    #[must_use]
    pub fn notice(&self, key: &str) -> Option<&RejectNotice> {
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

    /// The names of the groups that have members, in order. With [`Snapshot::members`], this gives the
    /// whole nested view.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.rows().groups()
    }
}

impl<'a> IntoIterator for &'a Snapshot {
    type Item = &'a Entry;
    type IntoIter = Box<dyn Iterator<Item = &'a Entry> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}
