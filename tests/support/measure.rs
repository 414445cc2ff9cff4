//! Measures the memory of a command and of its child processes.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use procfs::process::Process;

use crate::{CommandOutput, TIMEOUT};

/// How often peaks are read. The system records the peak of each process, so only a process that lives for a
/// shorter time can be missed, or growth in the last moment before the exit.
const INTERVAL: Duration = Duration::from_millis(2);

/// The peak resident memory of a command and of its children, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeakMemory {
    /// The peak of the command.
    pub own: u64,
    /// The highest peak of its children; 0 if it had none.
    pub child: u64,
}

/// Runs a command until it exits, and measures its memory.
///
/// # Panics
///
/// If it cannot be started, or does not exit in time.
pub fn run_and_measure(command: &mut Command) -> (CommandOutput, PeakMemory) {
    run_and_measure_within(command, TIMEOUT)
}

/// Runs a command as [`run_and_measure`] does, for at most this long.
///
/// # Panics
///
/// If it cannot be started, or does not exit in time.
pub fn run_and_measure_within(command: &mut Command, limit: Duration) -> (CommandOutput, PeakMemory) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let drain = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("read");
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = drain(Box::new(child.stdout.take().expect("piped")));
    let stderr = drain(Box::new(child.stderr.take().expect("piped")));
    let id = i32::try_from(child.id()).expect("an id of the system");
    let (mut peaks, deadline) = (PeakMemory::default(), Instant::now() + limit);
    let status = loop {
        peaks.own = peaks.own.max(peak(id));
        for process in children(id) {
            peaks.child = peaks.child.max(peak(process));
        }
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("killed");
            panic!("{command:?} does not exit");
        }
        std::thread::sleep(INTERVAL);
    };
    let output = CommandOutput {
        code: status.code().unwrap_or(-1),
        stdout: stdout.join().expect("read"),
        stderr: stderr.join().expect("read"),
    };
    (output, peaks)
}

/// Returns the peak resident memory of a process in bytes, or 0 if it has exited.
fn peak(id: i32) -> u64 {
    let status = Process::new(id).and_then(|process| process.status());
    status.ok().and_then(|status| status.vmhwm).unwrap_or(0) * 1024
}

/// Returns the child processes of all threads of a process.
fn children(id: i32) -> Vec<i32> {
    let tasks = Process::new(id).and_then(|process| process.tasks());
    let children = tasks.into_iter().flatten().filter_map(|task| task.ok()?.children().ok());
    children.flatten().filter_map(|child| i32::try_from(child).ok()).collect()
}
