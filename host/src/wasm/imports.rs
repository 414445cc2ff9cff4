//! The interfaces that the host provides to guests, one file for each. The list is also the
//! allow-list: a component that imports anything else is refused.
//!
//! An import that fails is a failure of the host, and the deadline of the guest does not run while
//! the host works ([`State::run_import`]).

mod import;
mod logging;
mod types;

use wasmtime::component::Linker;

use crate::wasm::interfaces::PACKAGE;
use crate::wasm::state::State;
use import::Import;

/// All interfaces that the host provides.
pub(super) const IMPORTS: &[Import] = &[logging::IMPORT, types::IMPORT];

/// Links all of them.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    IMPORTS.iter().try_for_each(|import| (import.add_to_linker)(linker))
}

/// The names of all of them, for messages.
pub(super) fn imported_names() -> String {
    IMPORTS.iter().map(|import| format!("{PACKAGE}{}", import.name)).collect::<Vec<_>>().join(" and ")
}
