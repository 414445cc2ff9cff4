//! From a batch of records to what is to be applied. Runs on a codec worker;
//! knows of no table.

use crate::codec::{
    CheckedCodecs, CodecFailure, Codecs, GroupKey, PackedAnswers, RejectKind, Rejection, broken_contract,
    checked_text,
};
use crate::log::{Header, Offset, Partition, Record, RecordBatch, key_hash};
use crate::table::entry::{Entry, EntryMaker, Origin};
use crate::table::reject::{Part, Reject};
use crate::table::rows::KeyHash;

/// The records of a batch, decoded.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) partition: Partition,
    /// The offset behind the last record.
    pub(super) next: Offset,
    /// The first record that has a key: its offset, and where its key belongs.
    pub(super) first: Option<(Offset, i32)>,
    pub(super) outcomes: Vec<Outcome>,
    /// The bytes of the entries and rejects in it, counted where they are made.
    bytes: usize,
}

/// What a record does to a table.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A value for a key.
    Set(Entry, KeyHash),
    /// A tombstone: a row without a value.
    Delete(Entry, KeyHash),
    /// Nothing: the group scheme says that its key is somebody else's.
    Foreign(Offset),
    /// Nothing: it is rejected.
    Reject(Box<Reject>),
}

impl Decoded {
    /// The bytes of the entries and rejects in it.
    pub(super) fn byte_len(&self) -> usize {
        self.bytes
    }

    /// Whether the last record made a codec fault.
    pub(super) fn ends_with_fault(&self) -> bool {
        matches!(self.outcomes.last(), Some(Outcome::Reject(reject)) if reject.rejection.kind.is_fault())
    }

    /// Appends what comes directly behind it.
    pub(super) fn append(&mut self, mut next: Self) {
        self.next = next.next;
        self.first = self.first.or(next.first);
        self.outcomes.append(&mut next.outcomes);
        self.bytes += next.bytes;
    }

    /// The offsets of the records that are rejected.
    pub(super) fn rejected(&self) -> Vec<Offset> {
        let rejected = self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Reject(reject) => Some(reject.offset),
            _ => None,
        });
        rejected.collect()
    }
}

impl Outcome {
    fn byte_len(&self) -> usize {
        match self {
            Self::Set(entry, _) | Self::Delete(entry, _) => entry.byte_len(),
            Self::Foreign(_) => 0,
            Self::Reject(reject) => reject.byte_len(),
        }
    }

    /// The row that it sets, or that stands for the one it deletes.
    pub(super) fn row(&self) -> Option<(&Entry, KeyHash)> {
        match self {
            Self::Set(row, hash) | Self::Delete(row, hash) => Some((row, *hash)),
            Self::Foreign(_) | Self::Reject(_) => None,
        }
    }
}

/// What is known of a record once its key is decoded.
enum Key<'a> {
    Null,
    Foreign,
    Rejected(Rejection),
    Text { key: &'a str, pair: Option<GroupKey> },
}

/// Decodes the records of a batch.
///
/// # Errors
///
/// [`CodecFailure::Fault`] if a codec faulted over several records at once: each is to be decoded
/// alone. A batch of one record never faults; its record is rejected.
pub(super) fn decode(codecs: &Codecs, batch: &RecordBatch) -> Result<Decoded, CodecFailure> {
    let codecs = CheckedCodecs(codecs);
    let (raw, indices) = batch.keys().select(|_| true);
    let first = indices
        .first()
        .map(|&index| batch.get(index))
        .and_then(|record| Some((record.offset, key_hash(record.key?))));
    let mut keys: Vec<Key<'_>> = (0..batch.len()).map(|_| Key::Null).collect();
    let mut answers = alone(batch, codecs.decode_keys(&raw), |rejection| {
        PackedAnswers::from_iter([Err::<&[u8], _>(rejection)])
    })?;
    answers.check_text(broken_contract(None));
    let mut answers = answers.iter();
    for index in indices {
        // OK because there is an answer for each key.
        keys[index] = match answers.next().expect("one answer for each key") {
            Ok(key) => Key::Text { key: checked_text(key), pair: None },
            Err(rejection) => Key::Rejected(rejection.clone()),
        };
    }
    split(codecs, batch, &mut keys)?;
    let outcomes = decode_values(codecs, batch, keys)?;
    let bytes = outcomes.iter().map(Outcome::byte_len).sum();
    Ok(Decoded {
        partition: batch.partition(),
        next: batch.next_offset().unwrap_or_default(),
        first,
        outcomes,
        bytes,
    })
}

