//! Layouts as tar archives.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Component, Path};

use tar::{Archive, Builder, EntryType, Header};

use crate::file::FileError;
use crate::oci::layout::{Layout, tag_of};
use crate::oci::manifest::{Index, MAX_COMPONENT_BYTES, MAX_MANIFEST_BYTES};
use crate::oci::{Digest, OciError};

/// The most entries of an archive.
const MAX_ENTRIES: usize = 100_000;

/// The most bytes in all blobs of an archive.
const MAX_TOTAL_BYTES: u64 = 4 << 30;

/// The files of a layout beside its blobs, in the order in which they are written.
const FILES: [&str; 3] = ["oci-layout", "index.json", "ktables.lock"];

/// Writes a layout as an archive. The same layout results in the same bytes.
pub(crate) fn write_tar(folder: &Path, out: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(out);
    let mut add = |name: &str, path: &Path| {
        let bytes = fs::read(path)?;
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_mtime(0);
        archive.append_data(&mut header, name, &bytes[..])
    };
    for name in FILES {
        let path = folder.join(name);
        if path.exists() {
            add(name, &path)?;
        }
    }
    let blobs = Layout::open(folder).blobs().map_err(|error| io::Error::other(error.to_string()))?;
    for digest in blobs {
        let name = format!("blobs/sha256/{}", digest.hex());
        add(&name, &folder.join(&name))?;
    }
    archive.into_inner()?.flush()
}

/// Reads an archive into an empty layout. Only regular files of a layout are accepted, and blobs only with their digests.
// Long because each kind of entry is refused for a reason of its own.
pub(crate) fn read_tar(archive: impl Read, layout: &Layout) -> Result<(), OciError> {
    let refuse =
        |what: String| OciError::Refused(format!("cannot load the bundle: {what}. Copy the bundle again."));
    let malformed = |error: io::Error| refuse(format!("the archive is malformed ({error})"));
    let (mut entries, mut total, mut index) = (0, 0, None);
    for entry in Archive::new(archive).entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(refuse(format!("the archive has more than {MAX_ENTRIES} entries")));
        }
        let path = entry.path().map_err(malformed)?.into_owned();
        let shown = crate::escape::one_line_within(&path.display().to_string(), 200).to_string();
        let is_inside =
            path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        match entry.header().entry_type() {
            EntryType::Directory if is_inside => continue,
            EntryType::Regular | EntryType::Continuous if is_inside => {}
            EntryType::Directory | EntryType::Regular | EntryType::Continuous => {
                return Err(refuse(format!("the archive has a file outside of its folder: {shown}")));
            }
            _ => return Err(refuse(format!("the archive has something else than files: {shown}"))),
        }
        let size = entry.size();
        total += size;
        if total > MAX_TOTAL_BYTES {
            return Err(refuse(format!("its files have more than {MAX_TOTAL_BYTES} bytes")));
        }
        let parts: Vec<&str> = path
            .components()
            .filter_map(|part| match part {
                Component::Normal(part) => part.to_str(),
                _ => None,
            })
            .collect();
        match parts[..] {
            ["blobs", "sha256", hex] => {
                let digest: Digest = format!("sha256:{hex}")
                    .parse()
                    .map_err(|_| refuse(format!("the name of a blob is no digest: {shown}")))?;
                read_blob(&mut entry, size, &digest, layout)?;
            }
            ["index.json"] => {
                if size > MAX_MANIFEST_BYTES {
                    return Err(refuse(format!(
                        "index.json has {size} bytes, and the limit is {MAX_MANIFEST_BYTES}"
                    )));
                }
                let mut bytes = Vec::new();
                entry.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes).map_err(malformed)?;
                index = Some(Index::parse(&bytes).map_err(|error| refuse(error.to_string()))?);
            }
            // The layout has its own marker, and the lock file is for people.
            _ => {}
        }
    }
    let Some(index) = index else { return Err(refuse("the archive has no index.json".to_owned())) };
    let tagged = index.manifests.iter().filter(|entry| tag_of(entry).is_some()).count();
    tracing::debug!("the bundle has {} manifests, {tagged} with a tag", index.manifests.len());
    layout.add_to_index(index.manifests)
}

