//! Record batches, written.

use super::{
    BASE_TIMESTAMP, CHECKED, CRC, HEADER, LAST_OFFSET_DELTA, MAGIC, MAX_TIMESTAMP, PREFIX, RECORD_COUNT,
};
use crate::log::{Header, NewRecord, Offset};

/// Writes one batch.
#[derive(Debug)]
pub(crate) struct BatchWriter {
    /// The whole batch, its header still to be filled in.
    bytes: Vec<u8>,
    base: Offset,
    /// The timestamp from which the others are counted.
    first: i64,
    latest: i64,
    last: Offset,
    count: i32,
}

impl BatchWriter {
    /// A batch whose first record will have this offset and timestamp.
    pub(crate) fn new(base: Offset, timestamp: i64) -> Self {
        let mut bytes = Vec::with_capacity(4096);
        bytes.resize(HEADER, 0);
        Self { bytes, base, first: timestamp, latest: timestamp, last: base, count: 0 }
    }

    /// The number of bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The number of records so far.
    pub(crate) fn count(&self) -> u64 {
        // OK because it is never negative.
        u64::from(self.count.unsigned_abs())
    }

    /// The first record's offset.
    pub(crate) fn base(&self) -> Offset {
        self.base
    }

    /// Whether a record of this offset may be in the same batch as the first.
    pub(crate) fn reaches(&self, offset: Offset) -> bool {
        i32::try_from(offset - self.base).is_ok()
    }

    /// Appends a record that it [reaches](BatchWriter::reaches); offsets ascend.
    pub(crate) fn push(
        &mut self,
        offset: Offset,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) {
        let delta = (timestamp.wrapping_sub(self.first), offset - self.base);
        let named =
            |header: &Header| sized_len(Some(header.name.as_bytes())) + sized_len(header.value.as_deref());
        let count = headers.len().cast_signed() as i64;
        let len = 1
            + varint_len(delta.0)
            + varint_len(delta.1)
            + sized_len(key)
            + sized_len(value)
            + varint_len(count)
            + headers.iter().map(named).sum::<usize>();
        put_varint(&mut self.bytes, len.cast_signed() as i64);
        // No attributes.
        self.bytes.push(0);
        put_varint(&mut self.bytes, delta.0);
        put_varint(&mut self.bytes, delta.1);
        put_sized(&mut self.bytes, key);
        put_sized(&mut self.bytes, value);
        put_varint(&mut self.bytes, count);
        for header in headers {
            put_sized(&mut self.bytes, Some(header.name.as_bytes()));
            put_sized(&mut self.bytes, header.value.as_deref());
        }
        self.latest = self.latest.max(timestamp);
        self.last = offset;
        self.count += 1;
    }

    /// The batch.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        // OK because whoever fills a batch looks at its length, far below 2 GiB.
        let len = i32::try_from(self.bytes.len() - PREFIX).expect("less than 2 GiB");
        let last = i32::try_from(self.last - self.base).expect("it reaches its last record");
        let mut put = |at: usize, field: &[u8]| self.bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.base.to_be_bytes());
        put(8, &len.to_be_bytes());
        // No leader epoch, the format, no attributes.
        put(PREFIX, &(-1_i32).to_be_bytes());
        put(MAGIC, &[2]);
        put(LAST_OFFSET_DELTA, &last.to_be_bytes());
        put(BASE_TIMESTAMP, &self.first.to_be_bytes());
        put(MAX_TIMESTAMP, &self.latest.to_be_bytes());
        // No producer: its id, epoch and sequence are all -1.
        put(43, &[0xff; 14]);
        put(RECORD_COUNT, &self.count.to_be_bytes());
        let crc = crc32c::crc32c(&self.bytes[CHECKED..]);
        self.bytes[CRC..CHECKED].copy_from_slice(&crc.to_be_bytes());
        self.bytes
    }
}

/// One batch of these records, the first at offset `base`.
pub(crate) fn encode(records: &[NewRecord], base: Offset, now: i64) -> Vec<u8> {
    let timestamp = |record: &NewRecord| record.timestamp.unwrap_or(now);
    let mut batch = BatchWriter::new(base, records.first().map_or(now, timestamp));
    for (offset, record) in (base..).zip(records) {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        batch.push(offset, timestamp(record), key, value, &record.headers);
    }
    batch.finish()
}

fn put_sized(bytes: &mut Vec<u8>, item: Option<&[u8]>) {
    put_varint(bytes, item.map_or(-1, |item| item.len().cast_signed() as i64));
    bytes.extend_from_slice(item.unwrap_or_default());
}

fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut left = zigzag(value);
    while left >= 0x80 {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}

fn sized_len(item: Option<&[u8]>) -> usize {
    varint_len(item.map_or(-1, |item| item.len().cast_signed() as i64)) + item.map_or(0, <[u8]>::len)
}

fn varint_len(value: i64) -> usize {
    (64 - (zigzag(value) | 1).leading_zeros() as usize).div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}
