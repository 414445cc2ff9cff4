//! Why a record is not applied, and why a codec could not be asked.

use std::fmt;
use std::sync::Arc;

/// A component: the file's name and the digest of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ComponentId {
    /// The name people know it by: its own, or its file's.
    pub name: String,
    /// `sha256:` and the digest in hexadecimal.
    pub digest: String,
}

impl fmt::Display for ComponentId {
    /// Name and the first digits of the digest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short =
            self.digest.char_indices().nth("sha256:".len() + 12).map_or(self.digest.len(), |(at, _)| at);
        write!(f, "{} ({})", self.name, &self.digest[..short])
    }
}

/// What was wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RejectKind {
    /// The record's key is null: no codec was asked.
    Keyless,
    /// The codec answered: these bytes are not in its format.
    Malformed,
    /// The codec answered: the content breaks a rule.
    Invalid,
    /// The codec answered: it does not do this.
    Unsupported,
    /// The codec answered: something else.
    Other,
    /// The key's text, encoded, gives other bytes than the key has.
    NonCanonicalKey,
    /// The component trapped.
    Trap,
    /// The component ran past its deadline.
    Deadline,
    /// The component wanted more memory than it may have.
    Memory,
    /// The component answered with more bytes than it may.
    Output,
    /// The component's answer broke the contract: items missing or to spare,
    /// errors out of order.
    Contract,
    /// The component's text is not UTF-8.
    InvalidUtf8,
    /// The component's text is not JSON.
    InvalidJson,
}

impl RejectKind {
    /// Its name, as users see it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyless => "keyless",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Other => "other",
            Self::NonCanonicalKey => "non-canonical key",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Contract => "contract",
            Self::InvalidUtf8 => "invalid UTF-8",
            Self::InvalidJson => "invalid JSON",
        }
    }

    /// Whether the component broke down or broke a rule, instead of answering.
    #[must_use]
    pub fn is_fault(self) -> bool {
        match self {
            Self::Keyless
            | Self::Malformed
            | Self::Invalid
            | Self::Unsupported
            | Self::Other
            | Self::NonCanonicalKey => false,
            Self::Trap
            | Self::Deadline
            | Self::Memory
            | Self::Output
            | Self::Contract
            | Self::InvalidUtf8
            | Self::InvalidJson => true,
        }
    }
}

impl fmt::Display for RejectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an item was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What was wrong, for programs.
    pub kind: RejectKind,
    /// What was wrong, for people: the codec's own words, or the host's.
    pub message: String,
    /// Whose word it is; `None` for a built-in codec.
    pub component: Option<Arc<ComponentId>>,
}

impl Rejection {
    /// A built-in codec's rejection.
    pub(crate) fn built_in(kind: RejectKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), component: None }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)?;
        match &self.component {
            Some(component) => write!(f, " [{component}]"),
            None => Ok(()),
        }
    }
}

/// The host could not run a codec: no record is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot run the codec: {reason}")]
pub struct HostFailure {
    /// What failed, and what to do.
    pub reason: String,
}
