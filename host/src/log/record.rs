//! Records: single ones for writing, batches for reading.

use crate::log::{Offset, Partition};
use crate::packed::PackedNullable;

/// The size of a full batch: keys, values and headers. A batch of this size stays in the cache of a core
/// while a codec decodes it; a batch of 1 MiB does not.
const BATCH_BYTES: usize = 128 * 1024;

/// The number of records in a full batch. It bounds the number of calls that it takes to isolate a record
/// that makes its codec fault.
const BATCH_RECORDS: usize = 1024;

/// The timestamp of a record that has none, as Kafka writes it.
pub(crate) const NO_TIMESTAMP: i64 = -1;

/// A header of a record. Names may repeat. A null value differs from an empty one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// The name.
    pub name: String,
    /// The value; `None` is null.
    pub value: Option<Vec<u8>>,
}

impl Header {
    /// The memory that the header takes, in bytes: the struct, the name and the value.
    pub(crate) fn byte_len(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// Whether records are read with their headers. Requesting headers takes time, even if records have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Headers {
    /// Records are read with their headers.
    Wanted,
    /// Headers are left out: records look as if they had none.
    Unwanted,
}

/// A record to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// The key; `None` is a null key, which no table can hold.
    pub key: Option<Vec<u8>>,
    /// The value; `None` makes the record a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<Header>,
    /// The partition; `None` leaves the choice to the partitioner (murmur2 of the key).
    pub partition: Option<Partition>,
    /// The timestamp, in milliseconds since 1970; `None` is the time of writing.
    pub timestamp: Option<i64>,
}

impl NewRecord {
    /// The size of the key, the value and the headers, in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|header| header.name.len() + len(&header.value)).sum();
        len(&self.key) + len(&self.value) + headers
    }
}

/// Consecutive records of one partition, stored by column. Keys and values are packed, as codecs take them.
#[derive(Debug, Clone)]
pub struct RecordBatch {
    partition: Partition,
    offsets: Vec<Offset>,
    timestamps: Vec<i64>,
    keys: PackedNullable,
    values: PackedNullable,
    /// One list for each record; empty as long as no record has headers.
    headers: Vec<Vec<Header>>,
    header_bytes: usize,
}

/// One record of a [`RecordBatch`].
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The partition.
    pub partition: Partition,
    /// The offset.
    pub offset: Offset,
    /// The timestamp, in milliseconds since 1970; `None` if the record has none.
    pub timestamp: Option<i64>,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null: the record is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a [Header],
}

impl RecordBatch {
    /// Creates a batch without records.
    #[must_use]
    pub fn new(partition: Partition) -> Self {
        Self {
            partition,
            offsets: Vec::new(),
            timestamps: Vec::new(),
            keys: PackedNullable::default(),
            values: PackedNullable::default(),
            headers: Vec::new(),
            header_bytes: 0,
        }
    }

    /// Appends a record. Its offset must be greater than that of the record before. A negative timestamp
    /// counts as none.
    pub fn push(
        &mut self,
        offset: Offset,
        timestamp: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Vec<Header>,
    ) {
        self.header_bytes += headers.iter().map(Header::byte_len).sum::<usize>();
        if !headers.is_empty() || !self.headers.is_empty() {
            self.headers.resize(self.offsets.len(), Vec::new());
            self.headers.push(headers);
        }
        self.offsets.push(offset);
        self.timestamps.push(timestamp.unwrap_or(NO_TIMESTAMP));
        self.keys.push(key);
        self.values.push(value);
    }

    /// Whether the batch has reached its maximum number of records or bytes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= BATCH_RECORDS || self.byte_len() >= BATCH_BYTES
    }

    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The size of all keys, values and headers, in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        self.keys.byte_len() + self.values.byte_len() + self.header_bytes
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The partition that the records belong to.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// The offset after the last record; `None` if the batch is empty.
    #[must_use]
    pub fn next_offset(&self) -> Option<Offset> {
        self.offsets.last().map(|offset| offset + 1)
    }

    /// Returns the records whose offsets are not below `offset`.
    #[must_use]
    pub(crate) fn starting_at(self, offset: Offset) -> Self {
        if self.offsets.first().is_none_or(|&first| first >= offset) {
            return self;
        }
        self.slice(self.offsets.partition_point(|&other| other < offset)..self.len())
    }

    /// Copies the records in a range of indices.
    ///
    /// # Panics
    ///
    /// If the batch has fewer records.
    #[must_use]
    pub(crate) fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let mut slice = Self::new(self.partition);
        for index in range {
            let record = self.get(index);
            slice.push(record.offset, record.timestamp, record.key, record.value, record.headers.to_vec());
        }
        slice
    }

    /// Returns the record at `index`.
    ///
    /// # Panics
    ///
    /// If the batch has fewer records.
    #[must_use]
    pub fn get(&self, index: usize) -> Record<'_> {
        Record {
            partition: self.partition,
            offset: self.offsets[index],
            timestamp: Some(self.timestamps[index]).filter(|&timestamp| timestamp >= 0),
            key: self.keys.get(index),
            value: self.values.get(index),
            headers: self.headers.get(index).map_or(&[], Vec::as_slice),
        }
    }

    /// The keys of all records.
    #[must_use]
    pub(crate) fn keys(&self) -> &PackedNullable {
        &self.keys
    }

    /// The values of all records.
    #[must_use]
    pub(crate) fn values(&self) -> &PackedNullable {
        &self.values
    }
}
