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
use std::time::{Duration, Instant};

#[cfg(feature = "cli")]
mod confine;
mod limits;

#[cfg(target_os = "linux")]
use procfs::{process::Process, ticks_per_second};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::sync::{lock, wait_while};

#[cfg(feature = "cli")]
pub(crate) use confine::confine;
use limits::address_space_bytes;

/// How long a child may take if other processes leave it too little CPU time, as a multiple of its deadline.
const STARVED_DEADLINES: u32 = 5;

/// How many children may run at once.
const MAX_CHILDREN: usize = 2;

/// How long a caller waits for a permit, at most, as a multiple of its own deadline.
const PERMIT_DEADLINES: u32 = 8 * STARVED_DEADLINES;

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
    /// How long the child may take. Other processes can leave it little CPU time, because its priority is low. On Linux it
    /// then goes on until its threads together have used this much of it, for [`STARVED_DEADLINES`] times as long at most.
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
            // The id stays the child's while this thread runs: the child is reaped after it.
            let watchdog = scope.spawn(move || {
                let started = Instant::now();
                let late = loop {
                    match check_time(self.deadline, started.elapsed(), || cpu_time(pid)) {
                        Err(late) => break late,
                        Ok(rest) if stop_receiver.recv_timeout(rest) == Err(RecvTimeoutError::Timeout) => {}
                        Ok(_) => return None,
                    }
                };
                let _ = kill_process(pid, Signal::KILL);
                Some(late)
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
            let late = watchdog.join().expect("no panic");
            let status = child.wait();
            let messages = messages.join().expect("no panic");
            waited.map_err(io::Error::from)?;
            read?;
            Ok(ChildOutput { output, messages, late, status: status? })
        })
    }
}

/// Why a child has no time left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// It has used the time that it may take.
    Used,
    /// Other processes left it too little CPU time.
    Starved,
}

/// Returns how long a child may run until the next check, or why it may not go on.
fn check_time(
    deadline: Duration,
    elapsed: Duration,
    cpu_time: impl FnOnce() -> Option<Duration>,
) -> Result<Duration, Late> {
    if elapsed < deadline {
        return Ok(deadline - elapsed);
    }
    let unused = deadline.saturating_sub(cpu_time().ok_or(Late::Used)?);
    let until_end = deadline.saturating_mul(STARVED_DEADLINES).saturating_sub(elapsed);
    match unused.min(until_end) {
        _ if unused.is_zero() => Err(Late::Used),
        Duration::ZERO => Err(Late::Starved),
        rest => Ok(rest),
    }
}

/// Returns the CPU time that all threads of a process have used, if the system tells.
fn cpu_time(pid: Pid) -> Option<Duration> {
    #[cfg(target_os = "linux")]
    {
        let stat = Process::new(pid.as_raw_pid()).and_then(|process| process.stat()).ok()?;
        Some(Duration::from_secs(stat.utime + stat.stime) / u32::try_from(ticks_per_second()).ok()?)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        None
    }
}

/// The output and the end of a child.
#[derive(Debug)]
struct ChildOutput {
    output: Vec<u8>,
    messages: String,
    late: Option<Late>,
    status: ExitStatus,
}

impl ChildOutput {
    fn into_result(self, job: &Job<'_>) -> Result<(Vec<u8>, String), ChildError> {
        match self.late {
            Some(Late::Used) => {
                let reason = format!("processing it takes longer than {:?}", job.deadline);
                return Err(ChildError::Refused(reason));
            }
            Some(Late::Starved) => {
                return Err(ChildError::Failed(format!(
                    "other processes left it too little CPU time for {:?}: try again later",
                    job.deadline.saturating_mul(STARVED_DEADLINES)
                )));
            }
            None => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_gets_more_time_while_other_processes_leave_it_no_core() {
        let second = Duration::from_secs;
        let check =
            |elapsed, cpu_time: Option<u64>| check_time(second(60), second(elapsed), || cpu_time.map(second));
        assert_eq!(check(0, Some(0)), Ok(second(60)));
        assert_eq!(check(20, Some(90)), Ok(second(40)), "two cores are no reason to end earlier");
        assert_eq!(check(60, Some(60)), Err(Late::Used));
        assert_eq!(check(60, Some(25)), Ok(second(35)));
        assert_eq!(check(95, Some(50)), Ok(second(10)));
        assert_eq!(check(290, Some(30)), Ok(second(10)), "five times the deadline at most");
        assert_eq!(check(300, Some(30)), Err(Late::Starved));
        assert_eq!(check(60, None), Err(Late::Used), "a system that does not tell");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_child_without_cpu_time_is_killed_after_five_times_its_deadline() {
        let (program, deadline) = (Path::new("/bin/sleep"), Duration::from_millis(100));
        let job = Job { program, args: &[OsStr::new("600")], input: &[], output_limit: 0, deadline };
        let started = Instant::now();
        let ended = job.run();
        assert!(
            matches!(&ended, Err(ChildError::Failed(reason)) if reason.contains("CPU time")),
            "{ended:?}"
        );
        let elapsed = started.elapsed();
        assert!(elapsed >= deadline * 5 && elapsed < Duration::from_secs(60), "{elapsed:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_cpu_time_of_a_process_is_known() {
        let (own, clock) = (rustix::process::getpid(), cpu_time::ProcessTime::now);
        let (before, first) = (clock(), cpu_time(own).unwrap());
        let after_first = clock();
        while after_first.elapsed() < Duration::from_millis(200) {
            std::hint::spin_loop();
        }
        let before_last = clock();
        let used = cpu_time(own).unwrap() - first;
        // Other tests use CPU time, too, and the system counts in ticks.
        let ticks = Duration::from_millis(30);
        assert!(used + ticks >= before_last.duration_since(after_first), "{used:?}");
        assert!(used <= before.elapsed() + ticks, "{used:?}");
    }
}
