//! The hot paths held to what they took before: instructions of the host, counted by
//! callgrind, and fuel of guests, counted by their engine. No other load on the machine
//! changes either.

use std::fs;
use std::path::Path;

use crate::guests::guests;
use crate::run::{Outcome, built, cargo, command, output, root, run, say, target};
use crate::setup::valgrind;

/// What is counted; see `tests/benches/guard.rs`.
const PATHS: [&str; 5] = ["decode-built-in", "decode-component", "apply", "get", "snapshot"];

/// Guests whose fuel is counted: a name for the number, the guest, its configuration.
const GUESTS: [(&str, &str, &str); 2] =
    [("fuel-copy", "mirror", r#"{"mode":"copy"}"#), ("fuel-json", "mirror", r#"{"mode":"json"}"#)];

/// What they took when they were last recorded, a line each.
const RECORDED: &str = "tests/benches/guard.txt";

/// By how many per cent a path may pass what is recorded.
const TOLERANCE: u64 = 5;

/// And below it, so that what was gained is not lost again unseen.
const FASTER: u64 = 20;

/// Whether to compare with what is recorded, or to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    Check,
    Record,
}

/// Counts all paths.
pub(crate) fn guard(what: Guard) -> Outcome {
    valgrind()?;
    guests()?;
    let program = built("guard", &mut cargo(["bench", "--workspace", "--bench", "guard"]))?;
    let mut counted = Vec::new();
    for path in PATHS {
        counted.push((path, instructions(&program, path)?));
    }
    for (name, guest, config) in GUESTS {
        let fuel = output(command(&program).args(["fuel", guest, config]))?;
        counted.push((name, fuel.trim().parse().map_err(|error| format!("{name}: {fuel}: {error}"))?));
    }
    let file = root().join(RECORDED);
    if what == Guard::Record {
        let lines: String = counted.iter().map(|(path, count)| format!("{path} {count}\n")).collect();
        return fs::write(&file, lines).map_err(|error| format!("cannot write {RECORDED}: {error}"));
    }
    let recorded = fs::read_to_string(&file).map_err(|error| format!("{RECORDED}: {error}"))?;
    let (mut slower, mut faster) = (Vec::new(), Vec::new());
    for (path, count) in counted {
        let before = recorded.lines().find_map(|line| line.strip_prefix(path)?.trim().parse::<u64>().ok());
        let before = before.ok_or_else(|| format!("{RECORDED} has no number for {path}"))?;
        say(&format!("{path:>20}: {count:>9}, recorded {before:>9}"));
        if count * 100 > before * (100 + TOLERANCE) {
            slower.push(path);
        }
        if count * 100 < before * (100 - FASTER) {
            faster.push(path);
        }
    }
    if slower.is_empty() && faster.is_empty() {
        return Ok(());
    }
    if slower.is_empty() {
        return Err(format!(
            "more than {FASTER} % below what is recorded: {}. Record it, or the next change may take it \
             back unseen: cargo xtask guard --record",
            faster.join(", ")
        ));
    }
    Err(format!(
        "more than {TOLERANCE} % above what is recorded: {}. If that is what it takes, record it: \
         cargo xtask guard --record",
        slower.join(", ")
    ))
}

/// How many instructions a path takes.
fn instructions(program: &Path, path: &str) -> Outcome<u64> {
    let folder = target().join("bench");
    fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    let counts = folder.join(format!("{path}.callgrind"));
    let mut callgrind = command("valgrind");
    callgrind.args(["--quiet", "--tool=callgrind", "--toggle-collect=guard::measured*"]);
    run(callgrind.arg(format!("--callgrind-out-file={}", counts.display())).arg(program).arg(path))?;
    let text = fs::read_to_string(&counts).map_err(|error| format!("{}: {error}", counts.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
    total.filter(|&total| total > 0).ok_or_else(|| format!("callgrind counted nothing for {path}"))
}
