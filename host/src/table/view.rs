//! The contents of a table at one time: rows, notices on rejected records, expired entries,
//! counters, and the position of each partition.
//!
//! A generation applies records to its view, and publishes clones of it. A clone shares everything that
//! later batches do not change. This module knows nothing of watchers, logging, codecs and partitioners:
//! it returns what applying a batch did as [`ApplyResult`].

mod counters;
mod deadlines;
mod rows;

use std::ops::Bound;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

pub(super) use counters::Counters;
pub(super) use deadlines::Deadlines;
pub(super) use rows::Rows;

use crate::codec::RejectKind;
use crate::log::{Offset, OffsetRange, Partition, TopicDescription};
use crate::table::change::{Cause, Change, Effect};
use crate::table::decoded::{DecodedRecords, Outcome};
use crate::table::entry::{ENTRY_BYTES, Entry};
use crate::table::key_hash::KeyHash;
use crate::table::place::Place;
use crate::table::positions::Positions;
use crate::table::record_place::RecordPlace;
use crate::table::reject::{RejectNotice, RejectedRecord};
use crate::table::settings::OnReject;
use crate::table::status::WriterAnomaly;

/// The contents of a table at one time.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The number of the generation that created the view.
    pub(super) generation: u64,
    /// The topic, with the identity it had when the generation began.
    pub(super) topic: Arc<TopicDescription>,
    /// The fingerprint of the codecs.
    pub(super) fingerprint: Arc<str>,
    pub(super) counters: Counters,
    place: Place,
    rows: Rows,
    notices: RedBlackTreeMapSync<Arc<str>, RejectNotice>,
    /// Entries whose time to live has passed. They are not among the rows.
    expired: RedBlackTreeMapSync<Arc<str>, Entry>,
    /// The bytes of keys, values and messages in `notices` and `expired`.
    aside_bytes: u64,
}

/// How records are applied.
#[derive(Debug, Clone, Copy)]
pub(super) struct ApplyOptions {
    pub(super) on_reject: OnReject,
    /// Whether [`ApplyResult::effects`] are collected. Without watchers, nobody needs them.
    pub(super) collect_effects: bool,
}

/// What applying records did, besides changing the view.
#[derive(Debug, Default)]
pub(super) struct ApplyResult {
    /// What watchers see, in order.
    pub(super) effects: Vec<Effect>,
    /// The records that were rejected, in order.
    pub(super) rejects: Vec<RejectedRecord>,
    /// Anomalies of a kind that the generation had not seen before, with their records.
    pub(super) first_anomalies: Vec<(WriterAnomaly, Partition, Offset)>,
    /// The record that halts the table, if there was one. Records after it were not applied.
    pub(super) halted_by: Option<Box<RejectedRecord>>,
}

/// The context of applying records to a view: options, deadlines, and the results so far.
struct ApplyContext<'a> {
    options: ApplyOptions,
    deadlines: Option<&'a mut Deadlines>,
    applied: &'a mut ApplyResult,
}

impl ApplyContext<'_> {
    fn push(&mut self, effect: impl FnOnce() -> Effect) {
        if self.options.collect_effects {
            self.applied.effects.push(effect());
        }
    }
}

impl View {
    /// Creates an empty view for readers.
    pub(super) fn empty(generation: u64, topic: Arc<TopicDescription>, fingerprint: Arc<str>) -> Self {
        Self::new(Rows::sorted(), generation, topic, fingerprint)
    }

    /// Creates an empty view to load a topic into. Its rows can be found by key, but not listed before
    /// [`View::sort`].
    pub(super) fn unsorted(generation: u64, topic: Arc<TopicDescription>, fingerprint: Arc<str>) -> Self {
        Self::new(Rows::unsorted(), generation, topic, fingerprint)
    }

