//! Reads a partition as an ordered stream: first the records that it holds, then those that are appended.

use tokio::sync::{mpsc, watch};

use crate::log::dir::DirLog;
use crate::log::dir::cursor::Cursor;
use crate::log::{Headers, LogError, Offset, OffsetRange, PartitionStream, RecordBatch, StreamItem, batch};

/// The number of items that are read ahead of the table: enough that decoding never waits for the disk.
const STREAM_ITEMS: usize = 4;

/// Starts a task that reads a partition from the start of a range on, and returns its stream.
pub(super) fn start_stream(
    cursor: Cursor,
    range: OffsetRange,
    headers: Headers,
    changes: watch::Receiver<u64>,
) -> PartitionStream {
    let (items, stream) = mpsc::channel(STREAM_ITEMS);
    tokio::spawn(async move {
        // Without an error, the stream was dropped.
        if let Err(Some(error)) = follow(cursor, range.start, headers, changes, &items).await {
            // OK to ignore: the stream may be dropped meanwhile.
            let _ = items.send(Err(error)).await;
        }
    });
    PartitionStream::from_channel(range, stream)
}

/// Sends records and positions until the log fails (`Some`) or the stream is dropped (`None`).
async fn follow(
    mut cursor: Cursor,
    from: Offset,
    headers: Headers,
    mut changes: watch::Receiver<u64>,
    items: &mpsc::Sender<Result<StreamItem, LogError>>,
) -> Result<(), Option<LogError>> {
    // After a change, the first records are read on this thread if they are in the page cache. Another thread would
    // have to be woken, and then this one again, behind other tasks of the runtime.
    let mut has_changed = false;
    loop {
        // Before the read, so that a change during the read ends the wait below.
        changes.mark_unchanged();
        let mut batch = RecordBatch::new(cursor.partition());
        if std::mem::take(&mut has_changed) {
            read_cached(&mut cursor, from, headers, &mut batch);
        }
        if batch.is_empty() {
            (cursor, batch) = DirLog::run_blocking(move || {
                read_batch(&mut cursor, from, headers, &mut batch)?;
                Ok((cursor, batch))
            })
            .await?;
        }
        if !batch.is_empty() {
            items.send(Ok(StreamItem::Records(Box::new(batch)))).await.map_err(|_| None)?;
            continue;
        }
        items.send(Ok(StreamItem::Position(cursor.next_offset()))).await.map_err(|_| None)?;
        tokio::select! {
            changed = changes.changed() => {
                changed.map_err(|_| LogError::Closed)?;
                has_changed = true;
            }
            () = items.closed() => return Err(None),
        }
    }
}

/// Reads records that were just written into an empty batch, as far as that does not wait for the disk.
fn read_cached(cursor: &mut Cursor, from: Offset, headers: Headers, records: &mut RecordBatch) {
    cursor.read_cached();
    while !records.is_full()
        && let Some(bytes) = cursor.next_batch_read_ahead()
    {
        let whole = records.len();
        // The next read finds the same damage, and reports it.
        if batch::read_into(bytes, from, headers, records).is_err() {
            return undo(cursor, records, whole);
        }
    }
}

/// Reads the next records into an empty batch, until they fill it. Leaves it empty at the end of the log.
fn read_batch(
    cursor: &mut Cursor,
    from: Offset,
    headers: Headers,
    records: &mut RecordBatch,
) -> Result<(), LogError> {
    while !records.is_full() {
        let bytes = match cursor.next_batch() {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(error) if records.is_empty() => return Err(error),
            // The records before the damage are returned first. The next call fails with the same error.
            Err(_) => break,
        };
        let whole = records.len();
        if let Err(reason) = batch::read_into(bytes, from, headers, records) {
            undo(cursor, records, whole);
            return if whole == 0 { Err(cursor.corrupt(reason)) } else { Ok(()) };
        }
    }
    if records.is_empty() {
        cursor.check_identity()?;
    }
    Ok(())
}

/// Moves back to the batch that could not be read, and removes what was read of it: all but `whole` records.
fn undo(cursor: &mut Cursor, records: &mut RecordBatch, whole: usize) {
    cursor.move_back();
    *records = records.slice(0..whole);
}
