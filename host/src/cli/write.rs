//! The commands `set` and `delete`, and how commands that write are stopped.

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, stdin};
use tokio::time::MissedTickBehavior;

use crate::cli::args::{DeleteArgs, EntryArgs, SetArgs, WaitArgs};
use crate::cli::open::ResolvedTable;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit, StopRequests};
use crate::file::FileError;
use crate::log::{Ack, Log, LogError};
use crate::table::Table;
use crate::writer::{Target, Verify, Write, WriteError, Writer};

/// The largest value that is read from standard input or a file: several times the largest record that
/// brokers accept by default.
pub(super) const MAX_VALUE_BYTES: usize = 32 << 20;

/// How often the log is closed again while writes are given up, because more of them may have been queued
/// meanwhile.
const CLOSE_INTERVAL: Duration = Duration::from_millis(50);

/// Where a command writes.
struct Destination {
    resolved: ResolvedTable,
    writer: Writer,
    /// The table in which writes must become visible, with `--wait`.
    table: Option<Table>,
}

impl Destination {
    async fn open(resolved: ResolvedTable, verify: Option<Verify>, wait: WaitArgs) -> Result<Self, CliError> {
        let writer = resolved.open_writer(verify).await?;
        let table = if wait.wait { Some(resolved.load().await?) } else { None };
        Ok(Self { resolved, writer, table })
    }

    /// Stops the table, which writes its checkpoint and its dead letters.
    async fn close(self) {
        if let Some(table) = self.table {
            table.stop().await;
        }
    }

    /// Writes an entry, and prints its acknowledgement. With `--wait`, it must be visible first. Gives up when
    /// the command was asked to stop this many times.
    async fn write(
        &self,
        write: Write,
        output: Output,
        stop_requests: &mut StopRequests,
        times: u8,
    ) -> Result<(), CliError> {
        let stop = wait_for_stop(stop_requests, times);
        let log = self.resolved.log().as_ref();
        let ack = finish_or_give_up_when(stop, log, self.writer.write(write)).await?;
        if let Some(table) = &self.table {
            tokio::select! {
                visible = self.resolved.wait_until_visible(table, ack) => visible?,
                () = wait_for_stop(stop_requests, times) => {
                    tracing::warn!("interrupted: the record is written, but may not be visible yet");
                    print_ack(ack, output)?;
                    return Err(CliError::Interrupted);
                }
            }
        }
        print_ack(ack, output)
    }
}

pub(super) async fn set(
    args: SetArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    let open = async {
        let value = if args.value == "-" { read_stdin().await? } else { args.value };
        let resolved = ResolvedTable::resolve(args.table).await?;
        Ok::<_, CliError>((Destination::open(resolved, args.verify.verify, args.wait).await?, value))
    };
    let (destination, value) = run_unless_stopped(&mut stop_requests, open).await??;
    let write = Write { target: target(args.entry), value: Some(value) };
    let written = match args.heartbeat {
        None => destination.write(write, output, &mut stop_requests, 1).await,
        Some(every) => write_heartbeats(&destination, write, every, args.keep, output, stop_requests).await,
    };
    destination.close().await;
    written.map(|()| Exit::Done)
}

pub(super) async fn delete(
    args: DeleteArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    let open = async { Destination::open(ResolvedTable::resolve(args.table).await?, None, args.wait).await };
    let destination = run_unless_stopped(&mut stop_requests, open).await??;
    let write = Write { target: target(args.entry), value: None };
    let written = destination.write(write, output, &mut stop_requests, 1).await;
    destination.close().await;
    written.map(|()| Exit::Done)
}

fn target(entry: EntryArgs) -> Target {
    match entry.group {
        Some(group) => Target::Member { group, member: entry.key },
        None => Target::Key(entry.key),
    }
}

