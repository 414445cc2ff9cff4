//! Reads raw records of a topic, for the tools of authors.

use std::ops::ControlFlow;

use crate::cli::CliError;
use crate::log::{Headers, Log, OffsetRange, RecordBatch, read_ranges};

/// Reads a range of offsets of a partition: up to `count` records, without those that the log has removed.
pub(super) async fn read_range(
    log: &dyn Log,
    topic: &str,
    range: OffsetRange,
    count: usize,
) -> Result<Vec<RecordBatch>, CliError> {
    let (mut batches, mut left) = (Vec::new(), count);
    let topic = log.describe(topic).await?;
    let add = |batch: RecordBatch| {
        let wanted = batch.len().min(left);
        left -= wanted;
        batches.push(if wanted == batch.len() { batch } else { batch.slice(0..wanted) });
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    read_ranges(log, &topic, &[range], Headers::Wanted, add).await?;
    Ok(batches)
}
