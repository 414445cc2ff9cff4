//! What cleans up after a broker, also when its owner was killed: a shell that waits
//! for the end of a pipe whose other end only the owner holds.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Ends a broker and removes its folder when its input ends.
///
/// A process that is killed may still be writing for a moment, so that removing its
/// folder is tried again. One that is just being started finds no configuration.
const GUARD: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
if read -r pid <"$0/pid"; then kill -9 "$pid"; fi
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$0" && break
    sleep 0.1
done
"#;

/// Holds a guardian's pipe, its own output, while a process lives and the broker's
/// address is there.
const HOLD: &str = r#"
trap '' HUP INT
while [ -e "$0/address" ] && kill -0 "$1"; do sleep 1 >/dev/null; done
"#;

/// The guardian of a broker's folder.
#[derive(Debug)]
pub(crate) struct Guardian {
    shell: Child,
}

impl Guardian {
    /// A guardian of this folder, until [`Guardian::finish`] or the end of this process.
    pub(crate) fn of(folder: &Path) -> Result<Self, String> {
        let mut shell = shell(GUARD, folder);
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null());
        let shell = shell.spawn().map_err(|error| format!("cannot run sh: {error}"))?;
        Ok(Self { shell })
    }

    /// Lets it clean up, and waits until it has.
    pub(crate) fn finish(mut self) {
        // Waiting closes the pipe first. Should it fail, nobody is left to be told.
        let _ = self.shell.wait();
    }

    /// Lets it clean up when another process has ended, or the folder's address is gone.
    pub(crate) fn follow(mut self, process: u32, folder: &Path) -> Result<(), String> {
        let Some(pipe) = self.shell.stdin.take() else { return Ok(()) };
        let mut holder = shell(HOLD, folder);
        holder.arg(process.to_string()).stdin(Stdio::null()).stdout(pipe);
        holder.spawn().map(drop).map_err(|error| format!("cannot run sh: {error}"))
    }
}

/// A script in the background. In a process group of its own, so that Ctrl-C in a
/// terminal ends the owner alone; without the owner's error output, so that nobody
/// who reads that waits for the script.
fn shell(script: &str, folder: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(folder).stderr(Stdio::null()).process_group(0);
    shell
}
