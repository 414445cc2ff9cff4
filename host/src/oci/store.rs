//! Finds codecs: in local stores first, then, unless the network is off, in mirrors and registries. What comes from the network
//! is checked, and kept in the store of the user together with its signatures.

mod signatures;

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file::FileError;
use crate::oci::client::RegistryClient;
use crate::oci::copy::{copy_attached, copy_to_layout};
use crate::oci::layout::{Blob, Layout};
use crate::oci::manifest::not_a_manifest;
use crate::oci::manifest::{Annotations, CodecManifest, MAX_COMPONENT_BYTES, MAX_MANIFEST_BYTES};
use crate::oci::repository::ArtifactRepository;
use crate::oci::revocation::{self, REVOCATIONS_TAG, RevocationHistory, RevocationList};
use crate::oci::settings::{NetworkLimits, RegistrySettings};
use crate::oci::transfer::deadline;
use crate::oci::{Digest, Location, OciError, Reference, Repository};
use crate::private;

/// The variable with folders of codecs, separated by `:`.
const CODEC_PATH: &str = "KTABLES_CODEC_PATH";

/// The variable that turns the network off for codecs.
const OFFLINE: &str = "KTABLES_OFFLINE";

/// How much longer than its own limit the whole of an artifact may take.
const GRACE: Duration = Duration::from_secs(2);

/// The folder of the store in the cache.
const STORE: &str = "oci";

/// Where codecs are searched.
#[derive(Debug, Clone)]
pub(crate) struct CodecSources {
    /// Layouts that are only read.
    shared: Vec<Layout>,
    /// The store of the user; `None` if there is no folder for it.
    own: Option<PathBuf>,
    /// Who has turned the network off; `None` if it is on.
    offline: Option<&'static str>,
    /// The settings of registries, by host.
    registries: BTreeMap<String, RegistrySettings>,
    limits: NetworkLimits,
}

/// A codec that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundCodec {
    /// The reference with the digest of the manifest.
    pub(crate) reference: Reference,
    pub(crate) manifest: Digest,
    /// The digest of the component.
    pub(crate) component: Digest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) source: CodecSource,
    pub(crate) annotations: Annotations,
}

/// Where a codec was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum CodecSource {
    /// In the store of the user.
    Store,
    /// In a layout that is only read.
    Layout(PathBuf),
    /// In a repository of a registry.
    Registry(String),
}

impl fmt::Display for CodecSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("store"),
            Self::Layout(folder) => write!(f, "layout {}", folder.display()),
            Self::Registry(repository) => write!(f, "registry {repository}"),
        }
    }
}

impl CodecSources {
    /// Uses the stores and the settings of the environment. `cache` is the folder of the cache.
    pub(crate) fn from_environment(
        cache: Option<&Path>,
        offline: Option<&'static str>,
        registries: BTreeMap<String, RegistrySettings>,
    ) -> Self {
        let path = env::var_os(CODEC_PATH).unwrap_or_default();
        let shared = env::split_paths(&path).filter(|folder| !folder.as_os_str().is_empty());
        let is_off =
            env::var_os(OFFLINE).is_some_and(|value| !["", "0", "false"].iter().any(|no| value == *no));
        Self {
            shared: shared.map(|folder| Layout::open(&folder)).collect(),
            own: cache.map(|cache| cache.join(STORE)),
            offline: is_off.then_some(OFFLINE).or(offline),
            registries,
            limits: NetworkLimits::default(),
        }
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.offline.is_some()
    }

    pub(crate) fn limits(&self) -> NetworkLimits {
        self.limits
    }

    /// Opens the store of the user for writing.
    pub(crate) fn own_store(&self) -> Result<Layout, OciError> {
        let Some(folder) = &self.own else {
            return Err(OciError::Usage("there is no store: set KTABLES_CACHE_DIR to a folder.".to_owned()));
        };
        let is_private =
            private::create_folder(folder).map_err(FileError::of::<OciError>("create the folder", folder))?;
        if !is_private {
            return Err(OciError::Usage(format!(
                "cannot use the store {}: other users have access to the folder. Delete it, or set KTABLES_CACHE_DIR to a folder \
                 of your own.",
                folder.display()
            )));
        }
        Layout::create(folder)
    }

    /// Returns the newest lists of revocations that were seen.
    pub(crate) fn revocation_history(&self) -> RevocationHistory {
        RevocationHistory::new(self.own_store().ok())
    }

