//! Estimates the cost of a component from its bytes, without parsing or compiling it.
//!
//! Parsers of components recurse, and compilers use memory for what a file describes, not for its size:
//! a few kilobytes can describe gigabytes. So every file is scanned before it is parsed or compiled.
//! [`scan_sections`] reads the structure and counts what one instance needs; it is fast enough for each load.
//! [`scan_code`] reads everything, once before a compilation.
//!
//! Neither function recurses, and both hold one item of the file in memory at a time.
//!
//! The limits are far above what codecs need. These are the largest numbers of five measured codecs, in Rust,
//! C, Go, TypeScript (QuickJS) and Python (CPython): an instance consists of 66 instances (Python), 14 of
//! them of modules, with 2 memories, 2 tables of up to 6,685 elements (Go) and 874 globals; one function has
//! 427 KB and 15,805 branch table entries (Python), or 271 locals; all functions together have 47,747 locals
//! (Python) and 71,936 branch table entries (Go); a file has 1,756 types.

mod code;
mod limits;
mod sections;

pub(super) use code::scan_code;
pub(crate) use limits::{MAX_BYTES, quote};
pub(super) use limits::{MAX_MEMORIES, MAX_MODULE_INSTANCES, MAX_TABLE_ELEMENTS, MAX_TABLES, Needs};
pub(super) use sections::scan_sections;
