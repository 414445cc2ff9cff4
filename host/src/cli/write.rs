//! The commands that write through codecs.

use std::io::{ErrorKind, IsTerminal, stderr};

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, stdin};
use tokio::sync::watch;

use crate::cli::args::{DeleteArgs, EntryArgs, ImportArgs, SetArgs};
use crate::cli::open::Opened;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::log::Ack;
use crate::writer::{Target, Write, WriteError, Writer};

/// How many lines are written at once.
const IMPORT_LINES: usize = 4096;

/// How many bytes are written at once, but for a last line.
const IMPORT_BYTES: usize = 16 << 20;

pub(super) async fn set(args: SetArgs, output: Output) -> Result<Exit, CliError> {
    let value = if args.value == "-" { read_stdin().await? } else { args.value };
    let writer = Opened::new(args.table).await?.writer(args.verify.verify).await?;
    write(&writer, target(args.entry), Some(value), output).await
}

pub(super) async fn delete(args: DeleteArgs, output: Output) -> Result<Exit, CliError> {
    let writer = Opened::new(args.table).await?.writer(None).await?;
    write(&writer, target(args.entry), None, output).await
}

fn target(entry: EntryArgs) -> Target {
    match entry.group {
        Some(group) => Target::Member { group, member: entry.key },
        None => Target::Key(entry.key),
    }
}

async fn write(
    writer: &Writer,
    target: Target,
    value: Option<String>,
    output: Output,
) -> Result<Exit, CliError> {
    let ack = writer.write(Write { target, value }).await?;
    print_ack(ack, output)?;
    Ok(Exit::Done)
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

/// Ends early when `stopping` becomes true, after what was read is acknowledged.
pub(super) async fn import(
    args: ImportArgs,
    output: Output,
    mut stopping: watch::Receiver<bool>,
) -> Result<Exit, CliError> {
    let writer = Opened::new(args.table).await?.writer(args.verify.verify).await?;
    let mut lines = BufReader::new(stdin()).lines();
    let bar = if stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let mut done = Imported::default();
    let mut failed = None;
    let mut open = true;
    while open && failed.is_none() {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while open && chunk.len() < IMPORT_LINES && bytes < IMPORT_BYTES {
            let line = tokio::select! {
                line = lines.next_line() => line,
                _ = stopping.wait_for(|&stopping| stopping) => {
                    done.interrupted = true;
                    Ok(None)
                }
            };
            match line {
                Ok(None) => open = false,
                Ok(Some(line)) => {
                    done.lines += 1;
                    bytes += line.len();
                    match Line::parse(&line) {
                        _ if line.trim().is_empty() => {}
                        Ok(write) => chunk.push((done.lines, write)),
                        Err(reason) => done.refuse(done.lines, &reason),
                    }
                }
                // The line is read, and the next one may be all right.
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    done.lines += 1;
                    done.refuse(done.lines, "it is not UTF-8");
                }
                Err(error) => {
                    open = false;
                    failed = Some(CliError::file("read", "standard input".as_ref())(error));
                }
            }
        }
        let (numbers, writes): (Vec<u64>, Vec<Write>) = chunk.into_iter().unzip();
        for (number, answer) in numbers.into_iter().zip(writer.set_many(writes).await) {
            match answer {
                Ok(_) => done.acknowledged += 1,
                Err(error) => {
                    done.refuse(number, &error.to_string());
                    if matches!(error, WriteError::Log(_) | WriteError::Codec(_)) {
                        failed = Some(error.into());
                    }
                }
            }
        }
        bar.set_position(done.acknowledged);
        bar.set_message(format!("{} entries acknowledged", done.acknowledged));
    }
    bar.finish_and_clear();
    output.object(&done)?;
    match failed {
        Some(error) => Err(error),
        None if done.interrupted => Err(CliError::Interrupted),
        None => Ok(if done.refused == 0 { Exit::Done } else { Exit::No }),
    }
}

impl Imported {
    fn refuse(&mut self, line: u64, reason: &str) {
        self.refused += 1;
        tracing::error!("line {line}: {reason}");
    }
}
