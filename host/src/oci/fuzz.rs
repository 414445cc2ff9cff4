//! What the fuzz targets call.

use std::path::Path;

use tempfile::TempDir;

use crate::oci::archive::read_tar;
use crate::oci::credentials::check_auth_file;
use crate::oci::layout::Layout;
use crate::oci::lock::LockFile;
use crate::oci::manifest::{CodecManifest, Index, Manifest};
use crate::oci::policy::check_policy;
use crate::oci::revocation::RevocationList;
use crate::oci::statement::{parse_bundle, parse_payload};
use crate::oci::{Reference, Repository};

/// Reads a reference. What is printed means the same.
pub(crate) fn reference(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().ok(), Some(reference));
    }
}

/// Reads a manifest and an index.
pub(crate) fn artifact(bytes: &[u8]) {
    // OK to ignore: most of the bytes are malformed. They must not make a parser panic.
    let _ = CodecManifest::parse(bytes);
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert_eq!(Manifest::parse(&manifest.to_bytes()).ok(), Some(manifest));
    }
    if let Ok(index) = Index::parse(bytes) {
        assert_eq!(Index::parse(&index.to_bytes()).ok(), Some(index));
    }
}

/// Reads the payload of a signature, a bundle, and a list of revocations.
pub(crate) fn signature(bytes: &[u8]) {
    // OK to ignore: most of the bytes are malformed. They must not make a parser panic.
    let _ = (parse_payload(bytes), parse_bundle(bytes), RevocationList::parse(bytes, None));
}

/// Reads a file with credentials.
pub(crate) fn credentials(bytes: &[u8]) {
    let repository = Repository { host: "registry.example".to_owned(), name: "a/b".to_owned() };
    check_auth_file(bytes, Path::new("config.json"), &repository);
}

/// Reads a policy and a lock file.
pub(crate) fn policy(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    check_policy(&text);
    // OK to ignore: the text may be valid or not.
    let _ = LockFile::parse(&text);
}

/// Reads an archive with a layout.
pub(crate) fn archive(bytes: &[u8]) {
    let Ok(folder) = TempDir::new() else { return };
    if let Ok(layout) = Layout::create(folder.path()) {
        // OK to ignore: most of the bytes are malformed. They must not make a parser panic.
        let _ = read_tar(bytes, &layout);
    }
}
