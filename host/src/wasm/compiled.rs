//! Compiled code: identifies the engine that it is for, and loads it.

use std::hash::{DefaultHasher, Hash, Hasher};

use wasmtime::Engine;
use wasmtime::component::Component;

/// The largest compiled component, in bytes: seven times one with a Python interpreter.
pub(super) const MAX_COMPILED_BYTES: usize = 256 << 20;

/// Returns a hash of everything about an engine that compiled code depends on, in hexadecimal.
pub(super) fn engine_hash(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Creates a component from code that this host has compiled.
pub(super) fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    #[allow(unsafe_code, reason = "loading ahead-of-time compiled code is how wasmtime caches it")]
    // SAFETY: the code comes from our own compiler process, or from a file that only this user or root can
    // have written (`private::read` and `Cache::open` check that). It is for an engine of this configuration:
    // the compiler compares the engine's hash, the file's name has it, and wasmtime checks again.
    unsafe {
        Component::deserialize(engine, code)
    }
}
