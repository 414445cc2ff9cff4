//! Errors of checkpoints.

use std::io;
use std::path::{Path, PathBuf};

use crate::file::FileError;

/// Why a checkpoint cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The folder has no checkpoint.
    #[error("there is no checkpoint in {}", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// A table is writing the checkpoint.
    #[error(
        "a table, possibly in another process, is using the checkpoint in {}: stop that table, or give each \
         table its own folder",
        folder.display()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The lock file was removed or replaced while a table was writing the checkpoint.
    #[error(
        "{} was removed or replaced, so another table may use the checkpoint: start this table again to write \
         a checkpoint again",
        path.display()
    )]
    Unlocked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file of the checkpoint is malformed, incomplete, or does not match its checksum.
    #[error("the checkpoint is damaged: {}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The checkpoint must not be used, although no damage was found: it does not match the topic or the
    /// table's options, is too old or of unknown age, has another format, or its folder is open to other users.
    #[error("the checkpoint is not usable: {reason}")]
    Unusable {
        /// Why it is not usable.
        reason: String,
    },
    /// The disk does not keep up with the table.
    #[error("writing the checkpoint takes too long: the disk does not keep up with the records of the topic")]
    TooSlow,
    /// The checkpoint was finished: another generation of the table, or another table, may continue it.
    #[error("the checkpoint was finished, so that another generation of the table can continue it")]
    Finished,
    /// The work on the checkpoint panicked.
    #[error("the work on the checkpoint panicked; this is a defect of ktables")]
    Panicked,
    /// A file or folder of a checkpoint could not be read or written.
    #[error(transparent)]
    Io(#[from] FileError),
}

impl CheckpointError {
    /// Returns a function for `map_err` after a call to the file system. `action` is a verb, and a
    /// preposition if it needs one.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        FileError::of(action, path)
    }

    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }
}
