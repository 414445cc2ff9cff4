//! Compares two decodings of a topic.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::log::{Offset, Partition};
use crate::table::entry::Entry;
use crate::table::reject::RejectNotice;
use crate::table::snapshot::Snapshot;

/// How many examples of each kind are listed.
const MAX_SAMPLES: usize = 5;

/// How many bytes of a value an example shows.
const SAMPLE_BYTES: usize = 256;

/// The difference between two decodings of a topic, as numbers of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// Keys with the same value and group.
    pub(crate) equal: u64,
    /// Keys with another value.
    pub(crate) changed: u64,
    /// Keys in another group, or of another member.
    pub(crate) moved: u64,
    /// Keys whose newest record only the second decoding rejects.
    pub(crate) newly_rejected: u64,
    /// Keys whose newest record only the first decoding rejects.
    pub(crate) newly_accepted: u64,
    /// Keys that only the second decoding has, and that the first did not reject: keys are decoded differently.
    pub(crate) added: u64,
    /// Keys that only the first decoding has, and that the second did not reject.
    pub(crate) removed: u64,
    /// Keys that were written while the decodings were compared.
    pub(crate) skipped: u64,
    pub(crate) samples: Vec<Sample>,
}

/// An example of a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Sample {
    kind: &'static str,
    key: String,
    /// The beginning of the value in each decoding.
    before: Option<String>,
    after: Option<String>,
    /// Why one of them rejected the newest record.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// One of two decodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    First,
    Second,
}

/// How far both decodings have applied each partition.
#[derive(Debug)]
struct CommonPositions(BTreeMap<Partition, (Offset, Offset)>);

impl CommonPositions {
    fn new(first: &Snapshot, second: &Snapshot) -> Self {
        let seconds: BTreeMap<Partition, Offset> = second.positions().collect();
        let both = |(partition, first)| Some((partition, (first, *seconds.get(&partition)?)));
        Self(first.positions().filter_map(both).collect())
    }

    /// Whether both have applied a record.
    fn has(&self, (partition, offset): (Partition, Offset)) -> bool {
        self.0.get(&partition).is_some_and(|&(first, second)| offset < first.min(second))
    }

    /// Whether one of them has applied less of a partition than the other one.
    fn is_behind(&self, partition: Partition, side: Side) -> bool {
        self.0.get(&partition).is_none_or(|&(first, second)| match side {
            Side::First => first < second,
            Side::Second => second < first,
        })
    }
}

fn place(entry: &Entry) -> (Partition, Offset) {
    (entry.partition(), entry.offset())
}

impl Difference {
    /// Compares two decodings of the same topic. Records that only one of them has applied do not count.
    pub(crate) fn new(first: &Snapshot, second: &Snapshot) -> Self {
        let mut difference = Self::default();
        let common = CommonPositions::new(first, second);
        let (mut firsts, mut seconds) = (first.iter().peekable(), second.iter().peekable());
        loop {
            let order = match (firsts.peek(), seconds.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => one.key().cmp(other.key()),
            };
            let one = if order.is_le() { firsts.next() } else { None };
            let other = if order.is_ge() { seconds.next() } else { None };
            let Some(key) = one.or(other).map(Entry::key) else { break };
            let is_comparable = match (one, other) {
                (Some(one), Some(other)) => common.has(place(one)) && common.has(place(other)),
                // The other one may have deleted the entry with a record that this one has not applied.
                (Some(one), None) => {
                    common.has(place(one)) && !common.is_behind(one.partition(), Side::First)
                }
                (None, Some(other)) => {
                    common.has(place(other)) && !common.is_behind(other.partition(), Side::Second)
                }
                (None, None) => break,
            };
            if is_comparable {
                difference.add(&common, (first, second), key, one, other);
            } else {
                difference.skipped += 1;
            }
        }
        // Keys that have no entry in either of them, because all of their records are rejected.
        for (key, notice) in second.notices() {
            let is_new = !first.contains(key) && !second.contains(key) && first.notice(key).is_none();
            if is_new && common.has((notice.partition, notice.offset)) {
                difference.add(&common, (first, second), key, None, None);
            }
        }
        difference
    }

    /// Whether both decodings have the same contents.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { changed, moved, newly_rejected, newly_accepted, added, removed, .. } = self;
        [changed, moved, newly_rejected, newly_accepted, added, removed].iter().all(|count| **count == 0)
    }

    /// Whether fewer keys were compared than skipped.
    pub(crate) fn is_inconclusive(&self) -> bool {
        self.skipped > self.equal + self.changes() + self.newly_rejected
    }

    /// The number of keys that readers would see differently, besides those that are newly rejected.
    pub(crate) fn changes(&self) -> u64 {
        self.changed + self.moved + self.newly_accepted + self.added + self.removed
    }

    fn add(
        &mut self,
        common: &CommonPositions,
        (first, second): (&Snapshot, &Snapshot),
        key: &str,
        one: Option<&Entry>,
        other: Option<&Entry>,
    ) {
        let applied = |notice: &&RejectNotice| common.has((notice.partition, notice.offset));
        let (rejected_before, rejected_after) =
            (first.notice(key).filter(applied), second.notice(key).filter(applied));
        let group = |entry: &Entry| (entry.group().map(str::to_owned), entry.member().map(str::to_owned));
        let (count, kind, reason) = match (one, other) {
            _ if rejected_after.is_some() && rejected_before.is_none() => {
                (&mut self.newly_rejected, "newly_rejected", rejected_after)
            }
            _ if rejected_before.is_some() && rejected_after.is_none() => {
                (&mut self.newly_accepted, "newly_accepted", rejected_before)
            }
            (Some(one), Some(other)) if one.json() != other.json() => (&mut self.changed, "changed", None),
            (Some(one), Some(other)) if group(one) != group(other) => (&mut self.moved, "moved", None),
            (Some(_), Some(_)) => {
                self.equal += 1;
                return;
            }
            (None, _) => (&mut self.added, "added", None),
            (_, None) => (&mut self.removed, "removed", None),
        };
        *count += 1;
        if *count <= MAX_SAMPLES as u64 {
            let shorten = |entry: &Entry| {
                let json = entry.json();
                json[..json.floor_char_boundary(SAMPLE_BYTES)].to_owned()
            };
            let key = key[..key.floor_char_boundary(SAMPLE_BYTES)].to_owned();
            let reason = reason
                .map(|notice| notice.message[..notice.message.floor_char_boundary(SAMPLE_BYTES)].to_owned());
            self.samples.push(Sample {
                kind,
                key,
                before: one.map(shorten),
                after: other.map(shorten),
                reason,
            });
        }
    }
}