    fn new(rows: Rows, generation: u64, topic: Arc<TopicDescription>, fingerprint: Arc<str>) -> Self {
        Self {
            generation,
            topic,
            fingerprint,
            counters: Counters::default(),
            place: Place::default(),
            rows,
            notices: RedBlackTreeMapSync::new_sync(),
            expired: RedBlackTreeMapSync::new_sync(),
            aside_bytes: 0,
        }
    }

    /// Sorts the rows; from then on they stay sorted. Uses all threads of the rayon pool that it runs on:
    /// that of the host's workers.
    pub(super) fn sort(&mut self) {
        self.rows.sort();
    }

    /// Whether [`View::sort`] was called.
    pub(super) fn is_sorted(&self) -> bool {
        self.rows.is_sorted()
    }

    /// The number of partitions of the topic, as far as it is known: partitions may be added.
    pub(super) fn partition_count(&self) -> Partition {
        self.place.positions.last_partition().map_or(0, |last| last + 1).max(self.topic.partitions)
    }

    pub(super) fn positions(&self) -> &Positions {
        &self.place.positions
    }

    /// How far the view has come.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The next offset to apply of a partition; 0 for an unknown partition.
    pub(super) fn position(&self, partition: Partition) -> Offset {
        self.place.positions.get(partition).unwrap_or(0)
    }

    /// The bytes that its entries, notices and expired entries use.
    pub(super) fn byte_len(&self) -> u64 {
        let rows = self.rows.len() + self.expired.size() + self.notices.size();
        self.counters.payload_bytes + self.aside_bytes + (rows * ENTRY_BYTES) as u64
    }

    /// The bytes of entries that this view has and a newer one does not.
    pub(super) fn bytes_only_here(&self, newer: &Self) -> usize {
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

    pub(super) fn notice(&self, key: &str) -> Option<&RejectNotice> {
        self.notices.get(key)
    }

    pub(super) fn notices(&self) -> impl Iterator<Item = (&Arc<str>, &RejectNotice)> {
        self.notices.iter()
    }

    /// The expired entry of a key.
    pub(super) fn expired(&self, key: &str) -> Option<&Entry> {
        self.expired.get(key)
    }

    /// The expired entries, by key.
    pub(super) fn all_expired(&self) -> impl Iterator<Item = &Entry> {
        self.expired.values()
    }

    /// The rows whose keys begin with `prefix`, by key.
    pub(super) fn prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        let from = self.rows.range(Bound::Included(prefix), Bound::Unbounded);
        from.take_while(move |entry| entry.key().starts_with(prefix))
    }

    /// Adds a partition, which will be applied from the start of its range.
    pub(super) fn add_partition(&mut self, range: OffsetRange) {
        self.place.positions.insert(range.partition, range.start);
        Arc::make_mut(&mut self.place.starts).insert(range.partition, range.start);
    }

    /// Records that everything in a partition below `next` was applied.
    pub(super) fn advance(&mut self, partition: Partition, next: Offset) {
        if let Some(position) = self.place.positions.get_mut(partition) {
            *position = next.max(*position);
        }
    }

    /// Applies a batch. If a record halts the table, the records before it are applied and
    /// `applied.halted_by` is set.
    pub(super) fn apply(
        &mut self,
        decoded: DecodedRecords,
        options: ApplyOptions,
        deadlines: Option<&mut Deadlines>,
        applied: &mut ApplyResult,
    ) {
        let mut context = ApplyContext { options, deadlines, applied };
        self.rows.prefetch(decoded.outcomes.iter().filter_map(Outcome::row));
        for outcome in decoded.outcomes {
            self.counters.records += 1;
            match outcome {
                Outcome::Set(row, hash) => self.set(row, hash, &mut context),
                Outcome::Delete(row, hash) => {
                    self.counters.tombstones += 1;
                    self.delete(&row, hash, &mut context);
                }
                Outcome::Foreign(offset) => {
                    self.count(WriterAnomaly::ForeignKey, decoded.partition, offset, context.applied);
                }
                Outcome::Reject(reject) => {
                    if !self.reject(reject, &mut context) {
                        return;
                    }
                }
            }
        }
        self.advance(decoded.partition, decoded.next);
    }

