//! Compiles a component: in a child process or, if the embedding program chooses so, in this process.

#[cfg(feature = "cli")]
mod as_child;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::thread;
use crate::wasm::child::{ChildError, Job};
use crate::wasm::compiled::{MAX_COMPILED_BYTES, engine_hash};
use crate::wasm::error::WasmError;
use crate::wasm::metering::Metering;
use crate::wasm::scan;

#[cfg(feature = "cli")]
pub(crate) use as_child::compile_as_child;

/// The hidden subcommand of the `ktables` command that compiles a component.
pub(crate) const COMPILE: &str = "compile-component";

/// The compiler of components. There is no default, because only the program that embeds the library knows
/// where a `ktables` command is, and whether it trusts its components.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compiler {
    /// This `ktables` command, in a process with limited memory, time and priority, which is killed at the
    /// deadline. It must have the same wasmtime with the same configuration as this program.
    Command(PathBuf),
    /// This process. A compilation cannot be stopped there: if it takes too long, the component is refused,
    /// but the compilation still uses memory and a core until it ends. For trusted components only.
    InProcess,
}

impl Compiler {
    /// Scans a component, and compiles it.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        metering: Metering,
        deadline: Duration,
        name: &str,
        bytes: Vec<u8>,
    ) -> Result<Compiled, WasmError> {
        let refused = |reasons| WasmError::Refused { name: name.to_owned(), reasons };
        scan::scan_code(&bytes).map_err(|refusal| refused(refusal.reasons()))?;
        match self {
            Self::InProcess => compile_in_process(engine, deadline, bytes)
                .map(Compiled::Component)
                .map_err(|reason| refused(vec![reason])),
            Self::Command(program) => {
                let (hash, deadline_arg) = (engine_hash(engine), deadline.as_secs().max(1).to_string());
                let args = [COMPILE, metering.name(), &hash, &deadline_arg].map(OsStr::new);
                let output_limit = MAX_COMPILED_BYTES;
                let job = Job { program, args: &args, input: &bytes, output_limit, deadline };
                match job.run() {
                    Ok((code, _)) => Ok(Compiled::Code(code)),
                    Err(ChildError::Refused(reason)) => {
                        Err(refused(vec![format!("it cannot be compiled: {reason}")]))
                    }
                    Err(ChildError::Failed(reason)) => Err(WasmError::Engine {
                        reason: format!("cannot run the compiler for component {name}: {reason}"),
                    }),
                }
            }
        }
    }
}

/// A compiled component.
pub(super) enum Compiled {
    /// Compiled in this process, and ready for use.
    Component(Component),
    /// The machine code, from our compiler process.
    Code(Vec<u8>),
}

fn compile_in_process(engine: &Engine, deadline: Duration, bytes: Vec<u8>) -> Result<Component, String> {
    // A compilation cannot be interrupted. So it runs on its own thread, which is abandoned at the deadline.
    let (sender, receiver) = mpsc::sync_channel(1);
    let engine = engine.clone();
    let compile = move || {
        // OK to ignore: fails if the caller no longer waits.
        let _ = sender.send(Component::from_binary(&engine, &bytes));
    };
    thread::spawn("ktables-compile", compile)
        .map_err(|error| format!("cannot start the compiler's thread: {error}"))?;
    match receiver.recv_timeout(deadline) {
        Ok(result) => result.map_err(|error| format!("it cannot be compiled: {error:#}")),
        Err(_) => Err(format!("compiling it takes longer than {deadline:?}")),
    }
}
