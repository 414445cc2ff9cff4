//! Scans the bytes of a component for what it would cost, without parsing or compiling it.
//!
//! Parsers of components recurse, and compilers use memory for what a file describes, not for its size:
//! a few kilobytes can ask for gigabytes. So no file is parsed or compiled before it was scanned.
//! [`sections`] reads the structure and counts what one instance needs; it is fast enough for each load.
//! [`code`] reads everything, once before a compilation.
//!
//! Neither recurses, and both hold one item of the file in memory at a time.
//!
//! The limits are far above what codecs need. Of one codec each in Rust, C, Go, TypeScript
//! (QuickJS) and Python (CPython), an instance consists of at most 66 instances (Python), 14 of
//! them of modules, with 2 memories, 2 tables and 874 globals; the largest function has 427 KB and
//! 15,805 branch table entries (Python), or 271 locals; all functions have 47,747 locals (Python)
//! and 71,936 branch table entries (Go); there are 1,756 types.

mod code;
mod limits;
mod sections;

pub(super) use code::code;
pub(crate) use limits::MAX_BYTES;
pub(super) use limits::{MAX_MEMORIES, MAX_MODULE_INSTANCES, MAX_TABLES, Needs, Refusal, quoted};
pub(super) use sections::sections;
