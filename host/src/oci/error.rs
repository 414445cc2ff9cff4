//! The error of everything that is done with artifacts.

use crate::file::FileError;

/// Why an artifact cannot be read, fetched, verified or used.
///
/// The text is complete without the name of the codec or the reference: callers write it before the text.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum OciError {
    /// The answer is no: an artifact is missing, malformed, not signed, not approved or revoked.
    #[error("{0}")]
    Refused(String),
    /// A reference, a setting or a file of the user is wrong.
    #[error("{0}")]
    Usage(String),
    /// A registry, the network or the store failed.
    #[error("{0}")]
    Failed(String),
    /// The registry or the folder answers that it does not have a manifest or a blob.
    #[error("{0}")]
    NotFound(String),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl OciError {
    /// Puts the name of what the error is about before its text.
    pub(crate) fn about(self, name: &str) -> Self {
        let prefix = |text: String| format!("{name}: {text}");
        match self {
            Self::Refused(text) => Self::Refused(prefix(text)),
            Self::Usage(text) => Self::Usage(prefix(text)),
            Self::Failed(text) => Self::Failed(prefix(text)),
            Self::NotFound(text) => Self::NotFound(prefix(text)),
            Self::File(error) => Self::Failed(prefix(error.to_string())),
        }
    }

    /// Whether it says that something is not there, and not that it cannot be read.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}