    /// Reads the newest list of revocations that came with the codecs of an image, or with a bundle.
    pub(crate) async fn local_revocations(&self) -> Result<Vec<u8>, OciError> {
        let own = self.own.iter().map(|folder| Layout::open(folder));
        let mut newest: Option<(u64, Vec<u8>)> = None;
        for layout in self.shared.iter().cloned().chain(own) {
            let bytes = match revocation::pull(&ArtifactRepository::Layout(layout), REVOCATIONS_TAG).await {
                Ok(bytes) => bytes,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            // The caller verifies the one that is returned.
            let serial = RevocationList::parse(&bytes, None).map_or(0, |list| list.serial);
            if newest.as_ref().is_none_or(|(known, _)| *known < serial) {
                newest = Some((serial, bytes));
            }
        }
        let offline = self.offline.unwrap_or(OFFLINE);
        let missing = || OciError::Failed(format!("the network is off ({offline}), and no store has a list"));
        newest.map(|(_, bytes)| bytes).ok_or_else(missing)
    }

    /// Does something with a registry, within the time for an artifact.
    pub(crate) async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, OciError>>,
    ) -> Result<T, OciError> {
        // A little more, so that a step that has this limit itself says what took so long.
        let limit = self.limits.artifact + GRACE;
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            let seconds = self.limits.artifact.as_secs_f32();
            Err(OciError::Failed(format!(
                "cannot fetch the codec: the registry took more than {seconds} s. Check the network, or pull from a mirror."
            )))
        })
    }

    /// Opens the place that a reference names.
    pub(crate) fn open(&self, location: &Location) -> Result<ArtifactRepository, OciError> {
        match location {
            Location::Layout(folder) => Ok(ArtifactRepository::Layout(Layout::open(folder))),
            Location::Registry(repository) => self.open_registry(repository, repository),
        }
    }

    /// Opens a repository with the settings of its host.
    fn open_registry(
        &self,
        repository: &Repository,
        wanted: &Repository,
    ) -> Result<ArtifactRepository, OciError> {
        if let Some(offline) = self.offline {
            return Err(OciError::Failed(format!(
                "cannot connect to {}: the network is off ({offline}). Run this command where there is a network.",
                wanted.host
            )));
        }
        let settings = self.registries.get(&repository.host).cloned().unwrap_or_default();
        Ok(ArtifactRepository::Registry(Box::new(RegistryClient::new(repository, &settings, self.limits)?)))
    }

    pub(crate) fn max_size(&self, location: &Location) -> u64 {
        let settings = match location {
            Location::Registry(repository) => self.registries.get(&repository.host),
            Location::Layout(_) => None,
        };
        settings.and_then(|settings| settings.max_size).map_or(MAX_COMPONENT_BYTES, |bytes| bytes as u64)
    }

    /// Finds the codec with this digest of its manifest.
    pub(crate) async fn find(
        &self,
        reference: &Reference,
        manifest: &Digest,
    ) -> Result<FoundCodec, OciError> {
        let reference = reference.with_digest(*manifest);
        let damaged = match self.find_in_stores(&reference, manifest)? {
            LocalSearch::Codec(codec) => return Ok(*codec),
            LocalSearch::Damaged(digest) => Some(digest),
            LocalSearch::Missing => None,
        };
        if let Location::Layout(folder) = &reference.location {
            let layout = Layout::open(folder);
            let found =
                self.read_layout(&layout, &reference, manifest, CodecSource::Layout(folder.clone()))?;
            return match found {
                Found::Codec(codec) => Ok(*codec),
                Found::Missing => Err(missing_in_layout(folder, manifest)),
                Found::Damaged(digest) => Err(OciError::Failed(format!(
                    "cannot use the copy of {digest} in {}: it is damaged. Load the layout again.",
                    folder.display()
                ))),
            };
        }
        match damaged {
            None if self.is_offline() => return Err(self.missing_error(manifest)),
            Some(digest) if self.is_offline() => {
                return Err(OciError::Failed(format!(
                    "cannot use the store's copy of {digest}: it is damaged, and the network is off. Run `ktables codec pull` \
                     where there is a network, or load a bundle with `ktables codec load`."
                )));
            }
            _ => {}
        }
        let codec = self.fetch(&reference, manifest).await?;
        if let Some(digest) = damaged {
            tracing::warn!(
                "cannot use the store's copy of {digest}: it is damaged. ktables removed it and fetched it again. No action is \
                 needed."
            );
        }
        Ok(codec)
    }

    fn missing_error(&self, manifest: &Digest) -> OciError {
        let folders = self.shared.iter().map(Layout::folder).chain(self.own.as_deref());
        let folders: Vec<String> = folders.map(|folder| folder.display().to_string()).collect();
        let offline = self.offline.unwrap_or(OFFLINE);
        let stores = if folders.is_empty() { "none is configured".to_owned() } else { folders.join(", ") };
        OciError::Failed(format!(
            "cannot find manifest {manifest}: it is in none of the local stores ({stores}), and the network is off ({offline}). \
             Run `ktables codec pull` where there is a network, or load a bundle with `ktables codec load`."
        ))
    }

    /// Searches the local stores. A copy that is damaged is no copy.
    fn find_in_stores(&self, reference: &Reference, manifest: &Digest) -> Result<LocalSearch, OciError> {
        let mut damaged = None;
        let own = self.own.iter().map(|folder| (Layout::open(folder), CodecSource::Store));
        let shared = self
            .shared
            .iter()
            .map(|layout| (layout.clone(), CodecSource::Layout(layout.folder().to_owned())));
        for (layout, source) in shared.chain(own) {
            let is_own = source == CodecSource::Store;
            match self.read_layout(&layout, reference, manifest, source) {
                Ok(Found::Codec(codec)) => return Ok(LocalSearch::Codec(codec)),
                Ok(Found::Missing) => {}
                Ok(Found::Damaged(digest)) if is_own => {
                    layout.remove_blob(&digest)?;
                    damaged = Some(digest);
                }
                Ok(Found::Damaged(digest)) => {
                    tracing::warn!("the copy of {digest} in {} is damaged", layout.folder().display());
                    damaged.get_or_insert(digest);
                }
                // Another place may have it.
                Err(error @ OciError::File(_)) => tracing::warn!("{error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(damaged.map_or(LocalSearch::Missing, LocalSearch::Damaged))
    }

    /// Reads a codec from a layout.
    fn read_layout(
        &self,
        layout: &Layout,
        reference: &Reference,
        manifest: &Digest,
        source: CodecSource,
    ) -> Result<Found, OciError> {
        if layout.has_component(manifest) {
            return Err(not_a_manifest(manifest));
        }
        let bytes = match layout.read_blob(manifest, MAX_MANIFEST_BYTES)? {
            Blob::Present(bytes) => bytes,
            Blob::Missing => return Ok(Found::Missing),
            Blob::Damaged => return Ok(Found::Damaged(*manifest)),
        };
        let parsed = CodecManifest::parse(&bytes)?;
        let component = parsed.component.digest;
        let bytes = match layout.read_blob(&component, self.max_size(&reference.location))? {
            Blob::Present(bytes) => bytes,
            Blob::Missing => return Ok(Found::Missing),
            Blob::Damaged => return Ok(Found::Damaged(component)),
        };
        let annotations = parsed.annotations;
        let (reference, manifest) = (reference.clone(), *manifest);
        Ok(Found::Codec(Box::new(FoundCodec { reference, manifest, component, bytes, source, annotations })))
    }

    /// Fetches a codec, with what is attached to it: from the first of the mirrors and the registry that has it.
    async fn fetch(&self, reference: &Reference, manifest: &Digest) -> Result<FoundCodec, OciError> {
        let Location::Registry(repository) = &reference.location else {
            return Err(self.missing_error(manifest));
        };
        let store = self.own_store()?;
        let mut last_error = None;
        let mut candidates = self.candidates(repository)?.into_iter().peekable();
        while let Some(candidate) = candidates.next() {
            let fetched = async {
                let source = self.open_candidate(&candidate, repository)?;
                let copy = self.copy_to_store(&source, manifest, self.max_size(&reference.location), &store);
                self.within(copy).await?;
                Ok::<_, OciError>(source)
            };
            match fetched.await {
                Ok(source) => {
                    let kind = CodecSource::Registry(source.name());
                    return match self.read_layout(&store, reference, manifest, kind)? {
                        Found::Codec(codec) => Ok(*codec),
                        _ => Err(OciError::Failed(format!(
                            "cannot use the store {}: what was written into it cannot be read. Check the disk.",
                            store.folder().display()
                        ))),
                    };
                }
                Err(error) => last_error = Some(error),
            }
            if let (Some(error), Some(next)) = (&last_error, candidates.peek()) {
                let text = error.to_string().replace("There is no other mirror to try. ", "");
                match error.is_not_found() {
                    true => tracing::debug!("{text} Trying {next}."),
                    false => tracing::warn!("{text} Trying {next}."),
                }
            }
        }
        // OK because the registry itself is a candidate.
        Err(last_error.expect("an error"))
    }

    fn open_candidate(
        &self,
        candidate: &Location,
        wanted: &Repository,
    ) -> Result<ArtifactRepository, OciError> {
        match candidate {
            Location::Layout(_) => self.open(candidate),
            Location::Registry(repository) => self.open_registry(repository, wanted),
        }
    }

    /// Returns where to look for a codec of a repository: in the mirrors of its host, then in the registry itself.
    fn candidates(&self, repository: &Repository) -> Result<Vec<Location>, OciError> {
        let mut candidates = Vec::new();
        for mirror in self.registries.get(&repository.host).iter().flat_map(|settings| &settings.mirrors) {
            // A host alone has all repositories.
            if let Some(host) =
                mirror.strip_prefix("oci://").filter(|host| !host.trim_end_matches('/').contains('/'))
            {
                let host = host.trim_end_matches('/').to_ascii_lowercase();
                candidates.push(Location::Registry(Repository { host, name: repository.name.clone() }));
                continue;
            }
            let parsed = mirror.parse::<Reference>();
            let place = format!("registries.\"{}\".mirrors", repository.host);
            match parsed.map_err(|error| error.about(&place))?.location {
                layout @ Location::Layout(_) => candidates.push(layout),
                Location::Registry(Repository { host, name }) => {
                    // A mirror of a part of a registry repeats its path, or begins with a path of its own.
                    let mut names = vec![format!("{name}/{}", repository.name)];
                    if repository.name.starts_with(&format!("{name}/")) || repository.name == name {
                        names.insert(0, repository.name.clone());
                    }
                    let mirrors = names.into_iter().map(|name| Repository { host: host.clone(), name });
                    candidates.extend(mirrors.map(Location::Registry));
                }
            }
        }
        candidates.push(Location::Registry(repository.clone()));
        Ok(candidates)
    }

    /// Copies a codec into the store, with what is attached to it.
    async fn copy_to_store(
        &self,
        source: &ArtifactRepository,
        manifest: &Digest,
        max_size: u64,
        store: &Layout,
    ) -> Result<(), OciError> {
        copy_to_layout(source, manifest, store, max_size, deadline(self.limits.artifact)).await?;
        // A policy that needs signatures asks for them again.
        if let Err(error) = copy_attached(source, manifest, &ArtifactRepository::Layout(store.clone())).await
        {
            tracing::warn!("the signatures of {manifest} were not copied: {error}");
        }
        Ok(())
    }

    /// Returns the layout that has a codec which was found, and its signatures.
    pub(crate) fn local_layout(&self, codec: &FoundCodec) -> Layout {
        match &codec.source {
            CodecSource::Layout(folder) => Layout::open(folder),
            CodecSource::Store | CodecSource::Registry(_) => {
                Layout::open(self.own.as_deref().unwrap_or(Path::new("")))
            }
        }
    }
}

/// What the local stores have of a codec.
enum LocalSearch {
    Codec(Box<FoundCodec>),
    Missing,
    Damaged(Digest),
}

/// What a layout has of a codec.
enum Found {
    Codec(Box<FoundCodec>),
    Missing,
    Damaged(Digest),
}

fn missing_in_layout(folder: &Path, manifest: &Digest) -> OciError {
    OciError::NotFound(format!(
        "cannot find manifest {manifest}: {} does not have it. Check the digest and the folder.",
        folder.display()
    ))
}

/// Runs requests on a thread of their own, and waits for them. For callers that may block.
pub(crate) fn wait_for<T: Send>(
    work: impl AsyncFnOnce() -> Result<T, OciError> + Send,
) -> Result<T, OciError> {
    let failed = |error: std::io::Error| OciError::Failed(format!("cannot start a thread: {error}"));
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(work())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("ktables-codecs".to_owned()).spawn_scoped(scope, run);
        // OK because a panic continues here.
        thread.map_err(failed)?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
