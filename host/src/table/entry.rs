//! The entry of a key in a table.

use std::fmt;
use std::ops::Range;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use triomphe::ThinArc;

use crate::log::{NO_TIMESTAMP, Offset, Partition};
use crate::table::error::ParseError;
use crate::table::record_place::RecordPlace;

/// A key's newest accepted value, and where its record is. A clone is a handle to the same entry.
///
/// An entry is one allocation, and a page holds one pointer to it. It uses 40 bytes, its key and its
/// value, and 16 bytes more if it has a group.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry(ThinArc<Head, u8>);

/// The header of the allocation. After it come the key, the names of group and member if they are not
/// parts of the key, the value, and the ranges of group and member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    offset: Offset,
    /// Milliseconds since 1970; -1 if the record has none.
    timestamp: i64,
    partition: Partition,
    /// The length of the key, and [`GROUPED`].
    key: u32,
}

/// Set in the length of the key if the entry has a group. Records are shorter than this.
const GROUPED: u32 = 1 << 31;

/// What an entry uses besides its texts, with its slots in the index and the pages: 71 bytes were
/// measured.
pub(super) const ENTRY_BYTES: usize = 72;

/// The size of the ranges of group and member: start and end of both.
const NAME_BYTES: usize = 4 * size_of::<u32>();

/// Makes entries; reuses its buffer.
#[derive(Debug, Default)]
pub(super) struct EntryMaker {
    text: Vec<u8>,
}

impl EntryMaker {
    /// Makes an entry of a key, its group and member, and a value that is UTF-8.
    pub(super) fn make(
        &mut self,
        place: RecordPlace,
        key: &str,
        pair: Option<(&str, &str)>,
        value: &[u8],
    ) -> Entry {
        let RecordPlace { partition, offset, timestamp } = place;
        let timestamp = timestamp.unwrap_or(NO_TIMESTAMP);
        self.text.clear();
        self.text.extend_from_slice(key.as_bytes());
        let mut head = Head { offset, timestamp, partition, key: to_u32(key.len()) };
        let names = pair.map(|(group, member)| {
            head.key |= GROUPED;
            // A member's name is the end of the key, as a rule.
            (self.range_of(key.find(group), group), self.range_of(key.rfind(member), member))
        });
        self.text.extend_from_slice(value);
        if let Some((group, member)) = names {
            for end in [group.start, group.end, member.start, member.end] {
                self.text.extend_from_slice(&to_u32(end).to_ne_bytes());
            }
        }
        Entry(ThinArc::from_header_and_slice(head, &self.text))
    }

    /// Returns the range of a name: the place where it was found in the key, or else the end of the text,
    /// to which it is appended.
    fn range_of(&mut self, found: Option<usize>, name: &str) -> Range<usize> {
        let start = found.unwrap_or_else(|| {
            self.text.extend_from_slice(name.as_bytes());
            self.text.len() - name.len()
        });
        start..start + name.len()
    }
}

/// Converts a length within an entry to a `u32`.
fn to_u32(length: usize) -> u32 {
    // OK because clients and the output limit of components keep records and decoded keys far below 2 GiB. A
    // codec of the embedding program must do so itself.
    u32::try_from(length).ok().filter(|&length| length < GROUPED).expect("less than 2 GiB")
}

impl Entry {
    fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn key_len(&self) -> usize {
        (self.head().key & !GROUPED) as usize
    }

    fn text(&self, range: Range<usize>) -> &str {
        // OK because these were texts when the entry was made.
        std::str::from_utf8(&self.0.slice[range]).expect("UTF-8")
    }

