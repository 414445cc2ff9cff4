//! The `import` command, which writes many entries from standard input.

use std::future::IntoFuture;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use tokio::io::{BufReader, Stdin, stdin};

use crate::cli::args::{ImportArgs, TableArgs};
use crate::cli::lines::{LineReader, MAX_LINE_BYTES, NextLine};
use crate::cli::open::ResolvedTable;
use crate::cli::output::Output;
use crate::cli::remote::{LineError, RemoteSink, RemoteTable};
use crate::cli::stop::{finish_or_give_up_when, run_unless_stopped, wait_for_stop};
use crate::cli::write::refuse_verify;
use crate::cli::{CliError, Exit, StopRequests};
use crate::file::FileError;
use crate::log::Log;
use crate::wire::{WriteLine, parse_write_line};
use crate::writer::{Verify, Write, WriteError, Writer};

/// The largest number of lines in a chunk, which is written at once.
const MAX_CHUNK_LINES: usize = 4096;

/// No line is added to a chunk that has this many bytes.
const MAX_CHUNK_BYTES: usize = 16 << 20;

/// When the input pauses for this long, the lines that were read are written.
const INPUT_PAUSE: Duration = Duration::from_millis(20);

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
    let sink = run_unless_stopped(&mut stop_requests, Sink::open(args.table, args.verify.verify)).await??;
    let bar = if stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let lines = LineReader::new(BufReader::with_capacity(64 * 1024, stdin()));
    let (counts, with_expired) = (ImportCounts::default(), args.expired);
    let mut import = Importer { lines, stop_requests, counts, with_expired, is_reading: true, failure: None };
    while import.is_reading {
        let chunk = import.read_chunk().await;
        import.write_chunk(&sink, chunk).await;
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

/// Where lines are written.
enum Sink {
    /// To the topic.
    Topic(Writer, Arc<dyn Log>),
    /// To a server.
    Server(RemoteSink),
}

/// Why a line was not acknowledged, and if further lines would not be either, how the command fails.
type Refusal = (String, Option<Box<CliError>>);

impl Sink {
    async fn open(args: TableArgs, verify: Option<Verify>) -> Result<Self, CliError> {
        if let Some(table) = RemoteTable::of(&args)? {
            refuse_verify(verify)?;
            return Ok(Self::Server(RemoteSink(table)));
        }
        let resolved = ResolvedTable::resolve(args).await?;
        let writer = resolved.open_writer(verify).await?;
        Ok(Self::Topic(writer, resolved.log().clone()))
    }

    /// Writes all of these, and returns the result of each. When `stop` resolves, gives up what is not acknowledged.
    async fn write_all(
        &self,
        writes: Vec<Write>,
        stop: impl Future<Output = ()>,
    ) -> Vec<Result<(), Refusal>> {
        match self {
            Self::Topic(writer, log) => {
                let writing = writer.set_many(writes).into_future();
                let results = finish_or_give_up_when(stop, log.as_ref(), writing).await;
                let refusal = |error: WriteError| {
                    let reason = error.to_string();
                    let is_failure = matches!(error, WriteError::Log(_) | WriteError::Codec(_));
                    (reason, is_failure.then(|| Box::new(error.into())))
                };
                results.into_iter().map(|result| result.map(drop).map_err(refusal)).collect()
            }
            Self::Server(sink) => {
                let mut results = Vec::with_capacity(writes.len());
                tokio::select! {
                    () = sink.write_all(&writes, &mut results) => {}
                    () = stop => {}
                }
                // What is missing was given up.
                results.resize_with(writes.len(), || {
                    let reason = "the command was interrupted before the server answered".to_owned();
                    Err(LineError { reason, is_failure: true })
                });
                let refusal = |LineError { reason, is_failure }: LineError| {
                    let failure = is_failure.then(|| Box::new(CliError::Server(reason.clone())));
                    (reason, failure)
                };
                results.into_iter().map(|result| result.map_err(refusal)).collect()
            }
        }
    }
}

/// The state of an import.
struct Importer {
    lines: LineReader<BufReader<Stdin>>,
    stop_requests: StopRequests,
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
    async fn write_chunk(&mut self, sink: &Sink, chunk: Vec<(u64, Write)>) {
        let (lines, writes): (Vec<u64>, Vec<Write>) = chunk.into_iter().unzip();
        // The second request gives up.
        let stop = wait_for_stop(&mut self.stop_requests, 2);
        let results = sink.write_all(writes, stop).await;
        for (line, result) in lines.into_iter().zip(results) {
            let Err((reason, failure)) = result else {
                self.counts.acknowledged += 1;
                continue;
            };
            self.refuse(line, &reason);
            self.counts.interrupted |= *self.stop_requests.borrow() > 1;
            if let Some(error) = failure {
                self.fail(*error);
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
