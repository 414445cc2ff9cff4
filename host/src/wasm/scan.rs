//! What a component would cost, seen from its bytes without compiling it.
//!
//! Parsers of components recurse, and compilers take memory for what a file describes, not for
//! what it has: a few kilobytes can ask for gigabytes. So nothing parses or compiles a file
//! before it passed here. [`sections`] reads the structure and counts what one instance needs,
//! and is fast enough for each load; [`code`] reads everything, once before a compilation.
//!
//! Neither recurses, and both take memory for one item of the file at a time.
//!
//! The limits are far above what codecs need. Of one codec each in Rust, C, Go, TypeScript
//! (QuickJS) and Python (CPython), an instance consists of at most 66 instances (Python), 14 of
//! them of modules, with 2 memories, 2 tables and 874 globals; the largest function has 427 KB and
//! 15,805 branch table entries (Python), or 271 locals; all functions have 47,747 locals (Python)
//! and 71,936 branch table entries (Go); there are 1,756 types.

mod code;
mod sections;

pub(super) use code::code;
pub(super) use sections::sections;

use crate::escape;

/// The largest file: three times a component with a Python interpreter in it.
pub(crate) const MAX_BYTES: usize = 64 << 20;

/// How deep components may be nested in components.
const MAX_COMPONENT_DEPTH: usize = 8;

/// How deep types of components and instances may be nested.
const MAX_TYPE_DEPTH: usize = 16;

/// The most types, and declarations in types, of all components together.
const MAX_TYPES: u64 = 200_000;

/// The most components, and the most core modules, in a file.
const MAX_COMPONENTS: u64 = 100;
const MAX_MODULES: u64 = 100;

/// The most imports, and the most exports, of a component.
const MAX_EXTERNS: u64 = 1_000;

/// The most instances (of modules, of components, and of exports put together) that one
/// instance of the component consists of, counted through nesting.
const MAX_INSTANCES: u64 = 500;

/// The most core modules that are instantiated for one instance of the component. The pool of
/// instances has room for this many in each of its busiest workers.
pub(super) const MAX_MODULE_INSTANCES: u64 = 64;

/// The most memories of one instance of the component.
pub(super) const MAX_MEMORIES: u64 = 16;

/// The most tables of one instance of the component.
pub(super) const MAX_TABLES: u64 = 64;

/// The most globals of one instance of the component.
const MAX_GLOBALS: u64 = 50_000;

/// The most functions in a file.
const MAX_FUNCTIONS: u64 = 100_000;

/// The largest body of a function, in bytes: several times an interpreter's main loop.
const MAX_FUNCTION_BYTES: usize = 2 << 20;

/// The most locals of a function, and of all functions together.
const MAX_LOCALS: u64 = 20_000;
const MAX_ALL_LOCALS: u64 = 10_000_000;

/// The most entries of all branch tables of a function, and of all functions together.
const MAX_BRANCHES: u64 = 100_000;
const MAX_ALL_BRANCHES: u64 = 2_000_000;

/// What one instance of a component needs, counted through nesting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Needs {
    instances: u64,
    module_instances: u64,
    memories: u64,
    tables: u64,
    globals: u64,
    /// The bytes that the host keeps for it besides memories and table elements.
    pub(super) bytes: u64,
}

impl Needs {
    fn add(&mut self, other: Self) {
        self.instances = self.instances.saturating_add(other.instances);
        self.module_instances = self.module_instances.saturating_add(other.module_instances);
        self.memories = self.memories.saturating_add(other.memories);
        self.tables = self.tables.saturating_add(other.tables);
        self.globals = self.globals.saturating_add(other.globals);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// The limits that one instance would break.
    fn refusals(&self) -> Vec<String> {
        [
            exceeded("an instance of it consists of", "instances", self.instances, MAX_INSTANCES),
            exceeded(
                "an instance of it has",
                "module instances",
                self.module_instances,
                MAX_MODULE_INSTANCES,
            ),
            exceeded("an instance of it has", "memories", self.memories, MAX_MEMORIES),
            exceeded("an instance of it has", "tables", self.tables, MAX_TABLES),
            exceeded("an instance of it has", "globals", self.globals, MAX_GLOBALS),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Why a component is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It cannot be read.
    Invalid(wasmparser::BinaryReaderError),
    /// It breaks these limits.
    Limits(Vec<String>),
}

impl From<wasmparser::BinaryReaderError> for Refusal {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Invalid(error)
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Limits(vec![reason])
    }
}

impl Refusal {
    /// The reasons, in words.
    pub(super) fn reasons(self) -> Vec<String> {
        match self {
            Self::Invalid(error) => vec![format!("it is not a valid component: {error}")],
            Self::Limits(reasons) => reasons,
        }
    }
}

fn refuse(reason: Option<String>) -> Result<(), Refusal> {
    reason.map_or(Ok(()), |reason| Err(reason.into()))
}

/// A refusal if there are more than are allowed.
fn exceeded(has: &str, what: &str, count: u64, limit: u64) -> Option<String> {
    (count > limit).then(|| format!("{has} more than {limit} {what}, the most that are allowed"))
}

/// A name from a file, for a message.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", escape::name(name))
}
