//! The project's own commands; `cargo xtask` lists them.
//!
//! This program depends on the standard library and the test broker alone, and the test broker on the
//! standard library alone. So it is built in a second on a machine where nothing is set up.

mod against;
mod check;
mod demo;
mod fuzz;
mod guard;
mod guests;
mod kafka;
mod languages;
mod memcheck;
mod registry;
mod run;
mod setup;
mod soak;
mod unpacked;

use std::process::ExitCode;

use check::Extent;
use guard::GuardMode;

const HELP: &str = "\
cargo xtask COMMAND

  demo [--kafka]    see it work: real records, a component, a table; in a directory,
                    or on a Kafka broker that the demo starts
  test [--long]     run all checks of the project, as CI does. With --long, also those that take
                    hours: each fault five times, 15 minutes of fuzzing for each target, peers
  setup             install what the other commands need: a WebAssembly toolchain, cargo-deny,
                    Java, Maven, Apache Kafka, Python packages
  build             build the ktables command with its bundled codecs, and the components in Rust
  guests            build all components of the project into target/components, and the command
  component CRATE   build your codec crate into CRATE/NAME.wasm
  bench [--quick] [--peers] [--only NAME]… [--rounds N]
                    measure replay, reads, memory, writes and waiting on a broker, compared with
                    librdkafka alone; with --peers also with Python's ktables, GlobalKTable, KCache
  bench --against COMMIT [--quick] [--only NAME]… [--rounds N]
                    measure this folder and another commit in turns, one comparison (cell) after
                    the other, and fail if something is worse in this folder
  bench serve [--only NAME]… [--rounds N]
                    measure the server: reads per second, compared with constant answers, and how
                    soon and at what cost watchers have changes
  bench micro [ARGS]
                    measure what the sandbox costs, codec by codec
  profile [KIND CODEC]
                    sample where a replay spends its time with perf, and draw a flame graph;
                    by default of `component json`
  guard [--record]  count the instructions of the hot paths, and compare with the recorded
                    counts, or record new ones
  memcheck          run the tests that call into librdkafka under a memory checker
  soak [--only KIND]… [--times 20] [--anew]
                    inject each kind of fault so many times, and count what was lost, doubled or
                    wrong. Continues where an earlier run ended; --anew starts over
  fuzz [--only TARGET]… [--minutes 15]
                    fuzz the parsers of untrusted bytes
  kafka up [--nodes N]
                    start a Kafka broker or a cluster, which ends with the shell that
                    calls this command
  kafka down        stop it, and remove its data
  kafka status      print its addresses
  registry up       start a schema registry, which ends with the shell that calls this command
  registry down     stop it
  registry status   print its address

Needs Rust (rustup), a C compiler, make and perl. If there is no
WebAssembly toolchain yet, KTABLES_RUST_WASM=rustup|debian chooses where it comes from; if it
is not set, rustup is tried first.";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if fuzz::is_compiler() {
        return exit_code(fuzz::compile(&args.collect::<Vec<_>>()));
    }
    let command = args.next();
    let rest: Vec<String> = args.collect();
    let result = match (command.as_deref(), rest.as_slice()) {
        (Some("demo"), []) => demo::run_on_directory(),
        (Some("demo"), [option]) if option == "--kafka" => demo::run_on_kafka(),
        (Some("test"), []) => check::test(Extent::Short),
        (Some("test"), [option]) if option == "--long" => check::test(Extent::Long),
        (Some("setup"), []) => setup::setup(),
        (Some("build"), []) => guests::build_rust_guests(),
        (Some("guests"), []) => guests::build_guests(),
        (Some("component"), [folder]) => guests::build_component(folder.as_ref()),
        (Some("bench"), [micro, args @ ..]) if micro == "micro" => check::bench_micro(args),
        (Some("bench"), [serve, args @ ..]) if serve == "serve" => check::bench_serve(args),
        (Some("bench"), args) => check::bench(args),
        (Some("profile"), args) => check::profile(args),
        (Some("guard"), []) => guard::guard(GuardMode::Check),
        (Some("guard"), [option]) if option == "--record" => guard::guard(GuardMode::Record),
        (Some("memcheck"), []) => memcheck::memcheck(),
        (Some("soak"), args) => soak::soak(args),
        (Some("fuzz"), args) => fuzz::fuzz(args),
        (Some("kafka"), [action]) if action == "up" => kafka::start("1"),
        (Some("kafka"), [action, option, nodes]) if action == "up" && option == "--nodes" => {
            kafka::start(nodes)
        }
        (Some("kafka"), [action]) if action == "down" => kafka::stop(),
        (Some("kafka"), [action]) if action == "status" => kafka::print_status(),
        (Some("registry"), [action]) if action == "up" => registry::start(),
        (Some("registry"), [action]) if action == "down" => registry::stop(),
        (Some("registry"), [action]) if action == "status" => registry::print_status(),
        (None | Some("help" | "--help" | "-h"), _) => {
            run::say(HELP);
            return ExitCode::SUCCESS;
        }
        (Some(command), _) => {
            run::say(&format!("unknown command `{command}`, or wrong arguments for it.\n\n{HELP}"));
            return ExitCode::from(2);
        }
    };
    exit_code(result)
}

/// Prints the error of a command, if it failed, and returns the exit code.
fn exit_code(result: run::Outcome) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("\nerror: {error}"));
            ExitCode::FAILURE
        }
    }
}
