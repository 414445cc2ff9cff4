//! A folder with an OCI image layout: blobs by digest, and an index of manifests with their tags. The store of the user, the
//! codecs of an image, and bundles are such folders.
//!
//! A blob is checked against its digest whenever it is read, so it does not matter who wrote it. The index only suggests
//! manifests.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use tempfile::NamedTempFile;

use crate::file::{FileError, read_bounded, read_open, replace_file};
use crate::oci::digest::DigestBuilder;
use crate::oci::manifest::{Descriptor, Index, MANIFEST_TYPE, MAX_COMPONENT_BYTES, REF_NAME};
use crate::oci::{Digest, OciError};

/// The file that marks a layout, and its contents.
const MARKER: &str = "oci-layout";
const MARKER_TEXT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";

/// The first bytes of a component.
const WASM: &[u8; 4] = b"\0asm";

/// The largest index of a layout that is read, in bytes.
const MAX_INDEX_BYTES: usize = 16 << 20;

/// The largest blob that is read, in bytes, whatever the caller permits.
const MAX_BLOB_BYTES: u64 = 4 << 30;

/// How long another process may keep the index locked.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause between attempts to lock the index.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A folder with an OCI image layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    folder: PathBuf,
}

/// A blob of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Blob {
    Present(Vec<u8>),
    Missing,
    /// The bytes do not have the digest.
    Damaged,
}

impl Layout {
    /// Opens a layout. Its files are read when they are needed.
    pub(crate) fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Creates a layout, unless the folder is one.
    pub(crate) fn create(folder: &Path) -> Result<Self, OciError> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(FileError::of::<OciError>("create the folder", &blobs))?;
        let marker = folder.join(MARKER);
        if !marker.exists() {
            replace_file(&marker, MARKER_TEXT.as_bytes())?;
        }
        Ok(Self::open(folder))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the folder has a layout.
    pub(crate) fn exists(&self) -> bool {
        self.folder.join(MARKER).is_file()
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    fn index_path(&self) -> PathBuf {
        self.folder.join("index.json")
    }

    /// Reads a blob of at most `limit` bytes.
    pub(crate) fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Blob, OciError> {
        let path = self.blob_path(digest);
        let limit = usize::try_from(limit.min(MAX_BLOB_BYTES)).unwrap_or(usize::MAX);
        match open_no_follow(&path).and_then(|file| read_open(file, limit)) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(Blob::Present(bytes)),
            Ok(_) => Ok(Blob::Damaged),
            Err(error) if is_missing(&error) => Ok(Blob::Missing),
            // A link, a device, or something longer in place of the blob.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(Blob::Damaged),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput || is_link(&error) => Ok(Blob::Damaged),
            Err(error) => Err(FileError::of::<OciError>("read", &path)(error)),
        }
    }

