//! Cleans up after a broker, even if its owner was killed: a shell that waits for the end of a pipe, whose
//! other end only the owner holds.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The guardian's script: kills a broker and removes its folder when the script's input ends.
///
/// A killed process may still be writing for a moment, so removing its folder is retried. A process that is
/// just being started finds no configuration and ends.
const GUARDIAN_SCRIPT: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
if read -r pid <"$0/pid"; then kill -9 "$pid"; fi
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$0" && break
    sleep 0.1
done
"#;

/// The watcher's script: holds a guardian's pipe, which is the script's output, while a process lives and the
/// broker's address file exists.
const WATCHER_SCRIPT: &str = r#"
trap '' HUP INT
while [ -e "$0/address" ] && kill -0 "$1"; do sleep 1 >/dev/null; done
"#;

/// The shell that cleans up a broker's process and folder.
#[derive(Debug)]
pub(crate) struct Guardian {
    shell: Child,
}

impl Guardian {
    /// Starts a guardian of this folder. It cleans up after [`Guardian::finish`] or the end of this process.
    pub(crate) fn start(folder: &Path) -> Result<Self, String> {
        let mut shell = shell(GUARDIAN_SCRIPT, folder);
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null());
        let shell = shell.spawn().map_err(|error| format!("cannot run sh: {error}"))?;
        Ok(Self { shell })
    }

    /// Lets the guardian clean up, and waits until it has.
    pub(crate) fn finish(mut self) {
        // Waiting closes the pipe first. OK to ignore: a failure cannot be reported to anybody.
        let _ = self.shell.wait();
    }

    /// Makes the guardian clean up when another process has ended, or the folder's address file is removed.
    pub(crate) fn watch(mut self, process: u32, folder: &Path) -> Result<(), String> {
        let Some(pipe) = self.shell.stdin.take() else { return Ok(()) };
        let mut watcher = shell(WATCHER_SCRIPT, folder);
        watcher.arg(process.to_string()).stdin(Stdio::null()).stdout(pipe);
        watcher.spawn().map(drop).map_err(|error| format!("cannot run sh: {error}"))
    }
}

/// Returns a command that runs a script in the background. It has its own process group, so that Ctrl-C in a
/// terminal ends only the owner, and does not have the owner's standard error, so that a reader of that does
/// not wait for the script.
fn shell(script: &str, folder: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(folder).stderr(Stdio::null()).process_group(0);
    shell
}
