//! What a policy is asked: how a codec is used.

use std::time::Duration;

/// The limits that a configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestedLimits {
    pub(crate) memory: usize,
    pub(crate) deadline: Duration,
}

/// How a codec is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use<'a> {
    /// The table; `None` for a codec that no table uses, which any rule for its source may approve.
    pub(crate) table: Option<&'a str>,
    /// The limits of its configuration; `None` without one.
    pub(crate) limits: Option<RequestedLimits>,
}

pub(super) fn for_table(usage: Use<'_>) -> String {
    usage.table.map_or_else(String::new, |table| format!(" for table {table}"))
}

/// Joins names: `a, b or c`.
pub(super) fn join_or(names: &[String]) -> String {
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
        None => "anybody".to_owned(),
    }
}
