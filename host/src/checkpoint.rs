//! Checkpoints: the records of a topic in a local folder. A table that starts with a checkpoint reads only
//! newer records from the log.
//!
//! ```text
//! DIR/checkpoint.json             the manifest: segments, positions, and the time they are complete as of
//! DIR/PARTITION-OFFSET-NUMBER.log segments, in the directory log's format; NUMBER counts up, so that a
//!                                 compacted segment never replaces one that is in use
//! DIR/lock                        locked by the table that writes the checkpoint
//! ```
//!
//! Records are stored raw, so that another codec can decode them. They are appended as the table applies
//! them, and compacted in the background: compaction keeps the newest record of each raw key and, if that
//! record was rejected, also the newest one that was accepted.
//!
//! Invariants:
//! - The manifest names each segment with its length and checksum, and is replaced as a whole after the
//!   segments are on the disk. Bytes that it does not name are ignored, so the process may be killed at any
//!   time.
//! - The manifest is first written when the table is complete, and holds the time as of which it is
//!   complete: records above its positions are later. No tombstone can be missed as long as the log keeps
//!   tombstones for longer than the age of the checkpoint, now and at every earlier time when a table
//!   continued it.
//! - A record that compaction dropped is lost to a codec that accepts less than the codec with which
//!   the table applied the record, just as if the broker had compacted the topic.
//! - If anything is wrong with a checkpoint, the table replays its topic and reports the reason.
//!
//! This module knows nothing of codecs and tables.

mod compact;
mod error;
mod load;
mod manifest;
mod readers;
mod record;
mod segment;
mod writer;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use error::CheckpointError;
pub(crate) use load::{LoadRequirements, LoadedCheckpoint};
pub(crate) use record::CheckpointRecord;
pub(crate) use writer::CheckpointWriter;

use crate::log::{Offset, Partition};
use crate::private;
use manifest::Manifest;
use readers::{Reader, Readers};
use segment::read_verified;

/// How many times [`inspect`] tries to read a checkpoint whose files a table replaces meanwhile.
const MAX_INSPECT_ATTEMPTS: usize = 10;

/// A folder that holds a checkpoint or will hold one, locked against other tables and commands.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    folder: PathBuf,
    /// Locked as long as this value exists.
    lock: File,
    readers: Arc<Readers>,
}

impl Checkpoint {
    /// Opens and locks a folder. Creates it if it does not exist.
    pub(crate) fn open(folder: &Path) -> Result<Self, CheckpointError> {
        if !private::claim_folder(folder).map_err(CheckpointError::io("create", folder))? {
            let reason = format!(
                "other users have access to its folder {0} and may have changed its files: delete the folder \
                 (rm -r {0}); the table creates it again",
                folder.display()
            );
            return Err(CheckpointError::Unusable { reason });
        }
        let path = folder.join("lock");
        let lock = private::create_options().truncate(false).open(&path);
        let lock = lock.map_err(CheckpointError::io("open", &path))?;
        match lock.try_lock() {
            // Somebody removed the file meanwhile, so its lock protects nothing.
            Ok(()) if !is_at(&lock, &path) => Self::open(folder),
            Ok(()) => Ok(Self { folder: folder.to_owned(), lock, readers: Arc::default() }),
            Err(fs::TryLockError::WouldBlock) => Err(CheckpointError::InUse { folder: folder.to_owned() }),
            Err(fs::TryLockError::Error(error)) => Err(CheckpointError::io("lock", &path)(error)),
        }
    }

    /// Fails if somebody has removed the lock file: then others may use the folder.
    pub(crate) fn check_lock(&self) -> Result<(), CheckpointError> {
        match is_at(&self.lock, &self.folder.join("lock")) {
            true => Ok(()),
            false => Err(CheckpointError::Unlocked { path: self.folder.join("lock") }),
        }
    }

