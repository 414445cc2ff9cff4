//! The `codec` commands, which inspect and build components.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::cli::args::{BuildArgs, InspectArgs};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::file::{FileError, Replacement, read_bounded};
use crate::wasm::child::{ChildError, FAILED, Job, REFUSED, confine};
use crate::wasm::compile::{COMPILE, compile_as_child};
use crate::wasm::{
    Compiler, Engine, EngineOptions, LoadOptions, MAX_BYTES, SUPPORTED_VERSIONS, WasmError, check_code,
    digest_of, inspect as inspect_bytes,
};

/// The first argument of the child process that builds a component from a core module.
const BUILD: &str = "build-component";

/// The argument of [`BUILD`] that replaces imports of WASI by stubs.
const STUB_WASI: &str = "stub-wasi";

/// The argument of [`BUILD`] that keeps all imports.
const PLAIN: &str = "plain";

/// How long building a component may take: a hundred times what it took for the largest module that
/// was tried.
const BUILD_DEADLINE: Duration = Duration::from_secs(60);

/// An adapter that implements WASI preview 1 with stubs.
const PREVIEW1_STUB: &str = include_str!("preview1-stub.wat");

/// The name of the module from which core modules import WASI preview 1.
const PREVIEW1: &str = "wasi_snapshot_preview1";

/// A component, as `codec inspect` prints it.
#[derive(Serialize)]
struct InspectLine<'a> {
    file: String,
    digest: String,
    bytes: usize,
    accepted: bool,
    /// Which interfaces of the WIT package it exports: what kinds of codec it is.
    kinds: Vec<&'static str>,
    name: Option<String>,
    version: Option<String>,
    wants_headers: Option<bool>,
    /// The versions of the WIT package that it was built against, and the ones that this program supports.
    wit: Vec<&'a str>,
    wit_supported: &'static str,
    imports: &'a [String],
    exports: &'a [String],
    refused_because: Vec<String>,
}

/// A component that was written, as `codec build` prints it.
#[derive(Serialize)]
struct BuildLine {
    file: String,
    digest: String,
    bytes: usize,
}

/// Returns the options of the engine: another process of this command compiles components.
pub(super) fn engine_options() -> EngineOptions {
    EngineOptions::new(Compiler::Command(own_program()))
}

/// Returns the path of this program. On Linux, it stays valid after the file was replaced by another version.
fn own_program() -> PathBuf {
    let linux = Path::new("/proc/self/exe");
    if linux.exists() {
        return linux.to_owned();
    }
    // If the path is unknown, `ktables` is searched in PATH, and an error names it if it is not found.
    std::env::current_exe().unwrap_or_else(|_| "ktables".into())
}

/// Compiles or builds a component, if this process was started for that by another one, and returns the exit
/// code. Otherwise returns `None`. To be called before the arguments are parsed.
#[must_use]
pub fn run_as_child() -> Option<u8> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (job, rest) = args.split_first()?;
    let result = if job == COMPILE {
        compile_as_child(rest)
    } else if job == BUILD {
        build_as_child(rest)
    } else {
        return None;
    };
    Some(match result {
        Ok(()) => 0,
        Err((code, reason)) => {
            // OK to ignore: there is no other place to report it.
            let _ = writeln!(io::stderr(), "{reason}");
            u8::try_from(code).unwrap_or(u8::MAX)
        }
    })
}

pub(super) fn inspect(args: &InspectArgs, output: Output) -> Result<Exit, CliError> {
    let bytes = read(&args.file)?;
    let (digest, len) = (digest_of(&bytes), bytes.len());
    let inspection = inspect_bytes(&bytes);
    let mut refusals = inspection.refusals.clone();
    let mut description = None;
    // A component that passes inspection may still have exports of wrong types, or trap when its `describe`
    // is called.
    if refusals.is_empty() {
        let name = args.file.file_stem().unwrap_or_default().to_string_lossy();
        match Engine::new(engine_options())?.load_bytes(&name, bytes, LoadOptions::default()) {
            Ok(component) => description = component.description().cloned(),
            Err(WasmError::Refused { reasons, .. }) => refusals = reasons,
            Err(error @ (WasmError::Faulted { .. } | WasmError::MissingExport { .. })) => {
                refusals = vec![error.to_string()];
            }
            Err(error) => return Err(error.into()),
        }
    }
    let accepted = refusals.is_empty();
    output.print_object(&InspectLine {
        file: args.file.display().to_string(),
        digest,
        bytes: len,
        accepted,
        kinds: inspection.interfaces.iter().map(|interface| interface.name()).collect(),
        name: description.as_ref().map(|description| description.name.clone()),
        version: description.as_ref().map(|description| description.version.clone()),
        wants_headers: description.as_ref().map(|description| description.wants_headers),
        wit: inspection.versions().into_iter().collect(),
        wit_supported: SUPPORTED_VERSIONS,
        imports: &inspection.imports,
        exports: &inspection.exports,
        refused_because: refusals,
    })?;
    Ok(if accepted { Exit::Done } else { Exit::No })
}

