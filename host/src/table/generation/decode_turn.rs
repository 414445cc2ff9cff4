//! Decodes some records of a batch that cannot be decoded as a whole: one turn on a worker.

use std::time::{Duration, Instant};

use crate::codec::workers::TICK;
use crate::codec::{CodecFailure, Codecs, HostFailure, RejectKind};
use crate::log::RecordBatch;
use crate::table::decoded::DecodedRecords;
use crate::table::generation::decode::decode;

/// Records that are decoded again are applied when they have this many bytes.
pub(super) const PART_BYTES: usize = 4 << 20;

/// How many records one call decodes. A batch of 1,024 with one fault then takes 32 calls for parts, and 32 for single
/// records.
const PART_RECORDS: usize = 32;

/// Which records a turn decodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct TurnRange {
    /// The index of the first one.
    pub(super) from: usize,
    /// Below this index, each is decoded alone.
    pub(super) alone_until: usize,
    /// Whether only the first one is decoded, because the codec is in quarantine.
    pub(super) only_first: bool,
}

/// What a turn has decoded.
pub(super) struct Turn {
    pub(super) decoded: DecodedRecords,
    /// Below this index, the next turns decode each record alone.
    pub(super) alone_until: usize,
    pub(super) took: Duration,
    pub(super) faulting: FaultingCalls,
}

/// The calls that faulted, and their time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FaultingCalls {
    pub(super) count: u32,
    pub(super) time: Duration,
}

impl FaultingCalls {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.time += time;
    }
}

/// Decodes records until a codec faults over a single one, a tick has passed, or the result has [`PART_BYTES`]. Decodes at
/// least one record.
pub(super) fn decode_turn(
    codecs: &Codecs,
    batch: &RecordBatch,
    range: TurnRange,
) -> Result<Turn, HostFailure> {
    let began = Instant::now();
    let TurnRange { from: mut next, mut alone_until, only_first } = range;
    let mut faulting = FaultingCalls::default();
    let mut all: Option<DecodedRecords> = None;
    while next < batch.len() {
        if let Some(decoded) = &all {
            let is_enough = decoded.ends_with_fault() || decoded.byte_len() >= PART_BYTES;
            if only_first || is_enough || began.elapsed() >= TICK {
                break;
            }
        }
        let is_alone = only_first || next < alone_until;
        let end = if is_alone { next + 1 } else { batch.len().min(next + PART_RECORDS) };
        let call_began = Instant::now();
        match decode(codecs, &batch.slice(next..end)) {
            Ok(part) if is_alone || part.byte_len() <= PART_BYTES => {
                // In a larger part, the time of a single record is not known, and is short.
                if is_alone && part.ends_with_fault() {
                    faulting.add(call_began.elapsed());
                }
                match &mut all {
                    Some(decoded) => decoded.append(part),
                    None => all = Some(part),
                }
                next = end;
            }
            Ok(_) => alone_until = end,
            Err(CodecFailure::Fault(fault)) => {
                faulting.add(call_began.elapsed());
                // A record that is decoded alone is rejected instead, so this part is larger. After a deadline, every
                // larger call may cost another one.
                alone_until = if fault.kind == RejectKind::Deadline { batch.len() } else { end };
            }
            // The next turn begins with this record, and reports the failure.
            Err(CodecFailure::Host(_)) if all.is_some() => break,
            Err(CodecFailure::Host(failure)) => return Err(failure),
        }
    }
    // OK because a turn begins only if there are records left.
    let decoded = all.expect("at least one record");
    Ok(Turn { decoded, alone_until, took: began.elapsed(), faulting })
}