    fn set(&mut self, row: Entry, hash: KeyHash, context: &mut ApplyContext<'_>) {
        self.clear_aside(row.key());
        self.counters.payload_bytes += row.payload_bytes();
        let added = context.deadlines.is_some().then(|| row.clone());
        let new = context.options.collect_effects.then(|| row.clone());
        let place = row.place();
        let old = self.rows.set(row, hash);
        if let Some(old) = &old {
            self.counters.payload_bytes -= old.payload_bytes();
            self.compare(old, place, context.applied);
        }
        if let (Some(deadlines), Some(row)) = (&mut context.deadlines, added) {
            deadlines.add(old.as_ref(), &row);
            if deadlines.is_crowded(self.rows.len()) {
                deadlines.rebuild(self.rows.all());
            }
        }
        if let Some(new) = new {
            context.push(|| Effect::Change(Change::set(old, new, Cause::Record)));
        }
    }

    /// Deletes the row of a tombstone's key. `tombstone` is an entry without a value.
    fn delete(&mut self, tombstone: &Entry, hash: KeyHash, context: &mut ApplyContext<'_>) {
        self.clear_aside(tombstone.key());
        if let Some(old) = self.remove(tombstone.key(), hash) {
            self.compare(&old, tombstone.place(), context.applied);
            context.push(|| Effect::Change(Change::deleted(old, tombstone.place(), Cause::Record)));
        }
    }

    fn remove(&mut self, key: &str, hash: KeyHash) -> Option<Entry> {
        let old = self.rows.remove(key, hash)?;
        self.counters.payload_bytes -= old.payload_bytes();
        Some(old)
    }

    /// Handles a rejected record. Returns false if it halts the table.
    fn reject(&mut self, reject: Box<RejectedRecord>, context: &mut ApplyContext<'_>) -> bool {
        let on_reject = context.options.on_reject;
        if on_reject == OnReject::Halt && reject.reason.kind != RejectKind::Keyless {
            self.counters.records -= 1;
            self.advance(reject.partition, reject.offset);
            context.applied.halted_by = Some(reject);
            return false;
        }
        self.counters.add_reject(reject.reason.kind);
        let notice = RejectNotice::new(&reject);
        if let Some(key) = &reject.key {
            self.insert_notice(key, notice.clone());
            if on_reject == OnReject::Remove {
                self.remove_expired(key);
                if let Some(old) = self.remove(key, KeyHash::of(key)) {
                    context.push(|| Effect::Change(Change::deleted(old, reject.place(), Cause::Rejected)));
                }
            }
        }
        context.push(|| Effect::Rejected { key: reject.key.clone(), group: reject.group.clone(), notice });
        context.applied.rejects.push(*reject);
        true
    }

    /// Counts the anomalies that the record at `place` shows, which replaced or deleted `old`.
    fn compare(&mut self, old: &Entry, place: RecordPlace, applied: &mut ApplyResult) {
        for anomaly in WriterAnomaly::of_replacement(old, place) {
            self.count(anomaly, place.partition, place.offset, applied);
        }
    }

    /// Counts an anomaly.
    pub(super) fn count(
        &mut self,
        anomaly: WriterAnomaly,
        partition: Partition,
        offset: Offset,
        applied: &mut ApplyResult,
    ) {
        if self.counters.anomalies.add(anomaly, partition, offset) {
            applied.first_anomalies.push((anomaly, partition, offset));
        }
    }

