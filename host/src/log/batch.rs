//! Kafka's record batch, version 2: the format of segments on disk, a directory's and a
//! checkpoint's.
//!
//! Written here and not by a library, because a checkpoint is written while a topic is
//! replayed, and read instead of it: what a library allocates for each record is more than
//! all else that is done to it. The tests hold it to the `kafka-protocol` crate, and to
//! Kafka's own dump tool. Batches are never compressed, and belong to no transaction.

mod write;

use crate::log::{Header, Headers, Offset, RecordBatch};

pub(crate) use write::{BatchWriter, encode};

/// Bytes of the batch length and what precedes it: base offset and length.
pub(crate) const PREFIX: usize = 12;
/// Bytes of the whole header, records behind it.
const HEADER: usize = 61;
/// Where the magic byte, the checksum, what it covers, the last offset delta
/// and the number of records stand.
const MAGIC: usize = 16;
const CRC: usize = 17;
const CHECKED: usize = 21;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const RECORD_COUNT: usize = 57;

/// The attribute that says that a batch has one timestamp, the broker's.
const LOG_APPEND_TIME: i16 = 1 << 3;
/// The attributes that say how a batch is compressed, or that it is a marker.
const UNREADABLE: i16 = 0b111 | 1 << 5;
/// The fewest bytes a record takes: length, attributes, two deltas, key and value
/// length, header count, a byte each.
const MIN_RECORD: usize = 7;

/// The most bytes of a varint of 64 bits.
const MAX_VARINT: usize = 10;

/// No segment holds more offsets: what claims to begin farther ahead is no batch of
/// it.
const MAX_AHEAD: Offset = 1 << 24;

/// What stands at the start of some bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A whole batch of this many bytes, its checksum right; the offset behind it.
    Whole { len: usize, next: Offset },
    /// The first bytes of a batch that claims to be this long.
    Partial { len: usize },
    /// No batch.
    Bad(String),
}

/// The offset that the batch at the start of some bytes claims to begin with; `None` where
/// nothing follows.
pub(crate) fn base_offset(bytes: &[u8]) -> Option<Offset> {
    Some(bytes.first_chunk().map_or(0, |base| i64::from_be_bytes(*base))).filter(|_| !bytes.is_empty())
}

/// Looks at the batch that must begin with offset `expected`.
pub(crate) fn frame(bytes: &[u8], expected: Offset) -> Frame {
    if bytes.len() < HEADER {
        return Frame::Partial { len: HEADER };
    }
    let base = i64::from_be_bytes(array(bytes, 0));
    let claimed = i32::from_be_bytes(array(bytes, 8));
    if bytes[MAGIC] != 2 {
        return Frame::Bad(format!("batch format {} instead of 2", bytes[MAGIC]));
    }
    if base != expected {
        return Frame::Bad(format!("the batch begins with offset {base}"));
    }
    let len = match usize::try_from(claimed) {
        Ok(claimed) if claimed >= HEADER - PREFIX => claimed + PREFIX,
        _ => return Frame::Bad(format!("a batch length of {claimed}")),
    };
    if bytes.len() < len {
        return Frame::Partial { len };
    }
    let stored = u32::from_be_bytes(array(bytes, CRC));
    let actual = crc32c::crc32c(&bytes[CHECKED..len]);
    if stored != actual {
        return Frame::Bad(format!("checksum {actual:08x} instead of {stored:08x}"));
    }
    let last = i32::from_be_bytes(array(bytes, LAST_OFFSET_DELTA));
    let count = i32::from_be_bytes(array(bytes, RECORD_COUNT));
    // Believed by the decoder, which would reserve memory for it.
    if usize::try_from(count).is_err() || count as usize > (len - HEADER) / MIN_RECORD || last < 0 {
        return Frame::Bad(format!("{count} records in {len} bytes"));
    }
    Frame::Whole { len, next: base.saturating_add(i64::from(last) + 1) }
}

