//! The commands that write through codecs.

use std::future::{Future, IntoFuture};
use std::io::{ErrorKind, IsTerminal, stderr};
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, Stdin, stdin};
use tokio::time::MissedTickBehavior;

use crate::cli::args::{DeleteArgs, EntryArgs, ImportArgs, SetArgs};
use crate::cli::open::Opened;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit, Stopping};
use crate::log::{Ack, Log, LogError};
use crate::writer::{Target, Write, WriteError, Writer};

/// How many lines are written at once.
const IMPORT_LINES: usize = 4096;

/// How often what was queued meanwhile is given up, too.
const AGAIN: Duration = Duration::from_millis(50);

/// How many bytes are written at once, but for a last line.
const IMPORT_BYTES: usize = 16 << 20;

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

async fn give_up_when<T>(
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
            log.flush(Duration::ZERO).await;
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = give_up => unreachable!("it goes on for ever"),
    }
}

/// Resolves when the command was told to end this often.
async fn told(stopping: &mut Stopping, times: u8) {
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
    let read = stdin().read_to_string(&mut text).await;
    read.map_err(CliError::file("read the value from", "standard input".as_ref()))?;
    Ok(text)
}

/// A line of `import`. What `dump` prints besides key and value is accepted and
/// left aside.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Option<String>,
    group: Option<String>,
    member: Option<String>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Box<RawValue>>,
    #[serde(default)]
    delete: bool,
    #[serde(rename = "partition")]
    _partition: Option<i32>,
    #[serde(rename = "offset")]
    _offset: Option<i64>,
    #[serde(rename = "timestamp")]
    _timestamp: Option<i64>,
    #[serde(rename = "rejected")]
    _rejected: Option<IgnoredAny>,
    #[serde(rename = "expired")]
    _expired: Option<bool>,
}

/// A value that is there, JSON `null` too.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl Line {
    fn parse(text: &str) -> Result<Write, String> {
        let line: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let target = match (line.key, line.group, line.member) {
            (Some(key), None, None) => Target::Key(key),
            (None, Some(group), Some(member)) => Target::Member { group, member },
            _ => return Err("write \"key\", or \"group\" and \"member\"".to_owned()),
        };
        let value = match (line.value, line.delete) {
            (Some(value), false) => Some(value.get().to_owned()),
            (None, true) => None,
            _ => return Err("write \"value\", or \"delete\": true".to_owned()),
        };
        Ok(Write { target, value })
    }
}

/// What `import` prints at its end.
#[derive(Debug, Default, Serialize)]
struct Imported {
    lines: u64,
    acknowledged: u64,
    refused: u64,
    interrupted: bool,
}

/// Ends early when it is told to, after what was read is acknowledged; told again,
/// it lists what is not.
pub(super) async fn import(
    args: ImportArgs,
    output: Output,
    mut stopping: Stopping,
) -> Result<Exit, CliError> {
    let opened = unless_stopping(&mut stopping, Opened::new(args.table)).await??;
    let log = opened.log.clone();
    let writer = unless_stopping(&mut stopping, opened.writer(args.verify.verify, None)).await??;
    let bar = if stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let lines = BufReader::new(stdin()).lines();
    let mut import = Import { lines, stopping, log, done: Imported::default(), open: true, failed: None };
    while import.open {
        let chunk = import.read().await;
        import.write(&writer, chunk).await;
        bar.set_position(import.done.acknowledged);
        bar.set_message(format!("{} entries acknowledged", import.done.acknowledged));
    }
    bar.finish_and_clear();
    output.object(&import.done)?;
    match import.failed {
        Some(error) => Err(error),
        None if import.done.interrupted => Err(CliError::Interrupted),
        None => Ok(if import.done.refused == 0 { Exit::Done } else { Exit::No }),
    }
}

/// An import under way.
struct Import {
    lines: Lines<BufReader<Stdin>>,
    stopping: Stopping,
    log: Arc<dyn Log>,
    done: Imported,
    /// Whether more is to be read.
    open: bool,
    failed: Option<CliError>,
}

impl Import {
    /// The next writes, each with its line.
    async fn read(&mut self) -> Vec<(u64, Write)> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while self.open && chunk.len() < IMPORT_LINES && bytes < IMPORT_BYTES {
            let line = tokio::select! {
                line = self.lines.next_line() => line,
                () = told(&mut self.stopping, 1) => {
                    self.done.interrupted = true;
                    Ok(None)
                }
            };
            match line {
                Ok(None) => self.open = false,
                Ok(Some(line)) => {
                    bytes += line.len();
                    self.done.lines += 1;
                    match Line::parse(&line) {
                        _ if line.trim().is_empty() => {}
                        Ok(write) => chunk.push((self.done.lines, write)),
                        Err(reason) => self.refuse(self.done.lines, &reason),
                    }
                }
                // The line is read, and the next one may be all right.
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    self.done.lines += 1;
                    self.refuse(self.done.lines, "it is not UTF-8");
                }
                Err(error) => self.fail(CliError::file("read", "standard input".as_ref())(error)),
            }
        }
        chunk
    }

    /// Writes a chunk, until all of it is acknowledged or listed.
    async fn write(&mut self, writer: &Writer, chunk: Vec<(u64, Write)>) {
        let (lines, writes): (Vec<u64>, Vec<Write>) = chunk.into_iter().unzip();
        let enough = told(&mut self.stopping, 2);
        let answers = give_up_when(enough, self.log.as_ref(), writer.set_many(writes).into_future()).await;
        for (line, answer) in lines.into_iter().zip(answers) {
            let Err(error) = answer else {
                self.done.acknowledged += 1;
                continue;
            };
            self.refuse(line, &error.to_string());
            if matches!(error, WriteError::Log(_) | WriteError::Codec(_)) {
                self.fail(error.into());
            }
        }
    }

    fn refuse(&mut self, line: u64, reason: &str) {
        self.done.refused += 1;
        tracing::error!("line {line}: {reason}");
    }

    /// Nothing more is to be tried.
    fn fail(&mut self, error: CliError) {
        self.open = false;
        self.failed = Some(error);
    }
}
