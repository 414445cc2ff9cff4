//! A cursor moves over the whole batches in the segments of a partition. Readers, appenders and the lookup of
//! end offsets use it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::file::open_regular;
use crate::log::dir::topic;
use crate::log::{LogError, Offset, Partition, TopicDescription, batch};

/// The size of one read of a segment, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// The size of a read that does not wait for the disk, in bytes: small, because it runs on a thread of the
/// runtime. A larger batch is read in the other way.
const CACHED_READ_BYTES: usize = 16 * 1024;

/// The largest number of bytes after the position that are checked for a torn tail: more than a segment and a
/// write after it, so a longer rest is not part of a log.
const MAX_REST: usize = 128 * 1024 * 1024;

/// A position in the segments of a partition: at the beginning of a segment, or after a whole batch.
#[derive(Debug)]
pub(super) struct Cursor {
    topic: String,
    partition: Partition,
    folder: PathBuf,
    root: PathBuf,
    /// The identity of the topic: a re-created topic of the same name has another.
    id: String,
    path: PathBuf,
    /// The open segment; `None` until the first segment of the partition exists.
    file: Option<File>,
    /// The position in the file where the next batch begins, in bytes.
    position: u64,
    /// The base offset of the next batch.
    next: Offset,
    /// Bytes that were read ahead: those of the file from `position - consumed` on.
    buffer: Vec<u8>,
    /// The number of bytes in the buffer that lie before `position`.
    consumed: usize,
    /// Where the batch began that the cursor passed last: its position in the file, and its base offset.
    passed: (u64, Offset),
}

impl Cursor {
    /// Opens a cursor at the beginning of the last segment.
    pub(super) fn open_last(
        root: &Path,
        topic: &TopicDescription,
        partition: Partition,
    ) -> Result<Self, LogError> {
        Self::open_at(root, topic, partition, Offset::MAX)
    }

    /// Opens a cursor at the beginning of the segment that holds this offset, or will hold it.
    pub(super) fn open_at(
        root: &Path,
        topic: &TopicDescription,
        partition: Partition,
        offset: Offset,
    ) -> Result<Self, LogError> {
        let folder = topic::partition_folder(root, &topic.name, partition);
        let base = segments(&folder)?.into_iter().filter(|&base| base <= offset).max().unwrap_or(0);
        let mut cursor = Self {
            topic: topic.name.clone(),
            partition,
            path: segment_path(&folder, base),
            root: root.to_owned(),
            id: topic.id.clone(),
            folder,
            file: None,
            position: 0,
            next: base,
            buffer: Vec::new(),
            consumed: 0,
            passed: (0, base),
        };
        cursor.open_file()?;
        Ok(cursor)
    }

    /// The offset after the last batch that the cursor has passed.
    pub(super) fn next_offset(&self) -> Offset {
        self.next
    }

    /// The position in the segment where the next batch begins, in bytes.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The path of the segment.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The partition.
    pub(super) fn partition(&self) -> Partition {
        self.partition
    }

    /// Moves over the next whole batch, and returns its bytes; `None` if there is none yet.
    pub(super) fn next_batch(&mut self) -> Result<Option<&[u8]>, LogError> {
        let mut needed = 1;
        loop {
            if self.buffered() < needed && !self.fill_buffer(needed)? {
                let has_more = match self.buffered() {
                    0 => self.open_next_segment()?,
                    _ => self.recheck("the rest of a batch is missing")?,
                };
                if !has_more {
                    return Ok(None);
                }
                needed = 1;
                continue;
            }
            match batch::parse_frame(&self.buffer[self.consumed..], self.next) {
                batch::Frame::Whole { len, next } => return Ok(Some(self.pass(len, next))),
                batch::Frame::Partial { len } => needed = len,
                batch::Frame::Bad(reason) => {
                    if !self.recheck(&reason)? {
                        return Ok(None);
                    }
                    needed = 1;
                }
            }
        }
    }

    /// Moves over the batch of `len` bytes at the position, and returns its bytes.
    fn pass(&mut self, len: usize, next: Offset) -> &[u8] {
        let start = self.consumed;
        self.passed = (self.position, self.next);
        self.consumed += len;
        self.position += len as u64;
        self.next = next;
        &self.buffer[start..start + len]
    }

