//! The nested view of a table with a group scheme.

use std::ops::Bound;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{Response, StatusCode};
use serde::Serialize;

use crate::escape::escape_name;
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::http::entries::respond_json;
use crate::serve::http::query::{Query, invalid};
use crate::serve::http::reading::{READ_PARAMETERS, Reading};
use crate::serve::problem::Problem;
use crate::serve::tables::ServedTable;
use crate::table::Entry;
use crate::wire::{GroupJson, MemberJson};

/// How many groups or members a page has by default, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

/// How many bytes of members a page has about, at most: the page ends early.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// A page of groups.
#[derive(Debug, Serialize)]
struct GroupPage<'a> {
    groups: Vec<GroupJson<'a>>,
    cursor: Option<&'a str>,
}

/// A page of the members of a group.
#[derive(Debug, Serialize)]
struct MemberPage<'a> {
    members: Vec<MemberJson<'a>>,
    cursor: Option<&'a str>,
}

/// Returns the names of the groups, or the members of the group that the parameter `group` names.
pub(super) async fn list(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let (reading, query) = begin(&call, &table, &["group"]).await?;
    if let Some(group) = query.get("group") {
        return list_members(&reading, &query, group);
    }
    let (limit, from) = page(&query)?;
    let snapshot = &reading.snapshot;
    let mut groups = snapshot.groups().filter(|&group| is_after(group, &from)).peekable();
    let (mut listed, mut bytes) = (Vec::new(), 0);
    while listed.len() < limit
        && bytes < MAX_PAGE_BYTES
        && let Some(group) = groups.next()
    {
        bytes += group.len();
        listed.push(GroupJson { group, members: snapshot.member_count(group) });
    }
    let cursor = groups.peek().and(listed.last().map(|last| last.group));
    Ok(respond(&reading, &GroupPage { groups: listed, cursor }))
}

/// Returns the members of a group.
pub(super) async fn members(
    call: Call,
    Path((table, group)): Path<(String, String)>,
) -> Result<Response<Body>, Problem> {
    let (reading, query) = begin(&call, &table, &[]).await?;
    list_members(&reading, &query, &group)
}

fn list_members(reading: &Reading, query: &Query, group: &str) -> Result<Response<Body>, Problem> {
    let (limit, from) = page(query)?;
    let snapshot = &reading.snapshot;
    if snapshot.member_count(group) == 0 {
        reading.require_absence()?;
        let detail = format!("there is no group `{}`", escape_name(group));
        return Err(Problem::not_found("not-found", "There is no such group", detail)
            .with_headers(&reading.headers()));
    }
    let mut bytes = 0;
    let is_next = |entry: &&Entry| is_after(entry.member().unwrap_or_default(), &from);
    let mut members = snapshot.members(group).filter(is_next).peekable();
    let mut listed = Vec::new();
    while listed.len() < limit
        && bytes < MAX_PAGE_BYTES
        && let Some(entry) = members.next()
    {
        bytes += entry.json().len() + entry.member().map_or(0, str::len);
        listed.push(entry);
    }
    let cursor = members.peek().and(listed.last().and_then(|last| last.member()));
    let listed: Vec<MemberJson<'_>> = listed.iter().map(|entry| MemberJson::new(entry)).collect();
    Ok(respond(reading, &MemberPage { members: listed, cursor }))
}

/// Returns a member of a group.
pub(super) async fn member(
    call: Call,
    Path((table, group, member)): Path<(String, String, String)>,
) -> Result<Response<Body>, Problem> {
    let (reading, _) = begin(&call, &table, &[]).await?;
    match reading.snapshot.member(&group, &member) {
        Some(entry) => Ok(respond(&reading, &MemberJson::new(entry))),
        None => {
            reading.require_absence()?;
            let detail =
                format!("there is no member `{}` of group `{}`", escape_name(&member), escape_name(&group));
            Err(Problem::not_found("not-found", "There is no such member", detail)
                .with_headers(&reading.headers()))
        }
    }
}

fn respond(reading: &Reading, answer: &impl Serialize) -> Response<Body> {
    // OK because serializing texts and numbers cannot fail.
    respond_json(reading.headers(), serde_json::to_string(answer).expect("serializes"))
}

/// Fails if a table has no group scheme.
pub(super) fn require_groups(table: &ServedTable) -> Result<(), Problem> {
    // Whether a table has groups is not known while its codecs cannot be loaded.
    if table.codecs().group_scheme.is_some() || table.codec_error.is_some() {
        return Ok(());
    }
    let detail = "this table has no groups: group_scheme sets how keys are split";
    Err(Problem::new(StatusCode::BAD_REQUEST, "no-groups", "The table has no groups", detail))
}

/// Begins to read the groups of a table, if it has some.
async fn begin(call: &Call, table: &str, own: &[&str]) -> Result<(Reading, Query), Problem> {
    let table = call.table(Role::Read, table)?;
    require_groups(&table)?;
    let query = call.query(&[own, &["limit", "cursor"], &READ_PARAMETERS[..]].concat())?;
    let reading = Reading::begin(call, table, &query).await?;
    reading.require_contents()?;
    Ok((reading, query))
}

/// Returns the limit of a page, and after which name it begins.
fn page(query: &Query) -> Result<(usize, Bound<String>), Problem> {
    let limit = query.number("limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(invalid("limit", "a number from 1 to 10000"));
    }
    let after = query.get("cursor").map(str::to_owned);
    Ok((limit, after.map_or(Bound::Unbounded, Bound::Excluded)))
}

fn is_after(name: &str, from: &Bound<String>) -> bool {
    match from {
        Bound::Excluded(last) => name > last.as_str(),
        _ => true,
    }
}
