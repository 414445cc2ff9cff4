//! What a job is for.

/// What a job is for. Jobs of writers do not wait for jobs of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Decoding records for a table.
    Read,
    /// Encoding and checking writes.
    Write,
}
