//! Compiled components on disk, so that a compilation is paid once a machine.
//!
//! Loading compiled code runs it, so only what this host wrote is loaded: the
//! folder belongs to this user and is closed to others, and each file begins with
//! the digest of the rest.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::wasm::WasmError;

/// Bytes of the digest in front of the compiled code.
const DIGEST: usize = 32;

/// A private folder of compiled components.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in this folder, which is made if it is not there.
    pub(super) fn open(folder: &Path) -> Result<Self, WasmError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(WasmError::io("create the cache folder", folder))?;
        let metadata = fs::metadata(folder).map_err(WasmError::io("look at", folder))?;
        let mine = rustix::process::geteuid().as_raw();
        if metadata.uid() != mine || metadata.mode() & 0o077 != 0 {
            let reason = format!(
                "the cache folder {} is open to other users: make it private (chmod 700), or name another one",
                folder.display()
            );
            return Err(WasmError::Engine { reason });
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The compiled form of the component with this digest, if it is here and
    /// whole.
    pub(super) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(engine, digest);
        let bytes = fs::read(&path).ok()?;
        let (stored, code) = bytes.split_at_checked(DIGEST)?;
        if stored != Sha256::digest(code).as_slice() {
            tracing::warn!(path = %path.display(), "a compiled component is damaged; compiling it again");
            return None;
        }
        #[allow(unsafe_code, reason = "loading ahead-of-time compiled code is how wasmtime caches it")]
        // SAFETY: the bytes are what `store` wrote (the digest says so), into a
        // folder that only this user can write to (`open` says so), and for an
        // engine of this configuration (the file's name says so).
        let component = unsafe { Component::deserialize(engine, code) };
        component
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), "cannot use a compiled component: {error:#}"),
            )
            .ok()
    }

    /// Keeps a compiled component. A failure costs time at the next start, no
    /// more.
    pub(super) fn store(&self, engine: &Engine, digest: &str, component: &Component) {
        let path = self.path(engine, digest);
        if let Err(error) = self.write(&path, component) {
            tracing::warn!(path = %path.display(), "cannot keep a compiled component: {error}");
        }
    }

    fn write(&self, path: &Path, component: &Component) -> Result<(), Box<dyn std::error::Error>> {
        let code = component.serialize()?;
        // Beside its place and renamed: nobody reads half a file.
        let draft = path.with_extension(format!("{}.draft", std::process::id()));
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&Sha256::digest(&code))?;
        file.write_all(&code)?;
        fs::rename(&draft, path)?;
        Ok(())
    }

    fn path(&self, engine: &Engine, digest: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let digest = digest.trim_start_matches("sha256:");
        self.folder.join(format!("{digest}-{:016x}.cwasm", hasher.finish()))
    }
}
