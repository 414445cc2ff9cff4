//! One moment of a table. It shares with the moments before and after all that did not
//! change.

use std::ops::Bound;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::codec::RejectKind;
use crate::log::{Offset, OffsetRange, Partition, TopicDescription, partition_of_hash};
use crate::table::decode::{Decoded, Outcome};
use crate::table::entry::{Entry, Notice, Origin, ROW_BYTES};
use crate::table::expiry::Deadlines;
use crate::table::mistake::Mistake;
use crate::table::reject::Reject;
use crate::table::rows::{KeyHash, Rows};
use crate::table::settings::OnReject;
use crate::table::stats::Counters;
use crate::table::watch::{Cause, Change, WatchItem};

/// One moment of a table.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) generation: u64,
    /// Which topic of the name it is of.
    pub(super) topic: Arc<TopicDescription>,
    pub(super) counters: Counters,
    /// For each partition the next offset to be applied.
    positions: Vec<Offset>,
    /// For each partition the offset at which it begins, as far as is known.
    starts: Vec<Offset>,
    rows: Rows,
    notices: RedBlackTreeMapSync<Arc<str>, Notice>,
    /// Entries that are no longer rows, because their time is over.
    expired: RedBlackTreeMapSync<Arc<str>, Entry>,
    /// The bytes of texts in notices and expired entries.
    beside_bytes: u64,
}

/// Where that goes which comes of records besides rows.
pub(super) struct Effects<'a> {
    /// What watchers are told, if there are any.
    pub(super) told: Option<&'a mut Vec<WatchItem>>,
    pub(super) rejected: &'a mut dyn FnMut(Reject),
    pub(super) on_reject: OnReject,
    /// When entries expire, if they do.
    pub(super) deadlines: Option<&'a mut Deadlines>,
}

