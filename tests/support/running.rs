//! Commands that go on.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use crate::{PATIENCE, eventually, parse};

/// A command that goes on, read line by line; killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    /// Starts a command.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("runs");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test may be over.
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// The next line that begins with this, without it.
    ///
    /// # Panics
    ///
    /// If none comes in time.
    #[must_use]
    pub fn next_with(&self, prefix: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("another line in time");
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
    }

    /// The lines that came and were not read and begin with this, without it. To
    /// be asked when the process is gone.
    #[must_use]
    pub fn rest_with(&self, prefix: &str) -> Vec<String> {
        self.lines.iter().filter_map(|line| line.strip_prefix(prefix).map(str::to_owned)).collect()
    }

    /// The next line, as JSON.
    ///
    /// # Panics
    ///
    /// If none comes in time.
    #[must_use]
    pub fn next(&self) -> Value {
        parse(&self.lines.recv_timeout(PATIENCE).expect("another line in time"))
    }

    /// The lines up to and with the first that passes.
    ///
    /// # Panics
    ///
    /// If none does in time.
    pub fn until(&self, passes: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut lines = vec![self.next()];
        while !lines.last().is_some_and(&passes) {
            lines.push(self.next());
        }
        lines
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its peak resident memory so far, in bytes.
    ///
    /// # Panics
    ///
    /// If it is gone.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        let process = i32::try_from(self.id()).expect("what the system gives");
        let status = procfs::process::Process::new(process).and_then(|process| process.status());
        status.expect("it runs").vmhwm.expect("a peak in KiB") * 1024
    }

    /// Kills it (SIGKILL).
    ///
    /// # Panics
    ///
    /// If it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// Sends it a signal by name, as `kill -NAME` does.
    ///
    /// # Panics
    ///
    /// If it cannot be sent.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until it has ended by itself; its exit code.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    pub fn wait(&mut self) -> i32 {
        eventually("the command ends", || self.child.try_wait().expect("a child")).code().unwrap_or(-1)
    }

    /// Lines that came and were not read.
    #[must_use]
    pub fn rest(&self) -> Vec<Value> {
        self.lines.try_iter().map(|line| parse(&line)).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
