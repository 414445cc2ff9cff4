//! Codecs that are WebAssembly components. No other module names wasmtime.
//!
//! [`Engine::load`] reads a component, refuses what it cannot run safely (with the reasons), and
//! compiles it or takes it from the cache. [`Component::value_codec`], [`Component::key_codec`] and
//! [`Component::group_scheme`] make codecs of it, each with one configuration and as many instances
//! as calls run at once.
//!
//! Invariants:
//! - A guest decodes and encodes on codec workers only; loading and configuring block the caller. It
//!   runs within a deadline, a memory limit, an output limit, and a memory budget of the engine.
//! - An instance that trapped or broke a rule is dropped, never used again.
//! - Nothing that a guest returns is trusted: item counts, UTF-8 and JSON are checked.
//! - Compiled code is loaded only from a private folder, and only if its digest is right.

mod bindings;
mod cache;
pub(crate) mod child;
mod codecs;
pub(crate) mod compile;
mod compiled;
mod component;
mod config;
mod digest;
mod engine;
mod error;
mod fault;
mod guest_log;
mod imports;
mod inspect;
mod instance;
mod interfaces;
mod limits;
mod metering;
mod scan;
mod state;

pub use compile::Compiler;
pub use component::{Component, Description, LoadOptions};
pub use digest::digest_of;
pub use engine::{Engine, EngineOptions};
pub use error::WasmError;
pub use inspect::{Inspection, inspect};
pub use interfaces::{Interface, SUPPORTED_VERSIONS};
pub use limits::{Limits, Profile};
pub use metering::Metering;

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
