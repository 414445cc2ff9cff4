//! The command `codec lock`.

use serde::Serialize;

use crate::cli::args::LockArgs;
use crate::cli::artifact::access::Access;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::config::{ComponentLocation, find_nearest};
use crate::oci::{Digest, LockFile, LockedCodec, OciError, Reference};
use crate::wasm::inspect;

/// A codec of a configuration, as it is printed.
#[derive(Serialize)]
struct LockLine {
    /// The name of the codec; `None` for an entry that no codec needs.
    codec: Option<String>,
    reference: String,
    manifest: Digest,
    component: Digest,
    /// What was done: `added`, `updated`, `unchanged`, `removed`.
    state: &'static str,
}

pub(in crate::cli) async fn lock(args: LockArgs, output: Output) -> Result<Exit, CliError> {
    let access = Access::new(&args.access)?;
    if access.config.codecs.is_empty() && !access.path.exists() {
        return Err(CliError::Usage(format!(
            "{} does not exist: name the configuration with --config",
            access.path.display()
        )));
    }
    if let Some(names) = &args.update {
        check_names(&access, names)?;
    }
    let mut file = access.lock()?;
    if args.check {
        return check(&access, &file, args.remote).await;
    }
    let before = file.clone();
    let mut lines = Vec::new();
    for (name, reference) in references(&access)? {
        let is_updated = args.update.as_ref().is_some_and(|names| names.is_empty() || names.contains(&name));
        let line = lock_one(&access, &mut file, &name, &reference, is_updated).await;
        lines.extend(line.map_err(|error| error.about(&format!("codecs.{name}")))?);
    }
    if args.update.as_ref().is_some_and(Vec::is_empty) {
        for key in find_unneeded(&access, &file)? {
            let removed = file.codecs.remove(&key);
            lines.extend(removed.map(|LockedCodec { reference, manifest, component, .. }| LockLine {
                codec: None,
                reference,
                manifest,
                component,
                state: "removed",
            }));
        }
    }
    if file != before {
        file.write()?;
    }
    tracing::info!("{} has {} entries", file.path().display(), file.codecs.len());
    output.print_rows(lines)?;
    Ok(Exit::Done)
}

fn check_names(access: &Access, names: &[String]) -> Result<(), CliError> {
    let known: Vec<&str> = access.config.codecs.keys().map(String::as_str).collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => {
            let nearest = find_nearest(name, &known).map(|name| format!("; did you mean `{name}`?"));
            Err(CliError::Usage(format!("there is no codec `{name}`{}", nearest.unwrap_or_default())))
        }
        None => Ok(()),
    }
}

/// Returns the codecs of the configuration that are artifacts, by name.
fn references(access: &Access) -> Result<Vec<(String, Reference)>, CliError> {
    let mut references = Vec::new();
    for (name, codec) in &access.config.codecs {
        if let ComponentLocation::Artifact(text) = &codec.component {
            let reference =
                text.parse::<Reference>().map_err(|error| error.about(&format!("codecs.{name}")))?;
            references.push((name.clone(), reference));
        }
    }
    Ok(references)
}

/// Returns the entries that the configuration does not need.
fn find_unneeded(access: &Access, file: &LockFile) -> Result<Vec<String>, CliError> {
    let needed: Vec<String> =
        references(access)?.iter().map(|(_, reference)| reference.without_digest().to_string()).collect();
    Ok(file.codecs.keys().filter(|key| !needed.contains(*key)).cloned().collect())
}

/// Locks one codec. Returns `None` if it needs no entry.
async fn lock_one(
    access: &Access,
    file: &mut LockFile,
    name: &str,
    reference: &Reference,
    is_updated: bool,
) -> Result<Option<LockLine>, OciError> {
    let key = reference.without_digest().to_string();
    let known = file.get(reference).cloned();
    let line = |locked: &LockedCodec, state| LockLine {
        codec: Some(name.to_owned()),
        reference: key.clone(),
        manifest: locked.manifest,
        component: locked.component,
        state,
    };
    // A digest in the reference says as much as an entry would.
    if known.is_none() && reference.digest.is_some() {
        return Ok(None);
    }
    if let Some(known) = &known
        && !is_updated
    {
        file.resolve(reference, Some(name))?;
        return Ok(Some(line(known, "unchanged")));
    }
    let manifest = match reference.digest {
        Some(digest) => digest,
        None => access.resolve_tag(reference).await?.0,
    };
    let codec = access.sources().find(reference, &manifest).await?;
    let wit = inspect(&codec.bytes)
        .versions()
        .into_iter()
        .next_back()
        .map(|version| format!("ktables:codec@{version}"));
    let size = codec.bytes.len() as u64;
    let locked = LockedCodec { reference: key.clone(), manifest, component: codec.component, size, wit };
    if let Some(known) = &known
        && known.manifest != manifest
    {
        tracing::warn!(
            "{name}: {} {} -> {} (component {} -> {})",
            reference.tag.as_deref().unwrap_or_default(),
            known.manifest.short(),
            manifest.short(),
            known.component.short(),
            locked.component.short()
        );
    }
    let state = match &known {
        None => "added",
        Some(known) if *known == locked => "unchanged",
        Some(_) => "updated",
    };
    let printed = line(&locked, state);
    file.codecs.insert(key.clone(), locked);
    Ok(Some(printed))
}

/// Checks that the file has what the configuration needs, and with `is_remote`, that no tag has moved.
async fn check(access: &Access, file: &LockFile, is_remote: bool) -> Result<Exit, CliError> {
    let mut exit = Exit::Done;
    for key in find_unneeded(access, file)? {
        tracing::warn!("no codec needs the entry {key}: `ktables codec lock --update` removes it");
    }
    for (name, reference) in references(access)? {
        let manifest = match file.resolve(&reference, Some(&name)) {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::error!("codecs.{name}: {error}");
                exit = Exit::No;
                continue;
            }
        };
        if !is_remote || reference.tag.is_none() {
            continue;
        }
        let (current, _) =
            access.resolve_tag(&reference).await.map_err(|error| error.about(&format!("codecs.{name}")))?;
        if current != manifest {
            tracing::error!(
                "codecs.{name}: the tag {} has moved: {} is locked, and it names {} now. Run `ktables codec lock --update {name}` \
                 to use it.",
                reference.tag.as_deref().unwrap_or_default(),
                manifest,
                current
            );
            exit = Exit::No;
        }
    }
    Ok(exit)
}
