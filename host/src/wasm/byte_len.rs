//! The size of an answer in bytes, which counts against the output limits.

use crate::codec::{Encoded, GroupKey};
use crate::log::Header;

/// An answer for one item, whose size counts against the output limits.
pub(super) trait ByteLen {
    /// Returns the size in bytes.
    fn byte_len(&self) -> usize;
}

impl ByteLen for String {
    fn byte_len(&self) -> usize {
        self.len()
    }
}

impl ByteLen for Box<str> {
    fn byte_len(&self) -> usize {
        self.len()
    }
}

impl ByteLen for Vec<u8> {
    fn byte_len(&self) -> usize {
        self.len()
    }
}

impl ByteLen for Encoded {
    fn byte_len(&self) -> usize {
        self.raw.len() + self.headers.iter().map(Header::byte_len).sum::<usize>()
    }
}

impl ByteLen for Option<GroupKey> {
    fn byte_len(&self) -> usize {
        self.as_ref().map_or(0, |pair| pair.group.len() + pair.member.len())
    }
}
