//! A partition as an ordered stream: what is there, then what comes.

use tokio::sync::{mpsc, watch};

use crate::log::dir::DirLog;
use crate::log::dir::cursor::Cursor;
use crate::log::{Headers, LogError, Offset, OffsetRange, PartitionStream, RecordBatch, StreamItem, batch};

/// How many items wait between a reader and its table: enough that decoding
/// never waits for the disk.
const STREAM_ITEMS: usize = 4;

/// The stream of a partition from the start of a range on.
pub(super) fn stream(
    cursor: Cursor,
    range: OffsetRange,
    headers: Headers,
    changes: watch::Receiver<u64>,
) -> PartitionStream {
    let (items, stream) = mpsc::channel(STREAM_ITEMS);
    tokio::spawn(async move {
        // No receiver is left: nobody wants to know.
        if let Err(Some(error)) = follow(cursor, range.start, headers, changes, &items).await {
            let _ = items.send(Err(error)).await;
        }
    });
    PartitionStream::new(range, stream)
}

/// Sends until the log fails (`Some`) or the stream is dropped (`None`).
async fn follow(
    mut cursor: Cursor,
    from: Offset,
    headers: Headers,
    mut changes: watch::Receiver<u64>,
    items: &mpsc::Sender<Result<StreamItem, LogError>>,
) -> Result<(), Option<LogError>> {
    loop {
        // Seen before the read, so that a change during it wakes the wait below.
        changes.mark_unchanged();
        let (back, batch) = DirLog::blocking(move || {
            let batch = read_batch(&mut cursor, from, headers)?;
            Ok((cursor, batch))
        })
        .await?;
        cursor = back;
        if !batch.is_empty() {
            items.send(Ok(StreamItem::Records(Box::new(batch)))).await.map_err(|_| None)?;
            continue;
        }
        items.send(Ok(StreamItem::Position(cursor.next_offset()))).await.map_err(|_| None)?;
        tokio::select! {
            changed = changes.changed() => changed.map_err(|_| LogError::Closed)?,
            () = items.closed() => return Err(None),
        }
    }
}

/// The records that follow, as many as make a batch; none at the end of the log.
fn read_batch(cursor: &mut Cursor, from: Offset, headers: Headers) -> Result<RecordBatch, LogError> {
    let mut records = RecordBatch::new(cursor.partition());
    while !records.is_full() {
        let bytes = match cursor.next_batch() {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(error) if records.is_empty() => return Err(error),
            // What is intact comes first; the error comes again.
            Err(_) => break,
        };
        let read = batch::read_into(bytes, from, headers, &mut records);
        read.map_err(|reason| cursor.corrupt(reason))?;
    }
    if records.is_empty() {
        cursor.check_identity()?;
    }
    Ok(records)
}
