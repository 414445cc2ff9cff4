//! The hash of a key in this process.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use foldhash::fast::RandomState;

/// The hash of a key in this process. Decoding computes it, so that applying does not have to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyHash(pub(super) u32);

impl KeyHash {
    pub(super) fn of(key: &str) -> Self {
        static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        // The upper half of the hash; any half is as good.
        Self((STATE.hash_one(key.as_bytes()) >> 32) as u32)
    }
}
