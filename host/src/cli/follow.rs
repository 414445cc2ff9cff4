//! The `watch` command, which prints a table's changes.

use std::io::Write;
use std::time::Duration;

use crate::cli::args::WatchArgs;
use crate::cli::open::ResolvedTable;
use crate::cli::output::{Output, StdoutWriter, wait_for_stdout_close, write_json_line};
use crate::cli::remote::{self, RemoteTable};
use crate::cli::stop::wait_for_stop;
use crate::cli::token_file::TokenFile;
use crate::cli::{CliError, Exit, StopRequests};
use crate::table::{Status, Table, WatchEvent, WatchFilter, WatchStart, Watcher};
use crate::wire::EventJson;

pub(super) async fn watch(
    args: WatchArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    output.require_json("watch")?;
    if let Some(table) = RemoteTable::of(&args.table)? {
        return remote::watch(&table, args, output, stop_requests).await;
    }
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
            file.note_event();
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
            Some(file) => file.wait_for_write_time().await,
            None => std::future::pending().await,
        }
    }

    /// Stores the token, unless the output is closed: then nobody has received the last events.
    fn store_token(&mut self, watcher: &Watcher) -> Result<(), CliError> {
        match &mut self.token_file {
            Some(file) if !self.out.is_closed() => {
                file.write(watcher.token().map(|token| token.to_string()).as_deref())
            }
            _ => Ok(()),
        }
    }
}
