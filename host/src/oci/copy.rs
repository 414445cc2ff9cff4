//! Copies codecs between registries and layouts, with everything that is attached to them.

use std::collections::BTreeSet;

use crate::oci::attached::{Attached, Wanted, find_attached};
use crate::oci::layout::{Blob, Layout, tag_of};
use crate::oci::manifest::{CodecManifest, Descriptor, Index, MANIFEST_TYPE, MAX_MANIFEST_BYTES, Manifest};
use crate::oci::repository::ArtifactRepository;
use crate::oci::revocation::REVOCATIONS_TAG;
use crate::oci::sign::push_signatures;
use crate::oci::transfer::fallback_tag;
use crate::oci::{Digest, OciError};
use tokio::time::Instant;

/// How many blobs that are attached to a codec are copied at most, and how many bytes in them.
const MAX_COPIED_BLOBS: usize = 256;
const MAX_COPIED_BYTES: u64 = 64 << 20;

/// A codec that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopiedCodec {
    pub(crate) manifest: Digest,
    pub(crate) component: Digest,
    /// The tags and digests of what is attached.
    pub(crate) attached: Vec<String>,
}

/// Copies a codec into a layout. Its bytes are checked before the layout has them.
pub(crate) async fn copy_to_layout(
    from: &ArtifactRepository,
    manifest: &Digest,
    to: &Layout,
    max_size: u64,
    until: Instant,
) -> Result<CodecManifest, OciError> {
    let bytes = from.manifest(manifest).await?;
    let parsed = CodecManifest::parse(&bytes)?;
    if parsed.component.size == 0 {
        return Err(OciError::Refused(
            "cannot load the codec: its component is empty. Check the reference.".to_owned(),
        ));
    }
    from.copy_blob(&parsed.component, max_size, to, until).await?;
    from.copy_blob(&parsed.config, MAX_MANIFEST_BYTES, to, until).await?;
    ArtifactRepository::Layout(to.clone()).push_manifest(MANIFEST_TYPE, &bytes, None).await?;
    Ok(parsed)
}

/// Copies a codec from a layout, with what is attached to it, and checks that all of it arrived.
pub(crate) async fn copy_from_layout(
    from: &Layout,
    manifest: &Digest,
    to: &ArtifactRepository,
    tag: Option<&str>,
) -> Result<CopiedCodec, OciError> {
    let source = ArtifactRepository::Layout(from.clone());
    let bytes = source.manifest(manifest).await?;
    let parsed = CodecManifest::parse(&bytes)?;
    for blob in [&parsed.component, &parsed.config] {
        match from.read_blob(&blob.digest, blob.size)? {
            Blob::Present(bytes) => to.push_blob(&bytes).await?,
            Blob::Missing | Blob::Damaged => {
                return Err(OciError::Failed(format!(
                    "cannot copy the codec: {} is missing or damaged in {}. Copy it again.",
                    blob.digest,
                    from.folder().display()
                )));
            }
        }
    }
    to.push_manifest(MANIFEST_TYPE, &bytes, tag).await?;
    let attached = copy_attached(&source, manifest, to).await?;
    check_arrived(manifest, to, &attached).await?;
    Ok(CopiedCodec { manifest: *manifest, component: parsed.component.digest, attached })
}

/// Copies what is attached to a manifest. Returns the tags and digests that were copied.
pub(crate) async fn copy_attached(
    from: &ArtifactRepository,
    subject: &Digest,
    to: &ArtifactRepository,
) -> Result<Vec<String>, OciError> {
    let (mut copied, mut blobs, mut bytes) = (Vec::new(), 0, 0);
    for attached in find_attached(from, subject, Wanted::Everything).await?.manifests {
        for blob in attached.manifest.blobs() {
            (blobs, bytes) = (blobs + 1, bytes + blob.size.min(MAX_COPIED_BYTES));
            if blobs > MAX_COPIED_BLOBS || bytes > MAX_COPIED_BYTES {
                return Err(OciError::Refused(format!(
                    "cannot copy what is attached to {subject}: it has more than {MAX_COPIED_BLOBS} blobs, or more than \
                     {MAX_COPIED_BYTES} bytes. Remove what is not needed from {}.",
                    from.name()
                )));
            }
            to.push_blob(&from.blob(blob, MAX_COPIED_BYTES).await?).await?;
        }
        copied.push(attached.name());
        match &attached.tag {
            Some(tag) if attached.has_signatures() => copy_signatures(&attached, tag, to).await?,
            Some(tag) => {
                let media_type = attached.manifest.media_type.as_deref().unwrap_or(MANIFEST_TYPE);
                to.push_manifest(media_type, &attached.bytes, Some(tag)).await?;
            }
            None => to.push_referrer(&attached.manifest, &attached.bytes).await?,
        }
    }
    Ok(copied)
}

