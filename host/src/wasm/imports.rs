//! The interfaces that the host provides to guests: its own, one file for each, and sealed WASI. [`judge_import`] is
//! the allow-list: a component that imports anything else is refused.
//!
//! If a function of the host's own interfaces fails, that is a failure of the host, not a fault of the guest, and a
//! guest's deadline does not count the time that the host works for it ([`State::run_import`]). The functions of WASI
//! return at once. Their errors are faults of the guest.

mod import;
mod logging;
mod schemas;
mod types;
mod wasi;

use wasmtime::component::Linker;

use crate::wasm::interfaces::{PACKAGE, SUPPORTED_VERSIONS, is_supported, split_name};
use crate::wasm::scan::quote;
use crate::wasm::state::State;
use import::Import;

pub(super) use wasi::{WASI, add_to_linker as add_wasi_to_linker, describe_error};

/// All interfaces of the host's WIT package that it provides.
const IMPORTS: &[Import] = &[logging::IMPORT, schemas::IMPORT, types::IMPORT];

/// Adds the functions of the host's own interfaces to a linker.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    IMPORTS.iter().try_for_each(|import| (import.add_to_linker)(linker))
}

/// Decides whether a component may import this interface. Returns why.
///
/// # Errors
///
/// The reason to refuse the component, with what to do.
pub(crate) fn judge_import(import: &str) -> Result<&'static str, String> {
    let known = |name: &str| IMPORTS.iter().find(|import| import.name == name);
    if let Some((name, version)) = split_name(import)
        && let Some(known) = known(name)
    {
        return match is_supported(version) {
            true => Ok(known.about),
            false => Err(format!(
                "it imports {}, a version that this host does not support: rebuild it against ktables:codec \
                 {SUPPORTED_VERSIONS}",
                quote(import)
            )),
        };
    }
    if wasi::is_sealed(import) {
        return Ok(
            "sealed: no files, environment, network or waiting; clocks count, random numbers are seeded",
        );
    }
    if import.starts_with(WASI) {
        return Err(format!(
            "it imports {}, which is not part of the WASI that this host provides to codecs (version 0.2 of cli, \
             clocks, filesystem, io, random and sockets, without access to anything)",
            quote(import)
        ));
    }
    let names: Vec<String> = IMPORTS.iter().map(|import| format!("{PACKAGE}{}", import.name)).collect();
    Err(format!(
        "it imports {}, which this host does not provide; it provides only {}, and WASI 0.2 without access to anything",
        quote(import),
        names.join(" and ")
    ))
}
