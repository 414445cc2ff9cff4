//! Tests of the tools for the authors of codecs: `codec new`, `check`, `test` and `run`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use ktables_tests::{
    CommandOutput, LogKind, component_path, is_long_run, kafka, ktables, parse, release_folder, root, run,
    run_with_stdin, succeed,
};
use serde_json::{Value, json};

fn vectors() -> String {
    root().join("examples/service-record/vectors.ndjson").display().to_string()
}

fn component(name: &str) -> String {
    component_path(name).display().to_string()
}

/// Returns the line that a command prints in the end.
fn summary(output: &CommandOutput) -> Value {
    output.json().pop().unwrap_or_else(|| panic!("no output: {}", output.stderr))
}

#[test]
fn check_names_each_planted_fault_with_the_smallest_input() {
    for (fault, test, function, longest) in [
        ("stateful", "independent-calls", "decode", r#"{"kind":"value","raw":""}"#),
        ("non_injective", "round-trip", "split", r#"{"kind":"group","key":"/A"}"#),
        ("non_canonical", "round-trip", "decode", r#"{"kind":"key","raw":"AAA="}"#),
        ("random_encoder", "independent-calls", "encode", r#"{"kind":"value","value":0}"#),
        ("trap_on_empty", "no-faults", "decode", r#"{"kind":"value","raw":""}"#),
        ("leak", "memory-growth", "decode", r#"{"kind":"value","raw":""}"#),
        ("batch_differs", "batch-form", "decode", r#"{"kind":"value","raw":"gA=="}"#),
    ] {
        let file = component(&format!("planted-{fault}"));
        let output = run(&mut ktables(&["codec", "check", &file]));
        assert_eq!(output.code, 1, "{fault}: {}", output.stderr);
        let lines = output.json();
        let failed: Vec<&Value> = lines.iter().filter(|line| line["passed"] == false).collect();
        assert_eq!(failed.len(), 1, "{fault}: {failed:?}");
        assert_eq!(failed[0]["test"], test, "{fault}: {failed:?}");
        let counterexample = failed[0]["counterexample"].as_array().unwrap();
        assert_eq!(counterexample.len(), 1, "{fault}: {failed:?}");
        let smallest = counterexample[0].to_string();
        assert!(smallest.len() <= longest.len(), "{fault}: {smallest}");
        assert_eq!(summary(&output)["accepted"], false);
        // The counterexample can be tried again.
        let again = run_with_stdin(&mut ktables(&["codec", "run", &file, function, "--lines"]), &smallest);
        assert_eq!(again.json().len(), 1, "{fault}: {}", again.stderr);
    }
}

/// Defines a test for each component.
macro_rules! service_record_tests {
    ($($test:ident = $component:literal),* $(,)?) => {$(
        #[test]
        fn $test() {
            passes_check_and_vectors($component);
        }
    )*};
}

service_record_tests! {
    the_service_record_in_rust_passes_check = "service-record",
    the_service_record_in_c_passes_check = "service-record-c",
    the_service_record_in_go_passes_check = "service-record-go",
    the_service_record_in_python_passes_check = "service-record-python",
    the_service_record_in_typescript_passes_check = "service-record-typescript",
}

fn passes_check_and_vectors(name: &str) {
    let tested = succeed(&mut ktables(&["codec", "test", &component(name), "--vectors", &vectors()]));
    assert_eq!(tested.json(), [json!({"passed": 76, "failed": 0})]);
    let arguments = ["codec", "check", &component(name), "--samples", &vectors(), "--fuzz", "1000"];
    let checked = succeed(&mut ktables(&arguments));
    assert_eq!(summary(&checked)["accepted"], true, "{}", checked.stdout);
}

#[test]
fn a_component_that_accepts_no_sample_is_not_proven() {
    let output = run(&mut ktables(&["codec", "check", &component("service-record"), "--fuzz", "10"]));
    assert_eq!(output.code, 1);
    let lines = output.json();
    let unproven = lines.iter().find(|line| line["test"] == "accepted-samples").unwrap();
    assert!(unproven["found"].as_str().unwrap().starts_with("not proven"), "{unproven}");
}

#[test]
fn samples_come_from_files_folders_and_topics() {
    let folder = tempfile::tempdir().unwrap();
    let log = format!("dir:{}", folder.path().join("log").display());
    let record = folder.path().join("records/one.bin");
    fs::create_dir(record.parent().unwrap()).unwrap();
    let bytes = b"\x01\x01\x1f\x90\0\0\0\x07\0\0\x01\x8b\xcf\xe5h\0\x01a\x02\x01b\x02cd";
    fs::write(&record, bytes).unwrap();
    for log in [log, format!("kafka://{}", kafka::shared())] {
        let topic = ktables_tests::unique("samples");
        succeed(&mut ktables(&["topic", "ensure", "--log", &log, "--topic", &topic]));
        let key = folder.path().join("key");
        fs::write(&key, [7; 16]).unwrap();
        let (key, value) = (key.display().to_string(), record.display().to_string());
        let target = ["--log", &log, "--topic", &topic];
        let record = ["produce", "--key-file", &key, "--value-file", &value];
        succeed(&mut ktables(&[&record[..], &target].concat()));
        let place = format!("{log}/{topic}");
        let check = ["codec", "check", &component("service-record"), "--fuzz", "100", "--samples", &place];
        succeed(&mut ktables(&check));
    }
    for place in [record.as_path(), record.parent().unwrap()] {
        let place = place.display().to_string();
        let check = ["codec", "check", &component("service-record"), "--fuzz", "100", "--samples", &place];
        succeed(&mut ktables(&check));
    }
    let check = ["codec", "check", &component("service-record"), "--samples", "no/such/file"];
    let missing = run(&mut ktables(&check));
    assert_eq!(missing.code, 2);
    assert!(missing.stderr.contains("no such file or folder"), "{}", missing.stderr);
}

#[test]
fn a_report_is_an_in_toto_statement_about_the_component() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json").display().to_string();
    let file = component("planted-trap_on_empty");
    assert_eq!(run(&mut ktables(&["codec", "check", &file, "--report", &report])).code, 1);
    let report = parse(&fs::read_to_string(&report).unwrap());
    assert_eq!(report["predicateType"], "https://in-toto.io/attestation/test-result/v0.1");
    assert_eq!(report["predicate"]["result"], "FAILED");
    assert_eq!(report["predicate"]["failedTests"], json!(["value/no-faults"]));
    let inspected = succeed(&mut ktables(&["codec", "inspect", &file])).json().remove(0);
    let digest = format!("sha256:{}", report["subject"][0]["digest"]["sha256"].as_str().unwrap());
    assert_eq!(inspected["digest"], json!(digest));
}

#[test]
fn differences_from_the_vectors_are_reported_and_can_be_blessed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vectors.ndjson");
    let path = file.display().to_string();
    let test = ["codec", "test", &component("service-record"), "--vectors", &path];
    let right =
        r#"{"kind":"key","raw":"AAECAwQFBgcICQoLDA0ODw==","key":"00010203-0405-0607-0809-0a0b0c0d0e0f"}"#;
    let wrong = r#"{"kind":"value","raw":"Ag==","error":"malformed"}"#;
    fs::write(&file, format!("{right}\n\n{wrong}\n")).unwrap();
    let output = run(&mut ktables(&test));
    assert_eq!(output.code, 1, "{}", output.stderr);
    let lines = output.json();
    assert_eq!(lines[0]["line"], 3);
    assert_eq!(lines[0]["expected"], "an error of the kind malformed");
    assert!(lines[0]["found"].as_str().unwrap().contains("unsupported version 2"), "{lines:?}");
    assert_eq!(summary(&output), json!({"passed": 2, "failed": 1}));
    succeed(&mut ktables(&[&test[..], &["--bless"]].concat()));
    let blessed = fs::read_to_string(&file).unwrap();
    assert_eq!(blessed, format!("{right}\n{}\n", wrong.replace("malformed", "unsupported")));
    for (text, reason) in [
        ("{", "line 1: EOF"),
        (r#"{"kind":"value"}"#, "needs `raw` and `value`"),
        (r#"{"kind":"group","key":"a"}"#, "no codec of the kind group"),
        (r#"{"kind":"value","raw":"*"}"#, "not base64"),
        (r#"{"kind":"value","raw":"","error":"wrong"}"#, "expected one of malformed"),
        (r#"{"kind":"value","raw":"","vlaue":1}"#, "unknown field `vlaue`"),
    ] {
        fs::write(&file, text).unwrap();
        let refused = run(&mut ktables(&test));
        assert_eq!(refused.code, 2, "{text}");
        assert!(refused.stderr.contains(reason), "{text}: {}", refused.stderr);
    }
}

#[test]
fn single_items_and_lines_are_converted() {
    let call = |arguments: &[&str], input: &str| {
        let file = component("service-record");
        run_with_stdin(&mut ktables(&[&["codec", "run", &file], arguments].concat()), input)
    };
    let key = "00010203-0405-0607-0809-0a0b0c0d0e0f";
    let encoded = call(&["encode", "--kind", "key"], key);
    assert_eq!(encoded.stdout.as_bytes(), (0..16).collect::<Vec<u8>>());
    let decoded = call(&["decode", "--kind", "key"], &encoded.stdout);
    assert_eq!(decoded.stdout, format!("{key}\n"));
    let rejected = call(&["decode"], "\u{2}");
    assert_eq!((rejected.code, &*rejected.stdout), (1, ""));
    assert!(rejected.stderr.contains("unsupported: unsupported version 2"), "{}", rejected.stderr);
    let lines = call(
        &["decode", "--lines", "--kind", "key"],
        "{\"raw\":\"AA==\"}\n{\"raw\":\"AAECAwQFBgcICQoLDA0ODw==\"}\n",
    );
    assert_eq!(lines.code, 1);
    assert_eq!(lines.json()[0]["error"], "malformed");
    assert_eq!(lines.json()[0]["message"], "expected a key of 16 bytes, found 1");
    assert_eq!(lines.json()[1]["key"], key);
    let missing = call(&["split"], "a");
    assert_eq!(missing.code, 2);
    assert!(missing.stderr.contains("group-scheme"), "{}", missing.stderr);
    for (arguments, input, reason) in [
        (&["encode"][..], "{", "not JSON"),
        (&["decode", "--lines"], "1", "line 1"),
        (&["decode", "--lines"], "{}", "the input of the function is missing"),
        (&["decode", "--kind", "group"], "", "split and join"),
        (&["decode", "--lines"], "{\"kind\":\"key\",\"raw\":\"\"}", "another kind"),
    ] {
        let refused = call(arguments, input);
        assert_eq!(refused.code, 2, "{arguments:?}");
        assert!(refused.stderr.contains(reason), "{arguments:?}: {}", refused.stderr);
    }
}

/// Creates projects in a language, and runs the three commands of the README of each. The last one is `codec check`.
fn new_projects_are_accepted(language: &str, kinds: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    for kind in kinds {
        let name = format!("demo-{kind}");
        let project = folder.path().join(&name);
        let path = project.display().to_string();
        let new = ["codec", "new", "--lang", language, "--kind", kind, &path];
        succeed(&mut ktables(&new));
        let again = run(&mut ktables(&new));
        assert_eq!(again.code, 2, "an existing folder is not overwritten");
        let readme = fs::read_to_string(project.join("README.md")).unwrap();
        let (_, commands) = readme.split_once("```sh\n").unwrap();
        let (commands, _) = commands.split_once("```").unwrap();
        assert_eq!(commands.lines().count(), 3, "{commands}");
        if language == "rust" {
            // What all crates share is compiled once.
            symlink(release_folder().with_file_name("guests"), project.join("target")).unwrap();
        }
        let mut shell = tools_shell(language, folder.path());
        let built = succeed(shell.args(["-euxo", "pipefail", "-c", commands]).current_dir(&project));
        // The tools of some languages print something, too.
        let checked = parse(built.stdout.lines().last().unwrap());
        assert_eq!(checked["accepted"], true, "{}", built.stdout);
        let file = project.join(format!("{name}.wasm")).display().to_string();
        let vectors = project.join("vectors.ndjson").display().to_string();
        let tested = succeed(&mut ktables(&["codec", "test", &file, "--vectors", &vectors]));
        assert_eq!(summary(&tested)["failed"], 0);
    }
}

/// Returns a shell in which the tools of a language are installed.
fn tools_shell(language: &str, folder: &Path) -> Command {
    let target = release_folder().parent().unwrap().to_owned();
    let mut folders = vec![release_folder(), target.join("tools/guests/bin")];
    let mut shell = Command::new("bash");
    if language == "rust" && !has_wasm_target() {
        // Debian's compiler, as `cargo xtask guests` uses it.
        let programs = folder.join("bin");
        fs::create_dir_all(&programs).unwrap();
        let _ = symlink("/usr/bin/cargo", programs.join("cargo"));
        folders.insert(0, programs);
        shell.envs([
            ("RUSTC", "/usr/bin/rustc"),
            ("RUSTC_BOOTSTRAP", "1"),
            ("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort"),
            ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "/usr/lib/llvm-22/bin/wasm-ld"),
        ]);
        for other in ["RUSTDOC", "RUSTC_WRAPPER", "LD_LIBRARY_PATH", "RUSTUP_TOOLCHAIN"] {
            shell.env_remove(other);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path).collect::<Vec<PathBuf>>());
    shell
        .env("PATH", std::env::join_paths(folders).unwrap())
        .env_remove("CARGO_TARGET_DIR")
        .env("KTABLES_CACHE_DIR", ktables_tests::cache_folder())
        .env("GOCACHE", target.join("go"))
        .env("ZIG_GLOBAL_CACHE_DIR", target.join("zig"))
        .env("ZIG_LOCAL_CACHE_DIR", target.join("zig"));
    shell
}

/// Whether rustup's toolchain has the target for components.
fn has_wasm_target() -> bool {
    let mut rustc = Command::new("rustc");
    let printed = rustc.args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"]).output();
    printed.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

#[test]
fn new_projects_in_rust_are_accepted() {
    new_projects_are_accepted("rust", &["value", "key", "group"]);
}

#[test]
fn new_projects_in_c_are_accepted() {
    new_projects_are_accepted("c", &["value", "key", "group"]);
}

#[test]
fn new_projects_in_go_are_accepted() {
    new_projects_are_accepted("go", &["value", "key", "group"]);
}

#[test]
fn new_projects_in_python_are_accepted() {
    // Each has an interpreter, whose compilation takes long.
    let kinds = if is_long_run() { &["value", "key", "group"][..] } else { &["group"] };
    new_projects_are_accepted("python", kinds);
}

#[test]
fn new_projects_in_typescript_are_accepted() {
    new_projects_are_accepted("ts", &["value", "key", "group"]);
}

#[test]
fn names_that_are_no_names_of_packages_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("My Codec").display().to_string();
    let refused = run(&mut ktables(&["codec", "new", "--lang", "c", &path]));
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("lower-case letters"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_reproduces_a_fault_elsewhere_and_passes_with_another_component() {
    for kind in [LogKind::Directory, LogKind::Kafka] {
        let scratch = kind.scratch(1).await;
        scratch.put("a", Some(b"x")).await;
        let long = vec![b'x'; 100_000];
        scratch.put("long", Some(&long)).await;
        scratch.put("empty", Some(b"")).await;
        let folder = tempfile::tempdir().unwrap();
        let cases = folder.path().join("cases").display().to_string();
        let codec = component("planted-trap_on_empty");
        let export =
            ["rejects", "--value-codec", &codec, "--codec-limit", "memory=32MiB", "--export", &cases];
        let exported = succeed(&mut scratch.ktables(&export)).json().remove(0);
        assert_eq!((&exported["cases"], &exported["skipped"]), (&json!(1), &json!(0)));
        let case = fs::read_dir(&cases).unwrap().next().unwrap().unwrap().path().display().to_string();
        let read = parse(&fs::read_to_string(&case).unwrap());
        assert_eq!(
            (&read["offset"], &read["key"], &read["value"]),
            (&json!(2), &json!("ZW1wdHk="), &json!(""))
        );
        assert_eq!(read["limits"]["memory"], "33554432B");
        assert_eq!(read["trap"], "UnreachableCodeReached");
        // The component has no names of functions.
        assert!(read["backtrace"][0].as_str().unwrap().starts_with("function "), "{}", read["backtrace"]);
        let again = run(&mut ktables(&["codec", "reproduce", &case, &codec]));
        assert_eq!(again.code, 1, "{}", again.stderr);
        let again = summary(&again);
        assert_eq!((&again["reproduced"], &again["fixed"]), (&json!(true), &json!(false)));
        assert_eq!(again["message"], "index 0 is out of range for 0 bytes");
        let fixed = succeed(&mut ktables(&["codec", "reproduce", &case, &component("planted-leak")]));
        assert_eq!(summary(&fixed)["fixed"], true);
        // The whole record is in the case, not only the part that a table keeps.
        let service = component("service-record");
        let export = ["rejects", "--value-codec", &service, "--export", &cases, "--prefix", "long"];
        succeed(&mut scratch.ktables(&export));
        let case = fs::read_to_string(format!("{cases}/{}-0-1.json", scratch.topic.name)).unwrap();
        assert!(parse(&case)["value"].as_str().unwrap().len() > 130_000);
    }
}

#[test]
fn the_text_of_an_exception_arrives_in_python_and_typescript() {
    for (language, file, raise) in [
        ("python", "codec.py", ("return str(int.from_bytes(raw, \"big\"))", "return {}[\"missing key\"]")),
        (
            "ts",
            "codec.ts",
            (
                "return String(new DataView(raw.buffer, raw.byteOffset).getUint32(0));",
                "throw new Error(\"missing key\");",
            ),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("demo");
        succeed(&mut ktables(&["codec", "new", "--lang", language, &project.display().to_string()]));
        let source = fs::read_to_string(project.join(file)).unwrap();
        assert!(source.contains(raise.0), "{source}");
        fs::write(project.join(file), source.replace(raise.0, raise.1)).unwrap();
        let readme = fs::read_to_string(project.join("README.md")).unwrap();
        let (_, commands) = readme.split_once("```sh\n").unwrap();
        let build: Vec<&str> = commands.lines().take(2).collect();
        let mut shell = tools_shell(language, folder.path());
        succeed(shell.args(["-euxo", "pipefail", "-c", &build.join("\n")]).current_dir(&project));
        let built = project.join("demo.wasm").display().to_string();
        let output = run_with_stdin(&mut ktables(&["codec", "run", &built, "decode"]), "1234");
        assert_eq!(output.code, 1, "{}", output.stderr);
        assert!(output.stderr.contains("missing key"), "{language}: {}", output.stderr);
        assert!(output.stderr.contains("decode"), "the stack: {}", output.stderr);
    }
}