/// Copies a manifest with signatures. Signatures that are there already stay.
async fn copy_signatures(attached: &Attached, tag: &str, to: &ArtifactRepository) -> Result<(), OciError> {
    let known = match to.manifest_of_tag(tag).await {
        Ok(bytes) => Manifest::parse(&bytes).map(|manifest| manifest.layers).unwrap_or_default(),
        Err(error) if error.is_not_found() => Vec::new(),
        // What is damaged is replaced.
        Err(_) if matches!(to, ArtifactRepository::Layout(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let new = &attached.manifest.layers;
    if known.iter().all(|layer| new.contains(layer)) {
        let media_type = attached.manifest.media_type.as_deref().unwrap_or(MANIFEST_TYPE);
        return to.push_manifest(media_type, &attached.bytes, Some(tag)).await;
    }
    let mut layers = known.clone();
    layers.extend(new.iter().filter(|layer| !known.contains(layer)).cloned());
    if layers.len() == known.len() {
        return Ok(());
    }
    push_signatures(to, layers, tag).await
}

/// Fails unless a codec and what is attached to it can be found.
async fn check_arrived(
    manifest: &Digest,
    at: &ArtifactRepository,
    expected: &[String],
) -> Result<(), OciError> {
    at.manifest(manifest).await?;
    let found: BTreeSet<String> = find_attached(at, manifest, Wanted::Everything)
        .await?
        .manifests
        .iter()
        .map(|attached| attached.name())
        .collect();
    match expected.iter().find(|name| !found.contains(*name)) {
        None => Ok(()),
        Some(missing) => {
            let what = if missing.ends_with(".sig") { "signature" } else { "attachment" };
            let place = at.short_name();
            Err(OciError::Failed(format!(
                "cannot complete the mirror: {place} has {manifest}, but not its {what} {missing}. Run `ktables codec mirror` \
                 again; if that does not help, check {place}."
            )))
        }
    }
}

/// Removes what these manifests do not need from a layout. Returns how many blobs were removed.
pub(crate) fn keep_only(layout: &Layout, manifests: &BTreeSet<Digest>) -> Result<usize, OciError> {
    let mut needed: BTreeSet<Digest> = manifests.clone();
    let index = layout.index()?;
    // The list of revocations is about all codecs.
    let is_list = |entry: &&Descriptor| tag_of(entry) == Some(REVOCATIONS_TAG);
    needed.extend(index.manifests.iter().filter(is_list).map(|entry| entry.digest));
    let own_tags: BTreeSet<String> = manifests.iter().map(fallback_tag).collect();
    for entry in &index.manifests {
        let is_attached =
            tag_of(entry).is_some_and(|tag| own_tags.iter().any(|own| tag.starts_with(own.as_str())));
        if is_attached {
            needed.insert(entry.digest);
        }
    }
    // An index names manifests, and a manifest names blobs.
    let mut pending: Vec<Digest> = needed.iter().copied().collect();
    while let Some(digest) = pending.pop() {
        let Ok(Blob::Present(bytes)) = layout.read_blob(&digest, MAX_MANIFEST_BYTES) else { continue };
        let manifest = Manifest::parse(&bytes).map(|manifest| manifest.blobs().cloned().collect());
        let named =
            manifest.or_else(|_| Index::parse(&bytes).map(|index| index.manifests)).unwrap_or_default();
        pending.extend(named.iter().map(|blob| blob.digest).filter(|digest| needed.insert(*digest)));
    }
    layout.change_index(|index| index.manifests.retain(|entry| needed.contains(&entry.digest)))?;
    let unneeded: Vec<Digest> =
        layout.blobs()?.into_iter().filter(|digest| !needed.contains(digest)).collect();
    for digest in &unneeded {
        layout.remove_blob(digest)?;
    }
    Ok(unneeded.len())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::oci::manifest::{CodecArtifact, ComponentFacts};

    #[tokio::test]
    async fn a_layout_keeps_only_what_is_needed() {
        let folder = TempDir::new().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let mut manifests = Vec::new();
        for component in [&b"one"[..], b"two"] {
            let artifact = CodecArtifact::new(component, ComponentFacts::default());
            layout.write_blob(component).unwrap();
            layout.write_blob(&artifact.config).unwrap();
            let repository = ArtifactRepository::Layout(layout.clone());
            repository.push_manifest(MANIFEST_TYPE, &artifact.manifest, None).await.unwrap();
            manifests.push(Digest::of(&artifact.manifest));
        }
        assert_eq!(keep_only(&layout, &manifests[1..].iter().copied().collect()).unwrap(), 3);
        assert_eq!(layout.blobs().unwrap().len(), 3);
        assert!(layout.has_blob(&Digest::of(b"two")) && !layout.has_blob(&Digest::of(b"one")));
        assert_eq!(layout.index().unwrap().manifests.len(), 1);
    }
}
