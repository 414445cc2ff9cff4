//! Reads components from where a configuration says they are, and asks the policies whether they may be used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::codec::ComponentOrigin;
use crate::config::{CodecConfig, ComponentLocation, Config, bundled_component};
use crate::file::{FileError, read_bounded};
use crate::oci::{
    CodecSources, Digest, FoundCodec, LockFile, OciError, Policies, Reference, RequestedLimits,
    RevocationLists, Use, Verdict, wait_for,
};
use crate::wasm::{Limits, MAX_BYTES};

/// The configuration whose lock file is used if there is no configuration.
const DEFAULT_CONFIG: &str = "ktables.toml";

/// Reads the components of a configuration.
#[derive(Debug, Clone)]
pub(crate) struct Artifacts {
    sources: CodecSources,
    /// The lock file beside the configuration.
    lock: PathBuf,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArtifactRequest<'a> {
    /// The name of the codec's section, if it has one.
    pub(crate) codec: Option<&'a str>,
    /// The digest that the component must have.
    pub(crate) digest: Option<&'a str>,
    /// The table that uses it; `None` if none does.
    pub(crate) table: Option<&'a str>,
    /// The limits that the configuration asks for.
    pub(crate) limits: &'a Limits,
}

/// A component that was read, and may be used.
#[derive(Debug)]
pub(crate) struct LoadedArtifact {
    pub(crate) bytes: Vec<u8>,
    /// Its name until it describes itself.
    pub(crate) name: String,
    pub(crate) origin: ComponentOrigin,
}

/// What the policies say about a codec.
#[derive(Debug)]
pub(crate) struct ArtifactVerdict {
    /// The digest of its manifest, if it is an artifact and was found.
    pub(crate) manifest: Option<Digest>,
    /// The digest of the component, if it was found.
    pub(crate) component: Option<Digest>,
    /// Why it is approved, or why not.
    pub(crate) verdict: Result<Verdict, OciError>,
}

impl ArtifactVerdict {
    /// The verdict about a codec that was not found.
    fn missing(error: OciError) -> Self {
        Self { manifest: None, component: None, verdict: Err(error) }
    }
}

