//! The commands `codec pull` and `codec resolve`.

use serde::Serialize;

use crate::cli::args::{PullArgs, ResolveArgs};
use crate::cli::artifact::access::{Access, about, parse};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::file::replace_file;
use crate::oci::{Digest, Policies, Use};

/// A codec, as commands print it.
#[derive(Serialize)]
struct CodecLine {
    reference: String,
    manifest: Digest,
    component: Digest,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<Vec<String>>,
}

/// Fetches a codec into the store.
pub(in crate::cli) async fn pull(args: PullArgs, output: Output) -> Result<Exit, CliError> {
    let (access, reference) = (Access::new(&args.access)?, parse(&args.reference)?);
    let fetch = async {
        let codec = access.find(&reference).await?;
        let policies = Policies::read(None)?;
        let usage = Use { table: None, limits: None };
        let verdict = policies.approve(access.sources(), &codec, usage).await?;
        Ok((codec, verdict))
    };
    let (codec, verdict) = fetch.await.map_err(about(&reference))?;
    if let Some(out) = &args.out {
        replace_file(out, &codec.bytes)?;
    }
    output.print_object(&CodecLine {
        reference: codec.reference.to_string(),
        manifest: codec.manifest,
        component: codec.component,
        bytes: codec.bytes.len() as u64,
        source: Some(codec.source.to_string()),
        signed_by: Some(verdict.signed_by),
    })?;
    Ok(Exit::Done)
}

/// Prints what a tag names now.
pub(in crate::cli) async fn resolve(args: ResolveArgs, output: Output) -> Result<Exit, CliError> {
    let (access, reference) = (Access::new(&args.access)?, parse(&args.reference)?);
    let (manifest, parsed) = access.resolve_tag(&reference).await.map_err(about(&reference))?;
    output.print_object(&CodecLine {
        reference: reference.with_digest(manifest).to_string(),
        manifest,
        component: parsed.component.digest,
        bytes: parsed.component.size,
        source: None,
        signed_by: None,
    })?;
    Ok(Exit::Done)
}
