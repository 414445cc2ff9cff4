//! What can be wrong with a checkpoint.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a checkpoint cannot be used, or not be written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// There is none.
    #[error("there is no checkpoint in {}", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// Another table writes it.
    #[error("another table, maybe of another process, uses the checkpoint in {}", folder.display())]
    Used {
        /// The folder.
        folder: PathBuf,
    },
    /// Its bytes are not those that were written.
    #[error("the checkpoint is damaged: {}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It does not fit the topic as it is now, or what is wanted of it.
    #[error("the checkpoint does not fit: {reason}")]
    Unfit {
        /// Why not.
        reason: String,
    },
    /// The disk does not keep up with the table.
    #[error("the disk does not take the checkpoint as fast as records come")]
    Slow,
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
}

impl CheckpointError {
    /// For `map_err` behind a call to the file system.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }
}
