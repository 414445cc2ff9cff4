//! Whether a table is complete, and if not, why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::log::{Lag, LagCause, Partition};
use crate::table::TableError;

/// Of how many partitions that lag the status tells.
const LAGS_TOLD: usize = 4;

/// Whether a table is complete.
#[derive(Debug, Clone)]
pub enum Status {
    /// It has not yet reached the ends that its topic had when it began.
    Loading,
    /// It has what its topic held when it began, and follows it: no partition lags.
    CaughtUp,
    /// It is incomplete or may be behind, for this reason, and goes on trying.
    Degraded(Arc<str>),
    /// It stopped following its topic; its contents are those of that moment.
    Failed(Arc<TableError>),
    /// It was stopped.
    Stopped,
}

impl Status {
    /// Its name, as users see it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::CaughtUp => "caught_up",
            Self::Degraded(_) => "degraded",
            Self::Failed(_) => "failed",
            Self::Stopped => "stopped",
        }
    }

    /// Why it is not caught up.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Degraded(reason) => Some(reason.to_string()),
            Self::Failed(error) => Some(error.to_string()),
            Self::Loading | Self::CaughtUp | Self::Stopped => None,
        }
    }

    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Stopped)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.reason().map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

/// What the status follows from. Each is told on its own; together they have one
/// answer.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub(super) caught_up: bool,
    /// Nothing is heard of the log.
    pub(super) unreachable: Option<Arc<str>>,
    /// Loading took longer than it should: how far it is.
    pub(super) late: Option<Arc<str>>,
    /// What is served is of a topic that was replaced, or cannot be followed now.
    pub(super) outdated: Option<Arc<str>>,
    /// Partitions that lag.
    pub(super) lags: Vec<Lag>,
    /// Batches that the host cannot decode now, by partition.
    pub(super) undecoded: BTreeMap<Partition, Arc<str>>,
    /// The table takes more memory than it may.
    pub(super) memory: Option<Arc<str>>,
    pub(super) failed: Option<Arc<TableError>>,
    pub(super) stopped: bool,
}

impl Conditions {
    pub(super) fn status(&self) -> Status {
        match self {
            Self { failed: Some(error), .. } => Status::Failed(error.clone()),
            Self { stopped: true, .. } => Status::Stopped,
            // It does not pass by itself.
            Self { memory: Some(reason), .. } => Status::Degraded(reason.clone()),
            // Whatever is wrong has time to pass until then.
            Self { caught_up: false, late: None, undecoded, .. } if undecoded.is_empty() => Status::Loading,
            Self { unreachable: Some(reason), .. } => Status::Degraded(reason.clone()),
            Self { outdated, undecoded, .. } if outdated.is_some() || !undecoded.is_empty() => {
                let reasons: Vec<&str> =
                    outdated.iter().chain(undecoded.values().next()).map(|reason| &**reason).collect();
                Status::Degraded(reasons.join("; ").into())
            }
            Self { caught_up: true, lags, .. } if lags.is_empty() => Status::CaughtUp,
            Self { caught_up, lags, late, .. } => {
                let late = late.iter().filter(|_| !caught_up).map(ToString::to_string);
                // What is loaded is behind anyway.
                let lags = lags.iter().filter(|lag| *caught_up || lag.cause != LagCause::Slow);
                Status::Degraded(late.chain(told(lags)).collect::<Vec<_>>().join("; ").into())
            }
        }
    }
}

/// What is told of partitions that lag: of the first of them, and how many more there are.
fn told<'a>(lags: impl Iterator<Item = &'a Lag>) -> Vec<String> {
    let mut told: Vec<String> = lags.map(ToString::to_string).collect();
    let more = told.len().saturating_sub(LAGS_TOLD);
    told.truncate(LAGS_TOLD);
    if more > 0 {
        told.push(format!("and {more} more partitions"));
    }
    told
}
