//! The compiler's child process.

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

/// Compiles the component on standard input, and writes its code to standard output. Returns the exit code
/// and the reason of a failure.
///
/// `args` are the metering, the engine's hash and the deadline in seconds, as [`Compiler::compile`] passes
/// them.
pub(crate) fn compile_as_child(args: &[OsString]) -> Result<(), (i32, String)> {
    let failed = |reason: String| (child::REFUSED + 1, reason);
    let args: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let [metering, expected, deadline] = *args else {
        return Err(failed("this command is internal: only ktables itself runs it".to_owned()));
    };
    let metering = Metering::ALL.into_iter().find(|known| known.name() == metering);
    let deadline = deadline.parse().map(Duration::from_secs);
    let (Some(metering), Ok(deadline)) = (metering, deadline) else {
        return Err(failed("this command is internal: only ktables itself runs it".to_owned()));
    };
    child::confine(deadline)
        .map_err(|error| failed(format!("cannot limit the resources of the process: {error}")))?;
    // Not pooled: this process has no address space for a pool, and code does not depend on it.
    let engine = Engine::new(&config(metering, false)).map_err(|error| failed(format!("{error:#}")))?;
    if engine_hash(&engine) != *expected {
        return Err(failed(
            "its wasmtime differs from that of its caller: use the `ktables` command of the same version"
                .to_owned(),
        ));
    }
    let mut bytes = Vec::new();
    let read = io::stdin().take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(format!("cannot read the component: {error}")))?;
    // On a thread, so that the size of the stack does not depend on the shell's limits.
    let compile = move || engine.precompile_component(&bytes).map_err(|error| format!("{error:#}"));
    let thread = thread::spawn("compile", compile).map_err(|error| failed(error.to_string()))?;
    let code = thread.join().map_err(|_| (child::REFUSED, "the compiler panicked".to_owned()))?;
    let code = code.map_err(|reason| (child::REFUSED, reason))?;
    let mut out = io::stdout();
    out.write_all(&code).and_then(|()| out.flush()).map_err(|error| failed(error.to_string()))
}
