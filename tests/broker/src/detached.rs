//! A broker that outlives the process that started it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::folder::{ADDRESS_FILE, PID_FILE};
use crate::install::{io_error, kafka_folder, remove_folder};
use crate::probe::is_answering;

/// How long the answer to one probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a broker's guardian may take to kill it. The guardian's watcher checks once a second.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often the folder is checked.
const INTERVAL: Duration = Duration::from_millis(20);

/// A running broker that [`Broker::detach`](crate::Broker::detach) detached from its owner.
#[derive(Debug)]
pub struct DetachedBroker {
    folder: PathBuf,
    address: String,
    process: String,
}

impl DetachedBroker {
    /// Finds the broker with this name. Returns `None` if there is none or it does not answer.
    #[must_use]
    pub fn find(target: &Path, name: &str) -> Option<Self> {
        let folder = kafka_folder(target).join(name);
        let address = fs::read_to_string(folder.join(ADDRESS_FILE)).ok()?;
        let process = fs::read_to_string(folder.join(PID_FILE)).ok()?.trim().to_owned();
        is_answering(&address, PROBE_TIMEOUT).then_some(Self { folder, address, process })
    }

    /// Stops the broker with this name, and removes its folder. Returns false if there is no such folder.
    ///
    /// # Errors
    ///
    /// If the broker does not end, for example because its guardian was killed, or its folder cannot be
    /// removed.
    pub fn stop(target: &Path, name: &str) -> Result<bool, String> {
        let folder = kafka_folder(target).join(name);
        if !folder.exists() {
            return Ok(false);
        }
        let running = Self::find(target, name);
        let address = folder.join(ADDRESS_FILE);
        match fs::remove_file(&address) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error("remove", &address, &error));
            }
            _ => wait_until_gone(&folder),
        }
        match running.filter(|running| is_answering(&running.address, PROBE_TIMEOUT)) {
            Some(running) => {
                Err(format!("process {} did not end, because its guardian is gone: kill it", running.process))
            }
            // The folder may still be there, for example after the machine was shut down.
            None => remove_folder(&folder).map(|()| true),
        }
    }

    /// Returns host and port of the listener without encryption and authentication.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.address
    }

    /// Returns the process id, as text.
    #[must_use]
    pub fn process(&self) -> &str {
        &self.process
    }

    /// Returns the broker's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn wait_until_gone(folder: &Path) {
    let deadline = Instant::now() + TIMEOUT;
    while folder.exists() && Instant::now() < deadline {
        std::thread::sleep(INTERVAL);
    }
}
