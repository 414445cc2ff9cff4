//! The `watch` command, which prints a table's changes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cli::args::WatchArgs;
use crate::cli::open::ResolvedTable;
use crate::cli::output::{Output, wait_for_stdout_close, write_json_line};
use crate::cli::write::wait_for_stop;
use crate::cli::{CliError, Exit, StopRequests};
use crate::file::{FileError, read_text};
use crate::table::{InvalidToken, Status, WatchEvent, WatchFilter, WatchStart, WatchToken, Watcher};
use crate::wire::EventJson;

pub(super) async fn watch(
    args: WatchArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    output.require_json("watch")?;
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
    let mut watcher = table.watch(start).with_filter(filter);
    if args.every {
        watcher = watcher.every_change();
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
        write_json_line(&mut out, &EventJson::new(&event))?;
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

/// The shortest interval between two writes of the token while changes are printed.
const TOKEN_WRITE_INTERVAL: Duration = Duration::from_secs(1);

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

    /// Writes the token if the last write was at least [`TOKEN_WRITE_INTERVAL`] ago.
    fn write_if_due(&mut self, watcher: &Watcher) -> Result<(), CliError> {
        if self.written_at.elapsed() >= TOKEN_WRITE_INTERVAL { self.write(watcher) } else { Ok(()) }
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
