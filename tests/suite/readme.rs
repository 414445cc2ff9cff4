//! Runs the shell blocks of the documentation.

use std::fs;
use std::process::Command;

use ktables_tests::{cache_folder, kafka, root, unique};

/// Returns the fenced blocks of this language in a file.
fn read_blocks(file: &str, language: &str) -> Vec<String> {
    let readme = fs::read_to_string(root().join(file)).unwrap();
    let fences = readme.split("\n```").skip(1).step_by(2);
    fences.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n').map(str::to_owned)).collect()
}

/// Runs a block in the project's folder. Its lines `# → TEXT` must appear in its output, in order.
fn run_block(block: &str) {
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", block]).current_dir(root());
    shell.env_remove("KTABLES_LOG").env("KTABLES_CACHE_DIR", cache_folder());
    // The C compiler's libraries are compiled once.
    shell.env("ZIG_GLOBAL_CACHE_DIR", cache_folder().with_file_name("zig"));
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
fn quick_starts_work_on_a_cluster_with_its_url() {
    for (block, topic) in read_blocks("README.md", "sh").iter().zip(["services", "counters", "services"]) {
        let block = block.replace("dir:./data", &format!("kafka://{}", kafka::shared()));
        let name = unique(topic);
        let contexts = [("--topic ", ""), ("topic = \"", "\""), ("topic = \\\"", "\\\"")];
        run_block(&contexts.iter().fold(block, |block, (before, after)| {
            block.replace(&format!("{before}{topic}{after}"), &format!("{before}{name}{after}"))
        }));
    }
}

#[test]
fn every_quick_start_works_unchanged() {
    let blocks = read_blocks("README.md", "sh");
    assert_eq!(blocks.len(), 3, "one quick start for each of the three kinds of users");
    blocks.iter().for_each(|block| run_block(block));
}

#[test]
fn the_shell_blocks_of_the_docs_work() {
    let files = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = files.map(|name| format!("docs/{}", name.to_string_lossy()));
    let blocks: Vec<String> =
        names.filter(|name| name.ends_with(".md")).flat_map(|name| read_blocks(&name, "sh")).collect();
    assert!(!blocks.is_empty());
    blocks.iter().for_each(|block| run_block(block));
}