impl Artifacts {
    /// Reads the components of a configuration. `cache` is the folder of the cache. `offline` says who has turned the network
    /// off, beside the environment.
    pub(crate) fn new(config: &Config, cache: Option<&Path>, offline: Option<&'static str>) -> Self {
        let registries: BTreeMap<_, _> = config
            .registries
            .iter()
            .map(|(host, section)| (host.to_ascii_lowercase(), section.settings()))
            .collect();
        Self {
            sources: CodecSources::from_environment(cache, offline, registries),
            lock: LockFile::path_beside(config.path.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))),
        }
    }

    pub(crate) fn sources(&self) -> &CodecSources {
        &self.sources
    }

    /// Returns the path of the lock file.
    pub(crate) fn lock_path(&self) -> &Path {
        &self.lock
    }

    /// Reads a component, if the policies allow it. Blocks.
    pub(crate) fn load(
        &self,
        location: &ComponentLocation,
        request: ArtifactRequest<'_>,
    ) -> Result<LoadedArtifact, OciError> {
        match location {
            ComponentLocation::File(path) => {
                let bytes = read_file(path)?;
                let shown = path.display().to_string();
                self.check_bytes(&format!("the file {shown}"), &bytes, request.table, request.limits)?;
                let name = path.file_stem().map_or_else(|| shown.clone(), |stem| stem.display().to_string());
                Ok(LoadedArtifact { bytes, name, origin: ComponentOrigin::new(shown, "file") })
            }
            ComponentLocation::Bundled(name) => {
                let bytes = bundled_component(name).map_err(OciError::Usage)?.to_vec();
                Ok(LoadedArtifact {
                    bytes,
                    name: name.clone(),
                    origin: ComponentOrigin::new(name, "bundled"),
                })
            }
            ComponentLocation::Artifact(reference) => {
                let (reference, policies) = (reference.parse()?, Policies::read(None)?);
                let usage = Use { table: request.table, limits: Some(requested(request.limits)) };
                let (codec, verdict) = wait_for(async || {
                    let codec = self.find(&reference, request).await?;
                    let verdict = policies.approve(&self.sources, &codec, usage).await?;
                    Ok((codec, verdict))
                })?;
                Ok(describe(codec, verdict))
            }
        }
    }

    /// Fails unless the policies allow a component that is no artifact. `what` names it.
    pub(crate) fn check_bytes(
        &self,
        what: &str,
        bytes: &[u8],
        table: Option<&str>,
        limits: &Limits,
    ) -> Result<Verdict, OciError> {
        let policies = Policies::read(None)?;
        if policies.is_empty() {
            return Ok(Verdict::default());
        }
        let (component, usage) = (Digest::of(bytes), Use { table, limits: Some(requested(limits)) });
        wait_for(async || policies.approve_file(&self.sources, what, &component, usage).await)
    }

    /// Returns the digest of a file, or the one that a reference or the lock file names, without asking a registry. `None` if
    /// there is none.
    pub(crate) fn identify(&self, location: &ComponentLocation, codec: Option<&str>) -> Option<Digest> {
        match location {
            ComponentLocation::File(path) => Some(Digest::of(&read_file(path).ok()?)),
            ComponentLocation::Bundled(_) => None,
            ComponentLocation::Artifact(reference) => {
                LockFile::read(&self.lock).ok()?.resolve(&reference.parse().ok()?, codec).ok()
            }
        }
    }

    /// Asks the policies about a codec of the configuration, without loading it.
    pub(crate) async fn evaluate(
        &self,
        policies: &Policies,
        table: Option<&str>,
        name: &str,
        section: &CodecConfig,
    ) -> ArtifactVerdict {
        let limits = section.limits.limits();
        let usage = Use { table, limits: Some(requested(&limits)) };
        match &section.component {
            ComponentLocation::File(path) => match read_file(path) {
                Ok(bytes) => {
                    let (what, component) = (format!("the file {}", path.display()), Digest::of(&bytes));
                    let verdict = policies.approve_file(&self.sources, &what, &component, usage).await;
                    ArtifactVerdict { manifest: None, component: Some(component), verdict }
                }
                Err(error) => ArtifactVerdict::missing(error),
            },
            ComponentLocation::Bundled(name) => match bundled_component(name) {
                Ok(bytes) => {
                    let (component, verdict) = (Some(Digest::of(bytes)), Ok(Verdict::default()));
                    ArtifactVerdict { manifest: None, component, verdict }
                }
                Err(reason) => ArtifactVerdict::missing(OciError::Usage(reason)),
            },
            ComponentLocation::Artifact(reference) => {
                let request = ArtifactRequest {
                    codec: Some(name),
                    digest: section.digest.as_deref(),
                    table,
                    limits: &limits,
                };
                let found = async { self.find(&reference.parse()?, request).await };
                match found.await {
                    Ok(codec) => ArtifactVerdict {
                        manifest: Some(codec.manifest),
                        component: Some(codec.component),
                        verdict: policies.approve(&self.sources, &codec, usage).await,
                    },
                    Err(error) => ArtifactVerdict::missing(error),
                }
            }
        }
    }

    /// Reads the lists of revocations. Blocks.
    pub(crate) fn read_revocations(&self) -> Result<RevocationLists, OciError> {
        let policies = Policies::read(None)?;
        wait_for(async || Ok(policies.read_revocations(&self.sources, SystemTime::now()).await))
    }

    /// Whether a list of revocations is fetched from a registry.
    pub(crate) fn has_remote_revocations(&self) -> bool {
        !self.sources.is_offline()
            && Policies::read(None).is_ok_and(|policies| policies.has_remote_revocations())
    }

    /// Finds a codec.
    async fn find(
        &self,
        reference: &Reference,
        request: ArtifactRequest<'_>,
    ) -> Result<FoundCodec, OciError> {
        let lock = LockFile::read(&self.lock)?;
        let manifest = lock.resolve(reference, request.codec)?;
        let codec = self.sources.find(reference, &manifest).await?;
        check_digest(request.digest, &codec)?;
        lock.check(reference, codec.component, codec.bytes.len() as u64)?;
        Ok(codec)
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, OciError> {
    read_bounded(path, MAX_BYTES).map_err(FileError::of("read the component", path))
}

fn requested(limits: &Limits) -> RequestedLimits {
    RequestedLimits { memory: limits.memory, deadline: limits.deadline }
}

/// Fails if the digest of the manifest was written where that of the component belongs. Another wrong digest is found when the
/// component is loaded.
fn check_digest(digest: Option<&str>, codec: &FoundCodec) -> Result<(), OciError> {
    let manifest = codec.manifest.to_string();
    if digest.is_some_and(|digest| digest.eq_ignore_ascii_case(&manifest)) {
        return Err(OciError::Usage(format!(
            "cannot check `digest`: {manifest} is the digest of the manifest, but `digest` pins the component. Use the component \
             digest, {}.",
            codec.component
        )));
    }
    Ok(())
}

/// Returns a codec with the name of its repository, and where it came from.
fn describe(codec: FoundCodec, verdict: Verdict) -> LoadedArtifact {
    let shown = codec.reference.to_string();
    let last = codec.reference.location.to_string();
    let name = last.rsplit('/').next().unwrap_or(&last).to_owned();
    let origin = ComponentOrigin::new(shown, codec.source.to_string());
    let origin = origin.with_artifact(codec.manifest.to_string(), verdict.signed_by);
    LoadedArtifact { bytes: codec.bytes, name, origin }
}
