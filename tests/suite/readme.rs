//! The README's shell blocks, run as they stand.

use std::fs;
use std::process::Command;

use ktables_tests::{cache_folder, kafka, root, unique};

/// The fenced blocks of this language.
fn blocks(language: &str) -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let fences = readme.split("\n```").skip(1).step_by(2);
    fences.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n').map(str::to_owned)).collect()
}

/// Runs a block from the project's folder. Lines `# → TEXT` in it are lines of its
/// output, in order.
fn check(block: &str) {
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", block]).current_dir(root());
    shell.env_remove("KTABLES_LOG").env("KTABLES_CACHE_DIR", cache_folder());
    let output = shell.output().expect("bash runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{block}\n{stdout}\n{stderr}");
    let mut lines = stdout.lines();
    for expected in block.lines().filter_map(|line| line.strip_prefix("# → ")) {
        assert!(
            lines.any(|line| line == expected),
            "{expected:?} is not printed (in order) by\n{block}\n{stdout}"
        );
    }
}

#[test]
fn on_a_cluster_only_the_url_differs() {
    for (block, topic) in blocks("sh").iter().zip(["services", "counters", "services"]) {
        let block = block.replace("dir:./data", &format!("kafka://{}", kafka::shared()));
        let name = unique(topic);
        let places = [("--topic ", ""), ("topic = \"", "\""), ("topic = \\\"", "\\\"")];
        check(&places.iter().fold(block, |block, (before, after)| {
            block.replace(&format!("{before}{topic}{after}"), &format!("{before}{name}{after}"))
        }));
    }
}

#[test]
fn every_quick_start_runs_as_it_stands() {
    let blocks = blocks("sh");
    assert_eq!(blocks.len(), 3, "a quick start for each of the three kinds of people");
    blocks.iter().for_each(|block| check(block));
}