impl Effects<'_> {
    fn tell(&mut self, told: impl FnOnce() -> WatchItem) {
        if let Some(all) = &mut self.told {
            all.push(told());
        }
    }
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
            starts: Vec::new(),
            rows,
            notices: RedBlackTreeMapSync::new_sync(),
            expired: RedBlackTreeMapSync::new_sync(),
            beside_bytes: 0,
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

    /// The bytes that its entries, notices and expired entries take.
    pub(super) fn byte_len(&self) -> u64 {
        let rows = self.rows.len() + self.expired.size() + self.notices.size();
        self.counters.payload_bytes + self.beside_bytes + (rows * ROW_BYTES) as u64
    }

    /// The bytes of entries that this view has and another, newer one has not.
    pub(super) fn bytes_beside(&self, newer: &Self) -> usize {
        let (mut bytes, mut page) = (0, Some(0));
        while let Some(from) = page {
            let (rows, next) = self.rows.differing(&newer.rows, from, usize::MAX);
            bytes += rows.iter().filter_map(|(here, _)| here.map(Entry::byte_len)).sum::<usize>();
            page = next;
        }
        bytes
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

    /// An entry whose time is over.
    pub(super) fn expired(&self, key: &str) -> Option<&Entry> {
        self.expired.get(key)
    }

    /// The entries whose time is over, by key.
    pub(super) fn all_expired(&self) -> impl Iterator<Item = &Entry> {
        self.expired.values()
    }

    /// The rows whose keys begin with `prefix`, by key.
    pub(super) fn prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        let from = self.rows.range(Bound::Included(prefix), Bound::Unbounded);
        from.take_while(move |entry| entry.key().starts_with(prefix))
    }

    /// A partition will be applied from the start of this range on.
    pub(super) fn begin(&mut self, range: OffsetRange) {
        let Ok(index) = usize::try_from(range.partition) else { return };
        for offsets in [&mut self.positions, &mut self.starts] {
            if offsets.len() <= index {
                offsets.resize(index + 1, 0);
            }
            offsets[index] = range.start;
        }
    }

    /// Everything of a partition below this offset has been applied.
    pub(super) fn advance(&mut self, partition: Partition, next: Offset) {
        if let Some(position) =
            usize::try_from(partition).ok().and_then(|index| self.positions.get_mut(index))
        {
            *position = next.max(*position);
        }
    }

    /// Applies a batch. A record that halts the table is given back; what was before it is
    /// applied.
    pub(super) fn apply(&mut self, decoded: Decoded, effects: &mut Effects<'_>) -> Result<(), Box<Reject>> {
        self.rows.touch(decoded.outcomes.iter().filter_map(Outcome::row));
        self.check_partitioner(&decoded);
        for outcome in decoded.outcomes {
            self.counters.records += 1;
            match outcome {
                Outcome::Set(row, hash) => self.set(row, hash, effects),
                Outcome::Delete(row, hash) => {
                    self.counters.tombstones += 1;
                    self.delete(&row, hash, effects);
                }
                Outcome::Foreign(offset) => self.note(Mistake::Foreign, decoded.partition, offset),
                Outcome::Reject(reject) => self.reject(reject, effects)?,
            }
        }
        self.advance(decoded.partition, decoded.next);
        Ok(())
    }

    fn set(&mut self, row: Entry, hash: KeyHash, effects: &mut Effects<'_>) {
        self.forget(row.key());
        self.counters.payload_bytes += row.payload();
        let added = effects.deadlines.is_some().then(|| row.clone());
        let new = effects.told.is_some().then(|| row.clone());
        let by = row.origin();
        let old = self.rows.set(row, hash);
        if let Some(old) = &old {
            self.counters.payload_bytes -= old.payload();
            self.counters.mistakes.compare(&self.topic.name, old, by);
        }
        if let (Some(deadlines), Some(row)) = (&mut effects.deadlines, added) {
            deadlines.add(old.as_ref(), &row);
            if deadlines.is_crowded(self.rows.len()) {
                deadlines.renew(self.rows.all());
            }
        }
        if let Some(new) = new {
            effects.tell(|| WatchItem::Change(Change::set(old, new, Cause::Record)));
        }
    }

    /// Takes away the row that a row without a value stands for.
    fn delete(&mut self, by: &Entry, hash: KeyHash, effects: &mut Effects<'_>) {
        self.forget(by.key());
        if let Some(old) = self.take(by.key(), hash) {
            self.counters.mistakes.compare(&self.topic.name, &old, by.origin());
            effects.tell(|| WatchItem::Change(Change::deleted(old, by.origin(), Cause::Record)));
        }
    }

    /// Takes a row away.
    fn take(&mut self, key: &str, hash: KeyHash) -> Option<Entry> {
        let old = self.rows.remove(key, hash)?;
        self.counters.payload_bytes -= old.payload();
        Some(old)
    }

    /// A record was rejected: its key says so, and keeps its entry or does not.
    fn reject(&mut self, reject: Box<Reject>, effects: &mut Effects<'_>) -> Result<(), Box<Reject>> {
        let is_keyless = reject.rejection.kind == RejectKind::Keyless;
        if effects.on_reject == OnReject::Halt && !is_keyless {
            self.counters.records -= 1;
            self.advance(reject.partition, reject.offset);
            return Err(reject);
        }
        self.counters.rejected(reject.rejection.kind);
        let notice = Notice::of(&reject);
        if let Some(key) = &reject.key {
            self.insert_notice(key, notice.clone());
            if effects.on_reject == OnReject::Remove {
                self.remove_expired(key);
                if let Some(old) = self.take(key, KeyHash::of(key)) {
                    let Reject { partition, offset, timestamp, .. } = *reject;
                    let by = Origin { partition, offset, timestamp };
                    effects.tell(|| WatchItem::Change(Change::deleted(old, by, Cause::Rejected)));
                }
            }
        }
        effects.tell(|| WatchItem::Rejected { key: reject.key.clone(), group: reject.group.clone(), notice });
        (effects.rejected)(*reject);
        Ok(())
    }

    /// Looks whether the writers' partitioner is the usual one.
    fn check_partitioner(&mut self, decoded: &Decoded) {
        // OK because a topic's partitions are numbered by 32 bits.
        let begun = Partition::try_from(self.positions.len()).expect("few enough");
        // Some may be added later, and some may begin later.
        let partitions = begun.max(self.topic.partitions);
        if let Some((offset, hash)) = decoded.first
            && partitions > 0
            && partition_of_hash(hash, partitions) != decoded.partition
        {
            self.note(Mistake::OtherPartitioner, decoded.partition, offset);
        }
    }

    fn note(&mut self, mistake: Mistake, partition: Partition, offset: Offset) {
        self.counters.mistakes.note(&self.topic.name, mistake, partition, offset);
    }

    /// The log has lost what a partition held below this offset, and so do we: a table that
    /// starts now would not have it.
    pub(super) fn begin_at(&mut self, partition: Partition, start: Offset, effects: &mut Effects<'_>) {
        let known = usize::try_from(partition).ok().and_then(|index| self.starts.get_mut(index));
        match known {
            Some(known) if start > *known => *known = start,
            _ => return,
        }
        let is_gone = |entry: &Entry| entry.partition() == partition && entry.offset() < start;
        let gone: Vec<Entry> = self.rows.all().filter(|entry| is_gone(entry)).cloned().collect();
        for entry in gone {
            self.take(entry.key(), KeyHash::of(entry.key()));
            effects
                .tell(|| WatchItem::Change(Change::deleted(entry.clone(), entry.origin(), Cause::Retention)));
        }
        let keys = |keys: Vec<&Arc<str>>| keys.into_iter().cloned().collect::<Vec<_>>();
        let expired = self.expired.iter().filter(|(_, entry)| is_gone(entry));
        for key in keys(expired.map(|(key, _)| key).collect()) {
            self.remove_expired(&key);
        }
        let rejected = self.notices.iter();
        let rejected = rejected.filter(|(_, notice)| notice.partition == partition && notice.offset < start);
        for key in keys(rejected.map(|(key, _)| key).collect()) {
            self.remove_notice(&key);
        }
    }

    /// Hides the entries whose time is over now, and shows those again whose time is not
    /// over any more, because the clock went back. True if there were any.
    pub(super) fn expire(&mut self, now: i64, effects: &mut Effects<'_>) -> bool {
        let Some(deadlines) = effects.deadlines.take() else { return false };
        let went_back = deadlines.set_clock(now);
        let mut any = false;
        for entry in deadlines.due() {
            let key = entry.key();
            let row = self.rows.get(key).cloned();
            if let Some(row) = row.as_ref().filter(|row| !deadlines.is_over(row)) {
                // Written again since: this one's time is to come.
                deadlines.add(None, row);
            } else if let Some(entry) = row {
                any = true;
                self.take(key, KeyHash::of(key));
                self.insert_expired(key, entry.clone());
                effects.tell(|| {
                    WatchItem::Change(Change::deleted(entry.clone(), entry.origin(), Cause::Expired))
                });
            }
        }
        if went_back {
            let alive: Vec<Entry> =
                self.expired.values().filter(|entry| !deadlines.is_over(entry)).cloned().collect();
            for entry in alive {
                any = true;
                self.remove_expired(entry.key());
                self.counters.payload_bytes += entry.payload();
                deadlines.add(None, &entry);
                self.rows.set(entry.clone(), KeyHash::of(entry.key()));
                effects.tell(|| WatchItem::Change(Change::set(None, entry, Cause::Revived)));
            }
        }
        effects.deadlines = Some(deadlines);
        any
    }

    /// A newer record came: what was said of the key is over.
    fn forget(&mut self, key: &str) {
        if !self.notices.is_empty() {
            self.remove_notice(key);
        }
        if !self.expired.is_empty() {
            self.remove_expired(key);
        }
    }

    fn insert_notice(&mut self, key: &str, notice: Notice) {
        self.remove_notice(key);
        self.beside_bytes += (key.len() + notice.message.len()) as u64;
        self.notices.insert_mut(key.into(), notice);
    }

    fn remove_notice(&mut self, key: &str) {
        if let Some(notice) = self.notices.get(key) {
            self.beside_bytes -= (key.len() + notice.message.len()) as u64;
            self.notices.remove_mut(key);
        }
    }

    fn insert_expired(&mut self, key: &str, entry: Entry) {
        self.remove_expired(key);
        self.beside_bytes += key.len() as u64 + entry.payload();
        self.expired.insert_mut(key.into(), entry);
    }

    fn remove_expired(&mut self, key: &str) {
        if let Some(entry) = self.expired.get(key) {
            self.beside_bytes -= key.len() as u64 + entry.payload();
            self.expired.remove_mut(key);
        }
    }
}

/// The next offset of a partition; 0 of one that is not known.
pub(super) fn position(positions: &[Offset], partition: Partition) -> Offset {
    usize::try_from(partition).ok().and_then(|index| positions.get(index)).copied().unwrap_or(0)
}
