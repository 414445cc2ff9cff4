//! Loading untrusted components: whatever a file contains, the command reports it in words, and neither the
//! command nor its compiler exceeds its limits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ktables::wasm::{Compiler, Engine, EngineOptions, Limits, LoadOptions, WasmError};
use ktables_tests::{
    CommandOutput, PeakMemory, Scratch, component_path, engine_options, ktables, run, run_and_measure,
    succeed,
};
use tempfile::TempDir;

/// The memory that a command may use to refuse a component. Without a component, it uses 20 MiB.
const REFUSAL_BYTES: u64 = 200 << 20;

/// The memory that a compiler may use: its address space.
const COMPILER_BYTES: u64 = 2 << 30;

/// Writes a component to a file, and returns its path.
fn write_file(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(format!("{name}.wasm"));
    fs::write(&path, bytes).unwrap();
    path
}

fn component(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}: {}", &wat[..wat.len().min(400)]))
}

/// Builds a component that exports an empty instance as its value codec, and contains `more`.
fn codec_with(more: &str) -> Vec<u8> {
    component(&format!(
        r#"(component {more} (instance $i) (export "ktables:codec/value-codec@0.1.0" (instance $i)))"#
    ))
}

/// Runs a command that must end with this exit code, and use at most these bytes of memory.
fn expect_refusal(command: &mut Command, code: i32, bytes: u64) -> (CommandOutput, PeakMemory) {
    let (ended, peaks) = run_and_measure(command);
    assert_eq!(ended.code, code, "{command:?}: {}{}", ended.stdout, ended.stderr);
    assert!(peaks.own <= bytes && peaks.child <= COMPILER_BYTES, "{command:?}: {peaks:?}");
    (ended, peaks)
}

/// Inspects a component, and gets a value with it: both commands must refuse it for this reason.
fn check_refused(path: &Path, reason: &str) {
    let log = TempDir::new().unwrap();
    let log = format!("dir:{}", log.path().display());
    let path = path.to_str().unwrap();
    let inspected = expect_refusal(&mut ktables(&["codec", "inspect", path]), 1, REFUSAL_BYTES).0;
    assert!(inspected.stdout.contains(reason), "{reason}: {}", inspected.stdout);
    let get = ["get", "k", "--log", &log, "--topic", "t", "--value-codec", path];
    let got = expect_refusal(&mut ktables(&get), 3, REFUSAL_BYTES).0;
    assert!(got.stderr.contains(reason), "{reason}: {}", got.stderr);
}

/// Builds a binary that cannot be written as text, because parsers of text limit the depth of nesting.
fn binary(header: &[u8], sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    for (id, content) in sections {
        bytes.push(*id);
        bytes.extend(leb(content.len()));
        bytes.extend(content);
    }
    bytes
}

/// Encodes a number as LEB128.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Builds a codec with one more section.
fn codec_with_section(id: u8, content: Vec<u8>) -> Vec<u8> {
    binary(&codec_with(""), &[(id, content)])
}

/// Builds a section with one type that is nested in `depth` types of this kind (0x41: component, 0x42:
/// instance).
fn nested_types(kind: u8, depth: usize) -> Vec<u8> {
    let mut content = vec![1];
    (0..depth).for_each(|_| content.extend([kind, 1, 1]));
    content.push(0x7d);
    content
}

/// Builds components that are nested `depth` levels deep.
fn nested_components(depth: usize) -> Vec<u8> {
    (1..depth).fold(COMPONENT.to_vec(), |inner, _| binary(COMPONENT, &[(4, inner)]))
}

/// Builds components that each instantiate the previous one twice, `levels` times.
fn doubling(levels: usize) -> String {
    let mut text = "(component $c0)".to_owned();
    for level in 1..=levels {
        text.push_str(&format!(
            "(component $c{level} (alias outer 1 $c{0} (component $c)) (instance (instantiate $c)) \
             (instance (instantiate $c)))",
            level - 1
        ));
    }
    format!("{text} (instance (instantiate $c{levels}))")
}

