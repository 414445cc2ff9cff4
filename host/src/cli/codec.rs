//! The `codec` commands, which inspect and build components.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::authors;
use crate::cli::args::{BuildArgs, CompileArgs, ComponentArgs, InspectArgs};
use crate::cli::artifact::access;
use crate::cli::limits::parse_limits;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::config::{bundled_component, is_bundled};
use crate::file::{FileError, Replacement, read_bounded};
use crate::oci::{Policies, Reference};
use crate::wasm::child::ChildError;
use crate::wasm::compile::{COMPILE, compile_as_child};
use crate::wasm::{
    Compiler, Component, Engine, EngineOptions, Inspection, Limits, LoadOptions, MAX_BYTES,
    SUPPORTED_VERSIONS, WasmError, digest_of, inspect as inspect_bytes, judge_import,
};

/// What `codec inspect` says on a machine without a policy.
const NO_POLICY: &str = "none: no signatures are required";

/// A component, as `codec inspect` prints it.
#[derive(Serialize)]
struct InspectLine<'a> {
    file: String,
    digest: String,
    bytes: usize,
    accepted: bool,
    /// See [`kinds`].
    kinds: Vec<&'static str>,
    name: Option<String>,
    version: Option<String>,
    wants_headers: Option<bool>,
    /// The versions of the WIT package that it was built against, and the ones that this program supports.
    wit: Vec<&'a str>,
    wit_supported: &'static str,
    /// Whether a policy decides about codecs on this machine.
    policy: &'static str,
    /// "pure", or "sealed WASI" if it imports WASI.
    sandbox: &'static str,
    imports: Vec<ImportLine<'a>>,
    exports: &'a [String],
    refused_because: Vec<String>,
}

/// An import of a component, as `codec inspect` prints it.
#[derive(Serialize)]
struct ImportLine<'a> {
    name: &'a str,
    allowed: bool,
    reason: String,
}

impl<'a> ImportLine<'a> {
    fn new(name: &'a str) -> Self {
        let verdict = judge_import(name);
        Self { name, allowed: verdict.is_ok(), reason: verdict.map_or_else(|refusal| refusal, str::to_owned) }
    }
}

/// A component that was written, as `codec build` prints it.
#[derive(Serialize)]
struct BuildLine {
    file: String,
    digest: String,
    bytes: usize,
    /// See [`kinds`].
    kinds: Vec<&'static str>,
}

/// A component that was compiled, as `codec compile` prints it.
#[derive(Serialize)]
struct CompileLine {
    file: String,
    digest: String,
    name: String,
}

/// Compiles components into the cache.
pub(super) async fn compile(args: CompileArgs, output: Output) -> Result<Exit, CliError> {
    let options = engine_options();
    let Some(folder) = options.cache.clone() else {
        return Err(CliError::Usage(
            "there is no cache to compile into: set KTABLES_CACHE_DIR to a folder".to_owned(),
        ));
    };
    let engine = Engine::new(options)?;
    let mut exit = Exit::Done;
    for file in args.files {
        let (loader, path) = (engine.clone(), file.clone());
        // Compiling blocks.
        let load = move || load_component(&loader, &path, Limits::default());
        let loaded = tokio::task::spawn_blocking(load).await?;
        match loaded {
            Ok(component) => {
                let id = component.id();
                let (name, digest) = (id.name.clone(), id.digest.clone());
                if !engine.is_cached(&digest) {
                    let reason = format!("the compiled code of {name} is not in {}", folder.display());
                    return Err(WasmError::Engine { reason }.into());
                }
                output.print_object(&CompileLine { file: file.display().to_string(), digest, name })?;
            }
            Err(CliError::Component(error @ WasmError::Refused { .. })) => {
                tracing::error!("{}: {error}", file.display());
                exit = Exit::No;
            }
            Err(error) => return Err(error),
        }
    }
    tracing::info!("the compiled components are in {}", folder.display());
    Ok(exit)
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
    let result = if job == COMPILE { compile_as_child(rest) } else { authors::build_as_child(job)? };
    Some(match result {
        Ok(()) => 0,
        Err((code, reason)) => {
            // OK to ignore: there is no other place to report it.
            let _ = writeln!(io::stderr(), "{reason}");
            u8::try_from(code).unwrap_or(u8::MAX)
        }
    })
}

/// Loads a component to call it from a command.
pub(super) fn load(args: &ComponentArgs) -> Result<Component, CliError> {
    let limits = parse_limits("--limit", &args.limit)?.limits();
    load_component(&Engine::new(engine_options())?, &args.file, limits)
}

