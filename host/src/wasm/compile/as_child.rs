//! The child's side of compiling.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::time::Duration;

use wasmtime::Engine;

use crate::thread;
use crate::wasm::child;
use crate::wasm::compiled::engine_hash;
use crate::wasm::config::config;
use crate::wasm::metering::Metering;
use crate::wasm::scan::MAX_BYTES;

/// What the child does: compiles what it reads, and writes the code.
///
/// `args` are the metering, the engine's hash and the deadline, as [`Compiler::compile`] gives
/// them.
pub(crate) fn compile_as_child(args: &[OsString]) -> Result<(), (i32, String)> {
    let failed = |reason: String| (child::REFUSED + 1, reason);
    let args: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let [metering, expected, deadline] = *args else {
        return Err(failed("it is for ktables itself".to_owned()));
    };
    let metering = Metering::ALL.into_iter().find(|it| it.name() == metering);
    let deadline = deadline.parse().map(Duration::from_secs);
    let (Some(metering), Ok(deadline)) = (metering, deadline) else {
        return Err(failed("it is for ktables itself".to_owned()));
    };
    child::confine(deadline).map_err(|error| failed(format!("cannot bound the process: {error}")))?;
    // Without a pool of instances, for which there is no room: it makes no difference to code.
    let engine = Engine::new(&config(metering, false)).map_err(|error| failed(format!("{error:#}")))?;
    if engine_hash(&engine) != *expected {
        return Err(failed(
            "its wasmtime is not the same as the one that asks: use the `ktables` command of the same version"
                .to_owned(),
        ));
    }
    let mut bytes = Vec::new();
    let read = io::stdin().take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(format!("cannot read the component: {error}")))?;
    // On a thread, whose stack does not depend on the shell's.
    let compile = move || engine.precompile_component(&bytes).map_err(|error| format!("{error:#}"));
    let thread = thread::spawn("compile", compile).map_err(|error| failed(error.to_string()))?;
    let code = thread.join().map_err(|_| (child::REFUSED, "the compiler panicked".to_owned()))?;
    let code = code.map_err(|reason| (child::REFUSED, reason))?;
    let mut out = io::stdout();
    out.write_all(&code).and_then(|()| out.flush()).map_err(|error| failed(error.to_string()))
}
