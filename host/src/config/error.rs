//! The error of reading a configuration, and of opening the logs, codecs and tables that it names.

use crate::file::FileError;
use crate::log::LogError;
use crate::oci::OciError;
use crate::wasm::WasmError;

/// Why a configuration cannot be read, or something that it names cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The configuration is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A component cannot be loaded.
    #[error(transparent)]
    Component(#[from] WasmError),
    /// A component cannot be read from where it is, or a policy does not allow it.
    #[error(transparent)]
    Artifact(OciError),
}
