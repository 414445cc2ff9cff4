//! Runs the fuzz targets on stable Rust: libFuzzer with the compiler's coverage instrumentation, without
//! sanitizers.

use std::fs;

use crate::run::{Outcome, cargo, command, command_line, run, say, target};

/// All targets: those of `ktables::fuzzing`, and one for each codec.
const TARGETS: [&str; 15] = [
    "component",
    "build",
    "answers",
    "batches",
    "manifest",
    "configuration",
    "reference",
    "artifact",
    "signature",
    "credentials",
    "policy",
    "archive",
    "avro",
    "json-schema",
    "protobuf",
];

/// Options of rustc that let libFuzzer see which code runs and which values it compares.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// The crates that are compiled with [`COVERAGE`]. Their dependencies would take half an hour to compile with
/// it, and rustc cannot load instrumented procedural macros.
const INSTRUMENTED: [&str; 9] = [
    "fuzz",
    "ktables",
    "ktables_json",
    "avro",
    "json_schema",
    "protobuf",
    "schema_framing",
    "buffa",
    "buffa_descriptor",
];

/// The environment variable that makes this program run in place of rustc.
const RUN_AS_RUSTC: &str = "KTABLES_FUZZ_COMPILES";

/// For how many minutes each target runs by default.
const MINUTES: u64 = 15;

/// Fuzzes the targets that the arguments name, or all, one after the other.
pub(crate) fn fuzz(args: &[String]) -> Outcome {
    let (mut only, mut minutes) = (Vec::new(), MINUTES);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--only" => only.push(value()?.clone()),
            "--minutes" => minutes = value()?.parse().map_err(|error| format!("--minutes: {error}"))?,
            _ => return Err(format!("unknown argument `{arg}`: use --only TARGET, --minutes N")),
        }
    }
    if let Some(unknown) = only.iter().find(|only| !TARGETS.contains(&only.as_str())) {
        return Err(format!("there is no target `{unknown}`: use one of {}", TARGETS.join(", ")));
    }
    if minutes == 0 {
        return Err("--minutes: at least 1".to_owned());
    }
    let folder = target().join("fuzz");
    let this = std::env::current_exe();
    let this = this.map_err(|error| format!("cannot find the path of this program: {error}"))?;
    let mut build = cargo(["build", "--release", "--quiet", "--manifest-path", "fuzz/Cargo.toml"]);
    run(build.env("RUSTC_WRAPPER", this).env(RUN_AS_RUSTC, "1").arg("--target-dir").arg(&folder))?;
    let program = folder.join("release/fuzz");
    for name in TARGETS.iter().filter(|name| only.is_empty() || only.iter().any(|only| only == *name)) {
        let (corpus, findings) = (folder.join("corpus").join(name), folder.join("found").join(name));
        for folder in [&corpus, &findings] {
            fs::create_dir_all(folder)
                .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
        }
        say(&format!("== {name}: {minutes} minutes; findings go to {}", findings.display()));
        let mut fuzzer = command(&program);
        fuzzer.env("KTABLES_FUZZ_TARGET", name).arg(&corpus).arg(format!("fuzz/seeds/{name}"));
        fuzzer
            .arg(format!("-max_total_time={}", minutes * 60))
            .arg(format!("-artifact_prefix={}/", findings.display()));
        // An input that takes ten seconds, or a GiB, is a finding.
        fuzzer.args([
            "-timeout=10",
            "-rss_limit_mb=1024",
            "-max_len=65536",
            "-print_final_stats=1",
            "-verbosity=0",
        ]);
        run(&mut fuzzer)?;
    }
    Ok(())
}

/// Returns true if cargo runs this program in place of rustc, to compile the fuzz targets.
pub(crate) fn is_compiler() -> bool {
    std::env::var_os(RUN_AS_RUSTC).is_some()
}

/// Compiles a crate. `args` are the path of rustc and its arguments.
pub(crate) fn compile(args: &[String]) -> Outcome {
    let (rustc, args) = args.split_first().ok_or("cargo did not pass the path of rustc")?;
    let name = args.iter().skip_while(|arg| *arg != "--crate-name").nth(1);
    let is_instrumented = name.is_some_and(|name| INSTRUMENTED.contains(&name.as_str()));
    let mut compile = std::process::Command::new(rustc);
    compile.args(args).args(COVERAGE.iter().filter(|_| is_instrumented));
    let status =
        compile.status().map_err(|error| format!("cannot run {}: {error}", command_line(&compile)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("rustc failed for crate {} ({status})", name.map_or("unknown", String::as_str)))
    }
}
