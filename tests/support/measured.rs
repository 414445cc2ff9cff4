//! Commands whose memory is watched while they run, and that of the processes they start.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use procfs::process::Process;

use crate::{Ended, PATIENCE};

/// How often memory is looked at. Peaks are the system's own, so only a process that lives for
/// less can be missed.
const LOOK: Duration = Duration::from_millis(2);

/// The peak resident memory of a command, and the largest of a process that it started, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peaks {
    /// Of the command.
    pub own: u64,
    /// Of its children; 0 if there were none.
    pub child: u64,
}

/// Runs a command to its end.
///
/// # Panics
///
/// If it cannot be run, or does not end in time.
pub fn run_measured(command: &mut Command) -> (Ended, Peaks) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("runs");
    let drain = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("read");
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = drain(Box::new(child.stdout.take().expect("piped")));
    let stderr = drain(Box::new(child.stderr.take().expect("piped")));
    let id = i32::try_from(child.id()).expect("what the system gives");
    let (mut peaks, deadline) = (Peaks::default(), Instant::now() + PATIENCE);
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
            panic!("{command:?} does not end");
        }
        std::thread::sleep(LOOK);
    };
    let ended = Ended {
        code: status.code().unwrap_or(-1),
        stdout: stdout.join().expect("read"),
        stderr: stderr.join().expect("read"),
    };
    (ended, peaks)
}

/// The peak of a process, or 0 if it is gone.
fn peak(id: i32) -> u64 {
    let status = Process::new(id).and_then(|process| process.status());
    status.ok().and_then(|status| status.vmhwm).unwrap_or(0) * 1024
}

/// The children of all threads of a process.
fn children(id: i32) -> Vec<i32> {
    let tasks = Process::new(id).and_then(|process| process.tasks());
    let children = tasks.into_iter().flatten().filter_map(|task| task.ok()?.children().ok());
    children.flatten().filter_map(|child| i32::try_from(child).ok()).collect()
}
