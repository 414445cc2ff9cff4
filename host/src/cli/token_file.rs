//! The file in which `watch --resume` stores where it continues.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cli::CliError;
use crate::file::{FileError, Replacement, read_text};
use crate::table::{InvalidToken, WatchToken};

/// The interval between two writes of the token while changes are printed.
const TOKEN_WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The interval between two writes of the token while nothing is printed: the log no longer has the records
/// that follow a token that is too old.
const IDLE_TOKEN_WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// The largest token file that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 1 << 20;

/// The file in which `watch --resume` stores its token: the position after the last event that it has
/// printed.
pub(super) struct TokenFile {
    path: PathBuf,
    /// When writing the token was last tried.
    last_attempt: Instant,
    /// When to write the token next.
    next_write: Instant,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        let now = Instant::now();
        Self { path, last_attempt: now, next_write: now }
    }

    /// Reads the token. Returns `None` if the file does not exist yet.
    pub(super) fn read(&self) -> Result<Option<WatchToken>, CliError> {
        match read_text(&self.path, MAX_TOKEN_BYTES) {
            Ok(text) => text.trim().parse().map(Some).map_err(|error: InvalidToken| {
                CliError::Usage(format!("--resume {}: {error}", self.path.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::of::<CliError>("read the watch token from", &self.path)(error)),
        }
    }

    /// Fails if no token can be written.
    pub(super) fn check_writable(&self) -> Result<(), CliError> {
        let replacement = Replacement::new(&self.path);
        replacement.map(drop).map_err(FileError::of::<CliError>("write the watch token to", &self.path))
    }

    /// Notes that an event was printed, after which the token is stored soon.
    pub(super) fn note_event(&mut self) {
        self.next_write = self.next_write.min(self.last_attempt + TOKEN_WRITE_INTERVAL);
    }

    /// Waits until the token has to be stored.
    pub(super) async fn wait_for_write_time(&self) {
        tokio::time::sleep_until(self.next_write.into()).await;
    }

    /// Replaces the file with one that holds the current token, atomically. While there is no token, tries
    /// again later.
    pub(super) fn write(&mut self, token: Option<&str>) -> Result<(), CliError> {
        self.last_attempt = Instant::now();
        let Some(token) = token else {
            self.next_write = self.last_attempt + TOKEN_WRITE_INTERVAL;
            return Ok(());
        };
        self.next_write = self.last_attempt + IDLE_TOKEN_WRITE_INTERVAL;
        let write = || {
            let mut replacement = Replacement::new(&self.path)?;
            writeln!(replacement, "{token}")?;
            replacement.persist()
        };
        write().map_err(FileError::of::<CliError>("write the watch token to", &self.path))
    }
}
