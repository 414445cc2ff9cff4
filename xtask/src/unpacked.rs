//! Programs of Debian's packages, unpacked below the target folder. Nothing is installed, so no service starts, and no
//! rights are needed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::{Outcome, command, output, run, say, target};

/// The folder of a package's programs, in the package.
const PROGRAMS: [&str; 2] = ["usr/bin", "usr/sbin"];

/// Unpacks a package, unless it is there, and returns the path of one of its programs.
pub(crate) fn ensure_unpacked(package: &str, program: &str) -> Outcome<PathBuf> {
    ensure_unpacked_with(package, program, &[])
}

/// Unpacks a package as [`ensure_unpacked`] does, together with packages of the libraries that it needs.
pub(crate) fn ensure_unpacked_with(package: &str, program: &str, libraries: &[&str]) -> Outcome<PathBuf> {
    let folder = target().join("tools/debian").join(package);
    if let Some(found) = find(&folder, program) {
        return Ok(found);
    }
    say(&format!("unpacking: Debian's package {package}"));
    let failed = |error: std::io::Error| format!("cannot create {}: {error}", folder.display());
    // OK to ignore: usually there is none. An interrupted download may have left one.
    let _ = fs::remove_dir_all(&folder);
    let downloads = folder.join("download");
    fs::create_dir_all(&downloads).map_err(failed)?;
    let packages = [&[package], libraries].concat();
    let download =
        || run(command("apt-get").args(["download", "-qq"]).args(&packages).current_dir(&downloads));
    // Without lists of packages, apt knows none.
    download().or_else(|_| {
        run(command("apt-get").args(["update", "-qq"]))?;
        download()
    })?;
    let files: Vec<_> = fs::read_dir(&downloads).map_err(failed)?.flatten().collect();
    if files.len() != packages.len() {
        return Err(format!("apt-get downloaded {} of the packages {}", files.len(), packages.join(", ")));
    }
    for file in files {
        output(command("dpkg").arg("-x").arg(file.path()).arg(&folder))?;
    }
    find(&folder, program).ok_or_else(|| format!("Debian's package {package} has no {program}"))
}

fn find(folder: &Path, program: &str) -> Option<PathBuf> {
    PROGRAMS.iter().map(|programs| folder.join(programs).join(program)).find(|path| path.is_file())
}
