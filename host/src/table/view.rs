//! One moment of a table: persistent maps that share with the moments before and
//! after all that did not change.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::codec::GroupKey;
use crate::log::{Offset, OffsetRange, Partition, TopicDescription};
use crate::table::decode::{Decoded, Outcome};
use crate::table::entry::{Entry, Notice};
use crate::table::reject::Reject;
use crate::table::stats::Counters;
use crate::table::watch::Change;

/// The words of a notice are cut at this many bytes: there may be as many notices
/// as keys. The reject has all of them.
const NOTICE_BYTES: usize = 256;

/// An entry, ordered by its key.
#[derive(Debug, Clone)]
struct ByKey(Entry);

/// An entry, ordered by its member in its group.
#[derive(Debug, Clone)]
struct ByMember(Entry);

type Members = RedBlackTreeSetSync<ByMember>;

/// One moment of a table.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) generation: u64,
    /// Which topic of the name it is of.
    pub(super) topic: Arc<TopicDescription>,
    pub(super) counters: Counters,
    /// For each partition the next offset to be applied.
    positions: Vec<Offset>,
    rows: RedBlackTreeSetSync<ByKey>,
    groups: RedBlackTreeMapSync<Arc<str>, Members>,
    notices: RedBlackTreeMapSync<Arc<str>, Notice>,
}

impl View {
    /// The moment before the first record.
    pub(super) fn new(generation: u64, topic: Arc<TopicDescription>) -> Self {
        Self {
            generation,
            topic,
            counters: Counters::default(),
            positions: Vec::new(),
            rows: RedBlackTreeSetSync::new_sync(),
            groups: RedBlackTreeMapSync::new_sync(),
            notices: RedBlackTreeMapSync::new_sync(),
        }
    }

    pub(super) fn positions(&self) -> &[Offset] {
        &self.positions
    }

    /// The next offset of a partition; 0 of one that is not known.
    pub(super) fn position(&self, partition: Partition) -> Offset {
        usize::try_from(partition).ok().and_then(|index| self.positions.get(index)).copied().unwrap_or(0)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.rows.get(key).map(|row| &row.0)
    }

    pub(super) fn notice(&self, key: &str) -> Option<&Notice> {
        self.notices.get(key)
    }

    pub(super) fn notices(&self) -> impl Iterator<Item = (&Arc<str>, &Notice)> {
        self.notices.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.size()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.rows.iter().map(|row| &row.0)
    }

    /// The entries from one bound to another; none if the bounds cross.
    pub(super) fn range<'a>(
        &'a self,
        start: Bound<&'a str>,
        end: Bound<&'a str>,
    ) -> impl Iterator<Item = &'a Entry> {
        let crossed = match (start, end) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (
                Bound::Included(start) | Bound::Excluded(start),
                Bound::Included(end) | Bound::Excluded(end),
            ) => start >= end,
            _ => false,
        };
        let rows = (!crossed).then(|| self.rows.range::<str, _>((start, end)));
        rows.into_iter().flatten().map(|row| &row.0)
    }

    pub(super) fn member(&self, group: &str, member: &str) -> Option<&Entry> {
        self.groups.get(group)?.get(member).map(|row| &row.0)
    }

    pub(super) fn members(&self, group: &str) -> impl Iterator<Item = &Entry> {
        self.groups.get(group).into_iter().flat_map(Members::iter).map(|row| &row.0)
    }

    pub(super) fn member_count(&self, group: &str) -> usize {
        self.groups.get(group).map_or(0, Members::size)
    }

    pub(super) fn group_count(&self) -> usize {
        self.groups.size()
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.groups.keys()
    }

    /// A partition will be applied from the start of this range on. Partitions come
    /// in order.
    pub(super) fn begin(&mut self, range: OffsetRange) {
        self.positions.push(range.start);
    }

    /// Everything of a partition below this offset has been applied.
    pub(super) fn advance(&mut self, partition: Partition, next: Offset) {
        if let Some(position) =
            usize::try_from(partition).ok().and_then(|index| self.positions.get_mut(index))
        {
            *position = next.max(*position);
        }
    }

    /// Applies a batch. Changes are handed to `changed`, rejected records to
    /// `rejected`.
    pub(super) fn apply(
        &mut self,
        decoded: Decoded,
        mut changed: impl FnMut(Change),
        mut rejected: impl FnMut(Reject),
    ) {
        let partition = decoded.partition;
        for outcome in decoded.outcomes {
            self.counters.records += 1;
            match outcome {
                Outcome::Set(entry) => {
                    let old = self.set(&entry);
                    changed(Change::set(old, entry));
                }
                Outcome::Delete { key, pair, offset, timestamp } => {
                    self.counters.tombstones += 1;
                    if let Some(old) = self.delete(&key, pair.as_ref()) {
                        changed(Change { old: Some(old), new: None, partition, offset, timestamp });
                    }
                }
                Outcome::Foreign => self.counters.foreign += 1,
                Outcome::Reject(reject) => {
                    self.counters.rejected(reject.rejection.kind);
                    self.notice_of(&reject);
                    rejected(reject);
                }
            }
        }
        self.advance(partition, decoded.next);
    }

    fn set(&mut self, entry: &Entry) -> Option<Entry> {
        let old = self.get(entry.key()).cloned();
        if let Some(old) = &old {
            self.counters.payload_bytes -= payload(old);
            self.counters.cross_partition += u64::from(old.partition() != entry.partition());
        }
        self.counters.payload_bytes += payload(entry);
        self.notices.remove_mut(entry.key());
        self.rows.insert_mut(ByKey(entry.clone()));
        if let Some(pair) = entry.group_key() {
            match self.groups.get_mut(&*pair.group) {
                Some(members) => members.insert_mut(ByMember(entry.clone())),
                None => {
                    let mut members = Members::new_sync();
                    members.insert_mut(ByMember(entry.clone()));
                    self.groups.insert_mut((*pair.group).into(), members);
                }
            }
        }
        old
    }

    fn delete(&mut self, key: &str, pair: Option<&GroupKey>) -> Option<Entry> {
        self.notices.remove_mut(key);
        let old = self.get(key).cloned()?;
        self.counters.payload_bytes -= payload(&old);
        self.rows.remove_mut(key);
        if let Some(pair) = pair
            && let Some(members) = self.groups.get_mut(&*pair.group)
        {
            members.remove_mut(&*pair.member);
            if members.is_empty() {
                self.groups.remove_mut(&*pair.group);
            }
        }
        Some(old)
    }

    /// The prior value stays, and the key says that a newer one was rejected.
    fn notice_of(&mut self, reject: &Reject) {
        let Some(key) = &reject.key else { return };
        let cut = reject.rejection.message.floor_char_boundary(NOTICE_BYTES);
        let notice = Notice {
            partition: reject.partition,
            offset: reject.offset,
            kind: reject.rejection.kind,
            message: reject.rejection.message[..cut].to_owned(),
        };
        self.notices.insert_mut((**key).into(), notice);
    }
}

fn payload(entry: &Entry) -> u64 {
    (entry.key().len() + entry.json().len()) as u64
}

impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        self.0.key()
    }
}

impl Borrow<str> for ByMember {
    fn borrow(&self) -> &str {
        self.0.group_key().map_or("", |pair| &pair.member)
    }
}

/// Orders by the text that the type lends, as looking up by it requires.
macro_rules! order_by_borrowed_text {
    ($type:ty) => {
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                Borrow::<str>::borrow(self).cmp(other.borrow())
            }
        }
    };
}

order_by_borrowed_text!(ByKey);
order_by_borrowed_text!(ByMember);
