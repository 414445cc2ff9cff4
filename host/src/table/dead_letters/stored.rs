//! The dead letters that a dead-letter topic holds. They can be decoded again.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::codec::workers::{self, Lane, Purpose};
use crate::codec::{CodecFailure, Codecs, HostFailure};
use crate::log::{
    Headers, Log, LogError, NewRecord, Offset, OffsetRange, Partition, RecordBatch, TopicDescription,
    read_ranges, with_timeout,
};
use crate::table::dead_letters::letter::ParsedLetter;
use crate::table::decoded::Outcome;
use crate::table::generation::decode;

/// How many bytes of dead letters are read together.
const CHUNK_BYTES: usize = 64 << 20;

/// The bytes that are counted for a dead letter besides its record.
const LETTER_BYTES: usize = 512;

/// How long a request to the log may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn describe(log: &dyn Log, topic: &str) -> Result<TopicDescription, LogError> {
    with_timeout(log, topic, "describe", REQUEST_TIMEOUT, log.describe(topic)).await
}

pub(super) async fn offsets(log: &dyn Log, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError> {
    with_timeout(log, &topic.name, "describe", REQUEST_TIMEOUT, log.offsets(topic)).await
}

/// A dead letter that was read from its topic: the place of the rejected record, and the record as it was.
#[derive(Debug)]
pub(super) struct StoredLetter {
    pub(super) topic_id: String,
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    pub(super) record: NewRecord,
}

/// Reads the next dead letters of a topic, and returns them in the order of their records. `remaining` is what is left
/// to read.
pub(super) async fn read_chunk(
    log: &dyn Log,
    dead_letters: &TopicDescription,
    topic: &str,
    remaining: &mut [OffsetRange],
) -> Result<Vec<StoredLetter>, LogError> {
    let (mut letters, mut bytes) = (Vec::new(), 0);
    let ranges = remaining.to_vec();
    let collect = |batch: RecordBatch| {
        for record in (0..batch.len()).map(|index| batch.get(index)) {
            let Some(parsed) = ParsedLetter::parse(&record).filter(|letter| letter.topic == topic) else {
                continue;
            };
            let record = NewRecord {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: parsed.headers.to_vec(),
                partition: None,
                // Not every log can store 0.
                timestamp: record.timestamp.filter(|&timestamp| timestamp > 0),
            };
            // A retry copies the key twice: for the newest records, and for the result.
            let keys = 2 * record.key.as_ref().map_or(0, Vec::len);
            bytes += LETTER_BYTES + keys + record.byte_len() + size_of_val(parsed.headers);
            let (topic_id, partition, offset) = (parsed.topic_id.to_owned(), parsed.partition, parsed.offset);
            letters.push(StoredLetter { topic_id, partition, offset, record });
        }
        if let Some(range) = remaining.iter_mut().find(|range| range.partition == batch.partition()) {
            range.start = batch.next_offset().unwrap_or(range.start);
        }
        if bytes >= CHUNK_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    read_ranges(log, dead_letters, &ranges, Headers::Wanted, collect).await?;
    letters.sort_by(|a, b| (&a.topic_id, a.partition, a.offset).cmp(&(&b.topic_id, b.partition, b.offset)));
    letters.dedup_by(|a, b| (&a.topic_id, a.partition, a.offset) == (&b.topic_id, b.partition, b.offset));
    Ok(letters)
}

impl StoredLetter {
    /// Decodes the record on a codec worker.
    pub(super) async fn decode(&self, codecs: &Codecs) -> Result<Outcome, HostFailure> {
        let mut batch = RecordBatch::new(self.partition);
        let NewRecord { key, value, headers, timestamp, .. } = &self.record;
        batch.push(self.offset, *timestamp, key.as_deref(), value.as_deref(), headers.clone());
        let codecs = codecs.clone();
        let lane = Lane::new(&codecs, Purpose::Read);
        match workers::run_codecs(&lane, move || CodecFailure::split(decode(&codecs, &batch))).await? {
            // OK because there is an outcome for each record.
            Ok(mut decoded) => Ok(decoded.outcomes.pop().expect("an outcome")),
            // Not reached: a single record that makes a codec fault is rejected.
            Err(fault) => Err(HostFailure::new(fault.to_string())),
        }
    }
}
