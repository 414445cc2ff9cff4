//! A position in a partition's segments that moves over whole batches: the
//! reader's, the appender's, and the end-offset counter's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::file::open_regular;
use crate::log::dir::topic;
use crate::log::{LogError, Offset, Partition, TopicDescription, batch};

/// How much of a segment is read at once.
const READ_BYTES: usize = 256 * 1024;

/// More than a segment and a write behind it: what is longer is no log's.
const MAX_REST: usize = 128 * 1024 * 1024;

/// A position behind a whole batch.
#[derive(Debug)]
pub(super) struct Cursor {
    topic: String,
    partition: Partition,
    folder: PathBuf,
    root: PathBuf,
    /// The topic's identity: another one of its name has another.
    id: String,
    path: PathBuf,
    /// `None` until the partition's first segment exists.
    file: Option<File>,
    /// Where the next batch begins in the file.
    position: u64,
    /// The offset the next batch begins with.
    next: Offset,
    /// Bytes of the file from `position - consumed` on.
    buffer: Vec<u8>,
    /// How much of the buffer lies before `position`.
    consumed: usize,
}

impl Cursor {
    /// At the begin of the last segment.
    pub(super) fn open_last(
        root: &Path,
        topic: &TopicDescription,
        partition: Partition,
    ) -> Result<Self, LogError> {
        Self::open_at(root, topic, partition, Offset::MAX)
    }

