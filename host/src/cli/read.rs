//! The commands that load a table, print an answer, and end.

use std::io::Write;

use serde::Serialize;

use crate::cli::args::{
    DumpArgs, GetArgs, GroupsArgs, KeysArgs, ListRejectsArgs, MembersArgs, StatusArgs, TableArgs,
};
use crate::cli::open::ResolvedTable;
use crate::cli::output::{Output, write_json_line};
use crate::cli::remote::{self, RemoteTable};
use crate::cli::{CliError, Exit, cases};
use crate::escape::{escape_name, one_line};
use crate::table::{Entry, Status, Table};
use crate::wire::{
    CodecsJson, EntryDetails, EntryJson, FullStatusJson, GroupJson, MemberJson, PartitionJson, RejectJson,
    StatusJson,
};

pub(super) async fn get(args: GetArgs, output: Output) -> Result<Exit, CliError> {
    if let Some(table) = RemoteTable::of(&args.table)? {
        return remote::get(&table, &args, output).await;
    }
    let resolved = ResolvedTable::resolve(args.table).await?;
    if args.entry.group.is_some() {
        resolved.require_groups()?;
    }
    let table = resolved.load().await?;
    let (entry, notice, name) = match &args.entry.group {
        None => {
            (table.get(&args.entry.key), table.notice(&args.entry.key), format!("key `{}`", args.entry.key))
        }
        Some(group) => {
            let entry = table.member(group, &args.entry.key);
            let key = match &entry {
                Some(entry) => Some(entry.key().to_owned()),
                None => resolved.join_key(group, &args.entry.key).await?,
            };
            let notice = key.and_then(|key| table.notice(&key));
            (entry, notice, format!("member `{}` in group `{group}`", args.entry.key))
        }
    };
    let may_be_expired = entry.is_none() && args.entry.group.is_none();
    let expired = table.get_expired(&args.entry.key).filter(|_| args.expired && may_be_expired);
    let (is_expired, entry) = (expired.is_some(), entry.or(expired));
    if args.verbose {
        output.print_object(&EntryDetails::new(&table, entry.as_ref(), is_expired, notice.as_ref()))?;
    } else if let Some(entry) = &entry {
        output.print_line(entry.json())?;
    }
    if entry.is_none() {
        log_missing(&table, &format!("there is no entry for {name}"));
    }
    if let Some(notice) = &notice {
        let (partition, offset) = (notice.partition, notice.offset);
        tracing::warn!(
            "the newest record for {name} was rejected (partition {partition}, offset {offset}): {}: {}",
            notice.kind,
            notice.message
        );
    }
    Ok(finish(&table, entry.is_some()).await)
}

/// Logs that something was not found, and that it may exist nevertheless if the table is degraded.
fn log_missing(table: &Table, missing: &str) {
    match table.status() {
        Status::CaughtUp => tracing::warn!("{missing}"),
        status => tracing::warn!("{missing} in what was loaded so far; the table is {}", status.name()),
    }
}

pub(super) async fn keys(args: KeysArgs, output: Output) -> Result<Exit, CliError> {
    if let Some(table) = RemoteTable::of(&args.table)? {
        return remote::keys(&table, &args, output).await;
    }
    let resolved = ResolvedTable::resolve(args.table).await?;
    if args.group.is_some() {
        resolved.require_groups()?;
    }
    let table = resolved.load().await?;
    let snapshot = table.snapshot();
    let prefix = args.prefix.unwrap_or_default();
    let start = args.start.as_deref().unwrap_or_default().max(&prefix);
    let from = snapshot.range(start..).take_while(|entry| entry.key().starts_with(&prefix));
    let until = from.take_while(|entry| args.end.as_deref().is_none_or(|end| entry.key() < end));
    let is_in_group = |entry: &&Entry| args.group.is_none() || entry.group() == args.group.as_deref();
    let mut out = output.writer();
    for entry in until.filter(is_in_group).take(args.limit.unwrap_or(usize::MAX)) {
        if output.is_json() {
            write_json_line(&mut out, &entry.key())?;
        } else {
            writeln!(out, "{}", one_line(entry.key()))?;
        }
    }
    out.flush()?;
    Ok(finish(&table, true).await)
}

pub(super) async fn groups(args: GroupsArgs, output: Output) -> Result<Exit, CliError> {
    if let Some(table) = RemoteTable::of(&args.table)? {
        return remote::groups(&table, output).await;
    }
    let resolved = ResolvedTable::resolve(args.table).await?;
    resolved.require_groups()?;
    let table = resolved.load().await?;
    let snapshot = table.snapshot();
    output.print_rows(
        snapshot.groups().map(|group| GroupJson { group, members: snapshot.member_count(group) }),
    )?;
    Ok(finish(&table, true).await)
}

