//! The `import` command, which writes many entries from standard input.

use std::future::IntoFuture;
use std::io::{self, IsTerminal, stderr};
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader, Stdin, stdin};

use crate::cli::args::ImportArgs;
use crate::cli::open::ResolvedTable;
use crate::cli::output::Output;
use crate::cli::write::{MAX_VALUE_BYTES, finish_or_give_up_when, run_unless_stopped, wait_for_stop};
use crate::cli::{CliError, Exit, StopRequests};
use crate::file::FileError;
use crate::log::Log;
use crate::wire::{WriteLine, parse_write_line};
use crate::writer::{Write, WriteError, Writer};

/// The largest number of lines in a chunk, which is written at once.
const MAX_CHUNK_LINES: usize = 4096;

/// No line is added to a chunk that has this many bytes.
const MAX_CHUNK_BYTES: usize = 16 << 20;

/// The longest line that is accepted.
const MAX_LINE_BYTES: usize = MAX_VALUE_BYTES;

/// When the input pauses for this long, the lines that were read are written.
const INPUT_PAUSE: Duration = Duration::from_millis(20);

/// The UTF-8 byte-order mark, with which some editors begin a file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads lines of bounded length.
struct LineReader<R> {
    input: R,
    line: Vec<u8>,
    is_first: bool,
}

/// The result of reading a line.
enum NextLine {
    Line(Vec<u8>),
    /// A line that was longer than [`MAX_LINE_BYTES`], and was skipped.
    TooLong,
    End,
}

impl<R: AsyncBufRead + Unpin> LineReader<R> {
    fn new(input: R) -> Self {
        Self { input, line: Vec::new(), is_first: true }
    }

    /// Reads the next line, without its line feed.
    ///
    /// # Cancel safety
    ///
    /// No input is lost if the future is dropped.
    async fn next(&mut self) -> io::Result<NextLine> {
        loop {
            let available = self.input.fill_buf().await?;
            let end = available.iter().position(|&byte| byte == b'\n');
            let more = &available[..end.unwrap_or(available.len())];
            // One byte more than the limit is kept, which shows that the line is too long. A byte-order mark
            // does not count.
            let room = (MAX_LINE_BYTES + 1 + BYTE_ORDER_MARK.len()).saturating_sub(self.line.len());
            self.line.extend_from_slice(&more[..more.len().min(room)]);
            let (is_over, consumed) = (available.is_empty(), more.len() + usize::from(end.is_some()));
            self.input.consume(consumed);
            if end.is_some() || is_over && !self.line.is_empty() {
                return Ok(self.take_line());
            }
            if is_over {
                return Ok(NextLine::End);
            }
        }
    }

    fn take_line(&mut self) -> NextLine {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_first) && line.starts_with(BYTE_ORDER_MARK) {
            tracing::warn!("the input begins with a byte-order mark, which is skipped");
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.len() > MAX_LINE_BYTES { NextLine::TooLong } else { NextLine::Line(line) }
    }
}

/// The counts that `import` prints when it ends. Each line counts once in `lines`, and once in
/// `acknowledged`, `refused`, `expired` or `blank`.
#[derive(Debug, Default, Serialize)]
struct ImportCounts {
    lines: u64,
    acknowledged: u64,
    refused: u64,
    expired: u64,
    blank: u64,
    interrupted: bool,
}

/// Imports entries until the input ends. When the command is asked to stop, it ends once each line that was
/// read is acknowledged or refused. When it is asked again, it gives up, and lists the lines that are not
/// acknowledged.
pub(super) async fn import(
    args: ImportArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    let resolved = run_unless_stopped(&mut stop_requests, ResolvedTable::resolve(args.table)).await??;
    let log = resolved.log().clone();
    let writer = resolved.open_writer(args.verify.verify);
    let writer = run_unless_stopped(&mut stop_requests, writer).await??;
    let bar = if stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let lines = LineReader::new(BufReader::with_capacity(64 * 1024, stdin()));
    let (counts, with_expired) = (ImportCounts::default(), args.expired);
    let mut import =
        Importer { lines, stop_requests, log, counts, with_expired, is_reading: true, failure: None };
    while import.is_reading {
        let chunk = import.read_chunk().await;
        import.write_chunk(&writer, chunk).await;
        bar.set_position(import.counts.acknowledged);
        bar.set_message(format!("{} entries acknowledged", import.counts.acknowledged));
    }
    bar.finish_and_clear();
    output.print_object(&import.counts)?;
    match import.failure {
        Some(error) => Err(error),
        None if import.counts.interrupted => Err(CliError::Interrupted),
        None => Ok(if import.counts.refused == 0 { Exit::Done } else { Exit::No }),
    }
}

