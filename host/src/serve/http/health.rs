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
use crate::serve::tables::unready;
use crate::table::Status;

/// Answers that the process lives.
pub(super) async fn live() -> Response<Body> {
    let mut response = Response::new(Body::from("{\"live\":true}"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Answers whether every table has been complete once.
pub(super) async fn ready(call: Call) -> Result<Response<Body>, Problem> {
    if call.server.is_shutting_down() {
        return Err(not_ready("the server shuts down"));
    }
    let tables = call.server.tables.load_full();
    let Some(tables) = &*tables else { return Err(not_ready("the tables are being opened")) };
    let opening = call.server.opening.load();
    let unready: Vec<&str> =
        unready(tables).map(|table| &*table.name).chain(opening.iter().map(String::as_str)).collect();
    let is_readable = |name: &str| call.caller.may(Role::Read, name);
    if !unready.is_empty() {
        let names: Vec<&str> = unready.into_iter().filter(|name| is_readable(name)).collect();
        let detail = format!("these tables are not ready: {}", names.join(", "));
        return Err(not_ready(detail));
    }
    let statuses: serde_json::Map<_, _> = tables
        .values()
        .filter(|table| is_readable(&table.name))
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
    if !table.is_ready() {
        return Err(not_ready(format!("the table is {status}")));
    }
    let answer = json!({ "status": status.name(), "reason": status.reason() });
    Ok(respond_json(HeaderMap::new(), answer.to_string()))
}

fn not_ready(detail: impl Into<String>) -> Problem {
    Problem::unavailable("not-ready", "The server is not ready", detail)
}
