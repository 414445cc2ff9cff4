//! One entry: read it, wait for its next change, write it, delete it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use crate::escape::one_line_within;
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::http::entry_name::describe;
use crate::serve::http::groups::require_groups;
use crate::serve::http::path::key_of_path;
use crate::serve::http::query::Query;
use crate::serve::http::reading::{MAX_TIMEOUT, READ_PARAMETERS, Reading};
use crate::serve::http::writing::{Written, write_one};
use crate::serve::problem::Problem;
use crate::serve::tables::ServedTable;
use crate::table::{Entry, RejectNotice, WatchFilter, WatchStart, Watcher};
use crate::writer::{Target, Write};

const PARTITION: HeaderName = HeaderName::from_static("ktables-partition");
const OFFSET: HeaderName = HeaderName::from_static("ktables-offset");
const TIMESTAMP: HeaderName = HeaderName::from_static("ktables-timestamp");
const NOTICE: HeaderName = HeaderName::from_static("ktables-notice");

/// How many bytes of the reason of a notice are in a header.
const NOTICE_BYTES: usize = 512;

/// Returns the entry that the parameters name.
pub(super) async fn get(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Read, &table)?;
    let query =
        call.query(&[&["key", "group", "member", "expired", "wait"], &READ_PARAMETERS[..]].concat())?;
    let target = target_of_query(&query)?;
    if matches!(target, Target::Member { .. }) {
        require_groups(&table)?;
    }
    answer(&call, table, &query, &target).await
}

/// Returns the entry of the key that the path ends with.
pub(super) async fn get_by_path(
    call: Call,
    Path((table, _)): Path<(String, String)>,
) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Read, &table)?;
    let query = call.query(&[&["expired", "wait"], &READ_PARAMETERS[..]].concat())?;
    let target = Target::Key(key_of_path(call.uri.path())?);
    answer(&call, table, &query, &target).await
}

/// Answers with an entry. A long poll (`If-None-Match` with `wait`) answers when its own answer changes.
async fn answer(
    call: &Call,
    table: Arc<ServedTable>,
    query: &Query,
    target: &Target,
) -> Result<Response<Body>, Problem> {
    let known: Vec<&str> =
        call.headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).collect();
    let known = (!known.is_empty()).then(|| known.join(","));
    let known = known.as_deref();
    let wait = query.duration("wait", MAX_TIMEOUT)?;
    if wait.is_some() && known.is_none() {
        return Err(Problem::bad_request(
            "`wait` needs the header If-None-Match with the ETag of an earlier answer",
        ));
    }
    let show_expired = query.flag("expired", false)?;
    // Before the first look, so that no change is missed.
    let watcher = wait.map(|_| watch(&table, target));
    let reading = Reading::begin(call, table, query).await?;
    let deadline = Instant::now() + wait.unwrap_or_default();
    let mut poll = LongPoll { watcher, deadline, shutdown: call.server.shutdown.clone() };
    let mut answer = Answer::new(reading, target, show_expired);
    while answer.is_known(known) && poll.wait_for_change().await {
        answer = Answer::new(answer.reading.again(), target, show_expired);
    }
    answer.into_response(known, target)
}

/// Watches what an answer depends on.
fn watch(table: &ServedTable, target: &Target) -> Watcher {
    let filter = match target {
        Target::Key(key) => WatchFilter::Key(key.clone()),
        Target::Member { group, .. } => WatchFilter::Group(group.clone()),
    };
    table.table.watch(WatchStart::Now).with_filter(filter)
}

/// A request that waits for a change.
struct LongPoll {
    /// `None` if the request does not wait.
    watcher: Option<Watcher>,
    deadline: Instant,
    shutdown: tokio::sync::watch::Receiver<Option<Instant>>,
}

impl LongPoll {
    /// Waits until the answer may have changed. Returns false if it has not in time.
    async fn wait_for_change(&mut self) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        tokio::select! {
            event = watcher.next() => event.is_some(),
            () = tokio::time::sleep_until(self.deadline) => false,
            // OK to ignore an error: the server is gone.
            _ = self.shutdown.wait_for(Option::is_some) => false,
        }
    }
}

/// The answer to a read of an entry.
struct Answer {
    reading: Reading,
    entry: Option<Entry>,
    is_expired: bool,
    notice: Option<RejectNotice>,
    etag: String,
}

impl Answer {
    fn new(reading: Reading, target: &Target, show_expired: bool) -> Self {
        let snapshot = &reading.snapshot;
        let (entry, key) = match target {
            Target::Key(key) => (snapshot.get(key), Some(&**key)),
            Target::Member { group, member } => {
                let entry = snapshot.member(group, member);
                (entry, entry.map(Entry::key))
            }
        };
        let notice = key.and_then(|key| snapshot.notice(key)).cloned();
        let expired = match key {
            Some(key) if entry.is_none() => reading.table.table.get_expired(key),
            _ => None,
        };
        let is_expired = expired.is_some();
        let entry = entry.cloned().or(expired.filter(|_| show_expired));
        let (topic, fingerprint) = (&snapshot.topic().id, snapshot.fingerprint());
        let etag = match &entry {
            Some(entry) => format!("\"{topic}-{}-{}-{fingerprint}\"", entry.partition(), entry.offset()),
            None => format!("\"{topic}-none-{fingerprint}\""),
        };
        Self { reading, entry, is_expired, notice, etag }
    }

