//! Appending to one partition: under its lock, behind the last whole batch,
//! synced.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::file::open_regular;
use crate::log::dir::cursor::{Cursor, segment_path};
use crate::log::dir::topic;
use crate::log::{LogError, NewRecord, Offset, Partition, TopicDescription, batch};

/// A segment is closed when it reaches this: small enough to check whole when a
/// process starts to append, large enough that a topic has few files.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The name of the file that appenders lock.
const LOCK: &str = "lock";

/// How long another process may hold a partition's lock.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// How often to try to lock: at first, and at last.
const LOCK_EVERY: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(10));

/// Appends to one partition, beside other processes that do.
#[derive(Debug)]
pub(super) struct Appender {
    log: String,
    topic: String,
    path: PathBuf,
    /// The partition's folder: locked and synced.
    folder: File,
    /// A file in it that is locked, too. It may be removed while it is, so alone it is not enough.
    lock: File,
    end: Cursor,
    /// What was found at the end of the last append does not count any more.
    pub(super) is_stale: bool,
}

impl Appender {
    pub(super) fn open(
        root: &Path,
        url: &str,
        topic: &TopicDescription,
        partition: Partition,
    ) -> Result<Self, LogError> {
        let end = Cursor::open_last(root, topic, partition)?;
        let path = topic::partition_folder(root, &topic.name, partition);
        let folder = File::open(&path).map_err(LogError::io("open", &path))?;
        let lock = open_lock(&path)?;
        let (log, topic) = (url.to_owned(), topic.name.clone());
        Ok(Self { log, topic, path, folder, lock, end, is_stale: false })
    }

    /// Writes the records as one batch and syncs it; returns the first one's offset.
    ///
    /// # Errors
    ///
    /// [`LogError::Undelivered`] if it is not known whether they are durable,
    /// [`LogError::Locked`] if somebody else holds the lock and is not to be waited for any more.
    pub(super) fn append(
        &mut self,
        records: &[NewRecord],
        wait: &dyn Fn() -> bool,
    ) -> Result<Offset, LogError> {
        self.lock(&self.folder, wait)?;
        let result = self.append_in_folder(records, wait);
        // Records that are durable stay so if this fails; the next append finds out.
        self.is_stale |= self.folder.unlock().is_err();
        result
    }

    /// Locks a file as soon as nobody else has locked it. No wait for a lock has a deadline, so it
    /// is tried again and again.
    fn lock(&self, file: &File, wait: &dyn Fn() -> bool) -> Result<(), LogError> {
        let (mut pause, longest) = LOCK_EVERY;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(error)) => return Err(LogError::io("lock", &self.path)(error)),
                Err(TryLockError::WouldBlock) if wait() => std::thread::sleep(pause),
                Err(TryLockError::WouldBlock) => {
                    let (topic, path) = (self.topic.clone(), self.path.clone());
                    return Err(LogError::Locked { topic, partition: self.end.partition(), path });
                }
            }
            pause = (pause * 2).min(longest);
        }
    }

    fn append_in_folder(
        &mut self,
        records: &[NewRecord],
        wait: &dyn Fn() -> bool,
    ) -> Result<Offset, LogError> {
        self.lock(&self.lock, wait)?;
        // Somebody may have removed the file: then others lock another one.
        while !self.is_lock_there()? {
            self.lock = open_lock(&self.path)?;
            self.lock(&self.lock, wait)?;
        }
        // The lock counts only if it lies in the folder of the topic that is there now.
        let result = self.end.check_identity().and_then(|()| self.append_locked(records));
        self.is_stale |= self.lock.unlock().is_err();
        result
    }

    /// Whether the lock's path still names the file that is locked.
    fn is_lock_there(&self) -> Result<bool, LogError> {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let held = self.lock.metadata().map_err(LogError::io("look at the lock of", &self.path))?;
        match fs::metadata(self.path.join(LOCK)) {
            Ok(there) => Ok(identity(there) == identity(held)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(LogError::io("look at the lock of", &self.path)(error)),
        }
    }

    fn append_locked(&mut self, records: &[NewRecord]) -> Result<Offset, LogError> {
        // Others may have appended, or died while they did.
        while self.end.next_batch()?.is_some() {}
        self.cut_torn_tail()?;
        let base = self.end.next_offset();
        let bytes = batch::encode(records, base, now());
        let path = self.segment_to_append(bytes.len());
        let file = open_regular(OpenOptions::new().create(true).append(true), &path);
        let mut file = file.map_err(LogError::io("open", &path))?;
        let before = file.metadata().map_err(LogError::io("look at", &path))?.len();
        if path == self.end.path() && before != self.end.position() {
            let (topic, partition) = (self.topic.clone(), self.end.partition());
            let reason = "its segment changed under the lock".to_owned();
            return Err(LogError::Replaced { topic, partition, reason });
        }
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            // What is cut was not written.
            return Err(match file.set_len(before) {
                Ok(()) => LogError::io("append to", &path)(error),
                Err(_) => self.unknown(&error),
            });
        }
        if before == 0
            && let Err(error) = self.folder.sync_all()
        {
            return Err(self.unknown(&error));
        }
        // From here on the records are durable, whatever else fails.
        loop {
            match self.end.next_batch() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(topic = self.topic, "behind records that were written: {error}");
                    self.is_stale = true;
                    break;
                }
            }
        }
        Ok(base)
    }

    /// The records may be written or not.
    fn unknown(&self, error: &io::Error) -> LogError {
        let (log, topic) = (self.log.clone(), self.topic.clone());
        LogError::Undelivered { log, topic, reason: error.to_string() }
    }

    /// The segment for the next batch: a new one when the last would grow past
    /// its size.
    fn segment_to_append(&self, len: usize) -> PathBuf {
        let position = self.end.position();
        if position > 0 && position + len as u64 > SEGMENT_BYTES {
            segment_path(&self.path, self.end.next_offset())
        } else {
            self.end.path().to_owned()
        }
    }

    fn cut_torn_tail(&mut self) -> Result<(), LogError> {
        let Some(torn) = self.end.torn_tail()? else { return Ok(()) };
        let path = self.end.path();
        tracing::warn!(
            topic = self.topic,
            partition = self.end.partition(),
            offset = self.end.next_offset(),
            path = %path.display(),
            "cut {torn} bytes of a write that never finished; no acknowledged record was in them"
        );
        let file = open_regular(OpenOptions::new().write(true), path).map_err(LogError::io("open", path))?;
        file.set_len(self.end.position()).map_err(LogError::io("cut", path))?;
        file.sync_data().map_err(LogError::io("sync", path))?;
        self.end.forget();
        Ok(())
    }
}

/// Opens the file in a partition's folder that appenders lock.
fn open_lock(folder: &Path) -> Result<File, LogError> {
    let path = folder.join(LOCK);
    let lock = open_regular(OpenOptions::new().create(true).truncate(false).write(true), &path);
    lock.map_err(LogError::io("open", &path))
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
