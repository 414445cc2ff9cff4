//! The process of a broker. It must not outlive its *owner*, the process that started it: if the owner dies, a
//! shell that runs beside it, the *guardian*, kills the broker (`guardian.rs`).

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::folder::{CONFIG_FILE, LOG_FILE, PID_FILE};
use crate::install::{Installation, io_error};

/// The heap: enough for a test, and small enough for many brokers on one machine.
const HEAP: [&str; 2] = ["-Xms256m", "-Xmx512m"];

/// The log level: everything at `info`, except for the values of hundreds of settings.
const LOGGING: [&str; 3] = [
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
];

/// A script that writes its process id to a file and then becomes the program. So the guardian can kill the
/// process even if the owner dies before it knows the id.
const EXEC: &str = r#"echo $$ >"$0" && exec "$@""#;

/// How often a process that should end is checked.
const INTERVAL: Duration = Duration::from_millis(10);

/// A running broker process.
#[derive(Debug)]
pub(crate) struct Jvm {
    child: Child,
    pid_file: PathBuf,
}

impl Jvm {
    /// Starts the broker whose configuration is in a folder.
    pub(crate) fn start_broker(installation: &Installation, folder: &Path) -> Result<Self, String> {
        let mut java = installation.java();
        java.args(HEAP).args(LOGGING).arg("kafka.Kafka").arg(folder.join(CONFIG_FILE));
        Self::start(&java, folder)
    }

    /// Starts a program whose output and process id are written into a folder.
    pub(crate) fn start(java: &Command, folder: &Path) -> Result<Self, String> {
        let pid_file = folder.join(PID_FILE);
        let log = folder.join(LOG_FILE);
        let output = File::options().create(true).append(true).open(&log);
        let output = output.map_err(|error| io_error("write", &log, &error))?;
        let errors = output.try_clone().map_err(|error| io_error("write", &log, &error))?;
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(EXEC).arg(&pid_file).arg(java.get_program()).args(java.get_args());
        shell.stdin(Stdio::null()).stdout(output).stderr(errors);
        // In a process group of its own, so that Ctrl-C in a terminal reaches the owner only, which may need
        // the broker until the owner ends.
        let child = shell.process_group(0).spawn().map_err(|error| format!("cannot run sh: {error}"))?;
        Ok(Self { child, pid_file })
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the exit status; `None` while the process runs, or if its status cannot be read.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        if status.is_some() {
            self.remove_pid_file();
        }
        status
    }

    /// Sends the process a signal. `name` has no `SIG` prefix.
    pub(crate) fn signal(&self, name: &str) -> Result<(), String> {
        // The shell's built-in `kill`, because not every machine has the program.
        let mut shell = Command::new("sh");
        let status = shell.args(["-c", r#"kill -s "$0" "$1""#, name, &self.id().to_string()]).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(format!("cannot send SIG{name} to process {}", self.id())),
            Err(error) => Err(format!("cannot run sh: {error}")),
        }
    }

    /// Kills the process, and waits until it has ended.
    pub(crate) fn kill(mut self) -> Result<(), String> {
        let result = self.child.kill().and_then(|()| self.child.wait());
        // After a failure, the file stays, so that the guardian tries again.
        if result.is_ok() {
            self.remove_pid_file();
        }
        result.map(drop).map_err(|error| format!("cannot kill process {}: {error}", self.id()))
    }

    /// Waits until the process has ended by itself. Returns the process if it has not ended in time.
    pub(crate) fn wait(mut self, timeout: Duration) -> Result<(), Self> {
        let deadline = Instant::now() + timeout;
        while self.exit_status().is_none() {
            if Instant::now() > deadline {
                return Err(self);
            }
            std::thread::sleep(INTERVAL);
        }
        Ok(())
    }

    /// Removes the file with the process id, because another process may get the same id now.
    fn remove_pid_file(&self) {
        // OK to ignore: the file is gone if the folder was removed.
        let _ = fs::remove_file(&self.pid_file);
    }
}
