//! Who is reading a checkpoint while it may be written.

use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// How many generations are reading the segments of a checkpoint. Compaction removes none meanwhile. A std lock: held to
/// read or change the number.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<usize>);

impl Readers {
    pub(super) fn is_empty(&self) -> bool {
        *lock(&self.0) == 0
    }
}

/// Keeps the segments of a checkpoint until it is dropped.
#[derive(Debug)]
pub(super) struct Reader(Arc<Readers>);

impl Reader {
    pub(super) fn new(readers: &Arc<Readers>) -> Self {
        *lock(&readers.0) += 1;
        Self(readers.clone())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        *lock(&self.0.0) -= 1;
    }
}
