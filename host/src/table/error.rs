//! What ends a table.

use crate::log::LogError;

/// Why a table could not be started, or stopped following its topic.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The log failed in a way that trying again does not mend.
    #[error(transparent)]
    Log(LogError),
}

/// Both are this project's own: the log's layer lies below the table's.
impl From<LogError> for TableError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}
