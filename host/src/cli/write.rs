//! The commands that write through codecs.

use std::io::{ErrorKind, IsTerminal, stderr};

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, Stdin, stdin};
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
    stopping: watch::Receiver<bool>,
) -> Result<Exit, CliError> {
    let writer = Opened::new(args.table).await?.writer(args.verify.verify).await?;
    let bar = if stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let lines = BufReader::new(stdin()).lines();
    let mut import = Import { lines, stopping, done: Imported::default(), open: true, failed: None };
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
    stopping: watch::Receiver<bool>,
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
                _ = self.stopping.wait_for(|&stopping| stopping) => {
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
        for (line, answer) in lines.into_iter().zip(writer.set_many(writes).await) {
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
