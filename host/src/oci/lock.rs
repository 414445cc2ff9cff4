//! `ktables.lock`: which manifest and which component each reference with a tag stands for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::file::{FileError, read_text, replace_file};
use crate::oci::{Digest, OciError, Reference};

/// The name of the file, beside the configuration.
const NAME: &str = "ktables.lock";

/// The largest file that is read, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// What the file says about itself.
const HEADER: &str = "# Written by `ktables codec lock`. Commit it with the configuration.\n";

/// A reference, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LockedCodec {
    /// The reference without a digest.
    pub(crate) reference: String,
    pub(crate) manifest: Digest,
    pub(crate) component: Digest,
    /// The length of the component in bytes.
    pub(crate) size: u64,
    /// The version of the WIT package that the component was built against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wit: Option<String>,
}

/// The contents of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    #[serde(default, rename = "codec")]
    codecs: Vec<LockedCodec>,
}

/// The lock file of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockFile {
    path: PathBuf,
    /// By reference.
    pub(crate) codecs: BTreeMap<String, LockedCodec>,
}

impl LockFile {
    /// Returns the path of the lock file beside a configuration.
    pub(crate) fn path_beside(config: &Path) -> PathBuf {
        config.with_file_name(NAME)
    }

    /// Reads a lock file. One that does not exist has no entries.
    pub(crate) fn read(path: &Path) -> Result<Self, OciError> {
        let codecs = match read_text(path, MAX_BYTES) {
            Ok(text) => Self::parse(&text).map_err(|reason| {
                let reason = reason.trim_end_matches('.');
                OciError::Usage(format!(
                    "cannot read {}: {reason}. Delete the file, and run `ktables codec lock`.",
                    path.display()
                ))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(FileError::of::<OciError>("read", path)(error)),
        };
        Ok(Self { path: path.to_owned(), codecs })
    }

    pub(super) fn parse(text: &str) -> Result<BTreeMap<String, LockedCodec>, String> {
        let contents: Contents = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if contents.version != 1 {
            return Err(format!("its version is {}, and this program knows version 1", contents.version));
        }
        let mut codecs = BTreeMap::new();
        for codec in contents.codecs {
            let reference: Reference =
                codec.reference.parse().map_err(|error: OciError| error.to_string())?;
            if reference.digest.is_some() || reference.tag.is_none() {
                return Err(format!("`{reference}` must have a tag, and no digest"));
            }
            if let Some(twice) = codecs.insert(codec.reference.clone(), codec) {
                return Err(format!("it has two entries for `{}`", twice.reference));
            }
        }
        Ok(codecs)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the text of the file: sorted, and without times.
    pub(crate) fn to_text(&self) -> String {
        let contents = Contents { version: 1, codecs: self.codecs.values().cloned().collect() };
        // OK because texts and numbers always serialize.
        format!("{HEADER}{}", toml::to_string(&contents).expect("serializes"))
    }

    /// Writes the file.
    pub(crate) fn write(&self) -> Result<(), OciError> {
        Ok(replace_file(&self.path, self.to_text().as_bytes())?)
    }

    /// Returns the entry of a reference.
    pub(crate) fn get(&self, reference: &Reference) -> Option<&LockedCodec> {
        self.codecs.get(&reference.without_digest().to_string())
    }

    /// Fails if a component is another one than the entry of its reference says.
    pub(crate) fn check(&self, reference: &Reference, component: Digest, size: u64) -> Result<(), OciError> {
        match self.get(reference) {
            Some(locked) if (locked.component, locked.size) != (component, size) => {
                Err(OciError::Refused(format!(
                    "cannot use the codec: {NAME} has component {} of {} bytes, but manifest {} has component {component} of {size} \
                 bytes. Somebody has changed the file by hand: run `ktables codec lock --update`.",
                    locked.component, locked.size, locked.manifest
                )))
            }
            _ => Ok(()),
        }
    }

    /// Returns the digest of the manifest that a reference stands for. `codec` is the name of the codec, for the advice.
    pub(crate) fn resolve(&self, reference: &Reference, codec: Option<&str>) -> Result<Digest, OciError> {
        let locked = self.get(reference).map(|entry| entry.manifest);
        match (reference.digest, locked) {
            (Some(digest), Some(locked)) if digest != locked => {
                let name = codec.map_or_else(String::new, |name| format!(" {name}"));
                Err(OciError::Usage(format!(
                    "cannot resolve the reference: it has digest {digest}, but {NAME} has {locked}. To lock the reference's \
                     digest, run `ktables codec lock --update{name}`."
                )))
            }
            (Some(digest), _) | (None, Some(digest)) => Ok(digest),
            (None, None) if reference.tag.is_none() => Err(OciError::Usage(
                "cannot resolve the reference: it names neither a tag nor a digest. Write the digest into the reference \
                 (…@sha256:…)."
                    .to_owned(),
            )),
            (None, None) => Err(OciError::Usage(format!(
                "cannot resolve the reference: it names a tag, which may move, and {NAME} has no digest for it. Run `ktables codec \
                 lock`, or write the digest into the reference (…@sha256:…)."
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(reference: &str, manifest: &[u8]) -> LockedCodec {
        let (manifest, component) = (Digest::of(manifest), Digest::of(b"component"));
        LockedCodec { reference: reference.to_owned(), manifest, component, size: 9, wit: None }
    }

    fn lock_file(codecs: &[LockedCodec]) -> LockFile {
        let codecs = codecs.iter().map(|codec| (codec.reference.clone(), codec.clone()));
        LockFile { path: "ktables.lock".into(), codecs: codecs.collect() }
    }

    #[test]
    fn a_lock_file_is_sorted_and_read_as_it_was_written() {
        let (a, b) = (locked("oci://x.y/a:1", b"a"), locked("oci://x.y/b:1", b"b"));
        let file = lock_file(&[b.clone(), a.clone()]);
        assert_eq!(file.to_text(), lock_file(&[a, b]).to_text());
        assert_eq!(LockFile::parse(&file.to_text()).unwrap(), file.codecs);
    }

    #[test]
    fn references_are_resolved_without_a_network() {
        let file = lock_file(&[locked("oci://x.y/a:1", b"a")]);
        let (digest, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let resolve = |text: &str| file.resolve(&text.parse().unwrap(), Some("service"));
        assert_eq!(resolve("oci://x.y/a:1").unwrap(), digest);
        assert_eq!(resolve(&format!("oci://x.y/a:1@{digest}")).unwrap(), digest);
        assert_eq!(resolve(&format!("oci://x.y/c@{other}")).unwrap(), other);
        assert_eq!(
            resolve("oci://x.y/a:2").unwrap_err().to_string(),
            "cannot resolve the reference: it names a tag, which may move, and ktables.lock has no digest for it. Run `ktables \
             codec lock`, or write the digest into the reference (…@sha256:…)."
        );
        assert_eq!(
            resolve(&format!("oci://x.y/a:1@{other}")).unwrap_err().to_string(),
            format!(
                "cannot resolve the reference: it has digest {other}, but ktables.lock has {digest}. To lock the reference's \
                 digest, run `ktables codec lock --update service`."
            )
        );
        assert!(resolve("oci://x.y/a").unwrap_err().to_string().contains("neither a tag nor a digest"));
    }

    #[test]
    fn malformed_lock_files_are_refused() {
        let good = lock_file(&[locked("oci://x.y/a:1", b"a")]).to_text();
        let entry = good.split("[[codec]]").nth(1).unwrap();
        for (text, reason) in [
            (good.replace("version = 1", "version = 2"), "version is 2"),
            (good.replace("size", "length"), "unknown field"),
            (good.replace("x.y/a:1", "x.y/a"), "must have a tag"),
            (good.replace("oci://x.y", "oci://x"), "names no registry"),
            (format!("{good}[[codec]]{entry}"), "two entries"),
            (good.replace("sha256:", "sha512:"), "sha512 is not supported"),
            ("[".to_owned(), ""),
        ] {
            let error = LockFile::parse(&text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
