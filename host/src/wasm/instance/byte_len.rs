//! How many bytes an answer takes.

use crate::codec::{Encoded, GroupKey};
use crate::log::Header;

/// An answer to one item.
pub(super) trait ByteLen {
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
