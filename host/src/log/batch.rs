//! Kafka's record batch format, version 2: the format of the segments of directory logs and of checkpoints.
//!
//! Implemented here instead of with a library, because a checkpoint is written while a topic is replayed, and
//! read in place of the topic. The allocations of a library for each record would cost more than all other
//! work on the record. Tests compare this implementation with the `kafka-protocol` crate and with Kafka's own
//! dump tool. Batches are never compressed, and never belong to a transaction.

mod write;

use crate::log::{Header, Headers, Offset, RecordBatch};

pub(crate) use write::{BatchWriter, encode};

/// The size of the prefix of a batch, in bytes: its base offset and its length. The length does not count
/// the prefix.
pub(crate) const PREFIX: usize = 12;
/// The size of the header of a batch, in bytes. The records follow it.
const HEADER: usize = 61;
// The positions of the fields in the header. The checksum covers all bytes from CHECKSUMMED on.
const MAGIC: usize = 16;
const CRC: usize = 17;
const CHECKSUMMED: usize = 21;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const RECORD_COUNT: usize = 57;

/// The attribute bit of a batch whose records all have one timestamp, that of the broker.
const LOG_APPEND_TIME: i16 = 1 << 3;
/// The attribute bits that are not supported here: the compression codec, and the flag of control batches.
const UNSUPPORTED: i16 = 0b111 | 1 << 5;
/// The smallest size of a record, in bytes: one byte each for its length, its attributes, two deltas, the
/// lengths of key and value, and the number of headers.
const MIN_RECORD: usize = 7;

/// The largest size of a varint of 64 bits, in bytes.
const MAX_VARINT: usize = 10;

/// No segment holds this many offsets, so bytes that look like a batch with an offset this far ahead are not
/// a batch of the segment.
const MAX_AHEAD: Offset = 1 << 24;

/// The result of parsing the bytes at a position of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A whole batch of `len` bytes with a correct checksum. `next` is the offset after it.
    Whole { len: usize, next: Offset },
    /// The beginning of a batch: at least `len` bytes are needed, for its header or for the whole batch.
    Partial { len: usize },
    /// Bytes that are not a batch, and the reason.
    Bad(String),
}

/// Returns the base offset in the header of the first batch, unchecked: 0 if even that field is cut off,
/// `None` if there are no bytes.
pub(crate) fn base_offset(bytes: &[u8]) -> Option<Offset> {
    Some(bytes.first_chunk().map_or(0, |base| i64::from_be_bytes(*base))).filter(|_| !bytes.is_empty())
}

/// Parses the frame of the first batch and verifies its checksum. Its base offset must be `expected`.
pub(crate) fn parse_frame(bytes: &[u8], expected: Offset) -> Frame {
    if bytes.len() < HEADER {
        return Frame::Partial { len: HEADER };
    }
    let base = i64::from_be_bytes(array(bytes, 0));
    let length = i32::from_be_bytes(array(bytes, 8));
    if bytes[MAGIC] != 2 {
        return Frame::Bad(format!("the batch has format {} instead of 2", bytes[MAGIC]));
    }
    if base != expected {
        return Frame::Bad(format!("the batch begins with offset {base} instead of {expected}"));
    }
    let len = match usize::try_from(length) {
        Ok(length) if length >= HEADER - PREFIX => length + PREFIX,
        _ => return Frame::Bad(format!("the batch has an invalid length, {length}")),
    };
    if bytes.len() < len {
        return Frame::Partial { len };
    }
    let stored = u32::from_be_bytes(array(bytes, CRC));
    let actual = crc32c::crc32c(&bytes[CHECKSUMMED..len]);
    if stored != actual {
        return Frame::Bad(format!("the batch has checksum {actual:08x} instead of {stored:08x}"));
    }
    let last = i32::from_be_bytes(array(bytes, LAST_OFFSET_DELTA));
    let count = i32::from_be_bytes(array(bytes, RECORD_COUNT));
    // The decoder trusts the number of records, and would reserve memory for them.
    if usize::try_from(count).is_err() || count as usize > (len - HEADER) / MIN_RECORD || last < 0 {
        return Frame::Bad(format!("the batch claims {count} records in {len} bytes"));
    }
    match base.checked_add(i64::from(last) + 1) {
        Some(next) => Frame::Whole { len, next },
        None => Frame::Bad(format!("the batch has {count} records from offset {base} on")),
    }
}

