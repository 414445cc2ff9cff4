//! Reads given ranges of offsets of a topic, then stops.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll};

use crate::log::{
    Headers, Log, LogError, Offset, OffsetRange, Partition, RecordBatch, StreamItem, TopicDescription,
    TopicEvent, TopicStream, with_timeout,
};

/// How long reading may go on without any partition advancing.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A range that is read.
struct Unread {
    /// The next offset to read.
    next: Offset,
    end: Offset,
}

/// Reads the records in these ranges, in the order of each partition. A partition has at most one range. Stops early if
/// `on_batch` returns [`ControlFlow::Break`].
///
/// # Errors
///
/// If the log cannot be read, or no partition advances for [`READ_TIMEOUT`].
pub(crate) async fn read_ranges(
    log: &dyn Log,
    topic: &TopicDescription,
    ranges: &[OffsetRange],
    headers: Headers,
    mut on_batch: impl FnMut(RecordBatch) -> ControlFlow<()>,
) -> Result<(), LogError> {
    let unread = ranges.iter().filter(|range| range.start < range.end);
    let unread = unread.map(|range| (range.partition, Unread { next: range.start, end: range.end }));
    let mut unread: HashMap<Partition, Unread> = unread.collect();
    if unread.is_empty() {
        return Ok(());
    }
    let open = async {
        // A log takes partitions that it is not asked for as partitions that were added later, and reads them whole.
        let mut all = log.offsets(topic).await?;
        for range in &mut all {
            range.start = unread.get(&range.partition).map_or(range.end, |unread| unread.next);
        }
        log.read(topic, &all, headers).await
    };
    let mut events = with_timeout(log, &topic.name, "read", READ_TIMEOUT, open).await?;
    let mut streams = SelectAll::new();
    let mut advanced = Instant::now();
    while !unread.is_empty() {
        let left = READ_TIMEOUT.saturating_sub(advanced.elapsed());
        let next = tokio::time::timeout(left, next_item(&mut events, &mut streams)).await;
        let Some((partition, item)) = next.unwrap_or_else(|_| Err(stalled(log, topic)))? else { continue };
        let Some(range) = unread.get_mut(&partition) else { continue };
        let reached = match item {
            StreamItem::Records(batch) => {
                let reached = batch.next_offset().unwrap_or_default();
                let batch = batch.starting_at(range.next);
                let count = (0..batch.len()).take_while(|&index| batch.get(index).offset < range.end).count();
                let batch = if count == batch.len() { batch } else { batch.slice(0..count) };
                if !batch.is_empty() && on_batch(batch).is_break() {
                    return Ok(());
                }
                reached
            }
            StreamItem::Position(position) | StreamItem::Start(position) => position,
        };
        if reached > range.next {
            (range.next, advanced) = (reached, Instant::now());
        }
        if range.next >= range.end {
            unread.remove(&partition);
        }
    }
    Ok(())
}

/// Returns the error for a read in which no partition advances.
fn stalled(log: &dyn Log, topic: &TopicDescription) -> LogError {
    let reason = match log.health().outage() {
        Some(outage) => outage.to_string(),
        None => format!(
            "no partition has advanced for {READ_TIMEOUT:?}: a transaction may be open, or a leader is missing"
        ),
    };
    LogError::Unreachable { log: log.url().to_owned(), topic: topic.name.clone(), action: "read", reason }
}

/// An item of a partition.
type PartitionItem = (Partition, Result<StreamItem, LogError>);

/// Waits for the next item of any partition, or `None` for another event of the topic.
async fn next_item(
    events: &mut TopicStream,
    streams: &mut SelectAll<BoxStream<'static, PartitionItem>>,
) -> Result<Option<(Partition, StreamItem)>, LogError> {
    tokio::select! {
        event = events.next() => {
            if let TopicEvent::Partition(stream) = event.unwrap_or(Err(LogError::Closed))? {
                let partition = stream.range().partition;
                streams.push(stream.map(move |item| (partition, item)).boxed());
            }
            Ok(None)
        }
        item = streams.next(), if !streams.is_empty() => {
            let (partition, item) = item.ok_or(LogError::Closed)?;
            Ok(Some((partition, item?)))
        }
    }
}
