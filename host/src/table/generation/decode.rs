//! Decodes a batch of records. Runs on a codec worker, or, for small batches of built-in codecs, on the task
//! that reads them. Knows nothing of tables.

use crate::codec::{
    CheckedCodecs, CodecFailure, Codecs, GroupKey, PackedAnswers, RejectKind, RejectReason, checked_text,
    contract_violation,
};
use crate::log::{Header, Record, RecordBatch, key_hash};
use crate::table::decoded::{DecodedRecords, Outcome};
use crate::table::entry::EntryMaker;
use crate::table::key_hash::KeyHash;
use crate::table::record_place::RecordPlace;
use crate::table::reject::{RecordPart, RejectedRecord};

/// The decoded key of a record.
enum Key<'a> {
    Null,
    Foreign,
    Rejected(RejectReason),
    Text { key: &'a str, pair: Option<GroupKey> },
}

/// Decodes the records of a batch.
///
/// # Errors
///
/// [`CodecFailure::Fault`] if a codec faulted over several records at once; the caller decodes smaller
/// parts. For a batch of one record, a fault is never returned: the record is rejected.
pub(in crate::table) fn decode(codecs: &Codecs, batch: &RecordBatch) -> Result<DecodedRecords, CodecFailure> {
    let codecs = CheckedCodecs(codecs);
    let (raw, indices) = batch.keys().select(|_| true);
    // For the check of the partitioner, which hashes raw keys.
    let first = indices
        .first()
        .map(|&index| batch.get(index))
        .and_then(|record| Some((record.offset, key_hash(record.key?))));
    let mut keys: Vec<Key<'_>> = (0..batch.len()).map(|_| Key::Null).collect();
    let mut answers = reject_if_alone(batch, codecs.decode_keys(&raw), |reason| {
        PackedAnswers::from_iter([Err::<&[u8], _>(reason)])
    })?;
    answers.check_text(contract_violation(None));
    let mut answers = answers.iter();
    for index in indices {
        // OK because there is an answer for each key.
        keys[index] = match answers.next().expect("one answer for each key") {
            Ok(key) => Key::Text { key: checked_text(key), pair: None },
            Err(reason) => Key::Rejected(reason.clone()),
        };
    }
    split(codecs, batch, &mut keys)?;
    let outcomes = decode_values(codecs, batch, keys)?;
    Ok(DecodedRecords::new(batch.partition(), batch.next_offset().unwrap_or_default(), first, outcomes))
}

/// Turns a codec's fault over a batch of one record into the rejection of that record.
fn reject_if_alone<T>(
    batch: &RecordBatch,
    answers: Result<T, CodecFailure>,
    rejected: impl FnOnce(RejectReason) -> T,
) -> Result<T, CodecFailure> {
    match answers {
        Err(CodecFailure::Fault(reason)) if batch.len() == 1 => Ok(rejected(reason)),
        answers => answers,
    }
}

/// Splits each key into group and member, or marks it as foreign.
fn split(codecs: CheckedCodecs<'_>, batch: &RecordBatch, keys: &mut [Key<'_>]) -> Result<(), CodecFailure> {
    let texts: Vec<&str> = keys.iter().filter_map(Key::text).collect();
    let Some(answers) = codecs.split(&texts) else { return Ok(()) };
    let mut answers = reject_if_alone(batch, answers, |reason| vec![Err(reason)])?.into_iter();
    for slot in keys.iter_mut().filter(|key| key.text().is_some()) {
        // OK because there is an answer for each key.
        match (answers.next().expect("one answer for each key"), slot) {
            (Ok(Some(found)), Key::Text { pair, .. }) => *pair = Some(found),
            (Ok(_), slot) => *slot = Key::Foreign,
            (Err(reason), slot) => *slot = Key::Rejected(reason),
        }
    }
    Ok(())
}

fn decode_values(
    codecs: CheckedCodecs<'_>,
    batch: &RecordBatch,
    keys: Vec<Key<'_>>,
) -> Result<Vec<Outcome>, CodecFailure> {
    let (raw, indices) = batch.values().select(|index| keys[index].text().is_some());
    let headers: Vec<&[Header]> = if codecs.wants_headers() {
        indices.iter().map(|&index| batch.get(index).headers).collect()
    } else {
        Vec::new()
    };
    let mut answers = reject_if_alone(batch, codecs.decode_values(&raw, &headers), |reason| {
        PackedAnswers::from_iter([Err::<&[u8], _>(reason)])
    })?;
    answers.check_json(contract_violation(None));
    let mut values = answers.iter();
    let mut entries = EntryMaker::default();
    let outcome = |(index, key): (usize, Key<'_>)| {
        let record = batch.get(index);
        let (key, pair) = match key {
            Key::Foreign => return Outcome::Foreign(record.offset),
            Key::Null => {
                let message = "its key is null, so no table can hold it";
                let reason = RejectReason::without_component(RejectKind::Keyless, message);
                let raw = record.value.unwrap_or_default();
                return reject(&record, None, None, RecordPart::Value, reason, raw);
            }
            Key::Rejected(reason) => {
                let raw = record.key.unwrap_or_default();
                return reject(&record, None, None, RecordPart::Key, reason, raw);
            }
            Key::Text { key, pair } => (key, pair),
        };
        let mut entry = |value: &[u8]| {
            let pair = pair.as_ref().map(|pair| (&*pair.group, &*pair.member));
            entries.make(place(&record), key, pair, value)
        };
        let Some(raw) = record.value else { return Outcome::Delete(entry(b""), KeyHash::of(key)) };
        // OK because there is an answer for each value.
        match values.next().expect("one answer for each value") {
            Ok(value) => Outcome::Set(entry(value), KeyHash::of(key)),
            Err(reason) => {
                let group = pair.as_ref().map(|pair| &*pair.group);
                reject(&record, Some(key), group, RecordPart::Value, reason.clone(), raw)
            }
        }
    };
    Ok(keys.into_iter().enumerate().map(outcome).collect())
}

impl Key<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text { key, .. } => Some(key),
            _ => None,
        }
    }
}

fn reject(
    record: &Record<'_>,
    key: Option<&str>,
    group: Option<&str>,
    part: RecordPart,
    reason: RejectReason,
    raw: &[u8],
) -> Outcome {
    let RecordPlace { partition, offset, timestamp } = place(record);
    Outcome::Reject(Box::new(RejectedRecord {
        partition,
        offset,
        timestamp,
        key: key.map(Into::into),
        group: group.map(Into::into),
        part,
        reason,
        raw: RejectedRecord::truncated(raw),
        raw_len: raw.len(),
    }))
}

fn place(record: &Record<'_>) -> RecordPlace {
    let Record { partition, offset, timestamp, .. } = *record;
    RecordPlace { partition, offset, timestamp }
}
