//! One moment of a table. It shares with the moments before and after all that did not
//! change.

use std::ops::Bound;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::log::{Offset, OffsetRange, Partition, TopicDescription};
use crate::table::decode::{Decoded, Outcome};
use crate::table::entry::{Entry, Notice};
use crate::table::reject::Reject;
use crate::table::rows::{KeyHash, Rows};
use crate::table::stats::Counters;
use crate::table::watch::Change;

/// The words of a notice are cut at this many bytes: there may be as many notices
/// as keys. The reject has all of them.
const NOTICE_BYTES: usize = 256;

/// One moment of a table.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) generation: u64,
    /// Which topic of the name it is of.
    pub(super) topic: Arc<TopicDescription>,
    pub(super) counters: Counters,
    /// For each partition the next offset to be applied.
    positions: Vec<Offset>,
    rows: Rows,
    notices: RedBlackTreeMapSync<Arc<str>, Notice>,
}

impl View {
    /// The moment before the first record, for readers.
    pub(super) fn empty(generation: u64, topic: Arc<TopicDescription>) -> Self {
        Self::of(Rows::sorted(), generation, topic)
    }

    /// The same, to be loaded: nothing can be listed before [`View::sort`].
    pub(super) fn to_be_loaded(generation: u64, topic: Arc<TopicDescription>) -> Self {
        Self::of(Rows::unsorted(), generation, topic)
    }

    fn of(rows: Rows, generation: u64, topic: Arc<TopicDescription>) -> Self {
        Self {
            generation,
            topic,
            counters: Counters::default(),
            positions: Vec::new(),
            rows,
            notices: RedBlackTreeMapSync::new_sync(),
        }
    }

    /// Puts the rows in order, and keeps them so from now on. Takes a while if there are
    /// many, and all codec workers.
    pub(super) fn sort(&mut self) {
        self.rows.sort();
    }

    pub(super) fn positions(&self) -> &[Offset] {
        &self.positions
    }

    /// The next offset of a partition; 0 of one that is not known.
    pub(super) fn position(&self, partition: Partition) -> Offset {
        position(&self.positions, partition)
    }

    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    pub(super) fn notice(&self, key: &str) -> Option<&Notice> {
        self.notices.get(key)
    }

    pub(super) fn notices(&self) -> impl Iterator<Item = (&Arc<str>, &Notice)> {
        self.notices.iter()
    }

    /// The rows whose keys begin with `prefix`, by key.
    pub(super) fn prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        let from = self.rows.range(Bound::Included(prefix), Bound::Unbounded);
        from.take_while(move |entry| entry.key().starts_with(prefix))
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

    /// Applies a batch. Changes are added to `changes`, if anybody wants them; rejected
    /// records are handed to `rejected`.
    pub(super) fn apply(
        &mut self,
        decoded: Decoded,
        mut changes: Option<&mut Vec<Change>>,
        mut rejected: impl FnMut(Reject),
    ) {
        self.rows.touch(decoded.outcomes.iter().filter_map(Outcome::row));
        for outcome in decoded.outcomes {
            self.counters.records += 1;
            match outcome {
                Outcome::Set(row, hash) => {
                    let new = changes.is_some().then(|| row.clone());
                    let old = self.set(row, hash);
                    if let (Some(changes), Some(new)) = (&mut changes, new) {
                        changes.push(Change::set(old, new));
                    }
                }
                Outcome::Delete(row, hash) => {
                    self.counters.tombstones += 1;
                    if let (Some(old), Some(changes)) = (self.delete(&row, hash), &mut changes) {
                        changes.push(Change::deleted(old, &row));
                    }
                }
                Outcome::Foreign => self.counters.foreign += 1,
                Outcome::Reject(reject) => {
                    self.counters.rejected(reject.rejection.kind);
                    self.notice_of(&reject);
                    rejected(*reject);
                }
            }
        }
        self.advance(decoded.partition, decoded.next);
    }

    fn set(&mut self, row: Entry, hash: KeyHash) -> Option<Entry> {
        self.forget_notice(row.key());
        self.counters.payload_bytes += row.payload();
        let partition = row.partition();
        let old = self.rows.set(row, hash);
        if let Some(old) = &old {
            self.counters.payload_bytes -= old.payload();
            self.counters.cross_partition += u64::from(old.partition() != partition);
        }
        old
    }

    /// Takes away the row that a row without a value stands for.
    fn delete(&mut self, row: &Entry, hash: KeyHash) -> Option<Entry> {
        self.forget_notice(row.key());
        let old = self.rows.remove(row.key(), hash)?;
        self.counters.payload_bytes -= old.payload();
        Some(old)
    }

    fn forget_notice(&mut self, key: &str) {
        if !self.notices.is_empty() {
            self.notices.remove_mut(key);
        }
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

/// The next offset of a partition; 0 of one that is not known.
pub(super) fn position(positions: &[Offset], partition: Partition) -> Offset {
    usize::try_from(partition).ok().and_then(|index| positions.get(index)).copied().unwrap_or(0)
}
