//! How a command ends.

use std::io;

use crate::checkpoint::CheckpointError;
use crate::codec::HostFailure;
use crate::log::LogError;
use crate::table::TableError;
use crate::wasm::WasmError;
use crate::writer::WriteError;

/// How a command that did its work ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The answer is no: not found, check failed.
    No,
    /// The table is degraded: the answer may be incomplete.
    Degraded,
}

impl Exit {
    /// Its exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Degraded => 4,
        }
    }
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The arguments or the configuration are of no use.
    #[error("{0}")]
    Usage(String),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The table failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A component cannot be used.
    #[error(transparent)]
    Component(#[from] WasmError),
    /// Nothing was written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A checkpoint cannot be looked at or removed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The host failed.
    #[error(transparent)]
    Codec(#[from] HostFailure),
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    /// Ctrl-C, or a request to end.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// Its exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Log(LogError::Url { .. } | LogError::Property { .. })
            | Self::Component(WasmError::InvalidDigest { .. }) => 2,
            Self::Log(LogError::PolicyMismatch { .. }) => 1,
            Self::Write(error) if !matches!(error, WriteError::Log(_) | WriteError::Codec(_)) => 1,
            _ => 3,
        }
    }

    /// For `map_err` behind a call to the file system.
    pub(super) fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { action, path, source }
    }
}