    /// Reads the manifest and checks that it is intact and meets the requirements. The segments are checked
    /// when they are read. Another generation may be writing the checkpoint.
    pub(crate) fn load(
        &self,
        requirements: &LoadRequirements<'_>,
    ) -> Result<LoadedCheckpoint, CheckpointError> {
        // In this order: a segment that the manifest names must not be removed once the manifest was read.
        let reader = Reader::new(&self.readers);
        LoadedCheckpoint::new(&self.folder, Manifest::read(&self.folder)?, requirements, reader)
    }
}

/// A summary of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// The topic's name.
    pub topic: String,
    /// The topic's identity.
    pub topic_id: String,
    /// The time as of which it is complete: it has all records that the topic held then.
    pub as_of: SystemTime,
    /// Whether records are stored with their headers: only if the codec needs them.
    pub headers: bool,
    /// For each partition, the offset up to which it has all records.
    pub positions: Vec<(Partition, Offset)>,
    /// The number of records, including records that newer ones replace and that are not compacted yet.
    pub records: u64,
    /// The size of all records on the disk, in bytes.
    pub bytes: u64,
}

/// Reads a whole checkpoint, verifies every byte of it, and returns a summary. A table may be writing it.
///
/// # Errors
///
/// [`CheckpointError`] if the checkpoint does not exist, cannot be read, or is damaged; it names the file.
pub fn inspect(folder: &Path) -> Result<CheckpointInfo, CheckpointError> {
    let mut manifest = Manifest::read(folder)?;
    for attempt in 1.. {
        let mut segments = manifest.partitions.iter().flat_map(|state| &state.segments);
        let verified = segments.try_for_each(|segment| read_verified(folder, segment).map(drop));
        let Err(error) = verified else { break };
        // A table may have replaced the segments meanwhile.
        match Manifest::read(folder)? {
            newer if newer != manifest && attempt < MAX_INSPECT_ATTEMPTS => manifest = newer,
            _ => return Err(error),
        }
    }
    let segments = manifest.partitions.iter().flat_map(|state| &state.segments);
    let records = segments.map(|segment| segment.records).sum();
    let bytes = manifest.bytes();
    let position = |state: &manifest::PartitionState| (state.partition, state.position);
    Ok(CheckpointInfo {
        positions: manifest.partitions.iter().map(position).collect(),
        topic: manifest.topic,
        topic_id: manifest.topic_id,
        as_of: UNIX_EPOCH + Duration::from_millis(u64::try_from(manifest.as_of).unwrap_or(0)),
        headers: manifest.headers,
        records,
        bytes,
    })
}

/// Removes a checkpoint, and its folder if the folder is empty then.
///
/// # Errors
///
/// [`CheckpointError::Missing`] if there is no checkpoint, [`CheckpointError::InUse`] if a table is writing
/// it.
pub fn remove(folder: &Path) -> Result<(), CheckpointError> {
    if !folder.join(manifest::FILE_NAME).exists() && segment::list_files(folder)?.is_empty() {
        return Err(CheckpointError::Missing { folder: folder.to_owned() });
    }
    let checkpoint = Checkpoint::open(folder)?;
    clear(folder)?;
    let lock = folder.join("lock");
    fs::remove_file(&lock).map_err(CheckpointError::io("remove", &lock))?;
    drop(checkpoint);
    // OK to ignore: the folder may hold other files.
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// Whether `path` leads to this open file.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().map(identity).ok() == fs::metadata(path).map(identity).ok()
}

/// Removes the manifest, then all segments.
fn clear(folder: &Path) -> Result<(), CheckpointError> {
    let manifests = [manifest::FILE_NAME, manifest::DRAFT_NAME].map(|name| folder.join(name));
    for path in manifests.into_iter().chain(segment::list_files(folder)?) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CheckpointError::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Parses the bytes of a manifest, for fuzzers.
#[cfg(any(feature = "fuzzing", all(test, feature = "cli")))]
pub(crate) fn parse_manifest(bytes: &[u8], path: &Path) {
    // OK to ignore: fuzzers look for panics only.
    let _ = Manifest::parse(bytes, path);
}
