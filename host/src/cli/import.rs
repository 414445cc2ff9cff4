//! `import`: many entries from standard input.

use std::future::IntoFuture;
use std::io::{self, IsTerminal, stderr};
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader, Stdin, stdin};

use crate::cli::args::ImportArgs;
use crate::cli::open::Opened;
use crate::cli::output::Output;
use crate::cli::write::{MAX_VALUE_BYTES, give_up_when, told, unless_stopping};
use crate::cli::{CliError, Exit, Stopping};
use crate::log::Log;
use crate::writer::{Target, Write, WriteError, Writer};

/// How many lines are written at once.
const LINES_AT_ONCE: usize = 4096;

/// How many bytes are written at once, but for a last line.
const BYTES_AT_ONCE: usize = 16 << 20;

/// The longest line.
const MAX_LINE_BYTES: usize = MAX_VALUE_BYTES;

/// When the input pauses for this long, what was read is written.
const PAUSE: Duration = Duration::from_millis(20);

/// A byte-order mark, which some editors put in front of a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

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
    #[serde(default)]
    expired: bool,
}

/// A value that is there, JSON `null` too.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// What a line asks for.
enum Parsed {
    Write(Write),
    /// An entry whose time was over when it was dumped.
    Expired(Write),
    Blank,
}

impl Line {
    fn parse(bytes: &[u8]) -> Result<Parsed, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        if text.trim().is_empty() {
            return Ok(Parsed::Blank);
        }
        if !text.trim_start().starts_with('{') {
            return Err("it is no JSON object: write {\"key\": …, \"value\": …}".to_owned());
        }
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
        let write = Write { target, value };
        Ok(if line.expired { Parsed::Expired(write) } else { Parsed::Write(write) })
    }
}

/// Lines of bounded length.
struct Lines<R> {
    input: R,
    line: Vec<u8>,
    is_first: bool,
}

/// A line that was read.
enum NextLine {
    Line(Vec<u8>),
    /// It was longer than lines may be, and was passed over.
    TooLong,
    End,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    fn new(input: R) -> Self {
        Self { input, line: Vec::new(), is_first: true }
    }

    /// The next line, without its end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if this is dropped.
    async fn next(&mut self) -> io::Result<NextLine> {
        loop {
            let available = self.input.fill_buf().await?;
            let end = available.iter().position(|&byte| byte == b'\n');
            let more = &available[..end.unwrap_or(available.len())];
            // Of a line that is too long, no more is kept than shows that it is.
            let room = (MAX_LINE_BYTES + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&more[..more.len().min(room)]);
            let (is_over, consumed) = (available.is_empty(), more.len() + usize::from(end.is_some()));
            self.input.consume(consumed);
            if end.is_some() || is_over && !self.line.is_empty() {
                return Ok(self.take());
            }
            if is_over {
                return Ok(NextLine::End);
            }
        }
    }

    fn take(&mut self) -> NextLine {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_first) && line.starts_with(BYTE_ORDER_MARK) {
            tracing::warn!("the input begins with a byte-order mark, which is skipped");
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.len() > MAX_LINE_BYTES { NextLine::TooLong } else { NextLine::Line(line) }
    }
}

/// What `import` prints at its end. Each line is in one of the counts behind `lines`, but for those
/// that were read and not written because the command failed.
#[derive(Debug, Default, Serialize)]
struct Imported {
    lines: u64,
    acknowledged: u64,
    refused: u64,
    expired: u64,
    blank: u64,
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
    let lines = Lines::new(BufReader::with_capacity(64 * 1024, stdin()));
    let (done, with_expired) = (Imported::default(), args.expired);
    let mut import = Import { lines, stopping, log, done, with_expired, open: true, failed: None };
    while import.open {
        let chunk = import.read().await;
        import.write(&writer, chunk).await;
        bar.set_position(import.done.acknowledged);
        bar.set_message(format!("{} entries acknowledged", import.done.acknowledged));
    }
    bar.finish_and_clear();
    // It may have been told to end while it waited for acknowledgements.
    import.done.interrupted = *import.stopping.borrow() > 0;
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
    /// Whether entries are written whose time was over.
    with_expired: bool,
    /// Whether more is to be read.
    open: bool,
    failed: Option<CliError>,
}

impl Import {
    /// The next writes, each with its line: as many as are there.
    async fn read(&mut self) -> Vec<(u64, Write)> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while self.open && chunk.len() < LINES_AT_ONCE && bytes < BYTES_AT_ONCE {
            let line = tokio::select! {
                biased;
                () = told(&mut self.stopping, 1) => Ok(NextLine::End),
                line = self.lines.next() => line,
                () = tokio::time::sleep(PAUSE), if !chunk.is_empty() => break,
            };
            match line {
                Ok(NextLine::End) => self.open = false,
                Ok(NextLine::TooLong) => {
                    self.done.lines += 1;
                    bytes += MAX_LINE_BYTES;
                    self.refuse(self.done.lines, &format!("it has more than {MAX_LINE_BYTES} bytes"));
                }
                Ok(NextLine::Line(line)) => {
                    self.done.lines += 1;
                    bytes += line.len();
                    match Line::parse(&line) {
                        Ok(Parsed::Blank) => self.done.blank += 1,
                        Ok(Parsed::Expired(_)) if !self.with_expired => self.done.expired += 1,
                        Ok(Parsed::Write(write) | Parsed::Expired(write)) => {
                            chunk.push((self.done.lines, write));
                        }
                        Err(reason) => self.refuse(self.done.lines, &reason),
                    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_whole() {
        let long = "x".repeat(MAX_LINE_BYTES + 10);
        let text = format!("\u{feff}a\n\n{long}\nlast");
        let mut lines = Lines::new(BufReader::with_capacity(7, text.as_bytes()));
        let mut found = Vec::new();
        loop {
            match lines.next().await.unwrap() {
                NextLine::Line(line) => found.push(String::from_utf8(line).unwrap()),
                NextLine::TooLong => found.push("too long".to_owned()),
                NextLine::End => break,
            }
        }
        assert_eq!(found, ["a", "", "too long", "last"]);
        assert!(lines.line.capacity() == 0);
    }
}
