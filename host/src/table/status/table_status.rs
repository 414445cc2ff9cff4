//! Whether a table is complete.

use std::fmt;
use std::sync::Arc;

use crate::table::error::TableError;

/// Whether a table is complete, and if not, why.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Status {
    /// The table has not yet applied everything that its topic held when the table began.
    Loading,
    /// The table has applied everything that its topic held when it began, and follows the topic:
    /// no partition lags.
    CaughtUp,
    /// The table is incomplete or may be behind, for this reason. It keeps trying.
    Degraded(Arc<str>),
    /// The table no longer follows its topic. Its contents stay as they are.
    Failed(Arc<TableError>),
    /// The table was stopped. Its contents stay as they are.
    Stopped,
}

impl Status {
    /// The name that users see, in snake case.
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

    /// Why the table is degraded or failed; `None` for other statuses.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Degraded(reason) => Some(reason.to_string()),
            Self::Failed(error) => Some(error.to_string()),
            Self::Loading | Self::CaughtUp | Self::Stopped => None,
        }
    }

    /// Whether the status is final: the table will not change any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Stopped)
    }
}

/// Two statuses are equal if users see the same name and the same reason.
impl PartialEq for Status {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.reason() == other.reason()
    }
}

impl Eq for Status {}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.reason().map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}
