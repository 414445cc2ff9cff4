//! The purpose of a job.

/// The purpose of a job. Each purpose has lanes of its own, so jobs of writers do not wait for jobs of
/// tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Decoding records for a table.
    Read,
    /// Encoding and verifying writes.
    Write,
}
