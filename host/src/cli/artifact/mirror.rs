//! The command `codec mirror`, and copying of artifacts.

use serde::Serialize;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::cli::args::MirrorArgs;
use crate::cli::artifact::access::{Access, about, check_tag, parse};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::file::FileError;
use crate::oci::{
    ArtifactRepository, CopiedCodec, Digest, Layout, Location, OciError, Reference, copy_attached,
    copy_from_layout, copy_to_layout,
};

/// A codec that was copied, as it is printed.
#[derive(Serialize)]
struct MirrorLine {
    reference: String,
    manifest: Digest,
    component: Digest,
    /// The tags and digests of what is attached.
    attached: Vec<String>,
}

pub(in crate::cli) async fn mirror(args: MirrorArgs, output: Output) -> Result<Exit, CliError> {
    let access = Access::new(&args.access)?;
    let (from, to) = (parse(&args.from)?, parse(&args.to)?);
    if to.digest.is_some() {
        return Err(CliError::Usage(format!(
            "{to}: name the copy without a digest, which is that of {from}"
        )));
    }
    let copy = copy(&access, &from, &to, args.move_tag);
    let (tag, CopiedCodec { manifest, component, attached }) = copy.await.map_err(about(&from))?;
    let reference = Reference { tag, digest: Some(manifest), ..to };
    output.print_object(&MirrorLine { reference: reference.to_string(), manifest, component, attached })?;
    Ok(Exit::Done)
}

/// Copies a codec. Returns its tag at the destination.
async fn copy(
    access: &Access,
    from: &Reference,
    to: &Reference,
    may_move_tag: bool,
) -> Result<(Option<String>, CopiedCodec), OciError> {
    let tag = to.tag.clone().or_else(|| from.tag.clone());
    let manifest = access.resolve(from).await?;
    if let Location::Layout(folder) = &to.location {
        Layout::create(folder)?;
    }
    let (source, target) = (access.open(from)?, access.open(to)?);
    if let Some(tag) = &tag {
        check_tag(&target, tag, &manifest, may_move_tag).await?;
    }
    let copied = copy_checked(access, &source, &manifest, &target, tag.as_deref()).await?;
    Ok((tag, copied))
}

/// Copies a codec through a folder, where all of it is checked before anything is written.
pub(super) async fn copy_checked(
    access: &Access,
    source: &ArtifactRepository,
    manifest: &Digest,
    target: &ArtifactRepository,
    tag: Option<&str>,
) -> Result<CopiedCodec, OciError> {
    let folder =
        TempDir::new().map_err(FileError::of::<OciError>("create a folder in", &std::env::temp_dir()))?;
    let checked = Layout::create(folder.path())?;
    let sources = access.sources();
    let max_size = sources.max_size(&source.location());
    let until = Instant::now() + sources.limits().artifact;
    sources.within(copy_to_layout(source, manifest, &checked, max_size, until)).await?;
    copy_attached(source, manifest, &ArtifactRepository::Layout(checked.clone())).await?;
    copy_from_layout(&checked, manifest, target, tag).await
}
