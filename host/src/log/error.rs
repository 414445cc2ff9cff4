//! What can go wrong with a log.

use std::io;
use std::path::{Path, PathBuf};

use crate::log::{Offset, Partition};

/// Why a log could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The URL names no kind of log.
    #[error("`{url}` names no log: write dir:PATH, for example dir:./data")]
    Url {
        /// What was given.
        url: String,
    },
    /// There is no topic of this name.
    #[error(
        "there is no topic `{topic}` in {log}: create it with `ktables topic ensure --log {log} --topic {topic}`"
    )]
    UnknownTopic {
        /// The log's URL.
        log: String,
        /// The topic.
        topic: String,
    },
    /// There is a topic of this name already.
    #[error("topic `{topic}` exists already in {log}")]
    TopicExists {
        /// The log's URL.
        log: String,
        /// The topic.
        topic: String,
    },
    /// No topic can have this name or these settings.
    #[error("topic `{topic}`: {reason}")]
    InvalidTopic {
        /// The topic.
        topic: String,
        /// What is wrong.
        reason: String,
    },
    /// The topic has no such partition.
    #[error("topic `{topic}` has no partition {partition}: it has {partitions}, counted from 0")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// What was asked for.
        partition: Partition,
        /// How many there are.
        partitions: Partition,
    },
    /// The topic is another one now, or has lost records that were read: what
    /// was materialized of it no longer stands for it.
    #[error("topic `{topic}`, partition {partition}: {reason}")]
    Replaced {
        /// The topic.
        topic: String,
        /// The partition where it showed.
        partition: Partition,
        /// What was seen.
        reason: String,
    },
    /// Bytes of the log are damaged.
    #[error(
        "topic `{topic}`, partition {partition}, offset {offset}: damaged at byte {position} of {}: {reason}. \
         Restore the file from a backup; records before this offset are intact",
        path.display()
    )]
    Corrupt {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The first offset that cannot be read.
        offset: Offset,
        /// The segment file.
        path: PathBuf,
        /// Where the batch begins in it.
        position: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The record can never be written.
    #[error("topic `{topic}`: this record cannot be written: {reason}")]
    InvalidRecord {
        /// The topic.
        topic: String,
        /// What is wrong.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::sync::Arc<io::Error>,
    },
    /// Changes of files cannot be watched.
    #[error(
        "cannot watch {} for changes: {reason}. On Linux, see whether \
         fs.inotify.max_user_instances and max_user_watches are too low",
        path.display()
    )]
    Watch {
        /// What was to be watched.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The log was closed under a call.
    #[error("the log was closed before the record was written")]
    Closed,
}

impl LogError {
    /// For `map_err` behind a call to the file system.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source: std::sync::Arc::new(source) }
    }
}
