//! A broker or a schema registry that outlives the process that started it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::folder::{ADDRESS_FILE, PID_FILE};
use crate::install::{io_error, kafka_folder, remove_folder};
use crate::probe::{is_answering, is_registry_answering};

/// How long the answer to one probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a guardian may take to kill it. The guardian's watcher checks once a second.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often the folder is checked.
const INTERVAL: Duration = Duration::from_millis(20);

/// What a process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// A broker of Kafka.
    Broker,
    /// A schema registry.
    SchemaRegistry,
}

impl ServerKind {
    fn is_answering(self, address: &str) -> bool {
        match self {
            Self::Broker => is_answering(address, PROBE_TIMEOUT),
            Self::SchemaRegistry => is_registry_answering(address, PROBE_TIMEOUT),
        }
    }
}

/// A running server that was detached from its owner, as by [`Broker::detach`](crate::Broker::detach).
#[derive(Debug)]
pub struct DetachedServer {
    folder: PathBuf,
    address: String,
    process: String,
}

impl DetachedServer {
    /// Finds the server with this name. Returns `None` if there is none or it does not answer.
    #[must_use]
    pub fn find(target: &Path, kind: ServerKind, name: &str) -> Option<Self> {
        let folder = kafka_folder(target).join(name);
        let address = fs::read_to_string(folder.join(ADDRESS_FILE)).ok()?;
        let process = fs::read_to_string(folder.join(PID_FILE)).ok()?.trim().to_owned();
        kind.is_answering(&address).then_some(Self { folder, address, process })
    }

    /// Stops the server with this name, and removes its folder. Returns false if there is no such folder.
    ///
    /// # Errors
    ///
    /// If it does not end, for example because its guardian was killed, or its folder cannot be
    /// removed.
    pub fn stop(target: &Path, kind: ServerKind, name: &str) -> Result<bool, String> {
        let folder = kafka_folder(target).join(name);
        if !folder.exists() {
            return Ok(false);
        }
        let running = Self::find(target, kind, name);
        let address = folder.join(ADDRESS_FILE);
        match fs::remove_file(&address) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error("remove", &address, &error));
            }
            _ => wait_until_gone(&folder),
        }
        match running.filter(|running| kind.is_answering(&running.address)) {
            Some(running) => {
                Err(format!("process {} did not end, because its guardian is gone: kill it", running.process))
            }
            // The folder may still be there, for example after the machine was shut down.
            None => remove_folder(&folder).map(|()| true),
        }
    }

    /// Returns host and port: of a broker, those of the listener without encryption and authentication.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the process id, as text.
    #[must_use]
    pub fn process(&self) -> &str {
        &self.process
    }

    /// Returns the server's folder.
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
