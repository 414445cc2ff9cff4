//! Why a record is not applied, and why a codec could not be asked.

use std::fmt;
use std::sync::Arc;

use crate::escape::one_line;

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
        write!(f, "{} ({})", one_line(&self.name), &self.digest[..short])
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
pub struct RejectReason {
    /// What was wrong, for programs.
    pub kind: RejectKind,
    /// What was wrong, for people: the codec's own words, or the host's.
    pub message: String,
    /// Whose word it is; `None` for a built-in codec.
    pub component: Option<Arc<ComponentId>>,
}

impl RejectReason {
    /// The longest message that is kept, in bytes.
    pub(crate) const MESSAGE_BYTES: usize = 4 * 1024;

    /// A rejection whose message is no longer than messages may be.
    pub(crate) fn new(kind: RejectKind, mut message: String, component: Option<Arc<ComponentId>>) -> Self {
        if message.len() > Self::MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(Self::MESSAGE_BYTES));
            // What was cut may have been as long as an answer may be.
            message.shrink_to_fit();
        }
        Self { kind, message, component }
    }

    /// A built-in codec's rejection.
    pub(crate) fn built_in(kind: RejectKind, message: impl Into<String>) -> Self {
        Self::new(kind, message.into(), None)
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, one_line(&self.message))?;
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

/// Why a codec has no answers for the items it was given together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecFailure {
    /// The host could not run it: no item is to blame, and it may be tried again.
    #[error(transparent)]
    Host(HostFailure),
    /// The codec broke down, or broke a rule, over at least one of the items: each is to be tried
    /// alone. If there was one only, this is why it is rejected.
    #[error("the codec failed: {0}")]
    Fault(RejectReason),
}

/// Both are this layer's own.
impl From<HostFailure> for CodecFailure {
    fn from(failure: HostFailure) -> Self {
        Self::Host(failure)
    }
}
