//! Another commit of the project, built beside this one, to be measured in turns with it.

use std::fs;
use std::path::Path;

use crate::run::{Outcome, built, cargo, command, output, run, say, target};

/// Builds the `compare` bench of a commit, and all it needs; where it is.
pub(crate) fn compare_of(commit: &str) -> Outcome<std::path::PathBuf> {
    let commit = format!("{commit}^{{commit}}");
    let id = output(command("git").args(["rev-parse", "--verify", &commit]))?;
    let id = id.trim();
    let folder = target().join("against").join(id);
    let failed = |error| format!("{}: {error}", folder.display());
    if !folder.exists() {
        // Renamed when it is whole.
        let draft = folder.with_extension("draft");
        let _ = fs::remove_dir_all(&draft);
        let clone = ["clone", "--quiet", "--shared", "--no-checkout", "."];
        run(command("git").args(clone).arg(&draft))?;
        run(command("git").args(["checkout", "--quiet", "--detach", id]).current_dir(&draft))?;
        fs::create_dir(draft.join("target")).map_err(failed)?;
        // What is installed here need not be installed there again.
        for installed in ["kafka", "tools"] {
            run(command("cp").args(["-al"]).arg(target().join(installed)).arg(draft.join("target")))?;
        }
        fs::rename(&draft, &folder).map_err(failed)?;
    }
    say(&format!("building {id} in {}", folder.display()));
    // No cell has this name, so this only sets up and builds.
    run(&mut there(&folder, &["xtask", "bench", "--only", "nothing", "--rounds", "1"]))?;
    built("compare", &mut there(&folder, &["bench", "--workspace", "--bench", "compare"]))
}

/// Cargo in another checkout, which has a target folder of its own.
fn there(folder: &Path, args: &[&str]) -> std::process::Command {
    let mut cargo = cargo(args.iter().copied());
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", folder.join("target"));
    // Of this commit, and set by its configuration of cargo: that of the other is to count.
    cargo.env_remove("JEMALLOC_SYS_WITH_MALLOC_CONF");
    cargo
}
