//! Records as the log holds them: the record of an entry, and the earlier records of its key.

use std::ops::ControlFlow;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::http::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::json;

use crate::escape::escape_name;
use crate::log::{Headers, Offset, OffsetRange, Partition, Record, read_ranges};
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::http::entries::respond_json;
use crate::serve::http::query::invalid;
use crate::serve::http::reading::{READ_PARAMETERS, Reading};
use crate::serve::http::writing::{audit, log_problem};
use crate::serve::problem::Problem;
use crate::table::Entry;

/// How many versions of an entry are returned by default, and at most.
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 1_000;

/// How many records, and how many bytes of raw versions, a request may read.
const MAX_RECORDS: Offset = 100_000;
const MAX_BYTES: usize = 16 << 20;

/// How long reading records back may take.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A record as the log holds it. Key, value and header values are base64.
#[derive(Debug, Serialize)]
struct RecordJson {
    partition: Partition,
    offset: Offset,
    timestamp: Option<i64>,
    key: Option<String>,
    /// `None` for a tombstone.
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

impl RecordJson {
    fn new(record: &Record<'_>) -> Self {
        let encode = |bytes: &[u8]| BASE64.encode(bytes);
        let header = |header: &crate::log::Header| (header.name.clone(), header.value.as_deref().map(encode));
        Self {
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(encode),
            value: record.value.map(encode),
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

/// Returns the record of an entry.
pub(super) async fn record(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let (reading, entry, _) = find(&call, &table, &[]).await?;
    let range = OffsetRange { partition: entry.partition(), start: entry.offset(), end: entry.offset() + 1 };
    let mut found = None;
    let add = |record: &Record<'_>| {
        found = Some(RecordJson::new(record));
        ControlFlow::Break(())
    };
    read(&reading, range, add).await?;
    let record = found.ok_or_else(|| no_record(&reading))?;
    audit(&call, &table, &format!("read the raw record of key `{}`", escape_name(entry.key())));
    // OK because texts and numbers always serialize.
    Ok(respond_json(reading.headers(), serde_json::to_string(&record).expect("serializes")))
}

fn no_record(reading: &Reading) -> Problem {
    let detail = "the log no longer holds the record of the entry";
    Problem::not_found("no-record", "The record is gone", detail).with_headers(&reading.headers())
}

/// Returns the records that the log holds of the key of an entry, newest first.
pub(super) async fn history(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let (reading, entry, limit) = find(&call, &table, &["limit"]).await?;
    let topic = reading.table.table.topic();
    let ranges = reading.table.source.log.offsets(&topic).await.map_err(|error| log_problem(&error))?;
    let whole = ranges.iter().find(|range| range.partition == entry.partition());
    let end = entry.offset() + 1;
    let first = whole.map_or(end, |range| range.start);
    let start = first.max(end - MAX_RECORDS);
    let mut raw_key: Option<Vec<u8>> = None;
    let own = OffsetRange { partition: entry.partition(), start: entry.offset(), end };
    read(&reading, own, |record| {
        raw_key = record.key.map(<[u8]>::to_vec);
        ControlFlow::Break(())
    })
    .await?;
    if raw_key.is_none() {
        return Err(no_record(&reading));
    }
    audit(&call, &table, &format!("read the raw records of key `{}`", escape_name(entry.key())));
    let (mut versions, mut bytes) = (std::collections::VecDeque::new(), 0);
    let add = |record: &Record<'_>| {
        if record.key == raw_key.as_deref() {
            bytes += byte_len(record);
            versions.push_back((RecordJson::new(record), byte_len(record)));
            while versions.len() > limit || bytes > MAX_BYTES && versions.len() > 1 {
                bytes -= versions.pop_front().map_or(0, |(_, bytes)| bytes);
            }
        }
        ControlFlow::Continue(())
    };
    read(&reading, OffsetRange { partition: entry.partition(), start, end }, add).await?;
    let versions: Vec<RecordJson> = versions.into_iter().rev().map(|(version, _)| version).collect();
    let answer = json!({ "versions": versions, "is_complete": start == first });
    Ok(respond_json(reading.headers(), answer.to_string()))
}

fn byte_len(record: &Record<'_>) -> usize {
    let headers =
        record.headers.iter().map(|header| header.name.len() + header.value.as_ref().map_or(0, Vec::len));
    record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers.sum::<usize>()
}

/// Finds the entry of the key that the parameters name.
async fn find(call: &Call, table: &str, own: &[&str]) -> Result<(Reading, Entry, usize), Problem> {
    let table = call.table(Role::ReadRaw, table)?;
    let query = call.query(&[&["key"], own, &READ_PARAMETERS[..]].concat())?;
    let key = query.get("key").ok_or_else(|| Problem::bad_request("which entry? Add ?key=KEY"))?;
    let limit = query.number("limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(invalid("limit", "a number from 1 to 1000"));
    }
    let reading = Reading::begin(call, table, &query).await?;
    let Some(entry) = reading.snapshot.get(key).cloned() else {
        reading.require_absence()?;
        let detail = "there is no entry for this key";
        return Err(Problem::not_found("not-found", "There is no such entry", detail)
            .with_headers(&reading.headers()));
    };
    Ok((reading, entry, limit))
}

/// Reads a range of records back from the log.
async fn read(
    reading: &Reading,
    range: OffsetRange,
    mut on_record: impl FnMut(&Record<'_>) -> ControlFlow<()>,
) -> Result<(), Problem> {
    let (log, topic) = (reading.table.source.log.as_ref(), reading.table.table.topic());
    let ranges = [range];
    let on_batch =
        |batch: crate::log::RecordBatch| (0..batch.len()).try_for_each(|index| on_record(&batch.get(index)));
    let reading = read_ranges(log, &topic, &ranges, Headers::Wanted, on_batch);
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(result) => result.map_err(|error| log_problem(&error)),
        Err(_) => Err(Problem::unavailable(
            "slow-log",
            "The log is slow",
            "the log did not return the records in time",
        )),
    }
}
