//! Compiled components on disk, so that each machine compiles a component once.
//!
//! Compiled code runs unchecked, so only files that this host wrote are loaded: only this user has access
//! to the folder and its files ([`private`](crate::private)). A file begins with the digest of the rest, to
//! detect damage.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::private;
use crate::wasm::compiled::{MAX_COMPILED_BYTES, deserialize, engine_hash};
use crate::wasm::error::WasmError;

/// The bytes of the digest before the compiled code.
const DIGEST_BYTES: usize = 32;

/// The extension of a file that is still being written.
const DRAFT_EXTENSION: &str = "draft";

/// A draft that is older than this was left behind by a process that died.
const DRAFT_AGE: Duration = Duration::from_secs(3600);

/// A private folder of compiled components.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Opens the cache in this folder, and creates the folder if it does not exist. Fails if other users have
    /// access to it.
    pub(super) fn open(folder: &Path) -> Result<Self, WasmError> {
        let is_private =
            private::create_folder(folder).map_err(WasmError::io("create the cache folder", folder))?;
        if !is_private {
            let reason = format!(
                "other users have access to the cache folder {0}, so they may have written the code in it: \
                 delete it (rm -r {0}), and ktables creates it again; or set KTABLES_CACHE_DIR to another \
                 folder",
                folder.display()
            );
            return Err(WasmError::Engine { reason });
        }
        let cache = Self { folder: folder.to_owned() };
        // OK to ignore: old drafts only use space.
        let _ = cache.remove_old_drafts();
        Ok(cache)
    }

    /// Loads the compiled component with this digest. Returns `None` if the cache does not have it, if other
    /// users could have written it, or if it is damaged.
    pub(super) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(engine, digest);
        let bytes = match private::read(&path, DIGEST_BYTES + MAX_COMPILED_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), "cannot read a cached component: {error}");
                return None;
            }
        };
        let (stored, code) = bytes.split_at_checked(DIGEST_BYTES)?;
        if stored != Sha256::digest(code).as_slice() {
            tracing::warn!(path = %path.display(), "a cached component is damaged; compiling it again");
            return None;
        }
        deserialize(engine, code)
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), "cannot use a cached component: {error:#}"),
            )
            .ok()
    }

    /// Writes the code of a compiled component. A failure is only logged: the next load compiles again.
    pub(super) fn store(&self, engine: &Engine, digest: &str, code: &[u8]) {
        let path = self.path(engine, digest);
        if let Err(error) = self.write(&path, code) {
            tracing::warn!(path = %path.display(), "cannot write a compiled component to the cache: {error}");
        }
    }

    fn write(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        // Written to a draft and renamed, so that nobody reads part of a file.
        let draft = path.with_extension(format!("{}.{DRAFT_EXTENSION}", uuid::Uuid::new_v4().simple()));
        let write = || {
            let mut file = private::create_options().create_new(true).open(&draft)?;
            file.write_all(&Sha256::digest(code))?;
            file.write_all(code)?;
            fs::rename(&draft, path)
        };
        write().inspect_err(|_| {
            // OK to ignore: the draft may not exist.
            let _ = fs::remove_file(&draft);
        })
    }

    fn remove_old_drafts(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == DRAFT_EXTENSION) {
                let modified = fs::symlink_metadata(&path)?.modified()?;
                if SystemTime::now().duration_since(modified).is_ok_and(|age| age > DRAFT_AGE) {
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    fn path(&self, engine: &Engine, digest: &str) -> PathBuf {
        let digest = digest.trim_start_matches("sha256:");
        self.folder.join(format!("{digest}-{}.cwasm", engine_hash(engine)))
    }
}
