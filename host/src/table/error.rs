//! Errors of tables.

use crate::escape::escape_name;
use crate::log::LogError;
use crate::table::reject::RejectedRecord;

/// A value does not fit the type that it was parsed into.
#[derive(Debug, thiserror::Error)]
#[error("key `{}`: the value does not fit the type: {source}", escape_name(key))]
pub struct ParseError {
    pub(in crate::table) key: String,
    pub(in crate::table) source: serde_json::Error,
}

/// Why a table could not be started, no longer follows its topic, or refused a request.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The log failed, and trying again will not help.
    #[error(transparent)]
    Log(LogError),
    /// A record was rejected, in a table with [`OnReject::Halt`](crate::table::OnReject::Halt).
    #[error(
        "topic `{topic}`, partition {}, offset {}: a record was rejected, and `on_reject` is `halt`: {}. \
         Repair the codec, or choose another `on_reject`. Writing the key again helps only once the log has \
         compacted this record away",
        reject.partition, reject.offset, reject.reason
    )]
    Halted {
        /// The topic.
        topic: String,
        /// The record.
        reject: Box<RejectedRecord>,
    },
    /// The table's task panicked.
    #[error("topic `{topic}`: the task of the table panicked; this is a defect of ktables")]
    Panicked {
        /// The topic.
        topic: String,
    },
    /// The codecs cannot be swapped while the table loads its topic again, with other codecs or because the
    /// topic was replaced.
    #[error(
        "topic `{topic}`: the table is already loading its topic again; swap the codecs when that is complete"
    )]
    SwapInProgress {
        /// The topic.
        topic: String,
    },
    /// Other codecs were not swapped in, because two generations together exceed a memory limit.
    #[error("topic `{topic}`: cannot load the topic with other codecs: {reason}")]
    MemoryLimit {
        /// The topic.
        topic: String,
        /// The limit, what is used, and the setting.
        reason: String,
    },
    /// The table has failed or was stopped.
    #[error("topic `{topic}`: the table has failed or was stopped; start another one")]
    Ended {
        /// The topic.
        topic: String,
    },
}

impl TableError {
    pub(super) fn halted(topic: &str, reject: RejectedRecord) -> Self {
        Self::Halted { topic: topic.to_owned(), reject: Box::new(reject) }
    }
}

/// Errors of the log convert with `?`, because the layer of the log is below the layer of tables.
impl From<LogError> for TableError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}