pub(super) async fn members(args: MembersArgs, output: Output) -> Result<Exit, CliError> {
    if let Some(table) = RemoteTable::of(&args.table)? {
        return remote::members(&table, &args.group, args.prefix.as_deref(), output).await;
    }
    let resolved = ResolvedTable::resolve(args.table).await?;
    resolved.require_groups()?;
    let table = resolved.load().await?;
    let mut members = table.members(&args.group);
    if let Some(prefix) = &args.prefix {
        members.retain(|entry| entry.member().is_some_and(|member| member.starts_with(prefix)));
    }
    output.print_rows(members.iter().map(MemberJson::new))?;
    if members.is_empty() {
        let group = escape_name(&args.group);
        let missing = match &args.prefix {
            None => format!("there are no members in group `{group}`"),
            Some(prefix) => format!("no member of group `{group}` begins with `{}`", escape_name(prefix)),
        };
        log_missing(&table, &missing);
    }
    Ok(finish(&table, !members.is_empty()).await)
}

pub(super) async fn dump(args: DumpArgs, output: Output) -> Result<Exit, CliError> {
    if let Some(table) = RemoteTable::of(&args.table)? {
        return remote::dump(&table, &args, output).await;
    }
    let table = load_table(args.table).await?;
    let snapshot = table.snapshot();
    let lines = snapshot.iter().map(|entry| EntryJson::new(entry).with_notice(snapshot.notice(entry.key())));
    let expired = snapshot.expired().filter(|_| args.expired);
    output.print_rows(lines.chain(expired.map(|entry| EntryJson::new(entry).mark_expired())))?;
    Ok(finish(&table, true).await)
}

/// The status of a table, as it is printed.
#[derive(Serialize)]
struct StatusLine<'a> {
    #[serde(flatten)]
    status: FullStatusJson<'a>,
    codecs: CodecsJson<'a>,
}

pub(super) async fn status(args: StatusArgs, output: Output) -> Result<Exit, CliError> {
    if let Some(table) = RemoteTable::of(&args.table)? {
        return remote::status(&table, output).await;
    }
    let resolved = ResolvedTable::resolve(args.table).await?;
    let log = resolved.log().clone();
    let table = resolved.load().await?;
    let topic = table.topic();
    let ends = log.end_offsets(&topic).await.unwrap_or_else(|error| {
        tracing::warn!("cannot compute the lag, because the end offsets cannot be read: {error}");
        Vec::new()
    });
    let (status, stats) = (table.status(), table.stats());
    let partitions: Vec<_> =
        stats.partitions.iter().map(|progress| PartitionJson::new(progress, &ends)).collect();
    let status = StatusJson::new(log.url(), &topic.name, &status, &stats, &partitions);
    if output.is_json() {
        let status = FullStatusJson { status, partitions: &partitions };
        output.print_object(&StatusLine { status, codecs: CodecsJson::new(resolved.codecs()) })?;
    } else {
        output.print_object(&status)?;
        output.print_line("")?;
        output.print_rows(&partitions)?;
    }
    Ok(finish(&table, true).await)
}

pub(super) async fn rejects(args: ListRejectsArgs, output: Output) -> Result<Exit, CliError> {
    if let Some(table) = RemoteTable::of(&args.table)? {
        return remote::rejects(&table, &args, output).await;
    }
    let resolved = ResolvedTable::resolve(args.table).await?;
    if args.group.is_some() {
        resolved.require_groups()?;
    }
    let table = resolved.load().await?;
    let mut rejects = table.rejects();
    if let Some(prefix) = &args.prefix {
        rejects.retain(|reject| reject.key.as_deref().is_some_and(|key| key.starts_with(prefix)));
    }
    if let Some(group) = &args.group {
        rejects.retain(|reject| reject.group.as_deref() == Some(group));
    }
    match &args.export {
        Some(folder) => cases::export(&resolved, &rejects, folder, output).await?,
        None => output.print_rows(rejects.iter().map(RejectJson::new))?,
    }
    Ok(finish(&table, true).await)
}

/// Resolves and loads a table.
async fn load_table(args: TableArgs) -> Result<Table, CliError> {
    ResolvedTable::resolve(args).await?.load().await
}

/// Stops a table, which flushes its checkpoint to disk, and returns the exit code of the command.
async fn finish(table: &Table, found: bool) -> Exit {
    let status = table.status();
    table.stop().await;
    match (status, found) {
        (Status::CaughtUp, true) => Exit::Done,
        (Status::CaughtUp, false) => Exit::No,
        _ => Exit::Degraded,
    }
}
