//! The commands `set` and `delete`.

use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, stdin};
use tokio::time::MissedTickBehavior;

use crate::cli::args::{DeleteArgs, EntryArgs, SetArgs, TableArgs, WaitArgs};
use crate::cli::lines::MAX_VALUE_BYTES;
use crate::cli::open::ResolvedTable;
use crate::cli::output::Output;
use crate::cli::remote::RemoteTable;
use crate::cli::stop::{finish_or_give_up_when, run_unless_stopped, wait_for_stop};
use crate::cli::{CliError, Exit, StopRequests};
use crate::file::FileError;
use crate::log::{Ack, LogError};
use crate::table::Table;
use crate::writer::{Target, Verify, Write, WriteError, Writer};

/// Where a command writes.
enum Destination {
    /// To the topic.
    Topic {
        resolved: Box<ResolvedTable>,
        writer: Writer,
        /// The table in which writes must become visible, with `--wait`.
        table: Option<Table>,
    },
    /// To a server.
    Server { table: RemoteTable, wait: bool },
}

impl Destination {
    async fn open(args: TableArgs, verify: Option<Verify>, wait: WaitArgs) -> Result<Self, CliError> {
        if let Some(table) = RemoteTable::of(&args)? {
            refuse_verify(verify)?;
            return Ok(Self::Server { table, wait: wait.wait });
        }
        let resolved = ResolvedTable::resolve(args).await?;
        let writer = resolved.open_writer(verify).await?;
        let table = if wait.wait { Some(resolved.load().await?) } else { None };
        Ok(Self::Topic { resolved: Box::new(resolved), writer, table })
    }

    /// Stops the table, which writes its checkpoint and its dead letters.
    async fn close(self) {
        if let Self::Topic { table: Some(table), .. } = self {
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
        let (resolved, writer, table) = match self {
            Self::Topic { resolved, writer, table } => (resolved, writer, table),
            Self::Server { table, wait } => {
                let ack = tokio::select! {
                    ack = table.write(write, *wait) => ack?,
                    () = stop => {
                        tracing::warn!("interrupted: the record may or may not be written");
                        return Err(CliError::Interrupted);
                    }
                };
                return print_ack(ack, output);
            }
        };
        let ack = finish_or_give_up_when(stop, resolved.log().as_ref(), writer.write(write)).await?;
        if let Some(table) = table {
            tokio::select! {
                visible = resolved.wait_until_visible(table, ack) => visible?,
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

/// Fails if the arguments say how values are verified: with a server, its configuration does.
pub(super) fn refuse_verify(verify: Option<Verify>) -> Result<(), CliError> {
    match verify {
        None => Ok(()),
        Some(_) => Err(CliError::Usage(
            "with --server, the configuration of the server says how values are verified: leave out --verify"
                .to_owned(),
        )),
    }
}

pub(super) async fn set(
    args: SetArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    let open = async {
        let value = if args.value == "-" { read_stdin().await? } else { args.value };
        Ok::<_, CliError>((Destination::open(args.table, args.verify.verify, args.wait).await?, value))
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
    let open = Destination::open(args.table, None, args.wait);
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
    // A server whose address is wrong never answers.
    let mut may_fail = matches!(destination, Destination::Topic { .. });
    let ended = loop {
        tokio::select! {
            biased;
            () = wait_for_stop(&mut stop_requests, 1) => break Ok(()),
            _ = ticks.tick() => {}
        }
        match destination.write(write.clone(), output, &mut abort_requests, 2).await {
            Err(error) if may_fail && is_temporary(&error) && *abort_requests.borrow() < 2 => {
                // The next heartbeat may succeed.
                tracing::warn!("{error}");
            }
            Ok(()) => may_fail = true,
            Err(error) => break Err(error),
        }
    };
    if keep || !may_fail {
        return ended;
    }
    // Also after a failure, for example of the output.
    let deleted = destination.write(Write { value: None, ..write }, output, &mut abort_requests, 2).await;
    ended.and(deleted)
}

/// Whether a later write may succeed.
fn is_temporary(error: &CliError) -> bool {
    match error {
        CliError::Write(WriteError::Log(error)) => {
            error.is_transient() || matches!(error, LogError::Undelivered { .. })
        }
        // `Codec` is a failure of the host: no codec has refused the value.
        CliError::Write(WriteError::NotVisible { .. } | WriteError::Codec(_)) => true,
        CliError::Server(_) | CliError::Incomplete(_) => true,
        _ => false,
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