    /// Whether the layout has a file for a blob. The file may be damaged.
    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).symlink_metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Whether a blob is a component.
    pub(crate) fn has_component(&self, digest: &Digest) -> bool {
        let mut begin = [0; WASM.len()];
        let read = open_no_follow(&self.blob_path(digest)).and_then(|mut file| file.read_exact(&mut begin));
        read.is_ok()
            && begin == *WASM
            && matches!(self.read_blob(digest, MAX_COMPONENT_BYTES), Ok(Blob::Present(_)))
    }

    /// Removes a blob, if it is there.
    pub(crate) fn remove_blob(&self, digest: &Digest) -> Result<(), OciError> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError::of::<OciError>("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Returns the digests of all blobs, in order.
    pub(crate) fn blobs(&self) -> Result<Vec<Digest>, OciError> {
        let folder = self.folder.join("blobs/sha256");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(FileError::of::<OciError>("read", &folder)(error)),
        };
        let mut digests = Vec::new();
        for entry in entries {
            let entry = entry.map_err(FileError::of::<OciError>("read", &folder))?;
            // Temporary files have other names.
            digests.extend(format!("sha256:{}", entry.file_name().to_string_lossy()).parse::<Digest>());
        }
        digests.sort();
        Ok(digests)
    }

    /// Begins to write a blob.
    pub(crate) fn begin_blob(&self) -> Result<BlobWriter, OciError> {
        let folder = self.folder.join("blobs/sha256");
        // Like any file that a command writes: the umask, and the mode of the folder, decide who may read it.
        let readable = fs::Permissions::from_mode(0o666);
        let file = tempfile::Builder::new().prefix(".new-").permissions(readable).tempfile_in(&folder);
        let file = file.map_err(FileError::of::<OciError>("write into", &folder))?;
        Ok(BlobWriter { file, digest: DigestBuilder::default(), len: 0, layout: self.clone() })
    }

    /// Writes a blob, unless it is there.
    pub(crate) fn write_blob(&self, bytes: &[u8]) -> Result<Digest, OciError> {
        let digest = Digest::of(bytes);
        if !matches!(self.read_blob(&digest, bytes.len() as u64)?, Blob::Present(_)) {
            let mut writer = self.begin_blob()?;
            writer.write(bytes)?;
            writer.persist()?;
        }
        Ok(digest)
    }

    /// Reads the index. A folder without one has no manifests.
    pub(crate) fn index(&self) -> Result<Index, OciError> {
        let path = self.index_path();
        let bytes = match read_bounded(&path, MAX_INDEX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if is_missing(&error) => return Ok(Index::default()),
            Err(error) => return Err(FileError::of::<OciError>("read", &path)(error)),
        };
        Index::parse(&bytes).map_err(|error| {
            OciError::Failed(format!(
                "cannot use the layout {}: index.json is damaged ({error}). Remove the folder, and load it again.",
                self.folder.display()
            ))
        })
    }

    /// Returns the manifest that a tag names.
    pub(crate) fn find_tag(&self, tag: &str) -> Result<Option<Descriptor>, OciError> {
        let index = self.index()?;
        Ok(index.manifests.into_iter().find(|manifest| tag_of(manifest) == Some(tag)))
    }

    /// Adds manifests to the index, with their tags. A tag names one manifest, so its earlier entry is replaced.
    pub(crate) fn add_to_index(&self, manifests: Vec<Descriptor>) -> Result<(), OciError> {
        self.change_index(|index| {
            for manifest in manifests {
                let tag = tag_of(&manifest);
                index.manifests.retain(|known| match tag_of(known) {
                    None => known.digest != manifest.digest,
                    known => known != tag,
                });
                index.manifests.push(manifest);
            }
            index.manifests.sort_by(|a, b| (tag_of(a), a.digest).cmp(&(tag_of(b), b.digest)));
        })
    }

    /// Changes the index while no other process does.
    pub(crate) fn change_index(&self, change: impl FnOnce(&mut Index)) -> Result<(), OciError> {
        self.lock(|| {
            let mut index = self.index()?;
            change(&mut index);
            Ok(replace_file(&self.index_path(), &index.to_bytes())?)
        })
    }

    /// Does something while no other process changes the folder.
    pub(crate) fn lock<T>(&self, work: impl FnOnce() -> Result<T, OciError>) -> Result<T, OciError> {
        let path = self.folder.join("index.lock");
        let lock = File::create(&path).map_err(FileError::of::<OciError>("lock", &path))?;
        lock_file(&lock, &path, &self.index_path())?;
        work()
    }
}

/// Returns the tag of an entry of an index.
pub(crate) fn tag_of(manifest: &Descriptor) -> Option<&str> {
    manifest.annotations.get(REF_NAME).map(String::as_str)
}

/// Locks a file or a folder, with this path, until it is closed. `changed` is what the lock is for.
pub(crate) fn lock_file(lock: &File, path: &Path, changed: &Path) -> Result<(), OciError> {
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_TIMEOUT => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(OciError::Failed(format!(
                    "cannot change {}: another process has locked it for more than {} s",
                    changed.display(),
                    LOCK_TIMEOUT.as_secs()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(FileError::of::<OciError>("lock", path)(error)),
        }
    }
}

/// Describes a manifest for an index, with its tag.
pub(crate) fn index_entry(media_type: &str, bytes: &[u8], tag: Option<&str>) -> Descriptor {
    let entry = Descriptor::of(if media_type.is_empty() { MANIFEST_TYPE } else { media_type }, bytes);
    match tag {
        Some(tag) => entry.with_annotation(REF_NAME, tag),
        None => entry,
    }
}

/// A blob that is being written. Until it is complete and has its digest, the layout does not have it.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    file: NamedTempFile,
    digest: DigestBuilder,
    len: u64,
    layout: Layout,
}

impl BlobWriter {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), OciError> {
        self.file.write_all(bytes).map_err(FileError::of::<OciError>("write into", self.layout.folder()))?;
        self.digest.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Returns how many bytes were written.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Returns the digest of what was written.
    pub(crate) fn digest(&self) -> Digest {
        self.digest.clone().finish()
    }

