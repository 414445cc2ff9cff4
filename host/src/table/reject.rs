//! Rejected records: the last ones, in a bounded ring.

use std::collections::VecDeque;

use crate::codec::Rejection;
use crate::log::{Offset, Partition};

/// How many rejected records are kept for inspection. All are counted.
pub(super) const KEPT: usize = 1000;

/// How much is kept of a rejected record's bytes. With [`KEPT`], the ring takes
/// at most 16 MiB.
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
    /// The part's bytes up to the cap.
    pub(super) fn capped(raw: &[u8]) -> Vec<u8> {
        raw[..raw.len().min(RAW_BYTES)].to_vec()
    }
}

/// The last rejected records, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ring(VecDeque<Reject>);

impl Ring {
    pub(super) fn push(&mut self, reject: Reject) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(reject);
    }

    pub(super) fn to_vec(&self) -> Vec<Reject> {
        self.0.iter().cloned().collect()
    }
}
