//! Everything the project checks, and its measurements.

use std::time::Instant;

use crate::against::compare_of;
use crate::fuzz::fuzz;
use crate::guard::{Guard, guard};
use crate::guests::guests;
use crate::memcheck::memcheck;
use crate::run::{Outcome, cargo, command, into_file, output, run, say, target};
use crate::setup::{cargo_deny, inferno, peers, perf, setup};
use crate::soak::soak;

/// How much is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What CI runs.
    Short,
    /// That, and what takes hours: longer tests, each fault five times, fuzzing, and peers.
    Long,
}

/// Everything the project checks.
pub(crate) fn test(extent: Extent) -> Outcome {
    step("set-up", setup)?;
    step("formatting", || run(&mut cargo(["fmt", "--all", "--check"])))?;
    step("guests", guests)?;
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
    step("feature combinations", features)?;
    step("bans, licenses, sources", || {
        run(command(cargo_deny()?).args(["--log-level", "error", "check", "bans", "licenses", "sources"]))
    })?;
    step("instructions of hot paths", || guard(Guard::Check))?;
    step("memory errors", memcheck)?;
    let mut tests = cargo(["test", "--release", "--workspace", "--quiet"]);
    if extent == Extent::Long {
        tests.env("KTABLES_TEST_LONG", "1");
    }
    step("tests", || run(&mut tests))?;
    if extent == Extent::Long {
        step("each fault, five times", || soak(&["--anew", "--times", "5"].map(str::to_owned)))?;
        step("fuzzing", || fuzz(&[]))?;
        step("peers", || bench(&["--quick", "--peers"].map(str::to_owned)))?;
    }
    say("\nAll checks passed.");
    Ok(())
}

/// The project beside its peers, or beside another of its commits.
pub(crate) fn bench(args: &[String]) -> Outcome {
    setup()?;
    if args.iter().any(|arg| arg == "--peers") {
        peers()?;
    }
    guests()?;
    let mut compare = cargo(["bench", "--workspace", "--bench", "compare", "--"]);
    match args.iter().position(|arg| arg == "--against") {
        None => run(compare.args(args)),
        Some(index) => {
            let commit = args.get(index + 1).ok_or("--against wants a commit")?;
            let other = compare_of(commit)?;
            compare.args(&args[..index]).arg("--against").arg(other);
            run(compare.args(&args[index + 2..]))
        }
    }
}

/// What the sandbox costs, codec by codec.
pub(crate) fn micro(args: &[String]) -> Outcome {
    setup()?;
    guests()?;
    run(cargo(["bench", "--workspace", "--bench", "sandbox", "--"]).args(args))
}

/// Where a replay spends its time.
pub(crate) fn profile(args: &[String]) -> Outcome {
    perf()?;
    let inferno = inferno()?;
    setup()?;
    guests()?;
    run(cargo(["bench", "--workspace", "--bench", "compare", "--", "profile"]).args(args))?;
    let folder = target().join("bench");
    let stacks = folder.join("profile.stacks");
    let mut script = command("perf");
    script.args(["script", "--no-inline", "--input"]).arg(folder.join("perf.data"));
    into_file(&mut script, &stacks)?;
    let folded = folder.join("profile.folded");
    into_file(command(inferno.join("inferno-collapse-perf")).arg(&stacks), &folded)?;
    let drawn = folder.join("profile.svg");
    let title =
        format!("Replay, {}", if args.is_empty() { "component json".to_owned() } else { args.join(" ") });
    into_file(command(inferno.join("inferno-flamegraph")).args(["--title", &title]).arg(folded), &drawn)?;
    say(&format!("flame graph: {}", drawn.display()));
    Ok(())
}

/// The library without the command, and with one or none of wasmtime and librdkafka.
fn features() -> Outcome {
    for features in [&[][..], &["wasm"], &["kafka"]] {
        let check = ["clippy", "--release", "--quiet", "-p", "ktables", "--lib", "--no-default-features"];
        run(cargo(check).arg("--features").arg(features.join(",")).args(["--", "-D", "warnings"]))?;
    }
    let tree = |features: &[&str]| {
        output(cargo(["tree", "-p", "ktables", "-e", "normal", "--prefix", "none"]).args(features))
    };
    let bare = tree(&["--no-default-features"])?;
    let library = tree(&["--no-default-features", "--features", "wasm"])?;
    for (tree, banned) in
        [(&bare, "wasmtime"), (&bare, "clap"), (&bare, "rdkafka"), (&library, "clap"), (&library, "rdkafka")]
    {
        if tree.lines().any(|line| line.split(' ').next() == Some(banned)) {
            return Err(format!("the library depends on {banned} where it must not"));
        }
    }
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Outcome) -> Outcome {
    say(&format!("\n== {name}"));
    let start = Instant::now();
    work()?;
    say(&format!("== {name}: {:.0} s", start.elapsed().as_secs_f64()));
    Ok(())
}
