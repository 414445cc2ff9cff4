//! Which keys a watcher sees.

use crate::table::change::Effect;

/// Which keys a watcher sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchFilter {
    /// All keys, and rejected records without a key: it is null, or could not be decoded.
    #[default]
    All,
    /// One key.
    Key(String),
    /// The keys that begin with this.
    Prefix(String),
    /// The keys of one group.
    Group(String),
}

impl WatchFilter {
    /// Whether a watcher with this filter sees a key of a group.
    pub(super) fn accepts(&self, key: &str, group: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Key(wanted) => key == wanted,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
            Self::Group(wanted) => group == Some(wanted),
        }
    }

    pub(super) fn accepts_effect(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Change(change) => self.accepts(change.key(), change.group()),
            Effect::Rejected { key: Some(key), group, .. } => self.accepts(key, group.as_deref()),
            Effect::Rejected { key: None, .. } => *self == Self::All,
        }
    }
}
