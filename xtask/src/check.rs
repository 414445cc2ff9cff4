//! The checks of the project (`test`) and its measurements (`bench`, `profile`).

use std::fs;
use std::num::NonZero;
use std::time::Instant;

use crate::against::build_compare;
use crate::fuzz::fuzz;
use crate::guard::{GuardMode, guard};
use crate::guests::{build_guests, build_ktables, ktables_build};
use crate::memcheck::memcheck;
use crate::run::{
    Outcome, build_program, cargo, command, ktables, output, root, run, run_beside, run_into_file, say,
    target,
};
use crate::setup::{
    check_prerequisites, ensure_cargo_deny, ensure_guest_tools, ensure_inferno, ensure_load_generators,
    ensure_peers, ensure_perf, setup,
};
use crate::soak::soak;
use crate::unpacked::ensure_unpacked;

/// The tests that share a cluster of three nodes. They take turns, and wait most of the time, so they run beside the
/// others: waiting for a turn, they would hold the threads that others could use.
const CLUSTER_TESTS: &str = "faults::nodes::";

/// How much `cargo xtask test` covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What CI runs.
    Short,
    /// Everything in `Short`, and what takes hours: longer tests, each fault five times, fuzzing, and peers.
    Long,
}

/// Runs all checks of the project.
pub(crate) fn test(extent: Extent) -> Outcome {
    step("set-up, and the first build", setup_and_build)?;
    step("formatting", || run(&mut cargo(["fmt", "--all", "--check"])))?;
    step("guests", build_guests)?;
    step("lints", || {
        run(&mut cargo([
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("documentation", || {
        let mut doc = cargo(["doc", "--release", "--workspace", "--no-deps", "--quiet"]);
        run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("feature combinations", check_features)?;
    step("bans, licenses, sources", || {
        let mut deny = command(ensure_cargo_deny()?);
        run(deny.args(["--log-level", "error", "check", "bans", "licenses", "sources"]))
    })?;
    step("instructions of hot paths", || guard(GuardMode::Check))?;
    step("memory errors", memcheck)?;
    step("tests", || run_tests(extent))?;
    if extent == Extent::Long {
        step("each fault, five times", || soak(&["--anew", "--times", "5"].map(str::to_owned)))?;
        step("fuzzing", || fuzz(&[]))?;
        step("peers", || bench(&["--quick", "--peers"].map(str::to_owned)))?;
    }
    say("\nAll checks passed.");
    Ok(())
}

/// Runs all tests of the workspace.
fn run_tests(extent: Extent) -> Outcome {
    // Builds all tests, so that none of them runs beside a compiler.
    let suite = build_program("suite", &mut cargo(["test", "--release", "--workspace"]))?;
    let mut alone = command(suite);
    alone.args([CLUSTER_TESTS, "--quiet", "--test-threads=1"]);
    let mut others = cargo(["test", "--release", "--workspace", "--quiet", "--", "--skip", CLUSTER_TESTS]);
    // Many tests wait for brokers and for other processes, so there is time for more of them at once than there are cores.
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    others.env("RUST_TEST_THREADS", (cores + 1).to_string());
    if extent == Extent::Long {
        for tests in [&mut alone, &mut others] {
            tests.env("KTABLES_TEST_LONG", "1");
        }
    }
    run_beside(&mut alone, || run(&mut others))
}

/// Installs what the checks need, and compiles meanwhile: much of the set-up waits for the network.
fn setup_and_build() -> Outcome {
    check_prerequisites()?;
    run_beside(&mut ktables_build(), setup)
}

/// Measures the project, compared with librdkafka and its peers, or with another of its commits.
pub(crate) fn bench(args: &[String]) -> Outcome {
    setup()?;
    if args.iter().any(|arg| arg == "--peers") {
        ensure_peers()?;
    }
    build_guests()?;
    let mut compare = cargo(["bench", "--workspace", "--bench", "compare", "--"]);
    match args.iter().position(|arg| arg == "--against") {
        None => run(compare.args(args)),
        Some(index) => {
            let commit = args.get(index + 1).ok_or("--against needs a commit")?;
            let other = build_compare(commit)?;
            compare.args(&args[..index]).arg("--against").arg(other);
            run(compare.args(&args[index + 2..]))
        }
    }
}

/// Measures the server: requests per second, and how soon watchers have changes. Needs wrk and h2load.
pub(crate) fn bench_serve(args: &[String]) -> Outcome {
    setup()?;
    ensure_load_generators()?;
    build_guests()?;
    // The server of the benchmark has one more endpoint. It is kept aside, and the program that ships is restored.
    run(&mut cargo(["build", "--release", "--workspace", "--bins", "--features", "ktables/bench"]))?;
    let folder = target().join("bench");
    let server = folder.join("ktables");
    let copied = fs::create_dir_all(&folder).and_then(|()| fs::copy(ktables(), &server));
    copied.map_err(|error| format!("cannot write {}: {error}", server.display()))?;
    build_ktables()?;
    ensure_unpacked("etcd-server", "etcd")?;
    ensure_unpacked("nats-server", "nats-server")?;
    let go = ensure_guest_tools()?.join("bin/go");
    let mut build = command(go);
    build.args(["build", "-o"]).arg(folder.join("kv")).arg(".");
    run(build.current_dir(root().join("tests/benches/serve/peers")))?;
    run(cargo(["bench", "--workspace", "--bench", "serve", "--"]).arg(server).args(args))
}

/// Measures what the sandbox costs, codec by codec.
pub(crate) fn bench_micro(args: &[String]) -> Outcome {
    setup()?;
    build_guests()?;
    run(cargo(["bench", "--workspace", "--bench", "sandbox", "--"]).args(args))
}

/// Samples where a replay spends its time, and draws a flame graph.
pub(crate) fn profile(args: &[String]) -> Outcome {
    ensure_perf()?;
    let inferno = ensure_inferno()?;
    setup()?;
    build_guests()?;
    run(cargo(["bench", "--workspace", "--bench", "compare", "--", "profile"]).args(args))?;
    let folder = target().join("bench");
    let stacks = folder.join("profile.stacks");
    let mut script = command("perf");
    script.args(["script", "--no-inline", "--input"]).arg(folder.join("perf.data"));
    run_into_file(&mut script, &stacks)?;
    let folded = folder.join("profile.folded");
    run_into_file(command(inferno.join("inferno-collapse-perf")).arg(&stacks), &folded)?;
    let flame_graph = folder.join("profile.svg");
    let title =
        format!("Replay, {}", if args.is_empty() { "component json".to_owned() } else { args.join(" ") });
    let mut draw = command(inferno.join("inferno-flamegraph"));
    run_into_file(draw.args(["--title", &title]).arg(folded), &flame_graph)?;
    say(&format!("flame graph: {}", flame_graph.display()));
    Ok(())
}

/// Checks the library without the command: with neither wasmtime nor librdkafka, and with each of them alone.
/// Fails if the library depends on one of them, or on the command's clap, without the feature for it.
fn check_features() -> Outcome {
    for features in [&[][..], &["wasm"], &["kafka"]] {
        let check = ["clippy", "--release", "--quiet", "-p", "ktables", "--lib", "--no-default-features"];
        run(cargo(check).arg("--features").arg(features.join(",")).args(["--", "-D", "warnings"]))?;
    }
    let tree = |features: &[&str]| {
        output(cargo(["tree", "-p", "ktables", "-e", "normal", "--prefix", "none"]).args(features))
    };
    let bare = tree(&["--no-default-features"])?;
    let with_wasm = tree(&["--no-default-features", "--features", "wasm"])?;
    for (tree, banned) in [
        (&bare, "wasmtime"),
        (&bare, "clap"),
        (&bare, "rdkafka"),
        (&with_wasm, "clap"),
        (&with_wasm, "rdkafka"),
    ] {
        if tree.lines().any(|line| line.split(' ').next() == Some(banned)) {
            return Err(format!("the library depends on {banned} without its feature: make it optional"));
        }
    }
    Ok(())
}

/// Runs one check, and prints its name before it and its duration after it.
fn step(name: &str, check: impl FnOnce() -> Outcome) -> Outcome {
    say(&format!("\n== {name}"));
    let start = Instant::now();
    check()?;
    say(&format!("== {name}: {:.0} s", start.elapsed().as_secs_f64()));
    Ok(())
}