    /// Reads the bytes after the position, up to [`CACHED_READ_BYTES`], if that does not wait for the disk: if they
    /// are in the page cache, as those are that were just written. Otherwise, or after an error, the buffer is
    /// empty, and [`Self::next_batch`] reads them.
    pub(super) fn read_cached(&mut self) {
        self.discard_buffer();
        let Some(file) = &self.file else { return };
        self.buffer.resize(CACHED_READ_BYTES, 0);
        let read = read_without_waiting(file, &mut self.buffer, self.position).unwrap_or(0);
        self.buffer.truncate(read);
    }

    /// Moves over the next whole batch that was read ahead, and returns its bytes. Reads nothing.
    pub(super) fn next_batch_read_ahead(&mut self) -> Option<&[u8]> {
        match batch::parse_frame(&self.buffer[self.consumed..], self.next) {
            batch::Frame::Whole { len, next } => Some(self.pass(len, next)),
            _ => None,
        }
    }

    /// Moves back to the batch that was returned last, because its records cannot be read.
    pub(super) fn move_back(&mut self) {
        (self.position, self.next) = self.passed;
        self.discard_buffer();
    }

    /// Reads the bytes after the position again, because those in the buffer may be a torn tail that was cut
    /// and replaced meanwhile. Returns true if they begin with a whole batch now. Returns false if they are a
    /// torn tail, or if there are none; readers wait until an appender cuts a torn tail.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] with this reason if they are damaged.
    fn recheck(&mut self, reason: &str) -> Result<bool, LogError> {
        self.discard_buffer();
        let rest = self.read_rest()?;
        let is_whole = matches!(batch::parse_frame(&rest, self.next), batch::Frame::Whole { .. });
        if is_whole || rest.is_empty() || self.is_torn(&rest) {
            Ok(is_whole)
        } else {
            Err(self.corrupt(reason.to_owned()))
        }
    }

    /// The number of bytes in the buffer after the position.
    fn buffered(&self) -> usize {
        self.buffer.len() - self.consumed
    }

    /// Returns the size of the torn tail after the position, in bytes; `None` if nothing follows the
    /// position. Only for the appender, which holds the lock.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] if the bytes are not a torn tail.
    pub(super) fn torn_tail_len(&mut self) -> Result<Option<usize>, LogError> {
        let rest = self.read_rest()?;
        if rest.is_empty() {
            Ok(None)
        } else if self.is_torn(&rest) {
            Ok(Some(rest.len()))
        } else {
            Err(self.corrupt("a batch is incomplete or damaged, and whole batches follow".to_owned()))
        }
    }

    /// Discards the bytes that were read ahead, because the file was changed after the position.
    pub(super) fn discard_buffer(&mut self) {
        self.buffer.clear();
        self.consumed = 0;
    }

    /// Checks that the batches that the cursor has passed still exist.
    ///
    /// # Errors
    ///
    /// [`LogError::Replaced`] if the topic was deleted or re-created, or its files were truncated or
    /// replaced.
    pub(super) fn check_identity(&self) -> Result<(), LogError> {
        let replaced = |reason: &str| {
            let (topic, partition) = (self.topic.clone(), self.partition);
            Err(LogError::Replaced { topic, partition: Some(partition), reason: reason.to_owned() })
        };
        // The inode of the folder is not compared, because a file system may reuse it for the next folder.
        match topic::identity(&self.root, &self.topic)? {
            None => return replaced("the topic was deleted"),
            Some(current) if current != self.id => {
                return replaced("the topic was deleted and created again");
            }
            Some(_) => {}
        }
        let Some(file) = &self.file else { return Ok(()) };
        let open = file.metadata().map_err(LogError::io("read the metadata of", &self.path))?;
        match metadata(&self.path)? {
            Some(current) if current.ino() == open.ino() && current.len() >= self.position => Ok(()),
            Some(current) if current.ino() == open.ino() => {
                replaced("the log was truncated: records that were read are gone")
            }
            _ => replaced("a segment was deleted or replaced"),
        }
    }

    /// Returns the error for a damaged batch after the position.
    pub(super) fn corrupt(&self, reason: String) -> LogError {
        LogError::Corrupt {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.next,
            path: self.path.clone(),
            position: self.position,
            reason,
        }
    }

