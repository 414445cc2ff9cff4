//! Writes: their answers, their errors, and the audit log.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use crate::log::{Ack, LogError, Offset, Partition};
use crate::serve::http::call::{Call, RequestId};
use crate::serve::http::entry_name::describe;
use crate::serve::http::reading::{POSITIONS, failed, format_positions};
use crate::serve::problem::Problem;
use crate::serve::tables::{ServedTable, WriterError};
use crate::table::Freshness;
use crate::writer::{Write, WriteError, Writer};

/// A record that was written.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    partition: Partition,
    /// `None` if the log did not return it, which happens if it received the record twice.
    offset: Option<Offset>,
}

impl Written {
    pub(super) fn new(ack: Ack) -> Self {
        Self { partition: ack.partition, offset: ack.offset }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        // OK because numbers always serialize.
        let mut response = Response::new(Body::from(serde_json::to_string(&self).expect("serializes")));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // What a later read sends as `at_least` to see the write.
        let next = self.offset.map(|offset| (self.partition, offset + 1));
        if let Some(positions) = next.and_then(|next| format_positions(std::iter::once(next))) {
            headers.insert(POSITIONS, positions);
        }
        response
    }
}

/// Writes one record. The write goes on if the caller goes away, so that the audit log has its outcome.
pub(super) async fn write_one(
    call: Call,
    table: Arc<ServedTable>,
    write: Write,
    is_visible: bool,
    timeout: Duration,
) -> Result<Written, Problem> {
    let written = tokio::spawn(async move {
        let name = describe(&write.target);
        let action = if write.value.is_some() { "set" } else { "delete" };
        let result = send(&table, write, is_visible, timeout).await;
        let outcome = match &result {
            Ok(Written { partition, offset: Some(offset) }) => {
                format!("written at partition {partition}, offset {offset}")
            }
            Ok(Written { partition, offset: None }) => format!("written in partition {partition}"),
            Err(problem) => problem.summary(),
        };
        audit(&call, &table.name, &format!("{action} {name}: {outcome}"));
        result
    });
    // OK because the task is never cancelled: the error is a panic, which continues here.
    written.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

async fn send(
    table: &ServedTable,
    write: Write,
    is_visible: bool,
    timeout: Duration,
) -> Result<Written, Problem> {
    let deadline = Instant::now() + timeout;
    let writing = async {
        let writer = open_writer(table).await?;
        writer.write(write).await.map_err(|error| write_problem(&error))
    };
    let late = |_| Err(unknown_outcome("the log did not acknowledge the write in time"));
    let ack = tokio::time::timeout_at(deadline, writing).await.unwrap_or_else(late)?;
    let left = deadline.saturating_duration_since(Instant::now());
    if is_visible && let Freshness::Stale(reason) = table.table.wait_for(&[ack], left).await {
        return Err(not_visible(ack, &reason.to_string()));
    }
    Ok(Written::new(ack))
}

/// Opens the writer of a table.
pub(super) async fn open_writer(table: &ServedTable) -> Result<Writer, Problem> {
    table.writer().await.map_err(|error| match error {
        WriterError::Log(error) => log_problem(&error),
        WriterError::Failed => failed(table),
        WriterError::Revoked(reason) => {
            Problem::unavailable("codec-revoked", "A codec of the table is revoked", &*reason)
        }
    })
}

/// Logs who changed what.
pub(super) fn audit(call: &Call, table: &str, what: &str) {
    let RequestId { id, trace } = &call.id;
    let (client, request, trace) = (&*call.caller.name, id, trace.as_deref().unwrap_or("-"));
    tracing::info!(target: "ktables::audit", client, table, request, trace, "{what}");
}

pub(super) fn unknown_outcome(reason: &str) -> Problem {
    let detail = format!("{reason}: it may or may not be written");
    Problem::new(
        StatusCode::GATEWAY_TIMEOUT,
        "outcome-unknown",
        "The outcome of the write is unknown",
        detail,
    )
}

/// Returns the problem of a record that was written, and that the table does not have yet.
fn not_visible(ack: Ack, reason: &str) -> Problem {
    let detail = format!("the record is written, and is not visible yet: {reason}");
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "not-visible", "The write is not visible yet", detail)
        .with_member("partition", ack.partition)
        .with_member("offset", ack.offset)
}

/// Returns the problem of a write that failed.
pub(super) fn write_problem(error: &WriteError) -> Problem {
    let new = |status, kind, title| Problem::new(status, kind, title, error.to_string());
    match error {
        WriteError::InvalidJson { .. } => {
            new(StatusCode::BAD_REQUEST, "invalid-json", "The value is not JSON")
        }
        WriteError::Rejected { .. } => {
            new(StatusCode::UNPROCESSABLE_ENTITY, "not-encodable", "The codec refused the entry")
        }
        WriteError::NotVerified { .. } => {
            new(StatusCode::UNPROCESSABLE_ENTITY, "not-verified", "Readers would see something else")
        }
        WriteError::NoGroupScheme { .. } => {
            new(StatusCode::BAD_REQUEST, "no-groups", "The table has no groups")
        }
        WriteError::Codec(_) => {
            Problem::unavailable("codec-failed", "The codec cannot run", error.to_string())
        }
        WriteError::InvalidRecord { .. } => {
            new(StatusCode::PAYLOAD_TOO_LARGE, "record-refused", "The log does not take the record")
        }
        WriteError::NotVisible { ack, reason } => not_visible(*ack, &reason.to_string()),
        WriteError::Log(error) => log_problem(error),
    }
}

/// Returns the problem of a request that the log did not accept or answer.
pub(super) fn log_problem(error: &LogError) -> Problem {
    match error {
        LogError::Undelivered { .. } => unknown_outcome(&error.to_string()),
        LogError::Denied { .. } => Problem::new(
            StatusCode::BAD_GATEWAY,
            "log-denied",
            "The log denies the server access",
            error.to_string(),
        ),
        error => Problem::unavailable("log-unavailable", "The log cannot be used", error.to_string()),
    }
}
