//! Codecs that are WebAssembly components. No other module uses wasmtime.
//!
//! [`Engine::load`] reads a component, refuses it with all reasons if it cannot run safely, and compiles it
//! or takes it from the cache. [`Component::value_codec`], [`Component::key_codec`] and
//! [`Component::group_scheme`] create codecs from it, each with one configuration and as many instances as
//! there are concurrent calls.
//!
//! Invariants:
//! - A guest decodes and encodes on codec workers only; loading and configuring block the caller. A guest
//!   runs within a deadline, a memory limit, an output limit, and the memory budget of the engine.
//! - An instance that trapped or broke the contract is dropped, and never used again.
//! - The host trusts nothing that a guest returns: it checks item counts, UTF-8 and JSON.
//! - Compiled code is loaded only from a private folder, and only if its digest matches.

mod bindings;
mod byte_len;
mod cache;
pub(crate) mod child;
mod codecs;
pub(crate) mod compile;
mod compiled;
mod component;
mod config;
mod digest;
#[cfg(feature = "cli")]
mod direct;
mod engine;
mod error;
mod fault;
mod guest_log;
mod guest_output;
mod imports;
mod inspect;
mod instance;
mod interfaces;
mod limits;
mod metering;
mod scan;
mod sealed_wasi;
mod state;
mod usage;

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
pub(crate) use direct::{Answer, CodecKind, DirectCodec, Form, Outcome, Request};
#[cfg(feature = "cli")]
pub(crate) use imports::judge_import;
#[cfg(feature = "cli")]
pub(crate) use scan::{MAX_BYTES, quote};
#[cfg(feature = "cli")]
pub(crate) use usage::Usage;

/// Checks the types and the code of a component or a core module, before anything parses it. The error
/// holds every reason to refuse it.
#[cfg(feature = "cli")]
pub(crate) fn check_code(bytes: &[u8]) -> Result<(), Vec<String>> {
    scan::scan_code(bytes).map_err(|refusal| refusal.reasons())
}

/// Scans the code of a component, for fuzzers. Returns whether the scan accepts it.
#[cfg(any(feature = "fuzzing", all(test, feature = "cli")))]
pub(crate) fn scan_code(bytes: &[u8]) -> bool {
    scan::scan_code(bytes).is_ok()
}
