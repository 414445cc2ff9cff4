//! Writing: producers, transactions, and what is known of the topics written to.

pub(super) mod producer;
pub(super) mod target;
pub(super) mod transaction;
pub(super) mod writing;
