//! Where a generation starts, and the records of a partition before they are decoded: from a
//! checkpoint, then from the log.

use std::sync::Arc;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::log::{LogError, StreamItem};

/// Where a generation starts.
#[derive(Debug, Default)]
pub(in crate::table) struct GenerationStart {
    /// The checkpoint to load, if the table has one.
    pub(in crate::table) checkpoint: Option<Arc<Checkpoint>>,
    /// Whether the generation continues the checkpoint. Otherwise, another generation does.
    pub(in crate::table) writes_checkpoint: bool,
    /// Why the checkpoint must not be loaded.
    pub(in crate::table) distrusted: Option<CheckpointError>,
}

/// Where an item comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::table) enum Origin {
    Log,
    Checkpoint,
}

/// An item of a partition's stream, with its origin.
#[derive(Debug)]
pub(super) struct SourceItem {
    pub(super) item: StreamItem,
    pub(super) origin: Origin,
}

/// An error that ends the stream of a partition.
#[derive(Debug)]
pub(super) enum StreamError {
    Log(LogError),
    Checkpoint(CheckpointError),
}

impl From<LogError> for StreamError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}
