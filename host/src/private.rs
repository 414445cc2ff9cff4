//! Folders and files that are only this user's: what is read from them is trusted.
//!
//! That a folder is closed to others now does not say that it always was. So each file must
//! belong to this user, or to root, must be writable by no other, and must be no link.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::file::read_open;

/// Access for others than the owner, and the right to write of others than the owner.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;

/// Makes a folder if it is not there; true if it is this user's alone.
pub(crate) fn create_folder(folder: &Path) -> io::Result<bool> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let metadata = fs::metadata(folder)?;
    Ok(metadata.uid() == own_id() && metadata.mode() & OTHERS == 0)
}

/// Makes a folder if it is not there, and closes it to others if it is this user's and nobody else
/// can have put anything into it; true if it is this user's alone then.
pub(crate) fn claim_folder(folder: &Path) -> io::Result<bool> {
    if create_folder(folder)? {
        return Ok(true);
    }
    let metadata = fs::metadata(folder)?;
    let is_untouched = metadata.mode() & OTHERS_WRITE == 0 || fs::read_dir(folder)?.next().is_none();
    if metadata.uid() != own_id() || !is_untouched {
        return Ok(false);
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    Ok(true)
}

/// How a file is created that only this user reads and writes.
pub(crate) fn create_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Without waiting for the reader of a FIFO.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.write(true).create(true).mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

/// Opens a file that only its owner, who is this user or root, can have written.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Without waiting for the writer of a FIFO.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    if ![own_id(), 0].contains(&metadata.uid()) || metadata.mode() & OTHERS_WRITE != 0 {
        let reason = "it belongs to another user, or others can write to it: delete it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    Ok(file)
}

/// Reads such a file, of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_open(open(path)?, limit)
}

fn own_id() -> u32 {
    rustix::process::geteuid().as_raw()
}
