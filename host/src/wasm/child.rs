//! Processes untrusted files in a child process: whether the work exhausts its memory or its time, crashes
//! or loops, only the child ends.
//!
//! The child reads its input from standard input, and writes the result to standard output and the reason
//! of a failure to standard error. It limits its own resources before it reads.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

#[cfg(feature = "cli")]
mod confine;
mod limits;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::sync::{lock, wait_while};

#[cfg(feature = "cli")]
pub(crate) use confine::confine;
use limits::address_space_bytes;

/// How many children may run at once.
const MAX_CHILDREN: usize = 2;

/// How long a caller waits for a permit, at most, as a multiple of its own deadline.
const PERMIT_DEADLINES: u32 = 8;

/// How many bytes of a child's standard error are kept.
const MESSAGE_BYTES: u64 = 64 * 1024;

/// The exit code of a child that refuses its input, with the reason on its standard error.
pub(crate) const REFUSED: i32 = 1;

/// The exit code of a child that could not do its work, with the reason on its standard error.
#[cfg(feature = "cli")]
pub(crate) const FAILED: i32 = 2;

/// A job for a child process.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The `ktables` command.
    pub(crate) program: &'a Path,
    pub(crate) args: &'a [&'a OsStr],
    pub(crate) input: &'a [u8],
    /// How many bytes the child may write to standard output.
    pub(crate) output_limit: usize,
    pub(crate) deadline: Duration,
}

/// Why a job has no result.
#[derive(Debug)]
pub(crate) enum ChildError {
    /// The input is refused: by the child, with its reason, or because processing it exceeded a limit.
    Refused(String),
    /// The job failed for a reason that is not its input, for example because the child could not be started
    /// or is another version of the program.
    Failed(String),
}

impl Job<'_> {
    /// Runs the child to its end, and returns what it wrote to standard output and to standard error. Waits first
    /// while too many other children run.
    pub(crate) fn run(&self) -> Result<(Vec<u8>, String), ChildError> {
        let _permit = Permit::acquire(self.deadline.saturating_mul(PERMIT_DEADLINES)).ok_or_else(|| {
            ChildError::Failed("other components take too long to compile: try again later".to_owned())
        })?;
        let mut child = Command::new(self.program)
            .args(self.args)
            // The child does not need the environment, which may hold secrets.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                ChildError::Failed(format!("cannot start {}: {error}", self.program.display()))
            })?;
        let outcome = self.communicate(&mut child);
        if outcome.is_err() {
            // The child may still run. OK to ignore: fails if it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        outcome
            .map_err(|error| {
                ChildError::Failed(format!("cannot communicate with {}: {error}", self.program.display()))
            })?
            .into_result(self)
    }

    /// Sends the child its input, collects its output, and waits until it has ended. Kills it at the
    /// deadline, or when it writes too much.
    fn communicate(&self, child: &mut Child) -> io::Result<ChildOutput> {
        let pid = Pid::from_child(child);
        let missing_pipe = || io::Error::other("a pipe is missing");
        let mut stdin = child.stdin.take().ok_or_else(missing_pipe)?;
        let mut stdout = child.stdout.take().ok_or_else(missing_pipe)?;
        let mut stderr = child.stderr.take().ok_or_else(missing_pipe)?;
        let (stop, stop_receiver) = channel::<()>();
        thread::scope(|scope| {
            // Fails if the child ends before it has read everything.
            scope.spawn(move || stdin.write_all(self.input));
            let messages = scope.spawn(move || {
                let mut messages = Vec::new();
                let _ = stderr.by_ref().take(MESSAGE_BYTES).read_to_end(&mut messages);
                let _ = io::copy(&mut stderr, &mut io::sink());
                String::from_utf8_lossy(&messages).trim().to_owned()
            });
            let watchdog = scope.spawn(move || {
                let is_late = stop_receiver.recv_timeout(self.deadline) == Err(RecvTimeoutError::Timeout);
                if is_late {
                    // OK because the child is reaped only after this thread, so the id is still the child's.
                    let _ = kill_process(pid, Signal::KILL);
                }
                is_late
            });
            let mut output = Vec::new();
            let read = stdout.by_ref().take(self.output_limit as u64 + 1).read_to_end(&mut output);
            if read.is_err() || output.len() > self.output_limit {
                let _ = kill_process(pid, Signal::KILL);
            }
            // Waits without reaping: the watchdog may still send a signal to the id.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let waited = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), options));
            drop(stop);
            // OK because these threads do not panic.
            let is_late = watchdog.join().expect("no panic");
            let status = child.wait();
            let messages = messages.join().expect("no panic");
            waited.map_err(io::Error::from)?;
            read?;
            Ok(ChildOutput { output, messages, is_late, status: status? })
        })
    }
}

/// The output and the end of a child.
#[derive(Debug)]
struct ChildOutput {
    output: Vec<u8>,
    messages: String,
    is_late: bool,
    status: ExitStatus,
}

impl ChildOutput {
    fn into_result(self, job: &Job<'_>) -> Result<(Vec<u8>, String), ChildError> {
        if self.is_late {
            return Err(ChildError::Refused(format!("processing it takes longer than {:?}", job.deadline)));
        }
        if self.output.len() > job.output_limit {
            let reason = format!("the result has more than {} bytes", job.output_limit);
            return Err(ChildError::Refused(reason));
        }
        match (self.status.code(), self.status.signal()) {
            (Some(0), _) => Ok((self.output, self.messages)),
            (Some(REFUSED), _) => Err(ChildError::Refused(self.messages)),
            (Some(_), _) => {
                let reason = format!("{} ({}): {}", job.program.display(), self.status, self.messages);
                Err(ChildError::Failed(reason))
            }
            (None, signal) => Err(ChildError::Refused(format!(
                "processing it exceeds {} bytes of address space or the CPU time limit, or crashes \
                 (signal {}{})",
                address_space_bytes(),
                signal.unwrap_or_default(),
                // Rust's advice about backtraces comes last.
                self.messages
                    .lines()
                    .rfind(|line| !line.starts_with("note: "))
                    .map_or_else(String::new, |last| format!(": {last}"))
            ))),
        }
    }
}

/// A permit to run a child. Dropping it releases it.
struct Permit;

/// How many children run now. A std lock: held to count.
static RUNNING: Mutex<usize> = Mutex::new(0);
static PERMIT_RELEASED: Condvar = Condvar::new();

impl Permit {
    /// Waits for a permit, for `timeout` at most.
    fn acquire(timeout: Duration) -> Option<Self> {
        let is_full = |running: &usize| *running >= MAX_CHILDREN;
        let (mut running, has_room) = wait_while(&PERMIT_RELEASED, lock(&RUNNING), timeout, is_full);
        *running += usize::from(has_room);
        has_room.then_some(Self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *lock(&RUNNING) -= 1;
        PERMIT_RELEASED.notify_one();
    }
}