pub(super) fn build(args: &BuildArgs, output: Output) -> Result<Exit, CliError> {
    let core = read(&args.core)?;
    let invalid_module = |reason: String| CliError::Usage(format!("{}: {reason}", args.core.display()));
    check_is_module(&core).map_err(invalid_module)?;
    check_code(&core).map_err(|reasons| invalid_module(reasons.join("; ")))?;
    let (program, mode) = (own_program(), if args.stub_wasi { STUB_WASI } else { PLAIN });
    let job = Job {
        program: &program,
        args: &[OsStr::new(BUILD), OsStr::new(mode)],
        input: &core,
        output_limit: MAX_BYTES,
        deadline: BUILD_DEADLINE,
    };
    let component = job.run().map_err(|error| match error {
        ChildError::Refused(reason) => invalid_module(reason),
        ChildError::Failed(reason) => WasmError::Engine { reason }.into(),
    })?;
    let refusals = inspect_bytes(&component).refusals;
    if refusals.is_empty() {
        let write = || {
            let mut out = Replacement::new(&args.out)?;
            out.write_all(&component)?;
            out.persist()
        };
        write().map_err(FileError::of::<CliError>("write", &args.out))?;
        output.print_object(&BuildLine {
            file: args.out.display().to_string(),
            digest: digest_of(&component),
            bytes: component.len(),
        })?;
        return Ok(Exit::Done);
    }
    for reason in refusals {
        tracing::error!(
            "{} was not written, because the component would be refused: {reason}",
            args.out.display()
        );
    }
    Ok(Exit::No)
}

/// Builds a component from the core module on standard input, in the child process of [`build`].
fn build_as_child(args: &[OsString]) -> Result<(), (i32, String)> {
    let failed = |error: io::Error| (FAILED, error.to_string());
    confine(BUILD_DEADLINE).map_err(failed)?;
    let mut core = Vec::new();
    io::stdin().take(MAX_BYTES as u64 + 1).read_to_end(&mut core).map_err(failed)?;
    let stub_wasi = args.first().is_some_and(|mode| mode == STUB_WASI);
    // On a thread, because the stack size of the main thread depends on the shell.
    let built = crate::thread::spawn("build", move || componentize(&core, stub_wasi)).map_err(failed)?;
    let built = built.join().unwrap_or_else(|_| Err("it is malformed: the encoder panicked".to_owned()));
    let component = built.map_err(|reason| (REFUSED, reason))?;
    let mut out = io::stdout();
    out.write_all(&component).and_then(|()| out.flush()).map_err(failed)
}

fn check_is_module(core: &[u8]) -> Result<(), String> {
    if wasmparser::Parser::is_component(core) {
        return Err("it is already a component".to_owned());
    }
    if !wasmparser::Parser::is_core_wasm(core) {
        return Err("it is not a WebAssembly module".to_owned());
    }
    Ok(())
}

/// Builds a component from a core module and the component types that are embedded in it.
fn componentize(core: &[u8], stub_wasi: bool) -> Result<Vec<u8>, String> {
    check_is_module(core)?;
    let failed = |error| format!("cannot build a component from it: {error:#}");
    let mut encoder =
        wit_component::ComponentEncoder::default().validate(true).module(core).map_err(failed)?;
    if stub_wasi {
        // OK because it is a constant that a test parses.
        let stub = wat::parse_str(PREVIEW1_STUB).expect("a valid module");
        encoder = encoder.adapter(PREVIEW1, &stub).map_err(failed)?;
    }
    encoder.encode().map_err(|error| {
        let hint = if stub_wasi || !format!("{error:#}").contains(PREVIEW1) {
            ""
        } else {
            "\nThe module imports WASI: build it for a target without WASI (Rust: wasm32-unknown-unknown), \
             or add --stub-wasi"
        };
        format!("{}{hint}", failed(error))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    read_bounded(path, MAX_BYTES).map_err(FileError::of::<CliError>("read", path))
}

#[cfg(test)]
mod tests {
    use super::componentize;

    const USES_WASI: &str = r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_initialize") (drop (call $random (i32.const 0) (i32.const 8)))))"#;

    #[test]
    fn wasi_is_stubbed_on_request() {
        let core = wat::parse_str(USES_WASI).unwrap();
        let error = componentize(&core, false).unwrap_err();
        assert!(error.contains("--stub-wasi"), "{error}");
        let component = componentize(&core, true).unwrap();
        let inspection = crate::wasm::inspect(&component);
        assert_eq!(inspection.imports, Vec::<String>::new());
    }

    #[test]
    fn only_core_modules_can_be_built() {
        assert!(componentize(b"hello", false).is_err());
        assert!(componentize(&wat::parse_str("(component)").unwrap(), false).is_err());
    }
}