    /// Whether these bytes at the end of the file are the torn tail of a write that never finished: an
    /// incomplete batch, a batch that ends the file and has a wrong checksum, or blocks of zeros that were
    /// allocated and never written.
    fn is_torn(&self, rest: &[u8]) -> bool {
        match batch::parse_frame(rest, self.next) {
            batch::Frame::Whole { .. } => false,
            // Bytes within its records may look like a batch: a value may hold anything.
            batch::Frame::Partial { .. } => batch::end_of_records(rest)
                .and_then(|end| rest.get(end..))
                .is_none_or(|after| !batch::contains_whole_batch(after, self.next)),
            batch::Frame::Bad(_) => {
                let length =
                    rest.get(8..12).map_or(0, |len| i32::from_be_bytes([len[0], len[1], len[2], len[3]]));
                let ends_file = usize::try_from(length).is_ok_and(|len| len + batch::PREFIX == rest.len());
                ends_file || rest.iter().all(|&byte| byte == 0)
            }
        }
    }

    /// Reads all bytes of the segment from the position on.
    fn read_rest(&mut self) -> Result<Vec<u8>, LogError> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let len = file.metadata().map_err(LogError::io("read the metadata of", &self.path))?.len();
        let len = usize::try_from(len.saturating_sub(self.position)).unwrap_or(usize::MAX);
        if len > MAX_REST {
            return Err(self.corrupt(format!("{len} bytes follow that are not a batch")));
        }
        let mut rest = vec![0; len];
        let read = read_at(file, &mut rest, self.position).map_err(LogError::io("read", &self.path))?;
        rest.truncate(read);
        Ok(rest)
    }

    /// Reads ahead until the buffer holds at least `needed` bytes from the position on; false if the file has
    /// fewer.
    fn fill_buffer(&mut self, needed: usize) -> Result<bool, LogError> {
        self.open_file()?;
        let Some(file) = &self.file else { return Ok(false) };
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        let held = self.buffer.len();
        let len = file.metadata().map_err(LogError::io("read the metadata of", &self.path))?.len();
        let available = usize::try_from(len.saturating_sub(self.position)).unwrap_or(usize::MAX);
        // The length field of a batch may be damaged, so it is not trusted beyond the end of the file.
        if available < needed {
            return Ok(false);
        }
        self.buffer.resize(available.min(needed.max(READ_BYTES)).max(held), 0);
        let read = read_at(file, &mut self.buffer[held..], self.position + held as u64)
            .map_err(LogError::io("read", &self.path))?;
        self.buffer.truncate(held + read);
        Ok(self.buffer.len() >= needed)
    }

    /// Moves to the next segment; false if there is none.
    fn open_next_segment(&mut self) -> Result<bool, LogError> {
        let next = segment_path(&self.folder, self.next);
        if self.file.is_none() || next == self.path || !next.exists() {
            return Ok(false);
        }
        self.path = next;
        self.file = None;
        self.position = 0;
        self.discard_buffer();
        self.open_file()?;
        Ok(self.file.is_some())
    }

    /// Opens the segment if it is not open yet and exists.
    fn open_file(&mut self) -> Result<(), LogError> {
        if self.file.is_none() {
            self.file = match open_regular(OpenOptions::new().read(true), &self.path) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(LogError::io("open", &self.path)(error)),
            };
        }
        Ok(())
    }
}

/// Returns the path of the segment that begins with this offset. The name is the same as in Kafka.
pub(super) fn segment_path(folder: &Path, base: Offset) -> PathBuf {
    folder.join(format!("{base:020}.log"))
}

/// Returns the metadata of a file; `None` if it does not exist.
fn metadata(path: &Path) -> Result<Option<fs::Metadata>, LogError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io("read the metadata of", path)(error)),
    }
}

/// Returns the base offsets of the segments in the folder of a partition.
fn segments(folder: &Path) -> Result<Vec<Offset>, LogError> {
    let entries = fs::read_dir(folder).map_err(LogError::io("list", folder))?;
    let base = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok();
    entries
        .filter_map(|entry| entry.map(base).transpose())
        .collect::<Result<_, _>>()
        .map_err(LogError::io("list", folder))
}

/// Reads from a position in the file into the buffer, but only what is in the page cache. Fails if there is
/// nothing, or if the file system cannot tell. Returns the number of bytes.
#[cfg(target_os = "linux")]
fn read_without_waiting(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};
    Ok(preadv2(file, &mut [io::IoSliceMut::new(buffer)], position, ReadWriteFlags::NOWAIT)?)
}

/// Other systems cannot tell what is in the page cache.
#[cfg(not(target_os = "linux"))]
fn read_without_waiting(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Fills the buffer from a position in the file, as far as the file reaches. Returns the number of bytes.
fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], position + read as u64) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
