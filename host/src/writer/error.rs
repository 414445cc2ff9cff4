//! Why a write was not published, or not acknowledged.

use crate::codec::{HostFailure, Rejection};
use crate::escape::name;
use crate::log::{Ack, LogError};

/// Why a write failed. But for [`WriteError::Log`] and [`WriteError::NotVisible`], nothing
/// was published.
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
    /// A codec refused.
    #[error("key `{}`: cannot {action}: {rejection}", name(key))]
    Rejected {
        /// The key.
        key: String,
        /// What the codec was to do.
        action: &'static str,
        /// What it said.
        rejection: Rejection,
    },
    /// Readers would not get what was meant.
    #[error("key `{}`: not published, because {reason}", name(key))]
    NotVerified {
        /// The key.
        key: String,
        /// What would come out.
        reason: String,
    },
    /// A pair of group and member is written without a group scheme.
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
    /// No log takes such a record.
    #[error("key `{}`: {source}", name(key))]
    InvalidRecord {
        /// The key.
        key: String,
        /// What the log said.
        source: LogError,
    },
    /// It is durable, and was not visible in time in the table that was to be waited for.
    #[error(
        "written to partition {}, offset {}, and not visible in the table: {reason}",
        ack.partition, ack.offset
    )]
    NotVisible {
        /// Where it is.
        ack: Ack,
        /// Why it was not seen.
        reason: String,
    },
    /// The log failed; whether the record was written is unknown.
    #[error(transparent)]
    Log(LogError),
}
