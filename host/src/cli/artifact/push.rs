//! The command `codec push`.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use wasmparser::{Parser, Payload};

use crate::cli::args::PushArgs;
use crate::cli::artifact::access::{Access, about, check_tag, parse, parse_annotations};
use crate::cli::artifact::sign::read_private_key;
use crate::cli::codec::{check_component, read_component};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::oci::{
    Annotations, ArtifactRepository, CodecArtifact, ComponentFacts, Digest, Layout, Location, MANIFEST_TYPE,
    OciError, PrivateKey, Reference, SignatureFormat, Subject, TITLE,
};
use crate::wasm::inspect;

/// The environment variable that sets the creation time of an artifact, in seconds since 1970.
const BUILD_TIME: &str = "SOURCE_DATE_EPOCH";

/// The sections of a component that become annotations, and the ends of the names of these.
const SECTIONS: [(&str, &str); 7] = [
    ("authors", "authors"),
    ("description", "description"),
    ("licenses", "licenses"),
    ("source", "source"),
    ("homepage", "url"),
    ("revision", "revision"),
    ("version", "version"),
];

/// The largest section that becomes an annotation, in bytes.
const MAX_SECTION_BYTES: usize = 4 << 10;

/// A codec that was pushed, as it is printed.
#[derive(Serialize)]
struct PushLine {
    reference: String,
    manifest: Digest,
    component: Digest,
    bytes: usize,
    /// Whether the registry did not have it before.
    pushed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<String>,
}

pub(in crate::cli) async fn push(args: PushArgs, output: Output) -> Result<Exit, CliError> {
    let (access, reference) = (Access::new(&args.access)?, parse(&args.reference)?);
    let Some(tag) = reference.tag.clone().filter(|_| reference.digest.is_none()) else {
        return Err(CliError::Usage(format!("{reference}: push to a tag, without a digest: REPO:TAG")));
    };
    let key = args.sign.as_ref().map(|path| read_private_key(path)).transpose()?;
    let bytes = read_component(&args.file)?;
    let (checked, path) = (bytes.clone(), args.file.clone());
    // Compiling the component blocks.
    if let Err(reasons) = tokio::task::spawn_blocking(move || check_component(&path, checked)).await?? {
        for reason in reasons {
            tracing::error!("{} was not pushed, because it would be refused: {reason}", args.file.display());
        }
        return Ok(Exit::No);
    }
    let artifact = describe(&args, &bytes)?;
    let manifest = Digest::of(&artifact.manifest);
    let pushed = push_artifact(&access, &reference, &tag, &artifact, &bytes, args.move_tag, key.as_ref());
    let pushed = pushed.await.map_err(about(&reference))?;
    output.print_object(&PushLine {
        reference: reference.with_digest(manifest).to_string(),
        manifest,
        component: Digest::of(&bytes),
        bytes: bytes.len(),
        pushed,
        signed_by: key.map(|key| key.public().hint().to_owned()),
    })?;
    Ok(Exit::Done)
}

/// Describes a component by its sections and the arguments.
fn describe(args: &PushArgs, bytes: &[u8]) -> Result<CodecArtifact, CliError> {
    let inspection = inspect(bytes);
    let title = args.file.file_name().unwrap_or_default().to_string_lossy();
    let created = match std::env::var(BUILD_TIME) {
        Ok(seconds) => {
            // The last second that the format can express.
            let seconds = seconds.parse().ok().filter(|seconds| *seconds <= 253_402_300_799);
            let time = seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            let text = time.map(|time| humantime::format_rfc3339_seconds(time).to_string());
            Some(text.ok_or_else(|| CliError::Usage(format!("{BUILD_TIME}: expected seconds since 1970")))?)
        }
        Err(_) => None,
    };
    let mut annotations = read_sections(bytes);
    annotations.insert(TITLE.to_owned(), title.to_string());
    annotations.extend(parse_annotations(&args.annotation)?);
    Ok(CodecArtifact::new(
        bytes,
        ComponentFacts {
            title: &title,
            imports: &inspection.imports,
            exports: &inspection.exports,
            created: created.as_deref(),
            annotations,
        },
    ))
}

/// Returns the annotations that the sections of a component become.
fn read_sections(bytes: &[u8]) -> Annotations {
    let mut annotations = Annotations::new();
    let mut depth = 0;
    // The component was checked before, so its sections are well formed.
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::CustomSection(section) if depth == 0 => {
                let name = SECTIONS.iter().find(|(name, _)| *name == section.name());
                let text =
                    std::str::from_utf8(section.data()).ok().filter(|text| text.len() <= MAX_SECTION_BYTES);
                if let (Some((_, name)), Some(text)) = (name, text) {
                    annotations.insert(format!("org.opencontainers.image.{name}"), text.to_owned());
                }
            }
            _ => {}
        }
    }
    annotations
}

/// Pushes the parts of an artifact, then signs it. Returns whether it was not there before.
async fn push_artifact(
    access: &Access,
    reference: &Reference,
    tag: &str,
    artifact: &CodecArtifact,
    component: &[u8],
    may_move_tag: bool,
    key: Option<&PrivateKey>,
) -> Result<bool, OciError> {
    if let Location::Layout(folder) = &reference.location {
        Layout::create(folder)?;
    }
    let repository = access.open(reference)?;
    let digest = Digest::of(&artifact.manifest);
    let before = check_tag(&repository, tag, &digest, may_move_tag).await?;
    if before != Some(digest) {
        repository.push_blob(component).await?;
        repository.push_blob(&artifact.config).await?;
        repository.push_manifest(MANIFEST_TYPE, &artifact.manifest, Some(tag)).await?;
    }
    if let Some(key) = key {
        sign(&repository, &digest, key).await?;
    }
    Ok(before != Some(digest))
}

async fn sign(repository: &ArtifactRepository, digest: &Digest, key: &PrivateKey) -> Result<(), OciError> {
    let subject = Subject::read(repository, digest).await?;
    subject.sign(repository, key, &Annotations::new(), SignatureFormat::Both).await
}