    /// Adds the blob to the layout.
    pub(crate) fn persist(self) -> Result<Digest, OciError> {
        let digest = self.digest.finish();
        let path = self.layout.blob_path(&digest);
        let persist = || {
            self.file.as_file().sync_all()?;
            self.file.persist(&path).map(drop).map_err(|error| error.error)
        };
        persist().map_err(FileError::of::<OciError>("write", &path))?;
        Ok(digest)
    }
}

/// Opens a regular file. A symbolic link is an error.
fn open_no_follow(path: &Path) -> io::Result<File> {
    // NONBLOCK, because opening a FIFO would wait for its writer.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Whether opening a file failed because it is a symbolic link.
fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn layout() -> (TempDir, Layout) {
        let folder = TempDir::new().unwrap();
        let layout = Layout::create(&folder.path().join("oci")).unwrap();
        (folder, layout)
    }

    #[test]
    fn blobs_are_checked_when_they_are_read() {
        let (_folder, layout) = layout();
        let digest = layout.write_blob(b"text").unwrap();
        assert_eq!(layout.read_blob(&digest, 4).unwrap(), Blob::Present(b"text".to_vec()));
        assert_eq!(layout.read_blob(&digest, 3).unwrap(), Blob::Damaged, "it has a limit");
        assert_eq!(layout.read_blob(&Digest::of(b"other"), 9).unwrap(), Blob::Missing);
        let path = layout.blob_path(&digest);
        fs::write(&path, "tExt").unwrap();
        assert_eq!(layout.read_blob(&digest, 4).unwrap(), Blob::Damaged);
        layout.remove_blob(&digest).unwrap();
        assert_eq!(layout.read_blob(&digest, 4).unwrap(), Blob::Missing);
        // A link is not followed, also if what it leads to has the digest.
        fs::write(layout.folder().join("elsewhere"), "text").unwrap();
        std::os::unix::fs::symlink(layout.folder().join("elsewhere"), &path).unwrap();
        assert_eq!(layout.read_blob(&digest, 4).unwrap(), Blob::Damaged);
        layout.write_blob(b"text").unwrap();
        assert_eq!(layout.read_blob(&digest, 4).unwrap(), Blob::Present(b"text".to_vec()));
        assert_eq!(layout.blobs().unwrap(), [digest]);
    }

    #[test]
    fn a_blob_that_is_not_finished_leaves_nothing() {
        let (_folder, layout) = layout();
        let mut writer = layout.begin_blob().unwrap();
        writer.write(b"te").unwrap();
        assert_eq!((writer.len(), writer.digest()), (2, Digest::of(b"te")));
        drop(writer);
        assert_eq!(layout.blobs().unwrap(), []);
        assert_eq!(fs::read_dir(layout.folder().join("blobs/sha256")).unwrap().count(), 0);
    }

    #[test]
    fn a_tag_names_one_manifest() {
        let (_folder, layout) = layout();
        let entry = |bytes: &[u8], tag| index_entry(MANIFEST_TYPE, bytes, tag);
        layout.add_to_index(vec![entry(b"1", Some("b")), entry(b"1", Some("a")), entry(b"2", None)]).unwrap();
        layout.add_to_index(vec![entry(b"3", Some("a")), entry(b"2", None)]).unwrap();
        let index = layout.index().unwrap();
        let tags: Vec<_> = index.manifests.iter().map(|entry| (tag_of(entry), entry.digest)).collect();
        let digest = Digest::of;
        assert_eq!(tags, [(None, digest(b"2")), (Some("a"), digest(b"3")), (Some("b"), digest(b"1"))]);
        assert_eq!(layout.find_tag("a").unwrap().unwrap().digest, digest(b"3"));
        assert_eq!(layout.find_tag("c").unwrap(), None);
    }

    #[test]
    fn processes_add_to_the_index_one_after_another() {
        let (_folder, layout) = layout();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let layout = &layout;
                scope.spawn(move || {
                    for number in 0..10 {
                        let tag = format!("{thread}-{number}");
                        let entry = index_entry(MANIFEST_TYPE, tag.as_bytes(), Some(&tag));
                        layout.add_to_index(vec![entry]).unwrap();
                    }
                });
            }
        });
        assert_eq!(layout.index().unwrap().manifests.len(), 40);
    }

    #[test]
    fn a_damaged_index_is_an_error_that_says_what_to_do() {
        let (_folder, layout) = layout();
        fs::write(layout.index_path(), "{\"schemaVersion\":2,").unwrap();
        let error = layout.index().unwrap_err().to_string();
        assert!(error.contains("index.json is damaged") && error.contains("load it again"), "{error}");
    }
}