    /// Whether the caller has this answer already.
    fn is_known(&self, known: Option<&str>) -> bool {
        let is_this = |tag: &str| match tag.trim() {
            "*" => self.entry.is_some(),
            tag => tag.trim_start_matches("W/") == self.etag,
        };
        let is_certain = || self.entry.is_some() || self.reading.require_absence().is_ok();
        known.is_some_and(|known| known.split(',').any(is_this)) && is_certain()
    }

    fn into_response(self, known: Option<&str>, target: &Target) -> Result<Response<Body>, Problem> {
        let mut headers = self.reading.headers();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            headers.insert(ETAG, etag);
        }
        if let Some(notice) = &self.notice {
            headers.insert(NOTICE, format_notice(notice));
        }
        let is_known = self.is_known(known);
        let Some(entry) = &self.entry else {
            self.reading.require_absence()?;
            if is_known {
                return Ok(respond(StatusCode::NOT_MODIFIED, headers, Body::empty()));
            }
            return Err(self.not_found(target).with_headers(&headers));
        };
        headers.insert(PARTITION, entry.partition().into());
        headers.insert(OFFSET, entry.offset().into());
        if let Some(timestamp) = entry.timestamp() {
            headers.insert(TIMESTAMP, timestamp.into());
        }
        if is_known {
            return Ok(respond(StatusCode::NOT_MODIFIED, headers, Body::empty()));
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(respond(StatusCode::OK, headers, Body::from(entry.json().to_owned())))
    }

    fn not_found(&self, target: &Target) -> Problem {
        let name = describe(target);
        let detail = match (self.is_expired, &self.notice) {
            (true, _) => format!("the entry of {name} has expired: `expired=true` shows it"),
            (false, Some(_)) => {
                format!("all records for {name} were rejected: see the header Ktables-Notice")
            }
            (false, None) => format!("there is no entry for {name}"),
        };
        let problem = Problem::not_found("not-found", "There is no such entry", detail);
        if self.is_expired { problem.with_member("expired", true) } else { problem }
    }
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Formats the notice on a key whose newest record was rejected.
fn format_notice(notice: &RejectNotice) -> HeaderValue {
    let RejectNotice { partition, offset, kind, message, .. } = notice;
    let text = format!(
        "partition={partition}; offset={offset}; kind={kind}; {}",
        one_line_within(message, NOTICE_BYTES)
    );
    // A header has visible ASCII characters only.
    let ascii: String =
        text.chars().map(|char| if (' '..='~').contains(&char) { char } else { '?' }).collect();
    HeaderValue::from_str(&ascii).unwrap_or_else(|_| HeaderValue::from_static("rejected"))
}

/// Returns the entry that the parameters name.
fn target_of_query(query: &Query) -> Result<Target, Problem> {
    match (query.get("key"), query.get("group"), query.get("member")) {
        (Some(key), None, None) => Ok(Target::Key(key.to_owned())),
        (None, Some(group), Some(member)) => {
            Ok(Target::Member { group: group.to_owned(), member: member.to_owned() })
        }
        _ => Err(Problem::bad_request("which entry? Add either ?key=KEY, or ?group=GROUP&member=MEMBER")),
    }
}

/// The parameters of a write.
const WRITE_PARAMETERS: [&str; 5] = ["key", "group", "member", "visible", "timeout"];

/// Writes the entry that the parameters name.
pub(super) async fn put(
    call: Call,
    Path(table): Path<String>,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Write, &table)?;
    let query = call.query(&WRITE_PARAMETERS)?;
    let target = target_of_query(&query)?;
    let value = read_value(&call, body).await?;
    write(call, table, &query, Write { target, value: Some(value) }).await
}

/// Writes the entry of the key that the path ends with.
pub(super) async fn put_by_path(
    call: Call,
    Path((table, _)): Path<(String, String)>,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Write, &table)?;
    let query = call.query(&["visible", "timeout"])?;
    let target = Target::Key(key_of_path(call.uri.path())?);
    let value = read_value(&call, body).await?;
    write(call, table, &query, Write { target, value: Some(value) }).await
}

/// Deletes the entry that the parameters name.
pub(super) async fn delete(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Write, &table)?;
    let query = call.query(&WRITE_PARAMETERS)?;
    let target = target_of_query(&query)?;
    write(call, table, &query, Write { target, value: None }).await
}

/// Deletes the entry of the key that the path ends with.
pub(super) async fn delete_by_path(
    call: Call,
    Path((table, _)): Path<(String, String)>,
) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Write, &table)?;
    let query = call.query(&["visible", "timeout"])?;
    let target = Target::Key(key_of_path(call.uri.path())?);
    write(call, table, &query, Write { target, value: None }).await
}

async fn read_value(call: &Call, body: Body) -> Result<String, Problem> {
    let body = call.read_body(body, call.server.settings.max_body).await?;
    String::from_utf8(body.into()).map_err(|_| Problem::bad_request("the value is not UTF-8"))
}

async fn write(
    call: Call,
    table: Arc<ServedTable>,
    query: &Query,
    write: Write,
) -> Result<Response<Body>, Problem> {
    if [IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE].iter().any(|name| call.headers.contains_key(name)) {
        let detail =
            "Kafka has no compare-and-set: a condition could be checked, but not kept until the write";
        return Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "no-conditional-writes",
            "Writes take no conditions",
            detail,
        ));
    }
    let is_visible = query.flag("visible", false)?;
    let timeout: Duration =
        query.duration("timeout", MAX_TIMEOUT)?.unwrap_or(call.server.settings.request_timeout);
    write_one(call, table, write, is_visible, timeout).await.map(Written::into_response)
}
