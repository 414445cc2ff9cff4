//! Many entries: pages of a table, batches of keys, and whole snapshots.

use std::ops::Bound;

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::log::{Offset, Partition};
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::http::ndjson::{CHUNK_BYTES, body_of_parts, push_line};
use crate::serve::http::query::{Query, invalid};
use crate::serve::http::reading::{READ_PARAMETERS, Reading};
use crate::serve::problem::Problem;
use crate::table::{Entry, Snapshot};
use crate::wire::EntryJson;

/// How many entries a page has by default, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

/// How many bytes of entries a page has about, at most: the page ends early.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// How many keys of a table a page looks at: a filter that matches little must not look at all of them at once.
const MAX_PAGE_KEYS: usize = 100_000;

/// How many keys a batch may ask for.
const MAX_BATCH_KEYS: usize = 10_000;

/// How many bytes a body with the keys of a batch may have.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// Which entries a page has.
struct PageQuery {
    prefix: String,
    /// The first key.
    from: Bound<String>,
    /// The first key that is not among them.
    end: Option<String>,
    contains: Option<String>,
    partition: Option<Partition>,
    limit: usize,
    has_values: bool,
}

/// A page of entries.
#[derive(Debug, Serialize)]
struct Page<T> {
    entries: Vec<T>,
    /// The parameter `cursor` of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// An entry without its value.
#[derive(Debug, Serialize)]
struct KeyJson<'a> {
    key: &'a str,
    partition: Partition,
    offset: Offset,
    timestamp: Option<i64>,
}

impl PageQuery {
    fn new(query: &Query) -> Result<Self, Problem> {
        let text = |name| query.get(name).map(str::to_owned);
        let limit = query.number("limit")?.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(invalid("limit", "a number from 1 to 10000"));
        }
        let prefix = text("prefix").unwrap_or_default();
        let first = text("start").unwrap_or_default().max(prefix.clone());
        // The cursor is the last key of the page before, so it never expires.
        let from = match text("cursor") {
            Some(cursor) if cursor >= first => Bound::Excluded(cursor),
            _ => Bound::Included(first),
        };
        Ok(Self {
            prefix,
            from,
            end: text("end"),
            contains: text("contains"),
            partition: query.number("partition")?,
            limit,
            has_values: query.flag("values", true)?,
        })
    }

    /// Returns the entries of the page, and the cursor of the next one.
    fn select<'a>(&'a self, snapshot: &'a Snapshot) -> (Vec<&'a Entry>, Option<String>) {
        let from = self.from.as_ref().map(String::as_str);
        let (mut selected, mut bytes, mut last) = (Vec::new(), 0, None);
        for (index, entry) in snapshot.range((from, Bound::Unbounded)).enumerate() {
            let key = entry.key();
            if !key.starts_with(&self.prefix) || self.end.as_deref().is_some_and(|end| key >= end) {
                return (selected, None);
            }
            if selected.len() >= self.limit || bytes >= MAX_PAGE_BYTES || index >= MAX_PAGE_KEYS {
                return (selected, last);
            }
            last = Some(key.to_owned());
            let is_contained = self.contains.as_deref().is_none_or(|part| key.contains(part));
            if is_contained && self.partition.is_none_or(|partition| partition == entry.partition()) {
                bytes += key.len() + entry.json().len();
                selected.push(entry);
            }
        }
        (selected, None)
    }
}

/// Returns a page of the table, in the order of keys.
pub(super) async fn list(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Read, &table)?;
    let own = ["prefix", "start", "end", "contains", "partition", "limit", "cursor", "values"];
    let query = call.query(&[&own, &READ_PARAMETERS[..]].concat())?;
    let page = PageQuery::new(&query)?;
    let reading = Reading::begin(&call, table, &query).await?;
    reading.require_contents()?;
    let (entries, cursor) = page.select(&reading.snapshot);
    let notice = |entry: &&Entry| reading.snapshot.notice(entry.key());
    let text = if page.has_values {
        let entries = entries.iter().map(|entry| EntryJson::new(entry).with_notice(notice(entry))).collect();
        serde_json::to_string(&Page { entries, cursor })
    } else {
        serde_json::to_string(&Page { entries: entries.into_iter().map(KeyJson::new).collect(), cursor })
    };
    // OK because entries always serialize.
    Ok(respond_json(reading.headers(), text.expect("serializes")))
}

impl<'a> KeyJson<'a> {
    fn new(entry: &'a Entry) -> Self {
        let (key, partition) = (entry.key(), entry.partition());
        Self { key, partition, offset: entry.offset(), timestamp: entry.timestamp() }
    }
}

/// The body of a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    keys: Vec<String>,
}

/// The answer to a batch.
#[derive(Debug, Serialize)]
struct BatchAnswer<'a> {
    entries: Vec<EntryJson<'a>>,
    absent: Vec<&'a String>,
}

