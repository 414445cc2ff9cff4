//! What a server serves: the tables, their status and statistics, their rejected records, and barriers.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, Response};
use serde::Serialize;
use serde_json::json;

use crate::log::{Offset, Partition};
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::http::entries::respond_json;
use crate::serve::http::reading::{MAX_TIMEOUT, Reading, require_fresh};
use crate::serve::problem::Problem;
use crate::serve::tables::ServedTable;
use crate::wire::{CodecsJson, FullStatusJson, PartitionJson, RejectJson, StatusJson};

/// How long the log may take to return the end offsets, from which the lag is computed.
const LAG_TIMEOUT: Duration = Duration::from_secs(2);

/// How many rejected records an answer has at most.
const MAX_REJECTS: usize = 1_000;

/// A table with its codecs.
#[derive(Debug, Serialize)]
struct TableJson<'a> {
    table: &'a str,
    #[serde(flatten)]
    status: FullStatusJson<'a>,
    topic_id: &'a str,
    fingerprint: &'a str,
    codecs: CodecsJson<'a>,
    /// Whether a swap has replaced the codecs of the configuration, until the server is started again.
    differs_from_configuration: bool,
}

/// Returns the tables that the caller may read.
pub(super) async fn list(call: Call) -> Result<Response<Body>, Problem> {
    call.query(&[])?;
    let tables = call.server.tables.load_full();
    let readable = (*tables).iter().flatten().filter(|(name, _)| call.caller.may(Role::Read, name));
    let mut listed = Vec::new();
    for (_, table) in readable {
        listed.push(describe(table, &[]));
    }
    Ok(respond_json(HeaderMap::new(), json!({ "tables": listed }).to_string()))
}

/// Returns the status and the statistics of a table.
pub(super) async fn status(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Read, &table)?;
    call.query(&[])?;
    let topic = table.table.topic();
    let ends = tokio::time::timeout(LAG_TIMEOUT, table.source.log.end_offsets(&topic)).await;
    let ends = ends.ok().and_then(Result::ok).unwrap_or_default();
    let headers = Reading::now(table.clone(), Duration::ZERO).headers();
    Ok(respond_json(headers, describe(&table, &ends).to_string()))
}

/// Describes a table. `ends` has the end offsets of its topic, as far as they are known.
fn describe(table: &Arc<ServedTable>, ends: &[(Partition, Offset)]) -> serde_json::Value {
    let (status, stats, snapshot) = (table.table.status(), table.table.stats(), table.table.snapshot());
    let partitions: Vec<_> =
        stats.partitions.iter().map(|progress| PartitionJson::new(progress, ends)).collect();
    let codecs = table.codecs();
    let log = table.source.log.clone();
    let described = TableJson {
        table: &table.name,
        status: FullStatusJson {
            status: StatusJson::new(log.url(), &snapshot.topic().name, &status, &stats, &partitions),
            partitions: &partitions,
        },
        topic_id: &snapshot.topic().id,
        fingerprint: snapshot.fingerprint(),
        differs_from_configuration: !table.has_configured_codecs(),
        codecs: CodecsJson::new(&codecs),
    };
    // OK because texts and numbers always serialize.
    let mut described = serde_json::to_value(&described).expect("serializes");
    if let Some(described) = described.as_object_mut() {
        // The number differs between the processes that serve a table.
        described.remove("generation");
    }
    described
}

/// Returns the records that were rejected last.
pub(super) async fn rejects(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Read, &table)?;
    let query = call.query(&["limit"])?;
    let limit = query.number("limit")?.unwrap_or(MAX_REJECTS).min(MAX_REJECTS);
    let has_raw = call.caller.may(Role::ReadRaw, &table.name);
    let rejects = table.table.rejects();
    let newest = &rejects[rejects.len().saturating_sub(limit)..];
    let listed = newest.iter().map(|reject| {
        // OK because texts and numbers always serialize.
        let mut json = serde_json::to_value(RejectJson::new(reject)).expect("serializes");
        if let Some(json) = json.as_object_mut().filter(|_| !has_raw) {
            json.remove("raw");
        }
        json
    });
    let headers = Reading::now(table.clone(), Duration::ZERO).headers();
    Ok(respond_json(headers, json!({ "rejects": listed.collect::<Vec<_>>() }).to_string()))
}

/// Waits until everything that was acknowledged before is visible.
pub(super) async fn barrier(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Read, &table)?;
    let query = call.query(&["timeout"])?;
    let timeout = query.duration("timeout", MAX_TIMEOUT)?.unwrap_or(call.server.settings.request_timeout);
    require_fresh(table.table.barrier(timeout).await)?;
    let headers = Reading::now(table, Duration::ZERO).headers();
    Ok(respond_json(headers, json!({ "fresh": true }).to_string()))
}
