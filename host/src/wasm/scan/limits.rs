//! The limits of the scan, and the resources that one instance of a component needs.

use crate::escape::escape_name;

/// The largest file, in bytes: three times a component with a Python interpreter.
pub(crate) const MAX_BYTES: usize = 64 << 20;

/// How deeply components may be nested in components.
pub(in crate::wasm) const MAX_COMPONENT_DEPTH: usize = 8;

/// How deeply types of components and instances may be nested.
pub(in crate::wasm) const MAX_TYPE_DEPTH: usize = 16;

/// The most types, and declarations in types, of all components together.
pub(in crate::wasm) const MAX_TYPES: u64 = 200_000;

/// The most bytes of all sections of types together. Reading 60 MB of types took 1.6 GB of memory.
pub(in crate::wasm) const MAX_TYPE_BYTES: u64 = 4 << 20;

/// The longest name of an import or export of a component, in bytes.
pub(in crate::wasm) const MAX_EXTERN_NAME_BYTES: u64 = 1_000;

/// The most components in a file.
pub(in crate::wasm) const MAX_COMPONENTS: u64 = 100;

/// The most core modules in a file.
pub(in crate::wasm) const MAX_MODULES: u64 = 100;

/// The most imports of a component, the most exports, and the most components and modules that it can instantiate.
pub(in crate::wasm) const MAX_EXTERNS: u64 = 1_000;

/// The most instances that one instance of the component consists of: instances of modules, of components
/// and of groups of exports, multiplied through nesting.
pub(in crate::wasm) const MAX_INSTANCES: u64 = 500;

/// The most core modules that are instantiated for one instance of the component. The pool of instances is
/// configured for twice as many in one component.
pub(in crate::wasm) const MAX_MODULE_INSTANCES: u64 = 64;

/// The most memories of one instance of the component.
pub(in crate::wasm) const MAX_MEMORIES: u64 = 16;

/// The most tables of one instance of the component.
pub(in crate::wasm) const MAX_TABLES: u64 = 64;

/// The most elements that a table may have, at the start or after growing. The pool of instances is configured for this many.
pub(in crate::wasm) const MAX_TABLE_ELEMENTS: u64 = 100_000;

/// The most globals of one instance of the component.
pub(in crate::wasm) const MAX_GLOBALS: u64 = 50_000;

/// The most functions in a file.
pub(in crate::wasm) const MAX_FUNCTIONS: u64 = 100_000;

/// The largest body of a function, in bytes: several times an interpreter's main loop.
pub(in crate::wasm) const MAX_FUNCTION_BYTES: usize = 2 << 20;

/// The most locals of a function.
pub(in crate::wasm) const MAX_LOCALS: u64 = 20_000;

/// The most locals of all functions together.
pub(in crate::wasm) const MAX_ALL_LOCALS: u64 = 10_000_000;

/// The most entries of all branch tables of a function.
pub(in crate::wasm) const MAX_BRANCHES: u64 = 100_000;

/// The most entries of the branch tables of all functions together.
pub(in crate::wasm) const MAX_ALL_BRANCHES: u64 = 2_000_000;

/// The resources that one instance of a component needs, multiplied through nesting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::wasm) struct Needs {
    pub(super) instances: u64,
    pub(super) module_instances: u64,
    pub(super) memories: u64,
    pub(super) tables: u64,
    pub(super) globals: u64,
    /// The bytes that the host keeps for the instance, besides memories and table elements.
    pub(in crate::wasm) bytes: u64,
}

impl Needs {
    /// Adds what another instance needs.
    pub(super) fn add(&mut self, other: Self) {
        self.instances = self.instances.saturating_add(other.instances);
        self.module_instances = self.module_instances.saturating_add(other.module_instances);
        self.memories = self.memories.saturating_add(other.memories);
        self.tables = self.tables.saturating_add(other.tables);
        self.globals = self.globals.saturating_add(other.globals);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Returns a reason for each limit that one instance would exceed.
    pub(super) fn refusals(&self) -> Vec<String> {
        [
            describe_excess("an instance of it consists of", "instances", self.instances, MAX_INSTANCES),
            describe_excess(
                "an instance of it has",
                "module instances",
                self.module_instances,
                MAX_MODULE_INSTANCES,
            ),
            describe_excess("an instance of it has", "memories", self.memories, MAX_MEMORIES),
            describe_excess("an instance of it has", "tables", self.tables, MAX_TABLES),
            describe_excess("an instance of it has", "globals", self.globals, MAX_GLOBALS),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Why a component is refused.
#[derive(Debug)]
pub(in crate::wasm) enum Refusal {
    /// The component is malformed.
    Invalid(wasmparser::BinaryReaderError),
    /// The component exceeds limits; a reason for each.
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
    /// Returns the reasons in words.
    pub(in crate::wasm) fn reasons(self) -> Vec<String> {
        match self {
            Self::Invalid(error) => vec![format!("it is not a valid component: {error}")],
            Self::Limits(reasons) => reasons,
        }
    }
}

/// Fails if there is a reason to refuse the component.
pub(super) fn refuse(reason: Option<String>) -> Result<(), Refusal> {
    reason.map_or(Ok(()), |reason| Err(reason.into()))
}

/// Returns the reason to refuse a component that has more than `limit` of something.
pub(super) fn describe_excess(subject: &str, items: &str, count: u64, limit: u64) -> Option<String> {
    (count > limit).then(|| format!("{subject} more than {limit} {items}, but at most {limit} are allowed"))
}

/// Quotes a name from a file for a message.
pub(crate) fn quote(name: &str) -> String {
    format!("`{}`", escape_name(name))
}