/// The answers; if the codec faulted over a batch of one record, the rejection of that record.
fn alone<T>(
    batch: &RecordBatch,
    answers: Result<T, CodecFailure>,
    rejected: impl FnOnce(Rejection) -> T,
) -> Result<T, CodecFailure> {
    match answers {
        Err(CodecFailure::Fault(rejection)) if batch.len() == 1 => Ok(rejected(rejection)),
        answers => answers,
    }
}

/// Gives each key its pair, or finds it foreign.
fn split(codecs: CheckedCodecs<'_>, batch: &RecordBatch, keys: &mut [Key<'_>]) -> Result<(), CodecFailure> {
    let texts: Vec<&str> = keys.iter().filter_map(Key::text).collect();
    let Some(answers) = codecs.split(&texts) else { return Ok(()) };
    let mut answers = alone(batch, answers, |rejection| vec![Err(rejection)])?.into_iter();
    for slot in keys.iter_mut().filter(|key| key.text().is_some()) {
        // OK because there is an answer for each key.
        match (answers.next().expect("one answer for each key"), slot) {
            (Ok(Some(found)), Key::Text { pair, .. }) => *pair = Some(found),
            (Ok(_), slot) => *slot = Key::Foreign,
            (Err(rejection), slot) => *slot = Key::Rejected(rejection),
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
    let mut answers = alone(batch, codecs.decode_values(&raw, &headers), |rejection| {
        PackedAnswers::from_iter([Err::<&[u8], _>(rejection)])
    })?;
    answers.check_json(broken_contract(None));
    let mut values = answers.iter();
    let mut entries = EntryMaker::default();
    let outcome = |(index, key): (usize, Key<'_>)| {
        let record = batch.get(index);
        let (key, pair) = match key {
            Key::Foreign => return Outcome::Foreign(record.offset),
            Key::Null => {
                let message = "its key is null, so no table can hold it";
                let rejection = Rejection::built_in(RejectKind::Keyless, message);
                return reject(&record, None, None, Part::Value, rejection, record.value.unwrap_or_default());
            }
            Key::Rejected(rejection) => {
                return reject(&record, None, None, Part::Key, rejection, record.key.unwrap_or_default());
            }
            Key::Text { key, pair } => (key, pair),
        };
        let mut entry = |value: &[u8]| {
            let Record { partition, offset, timestamp, .. } = record;
            let pair = pair.as_ref().map(|pair| (&*pair.group, &*pair.member));
            entries.make(Origin { partition, offset, timestamp }, key, pair, value)
        };
        let Some(raw) = record.value else { return Outcome::Delete(entry(b""), KeyHash::of(key)) };
        // OK because there is an answer for each value.
        match values.next().expect("one answer for each value") {
            Ok(value) => Outcome::Set(entry(value), KeyHash::of(key)),
            Err(rejection) => {
                let group = pair.as_ref().map(|pair| &*pair.group);
                reject(&record, Some(key), group, Part::Value, rejection.clone(), raw)
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
    part: Part,
    rejection: Rejection,
    raw: &[u8],
) -> Outcome {
    let Record { partition, offset, timestamp, .. } = *record;
    Outcome::Reject(Box::new(Reject {
        partition,
        offset,
        timestamp,
        key: key.map(Into::into),
        group: group.map(Into::into),
        part,
        rejection,
        raw: Reject::capped(raw),
        raw_len: raw.len(),
    }))
}
