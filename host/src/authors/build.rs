//! Builds a component from a core module, in a child process.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use wasmparser::Parser;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata, metadata};
use wit_parser::{PackageId, Resolve};

use crate::authors::exports::{Checked, PREVIEW1, check};
use crate::authors::wit::package;
use crate::wasm::child::{ChildError, FAILED, Job, REFUSED, confine};
use crate::wasm::{MAX_BYTES, check_code};

/// The first argument of the child process.
const BUILD: &str = "build-component";

/// How long a build may take: a hundred times what it took for the largest module that was tried.
const DEADLINE: Duration = Duration::from_secs(60);

/// An adapter that implements WASI preview 1 without access to anything, and logs what a guest prints.
const PREVIEW1_STUB: &str = include_str!("preview1-stub.wat");

/// What the adapter needs from the host.
const PREVIEW1_STUB_WORLD: &str =
    "package ktables:preview1-stub; world stub { include ktables:codec/logging-guest@0.1.0; }";

/// A component, and advice to its author.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Built {
    pub(super) component: Vec<u8>,
    advice: Vec<String>,
}

/// Builds a component from a core module. Returns the component, and advice to its author, a line each.
///
/// # Errors
///
/// [`ChildError::Refused`] if the module is malformed or exceeds a limit, or if it does not export what a codec
/// needs.
pub(crate) fn build(program: &Path, core: &[u8]) -> Result<(Vec<u8>, String), ChildError> {
    check_is_module(core).map_err(ChildError::Refused)?;
    check_code(core).map_err(|reasons| ChildError::Refused(reasons.join("; ")))?;
    let job =
        Job { program, args: &[OsStr::new(BUILD)], input: core, output_limit: MAX_BYTES, deadline: DEADLINE };
    job.run()
}

/// Builds a component from the core module on standard input, if this process was started by [`build`]:
/// otherwise returns `None`.
pub(crate) fn build_as_child(job: &OsStr) -> Option<Result<(), (i32, String)>> {
    (job == BUILD).then(|| {
        let failed = |error: io::Error| (FAILED, error.to_string());
        confine(DEADLINE).map_err(failed)?;
        let mut core = Vec::new();
        io::stdin().take(MAX_BYTES as u64 + 1).read_to_end(&mut core).map_err(failed)?;
        // On a thread, because the stack size of the main thread depends on the shell.
        let built = crate::thread::spawn("build", move || componentize(&core)).map_err(failed)?;
        let built = built.join().unwrap_or_else(|_| Err("it is malformed: the encoder panicked".to_owned()));
        let built = built.map_err(|reason| (REFUSED, reason))?;
        for line in built.advice {
            // OK to ignore: the component is built.
            let _ = writeln!(io::stderr(), "{line}");
        }
        let mut out = io::stdout();
        out.write_all(&built.component).and_then(|()| out.flush()).map_err(failed)
    })
}

/// Builds a component from a core module in this process, after the same checks as [`build`]. Returns whether it could
/// be built. For the fuzzer.
#[cfg(any(feature = "fuzzing", test))]
pub(crate) fn build_here(core: &[u8]) -> bool {
    check_code(core).is_ok() && componentize(core).is_ok()
}

fn check_is_module(core: &[u8]) -> Result<(), String> {
    if Parser::is_component(core) {
        return Err("it is already a component".to_owned());
    }
    if !Parser::is_core_wasm(core) {
        return Err("it is not a WebAssembly module".to_owned());
    }
    Ok(())
}

/// Builds a component from a core module. If the module does not say which interfaces it implements, as generated
/// bindings do, the names of its exports do. Imports of WASI preview 1 are replaced by the stub adapter.
pub(super) fn componentize(core: &[u8]) -> Result<Built, String> {
    check_is_module(core)?;
    let failed = |error| format!("cannot build a component from it: {error:#}");
    let (core, advice) = match has_world(core)? {
        true => (Cow::Borrowed(core), Vec::new()),
        false => {
            let (core, advice) = embed_world(core)?;
            (Cow::Owned(core), advice)
        }
    };
    // The adapter takes part only if the module imports it.
    let mut encoder = ComponentEncoder::default().validate(true).module(&core).map_err(failed)?;
    encoder = encoder.adapter(PREVIEW1, &preview1_stub()).map_err(failed)?;
    let component = encoder.encode().map_err(failed)?;
    Ok(Built { component, advice })
}

