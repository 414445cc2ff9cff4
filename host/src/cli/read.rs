//! The commands that load a table, print an answer, and end.

use std::collections::BTreeMap;
use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::args::{
    DumpArgs, GetArgs, GroupsArgs, KeysArgs, MembersArgs, RejectsArgs, StatusArgs, TableArgs,
};
use crate::cli::open::ResolvedTable;
use crate::cli::output::{EntryLine, NoticeLine, Output, raw_json, write_json_line};
use crate::cli::{CliError, Exit};
use crate::escape::one_line;
use crate::table::{
    AnomalyCount, CheckpointStats, Entry, RecordPart, RejectNotice, RejectedRecord, Stats, Status, Table,
};

pub(super) async fn get(args: GetArgs, output: Output) -> Result<Exit, CliError> {
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
        output.print_object(&VerboseLine::new(&table, entry.as_ref(), is_expired, notice.as_ref()))?;
    } else if let Some(entry) = &entry {
        output.print_line(entry.json())?;
    }
    if entry.is_none() {
        match table.status() {
            Status::CaughtUp => tracing::warn!("there is no entry for {name}"),
            status => tracing::warn!(
                "there is no entry for {name} in what was loaded so far; the table is {}",
                status.name()
            ),
        }
    }
    if let Some(notice) = &notice {
        let (partition, offset) = (notice.partition, notice.offset);
        tracing::warn!(
            "a newer record for {name} was rejected (partition {partition}, offset {offset}): {}: {}",
            notice.kind,
            notice.message
        );
    }
    Ok(finish(&table, entry.is_some()).await)
}

/// The answer, as `get --verbose` prints it.
#[derive(Serialize)]
struct VerboseLine<'a> {
    status: &'static str,
    generation: u64,
    key: Option<&'a str>,
    group: Option<&'a str>,
    member: Option<&'a str>,
    value: Option<&'a RawValue>,
    partition: Option<i32>,
    offset: Option<i64>,
    timestamp: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expired: bool,
    rejected: Option<NoticeLine<'a>>,
}

impl<'a> VerboseLine<'a> {
    fn new(table: &Table, entry: Option<&'a Entry>, expired: bool, notice: Option<&'a RejectNotice>) -> Self {
        Self {
            status: table.status().name(),
            generation: table.stats().generation,
            key: entry.map(Entry::key),
            group: entry.and_then(Entry::group),
            member: entry.and_then(Entry::member),
            value: entry.map(|entry| raw_json(entry.json())),
            partition: entry.map(Entry::partition),
            offset: entry.map(Entry::offset),
            timestamp: entry.and_then(Entry::timestamp),
            expired,
            rejected: notice.map(NoticeLine::new),
        }
    }
}

pub(super) async fn keys(args: KeysArgs, output: Output) -> Result<Exit, CliError> {
    let table = load_table(args.table).await?;
    let snapshot = table.snapshot();
    let prefix = args.prefix.unwrap_or_default();
    let start = args.start.as_deref().unwrap_or_default().max(&prefix);
    let from = snapshot.range(start..).take_while(|entry| entry.key().starts_with(&prefix));
    let until = from.take_while(|entry| args.end.as_deref().is_none_or(|end| entry.key() < end));
    let mut out = output.writer();
    for entry in until.take(args.limit.unwrap_or(usize::MAX)) {
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
    #[derive(Serialize)]
    struct Group<'a> {
        group: &'a str,
        members: usize,
    }
    let resolved = ResolvedTable::resolve(args.table).await?;
    resolved.require_groups()?;
    let table = resolved.load().await?;
    let snapshot = table.snapshot();
    output
        .print_rows(snapshot.groups().map(|group| Group { group, members: snapshot.member_count(group) }))?;
    Ok(finish(&table, true).await)
}

