//! The manifest of a checkpoint names everything that belongs to it. It has a checksum, and is replaced as
//! a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::checkpoint::CheckpointError;
use crate::log::{Isolation, NO_TIMESTAMP, Offset, Partition, RecordBatch};
use crate::private;

/// The file name of the manifest.
pub(super) const FILE_NAME: &str = "checkpoint.json";

/// The file name of a new manifest, before it is renamed.
pub(super) const DRAFT_NAME: &str = "checkpoint.draft";

/// The maximum size of a manifest. A checkpoint of one terabyte has 32,768 segments, each of
/// which takes a hundred bytes here.
const MAX_BYTES: usize = 64 << 20;

/// The version of the format.
const VERSION: u32 = 1;

/// The content of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    version: u32,
    pub(super) topic: String,
    pub(super) topic_id: String,
    /// The time as of which it has all records of the topic, in milliseconds since 1970.
    pub(super) as_of: i64,
    /// The greatest age that the checkpoint had when a table confirmed that it is complete again, in
    /// milliseconds.
    pub(super) max_away: i64,
    /// Whether the records have headers.
    pub(super) headers: bool,
    pub(super) isolation: Isolation,
    /// The number of the newest segment.
    pub(super) last_number: u64,
    pub(super) partitions: Vec<PartitionState>,
}

/// The part of a checkpoint that belongs to one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartitionState {
    pub(super) partition: Partition,
    /// The offset after everything that was read.
    pub(super) position: Offset,
    /// The last record that was read; `None` if there was none.
    pub(super) last: Option<LastRecord>,
    /// The size after the last compaction, in bytes.
    pub(super) compacted: u64,
    /// In the order of their offsets.
    pub(super) segments: Vec<SegmentInfo>,
}

impl PartitionState {
    /// The size of its segments, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

/// Identifies the last record that was read. A log that was truncated and has grown again has another
/// record at its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LastRecord {
    pub(super) offset: Offset,
    timestamp: i64,
    crc32c: u32,
}

/// A segment: its file, and what to verify when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentInfo {
    pub(super) file: String,
    /// The length in bytes. The file may be longer; the rest does not belong to the segment.
    pub(super) bytes: u64,
    pub(super) crc32c: u32,
    pub(super) records: u64,
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct ManifestFile<'a> {
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
        Self { offset: record.offset, timestamp: record.timestamp.unwrap_or(NO_TIMESTAMP), crc32c }
    }

    /// Returns false if the batch begins with another record at the same offset.
    pub(super) fn is_consistent_with(&self, batch: &RecordBatch) -> bool {
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
            last_number: 0,
            partitions: Vec::new(),
        }
    }

    /// Returns the part of a partition. Adds it if it does not exist.
    pub(super) fn partition_mut(&mut self, number: Partition) -> &mut PartitionState {
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

    /// The size of all segments, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.partitions.iter().map(PartitionState::bytes).sum()
    }

    /// Reads the manifest in a folder, and verifies it.
    pub(super) fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(FILE_NAME);
        let text = match private::read(&path, MAX_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CheckpointError::Missing { folder: folder.to_owned() });
            }
            Err(error) => return Err(CheckpointError::io("read", &path)(error)),
        };
        Self::parse(&text, &path)
    }

    /// Parses and verifies the content of the file at `path`.
    pub(super) fn parse(text: &[u8], path: &Path) -> Result<Self, CheckpointError> {
        let damaged = |error: serde_json::Error| CheckpointError::damaged(path, error.to_string());
        let file: ManifestFile<'_> = serde_json::from_slice(text).map_err(damaged)?;
        let inner = file.checkpoint.get();
        if crc32c::crc32c(inner.as_bytes()) != file.crc32c {
            return Err(CheckpointError::damaged(path, "its checksum does not match"));
        }
        let manifest: Self = serde_json::from_str(inner).map_err(damaged)?;
        if manifest.version != VERSION {
            let version = manifest.version;
            let reason = format!("its format has version {version}, and only {VERSION} is supported");
            return Err(CheckpointError::Unusable { reason });
        }
        Ok(manifest)
    }

    /// Writes the manifest to the disk, then replaces the old one.
    pub(super) fn write(&self, folder: &Path) -> Result<(), CheckpointError> {
        let (draft, path) = (folder.join(DRAFT_NAME), folder.join(FILE_NAME));
        // OK because it consists of numbers and texts.
        let checkpoint = serde_json::value::to_raw_value(self).expect("serializes");
        let crc32c = crc32c::crc32c(checkpoint.get().as_bytes());
        let file = ManifestFile { crc32c, checkpoint: &checkpoint };
        // OK for the same reason.
        let text = serde_json::to_vec(&file).expect("serializes");
        let written = private::create_options()
            .truncate(true)
            .open(&draft)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &path));
        written.map_err(|error| {
            // OK to ignore: the draft may not exist.
            let _ = fs::remove_file(&draft);
            CheckpointError::io("write", &path)(error)
        })?;
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(CheckpointError::io("sync", folder))
    }
}