fn read_blob(entry: &mut impl Read, size: u64, digest: &Digest, layout: &Layout) -> Result<(), OciError> {
    if size > MAX_COMPONENT_BYTES {
        return Err(OciError::Refused(format!(
            "cannot load the bundle: blob {digest} has {size} bytes, and the limit is {MAX_COMPONENT_BYTES}. Leave it out."
        )));
    }
    let mut writer = layout.begin_blob()?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = entry.read(&mut buffer).map_err(FileError::of::<OciError>("read", layout.folder()))?;
        if count == 0 {
            break;
        }
        writer.write(&buffer[..count])?;
    }
    if writer.digest() != *digest || writer.len() != size {
        return Err(OciError::Refused(format!(
            "cannot load the bundle: blob {digest} is damaged. Copy the bundle again."
        )));
    }
    writer.persist().map(drop)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::oci::layout::index_entry;
    use crate::oci::manifest::MANIFEST_TYPE;

    fn layout() -> (TempDir, Layout) {
        let folder = TempDir::new().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        (folder, layout)
    }

    fn read(archive: &[u8]) -> Result<(TempDir, Layout), String> {
        let (folder, layout) = layout();
        read_tar(archive, &layout).map_err(|error| error.to_string())?;
        Ok((folder, layout))
    }

    /// An archive with one entry.
    fn archive(name: &str, kind: EntryType, bytes: &[u8]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        let mut header = Header::new_old();
        // The crate refuses such names when it writes them.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        archive.append(&header, bytes).unwrap();
        archive.into_inner().unwrap()
    }

    #[test]
    fn an_archive_is_read_as_it_was_written() {
        let (folder, first) = layout();
        let digest = first.write_blob(b"text").unwrap();
        first.add_to_index(vec![index_entry(MANIFEST_TYPE, b"text", Some("1.0"))]).unwrap();
        let write = || {
            let mut bytes = Vec::new();
            write_tar(folder.path(), &mut bytes).unwrap();
            bytes
        };
        assert_eq!(write(), write(), "the same layout, the same bytes");
        let (_folder, second) = read(&write()).unwrap();
        assert_eq!(second.blobs().unwrap(), [digest]);
        assert_eq!(second.index().unwrap(), first.index().unwrap());
    }

    #[test]
    fn hostile_archives_are_refused() {
        let blob = format!("blobs/sha256/{}", Digest::of(b"text").hex());
        for (name, kind, bytes, reason) in [
            ("../escape", EntryType::Regular, &b"x"[..], "outside of its folder"),
            ("/etc/passwd", EntryType::Regular, b"x", "outside of its folder"),
            ("link", EntryType::Symlink, b"", "something else than files"),
            ("link", EntryType::Link, b"", "something else than files"),
            ("fifo", EntryType::Fifo, b"", "something else than files"),
            ("blobs/sha256/../../x", EntryType::Regular, b"x", "outside of its folder"),
            ("blobs/sha256/short", EntryType::Regular, b"x", "is no digest"),
            (&blob, EntryType::Regular, b"other", "is damaged"),
            ("index.json", EntryType::Regular, b"{", "the index is malformed"),
            ("other", EntryType::Regular, b"x", "no index.json"),
        ] {
            let error = read(&archive(name, kind, bytes)).map(drop).unwrap_err();
            assert!(error.contains(reason), "{name}: {error}");
        }
        for bytes in [&b""[..], b"nonsense", &[0xff; 2_000]] {
            assert!(read(bytes).is_err());
        }
        let mut truncated = archive("index.json", EntryType::Regular, &[b' '; 600]);
        truncated.truncate(700);
        assert!(read(&truncated).is_err());
    }
}
