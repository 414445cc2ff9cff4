//! Folders and files that only this user can change, so that their contents can be trusted.
//!
//! A folder that is private now may not have been private before. So each file is checked, too: it must
//! belong to this user or to root, nobody else may have the right to write to it, and it must not be a
//! symbolic link.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::file::read_open;

/// The mode bits that give anybody but the owner access.
const OTHERS_ACCESS: u32 = 0o077;

/// The mode bits that let anybody but the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// Creates a folder if it does not exist. Returns whether the folder is private: it belongs to this user, and
/// nobody else has access.
pub(crate) fn create_folder(folder: &Path) -> io::Result<bool> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let metadata = fs::metadata(folder)?;
    Ok(metadata.uid() == current_user() && metadata.mode() & OTHERS_ACCESS == 0)
}

/// Creates a folder if it does not exist. If it belongs to this user, and nobody else can have put anything
/// into it, takes away the access of others. Returns whether the folder is private then.
pub(crate) fn claim_folder(folder: &Path) -> io::Result<bool> {
    if create_folder(folder)? {
        return Ok(true);
    }
    let metadata = fs::metadata(folder)?;
    let is_untouched = metadata.mode() & OTHERS_WRITE == 0 || fs::read_dir(folder)?.next().is_none();
    if metadata.uid() != current_user() || !is_untouched {
        return Ok(false);
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    Ok(true)
}

/// Returns the options for creating a file that only this user can read and write.
pub(crate) fn create_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // NONBLOCK, because opening a FIFO would wait for its reader.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.write(true).create(true).mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

/// Opens a file for reading. It must belong to this user or to root, and nobody else may have the right to
/// write to it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // NONBLOCK, because opening a FIFO would wait for its writer.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if ![current_user(), 0].contains(&metadata.uid()) || metadata.mode() & OTHERS_WRITE != 0 {
        let reason = "the file belongs to another user, or other users can write to it: delete it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    Ok(file)
}

/// Opens a file like [`open`], and reads it. A file of more than `limit` bytes is an error.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_open(open(path)?, limit)
}

/// Returns the id of the user that this process runs as.
fn current_user() -> u32 {
    rustix::process::geteuid().as_raw()
}
