//! Lists of revoked codecs: signed, numbered, and valid for a time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::escape::one_line_within;
use crate::file::{FileError, read_bounded, read_text, replace_file};
use crate::oci::keys::{PrivateKey, PublicKey};
use crate::oci::layout::Layout;
use crate::oci::manifest::{
    Annotations, Descriptor, EMPTY, EMPTY_TYPE, MANIFEST_TYPE, MAX_MANIFEST_BYTES, Manifest,
};
use crate::oci::repository::ArtifactRepository;
use crate::oci::statement::{
    BUNDLE_TYPE, ClaimKind, REVOCATIONS, bundle, encode_for_signature, is_bundle, parse_bundle, statement,
};
use crate::oci::{Digest, OciError};

/// How long a list may be valid.
pub(crate) const MAX_VALIDITY: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// The tag of a list of revocations in a bundle and in a store.
pub(crate) const REVOCATIONS_TAG: &str = "revocations";

/// How much of what a list says an error repeats, in bytes.
const SHOWN: usize = 300;

/// The file with the newest list of each source, in the store, and its largest size in bytes.
const HISTORY: &str = "revocations.json";
const MAX_HISTORY_BYTES: usize = 64 << 20;

/// A revoked codec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revocation {
    /// Of the component, or of the manifest.
    pub(crate) digest: Digest,
    /// The day.
    pub(crate) since: String,
    pub(crate) reason: String,
    /// What to use instead.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub(crate) replacement: Option<String>,
    /// What later versions do; `refuse` today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) action: Option<String>,
}

/// A list of revoked codecs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RevocationList {
    /// Each list has a higher number than the one before.
    pub(crate) serial: u64,
    /// When it was signed, and until when it is valid.
    pub(crate) issued: String,
    pub(crate) expires: String,
    pub(crate) revoked: Vec<Revocation>,
}

impl RevocationList {
    /// Returns the list after another one, with one more codec or with the same ones. `validity` is at most [`MAX_VALIDITY`].
    pub(crate) fn next(
        before: Option<&Self>,
        revocation: Option<Revocation>,
        now: SystemTime,
        validity: Duration,
    ) -> Self {
        let mut revoked = before.map(|list| list.revoked.clone()).unwrap_or_default();
        if let Some(revocation) = revocation {
            revoked.retain(|known| known.digest != revocation.digest);
            revoked.push(revocation);
            revoked.sort_by_key(|revocation| revocation.digest);
        }
        let time = |time| humantime::format_rfc3339_seconds(time).to_string();
        Self {
            serial: before.map_or(0, |list| list.serial).saturating_add(1),
            issued: time(now),
            expires: time(now + validity.min(MAX_VALIDITY)),
            revoked,
        }
    }

    /// Returns the entry of a codec with one of these digests.
    pub(crate) fn find(&self, digests: &[Digest]) -> Option<&Revocation> {
        self.revoked.iter().find(|revocation| digests.contains(&revocation.digest))
    }

    /// Says since when, why and by which list a codec is revoked, and what to use instead.
    pub(crate) fn describe(&self, revocation: &Revocation) -> String {
        let shown = |text: &str| one_line_within(text, SHOWN).to_string();
        let instead = revocation.replacement.as_ref().map_or_else(
            || "Use another version.".to_owned(),
            |replacement| format!("Use {}.", shown(replacement)),
        );
        format!(
            "it has been revoked since {}, by list {} ({}). {instead}",
            shown(&revocation.since),
            self.serial,
            shown(&revocation.reason)
        )
    }

    /// Fails if the list is too old: beyond its own validity, or older than `max_age`.
    pub(crate) fn check_age(&self, now: SystemTime, max_age: Option<Duration>) -> Result<(), OciError> {
        let parse = |text: &str, what: &str| {
            humantime::parse_rfc3339(text).map_err(|_| {
                OciError::Refused(format!(
                    "cannot check revocations: `{what}` of list {} is no time (2026-11-28T00:00:00Z). Sign the list again.",
                    self.serial
                ))
            })
        };
        let (issued, expires) = (parse(&self.issued, "issued")?, parse(&self.expires, "expires")?);
        let age = now.duration_since(issued).unwrap_or_default();
        if let Some(max_age) = max_age.filter(|max_age| age > *max_age) {
            return Err(OciError::Refused(format!(
                "cannot check revocations: the list is {} old, but may be at most {} old. Get a newer list.",
                days(age),
                days(max_age)
            )));
        }
        if now > expires {
            return Err(OciError::Refused(format!(
                "cannot check revocations: list {} expired on {}. Get a newer list.",
                self.serial, self.expires
            )));
        }
        Ok(())
    }

