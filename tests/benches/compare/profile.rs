//! Samples where a replay spends its time: `cargo xtask profile`. The contender runs under perf, and `xtask`
//! draws a flame graph of the recorded stacks.

use std::path::Path;
use std::process::{Command, Stdio};

use ktables_tests::kafka::target;

use crate::contender::COMMAND;
use crate::replay::{SMALL, main_contender};
use crate::{data, say};

/// The argument that makes this program profile.
pub(crate) const PROFILE: &str = "profile";

/// Samples per second and thread. An odd number, so that sampling does not fall into step with periodic work.
const FREQUENCY: &str = "1499";

/// Replays a topic under perf. `args` are the contender's kind and codec, `component json` by default.
pub(crate) fn run(args: &[String], bootstrap: &str) {
    let (kind, codec) = match args {
        [kind, codec] => (kind.as_str(), codec.as_str()),
        _ => main_contender(),
    };
    let topic = data::produce(bootstrap, &SMALL);
    let folder = target().join("bench");
    std::fs::create_dir_all(&folder).unwrap();
    let recorded = folder.join("perf.data");
    let mut record = Command::new("perf");
    record.args(["record", "--quiet", "--freq", FREQUENCY, "--call-graph", "dwarf,16384", "--output"]);
    record.arg(&recorded).arg("--").arg(std::env::current_exe().unwrap());
    record.args([COMMAND, kind, codec, bootstrap, &topic]);
    let status = record.stdin(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "perf is missing, or this user may not use it");
    let report = |by: &str| report(&recorded, by);
    say(&format!("\nby thread\n{}\nby function\n{}", report("comm"), report("comm,symbol")));
    say(&format!("recorded: {}", recorded.display()));
}

/// Returns the first lines of perf's report.
fn report(recorded: &Path, by: &str) -> String {
    let mut report = Command::new("perf");
    report.args(["report", "--no-children", "--call-graph", "none", "--input"]).arg(recorded);
    report.args(["--fields", &format!("overhead,{by}")]);
    let output = report.stderr(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.take(60).map(str::trim_end).collect::<Vec<_>>().join("\n")
}