/// Where the records end of a batch that is cut short or damaged, as far as their lengths lead;
/// `None` if they lead beyond the last byte: then all bytes belong to it.
pub(crate) fn end_of_frames(bytes: &[u8]) -> Option<usize> {
    let mut left = bytes.get(HEADER..)?;
    let count = i32::from_be_bytes(array(bytes, RECORD_COUNT));
    for _ in 0..count {
        let before = left.len();
        match varint(&mut left).map(usize::try_from) {
            Some(Ok(len)) => _ = take(&mut left, len)?,
            // Cut within the length itself, or no length.
            None if before < MAX_VARINT => return None,
            _ => return Some(bytes.len() - before),
        }
    }
    Some(bytes.len() - left.len())
}

/// Whether a whole batch with an offset above `expected` begins anywhere in
/// `bytes`: then what is before it is damage, not the torn end of a write.
pub(crate) fn contains_whole_batch(bytes: &[u8], expected: Offset) -> bool {
    (0..bytes.len().saturating_sub(HEADER - 1)).any(|at| {
        let rest = &bytes[at..];
        let base = i64::from_be_bytes(array(rest, 0));
        let near = base.checked_sub(expected).is_some_and(|ahead| (1..MAX_AHEAD).contains(&ahead));
        rest[MAGIC] == 2 && near && matches!(frame(rest, base), Frame::Whole { .. })
    })
}

/// A record within a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawRecord<'a> {
    pub(crate) offset: Offset,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    headers: RawHeaders<'a>,
}

/// A record's headers, checked and not yet read.
#[derive(Debug, Clone, Copy)]
struct RawHeaders<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl RawRecord<'_> {
    /// Its headers.
    pub(crate) fn headers(&self) -> Vec<Header> {
        let mut bytes = self.headers.bytes;
        let mut header = || {
            let name = sized(&mut bytes)??;
            let value = sized(&mut bytes)?;
            Some(Header {
                name: std::str::from_utf8(name).ok()?.to_owned(),
                value: value.map(<[u8]>::to_vec),
            })
        };
        // OK because they were checked when the record was read.
        (0..self.headers.count).map(|_| header().expect("checked")).collect()
    }
}

/// The records of a whole batch, in order. The batch is checked as it is read: an error is
/// the last item.
pub(crate) fn records(batch: &[u8]) -> impl Iterator<Item = Result<RawRecord<'_>, String>> {
    let attributes = i16::from_be_bytes(array(batch, ATTRIBUTES));
    let append_time = attributes & LOG_APPEND_TIME != 0;
    let origin = Origin {
        base: i64::from_be_bytes(array(batch, 0)),
        first: i64::from_be_bytes(array(batch, BASE_TIMESTAMP)),
        only: append_time.then(|| i64::from_be_bytes(array(batch, MAX_TIMESTAMP))),
    };
    let mut left = i32::from_be_bytes(array(batch, RECORD_COUNT));
    let last = i32::from_be_bytes(array(batch, LAST_OFFSET_DELTA));
    // Each record comes behind the one before, and within what the batch claims.
    let (mut next, end) = (origin.base, origin.base.saturating_add(i64::from(last) + 1));
    let mut bytes = &batch[HEADER..];
    std::iter::from_fn(move || {
        if attributes & UNREADABLE != 0 && left > 0 {
            left = 0;
            return Some(Err(format!("a batch with the attributes {attributes:#x}")));
        }
        if left <= 0 {
            return None;
        }
        left -= 1;
        let record = record(&mut bytes, origin).filter(|record| (next..end).contains(&record.offset));
        match &record {
            Some(record) => next = record.offset + 1,
            None => left = 0,
        }
        Some(
            record
                .ok_or_else(|| "a malformed record, or one whose offset is outside of its batch".to_owned()),
        )
    })
}

/// What the records of a batch are counted from.
#[derive(Debug, Clone, Copy)]
struct Origin {
    base: Offset,
    first: i64,
    only: Option<i64>,
}

