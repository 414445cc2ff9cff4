//! Partitions that lag, and why.

use std::fmt;
use std::time::SystemTime;

use crate::log::{Offset, Partition};

/// A partition that is behind, or may be: for longer than `stale_after`, it is not known to be complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::table) struct Lag {
    /// The partition.
    pub(in crate::table) partition: Partition,
    /// The next offset to apply.
    pub(in crate::table) position: Offset,
    /// The end offset; `None` if no leader answers.
    pub(in crate::table) end: Option<Offset>,
    /// The start time of the lag: everything that the partition held then was applied. While the table loads,
    /// the time when it began to read.
    pub(in crate::table) since: SystemTime,
    /// The cause.
    pub(in crate::table) cause: LagCause,
}

/// Why a partition lags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::table) enum LagCause {
    /// A transaction is open: records after its first one wait for its end.
    OpenTransaction,
    /// The partition has no leader, or the leader does not answer.
    Silent,
    /// Everything that was read is applied, and no more data arrives.
    Unread,
    /// The leader answers again, and the records written meanwhile may be on their way.
    Recovering,
    /// Data arrives, but is decoded or applied too slowly.
    Slow,
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, position, end, since, cause } = self;
        let since = humantime::format_rfc3339_seconds(*since);
        let end = end.map_or_else(String::new, |end| format!(" of {end}"));
        let at = format!(" is stuck at {position}{end}");
        // The position of a partition that moves is left out: the text would change all the time.
        let (state, why) = match cause {
            LagCause::OpenTransaction => (at.as_str(), "a transaction is open"),
            LagCause::Silent => (" may be behind", "no leader answers"),
            LagCause::Unread => (at.as_str(), "no data arrives"),
            LagCause::Recovering => (" is behind", "records written during an outage are arriving"),
            LagCause::Slow => (" is behind", "records are decoded or applied too slowly"),
        };
        write!(f, "partition {partition}{state} since {since}: {why}")
    }
}
