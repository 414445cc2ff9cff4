//! An interface that the host provides to guests.

use wasmtime::component::Linker;

use crate::wasm::state::State;

/// An interface that the host provides to guests.
pub(in crate::wasm) struct Import {
    /// The name in the host's WIT package.
    pub(in crate::wasm) name: &'static str,
    /// Links its functions.
    pub(super) add_to_linker: fn(&mut Linker<State>) -> wasmtime::Result<()>,
}
