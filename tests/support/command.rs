//! Runs the `ktables` command until it exits.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::{cache_folder, parse, release_folder};

/// Returns the path of the `ktables` command.
pub(crate) fn program() -> PathBuf {
    let program = release_folder().join("ktables");
    assert!(program.exists(), "{} is missing: run `cargo xtask test`", program.display());
    program
}

/// Returns the `ktables` command. It prints JSON, because its standard output is not a terminal.
///
/// # Panics
///
/// If it is not built.
#[must_use]
pub fn ktables(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    // KTABLES_LOG filters the messages of the command.
    command.args(args).env("KTABLES_CACHE_DIR", cache_folder()).env_remove("KTABLES_LOG");
    command
}

/// The exit code and the output of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl CommandOutput {
    /// Parses each line of the standard output as JSON.
    ///
    /// # Panics
    ///
    /// If a line is not JSON.
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(parse).collect()
    }
}

/// Runs a command until it exits.
///
/// # Panics
///
/// If it cannot be started.
pub fn run(command: &mut Command) -> CommandOutput {
    decode_output(command.output().expect("starts"))
}

/// Runs a command until it exits, with a text as its standard input.
///
/// # Panics
///
/// If it cannot be started.
pub fn run_with_stdin(command: &mut Command, stdin: &str) -> CommandOutput {
    let mut child = spawn_piped(command);
    let input = child.stdin.take();
    let text = stdin.to_owned();
    let write = std::thread::spawn(move || {
        // OK to ignore: the command may exit before it has read everything.
        let _ = input.expect("piped").write_all(text.as_bytes());
    });
    let output = child.wait_with_output().expect("exits");
    write.join().expect("written");
    decode_output(output)
}

/// Runs a command that must succeed.
///
/// # Panics
///
/// If its exit code is not 0.
pub fn succeed(command: &mut Command) -> CommandOutput {
    let output = run(command);
    assert_eq!(output.code, 0, "{command:?}: {}", output.stderr);
    output
}

fn decode_output(output: Output) -> CommandOutput {
    CommandOutput {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn spawn_piped(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("starts")
}
