//! The fuzz targets, on stable Rust: libFuzzer with the compiler's coverage, without sanitizers.

use std::fs;

use crate::run::{Outcome, cargo, command, run, say, shown, target};

/// All targets, as `ktables::fuzzing` names them.
const TARGETS: [&str; 5] = ["component", "answers", "batches", "manifest", "configuration"];

/// What lets libFuzzer see which code runs, and what it compares.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Of which crates. What they depend on takes half an hour to compile with it, and observed procedural
/// macros cannot be loaded.
const OBSERVED: [&str; 3] = ["fuzz", "ktables", "ktables_json"];

/// Says that this program runs in the place of rustc.
const AS_COMPILER: &str = "KTABLES_FUZZ_COMPILES";

/// For how long each target runs if nothing is said.
const MINUTES: u64 = 15;

/// Fuzzes these targets, or all, one after the other.
pub(crate) fn fuzz(args: &[String]) -> Outcome {
    let (mut only, mut minutes) = (Vec::new(), MINUTES);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        match arg.as_str() {
            "--only" => only.push(value()?.clone()),
            "--minutes" => minutes = value()?.parse().map_err(|error| format!("--minutes: {error}"))?,
            _ => return Err(format!("`{arg}` is none of --only TARGET, --minutes N")),
        }
    }
    if let Some(unknown) = only.iter().find(|only| !TARGETS.contains(&only.as_str())) {
        return Err(format!("`{unknown}` is no target; there are {}", TARGETS.join(", ")));
    }
    let folder = target().join("fuzz");
    let this = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    let mut build = cargo(["build", "--release", "--quiet", "--manifest-path", "fuzz/Cargo.toml"]);
    run(build.env("RUSTC_WRAPPER", this).env(AS_COMPILER, "1").arg("--target-dir").arg(&folder))?;
    let program = folder.join("release/fuzz");
    for name in TARGETS.iter().filter(|name| only.is_empty() || only.iter().any(|only| only == *name)) {
        let (corpus, found) = (folder.join("corpus").join(name), folder.join("found").join(name));
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        say(&format!("== {name}: {minutes} minutes; what is found is put into {}", found.display()));
        let mut fuzzer = command(&program);
        fuzzer.env("KTABLES_FUZZ_TARGET", name).arg(&corpus).arg(format!("fuzz/seeds/{name}"));
        fuzzer
            .arg(format!("-max_total_time={}", minutes * 60))
            .arg(format!("-artifact_prefix={}/", found.display()));
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

/// Whether cargo runs this in the place of rustc, to compile what is fuzzed.
pub(crate) fn is_compiler() -> bool {
    std::env::var_os(AS_COMPILER).is_some()
}

/// Compiles a crate; its arguments are those of rustc behind its path.
pub(crate) fn compile(args: &[String]) -> Outcome {
    let (rustc, args) = args.split_first().ok_or("no compiler is named")?;
    let name = args.iter().skip_while(|arg| *arg != "--crate-name").nth(1);
    let is_observed = name.is_some_and(|name| OBSERVED.contains(&name.as_str()));
    let mut compile = std::process::Command::new(rustc);
    compile.args(args).args(COVERAGE.iter().filter(|_| is_observed));
    let status = compile.status().map_err(|error| format!("{}: {error}", shown(&compile)))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}
