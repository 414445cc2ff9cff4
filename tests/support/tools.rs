//! The broker's own tools.

use std::collections::BTreeMap;
use std::process::Command;

use crate::kafka::target;
use crate::root;

fn said(command: &mut Command) -> String {
    let output = command.output().expect("Java runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The settings that are a topic's own, as the broker's `kafka-configs` lists them.
///
/// # Panics
///
/// If it cannot be asked.
#[must_use]
pub fn settings(bootstrap: &str, topic: &str) -> BTreeMap<String, String> {
    let mut tool = ktables_broker::java(&target());
    tool.args(["kafka.admin.ConfigCommand", "--bootstrap-server", bootstrap, "--describe"]);
    let listed = said(tool.args(["--entity-type", "topics", "--entity-name", topic]));
    let setting = |line: &str| {
        let (name, value) = line.strip_prefix("  ")?.split_once('=')?;
        let value = value.split(" sensitive=").next()?;
        Some((name.to_owned(), value.to_owned()))
    };
    listed.lines().filter_map(setting).collect()
}

/// Lets a user do this to a topic.
///
/// # Panics
///
/// If the broker does not do that.
pub fn grant(bootstrap: &str, user: &str, topic: &str, operations: &[&str]) {
    admin(&[bootstrap, "grant", user, topic, &operations.join(",")]);
}

/// Takes it back.
///
/// # Panics
///
/// If the broker does not do that.
pub fn revoke(bootstrap: &str, user: &str, topic: &str, operations: &[&str]) {
    admin(&[bootstrap, "revoke", user, topic, &operations.join(",")]);
}

/// Makes whoever is there the leader of a topic's partitions, although not in sync.
///
/// # Panics
///
/// If the broker does not do that.
pub fn elect_unclean(bootstrap: &str, topic: &str) {
    admin(&[bootstrap, "elect", topic]);
}

fn admin(args: &[&str]) {
    let mut java = ktables_broker::java(&target());
    said(java.arg(root().join("tests/interop/Admin.java")).args(args));
}
