//! Compares the cost of the hot paths with recorded counts: instructions of the host, counted by callgrind,
//! and fuel of guests, counted by wasmtime. Other load on the machine changes neither.

use std::fs;
use std::path::Path;

use crate::guests::build_rust_guests;
use crate::run::{Outcome, build_program, cargo, command, output, root, run, say, target};
use crate::setup::ensure_valgrind;

/// The paths whose instructions are counted; see `tests/benches/guard.rs`.
const PATHS: [&str; 5] = ["decode-built-in", "decode-component", "apply", "get", "snapshot"];

/// The guests whose fuel is counted: the name of the count, the guest, its configuration.
const GUESTS: [(&str, &str, &str); 2] =
    [("fuel-copy", "mirror", r#"{"mode":"copy"}"#), ("fuel-json", "mirror", r#"{"mode":"json"}"#)];

/// The file with the recorded counts, one a line.
const RECORDED: &str = "tests/benches/guard.txt";

/// By how many percent a count may exceed the recorded one.
const TOLERANCE: u64 = 5;

/// By how many percent a count may fall below the recorded one. A larger gain has to be recorded, or a later
/// change could lose it unnoticed.
const IMPROVEMENT: u64 = 20;

/// Whether to compare with the recorded counts, or to record new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuardMode {
    Check,
    Record,
}

/// Counts all paths, and compares or records the counts.
pub(crate) fn guard(mode: GuardMode) -> Outcome {
    ensure_valgrind()?;
    build_rust_guests()?;
    let program = build_program("guard", &mut cargo(["bench", "--workspace", "--bench", "guard"]))?;
    let mut counted = Vec::new();
    for path in PATHS {
        counted.push((path, count_instructions(&program, path)?));
    }
    for (name, guest, config) in GUESTS {
        let fuel = output(command(&program).args(["fuel", guest, config]))?;
        counted.push((name, fuel.trim().parse().map_err(|error| format!("{name}: {fuel}: {error}"))?));
    }
    let file = root().join(RECORDED);
    if mode == GuardMode::Record {
        let lines: String = counted.iter().map(|(path, count)| format!("{path} {count}\n")).collect();
        return fs::write(&file, lines).map_err(|error| format!("cannot write {RECORDED}: {error}"));
    }
    let recorded = fs::read_to_string(&file).map_err(|error| format!("cannot read {RECORDED}: {error}"))?;
    let (mut slower, mut faster) = (Vec::new(), Vec::new());
    for (path, count) in counted {
        let before = recorded.lines().find_map(|line| line.strip_prefix(path)?.trim().parse::<u64>().ok());
        let before = before.ok_or_else(|| {
            format!("{RECORDED} has no count for {path}: record it with cargo xtask guard --record")
        })?;
        say(&format!("{path:>20}: {count:>9}, recorded {before:>9}"));
        if count * 100 > before * (100 + TOLERANCE) {
            slower.push(path);
        }
        if count * 100 < before * (100 - IMPROVEMENT) {
            faster.push(path);
        }
    }
    if slower.is_empty() && faster.is_empty() {
        return Ok(());
    }
    if slower.is_empty() {
        return Err(format!(
            "more than {IMPROVEMENT} % below the recorded count: {}. Record the new counts, or a later \
             change may lose the gain unnoticed: cargo xtask guard --record",
            faster.join(", ")
        ));
    }
    Err(format!(
        "more than {TOLERANCE} % above the recorded count: {}. If the change is worth it, record the new \
         counts: cargo xtask guard --record",
        slower.join(", ")
    ))
}

/// Returns how many instructions a path executes.
fn count_instructions(program: &Path, path: &str) -> Outcome<u64> {
    let folder = target().join("bench");
    fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    let counts = folder.join(format!("{path}.callgrind"));
    let mut callgrind = command("valgrind");
    callgrind.args(["--quiet", "--tool=callgrind", "--toggle-collect=guard::measure*"]);
    run(callgrind.arg(format!("--callgrind-out-file={}", counts.display())).arg(program).arg(path))?;
    let text = fs::read_to_string(&counts);
    let text = text.map_err(|error| format!("cannot read {}: {error}", counts.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
    total.filter(|&total| total > 0).ok_or_else(|| format!("callgrind counted nothing for {path}"))
}