    /// Signs the list. Returns the contents of its file. Fails if that would be too large to be read again.
    pub(crate) fn sign(&self, key: &PrivateKey) -> Result<Vec<u8>, OciError> {
        // OK because texts and numbers always serialize.
        let predicate = serde_json::to_value(self).expect("serializes");
        // A statement about the codecs would be an approval to programs that look at signatures only.
        let about = Digest::of(predicate.to_string().as_bytes());
        let statement = statement(&about, REVOCATIONS, &predicate, &Annotations::new());
        let signature = key.sign(&encode_for_signature(&statement))?;
        let bytes = bundle(&statement, &signature, key.public().hint());
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(OciError::Refused(format!(
                "cannot write the list of revocations: it would have {} bytes, and the limit is {MAX_MANIFEST_BYTES}. Give shorter \
                 reasons.",
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    /// Reads a list, which one of these keys must have signed; without keys, anybody may have.
    pub(crate) fn parse(bytes: &[u8], keys: Option<&[PublicKey]>) -> Result<Self, OciError> {
        let refuse = |what: &str| {
            OciError::Refused(format!(
                "cannot check revocations: {what}. Get the list from its source again."
            ))
        };
        let signed =
            parse_bundle(bytes).map_err(|reason| refuse(&format!("the list cannot be read ({reason})")))?;
        let is_trusted =
            |keys: &[PublicKey]| keys.iter().any(|key| key.verifies(&signed.signed, &signed.signature));
        if keys.is_some_and(|keys| !is_trusted(keys)) {
            return Err(refuse("the list is not signed by a key that may revoke codecs"));
        }
        let ClaimKind::Revocations(predicate) = signed.claim.kind else {
            return Err(refuse("what was signed is no list of revocations"));
        };
        Self::deserialize(predicate).map_err(|error| {
            refuse(&format!("the list is malformed ({})", one_line_within(&error.to_string(), SHOWN)))
        })
    }
}

/// Shows a time in days, or more exactly if it is short.
fn days(time: Duration) -> String {
    match time.as_secs() / (24 * 3600) {
        0 => humantime::format_duration(Duration::from_secs(time.as_secs())).to_string(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// Reads the file of a list.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, OciError> {
    let limit = usize::try_from(MAX_MANIFEST_BYTES).unwrap_or(usize::MAX);
    read_bounded(path, limit).map_err(FileError::of::<OciError>("read the list of revocations", path))
}

/// Reads the list that a tag names.
pub(crate) async fn pull(repository: &ArtifactRepository, tag: &str) -> Result<Vec<u8>, OciError> {
    let bytes = repository.manifest_of_tag(tag).await?;
    let manifest = Manifest::parse(&bytes).map_err(|error| {
        OciError::Refused(format!("cannot check revocations: {error} (tag {tag}). Check `source`."))
    })?;
    match &manifest.layers[..] {
        [layer] if is_bundle(&layer.media_type) => repository.small_blob(layer).await,
        _ => Err(OciError::Refused(
            "cannot check revocations: the tag names something else than a list. Check `source`.".to_owned(),
        )),
    }
}

/// Stores a list under a tag. Returns the digest of its manifest.
pub(crate) async fn push(
    repository: &ArtifactRepository,
    tag: &str,
    list: &[u8],
) -> Result<Digest, OciError> {
    let mut manifest =
        Manifest::new(Descriptor::of(EMPTY_TYPE, EMPTY), vec![Descriptor::of(BUNDLE_TYPE, list)]);
    manifest.artifact_type = Some(BUNDLE_TYPE.to_owned());
    let bytes = manifest.to_bytes();
    repository.push_blob(EMPTY).await?;
    repository.push_blob(list).await?;
    repository.push_manifest(MANIFEST_TYPE, &bytes, Some(tag)).await?;
    Ok(Digest::of(&bytes))
}

/// The newest list of each source, in the store of the user: an older one is refused, and without the source, this one counts.
#[derive(Debug)]
pub(crate) struct RevocationHistory {
    /// The store; `None` if there is none.
    store: Option<Layout>,
}

/// The newest list of a source.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct HistoryEntry {
    serial: u64,
    /// The file of the list.
    list: Value,
}

impl RevocationHistory {
    pub(crate) fn new(store: Option<Layout>) -> Self {
        Self { store }
    }

    fn read(&self) -> BTreeMap<String, HistoryEntry> {
        let Some(store) = &self.store else { return BTreeMap::new() };
        let path = store.folder().join(HISTORY);
        match read_text(&path, MAX_HISTORY_BYTES) {
            Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| {
                tracing::warn!("{} is damaged, and is written again: {error}", path.display());
                BTreeMap::new()
            }),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!("cannot read {}: {error}", path.display());
                }
                BTreeMap::new()
            }
        }
    }

    /// Returns the newest list of a source.
    pub(crate) fn last(&self, source: &str) -> Option<Vec<u8>> {
        self.read().remove(source).map(|entry| entry.list.to_string().into_bytes())
    }

    /// Fails if a list is older than one that was seen before, or another one with the same number. Otherwise remembers it.
    pub(crate) fn check(&self, source: &str, list: &RevocationList, bytes: &[u8]) -> Result<(), OciError> {
        let entry = self.read().remove(source);
        let known = entry.as_ref().map_or(0, |entry| entry.serial);
        if list.serial < known {
            return Err(OciError::Refused(format!(
                "cannot check revocations: the source provides list {}, which is older than list {known}, which ktables has \
                 already seen. Publish list {known} or a newer one.",
                list.serial
            )));
        }
        // OK to fail: it was parsed before.
        let Ok(value) = serde_json::from_slice(bytes) else { return Ok(()) };
        if entry.is_some_and(|entry| entry.serial == list.serial && entry.list != value) {
            return Err(OciError::Refused(format!(
                "cannot check revocations: the source provides another list {known} than the one that ktables has already seen. \
                 Publish a list with a higher number, which has the codecs of both."
            )));
        }
        let (Some(store), true) = (&self.store, list.serial > known) else { return Ok(()) };
        let entry = HistoryEntry { serial: list.serial, list: value };
        let written = store.lock(|| {
            let mut entries = self.read();
            // Another process may have seen a newer one.
            if entries.get(source).is_none_or(|known| known.serial < entry.serial) {
                entries.insert(source.to_owned(), entry);
            }
            // OK because texts and numbers always serialize.
            let text = serde_json::to_string(&entries).expect("serializes");
            Ok(replace_file(&store.folder().join(HISTORY), text.as_bytes())?)
        });
        if let Err(error) = written {
            tracing::warn!("cannot note the list of revocations: {error}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const DEFAULT_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

    fn revocation(digest: &[u8]) -> Revocation {
        Revocation {
            digest: Digest::of(digest),
            since: "2026-11-27".to_owned(),
            reason: "loses the last field".to_owned(),
            replacement: Some("oci://registry.example/codecs/service:1.4.1".to_owned()),
            action: None,
        }
    }

    fn list() -> RevocationList {
        let now = humantime::parse_rfc3339("2026-11-28T00:00:00Z").unwrap();
        let first = RevocationList::next(None, Some(revocation(b"a")), now, DEFAULT_VALIDITY);
        RevocationList::next(Some(&first), Some(revocation(b"b")), now, DEFAULT_VALIDITY)
    }

    #[test]
    fn a_list_is_signed_and_numbered() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let list = list();
        assert_eq!((list.serial, list.revoked.len(), list.expires.as_str()), (2, 2, "2026-12-28T00:00:00Z"));
        let file = list.sign(&key).unwrap();
        let keys = |key: &PrivateKey| vec![key.public().clone()];
        assert_eq!(RevocationList::parse(&file, Some(&keys(&key))).unwrap(), list);
        let error = RevocationList::parse(&file, Some(&keys(&other))).unwrap_err().to_string();
        assert!(error.contains("not signed by a key that may revoke"), "{error}");
        assert!(RevocationList::parse(b"{}", None).is_err());
    }

    #[test]
    fn a_revoked_codec_is_refused() {
        let list = list();
        let found = list.find(&[Digest::of(b"x"), Digest::of(b"a")]).unwrap();
        assert_eq!(
            list.describe(found),
            "it has been revoked since 2026-11-27, by list 2 (loses the last field). Use \
             oci://registry.example/codecs/service:1.4.1."
        );
        assert_eq!(list.find(&[Digest::of(b"x")]), None);
    }

    #[test]
    fn a_list_becomes_too_old() {
        let at = |text: &str| humantime::parse_rfc3339(text).unwrap();
        let week = Some(Duration::from_secs(7 * 24 * 3600));
        list().check_age(at("2026-12-04T00:00:00Z"), week).unwrap();
        assert_eq!(
            list().check_age(at("2026-12-07T00:00:00Z"), week).unwrap_err().to_string(),
            "cannot check revocations: the list is 9 days old, but may be at most 7 days old. Get a newer list."
        );
        assert!(
            list().check_age(at("2026-12-29T00:00:00Z"), None).unwrap_err().to_string().contains("expired")
        );
    }

    #[test]
    fn an_older_list_is_refused() {
        let folder = TempDir::new().unwrap();
        let history = || RevocationHistory::new(Some(Layout::create(folder.path()).unwrap()));
        let (first, second) =
            (RevocationList { serial: 40, ..list() }, RevocationList { serial: 42, ..list() });
        history().check("source", &second, b"{}").unwrap();
        let seen = history();
        seen.check("source", &second, b"{}").unwrap();
        seen.check("other", &first, b"{}").unwrap();
        assert_eq!(seen.last("source").unwrap(), b"{}");
        assert_eq!(
            seen.check("source", &first, b"{}").unwrap_err().to_string(),
            "cannot check revocations: the source provides list 40, which is older than list 42, which ktables has already seen. \
             Publish list 42 or a newer one."
        );
    }
}
