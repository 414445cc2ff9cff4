//! Errors of writes.

use crate::codec::{HostFailure, RejectReason};
use crate::escape::escape_name;
use crate::log::{Ack, LogError};
use crate::table::StaleReason;

/// Why a write failed. Nothing was published, except with [`WriteError::Log`] and [`WriteError::NotVisible`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The value is not JSON.
    #[error("key `{}`: the value is not JSON: {reason}. A string needs quotes: '\"text\"'", escape_name(key))]
    InvalidJson {
        /// The key.
        key: String,
        /// The error of the JSON parser.
        reason: String,
    },
    /// A codec rejected the key or the value.
    #[error("key `{}`: cannot {action}: {reason}", escape_name(key))]
    Rejected {
        /// The key.
        key: String,
        /// What was being done, for example "encode the key".
        action: &'static str,
        /// Why the codec rejected it.
        #[source]
        reason: RejectReason,
    },
    /// Readers would see another key, value or member than the one that was to be written.
    #[error("key `{}`: not published, because {reason}", escape_name(key))]
    NotVerified {
        /// The key.
        key: String,
        /// Why it was not published, for example what readers would see.
        reason: String,
    },
    /// A member of a group was written without a group scheme.
    #[error(
        "group `{}`, member `{}`: the table has no group scheme; set one (--group-scheme, or group_scheme in \
         the configuration)",
        escape_name(group),
        escape_name(member)
    )]
    NoGroupScheme {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
    /// The host could not run a codec.
    #[error(transparent)]
    Codec(HostFailure),
    /// The log refused the record, because it is invalid or its partition does not exist.
    #[error("key `{}`: {source}", escape_name(key))]
    InvalidRecord {
        /// The key.
        key: String,
        /// Why the log refused it.
        source: LogError,
    },
    /// The record is durable, but did not become visible in the table in time.
    #[error(
        "written to partition {}, offset {}, but not visible in the table: {reason}",
        ack.partition,
        ack.offset.map_or("unknown".to_owned(), |offset| offset.to_string())
    )]
    NotVisible {
        /// Partition and offset of the record.
        ack: Ack,
        /// Why it is not visible.
        #[source]
        reason: Box<StaleReason>,
    },
    /// The log failed; whether the record was written is unknown.
    #[error(transparent)]
    Log(LogError),
}