/// Returns the adapter that stubs WASI.
fn preview1_stub() -> Vec<u8> {
    // All of this is OK because it is constant, and a test builds it.
    let mut stub = wat::parse_str(PREVIEW1_STUB).expect("a valid module");
    let (mut resolve, _) = resolve_package();
    let package = resolve.push_str("stub.wit", PREVIEW1_STUB_WORLD).expect("a valid package");
    let world = resolve.select_world(&[package], None).expect("one world");
    embed_component_metadata(&mut stub, &resolve, world, StringEncoding::UTF8).expect("a valid world");
    stub
}

/// Parses the WIT package.
fn resolve_package() -> (Resolve, PackageId) {
    let mut resolve = Resolve::default();
    // OK because a test parses the package.
    let package = resolve.push_str("ktables.wit", &package()).expect("a valid package");
    (resolve, package)
}

/// Whether a module says which interfaces it implements.
fn has_world(core: &[u8]) -> Result<bool, String> {
    let (_, found) = metadata::decode(core).map_err(|error| format!("it is malformed: {error:#}"))?;
    Ok(!found.resolve.worlds[found.world].exports.is_empty())
}

/// Checks the exports of a module, and adds the world that they make up. Returns the module and advice.
fn embed_world(core: &[u8]) -> Result<(Vec<u8>, Vec<String>), String> {
    let (mut resolve, package) = resolve_package();
    let Checked { world, advice } = check(core, &resolve, package).map_err(|faults| faults.join("\n"))?;
    let failed = |error| format!("cannot describe its exports: {error:#}");
    let package = resolve.push_str("world.wit", &world).map_err(failed)?;
    let world = resolve.select_world(&[package], None).map_err(failed)?;
    let mut module = core.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).map_err(failed)?;
    Ok((module, advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_of_wasi_are_replaced() {
        let random =
            r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#;
        let initialize = r#"(func (export "_initialize") (drop (call $random (i32.const 0) (i32.const 8))))"#;
        let parts = [random, MEMORY, REALLOC, DECODE, ENCODE, initialize];
        let core = wat::parse_str(format!("(module {})", parts.concat())).unwrap();
        let built = componentize(&core).unwrap();
        let inspection = crate::wasm::inspect(&built.component);
        assert_eq!(inspection.imports, ["ktables:codec/types@0.1.0"]);
    }

    #[test]
    fn a_module_that_prints_imports_logging() {
        let write = r#"(import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))"#;
        let initialize = r#"(func (export "_initialize")
            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0))))"#;
        let parts = [write, MEMORY, REALLOC, DECODE, ENCODE, POST_RETURNS, initialize];
        let core = wat::parse_str(format!("(module {})", parts.concat())).unwrap();
        let inspection = crate::wasm::inspect(&componentize(&core).unwrap().component);
        assert!(inspection.imports.contains(&"ktables:codec/logging@0.1.0".to_owned()), "{inspection:?}");
        assert_eq!(inspection.refusals, Vec::<String>::new());
        assert!(!inspection.uses_wasi());
    }

    #[test]
    fn only_core_modules_can_be_built() {
        assert!(componentize(b"hello").is_err());
        assert!(componentize(&wat::parse_str("(component)").unwrap()).is_err());
    }

    const MEMORY: &str = r#"(memory (export "memory") 1)"#;
    const REALLOC: &str =
        r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))"#;
    const DECODE: &str = r#"(func (export "ktables:codec/value-codec@0.1.0#decode")
        (param i32 i32 i32 i32) (result i32) (i32.const 0))"#;
    const ENCODE: &str = r#"(func (export "ktables:codec/value-codec@0.1.0#encode")
        (param i32 i32) (result i32) (i32.const 0))"#;
    const POST_RETURNS: &str = r#"
        (func (export "cabi_post_ktables:codec/value-codec@0.1.0#decode") (param i32))
        (func (export "cabi_post_ktables:codec/value-codec@0.1.0#encode") (param i32))"#;

    fn build_module(parts: &[&str]) -> Result<Built, String> {
        componentize(&wat::parse_str(format!("(module {})", parts.concat())).unwrap())
    }

    #[test]
    fn the_exports_of_a_module_say_which_interfaces_it_implements() {
        let log = r#"(import "ktables:codec/logging@0.1.0" "log" (func (param i32 i32 i32)))"#;
        let built = build_module(&[log, MEMORY, REALLOC, DECODE, ENCODE, POST_RETURNS]).unwrap();
        let inspection = crate::wasm::inspect(&built.component);
        assert_eq!(inspection.refusals, Vec::<String>::new());
        assert_eq!(inspection.imports, ["ktables:codec/logging@0.1.0", "ktables:codec/types@0.1.0"]);
        assert_eq!(inspection.exports, ["ktables:codec/value-codec@0.1.0"]);
        assert_eq!(built.advice, Vec::<String>::new());
    }

    #[test]
    fn advice_names_the_functions_that_free_answers() {
        let built = build_module(&[MEMORY, REALLOC, DECODE, ENCODE]).unwrap();
        assert_eq!(built.advice.len(), 2, "{:?}", built.advice);
        for (advice, function) in built.advice.iter().zip(["decode", "encode"]) {
            let missing = format!("`cabi_post_ktables:codec/value-codec@0.1.0#{function}` is missing: ");
            assert!(advice.starts_with(&missing) && advice.contains("(func (param i32))"), "{advice}");
        }
    }

    #[test]
    fn each_fault_of_an_export_is_reported_with_what_to_write() {
        let other = |text: &'static str, from: &str, to: &str| text.replace(from, to);
        let cases: [(&[&str], &str); 14] = [
            (
                &[MEMORY, REALLOC, DECODE],
                "value-codec@0.1.0#encode` is missing: export it as (func (param i32 i32) (result i32))",
            ),
            (
                &[MEMORY, DECODE, ENCODE],
                "`cabi_realloc` is missing: export it as (func (param i32 i32 i32 i32)",
            ),
            (&[REALLOC, DECODE, ENCODE], "`memory` is missing"),
            (&[&other(MEMORY, "1)", "i64 1)"), REALLOC, DECODE, ENCODE], "must be a 32-bit memory"),
            (
                &[MEMORY, REALLOC, ENCODE, &other(DECODE, "(param i32 i32 i32 i32)", "(param i32 i64)")],
                "#decode` is (func (param i32 i64) (result i32)), but must be (func (param i32 i32 i32 i32)",
            ),
            (
                &[MEMORY, DECODE, ENCODE, &other(REALLOC, "i32 i32 i32 i32", "i32 i32")],
                "`cabi_realloc` is (func (param i32 i32) (result i32)), but must be",
            ),
            (
                &[MEMORY, REALLOC, DECODE, ENCODE, &other(POST_RETURNS, "(param i32)", "")],
                "#decode` is (func), but must be (func (param i32))",
            ),
            (
                &[MEMORY, REALLOC, DECODE, &other(ENCODE, "#encode", "#encod")],
                "#encode` is missing (it exports `ktables:codec/value-codec@0.1.0#encod`)",
            ),
            (
                &[MEMORY, REALLOC, &other(DECODE, "0.1.0", "0.2.0"), &other(ENCODE, "0.1.0", "0.2.0")],
                "rename `ktables:codec/value-codec@0.2.0#decode` to `ktables:codec/value-codec@0.1.0#decode`",
            ),
            (
                &[MEMORY, REALLOC, &other(DECODE, "ktables:codec/value-codec@0.1.0", "value_codec")],
                "rename `value_codec#decode` to `ktables:codec/value-codec@0.1.0#decode`",
            ),
            (
                &[MEMORY, DECODE, ENCODE, &other(REALLOC, "cabi_realloc", "cabi-realloc")],
                "`cabi_realloc` is missing (it exports `cabi-realloc`)",
            ),
            (
                &[MEMORY, REALLOC, DECODE, r#"(func (export "cabi_post_decode") (param i32))"#],
                "#decode` is missing (it exports `cabi_post_decode`): export it as (func (param i32))",
            ),
            (&[MEMORY, REALLOC, DECODE, r#"(func (export "_start"))"#], "`_start` is not called"),
            (&[MEMORY], "it exports no function of the WIT package"),
        ];
        for (parts, fault) in cases {
            let faults = build_module(parts).unwrap_err();
            assert!(faults.contains(fault), "{faults}");
        }
        let printf = r#"(import "env" "printf" (func (param i32)))"#;
        let faults = build_module(&[printf, MEMORY, REALLOC, DECODE, ENCODE]).unwrap_err();
        assert!(
            faults.contains("it imports `printf` from `env`, which the host does not provide"),
            "{faults}"
        );
    }

    #[test]
    fn exports_that_the_host_does_not_call_are_no_faults() {
        let others = r#"(func (export "cabi_realloc_adapter")) (func (export "ktables_init"))
            (func (export "wasi:http/handler@0.2.0#handle"))"#;
        build_module(&[MEMORY, REALLOC, DECODE, ENCODE, POST_RETURNS, others]).unwrap();
    }
}
