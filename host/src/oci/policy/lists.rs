//! The lists of revocations that policies name.

use std::path::Path;
use std::time::SystemTime;

use crate::oci::keys::PublicKey;
use crate::oci::policy::file::{PolicyFile, RevocationsSection, WhenRevoked, WhenStale};
use crate::oci::revocation::{self, RevocationList};
use crate::oci::store::CodecSources;
use crate::oci::{Digest, Location, OciError, Reference};

/// The lists of revocations of all policies, as far as they could be read.
#[derive(Debug, Default)]
pub(crate) struct RevocationLists {
    lists: Vec<ReadList>,
}

#[derive(Debug)]
struct ReadList {
    list: Result<RevocationList, OciError>,
    running: WhenRevoked,
    /// Whether no codec may be loaded without the list.
    is_required: bool,
}

/// A codec that is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevokedCodec {
    /// What a table does that runs it.
    pub(crate) running: WhenRevoked,
    /// Since when, why, by which list, and what to use instead.
    pub(crate) reason: String,
}

impl RevocationLists {
    /// Adds the list of a policy.
    pub(super) fn add(&mut self, section: &RevocationsSection, list: Result<RevocationList, OciError>) {
        let is_required = section.when_stale == WhenStale::Refuse;
        self.lists.push(ReadList { list, running: section.running, is_required });
    }

    /// The lists of policies that cannot be read.
    pub(crate) fn unknown(reason: String) -> Self {
        let list = Err(OciError::Failed(reason));
        Self { lists: vec![ReadList { list, running: WhenRevoked::Warn, is_required: false }] }
    }

    /// Whether there is no list.
    pub(crate) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// Whether every list could be read, so that what is on none is not revoked.
    pub(crate) fn is_complete(&self) -> bool {
        self.lists.iter().all(|read| read.list.is_ok())
    }

    /// Returns the strictest revocation of a codec with one of these digests, of a manifest or of a component.
    pub(crate) fn find(&self, digests: &[Digest]) -> Option<RevokedCodec> {
        let found = self.lists.iter().filter_map(|ReadList { list, running, .. }| {
            let list = list.as_ref().ok()?;
            Some(RevokedCodec { running: *running, reason: list.describe(list.find(digests)?) })
        });
        found.max_by_key(|revoked| revoked.running)
    }

    /// Fails if a codec with one of these digests is revoked, or if a list is missing without which none may be loaded.
    pub(super) fn check(&self, digests: &[Digest]) -> Result<(), OciError> {
        if let Some(revoked) = self.find(digests) {
            return Err(OciError::Refused(format!("cannot use the codec: {}", revoked.reason)));
        }
        match self.lists.iter().find(|read| read.is_required && read.list.is_err()) {
            Some(ReadList { list: Err(error), .. }) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

impl PolicyFile {
    /// Reads the list of revocations. If it cannot be reached or used, the list that was seen last counts, unless the policy
    /// requires the current one.
    pub(super) async fn read_revocations(
        &self,
        section: &RevocationsSection,
        sources: &CodecSources,
        now: SystemTime,
    ) -> Result<RevocationList, OciError> {
        let keys: Vec<PublicKey> =
            self.keys.iter().filter(|key| section.signed_by.contains(&key.name)).cloned().collect();
        let (history, source) = (sources.revocation_history(), self.revocations_name(section));
        let current = async {
            let bytes = self.fetch_revocations(section, sources).await.map_err(|error| {
                OciError::Failed(format!(
                    "cannot check revocations: the list cannot be read ({}). Check `source`, {}.",
                    error.to_string().trim_end_matches('.'),
                    section.source
                ))
            })?;
            let list = RevocationList::parse(&bytes, Some(&keys))?;
            history.check(&source, &list, &bytes)?;
            Ok::<_, OciError>(list)
        };
        let is_required = section.when_stale == WhenStale::Refuse;
        let list = match current.await {
            Ok(list) => list,
            // Whoever provides an old list, or one that is not signed, wants to hide a newer one.
            Err(error @ OciError::Refused(_)) if is_required => return Err(error),
            Err(error) => {
                let last =
                    history.last(&source).and_then(|bytes| RevocationList::parse(&bytes, Some(&keys)).ok());
                let Some(last) = last else {
                    if !is_required {
                        tracing::warn!("{error}");
                    }
                    return Err(error);
                };
                tracing::warn!("{error} Using list {}, which was seen last.", last.serial);
                last
            }
        };
        // A list that is too old still says which codecs are revoked.
        match list.check_age(now, section.max_age) {
            Err(error) if is_required => return Err(error),
            Err(error) => tracing::warn!("{error}"),
            Ok(()) => {}
        }
        Ok(list)
    }

    /// Returns the name of the source of revocations: a reference, or the path of a file.
    fn revocations_name(&self, section: &RevocationsSection) -> String {
        if Reference::is_reference(&section.source) {
            return section.source.clone();
        }
        let path = self.path.parent().unwrap_or(Path::new("")).join(&section.source);
        std::path::absolute(&path).unwrap_or(path).display().to_string()
    }

    async fn fetch_revocations(
        &self,
        section: &RevocationsSection,
        sources: &CodecSources,
    ) -> Result<Vec<u8>, OciError> {
        if !Reference::is_reference(&section.source) {
            let folder = self.path.parent().unwrap_or(Path::new(""));
            return revocation::read_file(&folder.join(&section.source));
        }
        let reference: Reference = section.source.parse()?;
        let Some(tag) = &reference.tag else {
            return Err(OciError::Usage("`source` of the revocations needs a tag".to_owned()));
        };
        if let (Location::Registry(_), true) = (&reference.location, sources.is_offline()) {
            return sources.local_revocations().await;
        }
        let pull = async { revocation::pull(&sources.open(&reference.location)?, tag).await };
        sources.within(pull).await
    }
}
