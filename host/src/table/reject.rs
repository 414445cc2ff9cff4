//! Rejected records, and a bounded list of the last ones.

use std::collections::VecDeque;

use crate::codec::{RejectKind, RejectReason};
use crate::log::{Offset, Partition};
use crate::table::record_place::RecordPlace;

/// How many rejected records a table keeps for inspection. It counts all of them.
const MAX_REJECTS: usize = 1000;

/// How many bytes the kept rejected records may use. The last one is kept, whatever its size.
const MAX_BYTES: usize = 16 << 20;

/// How many bytes of a rejected key or value a table keeps.
const RAW_BYTES: usize = 16 * 1024;

/// The maximum length of the message of a notice, in bytes, because there may be as many notices as keys.
/// The [`RejectedRecord`] has the whole message.
const NOTICE_BYTES: usize = 256;

/// A part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordPart {
    /// The key. No entry of the table is affected.
    Key,
    /// The value.
    Value,
}

/// A record that was read, but not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedRecord {
    /// The partition of the record.
    pub partition: Partition,
    /// The offset of the record.
    pub offset: Offset,
    /// The timestamp of the record: milliseconds since 1970; `None` if it has none.
    pub timestamp: Option<i64>,
    /// The key; `None` if it is null or was rejected.
    pub key: Option<Box<str>>,
    /// The group of the key, if it has one.
    pub group: Option<Box<str>>,
    /// The part of the record that was rejected: [`RecordPart::Value`] if the key is null.
    pub part: RecordPart,
    /// Why, and by which component.
    pub reason: RejectReason,
    /// The first 16 KiB of the rejected part.
    pub raw: Vec<u8>,
    /// The length of the rejected part, in bytes.
    pub raw_len: usize,
}

impl RejectedRecord {
    /// The bytes of memory that it uses.
    pub(super) fn byte_len(&self) -> usize {
        let texts = [&self.key, &self.group].into_iter().flatten().map(|text| text.len());
        size_of::<Self>() + texts.sum::<usize>() + self.reason.byte_len() + self.raw.len()
    }

    /// The bytes of a rejected part that are kept.
    pub(super) fn truncated(raw: &[u8]) -> Vec<u8> {
        raw[..raw.len().min(RAW_BYTES)].to_vec()
    }

    pub(super) fn place(&self) -> RecordPlace {
        let Self { partition, offset, timestamp, .. } = *self;
        RecordPlace { partition, offset, timestamp }
    }
}

/// A notice that a key's newest record was rejected, and that its entry, if it has one, is older.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectNotice {
    /// The partition of the rejected record.
    pub partition: Partition,
    /// The offset of the rejected record.
    pub offset: Offset,
    /// What kind of reason the record was rejected for.
    pub kind: RejectKind,
    /// The reason in words, at most 256 bytes.
    pub message: String,
}

impl RejectNotice {
    pub(super) fn new(reject: &RejectedRecord) -> Self {
        let end = reject.reason.message.floor_char_boundary(NOTICE_BYTES);
        Self {
            partition: reject.partition,
            offset: reject.offset,
            kind: reject.reason.kind,
            message: reject.reason.message[..end].to_owned(),
        }
    }
}

/// The last rejected records of a generation, oldest first.
#[derive(Debug, Default)]
pub(super) struct RecentRejects {
    rejects: VecDeque<RejectedRecord>,
    bytes: usize,
}

impl RecentRejects {
    pub(super) fn push(&mut self, reject: RejectedRecord) {
        self.bytes += reject.byte_len();
        self.rejects.push_back(reject);
        while self.rejects.len() > MAX_REJECTS || self.bytes > MAX_BYTES && self.rejects.len() > 1 {
            // OK because there is at least one.
            self.bytes -= self.rejects.pop_front().expect("a reject").byte_len();
        }
    }

    pub(super) fn to_vec(&self) -> Vec<RejectedRecord> {
        self.rejects.iter().cloned().collect()
    }

    pub(super) fn byte_len(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_rejects_are_bounded_in_bytes() {
        let mut recent = RecentRejects::default();
        for offset in 0..2000 {
            recent.push(RejectedRecord {
                partition: 0,
                offset,
                timestamp: Some(0),
                key: Some("k".repeat(1 << 20).into()),
                group: None,
                part: RecordPart::Key,
                reason: RejectReason::without_component(RejectKind::Other, "m".repeat(6 << 20)),
                raw: vec![0; RAW_BYTES],
                raw_len: 1 << 20,
            });
            assert!(recent.byte_len() <= MAX_BYTES);
        }
        assert_eq!(recent.to_vec().last().unwrap().offset, 1999);
        assert_eq!(recent.bytes, recent.rejects.iter().map(RejectedRecord::byte_len).sum::<usize>());
    }
}
