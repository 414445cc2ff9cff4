//! The commands `codec revoke` and `codec revocations`.

use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use crate::cli::args::{
    InspectRevocationsArgs, PullRevocationsArgs, PushRevocationsArgs, RenewRevocationsArgs,
    RevocationsCommand, RevokeArgs, SignedListArgs,
};
use crate::cli::artifact::access::{Access, about, parse};
use crate::cli::artifact::sign::{read_private_key, read_public_key};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::file::{FileError, replace_file};
use crate::oci::{
    Digest, Layout, Location, OciError, PrivateKey, Reference, Revocation, RevocationList, lock_file,
    pull_revocations, push_revocations, read_revocations,
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
    let revocation = Revocation {
        // Of a reference, the digest.
        digest: args.digest.rsplit('@').next().unwrap_or(&args.digest).parse::<Digest>()?,
        since,
        reason: args.reason.clone(),
        replacement: args.replacement.clone(),
        action: None,
    };
    let key = read_private_key(&args.next.key)?;
    let _lock = lock_folder(&args.list)?;
    let before = read_before(&args.list, &args.next, &key)?;
    if before.is_none() {
        tracing::warn!("{} does not exist: a new list begins, with serial 1", args.list.display());
    }
    let list = RevocationList::next(before.as_ref(), Some(revocation), now, args.next.valid);
    write(&args.list, list, &key, output)
}

/// Waits until no other process changes the files of the folder. Until the result is dropped, none does.
fn lock_folder(file: &Path) -> Result<File, CliError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lock = File::open(folder).map_err(FileError::of::<CliError>("lock the folder", folder))?;
    lock_file(&lock, folder, file)?;
    Ok(lock)
}

/// Reads the revocation list in a file without checking its signatures; `None` if the file does not exist.
fn read_list(file: &Path) -> Result<Option<RevocationList>, CliError> {
    // A file that cannot be reached is not the same as none.
    let exists =
        file.try_exists().map_err(FileError::of::<OciError>("read the list of revocations", file))?;
    Ok(match exists {
        true => Some(RevocationList::parse(&read_revocations(file)?, None)?),
        false => None,
    })
}

/// Reads the list in a file; `None` if the file does not exist. A list that somebody else signed must not be continued.
fn read_before(
    file: &Path,
    args: &SignedListArgs,
    key: &PrivateKey,
) -> Result<Option<RevocationList>, CliError> {
    let Some(list) = read_list(file)? else { return Ok(None) };
    let mut keys = args.signed_by.iter().map(|path| read_public_key(path)).collect::<Result<Vec<_>, _>>()?;
    keys.push(key.public().clone());
    if RevocationList::parse(&read_revocations(file)?, Some(&keys)).is_err() {
        return Err(CliError::Refused(format!(
            "{}: list {} is not signed with this key. If the key was replaced, name the public key of the list with --signed-by",
            file.display(),
            list.serial
        )));
    }
    Ok(Some(list))
}

/// Signs a list, and replaces the file.
fn write(file: &Path, list: RevocationList, key: &PrivateKey, output: Output) -> Result<Exit, CliError> {
    replace_file(file, &list.sign(key)?)?;
    print(file, list, output)
}

/// Prints what a file has now.
fn print(file: &Path, list: RevocationList, output: Output) -> Result<Exit, CliError> {
    output.print_object(&ListLine {
        list: file.display().to_string(),
        serial: list.serial,
        revoked: list.revoked.len(),
        expires: list.expires,
    })?;
    Ok(Exit::Done)
}

fn renew(args: &RenewRevocationsArgs, output: Output) -> Result<Exit, CliError> {
    let (file, key) = (&args.list, read_private_key(&args.next.key)?);
    let _lock = lock_folder(file)?;
    let before = read_before(file, &args.next, &key)?;
    if before.is_some() == args.empty {
        let shown = file.display();
        return Err(CliError::Usage(match args.empty {
            true => format!("--empty: {shown} exists: renew it without this option"),
            false => format!(
                "{shown} does not exist: get it with `ktables codec revocations pull`, or begin an empty list with --empty. An empty \
                 list with a higher number revokes nothing that an earlier one has revoked"
            ),
        }));
    }
    let mut list = RevocationList::next(before.as_ref(), None, SystemTime::now(), args.next.valid);
    if let Some(serial) = args.serial {
        if serial < list.serial {
            return Err(CliError::Usage(format!(
                "--serial {serial}: {} has list {}, so the next one is {} at least",
                file.display(),
                list.serial - 1,
                list.serial
            )));
        }
        list.serial = serial;
    }
    write(file, list, &key, output)
}

pub(in crate::cli) async fn revocations(
    command: RevocationsCommand,
    output: Output,
) -> Result<Exit, CliError> {
    match command {
        RevocationsCommand::Renew(args) => renew(&args, output),
        RevocationsCommand::Pull(args) => pull(args, output).await,
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

/// Copies a published list into a file. The next list is made from it.
async fn pull(args: PullRevocationsArgs, output: Output) -> Result<Exit, CliError> {
    let access = Access::new(&args.access)?;
    let bytes = read(&access, &args.reference).await?;
    let list = RevocationList::parse(&bytes, None)?;
    let _lock = lock_folder(&args.list)?;
    let before = read_list(&args.list)?;
    if let Some(before) = before.filter(|before| before.serial >= list.serial && *before != list) {
        return Err(CliError::Refused(format!(
            "{}: it is list {}, and list {} is published, which is no newer one: remove the file if it must not be published",
            args.list.display(),
            before.serial,
            list.serial
        )));
    }
    replace_file(&args.list, &bytes)?;
    print(&args.list, list, output)
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
    if let Some(before) = before.filter(|before| before.serial >= list.serial && *before != list) {
        return Err(CliError::Refused(format!(
            "{reference}: it has list {}, and {} is list {}, which is no newer one: `ktables codec revocations pull` gets the \
             published list, to revoke with it",
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