fn record<'a>(bytes: &mut &'a [u8], origin: Origin) -> Option<RawRecord<'a>> {
    let len = usize::try_from(varint(bytes)?).ok()?;
    let mut rest = take(bytes, len)?;
    take(&mut rest, 1)?;
    let timestamp = origin.first.wrapping_add(varint(&mut rest)?);
    let offset = origin.base.checked_add(varint(&mut rest)?)?;
    let (key, value) = (sized(&mut rest)?, sized(&mut rest)?);
    let count = usize::try_from(varint(&mut rest)?).ok()?;
    let headers = RawHeaders { count, bytes: rest };
    for _ in 0..count {
        std::str::from_utf8(sized(&mut rest)??).ok()?;
        sized(&mut rest)?;
    }
    Some(RawRecord { offset, timestamp: origin.only.unwrap_or(timestamp), key, value, headers })
}

/// Appends the records of a whole batch from an offset on.
pub(crate) fn read_into(
    batch: &[u8],
    from: Offset,
    headers: Headers,
    records_read: &mut RecordBatch,
) -> Result<(), String> {
    for record in records(batch) {
        let record = record?;
        if record.offset >= from {
            let headers = match headers {
                Headers::Wanted => record.headers(),
                Headers::Unwanted => Vec::new(),
            };
            records_read.push(record.offset, record.timestamp, record.key, record.value, headers);
        }
    }
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

/// Bytes behind their length, of which -1 means null.
fn sized<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varint(bytes)? {
        -1 => Some(None),
        len => take(bytes, usize::try_from(len).ok()?).map(Some),
    }
}

