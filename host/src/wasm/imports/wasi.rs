//! WASI 0.2, sealed: what the runtimes of some languages import, without anything from outside.
//!
//! There are no files, arguments, environment variables or sockets, and standard input is closed. Clocks advance
//! with each reading, and the random numbers of all instances are the same. What a guest prints is kept and shown
//! with its faults. Waiting is a fault, because the deadline of a guest does not interrupt the host.
//!
//! `wasmtime-wasi` implements most interfaces. Some of its functions would wait, or start threads that wait; this
//! module implements the interfaces of those.

mod io;
mod output;
mod sockets;

use wasmtime::component::{HasData, HasSelf, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random, sync};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{I32Exit, ResourceTableError, WasiCtxView, WasiView};

use crate::wasm::sealed_wasi::SealedWasi;
use crate::wasm::state::State;

/// The prefix of the names of WASI's interfaces.
pub(in crate::wasm) const WASI: &str = "wasi:";

/// The interfaces that guests may import.
const INTERFACES: [&str; 27] = [
    "cli/environment",
    "cli/exit",
    "cli/stderr",
    "cli/stdin",
    "cli/stdout",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stderr",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "clocks/monotonic-clock",
    "clocks/wall-clock",
    "filesystem/preopens",
    "filesystem/types",
    "io/error",
    "io/poll",
    "io/streams",
    "random/insecure",
    "random/insecure-seed",
    "random/random",
    "sockets/instance-network",
    "sockets/ip-name-lookup",
    "sockets/network",
    "sockets/tcp",
    "sockets/tcp-create-socket",
    "sockets/udp",
    "sockets/udp-create-socket",
];

/// Whether guests may import this interface, such as `wasi:cli/environment@0.2.0`.
pub(in crate::wasm) fn is_sealed(import: &str) -> bool {
    let interface = import.strip_prefix(WASI).and_then(|name| name.split_once('@'));
    interface.is_some_and(|(name, version)| {
        let patch = version.strip_prefix("0.2.").and_then(|patch| patch.parse::<u32>().ok());
        patch.is_some() && INTERFACES.contains(&name)
    })
}

/// What a guest did that a sealed guest cannot do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Forbidden(&'static str);

/// Describes an error of a WASI function that ended a call; `None` for other errors.
pub(in crate::wasm) fn describe_error(error: &wasmtime::Error) -> Option<String> {
    if let Some(I32Exit(status)) = error.downcast_ref() {
        return Some(format!("exited with status {status}"));
    }
    if let Some(Forbidden(what)) = error.downcast_ref() {
        return Some((*what).to_owned());
    }
    let error: &ResourceTableError = error.downcast_ref()?;
    Some(format!("used WASI wrongly, or has too many of its resources: {error}"))
}

/// Gives the implementation of `wasi:io/error` the resources of an instance.
struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// Adds the functions of all these interfaces to a linker.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Own = HasSelf<State>;
    let l = linker;
    cli::environment::add_to_linker::<_, WasiCli>(l, State::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(l, State::cli)?;
    cli::stderr::add_to_linker::<_, Own>(l, |state| state)?;
    cli::stdin::add_to_linker::<_, Own>(l, |state| state)?;
    cli::stdout::add_to_linker::<_, Own>(l, |state| state)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, State::cli)?;
    clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(l, State::clocks)?;
    clocks::wall_clock::add_to_linker::<_, WasiClocks>(l, State::clocks)?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, State::filesystem)?;
    sync::filesystem::types::add_to_linker::<_, WasiFilesystem>(l, State::filesystem)?;
    sync::io::error::add_to_linker::<_, HasTable>(l, |state| state.ctx().table)?;
    sync::io::poll::add_to_linker::<_, Own>(l, |state| state)?;
    sync::io::streams::add_to_linker::<_, Own>(l, |state| state)?;
    random::insecure::add_to_linker::<_, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::random::add_to_linker::<_, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    sockets::add_to_linker(l)
}

impl State {
    /// Returns the state of WASI. Most guests never use it, so it is created at the first use.
    fn wasi(&mut self) -> &mut SealedWasi {
        self.wasi.get_or_insert_with(|| Box::new(SealedWasi::new()))
    }

    /// The resources that the guest uses.
    fn wasi_table(&mut self) -> &mut ResourceTable {
        &mut self.wasi().table
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}
