//! Compaction of a checkpoint. For each raw key, it keeps the newest record and, if that record was
//! rejected, also the newest one that was accepted. It keeps nothing of deleted keys, and no records that
//! the log no longer holds.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::manifest::SegmentInfo;
use crate::checkpoint::segment::{RollingWriter, batches, read_verified};
use crate::log::batch::{self, RawRecord};
use crate::log::{Offset, Partition};

/// The newest records of a raw key; `None` if there is none, or if it is a tombstone that was accepted. A
/// rejected tombstone deletes nothing.
#[derive(Debug, Clone, Copy, Default)]
struct NewestRecords {
    /// The newest record.
    any: Option<Offset>,
    /// The newest record that was accepted.
    accepted: Option<Offset>,
}

/// The segments that a compaction wrote.
#[derive(Debug)]
pub(super) struct CompactionResult {
    pub(super) segments: Vec<SegmentInfo>,
    /// The offsets of rejected records in `segments`.
    pub(super) rejected: HashSet<Offset>,
}

/// A compaction of some segments of one partition.
#[derive(Debug)]
pub(super) struct Compaction {
    pub(super) folder: PathBuf,
    pub(super) partition: Partition,
    /// All segments of the partition up to some offset.
    pub(super) segments: Vec<SegmentInfo>,
    /// The offsets of rejected records in `segments`.
    pub(super) rejected: HashSet<Offset>,
    /// The offset at which the log begins. Records below it are dropped.
    pub(super) start: Offset,
    /// The number in the file names of the segments that it writes.
    pub(super) number: u64,
    /// Set when nobody waits for the compaction any more.
    pub(super) is_cancelled: Arc<AtomicBool>,
}

impl Compaction {
    /// Writes the compacted records to new segments. Returns `None` if it was cancelled.
    pub(super) fn run(&self) -> Result<Option<CompactionResult>, CheckpointError> {
        // Two hashes of 64 bits identify a key. That two keys share both is as unlikely as an undetected
        // disk error.
        let (first_state, second_state) = (RandomState::default(), RandomState::default());
        let mut newest: HashMap<(u64, u64), NewestRecords, RandomState> = HashMap::default();
        let was_indexed = self.for_each_record(|record| {
            // A record without a key has no entry, and is dropped.
            let Some(key) = record.key else { return Ok(()) };
            use std::hash::BuildHasher as _;
            let newest = newest.entry((first_state.hash_one(key), second_state.hash_one(key))).or_default();
            // A tombstone is dropped together with all records that it deletes.
            let offset = record.value.is_some().then_some(record.offset);
            if self.rejected.contains(&record.offset) {
                // A rejected record does not replace the accepted one before it.
                newest.any = Some(record.offset);
            } else {
                *newest = NewestRecords { any: offset, accepted: offset };
            }
            Ok(())
        })?;
        if !was_indexed {
            return Ok(None);
        }
        let mut live: Vec<Offset> =
            newest.values().flat_map(|newest| [newest.any, newest.accepted]).flatten().collect();
        drop(newest);
        live.sort_unstable();
        let mut live = live.into_iter().peekable();
        let mut writer = RollingWriter::new(&self.folder, self.partition, self.number);
        let mut rejected = HashSet::new();
        let was_copied = self.for_each_record(|record| {
            while live.next_if(|&offset| offset < record.offset).is_some() {}
            if live.peek() != Some(&record.offset) {
                return Ok(());
            }
            if self.rejected.contains(&record.offset) {
                rejected.insert(record.offset);
            }
            writer.push(record)
        })?;
        let segments = writer.finish()?;
        Ok(was_copied.then_some(CompactionResult { segments, rejected }))
    }

    /// Visits all records that the log still holds, in order. Returns false if the compaction was cancelled
    /// before the end.
    fn for_each_record(
        &self,
        mut visit: impl FnMut(&RawRecord<'_>) -> Result<(), CheckpointError>,
    ) -> Result<bool, CheckpointError> {
        for segment in &self.segments {
            if self.is_cancelled.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let bytes = read_verified(&self.folder, segment)?;
            let path = self.folder.join(&segment.file);
            for batch in batches(&path, &bytes) {
                for record in batch::records(batch?) {
                    let record = record.map_err(|reason| CheckpointError::damaged(&path, reason))?;
                    if record.offset >= self.start {
                        visit(&record)?;
                    }
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::BatchWriter;

    #[test]
    fn rejected_tombstones_delete_nothing_and_records_below_the_start_are_dropped() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut batch = BatchWriter::new(0, 0);
        let records: [(&[u8], Option<&[u8]>); 6] = [
            (b"lost", Some(b"0")),
            (b"deleted", Some(b"1")),
            (b"kept", Some(b"2")),
            (b"kept", None),
            (b"deleted", None),
            (b"new", Some(b"5")),
        ];
        for (offset, (key, value)) in (0..).zip(records) {
            batch.push(offset, 0, Some(key), value, &[]);
        }
        let mut segment = crate::checkpoint::segment::SegmentWriter::create(folder.path(), 0, 0, 1).unwrap();
        segment.append(batch).unwrap();
        let mut compaction = Compaction {
            folder: folder.path().to_owned(),
            partition: 0,
            segments: vec![segment.info.clone()],
            rejected: HashSet::from([3]),
            start: 1,
            number: 2,
            is_cancelled: Arc::default(),
        };
        let result = compaction.run().unwrap().unwrap();
        assert_eq!(result.rejected, HashSet::from([3]));
        compaction.segments = result.segments;
        let mut offsets = Vec::new();
        let visit = |record: &RawRecord<'_>| {
            offsets.push(record.offset);
            Ok(())
        };
        assert!(compaction.for_each_record(visit).unwrap());
        assert_eq!(offsets, [2, 3, 5]);
        compaction.is_cancelled.store(true, Ordering::Relaxed);
        assert!(compaction.run().unwrap().is_none());
    }
}
