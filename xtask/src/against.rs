//! Builds another commit of the project beside this one, so that `bench --against` can measure both in turns.

use std::fs;
use std::path::Path;

use crate::run::{Outcome, build_program, cargo, command, output, run, say, target};

/// Builds the `compare` bench of a commit with everything it needs. Returns the path of the program.
pub(crate) fn build_compare(commit: &str) -> Outcome<std::path::PathBuf> {
    let commit = format!("{commit}^{{commit}}");
    let id = output(command("git").args(["rev-parse", "--verify", &commit]))?;
    let id = id.trim();
    let folder = target().join("against").join(id);
    let folder_error = |error| format!("{}: {error}", folder.display());
    if !folder.exists() {
        // Renamed once it is complete, so that an interrupted checkout is not taken for a complete one.
        let draft = folder.with_extension("draft");
        let _ = fs::remove_dir_all(&draft);
        let clone = ["clone", "--quiet", "--shared", "--no-checkout", "."];
        run(command("git").args(clone).arg(&draft))?;
        run(command("git").args(["checkout", "--quiet", "--detach", id]).current_dir(&draft))?;
        fs::create_dir(draft.join("target")).map_err(folder_error)?;
        // Hard links, so that what is installed here need not be installed there again.
        for installed in ["kafka", "tools"] {
            run(command("cp").args(["-al"]).arg(target().join(installed)).arg(draft.join("target")))?;
        }
        fs::rename(&draft, &folder).map_err(folder_error)?;
    }
    say(&format!("building {id} in {}", folder.display()));
    // No cell has this name, so this only sets up and builds.
    run(&mut cargo_in(&folder, &["xtask", "bench", "--only", "nothing", "--rounds", "1"]))?;
    build_program("compare", &mut cargo_in(&folder, &["bench", "--workspace", "--bench", "compare"]))
}

/// Returns a cargo command that runs in another checkout, with that checkout's own target folder.
fn cargo_in(folder: &Path, args: &[&str]) -> std::process::Command {
    let mut cargo = cargo(args.iter().copied());
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", folder.join("target"));
    // This commit's cargo configuration sets it for us. The other commit's configuration must apply instead.
    cargo.env_remove("JEMALLOC_SYS_WITH_MALLOC_CONF");
    cargo
}
