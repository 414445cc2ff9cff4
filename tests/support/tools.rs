//! The broker's command-line tools.

use std::collections::BTreeMap;
use std::process::Command;

use crate::kafka::target;
use crate::root;

/// Runs a tool, and returns its standard output.
fn run_tool(command: &mut Command) -> String {
    let output = command.output().expect("Java runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Returns the settings of a topic that are not defaults, as the broker's `kafka-configs` lists them.
///
/// # Panics
///
/// If the tool fails.
#[must_use]
pub fn settings(bootstrap: &str, topic: &str) -> BTreeMap<String, String> {
    let mut tool = ktables_broker::java(&target());
    tool.args(["kafka.admin.ConfigCommand", "--bootstrap-server", bootstrap, "--describe"]);
    let listed = run_tool(tool.args(["--entity-type", "topics", "--entity-name", topic]));
    let setting = |line: &str| {
        let (name, value) = line.strip_prefix("  ")?.split_once('=')?;
        let value = value.split(" sensitive=").next()?;
        Some((name.to_owned(), value.to_owned()))
    };
    listed.lines().filter_map(setting).collect()
}

/// Grants a user the right to these operations on a topic.
///
/// # Panics
///
/// If the tool fails.
pub fn grant(bootstrap: &str, user: &str, topic: &str, operations: &[&str]) {
    run_admin(&[bootstrap, "grant", user, topic, &operations.join(",")]);
}

/// Revokes the right of a user to these operations on a topic.
///
/// # Panics
///
/// If the tool fails.
pub fn revoke(bootstrap: &str, user: &str, topic: &str, operations: &[&str]) {
    run_admin(&[bootstrap, "revoke", user, topic, &operations.join(",")]);
}

/// Elects live replicas as leaders of a topic's partitions, although they are not in sync.
///
/// # Panics
///
/// If the tool fails.
pub fn elect_unclean(bootstrap: &str, topic: &str) {
    run_admin(&[bootstrap, "elect", topic]);
}

fn run_admin(args: &[&str]) {
    let mut java = ktables_broker::java(&target());
    run_tool(java.arg(root().join("tests/interop/Admin.java")).args(args));
}