/// Returns the position after the records of a batch that is torn or damaged, by following the length fields
/// of the records. `None` if they lead beyond the last byte: then all bytes belong to the batch.
pub(crate) fn end_of_records(bytes: &[u8]) -> Option<usize> {
    let mut left = bytes.get(HEADER..)?;
    let count = i32::from_be_bytes(array(bytes, RECORD_COUNT));
    for _ in 0..count {
        let before = left.len();
        match take_varint(&mut left).map(usize::try_from) {
            Some(Ok(len)) => _ = take(&mut left, len)?,
            // The length field itself is cut off, or is not a varint.
            None if before < MAX_VARINT => return None,
            _ => return Some(bytes.len() - before),
        }
    }
    Some(bytes.len() - left.len())
}

/// Whether a whole batch with an offset above `expected` begins anywhere in `bytes`. If so, the bytes before
/// it are damaged, and not the torn tail of a write.
pub(crate) fn contains_whole_batch(bytes: &[u8], expected: Offset) -> bool {
    (0..bytes.len().saturating_sub(HEADER - 1)).any(|at| {
        let rest = &bytes[at..];
        let base = i64::from_be_bytes(array(rest, 0));
        let is_near = base.checked_sub(expected).is_some_and(|ahead| (1..MAX_AHEAD).contains(&ahead));
        rest[MAGIC] == 2 && is_near && matches!(parse_frame(rest, base), Frame::Whole { .. })
    })
}

/// A record in the bytes of a batch, not copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawRecord<'a> {
    pub(crate) offset: Offset,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    headers: RawHeaders<'a>,
}

/// The headers of a record: validated, but not decoded yet.
#[derive(Debug, Clone, Copy)]
struct RawHeaders<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl RawRecord<'_> {
    /// Decodes the headers.
    pub(crate) fn headers(&self) -> Vec<Header> {
        let mut bytes = self.headers.bytes;
        let mut header = || {
            let name = take_nullable(&mut bytes)??;
            let value = take_nullable(&mut bytes)?;
            Some(Header {
                name: std::str::from_utf8(name).ok()?.to_owned(),
                value: value.map(<[u8]>::to_vec),
            })
        };
        // OK because they were validated when the record was read.
        (0..self.headers.count).map(|_| header().expect("validated")).collect()
    }
}

/// Returns the records of a whole batch, in order. The batch is validated while it is read. An error is the
/// last item.
pub(crate) fn records(batch: &[u8]) -> impl Iterator<Item = Result<RawRecord<'_>, String>> {
    let attributes = i16::from_be_bytes(array(batch, ATTRIBUTES));
    let has_append_time = attributes & LOG_APPEND_TIME != 0;
    let base = BatchBase {
        offset: i64::from_be_bytes(array(batch, 0)),
        timestamp: i64::from_be_bytes(array(batch, BASE_TIMESTAMP)),
        append_time: has_append_time.then(|| i64::from_be_bytes(array(batch, MAX_TIMESTAMP))),
    };
    let mut left = i32::from_be_bytes(array(batch, RECORD_COUNT));
    let last = i32::from_be_bytes(array(batch, LAST_OFFSET_DELTA));
    // Offsets must ascend, and lie within the range in the header of the batch.
    let (mut next, end) = (base.offset, base.offset.saturating_add(i64::from(last) + 1));
    let mut bytes = &batch[HEADER..];
    std::iter::from_fn(move || {
        if attributes & UNSUPPORTED != 0 && left > 0 {
            left = 0;
            return Some(Err(format!("the batch has unsupported attributes, {attributes:#x}")));
        }
        if left <= 0 {
            return None;
        }
        left -= 1;
        let record = take_record(&mut bytes, base).filter(|record| (next..end).contains(&record.offset));
        match &record {
            Some(record) => next = record.offset + 1,
            None => left = 0,
        }
        Some(record.ok_or_else(|| "a record is malformed, or its offset is outside of its batch".to_owned()))
    })
}

/// The values in the header of a batch to which the deltas of its records are added.
#[derive(Debug, Clone, Copy)]
struct BatchBase {
    offset: Offset,
    timestamp: i64,
    /// The timestamp of all records, if the broker sets it.
    append_time: Option<i64>,
}

