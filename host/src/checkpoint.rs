//! A checkpoint: the records of a topic kept in a local folder, so that a table that starts
//! again reads from the log only what came since.
//!
//! ```text
//! DIR/checkpoint.json             what there is, how far it reaches, as of when
//! DIR/PARTITION-OFFSET-NUMBER.log segments, in the directory log's format
//! DIR/lock                        held by the table that writes it
//! ```
//!
//! Records are kept raw, so that another codec can be loaded from them. They are appended
//! as they stream past, and compacted in the background: of each raw key the newest record
//! stays, and if that was rejected, the newest one that was not.
//!
//! Invariants:
//! - The manifest names each segment with its length and checksum, and is replaced as a
//!   whole after they are on the disk: what it does not name is not there, so a process may
//!   be killed at any time.
//! - It is not written before the table is complete, and says as of when it is: a record
//!   above its positions came later. As long as the log keeps tombstones for longer than
//!   that is ago, or was before it was said anew, none can be missed.
//! - What compaction drops is gone for a codec that would accept less than the one that
//!   kept it, as if the broker had compacted.
//! - Whatever is wrong with a checkpoint, the table replays its topic, and says why.
//!
//! Knows nothing of codecs and tables.

mod compact;
mod error;
mod load;
mod manifest;
mod segment;
mod writer;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use error::CheckpointError;
pub(crate) use load::{Loaded, Wanted};
pub(crate) use writer::{CheckpointRecord, CheckpointWriter};

use crate::log::{Offset, Partition};
use crate::private;
use manifest::Manifest;
use segment::verified;

/// A folder with a checkpoint, or for one, that nobody else uses.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    folder: PathBuf,
    /// Locked while this lives.
    lock: File,
}

impl Checkpoint {
    /// Opens a folder, which is made if it is not there.
    pub(crate) fn open(folder: &Path) -> Result<Self, CheckpointError> {
        if !private::claim_folder(folder).map_err(CheckpointError::io("create", folder))? {
            let reason = format!(
                "its folder {0} is open to other users, so that what is in it may be theirs: delete it (rm -r \
                 {0}), it is made again",
                folder.display()
            );
            return Err(CheckpointError::Unfit { reason });
        }
        let path = folder.join("lock");
        let lock = private::create_options().truncate(false).open(&path);
        let lock = lock.map_err(CheckpointError::io("open", &path))?;
        match lock.try_lock() {
            // One that was removed meanwhile keeps nobody out.
            Ok(()) if !is_at(&lock, &path) => Self::open(folder),
            Ok(()) => Ok(Self { folder: folder.to_owned(), lock }),
            Err(fs::TryLockError::WouldBlock) => Err(CheckpointError::Used { folder: folder.to_owned() }),
            Err(fs::TryLockError::Error(error)) => Err(CheckpointError::io("lock", &path)(error)),
        }
    }

    /// Fails if somebody has removed the lock, so that others may use the folder.
    pub(crate) fn check_lock(&self) -> Result<(), CheckpointError> {
        match is_at(&self.lock, &self.folder.join("lock")) {
            true => Ok(()),
            false => Err(CheckpointError::Used { folder: self.folder.clone() }),
        }
    }

    /// What there is, if it is sound as far as can be seen without reading it.
    pub(crate) fn load(&self, wanted: &Wanted<'_>) -> Result<Loaded, CheckpointError> {
        Loaded::new(&self.folder, Manifest::read(&self.folder)?, wanted)
    }
}

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// The topic's name.
    pub topic: String,
    /// The topic's identity.
    pub topic_id: String,
    /// As of when it is complete.
    pub as_of: SystemTime,
    /// Whether records are kept with their headers.
    pub headers: bool,
    /// How far it reaches, by partition.
    pub positions: Vec<(Partition, Offset)>,
    /// The records in it, of which some may be replaced by others.
    pub records: u64,
    /// What they take on the disk.
    pub bytes: u64,
}

/// Reads a whole checkpoint, and checks every byte of it.
///
/// # Errors
///
/// [`CheckpointError`] says what is wrong with it, and where.
pub fn inspect(folder: &Path) -> Result<CheckpointInfo, CheckpointError> {
    let mut manifest = Manifest::read(folder)?;
    loop {
        let mut segments = manifest.partitions.iter().flat_map(|partition| &partition.segments);
        let Err(error) = segments.try_for_each(|segment| verified(folder, segment).map(drop)) else { break };
        // A table that writes it may have replaced what is looked at.
        match Manifest::read(folder)? {
            newer if newer != manifest => manifest = newer,
            _ => return Err(error),
        }
    }
    let records = manifest.partitions.iter().flat_map(|partition| &partition.segments);
    let records = records.map(|segment| segment.records).sum();
    let bytes = manifest.bytes();
    let position = |partition: &manifest::PartitionState| (partition.partition, partition.position);
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

/// Removes a checkpoint, and its folder if nothing else is in it.
///
/// # Errors
///
/// [`CheckpointError::Missing`] if there is none, [`CheckpointError::Used`] if a table
/// writes it.
pub fn remove(folder: &Path) -> Result<(), CheckpointError> {
    if !folder.join(manifest::FILE).exists() && segment::files(folder)?.is_empty() {
        return Err(CheckpointError::Missing { folder: folder.to_owned() });
    }
    let checkpoint = Checkpoint::open(folder)?;
    clear(folder)?;
    let lock = folder.join("lock");
    fs::remove_file(&lock).map_err(CheckpointError::io("remove", &lock))?;
    drop(checkpoint);
    // Something else may be in it.
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// Whether this file is the one at this path.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().map(identity).ok() == fs::metadata(path).map(identity).ok()
}

/// Removes the manifest, then everything that it named.
fn clear(folder: &Path) -> Result<(), CheckpointError> {
    let own = [manifest::FILE, manifest::DRAFT].map(|name| folder.join(name));
    for path in own.into_iter().chain(segment::files(folder)?) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CheckpointError::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads a manifest's bytes, for fuzzers.
#[cfg(any(feature = "fuzzing", all(test, feature = "cli")))]
pub(crate) fn parse_manifest(bytes: &[u8], path: &Path) {
    // Either is an answer.
    let _ = Manifest::parse(bytes, path);
}
