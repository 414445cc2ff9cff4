//! Compares the project with its peers, in one run on one real broker: `cargo xtask bench`. Contenders are
//! processes of their own, which take turns in each round. Ratios are taken pair by pair within a round,
//! because the speed of the machine changes from round to round.

#![allow(clippy::unwrap_used, reason = "in a bench, a panic is the report")]

mod against;
mod cluster;
mod cold;
mod contender;
mod data;
mod engine;
mod faults;
mod native;
mod neighbours;
mod process;
mod profile;
mod replay;
mod report;
mod schemas;
mod warm;

use std::io::Write;
use std::path::PathBuf;

use ktables_broker::BrokerOptions;
use ktables_tests::kafka;

use report::Report;

/// The allocator of the `ktables` command.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The options of a run.
#[derive(Debug, Clone)]
struct Options {
    /// Runs fewer cells, records and rounds.
    quick: bool,
    /// Runs the peers, too: Python's ktables, GlobalKTable and KCache.
    peers: bool,
    /// Runs only cells whose name begins with one of these. All if it is empty.
    only: Vec<String>,
    rounds: usize,
    /// The same program of another commit, to compare this one with.
    against: Option<PathBuf>,
    /// Only prints the names of the cells.
    list: bool,
}

/// The argument that `cargo bench` passes to every bench.
const ADDED_BY_CARGO: &str = "--bench";

/// How often each contender runs.
const ROUNDS: usize = 5;

/// How often each contender runs in a quick run.
const QUICK_ROUNDS: usize = 3;

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { quick: false, peers: false, only: Vec::new(), rounds: ROUNDS, against: None, list: false };
        let mut rounds = None;
        let mut args = args.filter(|arg| arg != ADDED_BY_CARGO);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--peers" => options.peers = true,
                "--only" => options.only.push(value()?),
                "--against" => options.against = Some(value()?.into()),
                "--list" => options.list = true,
                "--rounds" => rounds = Some(value()?.parse().map_err(|error| format!("--rounds: {error}"))?),
                _ => {
                    let known = "--quick, --peers, --only NAME, --rounds N, --against PROGRAM, --list";
                    return Err(format!("unknown argument `{arg}`: use {known}"));
                }
            }
        }
        let default = if options.quick { QUICK_ROUNDS } else { ROUNDS };
        options.rounds = rounds.unwrap_or(default);
        Ok(options)
    }

    /// Returns true if a cell is to be run. With `--list`, prints its name instead.
    fn wants(&self, cell: &str) -> bool {
        let wanted = self.only.is_empty() || self.only.iter().any(|name| cell.starts_with(name.as_str()));
        if self.list && wanted {
            say(cell);
        }
        wanted && !self.list
    }
}

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == contender::COMMAND).is_some() {
        return contender::run(&args.collect::<Vec<_>>());
    }
    if args.next_if(|arg| arg == profile::PROFILE).is_some() {
        let broker = kafka::start_broker(&BrokerOptions::default());
        let args: Vec<_> = args.filter(|arg| arg != ADDED_BY_CARGO).collect();
        return profile::run(&args, &broker.bootstrap());
    }
    let options = Options::parse(args).unwrap_or_else(|error| {
        say(&error);
        std::process::exit(2);
    });
    if let Some(other) = &options.against {
        return against::run(other, &options);
    }
    let broker = (!options.list).then(|| kafka::start_broker(&BrokerOptions::default()));
    let bootstrap = broker.as_ref().map_or_else(String::new, ktables_broker::Broker::bootstrap);
    let mut report = Report::new(&options);
    engine::run(&options, &mut report);
    faults::run(&options, &mut report);
    neighbours::run(&options, &bootstrap, &mut report);
    cluster::run(&options, &bootstrap, &mut report);
    cold::run(&options, &bootstrap, &mut report);
    warm::run(&options, &bootstrap, &mut report);
    replay::run(&options, &bootstrap, &mut report);
    schemas::run(&options, &bootstrap, &mut report);
    if !options.list {
        report.write();
    }
}

/// Prints a line to standard output.
fn say(line: &str) {
    // OK to ignore: without a standard output, there is nowhere to report it.
    let _ = writeln!(std::io::stdout(), "{line}");
}
