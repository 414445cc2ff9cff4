//! Counters that are published together with the contents of a view.

use std::collections::BTreeMap;

use crate::codec::RejectKind;
use crate::table::status::AnomalyCounts;

/// Counts of the records that a view applied.
#[derive(Debug, Clone, Default)]
pub(in crate::table) struct Counters {
    pub(in crate::table) records: u64,
    pub(in crate::table) tombstones: u64,
    pub(in crate::table) keyless: u64,
    pub(in crate::table) anomalies: AnomalyCounts,
    /// The bytes of all keys and values in the rows.
    pub(in crate::table) payload_bytes: u64,
    pub(in crate::table) rejects: BTreeMap<RejectKind, u64>,
}

impl Counters {
    pub(super) fn add_reject(&mut self, kind: RejectKind) {
        match kind {
            RejectKind::Keyless => self.keyless += 1,
            kind => *self.rejects.entry(kind).or_default() += 1,
        }
    }
}
