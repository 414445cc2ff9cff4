//! Records: one at a time for writing, in batches for reading.

use crate::log::{Offset, Partition};
use crate::packed::PackedOptions;

/// A batch is closed when its keys, values and headers reach this: it stays in a core's
/// cache on its way through a codec, where a batch of 1 MiB does not.
const BATCH_BYTES: usize = 128 * 1024;

/// A batch is closed at this many records, so that a fault in one of them costs
/// a bounded number of calls to isolate.
const BATCH_RECORDS: usize = 1024;

/// A record's header. Names may repeat; null and empty values differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

impl Header {
    /// The bytes that it takes: its texts, and what holds them.
    pub(crate) fn byte_len(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// Whether records are read with their headers. Looking for them takes time, even where
/// there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// They are.
    Wanted,
    /// As if there were none.
    Unwanted,
}

/// A record to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Its key; `None` is a null key, which no table can hold.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a null value, which deletes.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<Header>,
    /// Where it goes; `None` leaves it to the partitioner: murmur2 of the key.
    pub partition: Option<Partition>,
    /// Milliseconds since 1970; `None` is now.
    pub timestamp: Option<i64>,
}

impl NewRecord {
    /// The bytes of its key, its value and its headers.
    pub(crate) fn byte_len(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|header| header.name.len() + len(&header.value)).sum();
        len(&self.key) + len(&self.value) + headers
    }
}

/// Consecutive records of one partition, by column: keys and values lie packed,
/// ready for a codec.
#[derive(Debug, Clone)]
pub struct RecordBatch {
    partition: Partition,
    offsets: Vec<Offset>,
    timestamps: Vec<i64>,
    keys: PackedOptions,
    values: PackedOptions,
    /// One list a record, or empty while no record had any.
    headers: Vec<Vec<Header>>,
    header_bytes: usize,
}

/// One record of a [`RecordBatch`].
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since 1970, or -1 where the log has none.
    pub timestamp: i64,
    /// Its key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is null: a delete.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [Header],
}

impl RecordBatch {
    /// A batch without records.
    #[must_use]
    pub fn new(partition: Partition) -> Self {
        Self {
            partition,
            offsets: Vec::new(),
            timestamps: Vec::new(),
            keys: PackedOptions::default(),
            values: PackedOptions::default(),
            headers: Vec::new(),
            header_bytes: 0,
        }
    }

    /// Appends a record; offsets ascend.
    pub fn push(
        &mut self,
        offset: Offset,
        timestamp: i64,
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
        self.timestamps.push(timestamp);
        self.keys.push(key);
        self.values.push(value);
    }

    /// Whether the batch has reached its size.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= BATCH_RECORDS || self.byte_len() >= BATCH_BYTES
    }

    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The bytes of all keys, values and headers.
    pub(crate) fn byte_len(&self) -> usize {
        self.keys.byte_len() + self.values.byte_len() + self.header_bytes
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The partition the records are of.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// The offset behind the last record.
    #[must_use]
    pub fn next_offset(&self) -> Option<Offset> {
        self.offsets.last().map(|offset| offset + 1)
    }

    /// The records from an offset on.
    #[must_use]
    pub fn from_offset(self, offset: Offset) -> Self {
        if self.offsets.first().is_none_or(|&first| first >= offset) {
            return self;
        }
        self.slice(self.offsets.partition_point(|&known| known < offset)..self.len())
    }

    /// The records in a range of indices, copied.
    ///
    /// # Panics
    ///
    /// If there are not that many records.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let mut slice = Self::new(self.partition);
        for index in range {
            let record = self.get(index);
            slice.push(record.offset, record.timestamp, record.key, record.value, record.headers.to_vec());
        }
        slice
    }

    /// Record `index`.
    ///
    /// # Panics
    ///
    /// If there are not that many records.
    #[must_use]
    pub fn get(&self, index: usize) -> Record<'_> {
        Record {
            partition: self.partition,
            offset: self.offsets[index],
            timestamp: self.timestamps[index],
            key: self.keys.get(index),
            value: self.values.get(index),
            headers: self.headers.get(index).map_or(&[], Vec::as_slice),
        }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &PackedOptions {
        &self.keys
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &PackedOptions {
        &self.values
    }
}
