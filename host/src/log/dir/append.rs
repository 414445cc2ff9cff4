//! Appending to one partition: takes its lock, writes after the last whole batch, and syncs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::file::open_regular;
use crate::log::dir::cursor::{Cursor, segment_path};
use crate::log::dir::topic;
use crate::log::{LogError, NewRecord, Offset, Partition, TopicDescription, batch};

/// The largest size of a segment. It is small enough that a process can check a whole segment when it begins
/// to append, and large enough that a topic has few files.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The name of the file that appenders lock.
const LOCK: &str = "lock";

/// How long an append waits while another process holds the lock of the partition.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The first and the longest pause between two attempts to lock.
const LOCK_PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(10));

/// Appends to one partition, to which other processes may append, too.
#[derive(Debug)]
pub(super) struct Appender {
    log: String,
    topic: String,
    /// The path of the partition's folder.
    path: PathBuf,
    /// The folder of the partition. It is locked for an append, and synced after a file was created in it.
    folder: File,
    /// The lock file in the folder, by which `fuser` finds the processes that append. It is locked for an
    /// append, too, so that a program, for example a backup, can keep appends away with it. Alone it is not
    /// enough, because somebody may remove it while it is locked.
    lock_file: File,
    /// A cursor at the known end of the partition.
    end: Cursor,
    /// Whether the state of this appender may be wrong, so that it must be opened again.
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
        let lock_file = open_lock(&path)?;
        let (log, topic) = (url.to_owned(), topic.name.clone());
        Ok(Self { log, topic, path, folder, lock_file, end, is_stale: false })
    }

    /// Writes the records as one batch and syncs it. Returns the offset of the first record, or `None` if the partition
    /// does not end where it is expected to. Waits for the lock of the partition as long as `keep_waiting` returns
    /// true.
    ///
    /// # Errors
    ///
    /// [`LogError::Undelivered`] if it is unknown whether the records are durable, [`LogError::Locked`] if
    /// somebody else still holds the lock when the wait ends.
    pub(super) fn append(
        &mut self,
        records: &[NewRecord],
        expected_end: Option<Offset>,
        keep_waiting: &dyn Fn() -> bool,
    ) -> Result<Option<Offset>, LogError> {
        self.lock(&self.folder, keep_waiting)?;
        let result = self.append_under_folder_lock(records, expected_end, keep_waiting);
        // If this fails, records that are durable stay durable. The next append opens the files again.
        self.is_stale |= self.folder.unlock().is_err();
        result
    }

    /// Locks a file as soon as nobody else holds its lock. The operating system cannot wait for a lock with a
    /// timeout, so this tries again and again.
    fn lock(&self, file: &File, keep_waiting: &dyn Fn() -> bool) -> Result<(), LogError> {
        let (mut pause, longest) = LOCK_PAUSES;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(error)) => return Err(LogError::io("lock", &self.path)(error)),
                Err(TryLockError::WouldBlock) if keep_waiting() => std::thread::sleep(pause),
                Err(TryLockError::WouldBlock) => {
                    let (topic, path) = (self.topic.clone(), self.path.clone());
                    return Err(LogError::Locked { topic, partition: self.end.partition(), path });
                }
            }
            pause = (pause * 2).min(longest);
        }
    }

    fn append_under_folder_lock(
        &mut self,
        records: &[NewRecord],
        expected_end: Option<Offset>,
        keep_waiting: &dyn Fn() -> bool,
    ) -> Result<Option<Offset>, LogError> {
        self.lock(&self.lock_file, keep_waiting)?;
        // Somebody may have removed the lock file. Others then lock a new one.
        while !self.is_lock_current()? {
            self.lock_file = open_lock(&self.path)?;
            self.lock(&self.lock_file, keep_waiting)?;
        }
        // The lock protects the topic only if it lies in the folder of the current topic of this name.
        let result =
            self.end.check_identity().and_then(|()| self.append_under_both_locks(records, expected_end));
        self.is_stale |= self.lock_file.unlock().is_err();
        result
    }

    /// Whether the path of the lock file still leads to the file that is locked.
    fn is_lock_current(&self) -> Result<bool, LogError> {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let held = self.lock_file.metadata().map_err(LogError::io("check the lock file in", &self.path))?;
        match fs::metadata(self.path.join(LOCK)) {
            Ok(current) => Ok(identity(current) == identity(held)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(LogError::io("check the lock file in", &self.path)(error)),
        }
    }

    fn append_under_both_locks(
        &mut self,
        records: &[NewRecord],
        expected_end: Option<Offset>,
    ) -> Result<Option<Offset>, LogError> {
        // Other processes may have appended meanwhile, or died while they appended.
        while self.end.next_batch()?.is_some() {}
        self.cut_torn_tail()?;
        let base = self.end.next_offset();
        if expected_end.is_some_and(|expected| expected != base) {
            return Ok(None);
        }
        if records.is_empty() {
            return Ok(Some(base));
        }
        let bytes = batch::encode(records, base, now());
        let path = self.segment_to_append(bytes.len());
        let file = open_regular(OpenOptions::new().create(true).append(true), &path);
        let mut file = file.map_err(LogError::io("open", &path))?;
        let before = file.metadata().map_err(LogError::io("read the metadata of", &path))?.len();
        if path == self.end.path() && before != self.end.position() {
            let (topic, partition) = (self.topic.clone(), self.end.partition());
            let reason = "the segment changed although this process holds its lock".to_owned();
            return Err(LogError::Replaced { topic, partition: Some(partition), reason });
        }
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            // If the file can be cut back to its old length, nothing was written.
            return Err(match file.set_len(before).and_then(|()| file.sync_data()) {
                Ok(()) => LogError::io("append to", &path)(error),
                Err(_) => self.undelivered(&error),
            });
        }
        if before == 0
            && let Err(error) = self.folder.sync_all()
        {
            return Err(self.undelivered(&error));
        }
        // The records are durable now, even if reading them back fails.
        loop {
            match self.end.next_batch() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(topic = self.topic, "could not read back appended records: {error}");
                    self.is_stale = true;
                    break;
                }
            }
        }
        Ok(Some(base))
    }

    /// Returns the error for records that may have been written or not.
    fn undelivered(&self, error: &io::Error) -> LogError {
        let (log, topic) = (self.log.clone(), self.topic.clone());
        LogError::Undelivered { log, topic, reason: error.to_string() }
    }

    /// Returns the path of the segment for the next batch: a new one if the last one would exceed its size.
    fn segment_to_append(&self, len: usize) -> PathBuf {
        let position = self.end.position();
        if position > 0 && position + len as u64 > SEGMENT_BYTES {
            segment_path(&self.path, self.end.next_offset())
        } else {
            self.end.path().to_owned()
        }
    }

    /// Cuts the torn tail of a write that never finished, if there is one.
    fn cut_torn_tail(&mut self) -> Result<(), LogError> {
        let Some(torn) = self.end.torn_tail_len()? else { return Ok(()) };
        let path = self.end.path();
        tracing::warn!(
            topic = self.topic,
            partition = self.end.partition(),
            offset = self.end.next_offset(),
            path = %path.display(),
            "cutting {torn} bytes of an unfinished write off the segment; unless the file was damaged, no acknowledged \
             record is lost"
        );
        let file = open_regular(OpenOptions::new().write(true), path).map_err(LogError::io("open", path))?;
        file.set_len(self.end.position()).map_err(LogError::io("cut", path))?;
        file.sync_data().map_err(LogError::io("sync", path))?;
        self.end.discard_buffer();
        Ok(())
    }
}

/// Opens the lock file in the folder of a partition. Creates it if it does not exist.
fn open_lock(folder: &Path) -> Result<File, LogError> {
    let path = folder.join(LOCK);
    let lock = open_regular(OpenOptions::new().create(true).truncate(false).write(true), &path);
    lock.map_err(LogError::io("open", &path))
}

/// The current time, in milliseconds since 1970.
fn now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
