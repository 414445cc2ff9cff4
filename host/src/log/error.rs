//! What can go wrong with a log.

use std::io;
use std::path::{Path, PathBuf};

use crate::log::{Offset, Partition};

/// Why a log could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The URL names no kind of log.
    #[error(
        "`{url}` names no log: {reason}. Write kafka://HOST:PORT,HOST:PORT or dir:PATH, \
         for example kafka://localhost:9092 or dir:./data"
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A property or an option is of no use.
    #[error("property `{name}`: {reason}")]
    Property {
        /// Its name. Its value is never shown: it may be a secret.
        name: String,
        /// What is wrong, or what is meant instead.
        reason: String,
    },
    /// A client of the cluster cannot be started.
    #[error("cannot start a client for {log}: {reason}")]
    Client {
        /// The log's URL.
        log: String,
        /// What it said.
        reason: String,
    },
    /// No answer, or none that is of use now. It may pass.
    #[error(
        "cannot {action} topic `{topic}` in {log} now: {reason}. \
         Do the address and security.protocol fit the brokers?"
    )]
    Unreachable {
        /// The log's URL.
        log: String,
        /// The topic.
        topic: String,
        /// What was to be done.
        action: &'static str,
        /// What it looked like.
        reason: String,
    },
    /// The cluster does not accept who we say we are.
    #[error("{log} does not let us in: {reason}. See the sasl.* and ssl.* properties")]
    Authentication {
        /// The log's URL.
        log: String,
        /// What was said.
        reason: String,
    },
    /// A right is missing.
    #[error("no right to {action} topic `{topic}` in {log}: {reason}. Ask for {}", rights(action))]
    Denied {
        /// The log's URL.
        log: String,
        /// The topic.
        topic: String,
        /// What was to be done.
        action: &'static str,
        /// What was said.
        reason: String,
    },
    /// The broker refused for another reason.
    #[error("cannot {action} topic `{topic}` in {log}: {reason}")]
    Broker {
        /// The log's URL.
        log: String,
        /// The topic.
        topic: String,
        /// What was to be done.
        action: &'static str,
        /// What was said.
        reason: String,
    },
    /// A record was queued and not acknowledged: it may have been written or not.
    #[error(
        "topic `{topic}` in {log}: a record was not acknowledged: {reason}. It may have been written or not"
    )]
    Undelivered {
        /// The log's URL.
        log: String,
        /// The topic.
        topic: String,
        /// What was said.
        reason: String,
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
    /// The topic is not compacted, and that is an error.
    #[error(
        "topic `{topic}` has cleanup.policy={actual} and should have {wanted}: entries that are not written \
         again would be lost. Change it (`ktables topic ensure --on-policy-mismatch reconcile` does), or use \
         on_policy_mismatch = \"warn\""
    )]
    PolicyMismatch {
        /// The topic.
        topic: String,
        /// The policy that is wanted.
        wanted: String,
        /// The policy that it has.
        actual: String,
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
    /// A fetched batch is damaged.
    #[error("topic `{topic}`, partition {partition}, offset {offset}: a fetched batch is damaged: {reason}")]
    CorruptBatch {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The first offset that cannot be read.
        offset: Offset,
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
    /// Another process holds the lock that a write needs: nothing was written.
    #[error(
        "topic `{topic}`, partition {partition}: another process holds the lock of {}, and nothing was \
         written. See which one does: fuser -v {}/lock",
        path.display(), path.display()
    )]
    Locked {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// Its folder.
        path: PathBuf,
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
    #[error("the log was closed under a call")]
    Closed,
}

/// The rights, by Kafka's names, that it takes to do this to a topic.
fn rights(action: &str) -> &'static str {
    match action {
        "create" => "CREATE",
        "look at the settings of" => "DESCRIBE_CONFIGS",
        "change the settings of" => "ALTER_CONFIGS",
        "write to" | "begin a transaction for" | "write in a transaction to" => "WRITE",
        _ => "DESCRIBE and READ",
    }
}

impl LogError {
    /// Whether it may pass by itself, so that it makes sense to try again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Locked { .. } | Self::Watch { .. } | Self::Unreachable { .. })
    }

    /// For `map_err` behind a call to the file system.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source: std::sync::Arc::new(source) }
    }
}