    /// At the begin of the segment that holds this offset, or will.
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
        };
        cursor.open_file()?;
        Ok(cursor)
    }

    /// The offset behind everything that was passed.
    pub(super) fn next_offset(&self) -> Offset {
        self.next
    }

    /// Where the next batch begins in the segment.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The segment's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The partition it is in.
    pub(super) fn partition(&self) -> Partition {
        self.partition
    }

    /// Passes the next whole batch and returns its bytes, or `None` if there is
    /// none yet.
    pub(super) fn next_batch(&mut self) -> Result<Option<&[u8]>, LogError> {
        let mut wanted = 1;
        loop {
            if self.buffered() < wanted && !self.fill(wanted)? {
                let more = match self.buffered() {
                    0 => self.roll()?,
                    _ => self.look_again("the rest of a batch is missing")?,
                };
                if !more {
                    return Ok(None);
                }
                wanted = 1;
                continue;
            }
            match batch::frame(&self.buffer[self.consumed..], self.next) {
                batch::Frame::Whole { len, next } => {
                    let start = self.consumed;
                    self.consumed += len;
                    self.position += len as u64;
                    self.next = next;
                    return Ok(Some(&self.buffer[start..start + len]));
                }
                batch::Frame::Partial { len } => wanted = len,
                batch::Frame::Bad(reason) => {
                    if !self.look_again(&reason)? {
                        return Ok(None);
                    }
                    wanted = 1;
                }
            }
        }
    }

    /// Reads what stands behind the position anew: it may have been a torn tail
    /// that was cut and replaced since it was read ahead. True if a whole batch is
    /// there after all, false if what is there is torn: readers wait for an
    /// appender to cut it.
    fn look_again(&mut self, reason: &str) -> Result<bool, LogError> {
        self.forget();
        let rest = self.rest()?;
        let whole = matches!(batch::frame(&rest, self.next), batch::Frame::Whole { .. });
        if whole || rest.is_empty() || self.is_torn(&rest) {
            Ok(whole)
        } else {
            Err(self.corrupt(reason.to_owned()))
        }
    }

    fn buffered(&self) -> usize {
        self.buffer.len() - self.consumed
    }

    /// What stands behind the position: nothing, or a torn tail of this many
    /// bytes. For the appender, which holds the lock.
    pub(super) fn torn_tail(&mut self) -> Result<Option<usize>, LogError> {
        let rest = self.rest()?;
        if rest.is_empty() {
            Ok(None)
        } else if self.is_torn(&rest) {
            Ok(Some(rest.len()))
        } else {
            Err(self.corrupt("the end of a batch is missing, and whole batches follow".to_owned()))
        }
    }

    /// Forgets what was read ahead; the file was changed behind the position.
    pub(super) fn forget(&mut self) {
        self.buffer.clear();
        self.consumed = 0;
    }

    /// Fails if what was read no longer stands: the topic's files were replaced.
    pub(super) fn check_identity(&self) -> Result<(), LogError> {
        let replaced = |reason: &str| {
            let (topic, partition) = (self.topic.clone(), self.partition);
            Err(LogError::Replaced { topic, partition, reason: reason.to_owned() })
        };
        // Not by inode, which a file system gives to the next folder made.
        match topic::identity(&self.root, &self.topic)? {
            None => return replaced("the topic was deleted"),
            Some(now) if now != self.id => return replaced("the topic was deleted and created again"),
            Some(_) => {}
        }
        let Some(file) = &self.file else { return Ok(()) };
        let here = file.metadata().map_err(LogError::io("look at", &self.path))?;
        match metadata(&self.path)? {
            Some(now) if now.ino() == here.ino() && now.len() >= self.position => Ok(()),
            Some(now) if now.ino() == here.ino() => replaced("the log was truncated below what was read"),
            _ => replaced("a segment was deleted or replaced"),
        }
    }

    /// The batch behind the position is damaged.
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

    /// Whether these last bytes are what a write that never finished leaves: a
    /// batch cut short, or blocks that were never filled.
    fn is_torn(&self, rest: &[u8]) -> bool {
        match batch::frame(rest, self.next) {
            batch::Frame::Whole { .. } => false,
            // What lies within the frames of its records is its own, whatever it looks like.
            batch::Frame::Partial { .. } => batch::end_of_frames(rest)
                .and_then(|end| rest.get(end..))
                .is_none_or(|behind| !batch::contains_whole_batch(behind, self.next)),
            batch::Frame::Bad(_) => {
                let claimed =
                    rest.get(8..12).map_or(0, |len| i32::from_be_bytes([len[0], len[1], len[2], len[3]]));
                let ends_file = usize::try_from(claimed).is_ok_and(|len| len + batch::PREFIX == rest.len());
                ends_file || rest.iter().all(|&byte| byte == 0)
            }
        }
    }

    /// All bytes of the segment from the position on.
    fn rest(&mut self) -> Result<Vec<u8>, LogError> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let len = file.metadata().map_err(LogError::io("look at", &self.path))?.len();
        let len = usize::try_from(len.saturating_sub(self.position)).unwrap_or(usize::MAX);
        if len > MAX_REST {
            return Err(self.corrupt(format!("{len} bytes follow that are no batch")));
        }
        let mut rest = vec![0; len];
        let read = read_at(file, &mut rest, self.position).map_err(LogError::io("read", &self.path))?;
        rest.truncate(read);
        Ok(rest)
    }

    /// Reads on until the buffer holds `wanted` bytes from the position on; false
    /// if the file does not have them.
    fn fill(&mut self, wanted: usize) -> Result<bool, LogError> {
        self.open_file()?;
        let Some(file) = &self.file else { return Ok(false) };
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        let held = self.buffer.len();
        let len = file.metadata().map_err(LogError::io("look at", &self.path))?.len();
        let there = usize::try_from(len.saturating_sub(self.position)).unwrap_or(usize::MAX);
        // A claimed length is believed no further than the file reaches.
        if there < wanted {
            return Ok(false);
        }
        self.buffer.resize(there.min(wanted.max(READ_BYTES)).max(held), 0);
        let read = read_at(file, &mut self.buffer[held..], self.position + held as u64)
            .map_err(LogError::io("read", &self.path))?;
        self.buffer.truncate(held + read);
        Ok(self.buffer.len() >= wanted)
    }

    /// Goes on to the next segment, if there is one.
    fn roll(&mut self) -> Result<bool, LogError> {
        let next = segment_path(&self.folder, self.next);
        if self.file.is_none() || next == self.path || !next.exists() {
            return Ok(false);
        }
        self.path = next;
        self.file = None;
        self.position = 0;
        self.forget();
        self.open_file()?;
        Ok(self.file.is_some())
    }

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

/// The path of the segment that begins with this offset; Kafka's name for it.
pub(super) fn segment_path(folder: &Path, base: Offset) -> PathBuf {
    folder.join(format!("{base:020}.log"))
}

/// What is known of a file, if there is one.
fn metadata(path: &Path) -> Result<Option<fs::Metadata>, LogError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io("look at", path)(error)),
    }
}

/// The first offsets of the segments in a partition's folder.
fn segments(folder: &Path) -> Result<Vec<Offset>, LogError> {
    let entries = fs::read_dir(folder).map_err(LogError::io("list", folder))?;
    let base = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok();
    entries
        .filter_map(|entry| entry.map(base).transpose())
        .collect::<Result<_, _>>()
        .map_err(LogError::io("list", folder))
}

/// Fills the buffer from a place in the file, as far as the file reaches.
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
