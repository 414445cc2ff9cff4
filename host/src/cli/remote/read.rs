//! The commands that read a table of a server.

use std::io::Write as _;

use futures_util::TryStreamExt;
use reqwest::Response;
use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::io::AsyncBufRead;
use tokio_util::io::StreamReader;

use crate::cli::args::{DumpArgs, EntryArgs, GetArgs, KeysArgs, ListRejectsArgs};
use crate::cli::lines::{LineReader, MAX_LINE_BYTES, NextLine};
use crate::cli::output::{Output, write_json_line};
use crate::cli::remote::problem::RemoteProblem;
use crate::cli::remote::table::{RemoteTable, TableReply, exit};
use crate::cli::{CliError, Exit};
use crate::escape::{escape_name, one_line};

/// The most items that a server puts into a page, as a parameter.
const PAGE: &str = "10000";

/// A page of a list: its items, by a name of their own, and where the next page begins.
type Page = Map<String, Value>;

/// The parameters that name an entry.
pub(super) fn name_of(entry: &EntryArgs) -> Vec<(&str, &str)> {
    match &entry.group {
        None => vec![("key", &entry.key)],
        Some(group) => vec![("group", group), ("member", &entry.key)],
    }
}

pub(in crate::cli) async fn get(
    table: &RemoteTable,
    args: &GetArgs,
    output: Output,
) -> Result<Exit, CliError> {
    let name = match &args.entry.group {
        None => format!("key `{}`", escape_name(&args.entry.key)),
        Some(group) => {
            format!("member `{}` in group `{}`", escape_name(&args.entry.key), escape_name(group))
        }
    };
    let mut query = name_of(&args.entry);
    if args.expired {
        query.push(("expired", "true"));
    }
    let (answer, is_fresh) = table.get(&["entry"], &query).await;
    let reply = match answer {
        Ok(reply) => reply,
        Err(RemoteProblem::Answered { kind, headers, .. })
            if matches!(&*kind, "not-found" | "degraded" | "loading") =>
        {
            if args.verbose {
                output.print_object(&describe(args, &headers, None))?;
            }
            let is_complete = kind == "not-found";
            let rest = if is_complete { "" } else { " in what the server has loaded so far" };
            tracing::warn!("there is no entry for {name}{rest}");
            warn_rejected(&headers, &name);
            return exit(&headers, is_fresh, false);
        }
        Err(problem) => return Err(problem.into()),
    };
    let value: &RawValue = serde_json::from_slice(&reply.body)
        .map_err(|error| CliError::Server(format!("the value that the server sent is not JSON: {error}")))?;
    if args.verbose {
        output.print_object(&describe(args, &reply.headers, Some(value)))?;
    } else {
        output.print_line(value.get())?;
    }
    warn_rejected(&reply.headers, &name);
    reply.exit(true)
}

/// What is known about an entry.
#[derive(Serialize)]
struct Details<'a> {
    status: Option<&'a str>,
    key: Option<&'a str>,
    group: Option<&'a str>,
    member: Option<&'a str>,
    value: Option<&'a RawValue>,
    partition: Option<i64>,
    offset: Option<i64>,
    timestamp: Option<i64>,
    rejected: Option<&'a str>,
}

fn describe<'a>(args: &'a GetArgs, headers: &'a HeaderMap, value: Option<&'a RawValue>) -> Details<'a> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |name: &str| text(name).and_then(|text| text.parse().ok());
    let (key, group) = (&*args.entry.key, args.entry.group.as_deref());
    Details {
        status: text("ktables-status"),
        key: group.is_none().then_some(key),
        group,
        member: group.map(|_| key),
        value,
        partition: number("ktables-partition"),
        offset: number("ktables-offset"),
        timestamp: number("ktables-timestamp"),
        rejected: text("ktables-notice"),
    }
}

fn warn_rejected(headers: &HeaderMap, name: &str) {
    if let Some(notice) = headers.get("ktables-notice").and_then(|notice| notice.to_str().ok()) {
        tracing::warn!("the newest record for {name} was rejected: {}", one_line(notice));
    }
}