pub(super) fn inspect(args: &InspectArgs, output: Output) -> Result<Exit, CliError> {
    let bytes = read_component(&args.file)?;
    let (digest, len) = (digest_of(&bytes), bytes.len());
    let inspection = inspect_bytes(&bytes);
    let mut refusals = inspection.refusals.clone();
    let mut description = None;
    // A component that passes inspection may still have exports of wrong types, or trap when its `describe`
    // is called.
    if refusals.is_empty() {
        let name = args.file.file_stem().unwrap_or_default().to_string_lossy();
        let options =
            LoadOptions { limits: parse_limits("--limit", &args.limit)?.limits(), ..LoadOptions::default() };
        match Engine::new(engine_options())?.load_bytes(&name, bytes, options) {
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
        kinds: kinds(&inspection),
        name: description.as_ref().map(|description| description.name.clone()),
        version: description.as_ref().map(|description| description.version.clone()),
        wants_headers: description.as_ref().map(|description| description.wants_headers),
        wit: inspection.versions().into_iter().collect(),
        wit_supported: SUPPORTED_VERSIONS,
        policy: if Policies::read(None)?.is_empty() { NO_POLICY } else { "see `ktables codec verify`" },
        sandbox: if inspection.uses_wasi() { "sealed WASI" } else { "pure" },
        imports: inspection.imports.iter().map(|import| ImportLine::new(import)).collect(),
        exports: &inspection.exports,
        refused_because: refusals,
    })?;
    Ok(if accepted { Exit::Done } else { Exit::No })
}

/// Checks a component as `codec inspect` does. The inner error has the reasons why it is refused.
pub(super) fn check_component(path: &Path, bytes: Vec<u8>) -> Result<Result<(), Vec<String>>, CliError> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    match Engine::new(engine_options())?.load_bytes(&name, bytes, LoadOptions::default()) {
        Ok(_) => Ok(Ok(())),
        Err(WasmError::Refused { reasons, .. }) => Ok(Err(reasons)),
        Err(error @ (WasmError::Faulted { .. } | WasmError::MissingExport { .. })) => {
            Ok(Err(vec![error.to_string()]))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn build(args: &BuildArgs, output: Output) -> Result<Exit, CliError> {
    let core = read_bounded(&args.core, MAX_BYTES).map_err(FileError::of::<CliError>("read", &args.core))?;
    let (component, advice) = authors::build(&own_program(), &core).map_err(|error| match error {
        ChildError::Refused(reason) => CliError::Usage(format!("{}: {reason}", args.core.display())),
        ChildError::Failed(reason) => WasmError::Engine { reason }.into(),
    })?;
    for line in advice.lines() {
        tracing::warn!("{}: {line}", args.core.display());
    }
    let inspection = inspect_bytes(&component);
    if inspection.refusals.is_empty() {
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
            kinds: kinds(&inspection),
        })?;
        return Ok(Exit::Done);
    }
    for reason in inspection.refusals {
        tracing::error!(
            "{} was not written, because the component would be refused: {reason}",
            args.out.display()
        );
    }
    Ok(Exit::No)
}

pub(super) fn wit(output: Output) -> Result<Exit, CliError> {
    output.print_line(authors::package().trim_end())?;
    Ok(Exit::Done)
}

/// Which interfaces of the WIT package a component exports: what kinds of codec it is.
fn kinds(inspection: &Inspection) -> Vec<&'static str> {
    inspection.interfaces.iter().map(|interface| interface.name()).collect()
}

/// Loads a component: a file, or a bundled codec.
pub(super) fn load_component(engine: &Engine, path: &Path, limits: Limits) -> Result<Component, CliError> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(engine.load_bytes(&name, read_component(path)?, LoadOptions { limits, ..LoadOptions::default() })?)
}

/// Reads a component: a file, a bundled codec, or an artifact.
pub(super) fn read_component(path: &Path) -> Result<Vec<u8>, CliError> {
    if let Some(reference) = path.to_str().filter(|name| Reference::is_reference(name)) {
        return access::read(reference);
    }
    if let Some(name) = path.to_str().filter(|name| is_bundled(name)) {
        return bundled_component(name).map(<[u8]>::to_vec).map_err(CliError::Usage);
    }
    read_bounded(path, MAX_BYTES).map_err(FileError::of::<CliError>("read", path))
}
