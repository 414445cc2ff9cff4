//! Whether the process lives, and whether its tables can be used. Neither depends on the log.

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Response};
use serde_json::json;

use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::http::entries::respond_json;
use crate::serve::problem::Problem;
use crate::serve::tables::ServedTable;
use crate::table::Status;

/// Answers that the process lives.
pub(super) async fn live() -> Response<Body> {
    let mut response = Response::new(Body::from("{\"live\":true}"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Answers whether every table has been complete once. A table that is degraded later stays ready: an outage of the
/// log must not take the tables away when they are needed most.
pub(super) async fn ready(call: Call) -> Result<Response<Body>, Problem> {
    if call.server.is_shutting_down() {
        return Err(not_ready("the server shuts down"));
    }
    let tables = call.server.tables.load_full();
    let Some(tables) = &*tables else { return Err(not_ready("the tables are being opened")) };
    let unready: Vec<&ServedTable> =
        tables.values().map(AsRef::as_ref).filter(|table| table.is_required && !is_ready(table)).collect();
    let is_readable = |table: &&ServedTable| call.caller.may(Role::Read, &table.name);
    if !unready.is_empty() {
        let names: Vec<&str> =
            unready.iter().copied().filter(is_readable).map(|table| &*table.name).collect();
        let detail = format!("not all tables are ready {}", names.join(", "));
        return Err(not_ready(detail));
    }
    let statuses: serde_json::Map<_, _> = tables
        .values()
        .filter(|table| is_readable(&table.as_ref()))
        .map(|table| (table.name.clone(), table.table.status().name().into()))
        .collect();
    let is_degraded = tables.values().any(|table| !matches!(table.table.status(), Status::CaughtUp));
    let status = if is_degraded { "degraded" } else { "ready" };
    Ok(respond_json(HeaderMap::new(), json!({ "status": status, "tables": statuses }).to_string()))
}

/// Answers whether a table has been complete once.
pub(super) async fn table_ready(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Read, &table)?;
    if call.server.is_shutting_down() {
        return Err(not_ready("the server shuts down"));
    }
    let status = table.table.status();
    if !is_ready(&table) {
        return Err(not_ready(format!("the table is {status}")));
    }
    let answer = json!({ "status": status.name(), "reason": status.reason() });
    Ok(respond_json(HeaderMap::new(), answer.to_string()))
}

/// Whether a table has been complete once, and has not failed since.
fn is_ready(table: &ServedTable) -> bool {
    match table.table.status() {
        Status::CaughtUp => true,
        Status::Degraded(_) => table.table.stats().catch_up.is_some(),
        _ => false,
    }
}

fn not_ready(detail: impl Into<String>) -> Problem {
    Problem::unavailable("not-ready", "The server is not ready", detail)
}