/// Takes a record from the front of `bytes`; `None` if it is malformed.
fn take_record<'a>(bytes: &mut &'a [u8], base: BatchBase) -> Option<RawRecord<'a>> {
    let len = usize::try_from(take_varint(bytes)?).ok()?;
    let mut rest = take(bytes, len)?;
    take(&mut rest, 1)?;
    let timestamp = base.timestamp.wrapping_add(take_varint(&mut rest)?);
    let offset = base.offset.checked_add(take_varint(&mut rest)?)?;
    let (key, value) = (take_nullable(&mut rest)?, take_nullable(&mut rest)?);
    let count = usize::try_from(take_varint(&mut rest)?).ok()?;
    let headers = RawHeaders { count, bytes: rest };
    for _ in 0..count {
        std::str::from_utf8(take_nullable(&mut rest)??).ok()?;
        take_nullable(&mut rest)?;
    }
    Some(RawRecord { offset, timestamp: base.append_time.unwrap_or(timestamp), key, value, headers })
}

/// Appends the records of a whole batch whose offsets are not below `from` to `records_read`.
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
            records_read.push(record.offset, Some(record.timestamp), record.key, record.value, headers);
        }
    }
    Ok(())
}

/// Takes `len` bytes from the front of `bytes`; `None` if there are fewer.
fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

/// Takes a length and that many bytes from the front of `bytes`. A length of -1 means null: `Some(None)`.
fn take_nullable<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match take_varint(bytes)? {
        -1 => Some(None),
        len => take(bytes, usize::try_from(len).ok()?).map(Some),
    }
}

/// Takes a zigzag varint from the front of `bytes`; `None` if it is malformed.
fn take_varint(bytes: &mut &[u8]) -> Option<i64> {
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

/// Returns the `N` bytes at a position.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    // OK because callers pass at least a whole header.
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
    fn a_record_longer_than_its_bytes_is_malformed() {
        let record = NewRecord { key: Some(b"k".to_vec()), value: Some(vec![0; 8]), ..NewRecord::default() };
        let bytes = encode(&[record], 0, 0);
        assert_eq!(read(&bytes).len(), 1);
        // The first case shortens the value, and turns its last five bytes into a header count near 2^31.
        let value = HEADER + 7;
        assert_eq!(bytes[value - 1], 8 << 1, "the value's length");
        for (at, with) in [
            (value - 1, vec![3 << 1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f]),
            // Next, the value, the key and the record are longer than the bytes that follow. The last two
            // shorten the record.
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
        // Compressed batches, and a control batch.
        for attribute in [1, 4, 1 << 5] {
            let mut bytes = bytes.clone();
            bytes[ATTRIBUTES + 1] = attribute;
            assert!(records(&bytes).any(|record| record.is_err()), "{attribute}");
        }
    }

    #[test]
    fn records_with_descending_or_too_large_offsets_are_malformed() {
        let record = || NewRecord { value: Some(vec![0; 8]), ..NewRecord::default() };
        let bytes = encode(&[record(), record()], 7, 0);
        let second = HEADER + (bytes.len() - HEADER) / 2;
        for (record, delta) in [(HEADER, 2 << 1), (HEADER, 1), (second, 2 << 1), (second, 0)] {
            let mut bytes = bytes.clone();
            // The offset delta follows the length, the attributes and the timestamp delta.
            bytes[record + 3] = delta;
            assert!(records(&bytes).any(|record| record.is_err()), "{delta} at {record}");
        }
        let mut bytes = bytes;
        bytes[RECORD_COUNT..RECORD_COUNT + 4].copy_from_slice(&i32::MIN.to_be_bytes());
        assert_eq!(records(&bytes).count(), 0);
    }

    proptest! {
        #[test]
        fn a_batch_is_read_as_it_was_written(
            written in proptest::collection::vec(record(), 1..30),
            base in 0..1_i64 << 40
        ) {
            let bytes = encode(&written, base, 1_700_000_000_000);
            let next = base + written.len() as i64;
            prop_assert_eq!(parse_frame(&bytes, base), Frame::Whole { len: bytes.len(), next });
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

        /// Reads with the `kafka-protocol` crate, which keeps only the last of several headers with one name.
        #[test]
        fn kafka_protocol_reads_a_written_batch(
            written in proptest::collection::vec(record(), 1..30),
            base in 0..1_i64 << 40
        ) {
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
        fn a_flipped_bit_is_detected(
            records in proptest::collection::vec(record(), 1..5),
            at: prop::sample::Index,
            bit in 0..8_u8
        ) {
            let mut bytes = encode(&records, 7, 0);
            let at = at.index(bytes.len());
            // The checksum does not cover the leader epoch, because brokers change it.
            prop_assume!(!(12..16).contains(&at));
            bytes[at] ^= 1_u8 << bit;
            let len = bytes.len();
            let intact = Frame::Whole { len, next: 7 + records.len() as i64 };
            prop_assert_ne!(parse_frame(&bytes, 7), intact);
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, base: i64) {
            let _ = parse_frame(&bytes, base);
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
