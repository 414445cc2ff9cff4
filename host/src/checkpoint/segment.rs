//! Segments: files of record batches, which are only appended to.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;
use crate::checkpoint::manifest::SegmentInfo;
use crate::log::batch::{self, BatchWriter, Frame, RawRecord};
use crate::log::{Offset, Partition};
use crate::private;

/// A segment is closed when it reaches this size, because readers hold a whole segment in memory.
pub(super) const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;

/// The maximum size of a segment: the last batch may exceed [`SEGMENT_BYTES`] by the maximum size of a
/// record.
const MAX_SEGMENT_BYTES: u64 = SEGMENT_BYTES + (1 << 30);

/// How many digits the first offset has in the file name of a segment.
const BASE_DIGITS: usize = 20;

/// A batch of the records that compaction keeps is closed when it reaches this size.
const BATCH_BYTES: usize = 128 * 1024;

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    path: PathBuf,
    file: File,
    pub(super) info: SegmentInfo,
}

impl SegmentWriter {
    /// Creates a segment whose first record has the offset `base`. Together with `number`, it makes
    /// the file name unique: each compaction, and each segment that is appended to, has a higher number.
    pub(super) fn create(
        folder: &Path,
        partition: Partition,
        base: Offset,
        number: u64,
    ) -> Result<Self, CheckpointError> {
        let file = format!("{partition}-{base:0BASE_DIGITS$}-{number}.log");
        let path = folder.join(&file);
        let opened = private::create_options().truncate(true).open(&path);
        let info = SegmentInfo { file, bytes: 0, crc32c: 0, records: 0 };
        Ok(Self { file: opened.map_err(CheckpointError::io("create", &path))?, path, info })
    }

    /// Opens an existing segment to append to it.
    pub(super) fn reopen(folder: &Path, info: &SegmentInfo) -> Result<Self, CheckpointError> {
        let (path, _) = open_existing(folder, info)?;
        // The bytes after its end do not belong to the segment.
        let opened = private::create_options().create(false).open(&path).and_then(|mut file| {
            file.set_len(info.bytes)?;
            file.seek(SeekFrom::End(0)).map(|_| file)
        });
        let (file, info) = (opened.map_err(CheckpointError::io("open", &path))?, info.clone());
        Ok(Self { path, file, info })
    }

    pub(super) fn is_full(&self) -> bool {
        self.info.bytes >= SEGMENT_BYTES
    }

    pub(super) fn append(&mut self, batch: BatchWriter) -> Result<(), CheckpointError> {
        let records = batch.count();
        let bytes = batch.finish();
        self.file.write_all(&bytes).map_err(CheckpointError::io("append to", &self.path))?;
        self.info.bytes += bytes.len() as u64;
        self.info.crc32c = crc32c::crc32c_append(self.info.crc32c, &bytes);
        self.info.records += records;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), CheckpointError> {
        self.file.sync_data().map_err(CheckpointError::io("sync", &self.path))
    }
}

/// Writes records, and begins another segment whenever one is full.
#[derive(Debug)]
pub(super) struct RollingWriter<'a> {
    folder: &'a Path,
    partition: Partition,
    number: u64,
    batch: Option<BatchWriter>,
    open: Option<SegmentWriter>,
    done: Vec<SegmentInfo>,
}

impl<'a> RollingWriter<'a> {
    pub(super) fn new(folder: &'a Path, partition: Partition, number: u64) -> Self {
        Self { folder, partition, number, batch: None, open: None, done: Vec::new() }
    }

    pub(super) fn push(&mut self, record: &RawRecord<'_>) -> Result<(), CheckpointError> {
        if self.batch.as_ref().is_some_and(|batch| !batch.is_in_reach(record.offset)) {
            self.flush()?;
        }
        let batch = self.batch.get_or_insert_with(|| BatchWriter::new(record.offset, record.timestamp));
        batch.push(record.offset, record.timestamp, record.key, record.value, &record.headers());
        if batch.len() >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CheckpointError> {
        let Some(batch) = self.batch.take() else { return Ok(()) };
        let mut segment = match self.open.take() {
            Some(open) => open,
            None => SegmentWriter::create(self.folder, self.partition, batch.base(), self.number)?,
        };
        segment.append(batch)?;
        if segment.is_full() {
            segment.sync()?;
            self.done.push(segment.info);
        } else {
            self.open = Some(segment);
        }
        Ok(())
    }

    /// Returns the segments after they were written to the disk.
    pub(super) fn finish(mut self) -> Result<Vec<SegmentInfo>, CheckpointError> {
        self.flush()?;
        if let Some(open) = self.open {
            open.sync()?;
            self.done.push(open.info);
        }
        Ok(self.done)
    }
}

/// Opens a segment for reading. Returns its path, too. Fails unless it lies in the folder, and has at least the
/// bytes that the manifest names.
fn open_existing(folder: &Path, info: &SegmentInfo) -> Result<(PathBuf, File), CheckpointError> {
    let path = folder.join(&info.file);
    if Path::new(&info.file).file_name().is_none_or(|name| name != info.file.as_str()) {
        return Err(CheckpointError::damaged(&path, "the manifest names a file outside the folder"));
    }
    let file = private::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CheckpointError::damaged(&path, "the file is missing"),
        _ => CheckpointError::io("open", &path)(error),
    })?;
    let len = file.metadata().map_err(CheckpointError::io("read the metadata of", &path))?.len();
    if len < info.bytes {
        let reason = format!("it has only {len} of {} bytes", info.bytes);
        return Err(CheckpointError::damaged(&path, reason));
    }
    Ok((path, file))
}

