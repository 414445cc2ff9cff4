//! The schemas of a registry on the disk, so that records whose schema was fetched once can be decoded while the registry
//! is away.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::private;
use crate::registry::{ResolvedSchema, SchemaAnswer, SchemaQuery};

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: usize = 64 << 20;

/// How many bytes the schemas of a registry may have on the disk.
const MAX_BYTES: u64 = 1 << 30;

/// A file that is written, and older than this, was left behind by a process that died.
const DRAFT_AGE: Duration = Duration::from_secs(3600);

/// A private folder with the schemas of one registry, a file for each.
#[derive(Debug)]
pub(super) struct SchemaFolder {
    folder: PathBuf,
    /// The bytes of its files.
    bytes: AtomicU64,
}

impl SchemaFolder {
    /// Opens the folder of a registry below the folder of all caches, and creates it if it does not exist. Returns `None`,
    /// and says why, if it cannot be used: then the registry is asked after each start.
    pub(super) fn open(caches: &Path, identity: &str) -> Option<Self> {
        let name = hex(identity);
        let folder = caches.join("schemas").join(name);
        match private::create_folder(&folder) {
            Ok(true) => match clean(&folder) {
                Ok(bytes) => Some(Self { folder, bytes: AtomicU64::new(bytes) }),
                Err(error) => {
                    tracing::warn!(
                        "schemas are not kept on the disk: cannot read {}: {error}",
                        folder.display()
                    );
                    None
                }
            },
            Ok(false) => {
                tracing::warn!(
                    "other users have access to {0}, so they may have written the schemas in it: they are not used; \
                     delete the folder (rm -r {0}), and ktables creates it again",
                    folder.display()
                );
                None
            }
            Err(error) => {
                tracing::warn!(
                    "schemas are not kept on the disk: cannot create {}: {error}",
                    folder.display()
                );
                None
            }
        }
    }

    /// Reads an answer that never changes; `None` if it is not there, or cannot be used.
    pub(super) fn load(&self, query: &SchemaQuery) -> Option<SchemaAnswer> {
        let path = self.path(query)?;
        let bytes = match private::read(&path, MAX_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!("cannot read the schema {}: {error}", path.display());
                return None;
            }
        };
        match serde_json::from_slice(&bytes) {
            Ok(schema) => Some(SchemaAnswer::Schema(Arc::new(schema))),
            Err(error) => {
                tracing::warn!("the schema {} is damaged, and asked for again: {error}", path.display());
                // OK to ignore: it is not used.
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Writes an answer that never changes. A failure is only logged: the registry is asked again.
    pub(super) fn store(&self, query: &SchemaQuery, answer: &SchemaAnswer) {
        let Some(path) = self.path(query) else { return };
        let SchemaAnswer::Schema(schema) = answer else { return };
        if path.exists() {
            return;
        }
        if let Err(error) = self.write(&path, schema) {
            tracing::warn!("cannot keep the schema {}: {error}", path.display());
        }
    }

    fn write(&self, path: &Path, schema: &ResolvedSchema) -> io::Result<()> {
        let bytes = serde_json::to_vec(schema)?;
        let len = bytes.len() as u64;
        if self.bytes.fetch_add(len, Ordering::Relaxed) + len > MAX_BYTES || bytes.len() > MAX_FILE_BYTES {
            self.bytes.fetch_sub(len, Ordering::Relaxed);
            return Err(io::Error::other(format!("all schemas would have more than {MAX_BYTES} bytes")));
        }
        // Replaced all at once, so that nobody reads part of a file. Its mode is 0600.
        let mut draft = tempfile::NamedTempFile::new_in(&self.folder)?;
        draft.write_all(&bytes)?;
        draft.as_file().sync_all()?;
        draft.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Returns the file of an answer; `None` if it may change.
    pub(super) fn path(&self, query: &SchemaQuery) -> Option<PathBuf> {
        let name = match query {
            SchemaQuery::Id(id) => format!("id-{id}"),
            SchemaQuery::Guid(guid) => format!("guid-{guid}"),
            SchemaQuery::Latest(_) | SchemaQuery::Version(..) | SchemaQuery::Register(..) => return None,
        };
        Some(self.folder.join(format!("{name}.json")))
    }
}

/// Removes what processes left behind that died. Returns the bytes of the other files.
fn clean(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if entry.path().extension().is_some_and(|extension| extension == "json") {
            bytes += metadata.len();
        } else if metadata.modified()?.elapsed().is_ok_and(|age| age > DRAFT_AGE) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(bytes)
}

/// A digest as the name of a file.
fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::registry::SchemaType;

    #[test]
    fn schemas_are_kept_in_a_private_folder() {
        let caches = tempfile::tempdir().unwrap();
        let folder = SchemaFolder::open(caches.path(), "http://a").unwrap();
        let schema = SchemaAnswer::Schema(Arc::new(ResolvedSchema {
            schema_type: SchemaType::Protobuf,
            text: "x".to_owned(),
            references: vec![("a".to_owned(), "b".to_owned())],
        }));
        let version = SchemaQuery::Version("../x".to_owned(), 2);
        folder.store(&SchemaQuery::Id(1), &schema);
        folder.store(&version, &SchemaAnswer::Version { version: 2, id: 1 });
        assert_eq!(std::fs::read_dir(&folder.folder).unwrap().count(), 1, "a version may change");
        let again = SchemaFolder::open(caches.path(), "http://a").unwrap();
        assert_eq!(again.load(&SchemaQuery::Id(1)), Some(schema));
        assert_eq!(again.load(&SchemaQuery::Id(2)), None);
        let other = SchemaFolder::open(caches.path(), "http://b").unwrap();
        assert_eq!(other.load(&SchemaQuery::Id(1)), None, "another registry has other ids");

        let path = folder.path(&SchemaQuery::Id(1)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(again.load(&SchemaQuery::Id(1)), None, "it is damaged");
        std::fs::set_permissions(&folder.folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(SchemaFolder::open(caches.path(), "http://a").is_none(), "others may have written it");
    }
}
