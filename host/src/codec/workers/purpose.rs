//! The purpose of a job.

/// The purpose of a job. Each purpose has lanes of its own, so jobs of writers do not queue behind
/// those of tables of the same codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Decoding records for a table.
    Read,
    /// Encoding and verifying writes.
    Write,
}