/// The state of an import.
struct Importer {
    lines: LineReader<BufReader<Stdin>>,
    stop_requests: StopRequests,
    log: Arc<dyn Log>,
    counts: ImportCounts,
    /// Whether expired entries are written, too.
    with_expired: bool,
    /// Whether more lines are read.
    is_reading: bool,
    failure: Option<CliError>,
}

impl Importer {
    /// Reads lines, and parses them to writes, each with its line number, until the chunk is full or the input
    /// pauses.
    async fn read_chunk(&mut self) -> Vec<(u64, Write)> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while self.is_reading && chunk.len() < MAX_CHUNK_LINES && bytes < MAX_CHUNK_BYTES {
            let line = tokio::select! {
                biased;
                // The first request ends the input.
                () = wait_for_stop(&mut self.stop_requests, 1) => {
                    self.counts.interrupted = true;
                    Ok(NextLine::End)
                }
                line = self.lines.next() => line,
                () = tokio::time::sleep(INPUT_PAUSE), if !chunk.is_empty() => break,
            };
            match line {
                Ok(NextLine::End) => self.is_reading = false,
                Ok(NextLine::TooLong) => {
                    self.counts.lines += 1;
                    bytes += MAX_LINE_BYTES;
                    self.refuse(self.counts.lines, &format!("it is longer than {MAX_LINE_BYTES} bytes"));
                }
                Ok(NextLine::Line(line)) => {
                    self.counts.lines += 1;
                    bytes += line.len();
                    match parse_write_line(&line) {
                        Ok(WriteLine::Blank) => self.counts.blank += 1,
                        Ok(WriteLine::Expired(_)) if !self.with_expired => self.counts.expired += 1,
                        Ok(WriteLine::Write(write) | WriteLine::Expired(write)) => {
                            chunk.push((self.counts.lines, write));
                        }
                        Err(reason) => self.refuse(self.counts.lines, &reason),
                    }
                }
                Err(error) => self.fail(FileError::of::<CliError>("read", "standard input".as_ref())(error)),
            }
        }
        chunk
    }

    /// Writes a chunk, and waits until each of its lines is acknowledged or refused.
    async fn write_chunk(&mut self, writer: &Writer, chunk: Vec<(u64, Write)>) {
        let (lines, writes): (Vec<u64>, Vec<Write>) = chunk.into_iter().unzip();
        // The second request gives up.
        let stop = wait_for_stop(&mut self.stop_requests, 2);
        let writes = writer.set_many(writes).into_future();
        let results = finish_or_give_up_when(stop, self.log.as_ref(), writes).await;
        for (line, result) in lines.into_iter().zip(results) {
            let Err(error) = result else {
                self.counts.acknowledged += 1;
                continue;
            };
            self.refuse(line, &error.to_string());
            self.counts.interrupted |= *self.stop_requests.borrow() > 1;
            if matches!(error, WriteError::Log(_) | WriteError::Codec(_)) {
                self.fail(error.into());
            }
        }
    }

    /// Counts and logs a line that was not acknowledged. After [`WriteError::Log`], it may have been written.
    fn refuse(&mut self, line: u64, reason: &str) {
        self.counts.refused += 1;
        tracing::error!("line {line}: {reason}");
    }

    /// Stops reading, and makes the command fail with this error.
    fn fail(&mut self, error: CliError) {
        self.counts.interrupted |= self.is_reading;
        self.is_reading = false;
        self.failure.get_or_insert(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(lines: &mut LineReader<BufReader<&[u8]>>) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            match lines.next().await.unwrap() {
                NextLine::Line(line) => found.push(String::from_utf8(line).unwrap()),
                NextLine::TooLong => found.push("too long".to_owned()),
                NextLine::End => return found,
            }
        }
    }

    #[tokio::test]
    async fn a_byte_order_mark_does_not_count() {
        for (length, expected) in
            [(MAX_LINE_BYTES, "x"), (MAX_LINE_BYTES + 1, "t"), (MAX_LINE_BYTES + 9, "t")]
        {
            let text = format!("\u{feff}{}", "x".repeat(length));
            let found = read_all(&mut LineReader::new(BufReader::new(text.as_bytes()))).await;
            assert!(found.len() == 1 && found[0].starts_with(expected), "{length}");
        }
    }

    #[tokio::test]
    async fn lines_are_read_whole_up_to_the_limit() {
        let long = "x".repeat(MAX_LINE_BYTES + 10);
        let text = format!("\u{feff}a\n\n{long}\nlast");
        let mut lines = LineReader::new(BufReader::with_capacity(7, text.as_bytes()));
        assert_eq!(read_all(&mut lines).await, ["a", "", "too long", "last"]);
        // The reader keeps no buffer between lines, not even that of the long one.
        assert_eq!(lines.line.capacity(), 0);
    }
}
