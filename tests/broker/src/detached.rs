//! A broker that outlives whoever started it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::folder::{ADDRESS_FILE, PID_FILE};
use crate::install::{brokers, cannot, remove};
use crate::probe::answers;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a broker's keepers may take to see that they should end it: they look
/// every second.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the folder is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// A broker that [`Broker::detach`](crate::Broker::detach) left to itself.
#[derive(Debug)]
pub struct Detached {
    folder: PathBuf,
    address: String,
    process: String,
}

impl Detached {
    /// The broker of this name, if it answers.
    #[must_use]
    pub fn find(target: &Path, name: &str) -> Option<Self> {
        let folder = brokers(target).join(name);
        let address = fs::read_to_string(folder.join(ADDRESS_FILE)).ok()?;
        let process = fs::read_to_string(folder.join(PID_FILE)).ok()?.trim().to_owned();
        answers(&address, ANSWER).then_some(Self { folder, address, process })
    }

    /// Ends the broker of this name and removes its folder; whether there was one.
    ///
    /// # Errors
    ///
    /// If it does not end, because its keepers were killed.
    pub fn end(target: &Path, name: &str) -> Result<bool, String> {
        let folder = brokers(target).join(name);
        if !folder.exists() {
            return Ok(false);
        }
        let running = Self::find(target, name);
        let address = folder.join(ADDRESS_FILE);
        match fs::remove_file(&address) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(cannot("remove", &address, &error));
            }
            _ => wait_until_gone(&folder),
        }
        match running.filter(|running| answers(&running.address, ANSWER)) {
            Some(running) => Err(format!("nobody is left who ends process {}: kill it", running.process)),
            // Of a machine that went down, for example.
            None => remove(&folder).map(|()| true),
        }
    }

    /// Host and port of the listener without encryption and authentication.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.address
    }

    /// The process id, as text.
    #[must_use]
    pub fn process(&self) -> &str {
        &self.process
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn wait_until_gone(folder: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while folder.exists() && Instant::now() < deadline {
        std::thread::sleep(INTERVAL);
    }
}