pub(super) async fn members(args: MembersArgs, output: Output) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct Member<'a> {
        member: &'a str,
        value: &'a RawValue,
        partition: i32,
        offset: i64,
        timestamp: Option<i64>,
    }
    let resolved = ResolvedTable::resolve(args.table).await?;
    resolved.require_groups()?;
    let table = resolved.load().await?;
    let members = table.members(&args.group);
    output.print_rows(members.iter().map(|entry| Member {
        member: entry.member().unwrap_or_default(),
        value: raw_json(entry.json()),
        partition: entry.partition(),
        offset: entry.offset(),
        timestamp: entry.timestamp(),
    }))?;
    if members.is_empty() {
        tracing::warn!("there are no members in group `{}`", args.group);
    }
    Ok(finish(&table, !members.is_empty()).await)
}

pub(super) async fn dump(args: DumpArgs, output: Output) -> Result<Exit, CliError> {
    let table = load_table(args.table).await?;
    let mut out = output.writer();
    let snapshot = table.snapshot();
    let notice = |entry: &Entry| snapshot.notice(entry.key());
    snapshot
        .iter()
        .try_for_each(|entry| write_json_line(&mut out, &EntryLine::new(entry).with_notice(notice(entry))))?;
    if args.expired {
        snapshot
            .expired()
            .try_for_each(|entry| write_json_line(&mut out, &EntryLine::new(entry).marked_expired()))?;
    }
    out.flush()?;
    Ok(finish(&table, true).await)
}

pub(super) async fn status(args: StatusArgs, output: Output) -> Result<Exit, CliError> {
    let resolved = ResolvedTable::resolve(args.table).await?;
    let log = resolved.log.clone();
    let table = resolved.load().await?;
    let topic = table.topic();
    let ends = log.end_offsets(&topic).await.unwrap_or_else(|error| {
        tracing::warn!("cannot compute the lag, because the end offsets cannot be read: {error}");
        Vec::new()
    });
    let (status, stats) = (table.status(), table.stats());
    let partitions = stats.partitions.iter().map(|progress| {
        let end = ends.iter().find(|end| end.0 == progress.partition).map(|end| end.1);
        PartitionLine {
            partition: progress.partition,
            start: progress.start,
            position: progress.position,
            end,
            lag: end.map(|end| (end - progress.position).max(0)),
        }
    });
    let partitions: Vec<_> = partitions.collect();
    let report = StatusLine::new(log.url(), &topic.name, &status, &stats, &partitions);
    if output.is_json() {
        output.print_object(&StatusObject { report, partitions: &partitions })?;
    } else {
        output.print_object(&report)?;
        output.print_line("")?;
        output.print_rows(&partitions)?;
    }
    Ok(finish(&table, true).await)
}

/// The status, as `status` prints it, without the partitions.
#[derive(Serialize)]
struct StatusLine<'a> {
    log: &'a str,
    topic: &'a str,
    status: &'static str,
    since: String,
    reason: Option<String>,
    generation: u64,
    entries: u64,
    groups: u64,
    records: u64,
    tombstones: u64,
    keyless: u64,
    foreign: u64,
    rejected: u64,
    rejects: BTreeMap<&'static str, u64>,
    cross_partition: u64,
    older: u64,
    other_partitioner: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    first_mistakes: BTreeMap<&'static str, RecordPosition>,
    payload_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<CheckpointLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loading: Option<String>,
    catch_up_seconds: Option<f64>,
    replayed: u64,
    lag: Option<i64>,
}

/// The position of a record.
#[derive(Serialize)]
struct RecordPosition {
    partition: i32,
    offset: i64,
}

