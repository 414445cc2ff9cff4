//! Why a record is rejected, and why a codec could not be called.

use std::fmt;
use std::sync::Arc;

use crate::codec::need::Need;
use crate::escape::one_line;

/// Identifies a component by its name and the digest of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ComponentId {
    /// The name that the component gives itself, or else the name of its file.
    pub name: String,
    /// `sha256:` and the digest in hexadecimal.
    pub digest: String,
    /// Where it came from, if that is known.
    pub origin: Option<Arc<ComponentOrigin>>,
}

/// Where the bytes of a component came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ComponentOrigin {
    /// What names it: a path, the name of a bundled codec, or a reference to an artifact with its digest.
    pub reference: String,
    /// The digest of the artifact's manifest, if it is an artifact.
    pub manifest: Option<String>,
    /// Where it was found: `file`, `bundled`, `upload`, `store`, `layout DIR` or `registry HOST/REPO`.
    pub source: String,
    /// The keys whose signatures a policy required and found.
    pub signed_by: Vec<String>,
}

impl ComponentOrigin {
    /// Creates the origin of a component that is no artifact.
    #[must_use]
    pub fn new(reference: impl Into<String>, source: impl Into<String>) -> Self {
        Self { reference: reference.into(), manifest: None, source: source.into(), signed_by: Vec::new() }
    }

    /// Returns the origin of an artifact: the digest of its manifest, and who signed it.
    #[must_use]
    pub fn with_artifact(self, manifest: impl Into<String>, signed_by: Vec<String>) -> Self {
        Self { manifest: Some(manifest.into()), signed_by, ..self }
    }
}

impl fmt::Display for ComponentId {
    /// Writes the name and the first twelve digits of the digest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short =
            self.digest.char_indices().nth("sha256:".len() + 12).map_or(self.digest.len(), |(at, _)| at);
        write!(f, "{} ({})", one_line(&self.name), &self.digest[..short])
    }
}

/// The kind of a [`RejectReason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RejectKind {
    /// The key of the record is null. No codec was called.
    Keyless,
    /// The codec returned an error: the bytes are not in its format.
    Malformed,
    /// The codec returned an error: the content breaks a rule of the format.
    Invalid,
    /// The codec returned an error: it does not support the operation or the version of the format.
    Unsupported,
    /// The codec returned any other error.
    Other,
    /// The schema registry does not have the schema of the record.
    UnknownSchema,
    /// Decoding the key and encoding the result does not return the bytes of the key.
    NonCanonicalKey,
    /// The component trapped, or a native codec panicked.
    Trap,
    /// The component exceeded its deadline.
    Deadline,
    /// The component exceeded its memory limit.
    Memory,
    /// The component returned more bytes than its output limit allows, or a key of more than 1 MiB.
    Output,
    /// The codec's answer broke the contract: too few or too many items, errors whose indices do not
    /// ascend, or a form that the host cannot read.
    Contract,
    /// The codec returned text that is not UTF-8.
    InvalidUtf8,
    /// The codec returned text that is not JSON.
    InvalidJson,
}

impl RejectKind {
    /// Returns the name that users see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyless => "keyless",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Other => "other",
            Self::UnknownSchema => "unknown schema",
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

    /// Whether the codec faulted: it failed or broke the contract, instead of returning an error.
    #[must_use]
    pub fn is_fault(self) -> bool {
        match self {
            Self::Keyless
            | Self::Malformed
            | Self::Invalid
            | Self::Unsupported
            | Self::Other
            | Self::UnknownSchema
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

/// Where a component was when it trapped or exceeded a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrapDetails {
    /// Wasmtime's name of the trap, for example `UnreachableCodeReached`, or `Interrupt` after a deadline; `None` if an
    /// import failed.
    pub code: Option<String>,
    /// The functions that were running, the innermost first, as far as they are known: the name or index of each, and
    /// an offset in its module's file.
    pub backtrace: Vec<String>,
}

impl TrapDetails {
    /// The bytes of its texts.
    pub(crate) fn byte_len(&self) -> usize {
        self.code.iter().chain(&self.backtrace).map(String::len).sum()
    }
}

/// Why an item was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectReason {
    /// What is wrong, for programs.
    pub kind: RejectKind,
    /// What is wrong, for people: the message of the codec, or of the host.
    pub message: String,
    /// The component that rejected the item; `None` for a native codec.
    pub component: Option<Arc<ComponentId>>,
    /// Where the component was when it trapped or exceeded a limit; `None` if it did not.
    pub trap: Option<Arc<TrapDetails>>,
}

impl RejectReason {
    /// The maximum length of a message, in bytes.
    pub(crate) const MESSAGE_BYTES: usize = 4 * 1024;