#[test]
fn a_component_that_expands_beyond_the_limits_is_refused_before_it_is_parsed() {
    let folder = TempDir::new().unwrap();
    let modules = |count: usize, module: &str| {
        let instances = "(core instance (instantiate $m))".repeat(count);
        format!("(core module $m {module}) {instances}")
    };
    let binaries = [
        ("instance-types", codec_with_section(7, nested_types(0x42, 1000)), "types are nested"),
        ("component-types", codec_with_section(7, nested_types(0x41, 200_000)), "types are nested"),
        ("a-type-too-deep", codec_with_section(7, nested_types(0x42, 17)), "types are nested"),
        ("components-deep", codec_with_section(4, nested_components(20_000)), "components are nested"),
    ];
    for (name, bytes, reason) in binaries {
        check_refused(&write_file(&folder, name, &bytes), reason);
    }
    let cases: [(&str, String, &str); 8] = [
        ("beside", "(component)".repeat(2000), "more than 100 components"),
        ("doubling", doubling(34), "more than 500 instances"),
        ("doubling-deep", doubling(70), "more than 500 instances"),
        (
            "memories",
            format!("(core module $m {}) (core instance (instantiate $m))", "(memory 0)".repeat(90)),
            "more than 16 memories",
        ),
        ("memories-of-many", modules(200, ""), "more than 64 module instances"),
        ("tables", modules(30, &"(table 0 funcref)".repeat(50)), "more than 64 tables"),
        ("empty-instances", "(core instance)".repeat(2000), "more than 500 instances"),
        ("functions", format!("(core module {})", "(func)".repeat(120_000)), "more than 100000 functions"),
    ];
    for (name, more, reason) in cases {
        check_refused(&write_file(&folder, name, &codec_with(&more)), reason);
    }
}

#[test]
fn code_that_takes_too_long_to_compile_is_refused_before_it_is_compiled() {
    let folder = TempDir::new().unwrap();
    let module = |functions: &str| codec_with(&format!("(core module {functions})"));
    let table = format!("(br_table {} (i32.const 0))", "0 ".repeat(150_000));
    let large = "(drop (i32.const 1000000))".repeat(500_000);
    for (name, functions, reason) in [
        ("locals", format!("(func (local {}))", "i64 ".repeat(30_000)), "locals, but at most"),
        ("branches", format!("(func (block {table}))"), "more than 100000 branch table entries"),
        ("body", format!("(func {large})"), "bytes, but at most"),
        ("all-locals", format!("(func (local {}))", "i64 ".repeat(19_000)).repeat(600), "locals, but at"),
    ] {
        check_refused(&write_file(&folder, name, &module(&functions)), reason);
    }
}

/// Builds a codec with valid functions that take long to compile.
fn heavy(functions: usize) -> Vec<u8> {
    // Many blocks, and many values that are live in all of them.
    let sets: String =
        (0..400).map(|n| format!("(local.set {n} (local.get {}))", (n * 7 + 1) % 400)).collect();
    let blocks = format!("(block (br_if 0 (local.get 0)) {sets})").repeat(60);
    let function = format!("(func (param i32) (local {}) {blocks})", "i32 ".repeat(400));
    codec_with(&format!("(core module {})", function.repeat(functions)))
}

#[test]
fn a_compilation_that_exceeds_its_deadline_is_killed_and_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    let path = write_file(&folder, "heavy", &heavy(40));
    let options = EngineOptions {
        cache: Some(cache.clone()),
        compile_deadline: std::time::Duration::from_millis(100),
        ..engine_options()
    };
    let refused = Engine::new(options).unwrap().load(&path, LoadOptions::default());
    let Err(WasmError::Refused { reasons, .. }) = refused else { panic!("{refused:?}") };
    assert!(reasons[0].contains("processing it takes longer than 100ms"), "{reasons:?}");
    assert_eq!(fs::read_dir(cache).unwrap().count(), 0);
    // No compiler process is left.
    let id = i32::try_from(std::process::id()).unwrap();
    let tasks = procfs::process::Process::new(id).unwrap().tasks().unwrap();
    let children = tasks.filter_map(|task| task.ok()?.children().ok()).flatten();
    let compilers = children.filter(|&child| {
        let child = i32::try_from(child).unwrap();
        procfs::process::Process::new(child).and_then(|process| process.cmdline()).is_ok_and(|args| {
            args.get(1).is_some_and(|job| job == "compile-component")
                && args.last().is_some_and(|deadline| deadline == "1")
        })
    });
    assert_eq!(compilers.count(), 0);
}

