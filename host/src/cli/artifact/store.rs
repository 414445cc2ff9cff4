//! The commands `codec store`.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::cli::args::{PruneArgs, RegistryAccessArgs, StoreCommand};
use crate::cli::artifact::access::Access;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::oci::{
    Annotations, Blob, CodecManifest, Digest, Layout, LockFile, MAX_MANIFEST_BYTES, OciError, TITLE, VERSION,
    keep_only,
};

/// A codec of the store, as it is printed.
#[derive(Serialize)]
struct StoreLine {
    manifest: Digest,
    component: Digest,
    bytes: u64,
    title: Option<String>,
    version: Option<String>,
}

/// What was removed, as it is printed.
#[derive(Serialize)]
struct RemovedLine {
    blobs: usize,
    removed: usize,
}

pub(in crate::cli) fn run(command: StoreCommand, output: Output) -> Result<Exit, CliError> {
    let access = Access::new(&RegistryAccessArgs { config: None, offline: true })?;
    let store = access.sources().own_store()?;
    match command {
        StoreCommand::List => list(&store, output),
        StoreCommand::Verify => verify(&store, output),
        StoreCommand::Prune(args) => prune(&args, &store, output),
    }
}

/// Returns the codecs of the store, with the digests of their manifests.
fn codecs(store: &Layout) -> Result<Vec<(Digest, CodecManifest)>, OciError> {
    let mut codecs = Vec::new();
    for entry in store.index()?.manifests {
        if let Blob::Present(bytes) = store.read_blob(&entry.digest, MAX_MANIFEST_BYTES)?
            && let Ok(manifest) = CodecManifest::parse(&bytes)
        {
            codecs.push((entry.digest, manifest));
        }
    }
    Ok(codecs)
}

fn list(store: &Layout, output: Output) -> Result<Exit, CliError> {
    let line = |(manifest, codec): (Digest, CodecManifest)| {
        let text = |annotations: &Annotations, name: &str| annotations.get(name).cloned();
        StoreLine {
            manifest,
            component: codec.component.digest,
            bytes: codec.component.size,
            title: text(&codec.annotations, TITLE),
            version: text(&codec.annotations, VERSION),
        }
    };
    output.print_rows(codecs(store)?.into_iter().map(line))?;
    Ok(Exit::Done)
}

fn verify(store: &Layout, output: Output) -> Result<Exit, CliError> {
    let (digests, mut removed) = (store.blobs()?, 0);
    for digest in &digests {
        if store.read_blob(digest, u64::MAX)? == Blob::Damaged {
            tracing::error!(
                "the store's copy of {digest} is damaged: it was removed, and is fetched again when it is needed"
            );
            store.remove_blob(digest)?;
            removed += 1;
        }
    }
    output.print_object(&RemovedLine { blobs: digests.len(), removed })?;
    Ok(if removed == 0 { Exit::Done } else { Exit::No })
}

fn prune(args: &PruneArgs, store: &Layout, output: Output) -> Result<Exit, CliError> {
    let mut needed = BTreeSet::new();
    for path in &args.lock {
        if !path.exists() {
            return Err(CliError::Usage(format!("{} does not exist: nothing was removed", path.display())));
        }
        needed.extend(LockFile::read(path)?.codecs.into_values().map(|codec| codec.manifest));
    }
    let blobs = store.blobs()?.len();
    let removed = keep_only(store, &needed)?;
    output.print_object(&RemovedLine { blobs, removed })?;
    Ok(Exit::Done)
}
