//! `rejects retry`: retries the records of a dead-letter topic.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use crate::cli::args::RetryArgs;
use crate::cli::open::ResolvedTable;
use crate::cli::output::{Output, write_json_line};
use crate::cli::stop::run_unless_stopped;
use crate::cli::{CliError, Exit, StopRequests};
use crate::log::{Offset, Partition};
use crate::table::{self, RetryError, RetryOutcome, RetryResult};

/// What is printed for each record.
#[derive(Debug, Serialize)]
struct RetryLine {
    /// The partition and the offset of the rejected record.
    partition: Partition,
    offset: Offset,
    /// The raw key as text; `None` if it is null. Bytes that are not UTF-8 are replaced.
    key: Option<String>,
    outcome: &'static str,
    /// The offset that it got in its partition, if it was published.
    published_offset: Option<Offset>,
    /// Why it was not published.
    reason: Option<String>,
}

/// What is printed in the end: the number of records by outcome.
#[derive(Debug, Default, Serialize)]
struct Summary {
    published: u64,
    rejected: u64,
    skipped: u64,
}

impl RetryLine {
    fn new(result: RetryResult, summary: &mut Summary) -> Self {
        let RetryResult { partition, offset, key, outcome } = result;
        let (name, count) = match outcome {
            RetryOutcome::Published(_) => ("published", &mut summary.published),
            RetryOutcome::Rejected(_) | RetryOutcome::Refused(_) | RetryOutcome::Busy => {
                ("rejected", &mut summary.rejected)
            }
            _ => ("skipped", &mut summary.skipped),
        };
        *count += 1;
        let (published_offset, reason) = match outcome {
            RetryOutcome::Published(offset) => (Some(offset), None),
            outcome => (None, Some(outcome.to_string())),
        };
        let key = key.map(|key| String::from_utf8_lossy(&key).into_owned());
        Self { partition, offset, key, outcome: name, published_offset, reason }
    }
}

impl fmt::Display for RetryOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published(offset) => write!(f, "it was published, to offset {offset}"),
            Self::Rejected(reason) => write!(f, "{reason}"),
            Self::Refused(reason) => write!(f, "the topic refuses it: {reason}"),
            Self::Newer(partition, offset) => write!(
                f,
                "its key has another record, at partition {partition}, offset {offset}: it is newer, or in another \
                 partition, so that their order is unknown; --force publishes the dead letter nevertheless"
            ),
            Self::Compacted => f.write_str(
                "the topic has compacted the record away: its key had a newer record, possibly a tombstone that is gone, \
                 too; --force publishes it nevertheless",
            ),
            Self::NoKey => f.write_str("its key is null, so no table can hold it"),
            Self::Foreign => f.write_str("its key is foreign to the group scheme"),
            Self::EarlierTopic => f.write_str("it comes from a topic of the same name that was deleted"),
            Self::NoPartition => f.write_str("the topic no longer has its partition"),
            Self::Busy => f.write_str("others write to its partition all the time: retry it later"),
        }
    }
}

pub(super) async fn retry(
    args: RetryArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    let resolved = run_unless_stopped(&mut stop_requests, ResolvedTable::resolve(args.table)).await??;
    let Some(options) = resolved.retry_options(args.force, stop_requests) else {
        return Err(CliError::Usage(format!(
            "the table of topic `{}` has no dead-letter topic: set one (--dead-letter TOPIC, or dead_letter in the \
             configuration)",
            resolved.topic()
        )));
    };
    let (mut summary, mut rows) = (Summary::default(), Vec::new());
    let print = |result| {
        let line = RetryLine::new(result, &mut summary);
        if !output.is_json() {
            rows.push(line);
            return Ok::<_, io::Error>(());
        }
        let mut out = output.writer();
        write_json_line(&mut out, &line)?;
        out.flush()
    };
    let retried = table::retry(&options, print).await;
    // Also what was published before an error.
    output.print_rows(rows)?;
    output.print_object(&summary)?;
    retried?;
    Ok(if summary.rejected > 0 { Exit::No } else { Exit::Done })
}

impl From<RetryError> for CliError {
    fn from(error: RetryError) -> Self {
        match error {
            RetryError::Table(error) => Self::Table(error),
            RetryError::Output(error) => Self::Output(error),
            RetryError::Interrupted => Self::Interrupted,
            error @ RetryError::Codec { .. } => Self::Retry(error.to_string()),
        }
    }
}
