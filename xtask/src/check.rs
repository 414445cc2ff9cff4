//! Everything the project checks, and its measurements.

use std::time::Instant;

use crate::guard::{Guard, guard};
use crate::guests::guests;
use crate::memcheck::memcheck;
use crate::run::{Outcome, cargo, command, into_file, output, run, say, target};
use crate::setup::{cargo_deny, inferno, peers, perf, setup};

/// What CI runs.
pub(crate) fn test() -> Outcome {
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
    step("tests", || run(&mut cargo(["test", "--release", "--workspace", "--quiet"])))?;
    say("\nAll checks passed.");
    Ok(())
}

/// The project beside its peers.
pub(crate) fn bench(args: &[String]) -> Outcome {
    setup()?;
    if args.iter().any(|arg| arg == "--peers") {
        peers()?;
    }
    guests()?;
    run(cargo(["bench", "--workspace", "--bench", "compare", "--"]).args(args))
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
