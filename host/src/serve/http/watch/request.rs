//! What a client asks of a watch.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;

use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::http::query::{Query, invalid};
use crate::serve::problem::Problem;
use crate::table::{WatchFilter, WatchStart, WatchToken};

/// The parameters of a watch.
pub(super) const WATCH_PARAMETERS: [&str; 7] = ["since", "snapshot", "mode", "old", "key", "prefix", "group"];

/// How many tables one watch may have.
const MAX_TABLES: usize = 1_000;

/// What a client asks of the watch of a table.
#[derive(Debug, Clone)]
pub(in crate::serve::http) struct Request {
    pub(super) start: WatchStart,
    pub(super) filter: WatchFilter,
    /// Whether every change is sent; otherwise a client that falls behind gets the newest state.
    pub(super) is_every: bool,
    /// Whether changes have the value before them.
    pub(super) has_old: bool,
    /// Whether the client has seen something before, and nobody knows what: it must forget that.
    pub(super) is_unknown: bool,
}

/// A table in the body of a watch of several.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableRequest {
    table: String,
    since: Option<String>,
    snapshot: Option<bool>,
    mode: Option<String>,
    old: Option<bool>,
    key: Option<String>,
    prefix: Option<String>,
    group: Option<String>,
}

/// The body of a watch of several tables.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManyRequest {
    tables: Vec<TableRequest>,
}

impl Request {
    /// Reads the parameters. `last_event_id` is the header with which browsers resume.
    pub(super) fn of_query(query: &Query, last_event_id: Option<&str>) -> Result<Self, Problem> {
        let text = |name| query.get(name).map(str::to_owned);
        let since = last_event_id.filter(|id| !id.is_empty()).or(query.get("since")).map(str::to_owned);
        TableRequest {
            table: String::new(),
            since,
            snapshot: Some(query.flag("snapshot", true)?),
            mode: text("mode"),
            old: Some(query.flag("old", true)?),
            key: text("key"),
            prefix: text("prefix"),
            group: text("group"),
        }
        .parse()
    }
}

impl TableRequest {
    fn parse(self) -> Result<Request, Problem> {
        let start = match (&self.since, self.snapshot.unwrap_or(true)) {
            (Some(since), _) => since.parse().map_or(WatchStart::Entries, WatchStart::Since),
            (None, true) => WatchStart::Entries,
            (None, false) => WatchStart::Now,
        };
        let filter = match (self.key, self.prefix, self.group) {
            (None, None, None) => WatchFilter::All,
            (Some(key), None, None) => WatchFilter::Key(key),
            (None, Some(prefix), None) => WatchFilter::Prefix(prefix),
            (None, None, Some(group)) => WatchFilter::Group(group),
            _ => return Err(Problem::bad_request("only one of `key`, `prefix` and `group` can be given")),
        };
        let is_every = match self.mode.as_deref().unwrap_or("latest") {
            "latest" => false,
            "every" => true,
            _ => return Err(invalid("mode", "latest or every")),
        };
        let is_unknown = self.since.is_some() && matches!(start, WatchStart::Entries);
        Ok(Request { start, filter, is_unknown, is_every, has_old: self.old.unwrap_or(true) })
    }
}

/// Returns the tables that the parameters of a watch of several name.
pub(super) fn tables_of_query(call: &Call, query: &Query) -> Result<Vec<(String, Request)>, Problem> {
    let since = call.header("last-event-id").filter(|id| !id.is_empty()).or(query.get("since"));
    let tokens = since.and_then(parse_combined).unwrap_or_default();
    let names: Vec<String> = match query.get("tables") {
        Some(names) => names.split(',').map(str::to_owned).collect(),
        None => {
            let tables = call.server.tables.load();
            let opening = call.server.opening.load();
            // A client that asks for all would not notice that one is missing.
            let names = (**tables).iter().flat_map(BTreeMap::keys).chain(opening.iter());
            names.filter(|name| call.caller.may(Role::Read, name)).cloned().collect()
        }
    };
    check_count(names.len())?;
    let whole = Request::of_query(&query.without("since"), None)?;
    let request = |name: String| {
        let mut request = whole.clone();
        match tokens.get(&name).and_then(|token| token.parse::<WatchToken>().ok()) {
            Some(token) => request.start = WatchStart::Since(token),
            // What the client has seen of this table is not known.
            None if since.is_some() => (request.start, request.is_unknown) = (WatchStart::Entries, true),
            None => {}
        }
        (name, request)
    };
    check_distinct(names.iter())?;
    Ok(names.into_iter().map(request).collect())
}

/// Returns the tables that the body of a watch of several names.
pub(super) fn tables_of_body(body: &[u8]) -> Result<Vec<(String, Request)>, Problem> {
    let request: ManyRequest = serde_json::from_slice(body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be {{\"tables\": [{{\"table\": \"NAME\"}}, …]}}: {error}"
        ))
    })?;
    check_count(request.tables.len())?;
    let mut parsed: Vec<(String, Request)> = Vec::new();
    for table in request.tables {
        parsed.push((table.table.clone(), table.parse()?));
    }
    check_distinct(parsed.iter().map(|(name, _)| name))?;
    Ok(parsed)
}

fn check_distinct<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), Problem> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Problem::bad_request("a table is named twice: a watch has each table once"));
        }
    }
    Ok(())
}

fn check_count(tables: usize) -> Result<(), Problem> {
    if (1..=MAX_TABLES).contains(&tables) {
        return Ok(());
    }
    Err(Problem::bad_request(format!("a watch has from 1 to {MAX_TABLES} tables, and this one has {tables}")))
}

/// Combines the tokens of several tables to the id of an event.
pub(super) fn combine(tokens: &BTreeMap<String, String>) -> String {
    // OK because texts always serialize.
    BASE64.encode(serde_json::to_vec(tokens).expect("serializes"))
}

fn parse_combined(text: &str) -> Option<BTreeMap<String, String>> {
    serde_json::from_slice(&BASE64.decode(text).ok()?).ok()
}
