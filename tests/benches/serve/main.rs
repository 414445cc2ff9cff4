//! Measures `ktables serve`: how many reads it answers, and how soon and at what cost watchers have changes.
//!
//! Reads are compared with an endpoint of the same server that answers with constants of the same size, behind the same
//! accept loop and layers, in alternating rounds. The server runs on one core, and the load generator on another one.

mod peers;
mod reads;
mod watchers;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ktables_tests::server::{Server, write_config};
use tempfile::TempDir;

/// What is measured, and how often.
#[derive(Debug)]
pub(crate) struct Options {
    /// The program of the server, which has the endpoint of constants.
    program: PathBuf,
    pub(crate) rounds: usize,
    only: Vec<String>,
}

impl Options {
    fn parse() -> Self {
        let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
        let program = args.next().expect("the program of the server: run `cargo xtask bench serve`");
        let mut options = Self { program: program.into(), rounds: 5, only: Vec::new() };
        while let Some(arg) = args.next() {
            let value = args.next().expect("a value");
            match &*arg {
                "--rounds" => options.rounds = value.parse().expect("a number of rounds"),
                "--only" => options.only.push(value),
                _ => panic!("unknown argument {arg}: use --only NAME, --rounds N"),
            }
        }
        options
    }

    fn includes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// Starts a server on the first core, with the table `services` in a directory log.
    pub(crate) fn start(&self, server: &str) -> (Server, TempDir) {
        let folder = TempDir::new().expect("a folder");
        let text = format!(
            "[tables.services]\nlog = \"local\"\ntopic = \"services\"\nensure_topic = true\n[server]\n\
             listen = [\"127.0.0.1:0\"]\n{server}"
        );
        let config = write_config(folder.path(), &text);
        let mut command = pinned(0, &self.program);
        command.args(["serve", "--config"]).arg(config).env("KTABLES_LOG", "info,ktables::audit=warn");
        (Server::start_command(command), folder)
    }
}

/// Returns a command that runs on one core.
pub(crate) fn pinned(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// The median of samples, with the smallest and the largest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) median: f64,
    smallest: f64,
    largest: f64,
}

impl Range {
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let (smallest, largest) = (samples[0], samples[samples.len() - 1]);
        Self { median: samples[samples.len() / 2], smallest, largest }
    }

    /// Formats the range with this many digits.
    pub(crate) fn format(self, digits: usize) -> String {
        let Self { median, smallest, largest } = self;
        format!("{median:.digits$} ({smallest:.digits$} to {largest:.digits$})")
    }
}

/// Returns the resident memory of a process, in bytes.
pub(crate) fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn main() {
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut report = String::new();
    runtime.block_on(async {
        if options.includes("reads") {
            reads::measure(&options, &mut report).await;
        }
        if options.includes("peers") {
            peers::measure(&options, &mut report).await;
        }
        if options.includes("watchers") {
            watchers::measure(&options, &mut report).await;
        }
    });
    let folder = ktables_tests::kafka::target().join("bench");
    std::fs::write(folder.join("serve.md"), &report).expect("writes the report");
    writeln!(report, "\nreport: {}", folder.join("serve.md").display()).expect("a string");
    let mut out = std::io::stdout();
    std::io::Write::write_all(&mut out, report.as_bytes()).expect("prints");
}
