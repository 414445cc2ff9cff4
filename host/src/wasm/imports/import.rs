//! The entry of an interface in the list of those that the host provides.

use wasmtime::component::Linker;

use crate::wasm::state::State;

/// An interface that the host provides to guests.
pub(super) struct Import {
    /// The interface's name in the host's WIT package.
    pub(super) name: &'static str,
    /// What it is for, to explain why components may import it.
    pub(super) about: &'static str,
    /// Adds the interface's functions to a linker.
    pub(super) add_to_linker: fn(&mut Linker<State>) -> wasmtime::Result<()>,
}
