//! Reads raw records of a topic, for the tools of authors.

use std::time::Duration;

use futures_util::{Stream, StreamExt};

use crate::cli::CliError;
use crate::log::{Headers, Log, OffsetRange, RecordBatch, StreamItem, TopicEvent, with_timeout};

/// How long a log may take to deliver the next records.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a range of offsets of a partition: up to `count` records, without those that the log has removed.
pub(super) async fn read_range(
    log: &dyn Log,
    topic: &str,
    range: OffsetRange,
    count: usize,
) -> Result<Vec<RecordBatch>, CliError> {
    let (mut batches, mut left) = (Vec::new(), count);
    if range.start >= range.end {
        return Ok(batches);
    }
    let description = log.describe(topic).await?;
    let mut events = log.read(&description, &[range], Headers::Wanted).await?;
    while let Some(event) = next(&mut events, log, topic).await? {
        let TopicEvent::Partition(mut partition) = event? else { continue };
        if partition.range().partition != range.partition {
            continue;
        }
        while let Some(item) = next(&mut partition, log, topic).await? {
            let reached = match item? {
                StreamItem::Records(batch) => {
                    let wanted = (0..batch.len()).take_while(|&index| batch.get(index).offset < range.end);
                    let wanted = wanted.take(left).count();
                    left -= wanted;
                    batches.push(batch.slice(0..wanted));
                    batch.next_offset().unwrap_or_default()
                }
                StreamItem::Position(position) | StreamItem::Start(position) => position,
            };
            if reached >= range.end || left == 0 {
                return Ok(batches);
            }
        }
    }
    Ok(batches)
}

/// Waits for the next item of a stream.
async fn next<T>(
    stream: &mut (impl Stream<Item = T> + Unpin),
    log: &dyn Log,
    topic: &str,
) -> Result<Option<T>, CliError> {
    Ok(with_timeout(log, topic, READ_TIMEOUT, async { Ok(stream.next().await) }).await?)
}
