//! Commands that run while the test continues.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use crate::{TIMEOUT, eventually, parse};

/// A running command whose output is read line by line. The command is killed on drop.
#[derive(Debug)]
pub struct RunningCommand {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl RunningCommand {
    /// Starts a command.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // OK to ignore: the test may have ended.
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Waits for the next line with a prefix, and returns it without the prefix.
    ///
    /// # Panics
    ///
    /// If none arrives in time.
    #[must_use]
    pub fn next_with_prefix(&self, prefix: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(TIMEOUT).expect("another line in time");
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
    }

    /// Returns the unread lines with a prefix, without the prefix. Blocks until the process has exited.
    #[must_use]
    pub fn rest_with_prefix(&self, prefix: &str) -> Vec<String> {
        self.lines.iter().filter_map(|line| line.strip_prefix(prefix).map(str::to_owned)).collect()
    }

    /// Waits for the next line, and parses it as JSON.
    ///
    /// # Panics
    ///
    /// If none arrives in time.
    #[must_use]
    pub fn next(&self) -> Value {
        parse(&self.lines.recv_timeout(TIMEOUT).expect("another line in time"))
    }

    /// Returns the lines up to and including the first one that matches.
    ///
    /// # Panics
    ///
    /// If none matches in time.
    pub fn until(&self, matches: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut lines = vec![self.next()];
        while !lines.last().is_some_and(&matches) {
            lines.push(self.next());
        }
        lines
    }

    /// Returns the id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the peak resident memory of the process so far, in bytes.
    ///
    /// # Panics
    ///
    /// If it has exited.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        let process = i32::try_from(self.id()).expect("an id of the system");
        let status = procfs::process::Process::new(process).and_then(|process| process.status());
        status.expect("it runs").vmhwm.expect("a peak in KiB") * 1024
    }

    /// Kills the process with SIGKILL.
    ///
    /// # Panics
    ///
    /// If it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("exited");
    }

    /// Sends a signal to the process by name, as `kill -NAME` does.
    ///
    /// # Panics
    ///
    /// If it cannot be sent.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until the process exits by itself, and returns its exit code.
    ///
    /// # Panics
    ///
    /// If it does not exit in time.
    pub fn wait(&mut self) -> i32 {
        eventually("the command exits", || self.child.try_wait().expect("a child")).code().unwrap_or(-1)
    }

    /// Returns the lines that have arrived and were not read yet.
    #[must_use]
    pub fn rest(&self) -> Vec<Value> {
        self.lines.try_iter().map(|line| parse(&line)).collect()
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        // OK to ignore: it may have exited by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
