//! The `produce` command, which writes one record without codecs.

use std::path::Path;

use crate::cli::args::ProduceArgs;
use crate::cli::lines::MAX_VALUE_BYTES;
use crate::cli::output::Output;
use crate::cli::stop::{finish_or_give_up, run_unless_stopped};
use crate::cli::write::print_ack;
use crate::cli::{CliError, Exit, StopRequests, logs};
use crate::file::{FileError, read_bounded};
use crate::log::{Header, NewRecord};
use crate::table::{Clock, SystemClock};

/// A day, in milliseconds.
const DAY_MILLIS: i64 = 24 * 3600 * 1000;

pub(super) async fn produce(
    args: ProduceArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    let record = NewRecord {
        key: read_bytes(args.key, args.key_file.as_deref())?,
        value: read_bytes(args.value, args.value_file.as_deref())?,
        headers: args.header.iter().map(|header| parse_header(header)).collect::<Result<_, _>>()?,
        partition: args.partition,
        timestamp: args.timestamp,
    };
    if let Some(timestamp) = args.timestamp {
        warn_about_timestamp(timestamp);
    }
    let log = logs::open(&args.target.log)?;
    let send = async {
        let topic = log.describe(&args.target.topic).await?;
        log.send(&topic, record).await
    };
    let delivery = run_unless_stopped(&mut stop_requests, send).await??;
    let ack = finish_or_give_up(&mut stop_requests, log.as_ref(), delivery).await?;
    print_ack(ack, output)?;
    Ok(Exit::Done)
}

/// Warns about a timestamp that is far in the future, which usually is one in microseconds.
fn warn_about_timestamp(timestamp: i64) {
    let now = SystemClock.now();
    if timestamp.saturating_sub(now) > DAY_MILLIS {
        tracing::warn!(
            "the timestamp {timestamp} is more than a day in the future: timestamps are milliseconds since \
             1970, and now it is {now}"
        );
    }
}

/// Returns the bytes of a text argument or of a file; `None`, which is a null, if neither is given.
fn read_bytes(text: Option<String>, file: Option<&Path>) -> Result<Option<Vec<u8>>, CliError> {
    match (text, file) {
        (Some(text), _) => Ok(Some(text.into_bytes())),
        (None, Some(path)) => {
            read_bounded(path, MAX_VALUE_BYTES).map(Some).map_err(FileError::of::<CliError>("read", path))
        }
        (None, None) => Ok(None),
    }
}

fn parse_header(text: &str) -> Result<Header, CliError> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| CliError::Usage(format!("--header {text} has no `=`: write NAME=VALUE")))?;
    Ok(Header { name: name.to_owned(), value: Some(value.as_bytes().to_vec()) })
}
