//! Runs programs, and prints what happens.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// A result whose error is a text for the person who typed the command.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// Prints a line to standard error.
pub(crate) fn say(text: &str) {
    // OK to ignore: without a standard error, there is nowhere to report it.
    let _ = writeln!(stderr(), "{text}");
}

/// Returns the project's folder: that of the clone in which cargo runs this program. Clones may share a
/// target folder, so the program may have been built in another one.
pub(crate) fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    // OK because xtask lies in the project's folder.
    Path::new(&xtask).parent().expect("a parent").to_owned()
}

/// Returns the folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Returns the path of the `ktables` command. It exists after `build_ktables`.
pub(crate) fn ktables() -> PathBuf {
    target().join("release/ktables")
}

/// Makes a component of a core module.
pub(crate) fn componentize(core: &Path, component: &Path) -> Outcome {
    run(command(ktables()).args(["codec", "build"]).arg(core).arg("-o").arg(component))
}

/// Returns a command that runs in the project's folder. It does not see what cargo told this program about its own
/// package: some build scripts run again whenever that changes, so `cargo build` and a cargo that this program starts would
/// undo each other's work.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    let is_of_package = |name: &OsStr| {
        name.to_str()
            .is_some_and(|name| name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_PKG_"))
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_package(name)) {
        command.env_remove(name);
    }
    command
}

/// Returns a command of the cargo that runs this program.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Runs `build`, a `cargo test` or `cargo bench`, only to compile. Returns the path of the program `name`.
pub(crate) fn build_program(name: &str, build: &mut Command) -> Outcome<PathBuf> {
    let messages = output(build.args(["--no-run", "--message-format=json"]))?;
    let is_program =
        |path: &&Path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
    let executables = messages
        .lines()
        .rev()
        .filter_map(|line| Some(Path::new(line.split_once(r#""executable":""#)?.1.split_once('"')?.0)));
    let program = executables.into_iter().find(is_program);
    program.map(Path::to_owned).ok_or_else(|| format!("cargo did not report the path of {name}"))
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| start_error(command, &error))?;
    check_status(command, status)
}

/// Checks that a command succeeded, now that it has ended.
fn check_status(command: &Command, status: ExitStatus) -> Outcome {
    if status.success() { Ok(()) } else { Err(format!("{} failed ({status})", command_line(command))) }
}

/// Runs a command and other work at the same time, and waits for both.
pub(crate) fn run_beside(command: &mut Command, meanwhile: impl FnOnce() -> Outcome) -> Outcome {
    let mut running = command.spawn().map_err(|error| start_error(command, &error))?;
    let outcome = meanwhile().inspect_err(|error| say(&format!("error: {error}")));
    let status = running.wait().map_err(|error| start_error(command, &error))?;
    match (outcome, check_status(command, status)) {
        (Err(one), Err(other)) => Err(format!("{one}\n{other}")),
        (outcome, status) => outcome.and(status),
    }
}

/// Runs a command to its end. Returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| start_error(command, &error))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{} failed ({})", command_line(command), output.status))
    }
}

/// Runs a command to its end. Writes its standard output to a file, and drops its standard error.
pub(crate) fn run_into_file(command: &mut Command, file: &Path) -> Outcome {
    let created = File::create(file).map_err(|error| format!("cannot create {}: {error}", file.display()))?;
    run(command.stdout(created).stderr(Stdio::null()))
}

/// Returns true if a command can be run and succeeds. Its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Returns a command's program, without its folder, and its arguments as one line of text.
pub(crate) fn command_line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = [program].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Describes why a command could not be started.
fn start_error(command: &Command, error: &std::io::Error) -> String {
    let program = command.get_program().to_string_lossy();
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("cannot run {program}: {error}"),
    }
}