/// Writes an entry periodically until the command is asked to stop, and then deletes it, unless `keep` is
/// set. Gives up when the command is asked again.
async fn write_heartbeats(
    destination: &Destination,
    write: Write,
    every: Duration,
    keep: bool,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<(), CliError> {
    let mut ticks = tokio::time::interval(every);
    // After a late heartbeat, the next one follows a full interval later.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut abort_requests = stop_requests.clone();
    let ended = loop {
        tokio::select! {
            biased;
            () = wait_for_stop(&mut stop_requests, 1) => break Ok(()),
            _ = ticks.tick() => {}
        }
        match destination.write(write.clone(), output, &mut abort_requests, 2).await {
            Err(CliError::Write(error)) if is_temporary(&error) && *abort_requests.borrow() < 2 => {
                // The next heartbeat may succeed.
                tracing::warn!("{error}");
            }
            Ok(()) => {}
            Err(error) => break Err(error),
        }
    };
    if keep {
        return ended;
    }
    // Also after a failure, for example of the output.
    let deleted = destination.write(Write { value: None, ..write }, output, &mut abort_requests, 2).await;
    ended.and(deleted)
}

/// Whether a later write may succeed.
fn is_temporary(error: &WriteError) -> bool {
    match error {
        WriteError::Log(error) => error.is_transient() || matches!(error, LogError::Undelivered { .. }),
        // `Codec` is a failure of the host: no codec has refused the value.
        WriteError::NotVisible { .. } | WriteError::Codec(_) => true,
        _ => false,
    }
}

/// Runs work that has written nothing if it is dropped before it is done. Drops it, and fails with
/// [`CliError::Interrupted`], when the command is asked to stop.
pub(super) async fn run_unless_stopped<T>(
    stop_requests: &mut StopRequests,
    work: impl Future<Output = T>,
) -> Result<T, CliError> {
    tokio::select! {
        done = work => Ok(done),
        () = wait_for_stop(stop_requests, 1) => Err(CliError::Interrupted),
    }
}

/// Waits for writes. When the command is asked to stop, gives up those that are not acknowledged, and returns
/// the results of all.
pub(super) async fn finish_or_give_up<T>(
    stop_requests: &mut StopRequests,
    log: &dyn Log,
    work: impl Future<Output = T>,
) -> T {
    finish_or_give_up_when(wait_for_stop(stop_requests, 1), log, work).await
}

/// Waits for writes. When `stop` resolves, closes the log, which fails all writes that are not acknowledged,
/// and returns their results.
pub(super) async fn finish_or_give_up_when<T>(
    stop: impl Future<Output = ()>,
    log: &dyn Log,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = stop => {}
    }
    // Closing fails the queued writes. Writes that are still being encoded are queued later, so it is closed
    // repeatedly.
    let give_up = async {
        loop {
            log.close(Duration::ZERO).await;
            tokio::time::sleep(CLOSE_INTERVAL).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = give_up => unreachable!("the loop never ends"),
    }
}

/// Waits until the command was asked to stop this many times.
pub(super) async fn wait_for_stop(stop_requests: &mut StopRequests, times: u8) {
    if stop_requests.wait_for(|&requests| requests >= times).await.is_err() {
        std::future::pending().await
    }
}

/// Prints the partition and the offset of an acknowledged record.
pub(super) fn print_ack(ack: Ack, output: Output) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct AckLine {
        partition: i32,
        /// `None` if the log did not return it.
        offset: Option<i64>,
    }
    Ok(output.print_object(&AckLine { partition: ack.partition, offset: ack.offset })?)
}

/// Reads a value from standard input.
async fn read_stdin() -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let read = stdin().take(MAX_VALUE_BYTES as u64 + 1).read_to_end(&mut bytes).await;
    read.map_err(FileError::of::<CliError>("read the value from", "standard input".as_ref()))?;
    if bytes.len() > MAX_VALUE_BYTES {
        let reason = format!("the value on standard input is larger than {MAX_VALUE_BYTES} bytes");
        return Err(CliError::Usage(reason));
    }
    String::from_utf8(bytes)
        .map_err(|error| CliError::Usage(format!("the value on standard input is not UTF-8: {error}")))
}
