//! Errors of writes.

use crate::codec::{HostFailure, RejectReason};
use crate::escape::name;
use crate::log::{Ack, LogError};
use crate::table::StaleReason;

/// Why a write failed. Nothing was published, except with [`WriteError::Log`] and
/// [`WriteError::NotVisible`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The value is not JSON.
    #[error("key `{}`: the value is not JSON: {reason}. A string needs quotes: '\"text\"'", name(key))]
    InvalidJson {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A codec rejected the key or the value.
    #[error("key `{}`: cannot {action}: {reason}", name(key))]
    Rejected {
        /// The key.
        key: String,
        /// What the codec was asked to do.
        action: &'static str,
        /// Why it refused.
        reason: RejectReason,
    },
    /// Readers would not see what was meant.
    #[error("key `{}`: not published, because {reason}", name(key))]
    NotVerified {
        /// The key.
        key: String,
        /// What they would see.
        reason: String,
    },
    /// A member of a group was written without a group scheme.
    #[error(
        "group `{}`, member `{}`: the table has no group scheme; name one (--group-scheme, or group_scheme in the configuration)",
        name(group),
        name(member)
    )]
    NoScheme {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
    /// The host could not run a codec.
    #[error(transparent)]
    Codec(HostFailure),
    /// No log accepts such a record.
    #[error("key `{}`: {source}", name(key))]
    InvalidRecord {
        /// The key.
        key: String,
        /// Why.
        source: LogError,
    },
    /// The record is durable, but did not become visible in the table in time.
    #[error(
        "written to partition {}, offset {}, and not visible in the table: {reason}",
        ack.partition, ack.offset
    )]
    NotVisible {
        /// Where the record is.
        ack: Ack,
        /// Why.
        reason: Box<StaleReason>,
    },
    /// The log failed; whether the record was written is unknown.
    #[error(transparent)]
    Log(LogError),
}
