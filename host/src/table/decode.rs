//! From a batch of records to what is to be applied. Runs on a codec worker;
//! knows of no table.

use crate::codec::{Codecs, GroupKey, HostFailure, RejectKind, Rejection};
use crate::log::{Header, Offset, Partition, Record, RecordBatch};
use crate::table::entry::{Entry, Row};
use crate::table::reject::{Part, Reject};

/// The records of a batch, decoded.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) partition: Partition,
    /// The offset behind the last record.
    pub(super) next: Offset,
    pub(super) outcomes: Vec<Outcome>,
}

/// What a record does to a table.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A value for a key.
    Set(Entry),
    /// A tombstone.
    Delete { key: Box<str>, pair: Option<GroupKey>, offset: Offset, timestamp: i64 },
    /// Nothing: the group scheme says that its key is somebody else's.
    Foreign,
    /// Nothing: it is rejected.
    Reject(Reject),
}

/// What is known of a record once its key is decoded.
enum Key {
    Null,
    Foreign,
    Rejected(Rejection),
    Text { key: Box<str>, pair: Option<GroupKey> },
}

pub(super) fn decode(codecs: &Codecs, batch: &RecordBatch) -> Result<Decoded, HostFailure> {
    let keys = decode_keys(codecs, batch)?;
    let known = |index: usize| matches!(keys[index], Key::Text { .. });
    let (raw, indices) = batch.values().select(known);
    let headers: Vec<&[Header]> = if codecs.value.wants_headers() {
        indices.iter().map(|&index| batch.get(index).headers).collect()
    } else {
        Vec::new()
    };
    let mut values = codecs.value.decode(&raw, &headers)?.into_iter();
    let outcomes = keys.into_iter().enumerate().map(|(index, key)| {
        let record = batch.get(index);
        match key {
            Key::Null => {
                let message = "its key is null, so no table can hold it";
                let rejection = Rejection::built_in(RejectKind::Keyless, message);
                let raw = record.value.unwrap_or_default();
                Outcome::Reject(reject(&record, None, Part::Value, rejection, raw))
            }
            Key::Foreign => Outcome::Foreign,
            Key::Rejected(rejection) => {
                let raw = record.key.unwrap_or_default();
                Outcome::Reject(reject(&record, None, Part::Key, rejection, raw))
            }
            Key::Text { key, pair } => match record.value {
                None => Outcome::Delete { key, pair, offset: record.offset, timestamp: record.timestamp },
                // OK because a codec answers for each value.
                Some(raw) => match values.next().expect("one answer for each value") {
                    Ok(value) => Outcome::Set(entry(&record, key, pair, value)),
                    Err(rejection) => {
                        Outcome::Reject(reject(&record, Some(key), Part::Value, rejection, raw))
                    }
                },
            },
        }
    });
    let outcomes = outcomes.collect();
    Ok(Decoded { partition: batch.partition(), next: batch.next_offset().unwrap_or_default(), outcomes })
}

fn decode_keys(codecs: &Codecs, batch: &RecordBatch) -> Result<Vec<Key>, HostFailure> {
    let (raw, indices) = batch.keys().select(|_| true);
    let mut keys: Vec<Key> = (0..batch.len()).map(|_| Key::Null).collect();
    for (index, key) in indices.into_iter().zip(codecs.key.decode(&raw)?) {
        keys[index] = match key {
            Ok(key) => Key::Text { key, pair: None },
            Err(rejection) => Key::Rejected(rejection),
        };
    }
    if codecs.scheme.is_some() {
        split(codecs, &mut keys)?;
    }
    Ok(keys)
}

/// Gives each key its pair, or finds it foreign.
fn split(codecs: &Codecs, keys: &mut [Key]) -> Result<(), HostFailure> {
    let Some(scheme) = &codecs.scheme else { return Ok(()) };
    let texts: Vec<&str> = keys.iter().filter_map(Key::text).collect();
    let mut answers = scheme.split(&texts)?.into_iter();
    for slot in keys.iter_mut().filter(|key| key.text().is_some()) {
        // OK because a scheme answers for each key.
        match (answers.next().expect("one answer for each key"), slot) {
            (Ok(Some(found)), Key::Text { pair, .. }) => *pair = Some(found),
            (Ok(_), slot) => *slot = Key::Foreign,
            (Err(rejection), slot) => *slot = Key::Rejected(rejection),
        }
    }
    Ok(())
}

impl Key {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text { key, .. } => Some(key),
            _ => None,
        }
    }
}

fn entry(record: &Record<'_>, key: Box<str>, pair: Option<GroupKey>, value: Box<str>) -> Entry {
    let Record { partition, offset, timestamp, .. } = *record;
    Entry::new(Row { key, pair, value, partition, offset, timestamp })
}

fn reject(
    record: &Record<'_>,
    key: Option<Box<str>>,
    part: Part,
    rejection: Rejection,
    raw: &[u8],
) -> Reject {
    let Record { partition, offset, timestamp, .. } = *record;
    Reject {
        partition,
        offset,
        timestamp,
        key,
        part,
        rejection,
        raw: Reject::capped(raw),
        raw_len: raw.len(),
    }
}