/// Requests all pages of a list, and calls `print` with the items of each. Returns the last answer.
async fn read_pages(
    table: &RemoteTable,
    path: &[&str],
    query: &[(&str, &str)],
    name: &str,
    mut print: impl FnMut(Vec<Value>) -> Result<bool, CliError>,
) -> Result<TableReply, CliError> {
    let (mut cursor, mut is_fresh) = (None::<String>, true);
    loop {
        // Only the first page waits until the table is fresh.
        let reply = match cursor.as_deref() {
            None => table.get(path, query).await.0?,
            Some(cursor) => table.get_now(path, &[query, &[("cursor", cursor)]].concat(), is_fresh).await?,
        };
        is_fresh = reply.is_fresh;
        let mut page: Page = table.parse(&reply.body)?;
        let items = match page.remove(name) {
            Some(Value::Array(items)) => items,
            _ => return Err(CliError::Server(format!("the answer of the server has no `{name}`"))),
        };
        cursor = page.remove("cursor").and_then(|cursor| cursor.as_str().map(str::to_owned));
        if !print(items)? || cursor.is_none() {
            return Ok(reply);
        }
    }
}

pub(in crate::cli) async fn keys(
    table: &RemoteTable,
    args: &KeysArgs,
    output: Output,
) -> Result<Exit, CliError> {
    if args.group.is_some() {
        return Err(CliError::Usage(
            "with a server, there is no --in here: `ktables members GROUP` lists the members of a group"
                .to_owned(),
        ));
    }
    let mut query = vec![("values", "false"), ("limit", PAGE)];
    for (name, value) in [("prefix", &args.prefix), ("start", &args.start), ("end", &args.end)] {
        query.extend(value.as_deref().map(|value| (name, value)));
    }
    let (mut left, mut out) = (args.limit.unwrap_or(usize::MAX), output.writer());
    let reply = read_pages(table, &["entries"], &query, "entries", |entries| {
        for entry in entries.iter().take(left) {
            let key = entry["key"].as_str().unwrap_or_default();
            if output.is_json() {
                write_json_line(&mut out, &key)?;
            } else {
                writeln!(out, "{}", one_line(key))?;
            }
        }
        left = left.saturating_sub(entries.len());
        Ok(left > 0)
    });
    let reply = reply.await?;
    out.flush()?;
    reply.exit(true)
}

pub(in crate::cli) async fn groups(table: &RemoteTable, output: Output) -> Result<Exit, CliError> {
    let mut rows = Vec::new();
    let reply = read_pages(table, &["groups"], &[("limit", PAGE)], "groups", |groups| {
        rows.extend(groups);
        Ok(true)
    });
    let reply = reply.await?;
    output.print_rows(rows)?;
    reply.exit(true)
}

/// A page of the members of a group. Their values are printed as they are stored.
#[derive(Deserialize)]
struct Members {
    members: Vec<Box<RawValue>>,
    cursor: Option<String>,
}

pub(in crate::cli) async fn members(
    table: &RemoteTable,
    group: &str,
    prefix: Option<&str>,
    output: Output,
) -> Result<Exit, CliError> {
    #[derive(Deserialize)]
    struct Member {
        member: String,
    }
    let (mut rows, mut cursor, mut is_fresh) = (Vec::new(), None::<String>, true);
    let query = [("group", group), ("limit", PAGE)];
    let reply = loop {
        let answer = match cursor.as_deref() {
            None => {
                let (answer, first_is_fresh) = table.get(&["groups"], &query).await;
                is_fresh = first_is_fresh;
                answer
            }
            Some(cursor) => {
                let query = [&query[..], &[("cursor", cursor)]].concat();
                table.get_now(&["groups"], &query, is_fresh).await
            }
        };
        let reply = match answer {
            Err(RemoteProblem::Answered { kind, headers, .. }) if kind == "not-found" => {
                tracing::warn!("there are no members in group `{}`", escape_name(group));
                return exit(&headers, is_fresh, false);
            }
            reply => reply?,
        };
        let page: Members = table.parse(&reply.body)?;
        for row in page.members {
            let Member { member } = table.parse(row.get().as_bytes())?;
            if prefix.is_none_or(|prefix| member.starts_with(prefix)) {
                rows.push(row);
            }
        }
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => break reply,
        }
    };
    if rows.is_empty() {
        let prefix = escape_name(prefix.unwrap_or_default());
        tracing::warn!("no member of group `{}` begins with `{prefix}`", escape_name(group));
    }
    let found = !rows.is_empty();
    output.print_rows(rows)?;
    reply.exit(found)
}

