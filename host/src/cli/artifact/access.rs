//! What the commands for codecs in registries need: a configuration, its lock file, and the places that references name.

use std::path::{Path, PathBuf};

use crate::cli::CliError;
use crate::cli::args::RegistryAccessArgs;
use crate::config::{Artifacts, Config};
use crate::oci::{
    Annotations, ArtifactRepository, CodecManifest, CodecSources, Digest, FoundCodec, LockFile, OciError,
    Reference, wait_for,
};
use crate::wasm::{Compiler, EngineOptions};

/// The configuration that is read if none is named and it exists.
const DEFAULT_CONFIG: &str = "ktables.toml";

/// What a command needs to reach registries.
pub(in crate::cli) struct Access {
    pub(super) config: Config,
    pub(super) path: PathBuf,
    pub(super) artifacts: Artifacts,
}

impl Access {
    pub(super) fn new(args: &RegistryAccessArgs) -> Result<Self, CliError> {
        Self::with_network(args, args.offline.then_some("--offline"))
    }

    /// `offline` says why network access is forbidden, for errors. The environment may forbid it, too.
    pub(super) fn with_network(
        args: &RegistryAccessArgs,
        offline: Option<&'static str>,
    ) -> Result<Self, CliError> {
        let default = Path::new(DEFAULT_CONFIG);
        let (config, path) = match &args.config {
            Some(path) => (Config::read(path)?, path.clone()),
            None if default.exists() => (Config::read(default)?, default.to_owned()),
            None => (Config::default(), default.to_owned()),
        };
        // Nothing is compiled: only the folder of the cache matters.
        let cache = EngineOptions::new(Compiler::InProcess).cache;
        let artifacts = Artifacts::new(&config, cache.as_deref(), offline);
        Ok(Self { config, path, artifacts })
    }

    pub(super) fn sources(&self) -> &CodecSources {
        self.artifacts.sources()
    }

    pub(super) fn lock(&self) -> Result<LockFile, OciError> {
        LockFile::read(self.artifacts.lock_path())
    }

    /// Opens the place that a reference names.
    pub(super) fn open(&self, reference: &Reference) -> Result<ArtifactRepository, OciError> {
        self.sources().open(&reference.location)
    }

    /// Returns the digest of the manifest that a reference names: its own, that of the lock file, or else what the tag names now.
    pub(super) async fn resolve(&self, reference: &Reference) -> Result<Digest, OciError> {
        match self.lock()?.resolve(reference, None) {
            Err(OciError::Usage(_)) if reference.digest.is_none() && !self.sources().is_offline() => {
                self.resolve_tag(reference).await.map(|(digest, _)| digest)
            }
            result => result,
        }
    }

    /// Returns the digest and the manifest that the tag of a reference names now.
    pub(super) async fn resolve_tag(
        &self,
        reference: &Reference,
    ) -> Result<(Digest, CodecManifest), OciError> {
        let Some(tag) = &reference.tag else {
            return Err(OciError::Usage(
                "cannot resolve the reference: it has no tag. Write one.".to_owned(),
            ));
        };
        let bytes = self.open(reference)?.manifest_of_tag(tag).await?;
        Ok((Digest::of(&bytes), CodecManifest::parse(&bytes)?))
    }

    /// Finds the codec that a reference names.
    pub(super) async fn find(&self, reference: &Reference) -> Result<FoundCodec, OciError> {
        let manifest = self.resolve(reference).await?;
        self.sources().find(reference, &manifest).await
    }
}

/// Parses a reference. Errors name it.
pub(super) fn parse(text: &str) -> Result<Reference, CliError> {
    Ok(text.parse::<Reference>()?)
}

/// Puts the reference before the text of an error.
pub(super) fn about(reference: &Reference) -> impl Fn(OciError) -> CliError {
    let name = reference.to_string();
    move |error| error.about(&name).into()
}

/// Fails if a tag names another manifest, and may not be moved. Returns the manifest that it names.
pub(super) async fn check_tag(
    repository: &ArtifactRepository,
    tag: &str,
    manifest: &Digest,
    may_move: bool,
) -> Result<Option<Digest>, OciError> {
    let before = match repository.manifest_of_tag(tag).await {
        Ok(bytes) => Some(Digest::of(&bytes)),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    match before {
        Some(before) if before != *manifest && !may_move => Err(OciError::Refused(format!(
            "cannot push tag {tag}: it already names manifest {before}, and this codec has manifest {manifest}. Push under another \
             version, or pass `--move-tag` to move the tag."
        ))),
        before => Ok(before),
    }
}

/// Parses annotations of the form NAME=VALUE.
pub(super) fn parse_annotations(texts: &[String]) -> Result<Annotations, CliError> {
    let mut annotations = Annotations::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => (name, value),
            _ => return Err(CliError::Usage(format!("--annotation {text}: write NAME=VALUE"))),
        };
        if annotations.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(CliError::Usage(format!("--annotation {text}: {name} has another value already")));
        }
    }
    Ok(annotations)
}

/// Reads the component that a reference names, for the commands of authors, which ask no policy. Blocks.
pub(in crate::cli) fn read(text: &str) -> Result<Vec<u8>, CliError> {
    let access = Access::new(&RegistryAccessArgs { config: None, offline: false })?;
    let reference = parse(text)?;
    let found = wait_for(async || access.find(&reference).await);
    Ok(found.map_err(about(&reference))?.bytes)
}
