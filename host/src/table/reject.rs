//! Rejected records: the last ones, in a bounded ring.

use std::collections::VecDeque;

use crate::codec::Rejection;
use crate::log::{Offset, Partition};

/// How many rejected records are kept for inspection. All are counted.
pub(super) const KEPT: usize = 1000;

/// How many bytes they may take; the last one is kept in any case.
const KEPT_BYTES: usize = 16 << 20;

/// How much is kept of a rejected record's bytes.
const RAW_BYTES: usize = 16 * 1024;

/// The part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its key: no key of the table is concerned.
    Key,
    /// Its value.
    Value,
}

/// A record that was read and not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp: milliseconds since 1970, -1 if it has none.
    pub timestamp: i64,
    /// Its key, if that could be decoded.
    pub key: Option<Box<str>>,
    /// Its group, if its key has one.
    pub group: Option<Box<str>>,
    /// What of it was rejected.
    pub part: Part,
    /// Why, and by whom.
    pub rejection: Rejection,
    /// The first 16 KiB of the part that was rejected.
    pub raw: Vec<u8>,
    /// How long that part is.
    pub raw_len: usize,
}

impl Reject {
    /// The bytes that it takes.
    pub(super) fn byte_len(&self) -> usize {
        let texts = [&self.key, &self.group].into_iter().flatten().map(|text| text.len());
        size_of::<Self>() + texts.sum::<usize>() + self.rejection.message.len() + self.raw.len()
    }

    /// The part's bytes up to the cap.
    pub(super) fn capped(raw: &[u8]) -> Vec<u8> {
        raw[..raw.len().min(RAW_BYTES)].to_vec()
    }
}

/// The last rejected records, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ring {
    rejects: VecDeque<Reject>,
    bytes: usize,
}

impl Ring {
    pub(super) fn push(&mut self, reject: Reject) {
        self.bytes += reject.byte_len();
        self.rejects.push_back(reject);
        while self.rejects.len() > KEPT || self.bytes > KEPT_BYTES && self.rejects.len() > 1 {
            // OK because there is one.
            self.bytes -= self.rejects.pop_front().expect("a reject").byte_len();
        }
    }

    pub(super) fn to_vec(&self) -> Vec<Reject> {
        self.rejects.iter().cloned().collect()
    }

    pub(super) fn byte_len(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{RejectKind, Rejection};

    #[test]
    fn the_ring_is_bounded_in_bytes() {
        let mut ring = Ring::default();
        for offset in 0..2000 {
            ring.push(Reject {
                partition: 0,
                offset,
                timestamp: 0,
                key: Some("k".repeat(1 << 20).into()),
                group: None,
                part: Part::Key,
                rejection: Rejection::built_in(RejectKind::Other, "m".repeat(6 << 20)),
                raw: vec![0; RAW_BYTES],
                raw_len: 1 << 20,
            });
            assert!(ring.byte_len() <= KEPT_BYTES);
        }
        assert_eq!(ring.to_vec().last().unwrap().offset, 1999);
        assert_eq!(ring.bytes, ring.rejects.iter().map(Reject::byte_len).sum::<usize>());
    }
}
