//! The commands about components.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::cli::args::{BuildArgs, InspectArgs};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::file::read_bounded;
use crate::wasm::child::{ChildError, Job, REFUSED, confine};
use crate::wasm::compile::{COMPILE, compile_as_child};
use crate::wasm::{
    Compiler, Engine, EngineOptions, LoadOptions, MAX_BYTES, SUPPORTED_VERSIONS, WasmError, check_code,
    digest_of, inspect as inspect_bytes,
};

/// The hidden subcommand that makes a component of a core module, and its modes.
const BUILD: &str = "build-component";
const STUB_WASI: &str = "stub-wasi";
const PLAIN: &str = "plain";

/// How long making a component of a core module may take: a hundred times what the largest
/// module that was tried takes.
const BUILD_DEADLINE: Duration = Duration::from_secs(60);

/// WASI preview 1 with nothing behind it.
const PREVIEW1_STUB: &str = include_str!("preview1-stub.wat");

/// The module name that core modules import WASI preview 1 from.
const PREVIEW1: &str = "wasi_snapshot_preview1";

#[derive(Serialize)]
struct InspectLine<'a> {
    file: String,
    digest: String,
    bytes: usize,
    accepted: bool,
    kinds: Vec<&'static str>,
    name: Option<String>,
    version: Option<String>,
    wants_headers: Option<bool>,
    wit: Vec<&'a str>,
    wit_supported: &'static str,
    imports: &'a [String],
    exports: &'a [String],
    refused_because: Vec<String>,
}

/// How components are compiled by this command: by another process of it.
pub(super) fn engine_options() -> EngineOptions {
    EngineOptions::new(Compiler::Command(own_program()))
}

/// The file of this command. On Linux it is found also after another version replaced it.
fn own_program() -> PathBuf {
    let linux = Path::new("/proc/self/exe");
    if linux.exists() {
        return linux.to_owned();
    }
    // Where it cannot be told, starting it says what is wrong.
    std::env::current_exe().unwrap_or_else(|_| "ktables".into())
}

/// Does the work of a child process of this command, if this is one; its exit code.
#[must_use]
pub fn run_as_child() -> Option<u8> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (job, rest) = args.split_first()?;
    let done = if job == COMPILE {
        compile_as_child(rest)
    } else if job == BUILD {
        build_as_child(rest)
    } else {
        return None;
    };
    Some(match done {
        Ok(()) => 0,
        Err((code, reason)) => {
            // Nothing is left to tell anybody if this fails.
            let _ = writeln!(io::stderr(), "{reason}");
            u8::try_from(code).unwrap_or(3)
        }
    })
}

pub(super) fn inspect(args: &InspectArgs, output: Output) -> Result<Exit, CliError> {
    let bytes = read(&args.file)?;
    let (digest, len) = (digest_of(&bytes), bytes.len());
    let inspection = inspect_bytes(&bytes);
    let mut refusals = inspection.refusals.clone();
    let mut description = None;
    // What passes inspection may still have the wrong types, or break down.
    if refusals.is_empty() {
        let name = args.file.file_stem().unwrap_or_default().to_string_lossy();
        match Engine::new(engine_options())?.load_bytes(&name, bytes, LoadOptions::default()) {
            Ok(component) => description = component.description().cloned(),
            Err(WasmError::Refused { reasons, .. }) => refusals = reasons,
            Err(error @ (WasmError::Failed { .. } | WasmError::MissingExport { .. })) => {
                refusals = vec![error.to_string()];
            }
            Err(error) => return Err(error.into()),
        }
    }
    let accepted = refusals.is_empty();
    output.object(&InspectLine {
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

pub(super) fn build(args: &BuildArgs) -> Result<Exit, CliError> {
    let core = read(&args.core)?;
    let refused = |reason: String| CliError::Usage(format!("{}: {reason}", args.core.display()));
    check_is_module(&core).map_err(refused)?;
    check_code(&core).map_err(|reasons| refused(reasons.join("; ")))?;
    let (program, mode) = (own_program(), if args.stub_wasi { STUB_WASI } else { PLAIN });
    let job = Job {
        program: &program,
        args: &[OsStr::new(BUILD), OsStr::new(mode)],
        input: &core,
        output_limit: MAX_BYTES,
        deadline: BUILD_DEADLINE,
    };
    let component = job.run().map_err(|error| match error {
        ChildError::Refused(reason) => refused(reason),
        ChildError::Failed(reason) => WasmError::Engine { reason }.into(),
    })?;
    let refusals = inspect_bytes(&component).refusals;
    if refusals.is_empty() {
        write_whole(&args.out, &component).map_err(CliError::file("write", &args.out))?;
        return Ok(Exit::Done);
    }
    for reason in refusals {
        tracing::error!("{} is not written, because it would be refused: {reason}", args.out.display());
    }
    Ok(Exit::No)
}

/// Writes a file beside its place and renames it: what is there stays whole if this fails.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// What the child does for [`build`].
fn build_as_child(args: &[OsString]) -> Result<(), (i32, String)> {
    let failed = |error: io::Error| (REFUSED + 1, error.to_string());
    confine(BUILD_DEADLINE).map_err(failed)?;
    let mut core = Vec::new();
    io::stdin().take(MAX_BYTES as u64 + 1).read_to_end(&mut core).map_err(failed)?;
    let stub_wasi = args.first().is_some_and(|mode| mode == STUB_WASI);
    // On a thread, whose stack does not depend on the shell's.
    let built = crate::thread::spawn("build", move || componentize(&core, stub_wasi)).map_err(failed)?;
    let built = built.join().unwrap_or_else(|_| Err("it is not well-formed".to_owned()));
    let component = built.map_err(|reason| (REFUSED, reason))?;
    let mut out = io::stdout();
    out.write_all(&component).and_then(|()| out.flush()).map_err(failed)
}

fn check_is_module(core: &[u8]) -> Result<(), String> {
    if wasmparser::Parser::is_component(core) {
        return Err("it is a component already".to_owned());
    }
    if !wasmparser::Parser::is_core_wasm(core) {
        return Err("it is not a WebAssembly module".to_owned());
    }
    Ok(())
}

/// The component that a core module describes by its embedded types.
fn componentize(core: &[u8], stub_wasi: bool) -> Result<Vec<u8>, String> {
    check_is_module(core)?;
    let failed = |error| format!("cannot be made a component: {error:#}");
    let mut encoder =
        wit_component::ComponentEncoder::default().validate(true).module(core).map_err(failed)?;
    if stub_wasi {
        // OK because a test builds with it.
        let stub = wat::parse_str(PREVIEW1_STUB).expect("a valid module");
        encoder = encoder.adapter(PREVIEW1, &stub).map_err(failed)?;
    }
    encoder.encode().map_err(|error| {
        let hint = if stub_wasi || !format!("{error:#}").contains(PREVIEW1) {
            ""
        } else {
            "\nIt imports WASI: build for a target without it (Rust: wasm32-unknown-unknown), or add --stub-wasi"
        };
        format!("{}{hint}", failed(error))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    read_bounded(path, MAX_BYTES).map_err(CliError::file("read", path))
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
    fn what_is_no_core_module_is_an_error() {
        assert!(componentize(b"hello", false).is_err());
        assert!(componentize(&wat::parse_str("(component)").unwrap(), false).is_err());
    }
}
