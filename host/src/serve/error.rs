//! Why a server cannot run.

use crate::config::ConfigError;
use crate::file::FileError;
use crate::serve::net::ListenError;
use crate::table::TableError;

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// An address cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// It cannot be done now.
    #[error("{0}")]
    NotNow(&'static str),
    /// A table cannot be opened.
    #[error("table `{table}`: {source}")]
    Table {
        /// Its name in the configuration.
        table: String,
        /// What is wrong.
        source: TableError,
    },
}
