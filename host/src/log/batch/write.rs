//! Writes record batches.

use super::{
    BASE_TIMESTAMP, CHECKSUMMED, CRC, HEADER, LAST_OFFSET_DELTA, MAGIC, MAX_TIMESTAMP, PREFIX, RECORD_COUNT,
};
use crate::log::{Header, NewRecord, Offset};

/// Encodes one record batch.
#[derive(Debug)]
pub(crate) struct BatchWriter {
    /// The batch so far. `finish` fills in the header.
    bytes: Vec<u8>,
    base_offset: Offset,
    /// The timestamp that those of the records are relative to.
    base_timestamp: i64,
    max_timestamp: i64,
    last_offset: Offset,
    count: i32,
}

impl BatchWriter {
    /// Begins a batch whose first record will have this offset and timestamp.
    pub(crate) fn new(offset: Offset, timestamp: i64) -> Self {
        let mut bytes = Vec::with_capacity(4096);
        bytes.resize(HEADER, 0);
        Self {
            bytes,
            base_offset: offset,
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            last_offset: offset,
            count: 0,
        }
    }

    /// The size so far, in bytes, with the header.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The number of records so far.
    pub(crate) fn count(&self) -> u64 {
        // OK because it is never negative.
        u64::from(self.count.unsigned_abs())
    }

    /// The offset of the first record.
    pub(crate) fn base(&self) -> Offset {
        self.base_offset
    }

    /// Whether a record with this offset can be in this batch: a batch stores offsets relative to that of its
    /// first record, in 32 bits.
    pub(crate) fn is_in_reach(&self, offset: Offset) -> bool {
        i32::try_from(offset - self.base_offset).is_ok()
    }

    /// Appends a record. Its offset must be [in reach](BatchWriter::is_in_reach), and greater than that of
    /// the record before.
    pub(crate) fn push(
        &mut self,
        offset: Offset,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) {
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = offset - self.base_offset;
        let header_len = |header: &Header| {
            nullable_len(Some(header.name.as_bytes())) + nullable_len(header.value.as_deref())
        };
        let count = headers.len().cast_signed() as i64;
        let len = 1
            + varint_len(timestamp_delta)
            + varint_len(offset_delta)
            + nullable_len(key)
            + nullable_len(value)
            + varint_len(count)
            + headers.iter().map(header_len).sum::<usize>();
        put_varint(&mut self.bytes, len.cast_signed() as i64);
        // The record has no attributes.
        self.bytes.push(0);
        put_varint(&mut self.bytes, timestamp_delta);
        put_varint(&mut self.bytes, offset_delta);
        put_nullable(&mut self.bytes, key);
        put_nullable(&mut self.bytes, value);
        put_varint(&mut self.bytes, count);
        for header in headers {
            put_nullable(&mut self.bytes, Some(header.name.as_bytes()));
            put_nullable(&mut self.bytes, header.value.as_deref());
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.last_offset = offset;
        self.count += 1;
    }

    /// Fills in the header, and returns the bytes of the batch.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        // OK because callers limit the size of a batch to far less than 2 GiB.
        let len = i32::try_from(self.bytes.len() - PREFIX).expect("less than 2 GiB");
        let last = i32::try_from(self.last_offset - self.base_offset).expect("the last record is in reach");
        let mut put = |at: usize, field: &[u8]| self.bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.base_offset.to_be_bytes());
        put(8, &len.to_be_bytes());
        // No leader epoch, format 2, and no attributes.
        put(PREFIX, &(-1_i32).to_be_bytes());
        put(MAGIC, &[2]);
        put(LAST_OFFSET_DELTA, &last.to_be_bytes());
        put(BASE_TIMESTAMP, &self.base_timestamp.to_be_bytes());
        put(MAX_TIMESTAMP, &self.max_timestamp.to_be_bytes());
        // No producer: id, epoch and sequence are -1.
        put(43, &[0xff; 14]);
        put(RECORD_COUNT, &self.count.to_be_bytes());
        let crc = crc32c::crc32c(&self.bytes[CHECKSUMMED..]);
        self.bytes[CRC..CHECKSUMMED].copy_from_slice(&crc.to_be_bytes());
        self.bytes
    }
}

/// Encodes records as one batch that begins at offset `base`. Records without a timestamp get `now`,
/// in milliseconds since 1970.
pub(crate) fn encode(records: &[NewRecord], base: Offset, now: i64) -> Vec<u8> {
    let timestamp = |record: &NewRecord| record.timestamp.unwrap_or(now);
    let mut batch = BatchWriter::new(base, records.first().map_or(now, timestamp));
    for (offset, record) in (base..).zip(records) {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        batch.push(offset, timestamp(record), key, value, &record.headers);
    }
    batch.finish()
}

/// Appends a length and the bytes of an item; for a null, the length is -1.
fn put_nullable(bytes: &mut Vec<u8>, item: Option<&[u8]>) {
    put_varint(bytes, item.map_or(-1, |item| item.len().cast_signed() as i64));
    bytes.extend_from_slice(item.unwrap_or_default());
}

/// Appends a zigzag varint.
fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut left = zigzag(value);
    while left >= 0x80 {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}

/// The size that [`put_nullable`] appends, in bytes.
fn nullable_len(item: Option<&[u8]>) -> usize {
    varint_len(item.map_or(-1, |item| item.len().cast_signed() as i64)) + item.map_or(0, <[u8]>::len)
}

/// The size that [`put_varint`] appends, in bytes.
fn varint_len(value: i64) -> usize {
    (64 - (zigzag(value) | 1).leading_zeros() as usize).div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}
