//! The command `codec new`, which creates the project of a codec.

use std::path::Path;
use std::{fs, io};

use serde::Serialize;

use crate::authors::project_files;
use crate::cli::args::NewArgs;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::file::FileError;

/// What `codec new` prints.
#[derive(Serialize)]
struct NewLine {
    folder: String,
    files: usize,
    next: String,
}

pub(super) fn create(args: &NewArgs, output: Output) -> Result<Exit, CliError> {
    let folder = args.folder.as_path();
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let files = project_files(args.lang, args.kind, &name).map_err(CliError::Usage)?;
    fs::create_dir(folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            CliError::Usage(format!("{} already exists: choose another name", folder.display()))
        }
        _ => FileError::of("create", folder)(error),
    })?;
    for (path, text) in &files {
        write(&folder.join(path), text)?;
    }
    output.print_object(&NewLine {
        folder: folder.display().to_string(),
        files: files.len(),
        next: format!("read {}", folder.join("README.md").display()),
    })?;
    Ok(Exit::Done)
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(FileError::of::<CliError>("create", parent))?;
    fs::write(path, text).map_err(FileError::of::<CliError>("write", path))
}
