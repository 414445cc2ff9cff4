//! Compaction: of each raw key the newest record stays, and if that was rejected, the newest
//! one that was not; of a key that was deleted, nothing.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use foldhash::fast::RandomState;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::manifest::SegmentInfo;
use crate::checkpoint::segment::{Segments, batches, verified};
use crate::log::batch::{self, RawRecord};
use crate::log::{Offset, Partition};

/// What is known of a raw key.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    any: Option<Offset>,
    accepted: Option<Offset>,
}

/// What a compaction leaves.
#[derive(Debug)]
pub(super) struct Compacted {
    pub(super) segments: Vec<SegmentInfo>,
    /// Those of the records that were rejected.
    pub(super) rejected: HashSet<Offset>,
}

/// Writes anew the segments of a partition, which are all of it up to some offset.
pub(super) fn compact(
    folder: &Path,
    partition: Partition,
    segments: &[SegmentInfo],
    rejected: &HashSet<Offset>,
    number: u64,
) -> Result<Compacted, CheckpointError> {
    // Two hashes of 64 bits stand for a key: that two keys have both in common is as
    // unlikely as a disk that errs unseen.
    let (one, other) = (RandomState::default(), RandomState::default());
    let mut newest: HashMap<(u64, u64), Newest, RandomState> = HashMap::default();
    each(folder, segments, |record| {
        let Some(key) = record.key else { return Ok(()) };
        use std::hash::BuildHasher as _;
        let newest = newest.entry((one.hash_one(key), other.hash_one(key))).or_default();
        // A tombstone stands for nothing: all that it deletes goes with it.
        let offset = record.value.is_some().then_some(record.offset);
        newest.any = offset;
        if !rejected.contains(&record.offset) {
            newest.accepted = offset;
        }
        Ok(())
    })?;
    let mut live: Vec<Offset> =
        newest.values().flat_map(|newest| [newest.any, newest.accepted]).flatten().collect();
    drop(newest);
    live.sort_unstable();
    let mut live = live.into_iter().peekable();
    let mut written = Segments::new(folder, partition, number);
    let mut kept = HashSet::new();
    each(folder, segments, |record| {
        while live.next_if(|&offset| offset < record.offset).is_some() {}
        if live.peek() != Some(&record.offset) {
            return Ok(());
        }
        if rejected.contains(&record.offset) {
            kept.insert(record.offset);
        }
        written.push(record)
    })?;
    Ok(Compacted { segments: written.finish()?, rejected: kept })
}

/// Looks at all records, in order.
fn each(
    folder: &Path,
    segments: &[SegmentInfo],
    mut look: impl FnMut(&RawRecord<'_>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    for segment in segments {
        let bytes = verified(folder, segment)?;
        let path = folder.join(&segment.file);
        for batch in batches(&path, &bytes) {
            for record in batch::records(batch?) {
                look(&record.map_err(|reason| CheckpointError::damaged(&path, reason))?)?;
            }
        }
    }
    Ok(())
}
