//! What a table holds for a key.

use std::fmt;
use std::ops::Range;

use triomphe::ThinArc;

use crate::codec::RejectKind;
use crate::log::{Offset, Partition};
use crate::table::reject::Reject;

/// A key's newest accepted value, and where it came from. A clone is a handle.
///
/// One allocation, of which a page keeps one pointer: this, 40 bytes, the key and the
/// value are what an entry takes, and 16 bytes more if it has a group.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry(ThinArc<Head, u8>);

/// What stands before the texts: the key, names that are no part of it, the value, and
/// where in all that group and member are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    offset: Offset,
    timestamp: i64,
    partition: Partition,
    /// The length of the key, and [`GROUPED`].
    key: u32,
}

/// Set if the entry has a group. Records are shorter than this.
const GROUPED: u32 = 1 << 31;

/// What an entry takes besides its texts, with its places in the index and the pages: 71 bytes
/// were measured.
pub(super) const ROW_BYTES: usize = 72;

/// Begin and end of the group, begin and end of the member.
const PLACES: usize = 4 * size_of::<u32>();

/// Where a record is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    pub(super) timestamp: i64,
}

/// Makes entries, one after the other in the same memory.
#[derive(Debug, Default)]
pub(super) struct EntryMaker {
    text: Vec<u8>,
}

impl EntryMaker {
    /// An entry of this key, group and member, and value, which was checked to be text.
    pub(super) fn make(
        &mut self,
        origin: Origin,
        key: &str,
        pair: Option<(&str, &str)>,
        value: &[u8],
    ) -> Entry {
        let Origin { partition, offset, timestamp } = origin;
        self.text.clear();
        self.text.extend_from_slice(key.as_bytes());
        let mut head = Head { offset, timestamp, partition, key: number(key.len()) };
        let places = pair.map(|(group, member)| {
            head.key |= GROUPED;
            // A member's name is the end of the key, as a rule.
            (self.place(key.find(group), group), self.place(key.rfind(member), member))
        });
        self.text.extend_from_slice(value);
        if let Some((group, member)) = places {
            for end in [group.start, group.end, member.start, member.end] {
                self.text.extend_from_slice(&number(end).to_ne_bytes());
            }
        }
        Entry(ThinArc::from_header_and_slice(head, &self.text))
    }

    /// Where a name is: where it was found, or at the end, where it is put.
    fn place(&mut self, found: Option<usize>, name: &str) -> Range<usize> {
        let start = found.unwrap_or_else(|| {
            self.text.extend_from_slice(name.as_bytes());
            self.text.len() - name.len()
        });
        start..start + name.len()
    }
}

/// A length within a record.
fn number(length: usize) -> u32 {
    // OK because a record's length is a positive `i32` in Kafka, and a table's text at
    // most some times as long.
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

    /// Whether this is a handle to the same entry.
    pub(super) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(&raw const *self.0, &raw const *other.0)
    }

    /// Whether it has a group.
    pub(super) fn is_grouped(&self) -> bool {
        self.head().key & GROUPED != 0
    }

    /// Where the group and the member are.
    fn places(&self) -> Option<[Range<usize>; 2]> {
        if !self.is_grouped() {
            return None;
        }
        let places = self.0.slice.last_chunk::<PLACES>()?;
        let at = |index: usize| {
            let bytes = [0, 1, 2, 3].map(|byte| places[index * 4 + byte]);
            u32::from_ne_bytes(bytes) as usize
        };
        Some([at(0)..at(1), at(2)..at(3)])
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.text(0..self.key_len())
    }

    /// Whether its key is this one.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.0.slice[..self.key_len()] == *key.as_bytes()
    }

    /// Its group's name; `None` in a table without a group scheme.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.places().map(|[group, _]| self.text(group))
    }

    /// Its name in its group; `None` in a table without a group scheme.
    #[must_use]
    pub fn member(&self) -> Option<&str> {
        self.places().map(|[_, member]| self.text(member))
    }

    /// Its group's name, and its own in it.
    pub(super) fn pair(&self) -> Option<(&str, &str)> {
        self.places().map(|[group, member]| (self.text(group), self.text(member)))
    }

    fn json_range(&self) -> Range<usize> {
        match self.places() {
            None => self.key_len()..self.0.slice.len(),
            Some([group, member]) => {
                let names = group.end.max(member.end).max(self.key_len());
                names..self.0.slice.len() - PLACES
            }
        }
    }

    /// Its value: JSON text on one line.
    #[must_use]
    pub fn json(&self) -> &str {
        self.text(self.json_range())
    }

    /// The bytes that it takes.
    pub(super) fn byte_len(&self) -> usize {
        ROW_BYTES + self.0.slice.len()
    }

    /// The bytes of its key and its value.
    pub(super) fn payload(&self) -> u64 {
        (self.key_len() + self.json_range().len()) as u64
    }

    /// Its value as a Rust type.
    ///
    /// # Errors
    ///
    /// If the JSON does not fit the type.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_str(self.json())
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

    /// The timestamp of its record: milliseconds since 1970, -1 if it has none.
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        self.head().timestamp
    }

    /// Where its record is.
    pub(super) fn origin(&self) -> Origin {
        let Head { partition, offset, timestamp, .. } = *self.head();
        Origin { partition, offset, timestamp }
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

/// A key's newest record was rejected: its entry, if there is one, is older.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The partition of the rejected record.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// What was wrong with it.
    pub kind: RejectKind,
    /// The same in words.
    pub message: String,
}

/// The words of a notice are cut at this many bytes: there may be as many notices
/// as keys. The reject has all of them.
const NOTICE_BYTES: usize = 256;

impl Notice {
    /// The notice on a record.
    pub(super) fn of(reject: &Reject) -> Self {
        let cut = reject.rejection.message.floor_char_boundary(NOTICE_BYTES);
        Self {
            partition: reject.partition,
            offset: reject.offset,
            kind: reject.rejection.kind,
            message: reject.rejection.message[..cut].to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn texts_come_back(key: String, pair: Option<(String, String)>, cut: usize, value: String) {
            // Names that are parts of the key, and names that are not.
            let cut = key.floor_char_boundary(cut % (key.len() + 1));
            for pair in [pair.as_ref().map(|(g, m)| (g.as_str(), m.as_str())), Some(key.split_at(cut)), None] {
                let origin = Origin { partition: 3, offset: 4, timestamp: 5 };
                let entry = EntryMaker::default().make(origin, &key, pair, value.as_bytes());
                prop_assert_eq!((entry.key(), entry.json()), (&*key, &*value));
                prop_assert!(entry.has_key(&key));
                prop_assert_eq!(entry.group().zip(entry.member()), pair);
                prop_assert_eq!((entry.partition(), entry.offset(), entry.timestamp()), (3, 4, 5));
                prop_assert_eq!(entry.payload() as usize, key.len() + value.len());
            }
        }
    }
}
