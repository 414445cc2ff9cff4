//! The manifest: what belongs to a checkpoint. Replaced as a whole, with a checksum.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::checkpoint::CheckpointError;
use crate::log::{Isolation, Offset, Partition, RecordBatch};
use crate::private;

/// Its name.
pub(super) const FILE: &str = "checkpoint.json";

/// What is to become it.
pub(super) const DRAFT: &str = "checkpoint.draft";

/// The largest manifest: a hundred bytes for each segment, of which a terabyte has 32,768.
const MAX_BYTES: usize = 64 << 20;

/// The form of what is written here.
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    version: u32,
    pub(super) topic: String,
    pub(super) topic_id: String,
    /// As of when all records of the topic are in it: milliseconds since 1970.
    pub(super) as_of: i64,
    /// The longest time, in milliseconds, after which that was said again.
    pub(super) max_away: i64,
    pub(super) headers: bool,
    pub(super) isolation: Isolation,
    /// The next segment's number.
    pub(super) next: u64,
    pub(super) partitions: Vec<PartitionState>,
}

/// One partition's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartitionState {
    pub(super) partition: Partition,
    /// The offset behind everything that was read.
    pub(super) position: Offset,
    pub(super) last: Option<LastRecord>,
    /// What the last compaction left, in bytes.
    pub(super) compacted: u64,
    /// In the order of their offsets.
    pub(super) segments: Vec<SegmentInfo>,
}

impl PartitionState {
    /// What its segments take.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

/// The last record that was read, to know it again: a log that was truncated and has grown
/// again has another one in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LastRecord {
    pub(super) offset: Offset,
    timestamp: i64,
    crc32c: u32,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentInfo {
    pub(super) file: String,
    /// What belongs to it; more may be in the file.
    pub(super) bytes: u64,
    pub(super) crc32c: u32,
    pub(super) records: u64,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    crc32c: u32,
    #[serde(borrow)]
    checkpoint: &'a RawValue,
}

impl LastRecord {
    /// The last record of a batch.
    pub(super) fn of(batch: &RecordBatch) -> Option<Self> {
        batch.len().checked_sub(1).map(|last| Self::at(batch, last))
    }

    fn at(batch: &RecordBatch, index: usize) -> Self {
        let record = batch.get(index);
        let sum = |crc, bytes: Option<&[u8]>| {
            let crc = crc32c::crc32c_append(crc, &[u8::from(bytes.is_some())]);
            crc32c::crc32c_append(crc, bytes.unwrap_or_default())
        };
        let crc32c = sum(sum(0, record.key), record.value);
        Self { offset: record.offset, timestamp: record.timestamp, crc32c }
    }

    /// Whether the first record of a batch, if it is of the same offset, is the same.
    pub(super) fn fits(&self, batch: &RecordBatch) -> bool {
        batch.is_empty() || batch.get(0).offset != self.offset || Self::at(batch, 0) == *self
    }
}

impl Manifest {
    pub(super) fn new(topic: &str, topic_id: &str, headers: bool, isolation: Isolation) -> Self {
        let (topic, topic_id) = (topic.to_owned(), topic_id.to_owned());
        Self {
            version: VERSION,
            topic,
            topic_id,
            as_of: 0,
            max_away: 0,
            headers,
            isolation,
            next: 0,
            partitions: Vec::new(),
        }
    }

    /// A partition's part, which is there from now on.
    pub(super) fn partition(&mut self, number: Partition) -> &mut PartitionState {
        let index = match self.partitions.iter().position(|state| state.partition == number) {
            Some(index) => index,
            None => {
                let (last, segments) = (None, Vec::new());
                let state = PartitionState { partition: number, position: 0, last, compacted: 0, segments };
                self.partitions.push(state);
                self.partitions.len() - 1
            }
        };
        &mut self.partitions[index]
    }

    /// What its segments take.
    pub(super) fn bytes(&self) -> u64 {
        self.partitions.iter().map(PartitionState::bytes).sum()
    }

    /// Reads it, and checks that it is what was written.
    pub(super) fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(FILE);
        let text = match private::read(&path, MAX_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CheckpointError::Missing { folder: folder.to_owned() });
            }
            Err(error) => return Err(CheckpointError::io("read", &path)(error)),
        };
        Self::parse(&text, &path)
    }

    /// Checks that this is what was written to the file at a path.
    pub(super) fn parse(text: &[u8], path: &Path) -> Result<Self, CheckpointError> {
        let damaged = |error: serde_json::Error| CheckpointError::damaged(path, error.to_string());
        let sealed: Sealed<'_> = serde_json::from_slice(text).map_err(damaged)?;
        let inner = sealed.checkpoint.get();
        if crc32c::crc32c(inner.as_bytes()) != sealed.crc32c {
            return Err(CheckpointError::damaged(path, "its checksum is another"));
        }
        let manifest: Self = serde_json::from_str(inner).map_err(damaged)?;
        if manifest.version != VERSION {
            let reason = format!("it has version {}, and {VERSION} is known", manifest.version);
            return Err(CheckpointError::Unfit { reason });
        }
        Ok(manifest)
    }

    /// Puts it in the place of the one there is, when it is on the disk.
    pub(super) fn write(&self, folder: &Path) -> Result<(), CheckpointError> {
        let (draft, place) = (folder.join(DRAFT), folder.join(FILE));
        // OK because all of it are numbers and texts.
        let checkpoint = serde_json::value::to_raw_value(self).expect("serializes");
        let crc32c = crc32c::crc32c(checkpoint.get().as_bytes());
        let sealed = Sealed { crc32c, checkpoint: &checkpoint };
        // OK as above.
        let text = serde_json::to_vec(&sealed).expect("serializes");
        let written = private::create_options()
            .truncate(true)
            .open(&draft)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &place));
        written.map_err(|error| {
            // It may not be there.
            let _ = fs::remove_file(&draft);
            CheckpointError::io("write", &place)(error)
        })?;
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(CheckpointError::io("sync", folder))
    }
}
