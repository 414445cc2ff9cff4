//! The `ktables` command, run to its end.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::{cache_folder, parse, release};

/// The file of the `ktables` command.
pub(crate) fn program() -> PathBuf {
    let program = release().join("ktables");
    assert!(program.exists(), "{} is missing: run `cargo xtask test`", program.display());
    program
}

/// The `ktables` command, its output JSON.
///
/// # Panics
///
/// If it is not built.
#[must_use]
pub fn ktables(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).env("KTABLES_CACHE_DIR", cache_folder()).env_remove("KTABLES_LOG");
    command
}

/// What a command that has ended left.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// The lines of its output, as JSON.
    ///
    /// # Panics
    ///
    /// If one is none.
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(parse).collect()
    }
}

/// Runs a command to its end.
///
/// # Panics
///
/// If it cannot be run.
pub fn run(command: &mut Command) -> Ended {
    ended(command.output().expect("runs"))
}

/// Runs a command to its end, with this on its standard input.
///
/// # Panics
///
/// If it cannot be run.
pub fn run_with(command: &mut Command, stdin: &str) -> Ended {
    let mut child = piped(command);
    let input = child.stdin.take();
    let text = stdin.to_owned();
    let feed = std::thread::spawn(move || {
        // The command may end before it has read all.
        let _ = input.expect("piped").write_all(text.as_bytes());
    });
    let output = child.wait_with_output().expect("ends");
    feed.join().expect("fed");
    ended(output)
}

/// Runs a command that must succeed.
///
/// # Panics
///
/// If it does not.
pub fn succeed(command: &mut Command) -> Ended {
    let ended = run(command);
    assert_eq!(ended.code, 0, "{command:?}: {}", ended.stderr);
    ended
}

fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("runs")
}
