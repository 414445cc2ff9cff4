//! Work on files that nobody vouches for, in a process of its own: it may take all the memory
//! and time that it is given, crash, or loop, and only that process ends.
//!
//! The input goes to the child's standard input, the result comes from its standard output,
//! what is wrong from its standard error. The child confines itself before it reads.

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
use limits::memory_bytes;

/// How many children work at once.
const AT_ONCE: usize = 2;

/// How many children in a row a caller waits for, at most, as a multiple of its own deadline.
const TURNS: u32 = 8;

/// The longest reason that is read from a child.
const REASON_BYTES: u64 = 64 * 1024;

/// The exit code of a child that refuses its input, with the reason on its standard error.
pub(crate) const REFUSED: i32 = 1;

/// What a child has to do.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The `ktables` command.
    pub(crate) program: &'a Path,
    pub(crate) args: &'a [&'a OsStr],
    pub(crate) input: &'a [u8],
    /// The most bytes it may answer.
    pub(crate) output_limit: usize,
    pub(crate) deadline: Duration,
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum ChildError {
    /// The input is refused: by the child in its own words, or because of what it made of it.
    Refused(String),
    /// There is no child, or it is not the right one.
    Failed(String),
}

impl Job<'_> {
    /// Runs the child to its end. Waits while others run.
    pub(crate) fn run(&self) -> Result<Vec<u8>, ChildError> {
        let _turn = Turn::take(self.deadline.saturating_mul(TURNS)).ok_or_else(|| {
            ChildError::Failed("other components are being compiled for too long: try again later".to_owned())
        })?;
        let mut child = Command::new(self.program)
            .args(self.args)
            // It needs nothing of it, and there may be secrets.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                ChildError::Failed(format!("cannot start {}: {error}", self.program.display()))
            })?;
        let ended = self.follow(&mut child);
        if ended.is_err() {
            // It may run still. Fails if it does not.
            let _ = child.kill();
            let _ = child.wait();
        }
        ended
            .map_err(|error| {
                ChildError::Failed(format!("cannot talk to {}: {error}", self.program.display()))
            })?
            .result(self)
    }

    fn follow(&self, child: &mut Child) -> io::Result<Ended> {
        let pid = Pid::from_child(child);
        let lost = || io::Error::other("a pipe is missing");
        let mut stdin = child.stdin.take().ok_or_else(lost)?;
        let mut stdout = child.stdout.take().ok_or_else(lost)?;
        let mut stderr = child.stderr.take().ok_or_else(lost)?;
        let (stop, stopped) = channel::<()>();
        thread::scope(|scope| {
            // Fails if the child ends before it has read everything.
            scope.spawn(move || stdin.write_all(self.input));
            let reason = scope.spawn(move || {
                let mut reason = Vec::new();
                let _ = stderr.by_ref().take(REASON_BYTES).read_to_end(&mut reason);
                let _ = io::copy(&mut stderr, &mut io::sink());
                String::from_utf8_lossy(&reason).trim().to_owned()
            });
            let late = scope.spawn(move || {
                let is_late = stopped.recv_timeout(self.deadline) == Err(RecvTimeoutError::Timeout);
                if is_late {
                    // OK because it is not reaped before this ends, so the id is its own.
                    let _ = kill_process(pid, Signal::KILL);
                }
                is_late
            });
            let mut output = Vec::new();
            let read = stdout.by_ref().take(self.output_limit as u64 + 1).read_to_end(&mut output);
            if read.is_err() || output.len() > self.output_limit {
                let _ = kill_process(pid, Signal::KILL);
            }
            // Waits without reaping: the watcher above may still send a signal to the id.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let waited = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), options));
            drop(stop);
            // OK because these threads do not panic.
            let is_late = late.join().expect("no panic");
            let status = child.wait();
            let reason = reason.join().expect("no panic");
            waited.map_err(io::Error::from)?;
            read?;
            Ok(Ended { output, reason, is_late, status: status? })
        })
    }
}

/// How a child has ended.
#[derive(Debug)]
struct Ended {
    output: Vec<u8>,
    reason: String,
    is_late: bool,
    status: ExitStatus,
}

impl Ended {
    fn result(self, job: &Job<'_>) -> Result<Vec<u8>, ChildError> {
        if self.is_late {
            return Err(ChildError::Refused(format!("it was not done within {:?}", job.deadline)));
        }
        if self.output.len() > job.output_limit {
            let reason = format!("it becomes more than {} bytes", job.output_limit);
            return Err(ChildError::Refused(reason));
        }
        match (self.status.code(), self.status.signal()) {
            (Some(0), _) => Ok(self.output),
            (Some(REFUSED), _) => Err(ChildError::Refused(self.reason)),
            (Some(_), _) => {
                let reason = format!("{} ({}): {}", job.program.display(), self.status, self.reason);
                Err(ChildError::Failed(reason))
            }
            (None, signal) => Err(ChildError::Refused(format!(
                "working on it takes more than {} bytes of memory or too much time, or fails (signal {}{})",
                memory_bytes(),
                signal.unwrap_or_default(),
                self.reason.lines().next_back().map_or_else(String::new, |last| format!(": {last}"))
            ))),
        }
    }
}

/// The right to run a child.
struct Turn;

/// How many run now. A std lock: held to count.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

impl Turn {
    /// Waits for a turn, at most this long.
    fn take(timeout: Duration) -> Option<Self> {
        let is_full = |running: &usize| *running >= AT_ONCE;
        let (mut running, has_room) = wait_while(&ENDED, lock(&RUNNING), timeout, is_full);
        *running += usize::from(has_room);
        has_room.then_some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *lock(&RUNNING) -= 1;
        ENDED.notify_one();
    }
}
