//! What ends a table.

use crate::log::LogError;
use crate::table::reject::Reject;

/// Why a table could not be started, or stopped following its topic.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The log failed in a way that trying again does not mend.
    #[error(transparent)]
    Log(LogError),
    /// A record was rejected, and the table halts then.
    #[error(
        "topic `{topic}`, partition {}, offset {}: a record was rejected, and this table halts then: {}. Mend \
         the codec or write the key again, delete the record, or choose another `on_reject`",
        reject.partition, reject.offset, reject.rejection
    )]
    Halted {
        /// The topic.
        topic: String,
        /// The record.
        reject: Box<Reject>,
    },
    /// The table's task panicked.
    #[error("topic `{topic}`: the task of the table panicked; this is a defect of ktables")]
    Panicked {
        /// The topic.
        topic: String,
    },
}

impl TableError {
    pub(super) fn halted(topic: &str, reject: Reject) -> Self {
        Self::Halted { topic: topic.to_owned(), reject: Box::new(reject) }
    }
}

/// Both are this project's own: the log's layer lies below the table's.
impl From<LogError> for TableError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}
