//! The results of commands, and their exit codes.

use std::io;

use crate::checkpoint::CheckpointError;
use crate::codec::HostFailure;
use crate::config::ConfigError;
use crate::file::FileError;
use crate::log::LogError;
use crate::oci::OciError;
use crate::registry::RegistryError;
use crate::serve::ServeError;
use crate::table::TableError;
use crate::wasm::WasmError;
use crate::writer::WriteError;

/// The result of a command that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// The command succeeded.
    Done,
    /// The answer is no: something was not found, was refused, or failed a check.
    No,
    /// The table is degraded: the answer may be incomplete.
    Degraded,
}

impl Exit {
    /// Returns the exit code of the process.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Degraded => 4,
        }
    }
}

/// The reason why a command did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The arguments or the configuration are wrong.
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
    /// A write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A checkpoint cannot be inspected or removed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The host failed while it ran a codec.
    #[error(transparent)]
    Codec(#[from] HostFailure),
    /// A dead letter could not be retried.
    #[error("{0}")]
    Retry(String),
    /// A server cannot be used.
    #[error("{0}")]
    Server(String),
    /// A server has refused what it was asked for.
    #[error("{0}")]
    Refused(String),
    /// The table of a server is loading, or does not show a write in time.
    #[error("{0}")]
    Incomplete(String),
    /// A codec cannot be fetched or verified.
    #[error("{0}")]
    Codecs(String),
    /// The server cannot run.
    #[error("{0}")]
    Serve(String),
    /// A file or folder could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A task of the command panicked.
    #[error("{0}: please report this defect of ktables")]
    Panicked(String),
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    /// The command was interrupted by a signal, for example Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl From<tokio::task::JoinError> for CliError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Panicked(error.to_string())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Invalid(reason) => Self::Usage(reason),
            ConfigError::File(error) => Self::File(error),
            ConfigError::Log(error) => Self::Log(error),
            ConfigError::Component(error) => Self::Component(error),
            // The file of a codec is like any other one.
            ConfigError::Artifact(OciError::File(error)) => Self::File(error),
            ConfigError::Artifact(error) => Self::Codecs(error.to_string()),
        }
    }
}

impl From<OciError> for CliError {
    fn from(error: OciError) -> Self {
        match error {
            OciError::Refused(reason) | OciError::NotFound(reason) => Self::Refused(reason),
            OciError::Usage(reason) => Self::Usage(reason),
            OciError::Failed(reason) => Self::Codecs(reason),
            OciError::File(error) => Self::File(error),
        }
    }
}

impl From<RegistryError> for CliError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Options(reason) => Self::Usage(reason),
            RegistryError::Forbidden { .. } => Self::Usage(error.to_string()),
            RegistryError::NotFound { .. } | RegistryError::Refused { .. } => {
                Self::Refused(error.to_string())
            }
            RegistryError::Unavailable { .. }
            | RegistryError::BadAnswer { .. }
            | RegistryError::BadSchema { .. } => Self::Server(error.to_string()),
        }
    }
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Config(error) => error.into(),
            ServeError::File(error) => Self::File(error),
            error => Self::Serve(error.to_string()),
        }
    }
}

impl CliError {
    /// Returns the exit code of the process.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Log(error) | Self::Table(TableError::Log(error)) | Self::Write(WriteError::Log(error)) => {
                log_code(error)
            }
            Self::Usage(_)
            | Self::Table(TableError::DeadLetters { .. })
            | Self::Component(
                WasmError::InvalidDigest { .. }
                | WasmError::MissingExport { .. }
                | WasmError::InvalidConfiguration { .. },
            )
            | Self::Write(WriteError::NoGroupScheme { .. }) => 2,
            // Refused: nothing was written.
            Self::Refused(_)
            | Self::Write(
                WriteError::InvalidJson { .. }
                | WriteError::Rejected { .. }
                | WriteError::NotVerified { .. }
                | WriteError::InvalidRecord { .. },
            ) => 1,
            // Written, but the table is late.
            Self::Incomplete(_) | Self::Write(WriteError::NotVisible { .. }) => 4,
            _ => 3,
        }
    }
}

/// Returns the exit code for an error of the log.
fn log_code(error: &LogError) -> u8 {
    match error {
        LogError::InvalidUrl { .. }
        | LogError::InvalidProperty { .. }
        | LogError::InvalidTopic { .. }
        | LogError::UnknownPartition { .. } => 2,
        LogError::PolicyMismatch { .. } => 1,
        _ => 3,
    }
}
