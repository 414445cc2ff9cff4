//! Appending to one partition: under its lock, behind the last whole batch,
//! synced.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::log::dir::cursor::{Cursor, segment_path};
use crate::log::dir::topic;
use crate::log::{LogError, NewRecord, Offset, Partition, TopicDescription, batch};

/// A segment is closed when it reaches this: small enough to check whole when a
/// process starts to append, large enough that a topic has few files.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Appends to one partition, beside other processes that do.
#[derive(Debug)]
pub(super) struct Appender {
    topic: String,
    folder: PathBuf,
    lock: File,
    end: Cursor,
}

impl Appender {
    pub(super) fn open(
        root: &Path,
        topic: &TopicDescription,
        partition: Partition,
    ) -> Result<Self, LogError> {
        let end = Cursor::open_last(root, topic, partition)?;
        let folder = topic::partition_folder(root, &topic.name, partition);
        let path = folder.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(LogError::io("open", &path))?;
        Ok(Self { topic: topic.name.clone(), folder, lock, end })
    }

    /// Writes the records as one batch and syncs it; returns the first one's
    /// offset.
    pub(super) fn append(&mut self, records: &[NewRecord]) -> Result<Offset, LogError> {
        self.lock.lock().map_err(LogError::io("lock", &self.folder))?;
        // The lock counts only if it lies in the folder of the topic that is there now.
        let result = self.end.check_identity().and_then(|()| self.append_locked(records));
        self.lock.unlock().map_err(LogError::io("unlock", &self.folder))?;
        result
    }

    fn append_locked(&mut self, records: &[NewRecord]) -> Result<Offset, LogError> {
        // Others may have appended, or died while they did.
        while self.end.next_batch()?.is_some() {}
        self.cut_torn_tail()?;
        let base = self.end.next_offset();
        let bytes = batch::encode(records, base, now());
        let path = self.segment_to_append(bytes.len());
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = file.map_err(LogError::io("open", &path))?;
        let before = file.metadata().map_err(LogError::io("look at", &path))?.len();
        if path == self.end.path() && before != self.end.position() {
            let (topic, partition) = (self.topic.clone(), self.end.partition());
            let reason = "its segment changed under the lock".to_owned();
            return Err(LogError::Replaced { topic, partition, reason });
        }
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            // Best effort: what cannot be cut now is cut by the next append.
            let _ = file.set_len(before);
            return Err(LogError::io("append to", &path)(error));
        }
        if before == 0 {
            topic::sync_folder(&self.folder)?;
        }
        while self.end.next_batch()?.is_some() {}
        Ok(base)
    }

    /// The segment for the next batch: a new one when the last would grow past
    /// its size.
    fn segment_to_append(&self, len: usize) -> PathBuf {
        let position = self.end.position();
        if position > 0 && position + len as u64 > SEGMENT_BYTES {
            segment_path(&self.folder, self.end.next_offset())
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
        let file = OpenOptions::new().write(true).open(path).map_err(LogError::io("open", path))?;
        file.set_len(self.end.position()).map_err(LogError::io("cut", path))?;
        file.sync_data().map_err(LogError::io("sync", path))?;
        self.end.forget();
        Ok(())
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