/// Reads the bytes of a segment, and verifies length and checksum.
pub(super) fn read_verified(folder: &Path, info: &SegmentInfo) -> Result<Vec<u8>, CheckpointError> {
    let (path, file) = open_existing(folder, info)?;
    if info.bytes > MAX_SEGMENT_BYTES {
        return Err(CheckpointError::damaged(
            &path,
            format!("a length of {} bytes is too large", info.bytes),
        ));
    }
    let mut bytes =
        Vec::with_capacity(usize::try_from(info.bytes).unwrap_or(0).min(2 * SEGMENT_BYTES as usize));
    file.take(info.bytes).read_to_end(&mut bytes).map_err(CheckpointError::io("read", &path))?;
    if bytes.len() as u64 != info.bytes {
        let reason = format!("it has only {} of {} bytes", bytes.len(), info.bytes);
        return Err(CheckpointError::damaged(&path, reason));
    }
    if crc32c::crc32c(&bytes) != info.crc32c {
        return Err(CheckpointError::damaged(&path, "its checksum does not match"));
    }
    Ok(bytes)
}

/// Returns the batches in the bytes of a segment.
pub(super) fn batches<'a>(
    path: &'a Path,
    bytes: &'a [u8],
) -> impl Iterator<Item = Result<&'a [u8], CheckpointError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let base = batch::base_offset(rest)?;
        Some(match batch::parse_frame(rest, base) {
            Frame::Whole { len, .. } => {
                let (batch, after) = rest.split_at(len);
                rest = after;
                Ok(batch)
            }
            // The caller has verified the checksum of the segment, so this is not a torn write: the batch was
            // malformed when it was written.
            Frame::Partial { .. } | Frame::Bad(_) => {
                rest = &[];
                Err(CheckpointError::damaged(path, "it contains a malformed batch"))
            }
        })
    })
}

/// Returns the paths of all segments in a folder, also of those that the manifest does not name.
pub(super) fn list_files(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CheckpointError::io("list", folder)(error)),
    };
    // Other programs may write log files whose names consist of numbers.
    let is_segment = |name: &str| {
        let parts: Vec<&str> = name.strip_suffix(".log").unwrap_or_default().split('-').collect();
        matches!(&*parts, [_, base, _] if base.len() == BASE_DIGITS)
            && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()) && !part.is_empty())
    };
    let paths = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_name().to_str().is_some_and(is_segment).then(|| entry.path())
    });
    Ok(paths.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Headers, RecordBatch};

    #[test]
    fn offsets_may_be_farther_apart_than_a_batch_can_span() {
        let folder = tempfile::TempDir::new().unwrap();
        let far = i64::from(i32::MAX);
        let offsets = [5, 6, far + 5, far + 6, 3 * far, 3 * far + 1];
        let mut writer = RollingWriter::new(folder.path(), 0, 1);
        let whole: Vec<u8> = offsets
            .iter()
            .flat_map(|&offset| {
                let mut batch = BatchWriter::new(offset, 7);
                batch.push(offset, 7, Some(b"k"), Some(b"v"), &[]);
                batch.finish()
            })
            .collect();
        for batch in batches(Path::new("none"), &whole) {
            for record in batch::records(batch.unwrap()) {
                writer.push(&record.unwrap()).unwrap();
            }
        }
        let infos = writer.finish().unwrap();
        let mut copied = RecordBatch::new(0);
        let bytes = read_verified(folder.path(), &infos[0]).unwrap();
        for batch in batches(folder.path(), &bytes) {
            batch::read_into(batch.unwrap(), 0, Headers::Unwanted, &mut copied).unwrap();
        }
        assert_eq!((infos.len(), infos[0].records), (1, 6));
        assert_eq!((0..6).map(|index| copied.get(index).offset).collect::<Vec<_>>(), offsets);
    }
}
