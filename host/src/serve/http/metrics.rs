//! Metrics in the text formats of Prometheus. They are computed when they are asked for, and only of tables that the
//! caller may read.

mod components;
mod families;
mod server;
mod tables;
mod text_format;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderValue, Response};
use futures_util::future::join_all;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::log::{Offset, Partition};
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::problem::Problem;
use crate::serve::tables::ServedTable;
use crate::sync::lock;

/// How long the log may take to return end offsets. Without them, the lag is left out.
const LAG_TIMEOUT: Duration = Duration::from_secs(1);

/// The media types of the formats. The first one is sent to clients that ask for it.
const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Returns all metrics.
pub(super) async fn metrics(call: Call) -> Result<Response<Body>, Problem> {
    call.query(&[])?;
    let tables = call.server.tables.load_full();
    let readable = (*tables).iter().flatten().filter(|(name, _)| call.caller.may(Role::Read, name));
    let readable: Vec<Arc<ServedTable>> = readable.map(|(_, table)| table.clone()).collect();
    let ends = join_all(readable.iter().map(|table| end_offsets(table))).await;
    let mut registry = Registry::default();
    tables::add_tables(&mut registry, &readable, &ends);
    let used_by = readable.iter().map(|table| &**table);
    components::add_components(&mut registry, &call.server.catalog.load(), used_by);
    server::add_server(&mut registry, &call.server);
    server::add_reload(&mut registry, *lock(&call.server.last_reload));
    server::add_process(&mut registry, call.server.started);
    let mut text = String::new();
    // OK because writing to a string never fails.
    encode(&mut text, &registry).expect("a string");
    let is_open = call.header(ACCEPT).is_some_and(|accepted| accepted.contains(OPEN_METRICS));
    let (content_type, text) = match is_open {
        true => (OPEN_METRICS_TYPE, text),
        false => (TEXT_TYPE, text_format::from_open_metrics(&text)),
    };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

async fn end_offsets(table: &ServedTable) -> Vec<(Partition, Offset)> {
    let topic = table.table.topic();
    let ends = tokio::time::timeout(LAG_TIMEOUT, table.source.log.end_offsets(&topic)).await;
    ends.ok().and_then(Result::ok).unwrap_or_default()
}
