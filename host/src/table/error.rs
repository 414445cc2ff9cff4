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
    /// The log failed. [`LogError::is_transient`] says whether it may help to start the table again.
    #[error(transparent)]
    Log(LogError),
    /// A record was rejected, in a table with [`OnReject::Halt`](crate::table::OnReject::Halt). Records without
    /// a key are rejected in every table, and never halt it.
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
    /// The codecs cannot be swapped while the table loads its topic: for the first time, with other codecs, or
    /// again after a failure or because the topic was replaced. Nor while another swap is prepared or kept.
    #[error(
        "topic `{topic}`: the table is loading its topic, or another swap is prepared or kept; swap the codecs later"
    )]
    Loading {
        /// The topic.
        topic: String,
    },
    /// Other codecs were prepared, and no longer follow the topic: it was replaced, or cannot be read.
    #[error("topic `{topic}`: the other codecs no longer follow the topic: {reason}; swap them again")]
    SwapFailed {
        /// The name of the topic.
        topic: String,
        /// What has happened.
        reason: String,
    },
    /// Other codecs were not swapped in, because the old and the new contents together exceed the memory limit
    /// of the table or of the process.
    #[error("topic `{topic}`: cannot load the topic with other codecs: {reason}")]
    MemoryLimit {
        /// The topic.
        topic: String,
        /// The limit, what is used, and the setting.
        reason: String,
    },
    /// The dead-letter topic cannot be used, or a swap rejects too many records to keep them until it succeeds.
    #[error("topic `{topic}`: dead-letter topic `{dead_letter}`: {reason}")]
    DeadLetters {
        /// The topic.
        topic: String,
        /// The dead-letter topic.
        dead_letter: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A codec of the table cannot be loaded, so its topic is not read. Only tables of `ktables serve` fail for this reason.
    #[error("topic `{topic}`: a codec cannot be loaded: {reason}")]
    NoCodec {
        /// The topic.
        topic: String,
        /// Which codec, and why.
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
