//! Compaction: of each raw key the newest record stays, and if that was rejected, the newest
//! one that was not; of a key that was deleted, nothing, and nothing that the log has lost.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// What is to be compacted.
#[derive(Debug)]
pub(super) struct Compaction {
    pub(super) folder: PathBuf,
    pub(super) partition: Partition,
    /// All of the partition up to some offset.
    pub(super) segments: Vec<SegmentInfo>,
    pub(super) rejected: HashSet<Offset>,
    /// Where the log begins: what was below it is gone.
    pub(super) start: Offset,
    /// Of the segments that are written.
    pub(super) number: u64,
    /// Set when nobody waits for it any more.
    pub(super) stopped: Arc<AtomicBool>,
}

impl Compaction {
    /// Writes the segments anew; nothing comes of it if it is stopped.
    pub(super) fn run(&self) -> Result<Option<Compacted>, CheckpointError> {
        // Two hashes of 64 bits stand for a key: that two keys have both in common is as
        // unlikely as a disk that errs unseen.
        let (one, other) = (RandomState::default(), RandomState::default());
        let mut newest: HashMap<(u64, u64), Newest, RandomState> = HashMap::default();
        let looked = self.each(|record| {
            let Some(key) = record.key else { return Ok(()) };
            use std::hash::BuildHasher as _;
            let newest = newest.entry((one.hash_one(key), other.hash_one(key))).or_default();
            // A tombstone stands for nothing: all that it deletes goes with it.
            let offset = record.value.is_some().then_some(record.offset);
            if self.rejected.contains(&record.offset) {
                // Rejected, it deleted nothing yet.
                newest.any = Some(record.offset);
            } else {
                *newest = Newest { any: offset, accepted: offset };
            }
            Ok(())
        })?;
        if !looked {
            return Ok(None);
        }
        let mut live: Vec<Offset> =
            newest.values().flat_map(|newest| [newest.any, newest.accepted]).flatten().collect();
        drop(newest);
        live.sort_unstable();
        let mut live = live.into_iter().peekable();
        let mut written = Segments::new(&self.folder, self.partition, self.number);
        let mut rejected = HashSet::new();
        let copied = self.each(|record| {
            while live.next_if(|&offset| offset < record.offset).is_some() {}
            if live.peek() != Some(&record.offset) {
                return Ok(());
            }
            if self.rejected.contains(&record.offset) {
                rejected.insert(record.offset);
            }
            written.push(record)
        })?;
        let segments = written.finish()?;
        Ok(copied.then_some(Compacted { segments, rejected }))
    }

    /// Looks at all records that the log has still, in order; false if it is stopped before
    /// the end.
    fn each(
        &self,
        mut look: impl FnMut(&RawRecord<'_>) -> Result<(), CheckpointError>,
    ) -> Result<bool, CheckpointError> {
        for segment in &self.segments {
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let bytes = verified(&self.folder, segment)?;
            let path = self.folder.join(&segment.file);
            for batch in batches(&path, &bytes) {
                for record in batch::records(batch?) {
                    let record = record.map_err(|reason| CheckpointError::damaged(&path, reason))?;
                    if record.offset >= self.start {
                        look(&record)?;
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
    fn what_was_rejected_deletes_nothing_and_what_the_log_has_lost_goes() {
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
            stopped: Arc::default(),
        };
        let compacted = compaction.run().unwrap().unwrap();
        assert_eq!(compacted.rejected, HashSet::from([3]));
        compaction.segments = compacted.segments;
        let mut offsets = Vec::new();
        let look = |record: &RawRecord<'_>| {
            offsets.push(record.offset);
            Ok(())
        };
        assert!(compaction.each(look).unwrap());
        assert_eq!(offsets, [2, 3, 5]);
        compaction.stopped.store(true, Ordering::Relaxed);
        assert!(compaction.run().unwrap().is_none());
    }
}
