//! Errors of logs.

use std::io;
use std::path::{Path, PathBuf};

use crate::file::FileError;
use crate::log::{Offset, Partition};

/// Why a log could not do what it was asked to do.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The URL is not the URL of a log.
    #[error(
        "`{url}` is not the URL of a log: {reason}. Write kafka://HOST:PORT,HOST:PORT or dir:PATH, \
         for example kafka://localhost:9092 or dir:./data"
    )]
    InvalidUrl {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A property or an option is not valid.
    #[error("property `{name}`: {reason}")]
    InvalidProperty {
        /// The name. The value is never shown, because it may be a secret.
        name: String,
        /// What is wrong, or what to set instead.
        reason: String,
    },
    /// A client of the cluster cannot be started.
    #[error("cannot start a client for {log}: {reason}")]
    Client {
        /// The URL of the log.
        log: String,
        /// What librdkafka or the operating system said.
        reason: String,
    },
    /// No broker answered, or the cluster cannot do it at present. Trying again may help.
    #[error("cannot {action} topic `{topic}` in {log} now: {reason}")]
    Unreachable {
        /// The URL of the log.
        log: String,
        /// The topic.
        topic: String,
        /// What was being done.
        action: &'static str,
        /// The last error, and what to check.
        reason: String,
    },
    /// The cluster refuses the credentials.
    #[error("{log}: authentication failed: {reason}. Check the sasl.* and ssl.* properties")]
    Authentication {
        /// The URL of the log.
        log: String,
        /// What the broker said.
        reason: String,
    },
    /// A right is missing.
    #[error("no right to {action} topic `{topic}` in {log}: {reason}. Ask for the right {}", rights(action))]
    Denied {
        /// The URL of the log.
        log: String,
        /// The topic.
        topic: String,
        /// What was being done.
        action: &'static str,
        /// What the broker said.
        reason: String,
    },
    /// The broker refused for another reason.
    #[error("cannot {action} topic `{topic}` in {log}: {reason}")]
    Broker {
        /// The URL of the log.
        log: String,
        /// The topic.
        topic: String,
        /// What was being done.
        action: &'static str,
        /// What the broker said.
        reason: String,
    },
    /// A queued record was not acknowledged. It may have been written or not.
    #[error(
        "topic `{topic}` in {log}: a record was not acknowledged: {reason}. It may have been written or not"
    )]
    Undelivered {
        /// The URL of the log.
        log: String,
        /// The topic.
        topic: String,
        /// What the broker said.
        reason: String,
    },
    /// No topic has this name.
    #[error(
        "there is no topic `{topic}` in {log}: create it with `ktables topic ensure --log {log} \
         --topic {topic}`"
    )]
    UnknownTopic {
        /// The URL of the log.
        log: String,
        /// The topic.
        topic: String,
    },
    /// A topic has this name already.
    #[error("topic `{topic}` exists already in {log}")]
    TopicExists {
        /// The URL of the log.
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
    /// The topic is not compacted, and [`OnPolicyMismatch::Raise`](crate::log::OnPolicyMismatch::Raise) makes
    /// that an error.
    #[error(
        "topic `{topic}` has cleanup.policy={actual} and should have {wanted}: entries that are not written \
         again would be lost. Change it (`ktables topic ensure --on-policy-mismatch reconcile` does), or use \
         on_policy_mismatch = \"warn\""
    )]
    PolicyMismatch {
        /// The topic.
        topic: String,
        /// The policy that it should have.
        wanted: String,
        /// The policy that it has.
        actual: String,
    },
    /// The topic has no such partition.
    #[error("topic `{topic}` has no partition {partition}: it has {partitions}, counted from 0")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The number of its partitions.
        partitions: Partition,
    },
    /// The topic was re-created, or has lost records that were read: a table of it no longer matches it.
    #[error(
        "topic `{topic}`{}: {reason}",
        partition.map(|partition| format!(", partition {partition}")).unwrap_or_default()
    )]
    Replaced {
        /// The topic.
        topic: String,
        /// The partition in which that was noticed; `None` if it was seen of the topic as a whole.
        partition: Option<Partition>,
        /// What happened.
        reason: String,
    },
    /// Bytes of the log are damaged.
    #[error(
        "topic `{topic}`, partition {partition}, offset {offset}: damaged at byte {position} of {}: \
         {reason}. Restore the file from a backup; records before this offset are intact",
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
        /// The position of the batch in the file, in bytes.
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
    /// The record was refused, because it is not valid or too large.
    #[error("topic `{topic}`: this record was refused: {reason}")]
    InvalidRecord {
        /// The topic.
        topic: String,
        /// What is wrong.
        reason: String,
    },
    /// Another process holds the lock that a write needs: nothing was written.
    #[error(
        "topic `{topic}`, partition {partition}: another process holds the lock of {}, and nothing was \
         written. To find it: fuser -v {}/lock",
        path.display(), path.display()
    )]
    Locked {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The folder of the partition.
        path: PathBuf,
    },
    /// A file or folder of a directory log could not be read or written.
    #[error(transparent)]
    Io(#[from] FileError),
    /// Changes of files cannot be watched.
    #[error(
        "cannot watch {} for changes: {reason}. On Linux, check whether \
         fs.inotify.max_user_instances and max_user_watches are too low",
        path.display()
    )]
    Watch {
        /// The folder.
        path: PathBuf,
        /// The error of the system.
        reason: String,
    },
    /// The log was closed during a call.
    #[error("the log was closed during the call")]
    Closed,
}

/// Returns the rights, by Kafka's names, that an action on a topic requires.
fn rights(action: &str) -> &'static str {
    match action {
        "create" => "CREATE",
        "delete" => "DELETE",
        "read the settings of" => "DESCRIBE_CONFIGS",
        "change the settings of" => "ALTER_CONFIGS",
        "write to" => "WRITE; brokers before 2.8 also require IDEMPOTENT_WRITE, or idempotence = false",
        "begin a transaction for" | "write in a transaction to" => {
            "WRITE, on the topic and on transactional ids with the prefix ktables-"
        }
        _ => "DESCRIBE and READ",
    }
}

impl LogError {
    /// Whether trying again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Locked { .. } | Self::Watch { .. } | Self::Unreachable { .. })
    }

    /// Creates the error of a request that no broker answered.
    pub(crate) fn unanswered(log: String, topic: String, action: &'static str, reason: &str) -> Self {
        let reason = format!("{reason}. Check the address and security.protocol");
        Self::Unreachable { log, topic, action, reason }
    }

    /// Converts an error of the file system, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        FileError::of(action, path)
    }
}
