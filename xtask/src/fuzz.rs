//! The fuzz targets, on stable Rust: libFuzzer with the compiler's coverage, without sanitizers.

use std::fs;

use crate::run::{Outcome, cargo, command, run, say, target};

/// All targets, as `ktables::fuzzing` names them.
const TARGETS: [&str; 5] = ["component", "answers", "batches", "manifest", "configuration"];

/// What lets libFuzzer see which code runs, and what it compares.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg=fuzzing";

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
    let mut build = cargo(["build", "--release", "--quiet", "--manifest-path", "fuzz/Cargo.toml"]);
    run(build.env("RUSTFLAGS", COVERAGE).arg("--target-dir").arg(&folder).args(["--target", &host()?]))?;
    let program = folder.join(host()?).join("release/fuzz");
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

/// The target of this machine, which must be named so that build scripts are not observed.
fn host() -> Outcome<String> {
    let about = crate::run::output(command("rustc").args(["--version", "--verbose"]))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("rustc does not tell its host")?.to_owned())
}