/// Returns the lines of an answer, as they arrive.
pub(super) fn lines_of(response: Response) -> LineReader<impl AsyncBufRead + Unpin> {
    LineReader::new(StreamReader::new(response.bytes_stream().map_err(std::io::Error::other)))
}

pub(in crate::cli) async fn dump(
    table: &RemoteTable,
    args: &DumpArgs,
    output: Output,
) -> Result<Exit, CliError> {
    if args.expired {
        return Err(CliError::Usage(
            "with a server, there is no --expired here: `ktables get KEY --expired` shows one expired entry"
                .to_owned(),
        ));
    }
    let (opened, is_fresh) = table.open(&["snapshot"], &[]).await;
    let mut response = opened?;
    let headers = std::mem::take(response.headers_mut());
    let mut lines = lines_of(response);
    let (mut out, mut rows, mut is_whole, mut is_first) = (output.writer(), Vec::new(), false, true);
    let cut = |error: std::io::Error| table.remote.failed(&format!("the snapshot was cut off: {error}"));
    loop {
        let line = match lines.next().await.map_err(cut)? {
            NextLine::Line(line) => line,
            NextLine::TooLong => {
                let reason =
                    format!("an entry has more than {MAX_LINE_BYTES} bytes: read it alone (`ktables get`)");
                return Err(table.remote.failed(&reason));
            }
            NextLine::End => break,
        };
        // The first and the last line describe the snapshot.
        if std::mem::take(&mut is_first) {
            continue;
        }
        if line.starts_with(br#"{"type":"end""#) {
            is_whole = true;
        } else if output.is_json() {
            out.write_all(&line)?;
            out.write_all(b"\n")?;
        } else {
            rows.push(table.parse::<Box<RawValue>>(&line)?);
        }
    }
    out.flush()?;
    output.print_rows(rows)?;
    if !is_whole {
        return Err(table.remote.failed("the snapshot was cut off"));
    }
    exit(&headers, is_fresh, true)
}

pub(in crate::cli) async fn status(table: &RemoteTable, output: Output) -> Result<Exit, CliError> {
    let reply = table.get_now(&[], &[], true).await?;
    let mut status: Map<String, Value> = table.parse(&reply.body)?;
    if output.is_json() {
        output.print_object(&status)?;
    } else {
        let partitions = status.remove("partitions").unwrap_or_else(|| json!([]));
        output.print_object(&status)?;
        output.print_line("")?;
        output.print_rows(partitions.as_array().into_iter().flatten())?;
    }
    reply.exit(true)
}

pub(in crate::cli) async fn rejects(
    table: &RemoteTable,
    args: &ListRejectsArgs,
    output: Output,
) -> Result<Exit, CliError> {
    if args.group.is_some() || args.export.is_some() {
        return Err(CliError::Usage(
            "with a server, there are no --in and no --export here: they need the codecs, so name the topic (--config, or --log)"
                .to_owned(),
        ));
    }
    let reply = table.get_now(&["rejects"], &[], true).await?;
    let mut rejects: Page = table.parse(&reply.body)?;
    let rejects = rejects.remove("rejects").unwrap_or_default();
    let has_prefix = |reject: &&Value| {
        let key = reject["key"].as_str();
        args.prefix.as_deref().is_none_or(|prefix| key.is_some_and(|key| key.starts_with(prefix)))
    };
    output.print_rows(rejects.as_array().into_iter().flatten().filter(has_prefix))?;
    reply.exit(true)
}
