//! The `watch` command, which prints a table's changes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::args::WatchArgs;
use crate::cli::open::ResolvedTable;
use crate::cli::output::{EntryLine, NoticeLine, Output, raw_json, wait_for_stdout_close, write_json_line};
use crate::cli::write::wait_for_stop;
use crate::cli::{CliError, Exit, StopRequests};
use crate::file::{FileError, read_text};
use crate::table::{
    Cause, Change, Entry, InvalidToken, RejectNotice, Status, WatchEvent, WatchFilter, WatchStart,
    WatchToken, Watcher,
};

pub(super) async fn watch(
    args: WatchArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    let mut token_file = args.resume.map(TokenFile::new);
    let start = match token_file.as_ref().map(TokenFile::read).transpose()?.flatten() {
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
    let resolved = ResolvedTable::resolve(args.table).await?;
    if matches!(filter, WatchFilter::Group(_)) {
        resolved.require_groups()?;
    }
    let table = resolved.load().await?;
    let mut watcher = table.watch(start).only(filter);
    if args.every {
        watcher = watcher.every();
    }
    let mut out = output.writer();
    let mut closed = std::pin::pin!(wait_for_stdout_close());
    loop {
        let event = tokio::select! {
            event = watcher.next() => event,
            () = &mut closed => break,
            () = wait_for_stop(&mut stop_requests, 1) => break,
        };
        let Some(event) = event else { break };
        let is_live = !matches!(event, WatchEvent::Entry(_));
        match &event {
            WatchEvent::Entry(entry) => write_json_line(&mut out, &EntryLine::new(entry))?,
            WatchEvent::Synced => write_json_line(&mut out, &EventLine::new("synced"))?,
            WatchEvent::Change(change) => write_json_line(&mut out, &ChangeLine::new(change))?,
            WatchEvent::Restarted => write_json_line(&mut out, &EventLine::new("restarted"))?,
            WatchEvent::Rejected { key, notice } => {
                write_json_line(&mut out, &RejectedLine::new(key.as_deref(), notice))?;
            }
            WatchEvent::Status(status) => write_json_line(&mut out, &EventLine::status(status))?,
            WatchEvent::Generation(generation) => {
                let generation = Some(*generation);
                write_json_line(&mut out, &EventLine { generation, ..EventLine::new("generation") })?;
            }
            WatchEvent::Lagged(missed) => {
                write_json_line(&mut out, &EventLine { missed: Some(*missed), ..EventLine::new("lagged") })?;
            }
        }
        // Entries arrive in bulk and are buffered. Every later event is flushed at once.
        if is_live {
            out.flush()?;
            if let Some(token_file) = &mut token_file {
                token_file.write_if_due(&watcher)?;
            }
        }
    }
    if let Some(token_file) = &mut token_file {
        token_file.write(&watcher)?;
    }
    match table.status() {
        Status::Failed(error) => Err(CliError::Table((*error).clone())),
        _ => Ok(Exit::Done),
    }
}

/// How often the token is written while changes are printed, at most.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// The largest token file that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 1 << 20;

/// The file in which `watch --resume` stores its token: the position after the last event that it has
/// printed.
struct TokenFile {
    path: PathBuf,
    written_at: Instant,
}

impl TokenFile {
    fn new(path: PathBuf) -> Self {
        Self { path, written_at: Instant::now() }
    }

    /// Reads the token. Returns `None` if the file does not exist yet.
    fn read(&self) -> Result<Option<WatchToken>, CliError> {
        match read_text(&self.path, MAX_TOKEN_BYTES) {
            Ok(text) => text.trim().parse().map(Some).map_err(|error: InvalidToken| {
                CliError::Usage(format!("--resume {}: {error}", self.path.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::of::<CliError>("read the watch token from", &self.path)(error)),
        }
    }

    /// Writes the token if the last write was at least [`WRITE_EVERY`] ago.
    fn write_if_due(&mut self, watcher: &Watcher) -> Result<(), CliError> {
        if self.written_at.elapsed() >= WRITE_EVERY { self.write(watcher) } else { Ok(()) }
    }

    /// Replaces the file with one that holds the current token, atomically.
    fn write(&mut self, watcher: &Watcher) -> Result<(), CliError> {
        let Some(token) = watcher.token() else { return Ok(()) };
        self.written_at = Instant::now();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let write = || {
            let mut draft = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
            writeln!(draft, "{token}")?;
            draft.as_file().sync_all()?;
            draft.persist(&self.path)?;
            Ok(())
        };
        write().map_err(FileError::of::<CliError>("write the watch token to", &self.path))
    }
}

/// A change, as `watch` prints it. `old` and `new` are null if there was no entry before, or is none now.
/// `delete` marks a removed entry, because a value may itself be JSON `null`.
#[derive(Serialize)]
struct ChangeLine<'a> {
    key: &'a str,
    old: Option<&'a RawValue>,
    new: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    delete: bool,
    /// Why the entry changed, if no record changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
}

impl<'a> ChangeLine<'a> {
    fn new(change: &'a Change) -> Self {
        let value = |entry: &'a Option<Entry>| entry.as_ref().map(|entry| raw_json(entry.json()));
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

/// A rejected record, as `watch` prints it.
#[derive(Serialize)]
struct RejectedLine<'a> {
    event: &'static str,
    /// `None` if the record has no key, or a key that cannot be decoded.
    key: Option<&'a str>,
    #[serde(flatten)]
    notice: NoticeLine<'a>,
}

impl<'a> RejectedLine<'a> {
    fn new(key: Option<&'a str>, notice: &'a RejectNotice) -> Self {
        Self { event: "rejected", key, notice: NoticeLine::new(notice) }
    }
}

/// An event that is not about a single entry, as `watch` prints it.
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
