//! Many writes to a table of a server.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;

use crate::cli::CliError;
use crate::cli::remote::problem::RemoteProblem;
use crate::cli::remote::table::RemoteTable;
use crate::wire::format_write_line;
use crate::writer::Write;

/// How many bytes a request has at most, unless it is a single line.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// The outcome of a line.
#[derive(Deserialize)]
struct Outcome {
    outcome: String,
    detail: Option<String>,
}

/// Why a line was not written.
#[derive(Debug)]
pub(in crate::cli) struct LineError {
    pub(in crate::cli) reason: String,
    /// Whether the server or its log has failed, so that further lines would not be written either.
    pub(in crate::cli) is_failure: bool,
}

/// Whether a line was written.
pub(in crate::cli) type LineResult = Result<(), LineError>;

/// Writes lines to a table of a server.
#[derive(Debug)]
pub(in crate::cli) struct RemoteSink(pub(in crate::cli) RemoteTable);

impl RemoteSink {
    /// Writes all of these, and adds the result of each. The results of what was written remain if this is dropped.
    pub(in crate::cli) async fn write_all(&self, writes: &[Write], results: &mut Vec<LineResult>) {
        let mut max_bytes = MAX_REQUEST_BYTES;
        while results.len() < writes.len() {
            let (mut body, mut lines) = (Vec::new(), 0);
            for write in &writes[results.len()..] {
                let line = format_write_line(write);
                if lines > 0 && body.len() + line.len() > max_bytes {
                    break;
                }
                body.extend_from_slice(&line);
                lines += 1;
            }
            let bytes = body.len();
            match self.send(body, lines).await {
                Ok(outcomes) => results.extend(outcomes),
                Err(problem) if problem.is("too-large") && lines > 1 => max_bytes = bytes / 2,
                Err(problem) if problem.is("too-large") => {
                    let reason = CliError::from(problem).to_string();
                    results.push(Err(LineError { reason, is_failure: false }));
                }
                // What follows would be written after lines that were not.
                Err(problem) => {
                    let reason = CliError::from(problem).to_string();
                    let failure = || Err(LineError { reason: reason.clone(), is_failure: true });
                    results.resize_with(writes.len(), failure);
                }
            }
        }
    }

    /// Sends a request, and returns the outcome of each of its lines.
    async fn send(&self, body: Vec<u8>, lines: usize) -> Result<Vec<LineResult>, RemoteProblem> {
        let timeout = self.0.timeout();
        let request = self.0.request(Method::POST, &["entries:write"], &[("timeout", &timeout)]);
        let reply = self.0.send(request.header(CONTENT_TYPE, "application/x-ndjson").body(body)).await?;
        let outcomes = reply.body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let outcomes = outcomes.map(|line| Ok(to_result(self.0.parse(line)?)));
        let outcomes = outcomes.collect::<Result<Vec<_>, CliError>>()?;
        if outcomes.len() != lines {
            let reason = format!("it answered {} of {lines} lines", outcomes.len());
            return Err(self.0.remote.failed(&reason).into());
        }
        Ok(outcomes)
    }
}

fn to_result(outcome: Outcome) -> LineResult {
    match &*outcome.outcome {
        "written" => Ok(()),
        kind => Err(LineError {
            is_failure: matches!(
                kind,
                "outcome-unknown"
                    | "log-unavailable"
                    | "log-denied"
                    | "codec-failed"
                    | "codec-revoked"
                    | "failed"
            ),
            reason: outcome.detail.unwrap_or(outcome.outcome),
        }),
    }
}
