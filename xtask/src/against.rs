//! Another commit of the project, built beside this one, to be measured in turns with it.

use std::path::Path;

use crate::run::{Outcome, built, cargo, command, output, run, say, target};

/// Builds the `compare` bench of a commit, and all it needs; where it is.
pub(crate) fn compare_of(commit: &str) -> Outcome<std::path::PathBuf> {
    let commit = format!("{commit}^{{commit}}");
    let id = output(command("git").args(["rev-parse", "--verify", &commit]))?;
    let id = id.trim();
    let folder = target().join("against").join(id);
    if !folder.join("Cargo.toml").exists() {
        let clone = ["clone", "--quiet", "--shared", "--no-checkout", "."];
        run(command("git").args(clone).arg(&folder))?;
        run(command("git").args(["checkout", "--quiet", "--detach", id]).current_dir(&folder))?;
    }
    say(&format!("building {id} in {}", folder.display()));
    // A cell that is none: it sets up and builds, and measures nothing.
    run(&mut there(&folder, &["xtask", "bench", "--only", "nothing", "--rounds", "1"]))?;
    built("compare", &mut there(&folder, &["bench", "--workspace", "--bench", "compare"]))
}

/// Cargo in another checkout, which has a target folder of its own.
fn there(folder: &Path, args: &[&str]) -> std::process::Command {
    let mut cargo = cargo(args.iter().copied());
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", folder.join("target"));
    cargo
}
