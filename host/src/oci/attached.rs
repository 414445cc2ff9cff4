//! What is attached to a manifest: signatures under a tag, and manifests that name it as their subject.

use crate::oci::manifest::Manifest;
use crate::oci::repository::ArtifactRepository;
use crate::oci::transfer::{Referrers, fallback_tag};
use crate::oci::{Digest, OciError};

/// How many manifests may be attached to one, and how many signatures one may have. More are refused, so that nobody can make
/// a check endless.
pub(crate) const MAX_ATTACHED: usize = 64;

/// How many bytes these manifests may have together.
const MAX_ATTACHED_BYTES: usize = 8 << 20;

/// The ends of the tags under which cosign attaches something: signatures, attestations, lists of components.
const SUFFIXES: [&str; 3] = [SIGNATURES, ".att", ".sbom"];

/// The end of the tag with signatures.
const SIGNATURES: &str = ".sig";

/// A manifest that is attached to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attached {
    /// The tag, if it is found by one. Otherwise, it names its subject.
    pub(crate) tag: Option<String>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Manifest,
}

impl Attached {
    /// Returns its tag, or its digest.
    pub(crate) fn name(&self) -> String {
        self.tag.clone().unwrap_or_else(|| Digest::of(&self.bytes).to_string())
    }

    /// Whether its layers are signatures of cosign's older format.
    pub(crate) fn has_signatures(&self) -> bool {
        self.tag.as_ref().is_some_and(|tag| tag.ends_with(SIGNATURES))
    }
}

/// The manifests that are attached to another one.
#[derive(Debug)]
pub(crate) struct Attachments {
    pub(crate) manifests: Vec<Attached>,
    /// Whether the place answers which manifests name another one as their subject.
    pub(crate) has_referrers_api: bool,
}

/// Returns the tag under which the signatures of a manifest are.
pub(crate) fn signature_tag(subject: &Digest) -> String {
    format!("{}{SIGNATURES}", fallback_tag(subject))
}

/// What is wanted of what is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Everything,
    /// What may be a signature.
    Signatures,
}

/// Finds what is attached to a manifest.
pub(crate) async fn find_attached(
    repository: &ArtifactRepository,
    subject: &Digest,
    wanted: Wanted,
) -> Result<Attachments, OciError> {
    let (mut attached, mut bytes_read) = (Vec::new(), 0);
    let suffixes = match wanted {
        Wanted::Everything => &SUFFIXES[..],
        Wanted::Signatures => &[SIGNATURES],
    };
    for suffix in suffixes {
        let tag = format!("{}{suffix}", fallback_tag(subject));
        match repository.manifest_of_tag(&tag).await {
            Ok(bytes) => {
                // Whatever is there, it is not the same as nothing.
                let manifest = Manifest::parse(&bytes).map_err(|error| {
                    OciError::Failed(format!("{} has no manifest under {tag}: {error}", repository.name()))
                })?;
                bytes_read += bytes.len();
                attached.push(Attached { tag: Some(tag), bytes, manifest });
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let Referrers { digests: referrers, has_api } = repository.referrers(subject).await?;
    if attached.len() + referrers.len() > MAX_ATTACHED {
        return Err(OciError::Refused(format!(
            "cannot verify the codec: {} manifests are attached to it, and the limit is {MAX_ATTACHED}. Remove those that are \
             not needed from {}.",
            attached.len() + referrers.len(),
            repository.name()
        )));
    }
    for digest in referrers {
        let bytes = match repository.manifest(&digest).await {
            Ok(bytes) => bytes,
            // The list only suggests manifests.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        bytes_read += bytes.len();
        if bytes_read > MAX_ATTACHED_BYTES {
            return Err(OciError::Refused(format!(
                "cannot verify the codec: the manifests that are attached to it have more than {MAX_ATTACHED_BYTES} bytes. Remove \
                 those that are not needed from {}.",
                repository.name()
            )));
        }
        let Ok(manifest) = Manifest::parse(&bytes) else { continue };
        if manifest.subject.as_ref().is_some_and(|about| about.digest == *subject) {
            attached.push(Attached { tag: None, bytes, manifest });
        }
    }
    Ok(Attachments { manifests: attached, has_referrers_api: has_api })
}
