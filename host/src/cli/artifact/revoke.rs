//! The commands `codec revoke` and `codec revocations`.

use std::time::SystemTime;

use serde::Serialize;

use crate::cli::args::{InspectRevocationsArgs, PushRevocationsArgs, RevocationsCommand, RevokeArgs};
use crate::cli::artifact::access::{Access, about, parse};
use crate::cli::artifact::sign::{read_private_key, read_public_key};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::file::replace_file;
use crate::oci::{
    Digest, Layout, Location, Reference, Revocation, RevocationList, pull_revocations, push_revocations,
    read_revocations,
};

/// A list that was written, as it is printed.
#[derive(Serialize)]
struct ListLine {
    list: String,
    serial: u64,
    revoked: usize,
    expires: String,
}

/// A list that was published, as it is printed.
#[derive(Serialize)]
struct PublishedLine {
    reference: String,
    manifest: Digest,
    serial: u64,
}

pub(in crate::cli) fn revoke(args: &RevokeArgs, output: Output) -> Result<Exit, CliError> {
    if args.reason.trim().is_empty() {
        return Err(CliError::Usage("--reason: say why the codec is revoked".to_owned()));
    }
    let key = read_private_key(&args.key)?;
    let now = SystemTime::now();
    let today = humantime::format_rfc3339_seconds(now).to_string();
    let since = args.since.clone().unwrap_or_else(|| today[..10].to_owned());
    match humantime::parse_rfc3339(&format!("{since}T00:00:00Z")) {
        Err(_) => return Err(CliError::Usage(format!("--since {since}: expected a day like 2026-11-28"))),
        Ok(since_time) if since_time > now => {
            return Err(CliError::Usage(format!(
                "--since {since}: that is in the future, and a list applies at once"
            )));
        }
        Ok(_) => {}
    }
    if let Some(replacement) = &args.replacement {
        parse(replacement)?;
    }
    let before = match args.list.exists() {
        // A list that somebody else signed must not be continued.
        true => Some(RevocationList::parse(&read_revocations(&args.list)?, Some(&[key.public().clone()]))?),
        false => {
            tracing::warn!("{} does not exist: a new list begins, with serial 1", args.list.display());
            None
        }
    };
    let revocation = Revocation {
        // Of a reference, the digest.
        digest: args.digest.rsplit('@').next().unwrap_or(&args.digest).parse::<Digest>()?,
        since,
        reason: args.reason.clone(),
        replacement: args.replacement.clone(),
        action: None,
    };
    let list = RevocationList::next(before.as_ref(), revocation, now, args.valid);
    let bytes = list.sign(&key)?;
    replace_file(&args.list, &bytes)?;
    output.print_object(&ListLine {
        list: args.list.display().to_string(),
        serial: list.serial,
        revoked: list.revoked.len(),
        expires: list.expires,
    })?;
    Ok(Exit::Done)
}

pub(in crate::cli) async fn revocations(
    command: RevocationsCommand,
    output: Output,
) -> Result<Exit, CliError> {
    match command {
        RevocationsCommand::Inspect(args) => inspect(args, output).await,
        RevocationsCommand::Push(args) => push(args, output).await,
    }
}

/// Reads a list from a file, or from where a reference says.
pub(super) async fn read(access: &Access, list: &str) -> Result<Vec<u8>, CliError> {
    if !Reference::is_reference(list) {
        return Ok(read_revocations(list.as_ref())?);
    }
    let reference = parse(list)?;
    let Some(tag) = &reference.tag else {
        return Err(CliError::Usage(format!("{reference}: name the list by a tag: REPO:TAG")));
    };
    let repository = access.open(&reference)?;
    pull_revocations(&repository, tag).await.map_err(about(&reference))
}

async fn inspect(args: InspectRevocationsArgs, output: Output) -> Result<Exit, CliError> {
    let access = Access::new(&args.access)?;
    let bytes = read(&access, &args.list).await?;
    let keys = args.key.iter().map(|path| read_public_key(path)).collect::<Result<Vec<_>, _>>()?;
    let list = RevocationList::parse(&bytes, Some(&keys[..]).filter(|keys| !keys.is_empty()))?;
    if keys.is_empty() {
        tracing::warn!("the signature was not verified: name a public key with --key");
    }
    if let Err(error) = list.check_age(SystemTime::now(), None) {
        tracing::warn!("{error}");
    }
    output.print_object(&list)?;
    Ok(Exit::Done)
}

async fn push(args: PushRevocationsArgs, output: Output) -> Result<Exit, CliError> {
    let (access, reference) = (Access::new(&args.access)?, parse(&args.reference)?);
    let Some(tag) = reference.tag.clone().filter(|_| reference.digest.is_none()) else {
        return Err(CliError::Usage(format!("{reference}: publish a list under a tag: REPO:TAG")));
    };
    let bytes = read_revocations(&args.list)?;
    let list = RevocationList::parse(&bytes, None)?;
    if let Location::Layout(folder) = &reference.location {
        Layout::create(folder)?;
    }
    let repository = access.open(&reference)?;
    let before = match pull_revocations(&repository, &tag).await {
        Ok(before) => Some(RevocationList::parse(&before, None)?),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(about(&reference)(error)),
    };
    if let Some(before) = before.filter(|before| before.serial > list.serial) {
        return Err(CliError::Refused(format!(
            "{reference}: it has list {}, and {} is list {}, which is older: revoke with the newer list",
            before.serial,
            args.list.display(),
            list.serial
        )));
    }
    let manifest = push_revocations(&repository, &tag, &bytes).await.map_err(about(&reference))?;
    output.print_object(&PublishedLine {
        reference: reference.to_string(),
        manifest,
        serial: list.serial,
    })?;
    Ok(Exit::Done)
}
