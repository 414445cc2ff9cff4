//! The result of a test.

use serde::Serialize;

use crate::authors::vectors::Vector;
use crate::wasm::{CodecKind, Request};

/// The result of a test of one kind of codec.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TestResult {
    kind: CodecKind,
    /// `accepted-samples`, `no-faults`, `round-trip`, `independent-calls`, `batch-form` or `memory-growth`.
    test: &'static str,
    pub(crate) passed: bool,
    /// How many requests were checked.
    checked: usize,
    /// The smallest requests that were found to show the fault, in order, as vectors: `ktables codec run --lines` takes
    /// them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    counterexample: Vec<Vector>,
    /// What was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
}

impl TestResult {
    /// Returns the kind of codec and the test, as a report names them.
    pub(crate) fn name(&self) -> String {
        let kind = match self.kind {
            CodecKind::Value => "value",
            CodecKind::Key => "key",
            CodecKind::Group => "group",
        };
        format!("{kind}/{}", self.test)
    }

    pub(super) fn passed(kind: CodecKind, test: &'static str, checked: usize) -> Self {
        Self { kind, test, passed: true, checked, counterexample: Vec::new(), found: None }
    }

    /// Adds something that is worth knowing.
    pub(super) fn with_note(mut self, note: String) -> Self {
        self.found = Some(note);
        self
    }

    pub(super) fn failed(mut self, counterexample: &[Request], found: String) -> Self {
        self.passed = false;
        self.counterexample = counterexample.iter().map(Vector::from_request).collect();
        self.found = Some(found);
        self
    }
}
