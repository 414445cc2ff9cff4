//! Reads files that other users may have created or replaced, and replaces files atomically. Defines the error
//! of all file operations.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file or folder could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
#[non_exhaustive]
pub struct FileError {
    /// What was being done: a verb, and a preposition if it needs one.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The error of the operating system.
    pub source: Arc<io::Error>,
}

impl FileError {
    /// Returns a function for `map_err` after a call to the file system.
    pub(crate) fn of<E: From<Self>>(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> E {
        move |source| E::from(Self { action, path: path.to_owned(), source: Arc::new(source) })
    }
}

/// `O_NONBLOCK` as Linux and macOS define it: opening a FIFO does not wait for its writer.
#[cfg(target_os = "linux")]
const O_NONBLOCK: i32 = 0o4000;
#[cfg(not(target_os = "linux"))]
const O_NONBLOCK: i32 = 0x4;

/// Opens a regular file. Anything else is an error; a FIFO does not make it wait for the other end.
pub(crate) fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(not_a_regular_file());
    }
    Ok(file)
}

fn not_a_regular_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Reads a regular file of at most `limit` bytes. Directories, FIFOs and devices are an error, and nothing is
/// read from them. A larger file is an error before memory is allocated for it.
pub(crate) fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_open(open_regular(OpenOptions::new().read(true), path)?, limit)
}

/// Reads a file that is open already, with the same checks as [`read_bounded`].
pub(crate) fn read_open(file: File, limit: usize) -> io::Result<Vec<u8>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(not_a_regular_file());
    }
    let too_large = |len: u64| {
        let reason = format!("the file has at least {len} bytes, and the limit is {limit}");
        io::Error::new(io::ErrorKind::FileTooLarge, reason)
    };
    if metadata.len() > limit as u64 {
        return Err(too_large(metadata.len()));
    }
    // OK because the length is at most `limit`.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(limit));
    file.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    // The file may have grown since, and files of /proc report a length of 0.
    if bytes.len() > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Reads a file of UTF-8 text like [`read_bounded`]. Other contents are an error.
#[cfg(feature = "cli")]
pub(crate) fn read_text(path: &Path, limit: usize) -> io::Result<String> {
    String::from_utf8(read_bounded(path, limit)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))
}

/// Replaces a file at once, or creates it.
#[cfg(feature = "cli")]
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    use std::io::Write;
    let replace = || {
        let mut file = Replacement::new(path)?;
        file.write_all(bytes)?;
        file.persist()
    };
    replace().map_err(FileError::of("write", path))
}

/// The new contents of a file. They replace it all at once when they are complete; until then, the file is
/// unchanged.
#[cfg(feature = "cli")]
pub(crate) struct Replacement {
    draft: tempfile::NamedTempFile,
    path: PathBuf,
}

#[cfg(feature = "cli")]
impl Replacement {
    /// Begins to write the contents, in the folder of the file. If the file exists, it must be a regular one,
    /// and keeps its mode.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        // A symbolic link stays, and the file that it leads to is replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // Like any file that a command writes: the umask decides who may read it.
        let permissions = std::fs::Permissions::from_mode(0o666);
        let draft = tempfile::Builder::new()
            .permissions(permissions)
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        match std::fs::metadata(&path) {
            Ok(existing) if !existing.is_file() => return Err(not_a_regular_file()),
            Ok(existing) => draft.as_file().set_permissions(existing.permissions())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Self { draft, path })
    }

    /// Replaces the file, once the contents are on the disk.
    pub(crate) fn persist(self) -> io::Result<()> {
        self.draft.as_file().sync_all()?;
        self.draft.persist(self.path).map(drop).map_err(|error| error.error)
    }
}

#[cfg(feature = "cli")]
impl io::Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.draft.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.draft.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "cli")]
    #[test]
    fn a_file_is_replaced_when_its_new_contents_are_complete() {
        use std::io::Write;
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::TempDir::new().unwrap();
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        std::fs::write(&path, "old").unwrap();
        let mut replacement = Replacement::new(&path).unwrap();
        write!(replacement, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        replacement.persist().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        std::fs::write(&other, "").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&other), "others may read it like any new file");
        drop(Replacement::new(&path).unwrap());
        // A link stays, and the file keeps its mode.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Replacement::new(&link).unwrap().persist().unwrap();
        assert!(link.is_symlink() && std::fs::read_to_string(&path).unwrap().is_empty());
        assert_eq!(mode(&path) & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left behind");
        assert!(Replacement::new(folder.path()).is_err(), "not a regular file");
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        assert_eq!(read_bounded(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        // A sparse file: its size is checked before it is read.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read_bounded(&path, 1 << 20).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        for special in [Path::new("/dev/zero"), folder.path()] {
            assert_eq!(read_bounded(special, 5).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert_eq!(read_bounded(&fifo, 5).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
