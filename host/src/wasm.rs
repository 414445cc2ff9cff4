//! Codecs that are WebAssembly components: the only place that names wasmtime.
//!
//! [`Engine::load`] reads a component, refuses what it cannot run safely (with
//! the reasons), and compiles it or takes it from the cache.
//! [`Component::value_codec`], [`Component::key_codec`] and
//! [`Component::group_scheme`] make codecs of it: one configuration each, behind
//! it as many instances as run at once.
//!
//! Invariants:
//! - A guest sees records on codec workers only; loading and configuring block the
//!   caller. It runs within a deadline, a memory limit, an
//!   output limit, and a memory budget for the whole engine.
//! - An instance that trapped or broke a rule is dropped, never used again.
//! - Nothing a guest returns is believed: item counts, UTF-8 and JSON are checked.
//! - A compiled component is loaded only from a private folder, only if its
//!   digest is right.

mod bindings;
mod cache;
pub(crate) mod child;
mod codecs;
pub(crate) mod compile;
mod component;
mod engine;
mod error;
mod fault;
mod inspect;
mod instance;
mod limits;
mod messages;
mod scan;
mod state;

pub use compile::Compiler;
pub use component::{Component, Description, LoadOptions, digest_of};
pub use engine::{Engine, EngineOptions, Metering};
pub use error::WasmError;
pub use inspect::{Inspection, Interface, SUPPORTED_VERSIONS, inspect};
pub use limits::{Limits, Profile};

#[cfg(feature = "cli")]
pub(crate) use scan::MAX_BYTES;

/// Checks types and code of a component or a core module before something parses it; every
/// reason to refuse it.
#[cfg(feature = "cli")]
pub(crate) fn check_code(bytes: &[u8]) -> Result<(), Vec<String>> {
    scan::code(bytes).map_err(scan::Refusal::reasons)
}

/// Scans the code of a component, for fuzzers; whether it is accepted.
#[cfg(any(feature = "fuzzing", all(test, feature = "cli")))]
pub(crate) fn scan_code(bytes: &[u8]) -> bool {
    scan::code(bytes).is_ok()
}
