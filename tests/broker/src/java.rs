//! Finds the Java on this machine, checks its version, and runs it.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The oldest Java that Kafka's broker runs on since 4.0.
const OLDEST: u32 = 17;

/// Flags that make short-lived processes start fast. Most of a broker's start is JIT compilation otherwise.
pub(crate) const FAST_START: [&str; 3] = ["-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:+UseSerialGC"];

/// How many lines of a failed program's output an error shows.
const TAIL: usize = 30;

/// Checks that the machine has what is needed to install and run a broker: a JDK, whose compiler the tests'
/// Java sources need, and Maven.
///
/// # Errors
///
/// If something is missing. The error says what to install.
pub fn check_requirements() -> Result<(), String> {
    let advice = format!(
        "install a JDK of version {OLDEST} or later (Debian: apt-get install openjdk-17-jdk-headless), \
         and have `java` on the PATH or JAVA_HOME set"
    );
    let modules = run(jdk("java").arg("--list-modules"))
        .map_err(|error| format!("Java {OLDEST} or later is missing ({error}): {advice}"))?;
    match compiler_version(&modules) {
        None => return Err(format!("the installed Java has no compiler: {advice}")),
        Some(version) if version < OLDEST => {
            return Err(format!("the installed Java has version {version}: {advice}"));
        }
        Some(_) => {}
    }
    run(Command::new("mvn").arg("--version"))
        .map_err(|error| format!("Maven is missing ({error}): install it (Debian: apt-get install maven)"))?;
    Ok(())
}

/// Returns a command that runs a program of the JDK: of the one in JAVA_HOME, as Maven does, or else on the
/// PATH.
pub(crate) fn jdk(program: &str) -> Command {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin").join(program));
    Command::new(home.filter(|path| path.exists()).unwrap_or_else(|| program.into()))
}

/// Runs a command to its end. Returns what it wrote to standard output.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("cannot run {program}: {error}"),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} failed ({}):\n{}", output.status, output_tail(&output)))
}

/// Returns the last lines of what a program wrote.
fn output_tail(output: &Output) -> String {
    let both = [&*output.stdout, &*output.stderr].concat();
    tail(&String::from_utf8_lossy(&both))
}

/// Returns the last [`TAIL`] lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// Returns the version of the compiler in a JDK's list of modules, or `None` if there is no compiler.
fn compiler_version(modules: &str) -> Option<u32> {
    let version = modules.lines().find_map(|line| line.strip_prefix("jdk.compiler@"))?;
    version.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_version_is_the_first_number() {
        let check = |modules: &str, expected| assert_eq!(compiler_version(modules), expected, "{modules}");
        check("java.base@17.0.15\njdk.compiler@17.0.15\n", Some(17));
        check("jdk.compiler@25-ea\n", Some(25));
        check("java.compiler@21\n", None);
        check("", None);
    }

    #[test]
    fn tail_returns_the_last_lines() {
        let lines: Vec<String> = (0..100).map(|line| line.to_string()).collect();
        let tail = tail(&lines.join("\n"));
        assert!(tail.starts_with("70\n") && tail.ends_with("\n99"), "{tail}");
        assert_eq!(super::tail("one"), "one");
    }
}
