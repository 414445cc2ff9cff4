//! The commands `codec keygen` and `codec sign`.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::args::{KeygenArgs, SignArgs};
use crate::cli::artifact::access::{Access, about, parse, parse_annotations};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::file::{FileError, read_bounded, read_text};
use crate::oci::{Digest, OciError, PrivateKey, PublicKey, Subject};
use crate::private;

/// The variable with the password of a private key.
const PASSWORD: &str = "KTABLES_KEY_PASSWORD";

/// The largest payload and signature that are read, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// A pair of keys, as `codec keygen` prints it.
#[derive(Serialize)]
struct KeyLine {
    private_key: String,
    public_key: String,
    hint: String,
    encrypted: bool,
}

/// A signature, as `codec sign` prints it.
#[derive(Serialize)]
struct SignLine {
    reference: String,
    manifest: Digest,
    signed_by: String,
}

pub(in crate::cli) fn keygen(args: &KeygenArgs, output: Output) -> Result<Exit, CliError> {
    let with_end = |end: &str| PathBuf::from(format!("{}.{end}", args.prefix.display()));
    let (private_path, public_path) = (with_end("key"), with_end("pub"));
    for path in [&private_path, &public_path] {
        if path.symlink_metadata().is_ok() {
            let shown = path.display();
            return Err(CliError::Usage(format!("{shown} exists: remove it, or choose another prefix")));
        }
    }
    let key = PrivateKey::generate()?;
    let password = new_password()?;
    let pem = key.to_pem(password.as_deref())?;
    let write = || {
        let mut file = private::create_options().create_new(true).open(&private_path)?;
        file.write_all(&pem)?;
        file.sync_all()
    };
    write().map_err(FileError::of::<CliError>("write", &private_path))?;
    fs::write(&public_path, key.public_pem()?).map_err(FileError::of::<CliError>("write", &public_path))?;
    if password.is_none() {
        tracing::warn!("{} is not encrypted: whoever reads it can sign", private_path.display());
    }
    output.print_object(&KeyLine {
        private_key: private_path.display().to_string(),
        public_key: public_path.display().to_string(),
        hint: key.public().hint().to_owned(),
        encrypted: password.is_some(),
    })?;
    Ok(Exit::Done)
}

/// Returns the password for a new key; `None` if there is none.
fn new_password() -> Result<Option<String>, CliError> {
    let password = match std::env::var(PASSWORD) {
        Ok(password) => password,
        Err(_) if !io::stdin().is_terminal() => return Ok(None),
        Err(_) => {
            let first = ask("Password of the new key (empty: none): ")?;
            if !first.is_empty() && ask("The same again: ")? != first {
                return Err(CliError::Usage("the passwords differ: try again".to_owned()));
            }
            first
        }
    };
    Ok(Some(password).filter(|password| !password.is_empty()))
}

/// Asks for a password at the terminal, without showing it.
fn ask(prompt: &str) -> Result<String, CliError> {
    rpassword::prompt_password(prompt)
        .map_err(|error| CliError::Usage(format!("cannot read the password: {error}")))
}

/// Reads a private key. Its password is in the environment, or asked for.
pub(super) fn read_private_key(path: &Path) -> Result<PrivateKey, CliError> {
    let password = || match std::env::var(PASSWORD) {
        Ok(password) => Ok(password),
        Err(_) if io::stdin().is_terminal() => ask(&format!("Password of {}: ", path.display()))
            .map_err(|error| OciError::Usage(error.to_string())),
        Err(_) => Err(OciError::Usage(format!(
            "cannot read the key {}: it is encrypted, and there is no password. Set `{PASSWORD}`.",
            path.display()
        ))),
    };
    Ok(PrivateKey::read(path, password)?)
}

/// Reads a public key, whose name is that of its file.
pub(super) fn read_public_key(path: &Path) -> Result<PublicKey, CliError> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(PublicKey::read(&name, path)?)
}

pub(in crate::cli) async fn sign(args: SignArgs, output: Output) -> Result<Exit, CliError> {
    let (access, reference) = (Access::new(&args.access)?, parse(&args.reference)?);
    let annotations = parse_annotations(&args.annotation)?;
    let Some(digest) = reference.digest else {
        let (digest, _) = access.resolve_tag(&reference).await.map_err(about(&reference))?;
        return Err(CliError::Usage(format!(
            "{reference}: cannot sign a tag, because it may move. It names {digest} now: sign {}",
            reference.with_digest(digest)
        )));
    };
    let repository = access.open(&reference)?;
    let subject = Subject::read(&repository, &digest).await.map_err(about(&reference))?;
    if args.payload {
        let mut out = output.writer();
        out.write_all(&subject.bytes_to_sign(args.format, &annotations))?;
        out.flush()?;
        return Ok(Exit::Done);
    }
    // OK because the arguments require it otherwise.
    let path = args.key.as_deref().unwrap_or(Path::new(""));
    let signed_by = match (&args.attach, &args.signature) {
        (Some(signed), Some(signature)) => {
            let key = read_public_key(path)?;
            let bytes = read_bounded(signed, MAX_BYTES).map_err(FileError::of::<CliError>("read", signed))?;
            let text =
                read_text(signature, MAX_BYTES).map_err(FileError::of::<CliError>("read", signature))?;
            subject.attach(&repository, &key, &bytes, &text).await.map_err(about(&reference))?;
            key.hint().to_owned()
        }
        _ => {
            let key = read_private_key(path)?;
            let signing = subject.sign(&repository, &key, &annotations, args.format);
            signing.await.map_err(about(&reference))?;
            key.public().hint().to_owned()
        }
    };
    output.print_object(&SignLine { reference: reference.to_string(), manifest: digest, signed_by })?;
    Ok(Exit::Done)
}