    /// Creates a reason. A message longer than [`Self::MESSAGE_BYTES`] is truncated.
    pub(crate) fn new(kind: RejectKind, mut message: String, component: Option<Arc<ComponentId>>) -> Self {
        if message.len() > Self::MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(Self::MESSAGE_BYTES));
            // The original may have been as long as a component's output limit allows.
            message.shrink_to_fit();
        }
        Self { kind, message, component, trap: None }
    }

    /// Adds where the component was when it trapped.
    #[cfg(feature = "wasm")]
    pub(crate) fn with_trap(self, trap: Option<Arc<TrapDetails>>) -> Self {
        Self { trap, ..self }
    }

    /// The bytes of its texts.
    pub(crate) fn byte_len(&self) -> usize {
        self.message.len() + self.trap.as_ref().map_or(0, |trap| trap.byte_len())
    }

    /// Creates the reason of a native codec, for which no component is responsible. A message of more than 4 KiB is
    /// truncated.
    #[must_use]
    pub fn without_component(kind: RejectKind, message: impl Into<String>) -> Self {
        Self::new(kind, message.into(), None)
    }
}

impl std::error::Error for RejectReason {}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, one_line(&self.message))?;
        match &self.component {
            Some(component) => write!(f, " [{component}]"),
            None => Ok(()),
        }
    }
}

/// The host could not run a codec. No record is rejected for this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot run the codec: {reason}")]
#[non_exhaustive]
pub struct HostFailure {
    /// What failed, and what to do.
    pub reason: String,
    /// Whether the codec, which has worked before, no longer starts. A table quarantines it after three tries.
    pub cannot_start: bool,
    /// What the codec needs first.
    pub(crate) need: Option<Need>,
}

impl HostFailure {
    /// The host could not run the codec, for this reason.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), cannot_start: false, need: None }
    }

    /// The codec asked for something that the host does not have yet.
    #[cfg(feature = "wasm")]
    pub(crate) fn needs(need: Need) -> Self {
        Self {
            need: Some(need),
            ..Self::new("the schemas that the codec asked for have not been fetched yet")
        }
    }

    /// The codec no longer starts, for this reason.
    #[must_use]
    pub fn cannot_start(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), cannot_start: true, need: None }
    }
}

/// Why a call of a codec returned no answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecFailure {
    /// The host could not run the codec. No item is rejected for this, and the call may be retried.
    #[error(transparent)]
    Host(HostFailure),
    /// The codec faulted over at least one of the items. The caller retries smaller parts. If there was
    /// only one item, it is rejected for this reason.
    #[error("the codec failed: {0}")]
    Fault(RejectReason),
}

impl CodecFailure {
    /// Tells a fault of the codec, which is an answer about the items, from a failure of the host.
    pub(crate) fn split<T>(result: Result<T, Self>) -> Result<Result<T, RejectReason>, HostFailure> {
        match result {
            Ok(answers) => Ok(Ok(answers)),
            Err(Self::Fault(reason)) => Ok(Err(reason)),
            Err(Self::Host(failure)) => Err(failure),
        }
    }
}

/// Lets functions that call codecs return a failure of the host with `?`.
impl From<HostFailure> for CodecFailure {
    fn from(failure: HostFailure) -> Self {
        Self::Host(failure)
    }
}
