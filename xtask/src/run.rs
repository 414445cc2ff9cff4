//! Running programs and telling what happens.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What went wrong, in words for whoever typed the command.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// Tells something.
pub(crate) fn say(text: &str) {
    // Nothing is left to tell anybody if this fails.
    let _ = writeln!(stderr(), "{text}");
}

/// The project's folder: the one that cargo runs this in, which need not be the one
/// it was built in.
pub(crate) fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    // OK because xtask lies in the project's folder.
    Path::new(&xtask).parent().expect("a parent").to_owned()
}

/// The folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The `ktables` command, once built.
pub(crate) fn ktables() -> PathBuf {
    target().join("release/ktables")
}

/// A command in the project's folder.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs this.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Has cargo build a test or bench program of this name, not run it; where it is.
pub(crate) fn built(name: &str, build: &mut Command) -> Outcome<PathBuf> {
    let messages = output(build.args(["--no-run", "--message-format=json"]))?;
    let is_it = |path: &&Path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
    let executables = messages
        .lines()
        .rev()
        .filter_map(|line| Some(Path::new(line.split_once(r#""executable":""#)?.1.split_once('"')?.0)));
    let program = executables.into_iter().find(is_it);
    program.map(Path::to_owned).ok_or_else(|| format!("cargo did not say where {name} is"))
}

/// Runs to the end.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| missing(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed ({status})", shown(command))) }
}

/// Runs to the end; what it printed.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| missing(command, &error))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{} failed ({})", shown(command), output.status))
    }
}

/// Runs to the end; what it printed is in a file then.
pub(crate) fn into_file(command: &mut Command, file: &Path) -> Outcome {
    let created = File::create(file).map_err(|error| format!("cannot create {}: {error}", file.display()))?;
    run(command.stdout(created).stderr(Stdio::null()))
}

/// Whether it runs and succeeds, silently.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = [program].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn missing(command: &Command, error: &std::io::Error) -> String {
    let program = command.get_program().to_string_lossy();
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("cannot run {program}: {error}"),
    }
}
