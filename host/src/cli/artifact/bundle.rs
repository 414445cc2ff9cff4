//! The commands `codec bundle` and `codec load`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use serde::Serialize;
use tempfile::TempDir;

use crate::cli::args::{BundleArgs, LoadBundleArgs, RegistryAccessArgs};
use crate::cli::artifact::access::{Access, about, parse};
use crate::cli::artifact::mirror::copy_checked;
use crate::cli::artifact::revoke;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::file::{FileError, Replacement};
use crate::oci::{
    ArtifactRepository, Blob, CodecManifest, Digest, FoundCodec, Layout, LockFile, LockedCodec,
    MAX_MANIFEST_BYTES, OciError, REVOCATIONS_TAG, Reference, RevocationList, copy_attached,
    pull_revocations, push_revocations, read_tar, tag_of, write_tar,
};

/// The name of the lock file in a bundle.
const LOCK: &str = "ktables.lock";

/// A codec of a bundle, as it is printed.
#[derive(Serialize)]
struct BundleLine {
    reference: String,
    manifest: Digest,
    component: Digest,
    attached: Vec<String>,
}

/// Whether this is the name of an archive.
fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar")
}

pub(in crate::cli) async fn bundle(args: BundleArgs, output: Output) -> Result<Exit, CliError> {
    let access = Access::new(&args.access)?;
    check_out(&args.out)?;
    let wanted = list_wanted(&args)?;
    let folder =
        TempDir::new().map_err(FileError::of::<CliError>("create a folder in", &std::env::temp_dir()))?;
    let layout = Layout::create(folder.path())?;
    let mut lock = LockFile::read(&folder.path().join(LOCK))?;
    let names = bundle_names(wanted.values());
    let mut lines = Vec::new();
    for reference in wanted.values() {
        let add =
            add_codec(&access, reference, &layout, names.get(&reference.to_string()).map(String::as_str));
        let (codec, attached) = add.await.map_err(about(reference))?;
        if reference.tag.is_some() {
            let key = codec.reference.without_digest().to_string();
            let size = codec.bytes.len() as u64;
            let locked = LockedCodec {
                reference: key.clone(),
                manifest: codec.manifest,
                component: codec.component,
                size,
                wit: None,
            };
            lock.codecs.insert(key, locked);
        }
        lines.push(BundleLine {
            reference: codec.reference.to_string(),
            manifest: codec.manifest,
            component: codec.component,
            attached,
        });
    }
    if let Some(list) = &args.revocations {
        let bytes = revoke::read(&access, list).await?;
        // Whoever uses the bundle has the keys to verify it.
        RevocationList::parse(&bytes, None).map_err(|error| error.about(list))?;
        push_revocations(&ArtifactRepository::Layout(layout.clone()), REVOCATIONS_TAG, &bytes).await?;
    }
    lock.write()?;
    if is_archive(&args.out) {
        let write = || {
            let mut file = Replacement::new(&args.out)?;
            write_tar(folder.path(), &mut file)?;
            file.persist()
        };
        write().map_err(FileError::of::<CliError>("write", &args.out))?;
    } else {
        copy_layout(folder.path(), &args.out)?;
    }
    output.print_rows(lines)?;
    Ok(Exit::Done)
}

/// Fails if a bundle cannot be written there.
fn check_out(out: &Path) -> Result<(), CliError> {
    let shown = out.display();
    let is_packed = out
        .extension()
        .is_some_and(|extension| ["gz", "tgz", "zip", "xz", "zst"].iter().any(|end| extension == *end));
    if is_packed {
        return Err(CliError::Usage(format!(
            "{shown}: a bundle is a folder, or an archive whose name ends with .tar"
        )));
    }
    let is_foreign = out.is_dir()
        && !Layout::open(out).exists()
        && std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if is_foreign || (out.is_file() && !is_archive(out)) {
        return Err(CliError::Usage(format!("{shown} exists, and is no bundle: choose another name")));
    }
    Ok(())
}

/// Returns the codecs that the arguments and their lock files name, in order.
fn list_wanted(args: &BundleArgs) -> Result<BTreeMap<String, Reference>, CliError> {
    let mut wanted: BTreeMap<String, Reference> = BTreeMap::new();
    for text in &args.references {
        let reference = parse(text)?;
        wanted.insert(reference.to_string(), reference);
    }
    for path in &args.lock {
        if !path.exists() {
            return Err(CliError::Usage(format!(
                "{} does not exist: write it with `ktables codec lock`",
                path.display()
            )));
        }
        for (text, locked) in LockFile::read(path)?.codecs {
            wanted.insert(text.clone(), parse(&text)?.with_digest(locked.manifest));
        }
    }
    if wanted.is_empty() {
        return Err(CliError::Usage("there are no codecs to bundle: the lock files have none".to_owned()));
    }
    Ok(wanted)
}