/// A zigzag varint.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    // OK because callers hold at least a header.
    bytes[at..at + N].try_into().expect("N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::NewRecord;
    use kafka_protocol::records::RecordBatchDecoder;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = NewRecord> {
        let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        let headers = proptest::collection::vec(("[a-zä]{0,5}", bytes()), 0..3);
        let timestamp = prop_oneof![Just(None), any::<i64>().prop_map(Some), (0..5000_i64).prop_map(Some)];
        (bytes(), bytes(), headers, timestamp).prop_map(|(key, value, headers, timestamp)| NewRecord {
            key,
            value,
            headers: headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
            partition: None,
            timestamp,
        })
    }

    fn read(bytes: &[u8]) -> Vec<RawRecord<'_>> {
        records(bytes).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_record_that_claims_more_than_it_has_is_none() {
        let record = NewRecord { key: Some(b"k".to_vec()), value: Some(vec![0; 8]), ..NewRecord::default() };
        let bytes = encode(&[record], 0, 0);
        assert_eq!(read(&bytes).len(), 1);
        // The value becomes shorter, its last five bytes a header count near 2^31.
        let value = HEADER + 7;
        assert_eq!(bytes[value - 1], 8 << 1, "the value's length");
        for (at, with) in [
            (value - 1, vec![3 << 1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f]),
            // A value, a key, a record that is longer than what follows; one that is not whole.
            (value - 1, vec![9 << 1]),
            (value - 3, vec![100 << 1]),
            (HEADER, vec![0x7e]),
            (HEADER, vec![2]),
            (HEADER, vec![1]),
        ] {
            let mut bytes = bytes.clone();
            bytes[at..at + with.len()].copy_from_slice(&with);
            assert!(records(&bytes).any(|record| record.is_err()), "{with:?} at {at}");
        }
        // Compressed, or a marker of a transaction.
        for attribute in [1, 4, 1 << 5] {
            let mut bytes = bytes.clone();
            bytes[ATTRIBUTES + 1] = attribute;
            assert!(records(&bytes).any(|record| record.is_err()), "{attribute}");
        }
    }

    #[test]
    fn offsets_ascend_within_what_a_batch_claims() {
        let record = || NewRecord { value: Some(vec![0; 8]), ..NewRecord::default() };
        let bytes = encode(&[record(), record()], 7, 0);
        let second = HEADER + (bytes.len() - HEADER) / 2;
        for (record, delta) in [(HEADER, 2 << 1), (HEADER, 1), (second, 2 << 1), (second, 0)] {
            let mut bytes = bytes.clone();
            // Behind length, attributes and timestamp.
            bytes[record + 3] = delta;
            assert!(records(&bytes).any(|record| record.is_err()), "{delta} at {record}");
        }
        let mut bytes = bytes;
        bytes[RECORD_COUNT..RECORD_COUNT + 4].copy_from_slice(&i32::MIN.to_be_bytes());
        assert_eq!(records(&bytes).count(), 0);
    }

    proptest! {
        #[test]
        fn a_batch_comes_back(written in proptest::collection::vec(record(), 1..30), base in 0..1_i64 << 40) {
            let bytes = encode(&written, base, 1_700_000_000_000);
            let next = base + written.len() as i64;
            prop_assert_eq!(frame(&bytes, base), Frame::Whole { len: bytes.len(), next });
            let read = read(&bytes);
            prop_assert_eq!(read.len(), written.len());
            for (i, (read, written)) in read.iter().zip(&written).enumerate() {
                prop_assert_eq!(read.offset, base + i as i64);
                prop_assert_eq!(read.timestamp, written.timestamp.unwrap_or(1_700_000_000_000));
                prop_assert_eq!(read.key, written.key.as_deref());
                prop_assert_eq!(read.value, written.value.as_deref());
                prop_assert_eq!(&read.headers(), &written.headers);
            }
        }

        /// Another's reader, which keeps of headers that repeat the last.
        #[test]
        fn others_read_it(written in proptest::collection::vec(record(), 1..30), base in 0..1_i64 << 40) {
            let mut bytes = bytes::Bytes::from(encode(&written, base, 1_700_000_000_000));
            let read = RecordBatchDecoder::decode(&mut bytes).unwrap().records;
            prop_assert_eq!(read.len(), written.len());
            for (i, (read, written)) in read.iter().zip(&written).enumerate() {
                prop_assert_eq!(read.offset, base + i as i64);
                prop_assert_eq!(read.timestamp, written.timestamp.unwrap_or(1_700_000_000_000));
                prop_assert_eq!(read.key.as_deref(), written.key.as_deref());
                prop_assert_eq!(read.value.as_deref(), written.value.as_deref());
                for (name, value) in &read.headers {
                    let header = written.headers.iter().rfind(|header| *header.name == **name);
                    prop_assert_eq!(header.unwrap().value.as_deref(), value.as_deref());
                }
            }
        }

        #[test]
        fn a_flipped_bit_is_seen(records in proptest::collection::vec(record(), 1..5), at: prop::sample::Index, bit in 0..8_u8) {
            let mut bytes = encode(&records, 7, 0);
            let at = at.index(bytes.len());
            // The leader epoch is the broker's to change: no checksum covers it.
            prop_assume!(!(12..16).contains(&at));
            bytes[at] ^= 1_u8 << bit;
            let len = bytes.len();
            let unharmed = Frame::Whole { len, next: 7 + records.len() as i64 };
            prop_assert_ne!(frame(&bytes, 7), unharmed);
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, base: i64) {
            let _ = frame(&bytes, base);
            let _ = contains_whole_batch(&bytes, base);
        }

        #[test]
        fn random_records_never_panic(tail: Vec<u8>, count: u8, attributes: u8) {
            let mut bytes = encode(&[], 0, 0);
            bytes[RECORD_COUNT + 3] = count;
            bytes[LAST_OFFSET_DELTA + 3] = count;
            bytes[ATTRIBUTES + 1] = attributes;
            bytes.extend(tail);
            for record in records(&bytes) {
                let _ = record.map(|record| record.headers());
            }
        }
    }
}
