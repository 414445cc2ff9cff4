//! Kafka's record batch v2: the frame checked here, the records inside read and
//! written by the `kafka-protocol` crate.

use bytes::Bytes;
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
    RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use crate::log::{Header, NewRecord, Offset};

/// Bytes of the batch length and what precedes it: base offset and length.
pub(super) const PREFIX: usize = 12;
/// Bytes of the whole header, records behind it.
const HEADER: usize = 61;
/// Where the magic byte, the checksum, what it covers, the last offset delta
/// and the number of records stand.
const MAGIC: usize = 16;
const CRC: usize = 17;
const CHECKED: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const RECORD_COUNT: usize = 57;
/// The fewest bytes a record takes: length, attributes, two deltas, key and value
/// length, header count, a byte each.
const MIN_RECORD: usize = 7;

/// No segment holds more offsets: what claims to begin farther ahead is no batch of
/// it.
const MAX_AHEAD: Offset = 1 << 24;

/// What stands at the start of some bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A whole batch of this many bytes, its checksum right; the offset behind it.
    Whole { len: usize, next: Offset },
    /// The first bytes of a batch that claims to be this long.
    Partial { len: usize },
    /// No batch.
    Bad(String),
}

/// Looks at the batch that must begin with offset `expected`.
pub(super) fn frame(bytes: &[u8], expected: Offset) -> Frame {
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

/// Whether a whole batch with an offset above `expected` begins anywhere in
/// `bytes`: then what is before it is damage, not the torn end of a write.
pub(super) fn contains_whole_batch(bytes: &[u8], expected: Offset) -> bool {
    (1..bytes.len().saturating_sub(HEADER)).any(|at| {
        let rest = &bytes[at..];
        let base = i64::from_be_bytes(array(rest, 0));
        let near = base.checked_sub(expected).is_some_and(|ahead| (1..MAX_AHEAD).contains(&ahead));
        rest[MAGIC] == 2 && near && matches!(frame(rest, base), Frame::Whole { .. })
    })
}

/// Reads the records of a whole batch.
pub(super) fn decode(batch: &[u8]) -> Result<Vec<Record>, String> {
    check_header_counts(batch).ok_or("a record that is none")?;
    let mut bytes = Bytes::copy_from_slice(batch);
    let set = RecordBatchDecoder::decode(&mut bytes).map_err(|error| error.to_string())?;
    Ok(set.records)
}

/// Whether each record has room for the headers it claims, for which the decoder
/// would reserve memory.
fn check_header_counts(batch: &[u8]) -> Option<()> {
    let mut records = batch.get(HEADER..)?;
    while !records.is_empty() {
        let len = usize::try_from(varint(&mut records)?).ok()?;
        let mut record = take(&mut records, len)?;
        take(&mut record, 1)?;
        // The two deltas, then key and value; a length of -1 is a null.
        varint(&mut record)?;
        varint(&mut record)?;
        for _ in 0..2 {
            let len = varint(&mut record)?;
            take(&mut record, usize::try_from(len).unwrap_or(0))?;
        }
        let headers = usize::try_from(varint(&mut record)?).ok()?;
        // A header takes two bytes at least: the lengths of name and value.
        if headers > record.len() / 2 {
            return None;
        }
    }
    Some(())
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

/// A zigzag varint, which the crate decodes too, but keeps to itself.
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

/// The headers of a record that was read.
pub(super) fn headers(record: &Record) -> Vec<Header> {
    let owned = |(name, value): (&StrBytes, &Option<Bytes>)| Header {
        name: name.to_string(),
        value: value.as_ref().map(|value| value.to_vec()),
    };
    record.headers.iter().map(owned).collect()
}

/// One batch of these records, the first at offset `base`.
pub(super) fn encode(records: &[NewRecord], base: Offset, timestamp: i64) -> Result<Vec<u8>, String> {
    let records: Vec<Record> =
        (0..).zip(records).map(|(i, record)| to_kafka(record, base, i, timestamp)).collect();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut bytes = bytes::BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).map_err(|error| error.to_string())?;
    Ok(bytes.to_vec())
}

/// Why a record cannot be written, if so: the crate keeps headers by name.
pub(super) fn refusal(record: &NewRecord) -> Option<String> {
    let mut names: Vec<&str> = record.headers.iter().map(|header| header.name.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1])?;
    Some(format!("header `{}` stands twice, which the directory log cannot keep", twice[0]))
}

fn to_kafka(record: &NewRecord, base: Offset, index: i32, timestamp: i64) -> Record {
    let bytes = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| Bytes::copy_from_slice(bytes));
    let headers: IndexMap<StrBytes, Option<Bytes>> = record
        .headers
        .iter()
        .map(|header| (StrBytes::from_string(header.name.clone()), bytes(&header.value)))
        .collect();
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: base + i64::from(index),
        // Counts up from "none": the crate begins a new batch where the distance
        // to the offset changes.
        sequence: NO_SEQUENCE + index,
        timestamp: record.timestamp.unwrap_or(timestamp),
        key: bytes(&record.key),
        value: bytes(&record.value),
        headers,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    // OK because callers hold at least a header.
    bytes[at..at + N].try_into().expect("N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = NewRecord> {
        let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        let headers = proptest::collection::btree_map("[a-z]{0,5}", bytes(), 0..3);
        (bytes(), bytes(), headers).prop_map(|(key, value, headers)| NewRecord {
            key,
            value,
            headers: headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
            partition: None,
            timestamp: None,
        })
    }

    #[test]
    fn a_record_that_claims_more_headers_than_it_has_room_for_is_none() {
        let record = NewRecord { key: Some(b"k".to_vec()), value: Some(vec![0; 8]), ..NewRecord::default() };
        let mut bytes = encode(&[record], 0, 0).unwrap();
        assert_eq!(check_header_counts(&bytes), Some(()));
        // The value becomes shorter, its last five bytes a header count near 2^31.
        let value = HEADER + 7;
        assert_eq!(bytes[value - 1], 8 << 1, "the value's length");
        bytes[value - 1] = 3 << 1;
        bytes[value + 3..value + 8].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(check_header_counts(&bytes), None);
    }

    proptest! {
        #[test]
        fn a_batch_comes_back(records in proptest::collection::vec(record(), 1..30), base in 0..1_i64 << 40) {
            let bytes = encode(&records, base, 1_700_000_000_000).unwrap();
            let next = base + records.len() as i64;
            prop_assert_eq!(frame(&bytes, base), Frame::Whole { len: bytes.len(), next });
            let read = decode(&bytes).unwrap();
            prop_assert_eq!(read.len(), records.len());
            for (i, (read, written)) in read.iter().zip(&records).enumerate() {
                prop_assert_eq!(read.offset, base + i as i64);
                prop_assert_eq!(read.key.as_deref(), written.key.as_deref());
                prop_assert_eq!(read.value.as_deref(), written.value.as_deref());
                prop_assert_eq!(&headers(read), &written.headers);
            }
        }

        #[test]
        fn a_flipped_bit_is_seen(records in proptest::collection::vec(record(), 1..5), at: prop::sample::Index, bit in 0..8_u8) {
            let mut bytes = encode(&records, 7, 0).unwrap();
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
    }
}