/// Returns the name of each codec in the index of a bundle: its tag, or the whole reference if several have the same tag.
fn bundle_names<'a>(references: impl Iterator<Item = &'a Reference> + Clone) -> BTreeMap<String, String> {
    let tags: Vec<&String> = references.clone().filter_map(|reference| reference.tag.as_ref()).collect();
    let is_unique = tags.iter().all(|tag| tags.iter().filter(|other| *other == tag).count() == 1);
    let name = |reference: &Reference| {
        let tag = reference.tag.clone()?;
        let full = reference.without_digest().to_string();
        let full = full.trim_start_matches("oci://").trim_start_matches("oci-layout:").to_owned();
        Some((reference.to_string(), if is_unique { tag } else { full }))
    };
    references.filter_map(name).collect()
}

async fn add_codec(
    access: &Access,
    reference: &Reference,
    layout: &Layout,
    name: Option<&str>,
) -> Result<(FoundCodec, Vec<String>), OciError> {
    let codec = access.find(reference).await?;
    let source = ArtifactRepository::Layout(access.sources().local_layout(&codec));
    let target = ArtifactRepository::Layout(layout.clone());
    let mut copied = copy_checked(access, &source, &codec.manifest, &target, name).await?;
    // The store gets the signatures that the registry has by now.
    if copied.attached.is_empty() && access.sources().remote_signatures(&codec).await?.is_some() {
        let store = ArtifactRepository::Layout(access.sources().own_store()?);
        copied.attached = copy_attached(&store, &codec.manifest, &target).await?;
    }
    Ok((codec, copied.attached))
}

/// Copies a finished layout to where it is wanted. What is there already stays.
fn copy_layout(from: &Path, to: &Path) -> Result<(), CliError> {
    let target = Layout::create(to)?;
    let source = Layout::open(from);
    for digest in source.blobs()? {
        if let Blob::Present(bytes) = source.read_blob(&digest, u64::MAX)? {
            target.write_blob(&bytes)?;
        }
    }
    target.add_to_index(source.index()?.manifests)?;
    let mut lock = LockFile::read(&to.join(LOCK))?;
    lock.codecs.extend(LockFile::read(&from.join(LOCK))?.codecs);
    Ok(lock.write()?)
}

pub(in crate::cli) async fn load(args: LoadBundleArgs, output: Output) -> Result<Exit, CliError> {
    let access = Access::new(&RegistryAccessArgs { config: None, offline: true })?;
    let (_folder, layout) = open_bundle(&args.bundle)?;
    let store = ArtifactRepository::Layout(access.sources().own_store()?);
    let source = ArtifactRepository::Layout(layout.clone());
    let mut lines = Vec::new();
    for entry in layout.index()?.manifests {
        let Blob::Present(bytes) = layout.read_blob(&entry.digest, MAX_MANIFEST_BYTES)? else {
            return Err(CliError::Refused(format!(
                "{}: cannot load the bundle: manifest {} is missing or damaged. Copy the bundle again.",
                args.bundle.display(),
                entry.digest
            )));
        };
        // A signature is copied together with the codec that it signs.
        let Ok(manifest) = CodecManifest::parse(&bytes) else { continue };
        let copied = copy_checked(&access, &source, &entry.digest, &store, None).await;
        let copied = copied.map_err(|error| error.about(&args.bundle.display().to_string()))?;
        lines.push(BundleLine {
            reference: tag_of(&entry).unwrap_or_default().to_owned(),
            manifest: entry.digest,
            component: manifest.component.digest,
            attached: copied.attached,
        });
    }
    copy_revocations(&source, &store).await?;
    if lines.is_empty() {
        return Err(CliError::Refused(format!("{}: there are no codecs in it", args.bundle.display())));
    }
    output.print_rows(lines)?;
    Ok(Exit::Done)
}

/// Copies the list of revocations of a bundle into the store, unless the store has a newer one.
async fn copy_revocations(bundle: &ArtifactRepository, store: &ArtifactRepository) -> Result<(), OciError> {
    let read = async |place: &ArtifactRepository| match pull_revocations(place, REVOCATIONS_TAG).await {
        Ok(bytes) => Ok(Some((RevocationList::parse(&bytes, None)?.serial, bytes))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    };
    let Some((serial, list)) = read(bundle).await? else { return Ok(()) };
    // One that is damaged is replaced.
    let known = read(store).await.unwrap_or_default().map_or(0, |(serial, _)| serial);
    if serial >= known {
        push_revocations(store, REVOCATIONS_TAG, &list).await?;
    }
    Ok(())
}

/// Opens a bundle. An archive is unpacked into a folder that is removed with the first of the returned values.
fn open_bundle(path: &Path) -> Result<(Option<TempDir>, Layout), CliError> {
    if path.is_dir() {
        let layout = Layout::open(path);
        if !layout.exists() {
            return Err(CliError::Usage(format!("{}: the folder is no OCI image layout", path.display())));
        }
        return Ok((None, layout));
    }
    let folder =
        TempDir::new().map_err(FileError::of::<CliError>("create a folder in", &std::env::temp_dir()))?;
    let layout = Layout::create(folder.path())?;
    let file = File::open(path).map_err(FileError::of::<CliError>("read", path))?;
    read_tar(file, &layout).map_err(|error| error.about(&path.display().to_string()))?;
    Ok((Some(folder), layout))
}
