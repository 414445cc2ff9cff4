//! The interfaces that the host provides to guests, one file for each. [`IMPORTS`] is also the allow-list: a
//! component that imports anything else is refused.
//!
//! If one of their functions fails, that is a failure of the host, not a fault of the guest. A guest's deadline
//! does not count the time that the host works for it ([`State::run_import`]).

mod import;
mod logging;
mod types;

use wasmtime::component::Linker;

use crate::wasm::interfaces::PACKAGE;
use crate::wasm::state::State;
use import::Import;

/// All interfaces that the host provides.
pub(super) const IMPORTS: &[Import] = &[logging::IMPORT, types::IMPORT];

/// Adds the functions of all these interfaces to a linker.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    IMPORTS.iter().try_for_each(|import| (import.add_to_linker)(linker))
}

/// Returns the names of all these interfaces, for messages.
pub(super) fn import_names() -> String {
    IMPORTS.iter().map(|import| format!("{PACKAGE}{}", import.name)).collect::<Vec<_>>().join(" and ")
}
