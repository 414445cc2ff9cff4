//! Compiling a component: in a child process, or, where the embedding program says so, in this
//! one.

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

/// What compiles components. There is no default, because only the program that embeds the
/// library knows where a `ktables` command is, and whether it trusts its components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// This `ktables` command, in a process that is bounded in memory, time and priority and
    /// that is killed at the deadline. It must have the same wasmtime with the same
    /// configuration as this program.
    Command(PathBuf),
    /// This process. A compilation cannot be stopped there: one that takes too long is refused,
    /// and goes on taking memory and a core. For components that are trusted.
    InProcess,
}

impl Compiler {
    /// Compiles a component, which was not checked before.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        metering: Metering,
        deadline: Duration,
        name: &str,
        bytes: Vec<u8>,
    ) -> Result<Compiled, WasmError> {
        let refused = |reasons| WasmError::Refused { name: name.to_owned(), reasons };
        scan::code(&bytes).map_err(|refusal| refused(refusal.reasons()))?;
        match self {
            Self::InProcess => in_process(engine, deadline, bytes)
                .map(Compiled::Component)
                .map_err(|reason| refused(vec![reason])),
            Self::Command(program) => {
                let (hash, deadline_arg) = (engine_hash(engine), deadline.as_secs().max(1).to_string());
                let args = [COMPILE, metering.name(), &hash, &deadline_arg].map(OsStr::new);
                let output_limit = MAX_COMPILED_BYTES;
                let job = Job { program, args: &args, input: &bytes, output_limit, deadline };
                match job.run() {
                    Ok(code) => Ok(Compiled::Code(code)),
                    Err(ChildError::Refused(reason)) => {
                        Err(refused(vec![format!("it cannot be compiled: {reason}")]))
                    }
                    Err(ChildError::Failed(reason)) => Err(WasmError::Engine {
                        reason: format!("no compiler for component {name}: {reason}"),
                    }),
                }
            }
        }
    }
}

/// A component that was compiled.
pub(super) enum Compiled {
    /// Ready to be used.
    Component(Component),
    /// Its code, from a process of ours.
    Code(Vec<u8>),
}

fn in_process(engine: &Engine, deadline: Duration, bytes: Vec<u8>) -> Result<Component, String> {
    // A compilation cannot be interrupted, but it can be left alone.
    let (answer, compiled) = mpsc::sync_channel(1);
    let engine = engine.clone();
    let compile = move || {
        // Nobody may be waiting any more.
        let _ = answer.send(Component::from_binary(&engine, &bytes));
    };
    thread::spawn("ktables-compile", compile).map_err(|error| format!("no thread to compile on: {error}"))?;
    match compiled.recv_timeout(deadline) {
        Ok(result) => result.map_err(|error| format!("it cannot be compiled: {error:#}")),
        Err(_) => Err(format!("it did not compile within {deadline:?}")),
    }
}
