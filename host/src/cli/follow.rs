//! `watch`: following a table.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::args::WatchArgs;
use crate::cli::open::Opened;
use crate::cli::output::{EntryLine, NoticeLine, Output, json_line, raw, stdout_closed};
use crate::cli::write::told;
use crate::cli::{CliError, Exit, Stopping};
use crate::file::read_text;
use crate::table::{
    Cause, Change, Entry, InvalidToken, RejectNotice, Status, WatchEvent, WatchFilter, WatchStart,
    WatchToken, Watcher,
};

pub(super) async fn watch(args: WatchArgs, output: Output, mut stopping: Stopping) -> Result<Exit, CliError> {
    let mut place = args.resume.map(TokenFile::new);
    let start = match place.as_ref().map(TokenFile::read).transpose()?.flatten() {
        Some(token) => WatchStart::Since(token),
        None if args.from_now => WatchStart::Now,
        None => WatchStart::Entries,
    };
    let filter = match (args.key, args.prefix, args.group) {
        (Some(key), ..) => WatchFilter::Key(key),
        (_, Some(prefix), _) => WatchFilter::Prefix(prefix),
        (.., Some(group)) => WatchFilter::Group(group),
        (None, None, None) => WatchFilter::All,
    };
    let opened = Opened::new(args.table).await?;
    if matches!(filter, WatchFilter::Group(_)) {
        opened.require_groups()?;
    }
    let table = opened.table().await?;
    let mut watcher = table.watch(start).only(filter);
    if args.every {
        watcher = watcher.every();
    }
    let mut out = output.writer();
    let mut closed = std::pin::pin!(stdout_closed());
    loop {
        let event = tokio::select! {
            event = watcher.next() => event,
            () = &mut closed => break,
            () = told(&mut stopping, 1) => break,
        };
        let Some(event) = event else { break };
        let live = !matches!(event, WatchEvent::Entry(_));
        match &event {
            WatchEvent::Entry(entry) => json_line(&mut out, &EntryLine::new(entry))?,
            WatchEvent::Synced => json_line(&mut out, &EventLine::new("synced"))?,
            WatchEvent::Change(change) => json_line(&mut out, &ChangeLine::new(change))?,
            WatchEvent::Restarted => json_line(&mut out, &EventLine::new("restarted"))?,
            WatchEvent::Rejected { key, notice } => {
                json_line(&mut out, &RejectedLine::new(key.as_deref(), notice))?;
            }
            WatchEvent::Status(status) => json_line(&mut out, &EventLine::status(status))?,
            WatchEvent::Generation(generation) => {
                let generation = Some(*generation);
                json_line(&mut out, &EventLine { generation, ..EventLine::new("generation") })?;
            }
            WatchEvent::Lagged(missed) => {
                json_line(&mut out, &EventLine { missed: Some(*missed), ..EventLine::new("lagged") })?;
            }
        }
        // Entries come in bulk; a change must not wait for the next one.
        if live {
            out.flush()?;
            if let Some(place) = &mut place {
                place.update(&watcher)?;
            }
        }
    }
    if let Some(place) = &mut place {
        place.write(&watcher)?;
    }
    match table.status() {
        Status::Failed(error) => Err(CliError::Table((*error).clone())),
        _ => Ok(Exit::Done),
    }
}

/// How often the place is written while changes are printed.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// The longest token that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 1 << 20;

/// The file in which `watch` keeps the token of what it has printed.
struct TokenFile {
    path: PathBuf,
    written: Instant,
}

impl TokenFile {
    fn new(path: PathBuf) -> Self {
        Self { path, written: Instant::now() }
    }

    /// Reads the token; `None` if there is no file yet.
    fn read(&self) -> Result<Option<WatchToken>, CliError> {
        match read_text(&self.path, MAX_TOKEN_BYTES) {
            Ok(text) => text.trim().parse().map(Some).map_err(|error: InvalidToken| {
                CliError::Usage(format!("--resume {}: {error}", self.path.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CliError::file("read the token in", &self.path)(error)),
        }
    }

    /// Writes the token if it was not written for a while.
    fn update(&mut self, watcher: &Watcher) -> Result<(), CliError> {
        if self.written.elapsed() >= WRITE_EVERY { self.write(watcher) } else { Ok(()) }
    }

    /// Writes the token, in one step.
    fn write(&mut self, watcher: &Watcher) -> Result<(), CliError> {
        let Some(token) = watcher.token() else { return Ok(()) };
        self.written = Instant::now();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let write = || {
            let mut draft = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
            writeln!(draft, "{token}")?;
            draft.as_file().sync_all()?;
            draft.persist(&self.path)?;
            Ok(())
        };
        write().map_err(CliError::file("write the token to", &self.path))
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
    /// Why, where it was no record.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
}

impl<'a> ChangeLine<'a> {
    fn new(change: &'a Change) -> Self {
        let value = |entry: &'a Option<Entry>| entry.as_ref().map(|entry| raw(entry.json()));
        Self {
            key: change.key(),
            old: value(&change.old),
            new: value(&change.new),
            delete: change.new.is_none(),
            cause: (change.cause != Cause::Record).then(|| change.cause.name()),
            partition: change.partition,
            offset: change.offset,
            timestamp: change.timestamp,
        }
    }
}

/// A record that was rejected.
#[derive(Serialize)]
struct RejectedLine<'a> {
    event: &'static str,
    /// `None` if the record has none, or one that cannot be decoded.
    key: Option<&'a str>,
    #[serde(flatten)]
    notice: NoticeLine<'a>,
}

impl<'a> RejectedLine<'a> {
    fn new(key: Option<&'a str>, notice: &'a RejectNotice) -> Self {
        Self { event: "rejected", key, notice: NoticeLine::new(notice) }
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
