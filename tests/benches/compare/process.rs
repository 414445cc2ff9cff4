//! A contender's process, and what it used.
//!
//! A contender prints one line of JSON when it is done, and then waits for the end of
//! its input: meanwhile the kernel still knows what it used.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// What a process did and what it took.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// What it said.
    pub(crate) said: Value,
    /// When it was started, in seconds since 1970.
    pub(crate) started: f64,
    /// Of all its threads, and of the children it waited for.
    pub(crate) cpu: Duration,
    /// The most memory it had at once, in bytes.
    pub(crate) peak: u64,
    /// What it kept, in bytes, if that was asked for.
    pub(crate) kept: Option<u64>,
}

/// Whether to wait for the memory that a process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    Measured,
    Ignored,
}

/// How long memory must have stayed the same to be what is kept: allocators give back what
/// they hold in reserve after ten seconds.
const SETTLED: Duration = Duration::from_secs(12);

impl Run {
    /// A number that it said.
    pub(crate) fn number(&self, name: &str) -> f64 {
        self.said[name].as_f64().unwrap_or_else(|| panic!("no `{name}` in {}", self.said))
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
    let said = said(command, child.stdout.take().unwrap());
    let (cpu, peak) = (cpu(child.id()), peak(child.id()));
    let kept = (kept == Memory::Measured).then(|| settled(child.id()));
    drop(child.stdin.take());
    child.wait().unwrap();
    Run { said, started, cpu, peak, kept }
}

/// The line of JSON among what it prints.
fn said(command: &Command, stdout: ChildStdout) -> Value {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let mut json = lines.filter_map(|line| serde_json::from_str(&line).ok());
    json.find(Value::is_object).unwrap_or_else(|| panic!("{command:?} ended without a result"))
}

/// Seconds since 1970: what processes of all languages can tell each other.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The processor time of a process and of its children that ended.
pub(crate) fn cpu(process: u32) -> Duration {
    let stat = read(process, "stat");
    // Behind the name: utime, stime, cutime and cstime, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(4);
    Duration::from_millis(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// The most memory it had resident, in bytes.
fn peak(process: u32) -> u64 {
    memory(process, "VmHWM:")
}

/// What a process has resident once that no longer shrinks, in bytes.
pub(crate) fn settled(process: u32) -> u64 {
    let resident = || memory(process, "VmRSS:");
    let (mut least, mut since) = (resident(), Instant::now());
    while since.elapsed() < SETTLED {
        std::thread::sleep(Duration::from_millis(100));
        let now = resident();
        if now + (1 << 20) < least {
            (least, since) = (now, Instant::now());
        }
    }
    resident()
}

/// A line of a process's status, in bytes.
fn memory(process: u32, name: &str) -> u64 {
    let status = read(process, "status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

fn read(process: u32, file: &str) -> String {
    std::fs::read_to_string(PathBuf::from(format!("/proc/{process}/{file}"))).unwrap_or_default()
}
