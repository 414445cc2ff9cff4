//! Compiled components on disk, so that a compilation is paid once a machine.
//!
//! Loading compiled code runs it, so only what this host wrote is loaded: folder and files are
//! this user's alone ([`private`](crate::private)). A file begins with the digest of the rest,
//! which shows damage.

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

/// Bytes of the digest in front of the compiled code.
const DIGEST: usize = 32;

/// The ending of a file that is being written.
const DRAFT: &str = "draft";

/// A draft that is older was left by a process that died.
const DRAFT_AGE: Duration = Duration::from_secs(3600);

/// A private folder of compiled components.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in this folder, which is made if it is not there.
    pub(super) fn open(folder: &Path) -> Result<Self, WasmError> {
        let is_own =
            private::create_folder(folder).map_err(WasmError::io("create the cache folder", folder))?;
        if !is_own {
            let reason = format!(
                "the cache folder {0} is open to other users, so that compiled code in it may be theirs: delete it \
                 (rm -r {0}), it is made again; or name another one with KTABLES_CACHE_DIR",
                folder.display()
            );
            return Err(WasmError::Engine { reason });
        }
        let cache = Self { folder: folder.to_owned() };
        // They are in nobody's way.
        let _ = cache.remove_old_drafts();
        Ok(cache)
    }

    /// The compiled form of the component with this digest, if it is here, ours and whole.
    pub(super) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(engine, digest);
        let bytes = match private::read(&path, DIGEST + MAX_COMPILED_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), "a compiled component is not used: {error}");
                return None;
            }
        };
        let (stored, code) = bytes.split_at_checked(DIGEST)?;
        if stored != Sha256::digest(code).as_slice() {
            tracing::warn!(path = %path.display(), "a compiled component is damaged; compiling it again");
            return None;
        }
        deserialize(engine, code)
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), "cannot use a compiled component: {error:#}"),
            )
            .ok()
    }

    /// Keeps the code of a compiled component. A failure costs time at the next start, no more.
    pub(super) fn store(&self, engine: &Engine, digest: &str, code: &[u8]) {
        let path = self.path(engine, digest);
        if let Err(error) = self.write(&path, code) {
            tracing::warn!(path = %path.display(), "cannot keep a compiled component: {error}");
        }
    }

    fn write(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        // Beside its place and renamed: nobody reads half a file.
        let draft = path.with_extension(format!("{}.{DRAFT}", uuid::Uuid::new_v4().simple()));
        let write = || {
            let mut file = private::create_options().create_new(true).open(&draft)?;
            file.write_all(&Sha256::digest(code))?;
            file.write_all(code)?;
            fs::rename(&draft, path)
        };
        write().inspect_err(|_| {
            // It may not be there.
            let _ = fs::remove_file(&draft);
        })
    }

    fn remove_old_drafts(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == DRAFT) {
                let changed = fs::symlink_metadata(&path)?.modified()?;
                if SystemTime::now().duration_since(changed).is_ok_and(|age| age > DRAFT_AGE) {
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