#[test]
fn each_example_is_compiled_in_its_own_process() {
    for name in ["deb822", "service-record", "deb822-by-section"] {
        let mut command = ktables(&["codec", "inspect", component_path(name).to_str().unwrap()]);
        let (ended, peaks) = run_and_measure(command.env("KTABLES_CACHE_DIR", ""));
        assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
        assert!(peaks.child > 0 && peaks.child < 1 << 30 && peaks.own < REFUSAL_BYTES, "{peaks:?}");
    }
}

#[test]
fn a_missing_or_wrong_compiler_is_named_in_the_error() {
    let cases = [("/no/such/ktables", "/no/such/ktables"), ("/bin/true", "cannot use the compiled code")];
    for (program, expected) in cases {
        let options = EngineOptions { cache: None, ..EngineOptions::new(Compiler::Command(program.into())) };
        let failed = Engine::new(options).unwrap().load(component_path("probe"), LoadOptions::default());
        let Err(WasmError::Engine { reason }) = &failed else { panic!("{failed:?}") };
        assert!(reason.contains(expected) && reason.contains("probe"), "{reason}");
    }
}

#[test]
fn a_core_module_is_built_in_its_own_process() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.wasm");
    // A custom section holds the type that a module was built against.
    let embedded = binary(COMPONENT, &[(7, nested_types(0x42, 1000))]);
    let name = b"component-type:x";
    let section = [&leb(name.len()), &name[..], &embedded].concat();
    let module = binary(MODULE, &[(0, section)]);
    for (name, core, reason) in [
        ("nested", module, "types are nested"),
        ("cut", b"\0asm\x01\0\0\0\x01".to_vec(), "unexpected end"),
        ("text", b"hello".to_vec(), "not a WebAssembly module"),
    ] {
        let core = write_file(&folder, name, &core);
        let build = ["codec", "build", core.to_str().unwrap(), "-o", out.to_str().unwrap()];
        let (ended, _) = expect_refusal(&mut ktables(&build), 2, REFUSAL_BYTES);
        assert!(ended.stderr.contains(reason), "{name}: {}", ended.stderr);
        assert!(!out.exists());
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "a draft is left");
}

#[test]
fn files_that_cannot_be_components_are_not_read() {
    let folder = TempDir::new().unwrap();
    let sparse = folder.path().join("sparse.wasm");
    fs::File::create(&sparse).unwrap().set_len(2 << 30).unwrap();
    let fifo = folder.path().join("fifo.wasm");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let out = folder.path().join("out.wasm");
    for (path, reason) in [
        (sparse.as_path(), "2147483648 bytes"),
        (&fifo, "not a regular file"),
        (Path::new("/dev/zero"), "not a regular file"),
        (folder.path(), "not a regular file"),
    ] {
        let text = path.to_str().unwrap();
        for args in [&["codec", "inspect", text][..], &["codec", "build", text, "-o", out.to_str().unwrap()]]
        {
            let (ended, peaks) = expect_refusal(&mut ktables(args), 3, 100 << 20);
            assert!(ended.stderr.contains(reason), "{args:?}: {}", ended.stderr);
            assert_eq!(peaks.child, 0);
        }
        let engine = Engine::new(EngineOptions { cache: None, ..engine_options() }).unwrap();
        let refused = engine.load(path, LoadOptions::default()).unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused}");
    }
}

