//! Why a schema registry does not do what it is asked for.

use std::time::Duration;

/// Why a schema registry does not do what it is asked for. `registry` is the address that was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RegistryError {
    /// It cannot be reached, is busy, or fails. It may pass.
    #[error("the schema registry {registry} is unavailable: {reason}")]
    Unavailable {
        registry: String,
        reason: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
        /// Whether it has failed over this request (500), and may answer others.
        is_of_request: bool,
    },
    /// The credentials are missing or wrong, or do not permit the request.
    #[error(
        "the schema registry {registry} refuses access ({status}): {reason}. Credentials are set in \
         [schema_registries.NAME]: username and password, or token_file"
    )]
    Forbidden { registry: String, status: u16, reason: String },
    /// There is no such schema, subject or version.
    #[error("the schema registry {registry} does not have it: {reason}")]
    NotFound { registry: String, reason: String },
    /// It does not accept a change.
    #[error("the schema registry {registry} rejects the request ({status}): {reason}")]
    Refused { registry: String, status: u16, reason: String },
    /// Its answer is not one of a schema registry.
    #[error("{registry} does not answer like a schema registry: {reason}")]
    BadAnswer { registry: String, status: u16, reason: String },
    /// A schema cannot be used: it is too large, or refers to others wrongly.
    #[error("a schema of the registry {registry} cannot be used: {reason}")]
    BadSchema { registry: String, reason: String },
    /// The options cannot be used.
    #[error("{0}")]
    Options(String),
}

impl RegistryError {
    /// Whether another attempt, or another address, may help.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether the registry, or the access to it, is at fault, and not one of its schemas.
    pub(super) fn is_of_registry(&self) -> bool {
        match self {
            Self::Unavailable { is_of_request, .. } => !is_of_request,
            Self::Forbidden { .. } | Self::BadAnswer { .. } | Self::Options(_) => true,
            Self::NotFound { .. } | Self::Refused { .. } | Self::BadSchema { .. } => false,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
