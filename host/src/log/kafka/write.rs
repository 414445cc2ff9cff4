//! Writing: producers, transactions, and the limits of the topics that are written to.

pub(super) mod cluster_writer;
pub(super) mod producer;
pub(super) mod target;
pub(super) mod transaction;
