//! `ktables:codec/types`, which has types but no functions.

use wasmtime::component::HasSelf;

use crate::wasm::bindings::v0_1::ktables::codec::types;
use crate::wasm::imports::import::Import;
use crate::wasm::state::State;

pub(super) const IMPORT: Import = Import {
    name: "types",
    about: "has only types",
    add_to_linker: |linker| types::add_to_linker::<_, HasSelf<State>>(linker, |state| state),
};

impl types::Host for State {}
