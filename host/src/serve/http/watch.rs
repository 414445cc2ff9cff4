//! Watches: streams of the changes of one table or several, as server-sent events or as lines of JSON.

mod followed;
mod request;
mod stream;

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::serve::http::answer_body::EndlessBody;
use crate::serve::http::call::Call;
use crate::serve::problem::Problem;

use followed::FollowedTable;
use request::{Request, WATCH_PARAMETERS};
use stream::{Format, WatchStream};

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How many bytes the body of a watch of several tables may have: it has a token for each.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// Watches one table.
pub(super) async fn one(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let query = call.query(&WATCH_PARAMETERS)?;
    let request = Request::of_query(&query, call.header(LAST_EVENT_ID))?;
    start(call, vec![(table, request)], false).await
}

/// Watches several tables, which the parameter `tables` names; all that the caller may read, by default.
pub(super) async fn many(call: Call) -> Result<Response<Body>, Problem> {
    let query = call.query(&[&["tables"], &WATCH_PARAMETERS[..]].concat())?;
    let tables = request::tables_of_query(&call, &query)?;
    start(call, tables, true).await
}

/// Watches several tables, which the body names.
pub(super) async fn many_of_body(call: Call, body: Body) -> Result<Response<Body>, Problem> {
    call.query(&[])?;
    let body = call.read_body(body, MAX_REQUEST_BYTES).await?;
    let tables = request::tables_of_body(&body)?;
    start(call, tables, true).await
}

async fn start(call: Call, tables: Vec<(String, Request)>, is_many: bool) -> Result<Response<Body>, Problem> {
    if call.server.is_shutting_down() {
        let detail = "the server shuts down: try again, or another server";
        return Err(Problem::unavailable("stopping", "The server stops", detail));
    }
    let Ok(permit) = call.server.watchers.clone().try_acquire_owned() else {
        let detail = "server.max_watchers are open";
        return Err(Problem::unavailable("overloaded", "There are too many watches", detail));
    };
    let Some(share) = call.server.client_watchers.take(&call.caller.name) else {
        let (title, detail) = ("The client has too many watches", "server.max_watchers_per_client are open");
        return Err(
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", title, detail).retry_after(1)
        );
    };
    let format = format_of(&call.headers);
    let mut followed = Vec::with_capacity(tables.len());
    for (name, request) in tables {
        followed.push(FollowedTable::open(&call, name, request).await?);
    }
    let stream = WatchStream::new(followed, format, is_many, &call, (permit, share));
    let mut response = Response::new(Body::from_stream(stream.into_chunks()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx must not hold events back.
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response.extensions_mut().insert(EndlessBody);
    Ok(response)
}

/// Returns the format that a client accepts: server-sent events if it names them, else lines of JSON.
fn format_of(headers: &HeaderMap) -> Format {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_sse =
        accept.flat_map(|text| text.split(',')).any(|part| part.trim().starts_with("text/event-stream"));
    if is_sse { Format::ServerSentEvents } else { Format::Lines }
}