/// Returns the entries of many keys, all from one snapshot.
pub(super) async fn batch(
    call: Call,
    Path(table): Path<String>,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Read, &table)?;
    let query = call.query(&READ_PARAMETERS)?;
    let body = call.read_body(body, MAX_BATCH_BYTES).await?;
    let Batch { keys } = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!("the body must be {{\"keys\": [\"KEY\", …]}}: {error}"))
    })?;
    if keys.len() > MAX_BATCH_KEYS {
        return Err(Problem::bad_request(format!(
            "{} keys are too many: {MAX_BATCH_KEYS} at most",
            keys.len()
        )));
    }
    let reading = Reading::begin(&call, table, &query).await?;
    reading.require_contents()?;
    let snapshot = &reading.snapshot;
    let (mut entries, mut absent, mut bytes) = (Vec::new(), Vec::new(), 0);
    for key in &keys {
        match snapshot.get(key) {
            Some(entry) => {
                bytes += entry.json().len();
                entries.push(EntryJson::new(entry).with_notice(snapshot.notice(key)));
            }
            None => absent.push(key),
        }
        if bytes > MAX_PAGE_BYTES {
            return Err(Problem::bad_request(format!(
                "the entries have more than {MAX_PAGE_BYTES} bytes: ask for fewer keys"
            )));
        }
    }
    // OK because entries always serialize.
    let text = serde_json::to_string(&BatchAnswer { entries, absent }).expect("serializes");
    Ok(respond_json(reading.headers(), text))
}

/// Returns all entries of one snapshot.
pub(super) async fn snapshot(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Read, &table)?;
    let query = call.query(&[&["format"], &READ_PARAMETERS[..]].concat())?;
    let is_object = match query.get("format").unwrap_or("ndjson") {
        "ndjson" => false,
        "object" => true,
        _ => return Err(invalid("format", "ndjson or object")),
    };
    let reading = Reading::begin(&call, table, &query).await?;
    reading.require_contents()?;
    let headers = reading.headers();
    let body = if is_object { object_body(reading.snapshot) } else { ndjson_body(reading) };
    let content_type = if is_object { "application/json" } else { "application/x-ndjson" };
    Ok(respond(headers, content_type, body))
}

/// Walks through the entries of a snapshot, with the key of the last one as the position.
struct SnapshotWalk {
    snapshot: Snapshot,
    last: Option<String>,
}

impl SnapshotWalk {
    /// How many entries are written before the next part.
    const STEP: usize = 64;

    /// Calls `write` with the next entries, until a chunk is full. Returns false if there are no more.
    fn step(&mut self, text: &mut Vec<u8>, mut write: impl FnMut(&mut Vec<u8>, &Snapshot, &Entry)) -> bool {
        let from = self.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut last, mut has_more) = (None, false);
        for (index, entry) in self.snapshot.range((from, Bound::Unbounded)).enumerate() {
            if index == Self::STEP || text.len() >= CHUNK_BYTES {
                has_more = true;
                break;
            }
            write(text, &self.snapshot, entry);
            last = Some(entry.key());
        }
        self.last = last.map(str::to_owned).or(self.last.take());
        has_more
    }
}

/// Writes a line for the start, for each entry, and for the end, so that a truncated body is noticed.
fn ndjson_body(reading: Reading) -> Body {
    let snapshot = &reading.snapshot;
    let positions: serde_json::Map<String, serde_json::Value> =
        snapshot.positions().map(|(partition, offset)| (partition.to_string(), offset.into())).collect();
    let start = json!({
        "type": "start",
        "topic_id": snapshot.topic().id,
        "fingerprint": snapshot.fingerprint(),
        "status": reading.status.name(),
        "positions": positions,
    });
    let mut start = Some(start);
    let mut entries = 0_u64;
    let mut walk = SnapshotWalk { snapshot: reading.snapshot, last: None };
    body_of_parts(move |text| {
        if let Some(start) = start.take() {
            push_line(text, &start);
        }
        let has_more = walk.step(text, |text, snapshot, entry| {
            push_line(text, &EntryJson::new(entry).with_notice(snapshot.notice(entry.key())));
            entries += 1;
        });
        if !has_more {
            push_line(text, &json!({ "type": "end", "entries": entries }));
        }
        has_more
    })
}

/// Writes one object: the value of each key.
fn object_body(snapshot: Snapshot) -> Body {
    let mut is_first = true;
    let mut walk = SnapshotWalk { snapshot, last: None };
    body_of_parts(move |text| {
        let has_more = walk.step(text, |text, _, entry| {
            text.extend_from_slice(if is_first { b"{" } else { b",\n" });
            is_first = false;
            // OK because texts always serialize.
            serde_json::to_writer(&mut *text, entry.key()).expect("serializes");
            text.push(b':');
            text.extend_from_slice(entry.json().as_bytes());
        });
        if !has_more {
            text.extend_from_slice(if is_first { b"{}\n" } else { b"}\n" });
        }
        has_more
    })
}

pub(super) fn respond_json(headers: HeaderMap, text: String) -> Response<Body> {
    respond(headers, "application/json", Body::from(text))
}

fn respond(headers: HeaderMap, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
