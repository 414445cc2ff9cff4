//! The `checkpoint` commands.

use serde::Serialize;

use crate::checkpoint::{self, CheckpointError};
use crate::cli::args::CheckpointArgs;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};

/// A checkpoint, as `checkpoint inspect` prints it.
#[derive(Serialize)]
struct InfoLine {
    topic: String,
    topic_id: String,
    as_of: String,
    /// Whether it keeps headers: only if the codec needs them.
    headers: bool,
    /// Also counts records that newer ones replace, until they are compacted away.
    records: u64,
    bytes: u64,
    positions: Vec<PositionLine>,
}

#[derive(Serialize)]
struct PositionLine {
    partition: i32,
    position: i64,
}

pub(super) fn inspect(args: &CheckpointArgs, output: Output) -> Result<Exit, CliError> {
    let info = match checkpoint::inspect(&args.folder) {
        Ok(info) => info,
        Err(error @ (CheckpointError::Damaged { .. } | CheckpointError::Missing { .. })) => {
            tracing::error!("{error}");
            return Ok(Exit::No);
        }
        Err(error) => return Err(error.into()),
    };
    let positions = info.positions.into_iter();
    output.print_object(&InfoLine {
        topic: info.topic,
        topic_id: info.topic_id,
        as_of: humantime::format_rfc3339_millis(info.as_of).to_string(),
        headers: info.headers,
        records: info.records,
        bytes: info.bytes,
        positions: positions.map(|(partition, position)| PositionLine { partition, position }).collect(),
    })?;
    Ok(Exit::Done)
}

pub(super) fn remove(args: &CheckpointArgs) -> Result<Exit, CliError> {
    match checkpoint::remove(&args.folder) {
        Ok(()) => Ok(Exit::Done),
        Err(error @ CheckpointError::Missing { .. }) => {
            tracing::error!("{error}");
            Ok(Exit::No)
        }
        Err(error) => Err(error.into()),
    }
}