    /// Removes what a partition held below `start`, because the log no longer holds it: a table
    /// that starts now would not have it.
    pub(super) fn remove_below(
        &mut self,
        partition: Partition,
        start: Offset,
        options: ApplyOptions,
        applied: &mut ApplyResult,
    ) {
        if self.place.starts.get(partition).is_none_or(|known| start <= known) {
            return;
        }
        Arc::make_mut(&mut self.place.starts).insert(partition, start);
        let mut context = ApplyContext { options, deadlines: None, applied };
        let is_gone = |entry: &Entry| entry.partition() == partition && entry.offset() < start;
        let gone: Vec<Entry> = self.rows.all().filter(|entry| is_gone(entry)).cloned().collect();
        for entry in gone {
            self.remove(entry.key(), KeyHash::of(entry.key()));
            let place = entry.place();
            context.push(|| Effect::Change(Change::deleted(entry, place, Cause::Retention)));
        }
        let expired: Vec<Arc<str>> =
            self.expired.iter().filter(|(_, entry)| is_gone(entry)).map(|(key, _)| key.clone()).collect();
        expired.iter().for_each(|key| self.remove_expired(key));
        let is_gone = |notice: &RejectNotice| notice.partition == partition && notice.offset < start;
        let notices: Vec<Arc<str>> =
            self.notices.iter().filter(|(_, notice)| is_gone(notice)).map(|(key, _)| key.clone()).collect();
        notices.iter().for_each(|key| self.remove_notice(key));
    }

    /// Hides the entries that have expired by `now`. If the clock was set back, restores hidden entries that
    /// have not expired by `now`.
    pub(super) fn expire(
        &mut self,
        now: i64,
        deadlines: &mut Deadlines,
        options: ApplyOptions,
        applied: &mut ApplyResult,
    ) {
        let mut context = ApplyContext { options, deadlines: None, applied };
        let was_set_back = deadlines.set_clock(now);
        self.place.expired_until = now;
        for entry in deadlines.take_due() {
            let key = entry.key();
            let Some(row) = self.rows.get(key).cloned() else { continue };
            if !deadlines.is_expired(&row) {
                // The key was written again since.
                deadlines.add(None, &row);
                continue;
            }
            self.remove(key, KeyHash::of(key));
            self.insert_expired(key, row.clone());
            let place = row.place();
            context.push(|| Effect::Change(Change::deleted(row, place, Cause::Expired)));
        }
        if was_set_back {
            let alive: Vec<Entry> =
                self.expired.values().filter(|entry| !deadlines.is_expired(entry)).cloned().collect();
            for entry in alive {
                self.remove_expired(entry.key());
                self.counters.payload_bytes += entry.payload_bytes();
                deadlines.add(None, &entry);
                self.rows.set(entry.clone(), KeyHash::of(entry.key()));
                context.push(|| Effect::Change(Change::set(None, entry, Cause::Revived)));
            }
        }
    }

    /// Removes the notice on a key and its expired entry, because a newer record arrived.
    fn clear_aside(&mut self, key: &str) {
        if !self.notices.is_empty() {
            self.remove_notice(key);
        }
        if !self.expired.is_empty() {
            self.remove_expired(key);
        }
    }

    fn insert_notice(&mut self, key: &str, notice: RejectNotice) {
        self.remove_notice(key);
        self.aside_bytes += (key.len() + notice.message.len()) as u64;
        self.notices.insert_mut(key.into(), notice);
    }

    fn remove_notice(&mut self, key: &str) {
        if let Some(notice) = self.notices.get(key) {
            self.aside_bytes -= (key.len() + notice.message.len()) as u64;
            self.notices.remove_mut(key);
        }
    }

    fn insert_expired(&mut self, key: &str, entry: Entry) {
        self.remove_expired(key);
        self.aside_bytes += key.len() as u64 + entry.payload_bytes();
        self.expired.insert_mut(key.into(), entry);
    }

    fn remove_expired(&mut self, key: &str) {
        if let Some(entry) = self.expired.get(key) {
            self.aside_bytes -= key.len() as u64 + entry.payload_bytes();
            self.expired.remove_mut(key);
        }
    }
}