    /// Whether both are handles to the same entry.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(&raw const *self.0, &raw const *other.0)
    }

    /// Whether the entry has a group.
    pub(super) fn is_grouped(&self) -> bool {
        self.head().key & GROUPED != 0
    }

    /// The ranges of group and member.
    fn names(&self) -> Option<[Range<usize>; 2]> {
        if !self.is_grouped() {
            return None;
        }
        let ends = self.0.slice.last_chunk::<NAME_BYTES>()?;
        let at = |index: usize| {
            let bytes = [0, 1, 2, 3].map(|byte| ends[index * 4 + byte]);
            u32::from_ne_bytes(bytes) as usize
        };
        Some([at(0)..at(1), at(2)..at(3)])
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.text(0..self.key_len())
    }

    /// Whether the entry has this key.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.0.slice[..self.key_len()] == *key.as_bytes()
    }

    /// The name of its group; `None` in a table without a group scheme.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.names().map(|[group, _]| self.text(group))
    }

    /// The name of the member in its group; `None` in a table without a group scheme.
    #[must_use]
    pub fn member(&self) -> Option<&str> {
        self.names().map(|[_, member]| self.text(member))
    }

    /// The names of group and member.
    pub(super) fn pair(&self) -> Option<(&str, &str)> {
        self.names().map(|[group, member]| (self.text(group), self.text(member)))
    }

    fn json_range(&self) -> Range<usize> {
        match self.names() {
            None => self.key_len()..self.0.slice.len(),
            Some([group, member]) => {
                let names = group.end.max(member.end).max(self.key_len());
                names..self.0.slice.len() - NAME_BYTES
            }
        }
    }

    /// The value: JSON text on one line.
    #[must_use]
    pub fn json(&self) -> &str {
        self.text(self.json_range())
    }

    /// The bytes of memory that it uses.
    pub(super) fn byte_len(&self) -> usize {
        ENTRY_BYTES + self.0.slice.len()
    }

    /// The bytes of its key and its value.
    pub(super) fn payload_bytes(&self) -> u64 {
        (self.key_len() + self.json_range().len()) as u64
    }

    /// Parses the value into a Rust type.
    ///
    /// # Errors
    ///
    /// If the value does not fit the type.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, ParseError> {
        serde_json::from_str(self.json()).map_err(|source| ParseError { key: self.key().to_owned(), source })
    }

    /// The partition of its record.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.head().partition
    }

    /// The offset of its record.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.head().offset
    }

    /// The timestamp of its record: milliseconds since 1970; `None` if it has none.
    #[must_use]
    pub fn timestamp(&self) -> Option<i64> {
        (self.head().timestamp != NO_TIMESTAMP).then_some(self.head().timestamp)
    }

    /// Where its record is.
    pub(super) fn place(&self) -> RecordPlace {
        let (partition, offset, timestamp) = (self.partition(), self.offset(), self.timestamp());
        RecordPlace { partition, offset, timestamp }
    }
}

/// An object with the fields `key`, `group` and `member` (if the entry has them), `value` (JSON),
/// `partition`, `offset`, and `timestamp` (milliseconds since 1970, or null).
impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: &RawValue = self.parse().map_err(serde::ser::Error::custom)?;
        let pair = self.pair();
        let fields = if pair.is_some() { 7 } else { 5 };
        let mut object = serializer.serialize_struct("Entry", fields)?;
        object.serialize_field("key", self.key())?;
        if let Some((group, member)) = pair {
            object.serialize_field("group", group)?;
            object.serialize_field("member", member)?;
        }
        object.serialize_field("value", value)?;
        object.serialize_field("partition", &self.partition())?;
        object.serialize_field("offset", &self.offset())?;
        object.serialize_field("timestamp", &self.timestamp())?;
        object.end()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key())
            .field("group", &self.group())
            .field("member", &self.member())
            .field("json", &self.json())
            .field("partition", &self.partition())
            .field("offset", &self.offset())
            .field("timestamp", &self.timestamp())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_keep_their_texts(key: String, pair: Option<(String, String)>, cut: usize, value: String) {
            // Names that are parts of the key, and names that are not.
            let cut = key.floor_char_boundary(cut % (key.len() + 1));
            for pair in [pair.as_ref().map(|(g, m)| (g.as_str(), m.as_str())), Some(key.split_at(cut)), None] {
                let place = RecordPlace { partition: 3, offset: 4, timestamp: Some(5) };
                let entry = EntryMaker::default().make(place, &key, pair, value.as_bytes());
                prop_assert_eq!((entry.key(), entry.json()), (&*key, &*value));
                prop_assert!(entry.has_key(&key));
                prop_assert_eq!(entry.group().zip(entry.member()), pair);
                prop_assert_eq!((entry.partition(), entry.offset(), entry.timestamp()), (3, 4, Some(5)));
                prop_assert_eq!(entry.payload_bytes() as usize, key.len() + value.len());
            }
        }
    }
}
