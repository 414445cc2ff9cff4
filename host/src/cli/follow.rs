//! The `watch` command, which prints a table's changes.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cli::args::WatchArgs;
use crate::cli::open::ResolvedTable;
use crate::cli::output::{Output, StdoutWriter, wait_for_stdout_close, write_json_line};
use crate::cli::write::wait_for_stop;
use crate::cli::{CliError, Exit, StopRequests};
use crate::file::{FileError, Replacement, read_text};
use crate::table::{InvalidToken, Status, Table, WatchEvent, WatchFilter, WatchStart, WatchToken, Watcher};
use crate::wire::EventJson;

pub(super) async fn watch(
    args: WatchArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    output.require_json("watch")?;
    let token_file = args.resume.map(TokenFile::new);
    let start = match token_file.as_ref().map(TokenFile::read).transpose()?.flatten() {
        Some(token) => WatchStart::Since(token),
        None if args.from_now => WatchStart::Now,
        None => WatchStart::Entries,
    };
    let filter = filter(args.key, args.prefix, args.group);
    if let Some(token_file) = &token_file {
        token_file.check_writable()?;
    }
    let resolved = ResolvedTable::resolve(args.table).await?;
    if matches!(filter, WatchFilter::Group(_)) {
        resolved.require_groups()?;
    }
    let table = resolved.load().await?;
    let mut watcher = table.watch(start).with_filter(filter);
    if args.every {
        watcher = watcher.every_change();
    }
    // After the watcher began, so that no later status is missed. It may be printed twice.
    let status = table.status();
    let mut printer = EventPrinter { out: output.writer(), token_file };
    if !matches!(status, Status::CaughtUp) {
        // Otherwise the output would not show that the entries may be incomplete.
        printer.print(&WatchEvent::Status(status))?;
    }
    let mut closed = std::pin::pin!(wait_for_stdout_close());
    let is_stopped = loop {
        tokio::select! {
            event = watcher.next() => match event {
                Some(event) => printer.print(&event)?,
                None => break false,
            },
            () = printer.wait_for_token_time() => printer.store_token(&watcher)?,
            // Nobody has read what is in the pipe, so the stored token stays.
            () = &mut closed => {
                table.stop().await;
                return Ok(Exit::Done);
            }
            () = wait_for_stop(&mut stop_requests, 1) => break true,
        }
    };
    if is_stopped {
        let rest = printer.print_rest(&mut watcher);
        tokio::time::timeout(STOP_GRACE, rest).await.unwrap_or(Ok(()))?;
    }
    printer.out.flush()?;
    printer.store_token(&watcher)?;
    finish(&table).await
}

/// Stops a table, which writes its checkpoint and its dead letters. Fails if the table has failed.
async fn finish(table: &Table) -> Result<Exit, CliError> {
    table.stop().await;
    match table.status() {
        Status::Failed(error) => Err(CliError::Table((*error).clone())),
        _ => Ok(Exit::Done),
    }
}

fn filter(key: Option<String>, prefix: Option<String>, group: Option<String>) -> WatchFilter {
    match (key, prefix, group) {
        (Some(key), ..) => WatchFilter::Key(key),
        (_, Some(prefix), _) => WatchFilter::Prefix(prefix),
        (.., Some(group)) => WatchFilter::Group(group),
        (None, None, None) => WatchFilter::All,
    }
}

/// How long a command that was asked to stop prints the rest of what it has begun.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// The interval between two writes of the token while changes are printed.
const TOKEN_WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The interval between two writes of the token while nothing is printed: the log no longer has the records
/// that follow a token that is too old.
const IDLE_TOKEN_WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// The largest token file that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 1 << 20;

/// Prints events, and stores the token of what it has printed.
struct EventPrinter {
    out: StdoutWriter,
    token_file: Option<TokenFile>,
}

impl EventPrinter {
    fn print(&mut self, event: &WatchEvent) -> Result<(), CliError> {
        write_json_line(&mut self.out, &EventJson::new(event))?;
        // Entries arrive in bulk and are buffered. Every other event is flushed at once.
        if !matches!(event, WatchEvent::Entry(_)) {
            self.out.flush()?;
        }
        if let Some(file) = &mut self.token_file {
            file.next_write = file.next_write.min(file.last_attempt + TOKEN_WRITE_INTERVAL);
        }
        Ok(())
    }

    /// Prints the rest of the entries or of the difference that is being delivered: in the middle of it there
    /// is no token, and the next command would print it again.
    async fn print_rest(&mut self, watcher: &mut Watcher) -> Result<(), CliError> {
        while self.token_file.is_some() && watcher.token().is_none() {
            let Some(event) = watcher.next().await else { break };
            self.print(&event)?;
        }
        Ok(())
    }

    /// Waits until the token has to be stored.
    async fn wait_for_token_time(&self) {
        match &self.token_file {
            Some(file) => tokio::time::sleep_until(file.next_write.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Stores the token, unless the output is closed: then nobody has received the last events.
    fn store_token(&mut self, watcher: &Watcher) -> Result<(), CliError> {
        match &mut self.token_file {
            Some(file) if !self.out.is_closed() => file.write(watcher),
            _ => Ok(()),
        }
    }
}

/// The file in which `watch --resume` stores its token: the position after the last event that it has
/// printed.
struct TokenFile {
    path: PathBuf,
    /// When writing the token was last tried.
    last_attempt: Instant,
    /// When to write the token next.
    next_write: Instant,
}

impl TokenFile {
    fn new(path: PathBuf) -> Self {
        let now = Instant::now();
        Self { path, last_attempt: now, next_write: now }
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

    /// Fails if no token can be written.
    fn check_writable(&self) -> Result<(), CliError> {
        let replacement = Replacement::new(&self.path);
        replacement.map(drop).map_err(FileError::of::<CliError>("write the watch token to", &self.path))
    }

    /// Replaces the file with one that holds the current token, atomically. While there is no token, tries
    /// again later.
    fn write(&mut self, watcher: &Watcher) -> Result<(), CliError> {
        self.last_attempt = Instant::now();
        let Some(token) = watcher.token() else {
            self.next_write = self.last_attempt + TOKEN_WRITE_INTERVAL;
            return Ok(());
        };
        self.next_write = self.last_attempt + IDLE_TOKEN_WRITE_INTERVAL;
        let write = || {
            let mut replacement = Replacement::new(&self.path)?;
            writeln!(replacement, "{token}")?;
            replacement.persist()
        };
        write().map_err(FileError::of::<CliError>("write the watch token to", &self.path))
    }
}
