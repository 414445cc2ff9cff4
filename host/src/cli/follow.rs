//! Following a table.

use std::io::Write;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::args::WatchArgs;
use crate::cli::open::Opened;
use crate::cli::output::{EntryLine, Output, json_line, raw};
use crate::cli::{CliError, Exit};
use crate::table::{Change, Entry, Status, WatchEvent, WatchStart};

pub(super) async fn watch(args: WatchArgs, output: Output) -> Result<Exit, CliError> {
    let start = if args.from_now { WatchStart::Now } else { WatchStart::Entries };
    let table = Opened::new(args.table).await?.table().await?;
    let mut watcher = table.watch(start);
    let mut out = output.writer();
    while let Some(event) = watcher.next().await {
        let live = !matches!(event, WatchEvent::Entry(_));
        match &event {
            WatchEvent::Entry(entry) => json_line(&mut out, &EntryLine::new(entry))?,
            WatchEvent::Synced => json_line(&mut out, &EventLine::new("synced"))?,
            WatchEvent::Change(change) => json_line(&mut out, &ChangeLine::new(change))?,
            WatchEvent::Status(status) => json_line(&mut out, &EventLine::status(status))?,
            WatchEvent::Generation(generation) => {
                let generation = Some(*generation);
                json_line(&mut out, &EventLine { generation, ..EventLine::new("generation") })?;
            }
            WatchEvent::Lagged(missed) => {
                json_line(&mut out, &EventLine { missed: Some(*missed), ..EventLine::new("lagged") })?;
            }
        }
        // The entries come all at once; of what is live, nobody should wait for
        // the next.
        if live {
            out.flush()?;
        }
    }
    match table.status() {
        Status::Failed(error) => Err(CliError::Table((*error).clone())),
        _ => Ok(Exit::Done),
    }
}

/// A change as `watch` prints it: `old` and `new` are null where there was or is
/// no entry; a delete is marked, because a value may be JSON `null`.
#[derive(Serialize)]
struct ChangeLine<'a> {
    key: &'a str,
    old: Option<&'a RawValue>,
    new: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    delete: bool,
    partition: i32,
    offset: i64,
    timestamp: i64,
}

impl<'a> ChangeLine<'a> {
    fn new(change: &'a Change) -> Self {
        let value = |entry: &'a Option<Entry>| entry.as_ref().map(|entry| raw(entry.json()));
        Self {
            key: change.key(),
            old: value(&change.old),
            new: value(&change.new),
            delete: change.new.is_none(),
            partition: change.partition,
            offset: change.offset,
            timestamp: change.timestamp,
        }
    }
}

/// Whatever is not about one entry.
#[derive(Serialize)]
struct EventLine {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
}

impl EventLine {
    fn new(event: &'static str) -> Self {
        Self { event, status: None, reason: None, generation: None, missed: None }
    }

    fn status(status: &Status) -> Self {
        Self { status: Some(status.name()), reason: status.reason(), ..Self::new("status") }
    }
}
