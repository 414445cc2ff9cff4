//! The commands about components.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::cli::args::{BuildArgs, InspectArgs};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::wasm::{
    Engine, EngineOptions, LoadOptions, SUPPORTED_VERSIONS, WasmError, digest_of, inspect as inspect_bytes,
};

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

pub(super) fn inspect(args: &InspectArgs, output: Output) -> Result<Exit, CliError> {
    let bytes = read(&args.file)?;
    let inspection = inspect_bytes(&bytes);
    let mut refusals = inspection.refusals.clone();
    let mut description = None;
    // What passes inspection may still have the wrong types, or break down.
    if refusals.is_empty() {
        match Engine::new(EngineOptions::default())?.load(&args.file, LoadOptions::default()) {
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
        digest: digest_of(&bytes),
        bytes: bytes.len(),
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
    let component = componentize(&core, args.stub_wasi)
        .map_err(|reason| CliError::Usage(format!("{}: {reason}", args.core.display())))?;
    let refusals = inspect_bytes(&component).refusals;
    if refusals.is_empty() {
        fs::write(&args.out, &component).map_err(CliError::file("write", &args.out))?;
        return Ok(Exit::Done);
    }
    for reason in refusals {
        tracing::error!("{} is not written, because it would be refused: {reason}", args.out.display());
    }
    Ok(Exit::No)
}

/// The component that a core module describes by its embedded types.
fn componentize(core: &[u8], stub_wasi: bool) -> Result<Vec<u8>, String> {
    if wasmparser::Parser::is_component(core) {
        return Err("it is a component already".to_owned());
    }
    if !wasmparser::Parser::is_core_wasm(core) {
        return Err("it is not a WebAssembly module".to_owned());
    }
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
    fs::read(path).map_err(CliError::file("read", path))
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
