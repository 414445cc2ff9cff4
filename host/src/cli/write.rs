//! The commands that write through codecs.

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, stdin};
use tokio::time::MissedTickBehavior;

use crate::cli::args::{DeleteArgs, EntryArgs, SetArgs};
use crate::cli::open::Opened;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit, Stopping};
use crate::log::{Ack, Log, LogError};
use crate::writer::{Target, Write, WriteError, Writer};

/// The largest value that is read: several times the largest record that brokers take by default.
pub(super) const MAX_VALUE_BYTES: usize = 32 << 20;

/// How often what was queued meanwhile is given up, too.
const AGAIN: Duration = Duration::from_millis(50);

pub(super) async fn set(args: SetArgs, output: Output, mut stopping: Stopping) -> Result<Exit, CliError> {
    let opened = unless_stopping(&mut stopping, async {
        let value = if args.value == "-" { read_stdin().await? } else { args.value };
        Ok::<_, CliError>((Opened::new(args.table).await?, value))
    });
    let (opened, value) = opened.await??;
    let writer = opened.writer(args.verify.verify, Some(args.wait));
    let writer = unless_stopping(&mut stopping, writer).await??;
    let write = Write { target: target(args.entry), value: Some(value) };
    match args.heartbeat {
        None => once(&opened, &writer, write, output, stopping).await,
        Some(every) => heartbeats(&opened, &writer, write, every, args.keep, output, stopping).await,
    }
}

pub(super) async fn delete(
    args: DeleteArgs,
    output: Output,
    mut stopping: Stopping,
) -> Result<Exit, CliError> {
    let opened = unless_stopping(&mut stopping, Opened::new(args.table)).await??;
    let writer = unless_stopping(&mut stopping, opened.writer(None, Some(args.wait))).await??;
    once(&opened, &writer, Write { target: target(args.entry), value: None }, output, stopping).await
}

fn target(entry: EntryArgs) -> Target {
    match entry.group {
        Some(group) => Target::Member { group, member: entry.key },
        None => Target::Key(entry.key),
    }
}

async fn once(
    opened: &Opened,
    writer: &Writer,
    write: Write,
    output: Output,
    mut stopping: Stopping,
) -> Result<Exit, CliError> {
    let ack = given_up_when_stopping(&mut stopping, opened.log.as_ref(), writer.write(write)).await?;
    print_ack(ack, output)?;
    Ok(Exit::Done)
}

/// Writes an entry again and again until the command is told to end, and deletes it then.
async fn heartbeats(
    opened: &Opened,
    writer: &Writer,
    write: Write,
    every: Duration,
    keep: bool,
    output: Output,
    mut stopping: Stopping,
) -> Result<Exit, CliError> {
    let mut ticks = tokio::time::interval(every);
    // After a beat that was late, the next one is as far behind it.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut insisting = stopping.clone();
    loop {
        tokio::select! {
            biased;
            () = told(&mut stopping, 1) => break,
            _ = ticks.tick() => {}
        }
        let beat = give_up_when(told(&mut insisting, 2), opened.log.as_ref(), writer.write(write.clone()));
        match beat.await {
            Ok(ack) => print_ack(ack, output)?,
            // The next one may get through.
            Err(error) if is_passing(&error) => tracing::warn!("{error}"),
            Err(error) => return Err(error.into()),
        }
    }
    if !keep {
        let delete = writer.write(Write { value: None, ..write });
        let ack = give_up_when(told(&mut insisting, 2), opened.log.as_ref(), delete).await?;
        print_ack(ack, output)?;
    }
    Ok(Exit::Done)
}

fn is_passing(error: &WriteError) -> bool {
    match error {
        WriteError::Log(error) => error.is_transient() || matches!(error, LogError::Undelivered { .. }),
        WriteError::NotVisible { .. } | WriteError::Codec(_) => true,
        _ => false,
    }
}

/// Nothing is written yet, so nothing is to be said when the command is told to end.
pub(super) async fn unless_stopping<T>(
    stopping: &mut Stopping,
    work: impl Future<Output = T>,
) -> Result<T, CliError> {
    tokio::select! {
        done = work => Ok(done),
        () = told(stopping, 1) => Err(CliError::Interrupted),
    }
}

/// Waits for what is being written; when the command is told to end, for what can be
/// said of it.
pub(super) async fn given_up_when_stopping<T>(
    stopping: &mut Stopping,
    log: &dyn Log,
    work: impl Future<Output = T>,
) -> T {
    give_up_when(told(stopping, 1), log, work).await
}

pub(super) async fn give_up_when<T>(
    enough: impl Future<Output = ()>,
    log: &dyn Log,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = enough => {}
    }
    // What is given up has its answer then; what is still being prepared comes later.
    let give_up = async {
        loop {
            log.close(Duration::ZERO).await;
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = give_up => unreachable!("it goes on for ever"),
    }
}

/// Resolves when the command was told to end this often.
pub(super) async fn told(stopping: &mut Stopping, times: u8) {
    if stopping.wait_for(|&told| told >= times).await.is_err() {
        std::future::pending().await
    }
}

/// Where a record is.
pub(super) fn print_ack(ack: Ack, output: Output) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct AckLine {
        partition: i32,
        offset: i64,
    }
    Ok(output.object(&AckLine { partition: ack.partition, offset: ack.offset })?)
}

async fn read_stdin() -> Result<String, CliError> {
    let mut text = String::new();
    let read = stdin().take(MAX_VALUE_BYTES as u64 + 1).read_to_string(&mut text).await;
    read.map_err(CliError::file("read the value from", "standard input".as_ref()))?;
    if text.len() > MAX_VALUE_BYTES {
        let reason = format!("the value on standard input has more than {MAX_VALUE_BYTES} bytes");
        return Err(CliError::Usage(reason));
    }
    Ok(text)
}
