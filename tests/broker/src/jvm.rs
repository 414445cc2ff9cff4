//! The process of a broker.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::folder::{CONFIG_FILE, LOG_FILE, PID_FILE};
use crate::install::{Installation, cannot};

/// The heap: enough for a test, and as little as many brokers side by side need.
const HEAP: [&str; 2] = ["-Xms256m", "-Xmx512m"];

/// What is logged: everything but the values of hundreds of settings.
const LOGGING: [&str; 3] = [
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
];

/// Writes its process id to a file and becomes the program: the guardian can end what
/// was started even if the owner dies before it knows the id.
const EXEC: &str = r#"echo $$ >"$0" && exec "$@""#;

/// How often a process that was asked to end is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// A running broker process.
#[derive(Debug)]
pub(crate) struct Jvm {
    child: Child,
    pid_file: PathBuf,
}

impl Jvm {
    /// Starts the broker that is configured in a folder.
    pub(crate) fn start(installation: &Installation, folder: &Path) -> Result<Self, String> {
        let pid_file = folder.join(PID_FILE);
        let log = folder.join(LOG_FILE);
        let output = File::options().create(true).append(true).open(&log);
        let output = output.map_err(|error| cannot("write", &log, &error))?;
        let errors = output.try_clone().map_err(|error| cannot("write", &log, &error))?;
        let java = installation.java();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(EXEC).arg(&pid_file).arg(java.get_program()).args(java.get_args());
        shell.args(HEAP).args(LOGGING).arg("kafka.Kafka").arg(folder.join(CONFIG_FILE));
        shell.stdin(Stdio::null()).stdout(output).stderr(errors);
        // Ctrl-C in a terminal is for the owner, who may want the broker to its end.
        let child = shell.process_group(0).spawn().map_err(|error| format!("cannot run sh: {error}"))?;
        Ok(Self { child, pid_file })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        if status.is_some() {
            self.forget_id();
        }
        status
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) -> Result<(), String> {
        // The shell's own `kill`: the program is not on every machine.
        let mut shell = Command::new("sh");
        let status = shell.args(["-c", r#"kill -s "$0" "$1""#, name, &self.id().to_string()]).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(format!("SIG{name} did not reach process {}", self.id())),
            Err(error) => Err(format!("cannot run sh: {error}")),
        }
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(mut self) -> Result<(), String> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        self.forget_id();
        killed.map(drop).map_err(|error| format!("cannot kill process {}: {error}", self.id()))
    }

    /// Waits until it has ended by itself; gives it back if it does not in time.
    pub(crate) fn wait(mut self, patience: Duration) -> Result<(), Self> {
        let deadline = Instant::now() + patience;
        while self.ended().is_none() {
            if Instant::now() > deadline {
                return Err(self);
            }
            std::thread::sleep(INTERVAL);
        }
        Ok(())
    }

    /// The id may be another process's from now on.
    fn forget_id(&self) {
        // It is gone already if the folder is.
        let _ = fs::remove_file(&self.pid_file);
    }
}
