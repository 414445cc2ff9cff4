//! The command `export`, which writes a table to a file, and runs a command when it has changed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::args::{ExportArgs, ExportFormat};
use crate::cli::export_format::{LeftOut, write_entries};
use crate::cli::open::ResolvedTable;
use crate::cli::stop::wait_for_stop;
use crate::cli::{CliError, Exit, StopRequests};
use crate::escape::escape_name;
use crate::file::{FileError, Replacement};
use crate::table::{Snapshot, Status, Table, WatchStart, Watcher};

/// How long changes are collected before the file is replaced.
const COLLECT: Duration = Duration::from_millis(100);

/// How often a command that runs is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How many keys that were left out are listed.
const MAX_LISTED: usize = 20;

pub(super) async fn export(args: ExportArgs, mut stop_requests: StopRequests) -> Result<Exit, CliError> {
    let exec = args.exec.as_deref().map(split_words).transpose()?;
    let resolved = ResolvedTable::resolve(args.table).await?;
    let table = resolved.load().await?;
    // Before the first file, so that no change is missed.
    let mut watcher = table.watch(WatchStart::Now);
    let exporter = Exporter { out: &args.out, format: args.format, exec, timeout: args.exec_timeout };
    let mut is_written = None;
    loop {
        let (status, snapshot) = (table.status(), table.snapshot());
        if matches!(status, Status::CaughtUp) || args.allow_degraded {
            is_written = Some(exporter.export(&snapshot).await?);
        } else {
            tracing::warn!("{} is not replaced, because the table is {status}", args.out.display());
        }
        let is_over = !args.follow
            || tokio::select! {
                is_over = wait_for_change(&mut watcher) => is_over,
                () = wait_for_stop(&mut stop_requests, 1) => true,
            };
        if is_over {
            return finish(&table, is_written).await;
        }
    }
}

/// Waits until the table has changed, and collects what changes at the same time. Returns true if it has ended.
async fn wait_for_change(watcher: &mut Watcher) -> bool {
    if watcher.next().await.is_none() {
        return true;
    }
    let deadline = Instant::now() + COLLECT;
    loop {
        match tokio::time::timeout_at(deadline, watcher.next()).await {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Stops the table. `is_complete` says whether everything fitted the format; `None` if nothing was written.
async fn finish(table: &Table, is_complete: Option<bool>) -> Result<Exit, CliError> {
    let status = table.status();
    table.stop().await;
    match (status, is_complete) {
        (Status::Failed(error), _) => Err(CliError::Table((*error).clone())),
        (Status::CaughtUp, Some(true)) => Ok(Exit::Done),
        (Status::CaughtUp, Some(false)) => Ok(Exit::No),
        _ => Ok(Exit::Degraded),
    }
}

/// Writes a file, and runs a command afterwards.
struct Exporter<'a> {
    out: &'a Path,
    format: ExportFormat,
    exec: Option<Vec<String>>,
    timeout: Duration,
}

impl Exporter<'_> {
    /// Replaces the file, and runs the command. Returns whether everything fitted the format, and the command
    /// succeeded.
    async fn export(&self, snapshot: &Snapshot) -> Result<bool, CliError> {
        let left_out = self.replace(snapshot).map_err(FileError::of::<CliError>("replace", self.out))?;
        for (key, reason) in left_out.iter().take(MAX_LISTED) {
            tracing::warn!("key `{}` is left out: {reason}", escape_name(key));
        }
        if left_out.len() > MAX_LISTED {
            tracing::warn!("{} more keys are left out", left_out.len() - MAX_LISTED);
        }
        let Some(words) = &self.exec else { return Ok(left_out.is_empty()) };
        match self.run(words).await {
            Ok(()) => Ok(left_out.is_empty()),
            Err(reason) => {
                tracing::warn!(
                    "`{}` failed: {reason}; with --follow, it runs again after the next change",
                    escape_name(&words.join(" "))
                );
                Ok(false)
            }
        }
    }

    fn replace(&self, snapshot: &Snapshot) -> std::io::Result<LeftOut> {
        let mut out = std::io::BufWriter::new(Replacement::new(self.out)?);
        let left_out = write_entries(snapshot, self.format, &mut out)?;
        out.flush()?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.persist()?;
        Ok(left_out)
    }

    /// Runs the command until it ends, or its time has passed.
    async fn run(&self, words: &[String]) -> Result<(), String> {
        let (program, args) = words.split_first().ok_or("it is empty")?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
        let deadline = Instant::now() + self.timeout;
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(status.to_string()),
                Ok(None) if Instant::now() < deadline => tokio::time::sleep(POLL_INTERVAL).await,
                Ok(None) => {
                    // OK to ignore: it has just ended.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("it did not end within {:?}, and was killed", self.timeout));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// Splits a command into words, as a shell does, without running one.
fn split_words(command: &str) -> Result<Vec<String>, CliError> {
    match shell_words::split(command) {
        Ok(words) if !words.is_empty() => Ok(words),
        Ok(_) => Err(CliError::Usage("--exec is empty".to_owned())),
        Err(error) => Err(CliError::Usage(format!("--exec: {error}"))),
    }
}