#[test]
fn cached_code_that_others_could_have_written_is_not_run() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    let load = || {
        let options = EngineOptions { cache: Some(cache.clone()), ..engine_options() };
        Engine::new(options).unwrap().load(component_path("probe"), LoadOptions::default()).map(drop)
    };
    load().unwrap();
    let compiled = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let planted = fs::read(&compiled).unwrap();
    let is_replaced = || {
        fs::symlink_metadata(&compiled)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o777 == 0o600)
    };
    // Others can write to the file.
    fs::set_permissions(&compiled, fs::Permissions::from_mode(0o622)).unwrap();
    load().unwrap();
    assert!(is_replaced());
    // The file belongs to another user: tests run as root.
    std::os::unix::fs::chown(&compiled, Some(12345), None).unwrap();
    load().unwrap();
    assert!(is_replaced());
    // The file is a link, a FIFO, or larger than any compiled component.
    let other = folder.path().join("other");
    fs::write(&other, &planted).unwrap();
    fs::remove_file(&compiled).unwrap();
    std::os::unix::fs::symlink(&other, &compiled).unwrap();
    load().unwrap();
    assert!(is_replaced());
    fs::remove_file(&compiled).unwrap();
    assert!(Command::new("mkfifo").arg(&compiled).status().unwrap().success());
    load().unwrap();
    assert!(is_replaced());
    fs::OpenOptions::new().write(true).open(&compiled).unwrap().set_len(1 << 40).unwrap();
    load().unwrap();
    assert_eq!(fs::read(&compiled).unwrap().len(), planted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_thread_stack_does_not_crash_the_command() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    let path = component_path("probe");
    let codec = ["--value-codec", path.to_str().unwrap(), "--value-codec-config", r#"{"mode":"json"}"#];
    let get = |size: &str| {
        let mut command = scratch.ktables(&[&["get", "a"], &codec[..]].concat());
        succeed(command.env("RUST_MIN_STACK", size)).stdout
    };
    assert_eq!((get("300000").as_str(), get("65536").as_str()), ("1\n", "1\n"));
}

/// Builds a component that has a codec's export, and instantiates this module.
fn codec_with_module(module: &str) -> Vec<u8> {
    codec_with(&format!("(core module $m {module}) (core instance (instantiate $m))"))
}

/// The memory that the host keeps for an instance is charged to it, with the pool of instances and without
/// (if there is no address space for it).
#[test]
fn host_memory_of_an_instance_is_charged_to_it() {
    let folder = TempDir::new().unwrap();
    let globals = codec_with_module(&"(global (mut i64) (i64.const 0))".repeat(900_000));
    let path = write_file(&folder, "globals", &globals);
    let inspect = format!("{:?} codec inspect {}", program(), path.display());
    for address_space in ["unlimited", "8000000"] {
        let script = format!("ulimit -v {address_space}; exec {inspect}");
        let mut command = Command::new("bash");
        let ended = run(command.args(["-c", &script]).env("KTABLES_CACHE_DIR", ""));
        assert_eq!(ended.code, 1, "{address_space}: {}{}", ended.stdout, ended.stderr);
        // The pool has no room for an instance of this size either.
        assert!(
            ended.stdout.contains("more than 50000 globals"),
            "{address_space}: {}{}",
            ended.stdout,
            ended.stderr
        );
    }
    let tables = codec_with_module("(table 1500000 funcref)");
    let path = write_file(&folder, "tables", &tables);
    let engine = Engine::new(EngineOptions { cache: None, ..engine_options() }).unwrap();
    let limits = Limits { memory: 16 << 20, ..Limits::default() };
    let failed = engine.load(&path, LoadOptions { limits, ..LoadOptions::default() }).unwrap_err();
    assert!(failed.to_string().contains("limits.memory") || failed.to_string().contains("table"), "{failed}");
}

/// Returns the path of the command.
fn program() -> PathBuf {
    PathBuf::from(ktables(&[]).get_program())
}
