//! The project measured beside its peers, in one run on one real broker: `cargo xtask
//! bench`. Contenders are processes of their own, which take turns round by round; what
//! is compared is compared pair by pair within a round, because the machine's mood
//! changes from one to the next.

#![allow(clippy::unwrap_used, reason = "in a bench, a panic is the report")]

mod against;
mod beside;
mod cluster;
mod cold;
mod contender;
mod data;
mod engine;
mod native;
mod process;
mod profile;
mod replay;
mod report;
mod warm;

use std::io::Write;
use std::path::PathBuf;

use ktables_broker::BrokerOptions;
use ktables_tests::kafka;

use report::Report;

/// The allocator of the `ktables` command.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How a run was asked for.
#[derive(Debug, Clone)]
struct Options {
    /// Fewer records and fewer rounds.
    quick: bool,
    /// Contenders that are not ours, too.
    peers: bool,
    /// Only cells whose name begins with one of these.
    only: Vec<String>,
    rounds: usize,
    /// The same program of another commit, to be compared with.
    against: Option<PathBuf>,
    /// Only say which cells there are.
    list: bool,
}

/// What `cargo bench` tells every bench.
const ADDED_BY_CARGO: &str = "--bench";

/// How often each contender runs.
const ROUNDS: usize = 5;

/// The same in a quick run.
const QUICK_ROUNDS: usize = 3;

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { quick: false, peers: false, only: Vec::new(), rounds: ROUNDS, against: None, list: false };
        let mut rounds = None;
        let mut args = args.filter(|arg| arg != ADDED_BY_CARGO);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value"));
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--peers" => options.peers = true,
                "--only" => options.only.push(value()?),
                "--against" => options.against = Some(value()?.into()),
                "--list" => options.list = true,
                "--rounds" => rounds = Some(value()?.parse().map_err(|error| format!("--rounds: {error}"))?),
                _ => {
                    let known = "--quick, --peers, --only NAME, --rounds N, --against PROGRAM, --list";
                    return Err(format!("`{arg}` is none of {known}"));
                }
            }
        }
        let usual = if options.quick { QUICK_ROUNDS } else { ROUNDS };
        options.rounds = rounds.unwrap_or(usual);
        Ok(options)
    }

    /// Whether a cell is wanted.
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
        let broker = kafka::own(&BrokerOptions::default());
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
    let broker = (!options.list).then(|| kafka::own(&BrokerOptions::default()));
    let bootstrap = broker.as_ref().map_or_else(String::new, ktables_broker::Broker::bootstrap);
    let mut report = Report::new(&options);
    engine::run(&options, &mut report);
    beside::run(&options, &bootstrap, &mut report);
    cluster::run(&options, &bootstrap, &mut report);
    cold::run(&options, &bootstrap, &mut report);
    warm::run(&options, &bootstrap, &mut report);
    replay::run(&options, &bootstrap, &mut report);
    if !options.list {
        report.write();
    }
}

/// Tells something to whoever waits.
fn say(line: &str) {
    // A bench without an output has nobody to tell.
    let _ = writeln!(std::io::stdout(), "{line}");
}