/// The state of the checkpoint, as `status` prints it.
#[derive(Serialize)]
struct CheckpointLine {
    folder: String,
    loaded: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unused: Option<String>,
    as_of: Option<String>,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

impl CheckpointLine {
    fn new(stats: &CheckpointStats) -> Self {
        Self {
            folder: stats.folder.display().to_string(),
            loaded: stats.loaded,
            unused: stats.unused.as_deref().map(str::to_owned),
            as_of: stats.as_of.map(|as_of| humantime::format_rfc3339_millis(as_of).to_string()),
            bytes: stats.bytes,
            failed: stats.failed.as_deref().map(str::to_owned),
        }
    }
}

/// Returns the position of the first anomaly of each kind.
fn first_anomalies(stats: &Stats) -> BTreeMap<&'static str, RecordPosition> {
    let counts = [
        ("foreign", stats.foreign),
        ("cross_partition", stats.cross_partition),
        ("older", stats.older),
        ("other_partitioner", stats.other_partitioner),
    ];
    let first = |(name, count): (&'static str, AnomalyCount)| {
        count.first.map(|(partition, offset)| (name, RecordPosition { partition, offset }))
    };
    counts.into_iter().filter_map(first).collect()
}

#[derive(Serialize)]
struct StatusObject<'a> {
    #[serde(flatten)]
    report: StatusLine<'a>,
    partitions: &'a [PartitionLine],
}

#[derive(Serialize)]
struct PartitionLine {
    partition: i32,
    start: i64,
    position: i64,
    /// `None` if the log did not return it.
    end: Option<i64>,
    lag: Option<i64>,
}

impl<'a> StatusLine<'a> {
    fn new(
        log: &'a str,
        topic: &'a str,
        status: &Status,
        stats: &Stats,
        partitions: &[PartitionLine],
    ) -> Self {
        Self {
            log,
            topic,
            status: status.name(),
            since: humantime::format_rfc3339_seconds(stats.status_since).to_string(),
            reason: status.reason(),
            generation: stats.generation,
            entries: stats.entries,
            groups: stats.groups,
            records: stats.records,
            tombstones: stats.tombstones,
            keyless: stats.keyless,
            foreign: stats.foreign.count,
            rejected: stats.rejects.values().sum(),
            rejects: stats.rejects.iter().map(|(kind, count)| (kind.name(), *count)).collect(),
            cross_partition: stats.cross_partition.count,
            older: stats.older.count,
            other_partitioner: stats.other_partitioner.count,
            first_mistakes: first_anomalies(stats),
            payload_bytes: stats.payload_bytes,
            checkpoint: stats.checkpoint.as_ref().map(CheckpointLine::new),
            loading: stats.loading.map(|loading| loading.to_string()),
            catch_up_seconds: stats.catch_up.map(|time| (time.as_secs_f64() * 1e3).round() / 1e3),
            replayed: stats.replayed,
            lag: partitions.iter().map(|partition| partition.lag).sum(),
        }
    }
}

pub(super) async fn rejects(args: RejectsArgs, output: Output) -> Result<Exit, CliError> {
    let table = load_table(args.table).await?;
    let mut out = output.writer();
    table.rejects().iter().try_for_each(|reject| write_json_line(&mut out, &RejectLine::new(reject)))?;
    out.flush()?;
    Ok(finish(&table, true).await)
}

/// A rejected record, as `rejects` prints it.
#[derive(Serialize)]
struct RejectLine<'a> {
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    kind: &'static str,
    message: &'a str,
    component: Option<ComponentLine<'a>>,
    key: Option<&'a str>,
    part: &'static str,
    raw: String,
    raw_len: usize,
}

#[derive(Serialize)]
struct ComponentLine<'a> {
    name: &'a str,
    digest: &'a str,
}

impl<'a> RejectLine<'a> {
    fn new(reject: &'a RejectedRecord) -> Self {
        let component = reject.reason.component.as_ref();
        Self {
            partition: reject.partition,
            offset: reject.offset,
            timestamp: reject.timestamp,
            kind: reject.reason.kind.name(),
            message: &reject.reason.message,
            component: component.map(|id| ComponentLine { name: &id.name, digest: &id.digest }),
            key: reject.key.as_deref(),
            part: match reject.part {
                RecordPart::Key => "key",
                RecordPart::Value => "value",
            },
            raw: BASE64.encode(&reject.raw),
            raw_len: reject.raw_len,
        }
    }
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
