//! A place that has artifacts: a repository of a registry, or a layout. Both are read and written in the same way.

use std::path::Path;

use tokio::time::Instant;

use crate::oci::client::RegistryClient;
use crate::oci::layout::{Blob, Layout, index_entry, tag_of};
use crate::oci::manifest::{Descriptor, Index, MAX_MANIFEST_BYTES, Manifest};
use crate::oci::transfer::{Referrers, fallback_tag};
use crate::oci::{Digest, Location, OciError};

/// How many entries without a tag are opened to find what is attached to a manifest.
const MAX_UNTAGGED: usize = 256;

/// A repository of a registry, or a layout.
#[derive(Debug)]
pub(crate) enum ArtifactRepository {
    Registry(Box<RegistryClient>),
    Layout(Layout),
}

impl ArtifactRepository {
    /// Returns its name for messages: the repository, or the folder.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Registry(client) => client.repository().to_string(),
            Self::Layout(layout) => layout.folder().display().to_string(),
        }
    }

    /// Returns the host of a registry, or the folder.
    pub(crate) fn short_name(&self) -> String {
        match self {
            Self::Registry(client) => client.host().to_owned(),
            Self::Layout(layout) => layout.folder().display().to_string(),
        }
    }

    /// Returns where it is.
    pub(crate) fn location(&self) -> Location {
        match self {
            Self::Registry(client) => Location::Registry(client.repository().clone()),
            Self::Layout(layout) => Location::Layout(layout.folder().to_owned()),
        }
    }

    /// Lists the tags.
    pub(crate) async fn tags(&self) -> Result<Vec<String>, OciError> {
        match self {
            Self::Registry(client) => client.tags().await,
            Self::Layout(layout) => {
                Ok(layout.index()?.manifests.iter().filter_map(tag_of).map(str::to_owned).collect())
            }
        }
    }

    /// Reads the manifest that a tag names.
    pub(crate) async fn manifest_of_tag(&self, tag: &str) -> Result<Vec<u8>, OciError> {
        match self {
            Self::Registry(client) => client.manifest_of_tag(tag).await,
            Self::Layout(layout) => {
                let found =
                    layout.find_tag(tag)?.ok_or_else(|| missing(layout.folder(), &format!("tag {tag}")))?;
                read(layout, &found.digest, MAX_MANIFEST_BYTES, "manifest").map_err(|error| match error {
                    // The index says that it is there.
                    OciError::NotFound(_) => damaged(layout, &found.digest),
                    error => error,
                })
            }
        }
    }

    /// Reads a manifest by its digest.
    pub(crate) async fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, OciError> {
        match self {
            Self::Registry(client) => client.manifest(digest).await,
            Self::Layout(layout) => read(layout, digest, MAX_MANIFEST_BYTES, "manifest"),
        }
    }

    /// Reads a blob that is at most as large as a manifest.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        match self {
            Self::Registry(client) => client.small_blob(descriptor).await,
            Self::Layout(layout) => read(layout, &descriptor.digest, MAX_MANIFEST_BYTES, "blob"),
        }
    }

    /// Reads a blob of at most `limit` bytes.
    pub(crate) async fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, OciError> {
        match self {
            Self::Registry(client) => client.blob(descriptor, limit).await,
            Self::Layout(layout) => read(layout, &descriptor.digest, limit, "blob"),
        }
    }

    /// Copies a blob into a layout, unless the layout has it.
    pub(crate) async fn copy_blob(
        &self,
        descriptor: &Descriptor,
        max_size: u64,
        to: &Layout,
        deadline: Instant,
    ) -> Result<(), OciError> {
        if to.has_blob(&descriptor.digest) {
            match to.read_blob(&descriptor.digest, max_size)? {
                Blob::Present(_) => return Ok(()),
                _ => to.remove_blob(&descriptor.digest)?,
            }
        }
        match self {
            Self::Registry(client) => client.fetch_blob(descriptor, max_size, to, deadline).await,
            Self::Layout(layout) => {
                to.write_blob(&read(layout, &descriptor.digest, max_size, "blob")?).map(drop)
            }
        }
    }

    /// Lists the manifests that may be about this one. Their contents decide whether they are.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Referrers, OciError> {
        let layout = match self {
            Self::Registry(client) => return client.referrers(subject).await,
            Self::Layout(layout) => layout,
        };
        let mut digests = Vec::new();
        if let Some(entry) = layout.find_tag(&fallback_tag(subject))? {
            let index = Index::parse(&read(layout, &entry.digest, MAX_MANIFEST_BYTES, "index")?)?;
            digests.extend(index.manifests.into_iter().map(|manifest| manifest.digest));
        }
        // Other tools list them in the index, without a tag.
        let index = layout.index()?;
        let untagged = index.manifests.iter().filter(|entry| entry.annotations.is_empty()).take(MAX_UNTAGGED);
        for entry in untagged {
            let Ok(bytes) = read(layout, &entry.digest, MAX_MANIFEST_BYTES, "manifest") else { continue };
            let is_about = Manifest::parse(&bytes)
                .is_ok_and(|manifest| manifest.subject.is_some_and(|about| about.digest == *subject));
            if is_about && !digests.contains(&entry.digest) {
                digests.push(entry.digest);
            }
        }
        Ok(Referrers { digests, has_api: true })
    }

    /// Stores a blob, unless it is there.
    pub(crate) async fn push_blob(&self, bytes: &[u8]) -> Result<(), OciError> {
        match self {
            Self::Registry(client) => client.push_blob(bytes).await,
            Self::Layout(layout) => layout.write_blob(bytes).map(drop),
        }
    }

    /// Stores a manifest or an index, under a tag if one is given. The blobs that it names must be stored before.
    pub(crate) async fn push_manifest(
        &self,
        media_type: &str,
        bytes: &[u8],
        tag: Option<&str>,
    ) -> Result<(), OciError> {
        match self {
            Self::Registry(client) => client.push_manifest(media_type, bytes, tag).await.map(drop),
            Self::Layout(layout) => {
                layout.write_blob(bytes)?;
                layout.add_to_index(vec![index_entry(media_type, bytes, tag)])
            }
        }
    }

    /// Stores a manifest that is about another one, so that it is found later: unless the registry notes the subject itself,
    /// it is added to an index under a tag.
    pub(crate) async fn push_referrer(&self, manifest: &Manifest, bytes: &[u8]) -> Result<(), OciError> {
        let Some(subject) = &manifest.subject else {
            return Err(OciError::Refused("cannot attach a manifest that names no subject".to_owned()));
        };
        let media_type = manifest.media_type.as_deref().unwrap_or(crate::oci::manifest::MANIFEST_TYPE);
        match self {
            Self::Registry(client) => {
                if client.push_manifest(media_type, bytes, None).await? {
                    return Ok(());
                }
            }
            Self::Layout(layout) => {
                layout.write_blob(bytes)?;
            }
        }
        let tag = fallback_tag(&subject.digest);
        let mut index = match self.manifest_of_tag(&tag).await {
            Ok(bytes) => Index::parse(&bytes)?,
            Err(error) if error.is_not_found() => Index::default(),
            Err(error) => return Err(error),
        };
        let entry = manifest.describe(bytes);
        if index.manifests.iter().any(|known| known.digest == entry.digest) {
            return Ok(());
        }
        index.manifests.push(entry);
        index.manifests.sort_by_key(|manifest| manifest.digest);
        self.push_manifest(crate::oci::manifest::INDEX_TYPE, &index.to_bytes(), Some(&tag)).await
    }
}

/// Reads a blob of a layout.
fn read(layout: &Layout, digest: &Digest, limit: u64, what: &str) -> Result<Vec<u8>, OciError> {
    match layout.read_blob(digest, limit)? {
        Blob::Present(bytes) => Ok(bytes),
        Blob::Missing => Err(missing(layout.folder(), &format!("{what} {digest}"))),
        Blob::Damaged => Err(damaged(layout, digest)),
    }
}

fn damaged(layout: &Layout, digest: &Digest) -> OciError {
    OciError::Failed(format!(
        "cannot use the copy of {digest} in {}: it is damaged or missing. Load the layout again.",
        layout.folder().display()
    ))
}

fn missing(folder: &Path, what: &str) -> OciError {
    OciError::NotFound(format!(
        "cannot find the {what}: {} has none. Check the tag, the digest and the folder.",
        folder.display()
    ))
}
