//! The problems that a server answers with, as errors of a command.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::cli::CliError;
use crate::escape::one_line;

/// Why a request was not answered as it should be.
#[derive(Debug)]
pub(super) enum RemoteProblem {
    /// The server answered with a problem document (RFC 9457).
    Answered {
        status: StatusCode,
        /// The end of its `type`.
        kind: String,
        detail: String,
        headers: HeaderMap,
    },
    /// There is no such answer.
    Failed(CliError),
}

impl RemoteProblem {
    pub(super) fn new(status: StatusCode, body: &[u8], headers: HeaderMap) -> Self {
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| document[name].as_str().unwrap_or_default();
        let kind = text("type").rsplit(':').next().unwrap_or_default().to_owned();
        let detail = match text("detail") {
            "" => "it gave no reason".to_owned(),
            detail => one_line(detail).to_string(),
        };
        Self::Answered { status, kind, detail, headers }
    }

    /// Whether this is a problem of this kind.
    pub(super) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Answered { kind, .. } if kind == wanted)
    }
}

impl From<CliError> for RemoteProblem {
    fn from(error: CliError) -> Self {
        Self::Failed(error)
    }
}

/// The exit code is that of the same failure without a server.
impl From<RemoteProblem> for CliError {
    fn from(problem: RemoteProblem) -> Self {
        let (status, kind, detail) = match problem {
            RemoteProblem::Failed(error) => return error,
            RemoteProblem::Answered { status, kind, detail, .. } => (status, kind, detail),
        };
        let advice = match status {
            StatusCode::UNAUTHORIZED => " (this command sends the token of --token-file or $KTABLES_TOKEN)",
            _ => "",
        };
        let reason = format!("the server answered {status}: {detail}{advice}");
        match (status, &*kind) {
            (_, "not-visible" | "loading") => Self::Incomplete(reason),
            (_, "invalid-json") => Self::Refused(reason),
            (StatusCode::CONFLICT | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY, _) => {
                Self::Refused(reason)
            }
            (
                StatusCode::BAD_REQUEST
                | StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::NOT_FOUND,
                _,
            ) => Self::Usage(reason),
            _ => Self::Server(reason),
        }
    }
}
