//! Runs a contender's process, and measures what it used.
//!
//! A contender prints one line of JSON when it is done, and then waits for the end of its input. Until then,
//! the kernel can report what the process used.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// The result of a contender's process, and what the process used.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// The JSON that it printed.
    pub(crate) result: Value,
    /// When the process was started, and when it had printed that, in seconds since 1970.
    pub(crate) started: f64,
    pub(crate) done: f64,
    /// The CPU time of all its threads, and of the children that it waited for.
    pub(crate) cpu: Duration,
    /// The peak of its resident memory, in bytes.
    pub(crate) peak: u64,
    /// The resident memory that it kept in the end, in bytes. Only with [`Memory::Measured`].
    pub(crate) kept: Option<u64>,
}

/// Whether to measure the memory that a process keeps, which takes a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    Measured,
    Ignored,
}

/// How long memory must not shrink before it counts as kept. Allocators return their reserves after ten
/// seconds.
const SETTLE_TIME: Duration = Duration::from_secs(12);

impl Run {
    /// Returns a number of the result.
    pub(crate) fn number(&self, name: &str) -> f64 {
        self.result[name].as_f64().unwrap_or_else(|| panic!("no `{name}` in {}", self.result))
    }
}

/// Runs a contender to its end.
pub(crate) fn run(command: &mut Command, kept: Memory) -> Run {
    let started = now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let result = read_result(command, child.stdout.take().unwrap());
    let done = now();
    let (cpu, peak) = (cpu(child.id()), peak(child.id()));
    let kept = (kept == Memory::Measured).then(|| settled_memory(child.id()));
    drop(child.stdin.take());
    child.wait().unwrap();
    Run { result, started, done, cpu, peak, kept }
}

/// Returns the first line of the output that is a JSON object.
fn read_result(command: &Command, stdout: ChildStdout) -> Value {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let mut json = lines.filter_map(|line| serde_json::from_str(&line).ok());
    json.find(Value::is_object).unwrap_or_else(|| panic!("{command:?} ended without a result"))
}

/// Returns the time in seconds since 1970, which contenders in all languages can report.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Returns the CPU time of a process and of its children that ended.
pub(crate) fn cpu(process: u32) -> Duration {
    let stat = read(process, "stat");
    // After the name: utime, stime, cutime and cstime, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(4);
    Duration::from_millis(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// Returns the peak of a process's resident memory, in bytes.
fn peak(process: u32) -> u64 {
    memory(process, "VmHWM:")
}

/// Waits until a process's resident memory no longer shrinks, and returns it in bytes.
pub(crate) fn settled_memory(process: u32) -> u64 {
    let resident = || memory(process, "VmRSS:");
    let (mut least, mut since) = (resident(), Instant::now());
    while since.elapsed() < SETTLE_TIME {
        std::thread::sleep(Duration::from_millis(100));
        let now = resident();
        if now + (1 << 20) < least {
            (least, since) = (now, Instant::now());
        }
    }
    resident()
}

/// Returns a value of a process's status, in bytes.
fn memory(process: u32, name: &str) -> u64 {
    let status = read(process, "status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

fn read(process: u32, file: &str) -> String {
    std::fs::read_to_string(PathBuf::from(format!("/proc/{process}/{file}"))).unwrap_or_default()
}
