//! The project's own commands; `cargo xtask` lists them.
//!
//! Needs nothing but the standard library, and of the project only the test broker,
//! which needs no more, so that it is built in a second on a machine where nothing is
//! set up.

mod against;
mod check;
mod demo;
mod fuzz;
mod guard;
mod guests;
mod kafka;
mod memcheck;
mod run;
mod setup;
mod soak;

use std::process::ExitCode;

use check::Extent;
use guard::Guard;

const HELP: &str = "\
cargo xtask COMMAND

  demo [--kafka]    see it work: real records, a component, a table; in a directory,
                    or on a Kafka broker that is started for it
  test [--long]     everything the project checks; what CI runs. With --long, also what takes
                    hours: each fault five times, 15 minutes of fuzzing for each target, peers
  setup             install what the others need: a WebAssembly toolchain, cargo-deny,
                    Java, Maven, Apache Kafka, Python packages
  guests            build all components of the project into target/components
  component CRATE   build a codec crate of yours: CRATE/NAME.wasm
  bench [--quick] [--peers] [--only NAME]… [--rounds N]
                    measure replay, reads, memory, writes and waiting on a broker, beside
                    librdkafka alone; with peers: Python's ktables, GlobalKTable, KCache
  bench --against COMMIT [--quick] [--only NAME]… [--rounds N]
                    measure what is in this folder and another commit in turns, one comparison
                    (cell) after the other, and fail if something is worse here
  bench micro [ARGS]
                    measure what the sandbox costs, codec by codec
  profile [KIND CODEC]
                    where a replay spends its time, by perf, and a flame graph of it;
                    `component json` if not said
  guard [--record]  count the instructions of the hot paths, and compare with what is
                    recorded, or record it
  memcheck          the tests that call into librdkafka, under a memory checker
  soak [--only KIND]… [--times 20] [--anew]
                    inject each kind of fault so often, and tally what was lost, doubled
                    or wrong; goes on where an earlier run ended, or begins anew
  fuzz [--only TARGET]… [--minutes 15]
                    feed what parses bytes of others with bytes that a fuzzer makes up
  kafka up [--nodes N]
                    start a Kafka broker, or a cluster; it ends with the shell that this
                    is called in
  kafka down        end it, and remove its data
  kafka status      where it runs

Needs Rust (rustup), a C compiler, make and perl. KTABLES_RUST_WASM=rustup|debian says
where the WebAssembly toolchain comes from; unset, rustup is tried first.";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if fuzz::is_compiler() {
        return done(fuzz::compile(&args.collect::<Vec<_>>()));
    }
    let command = args.next();
    let rest: Vec<String> = args.collect();
    let result = match (command.as_deref(), rest.as_slice()) {
        (Some("demo"), []) => demo::in_a_directory(),
        (Some("demo"), [option]) if option == "--kafka" => demo::on_kafka(),
        (Some("test"), []) => check::test(Extent::Short),
        (Some("test"), [option]) if option == "--long" => check::test(Extent::Long),
        (Some("setup"), []) => setup::setup(),
        (Some("guests"), []) => guests::guests(),
        (Some("component"), [folder]) => guests::component(folder.as_ref()),
        (Some("bench"), [micro, args @ ..]) if micro == "micro" => check::micro(args),
        (Some("bench"), args) => check::bench(args),
        (Some("profile"), args) => check::profile(args),
        (Some("guard"), []) => guard::guard(Guard::Check),
        (Some("guard"), [option]) if option == "--record" => guard::guard(Guard::Record),
        (Some("memcheck"), []) => memcheck::memcheck(),
        (Some("soak"), args) => soak::soak(args),
        (Some("fuzz"), args) => fuzz::fuzz(args),
        (Some("kafka"), [action]) if action == "up" => kafka::up("1"),
        (Some("kafka"), [action, option, nodes]) if action == "up" && option == "--nodes" => kafka::up(nodes),
        (Some("kafka"), [action]) if action == "down" => kafka::down(),
        (Some("kafka"), [action]) if action == "status" => kafka::status(),
        (None | Some("help" | "--help" | "-h"), _) => {
            run::say(HELP);
            return ExitCode::SUCCESS;
        }
        (Some(command), _) => {
            run::say(&format!("`{command}` with these arguments is no command.\n\n{HELP}"));
            return ExitCode::from(2);
        }
    };
    done(result)
}

fn done(result: run::Outcome) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("\nerror: {error}"));
            ExitCode::FAILURE
        }
    }
}
