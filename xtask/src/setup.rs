//! What has to be on the machine: a C compiler, a Rust toolchain that builds for
//! WebAssembly, cargo-deny, valgrind; for tests against a real broker Java, Maven, Apache
//! Kafka and Python packages; for profiles perf and inferno, for the bench its peers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Outcome, cargo, command, output, root, run, say, succeeds, target};

/// What guests are built for: no WASI at all.
pub(crate) const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// Debian's compiler, and the source of its standard library, of one version.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-22"];

/// Debian's Java, with the compiler that runs the tests' Java sources, and Maven.
const DEBIAN_JAVA: [&str; 2] = ["openjdk-17-jdk-headless", "maven"];

/// What counts instructions.
const DEBIAN_VALGRIND: [&str; 1] = ["valgrind"];

/// Debian's Python with virtual environments.
const DEBIAN_PYTHON: [&str; 1] = ["python3-venv"];

/// What the tests need of Python.
const PYTHON_REQUIREMENTS: &str = "tests/interop/requirements.txt";

/// Debian's perf.
const DEBIAN_PERF: [&str; 1] = ["linux-perf"];

/// The version of cargo-deny that is used.
const CARGO_DENY: &str = "0.20.2";

/// The version of inferno that is used.
const INFERNO: &str = "0.12.8";

/// Where the compiler for guests comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The toolchain that runs this, with the target installed.
    Rustup,
    /// Debian's packages; the standard library is built from source.
    Debian,
}

impl Toolchain {
    /// A cargo that builds guests.
    pub(crate) fn cargo(self) -> Command {
        match self {
            Self::Rustup => cargo(["build"]),
            Self::Debian => {
                let mut cargo = command("/usr/bin/cargo");
                cargo
                    .args(["build", "-Zbuild-std=std,panic_abort"])
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1")
                    // These packages have no `rust-lld`.
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "/usr/lib/llvm-22/bin/wasm-ld")
                    // Of the toolchain that runs this, not of Debian's.
                    .env_remove("RUSTDOC")
                    .env_remove("RUSTC_WRAPPER")
                    .env_remove("LD_LIBRARY_PATH");
                cargo
            }
        }
    }
}

/// Everything the other commands need.
pub(crate) fn setup() -> Outcome {
    prerequisites()?;
    let toolchain = wasm_toolchain()?;
    say(&format!("guests are built with the toolchain of {toolchain:?}"));
    cargo_deny()?;
    kafka()?;
    python()
}

/// What nothing here installs, because it takes more than this user's rights.
pub(crate) fn prerequisites() -> Outcome {
    for (program, what, package) in
        [("cc", "a C compiler", "gcc"), ("make", "make", "make"), ("perl", "perl", "perl")]
    {
        if !succeeds(command(program).arg("--version")) {
            return Err(format!("{what} is missing: install it (Debian: apt-get install {package})"));
        }
    }
    Ok(())
}

/// Finds a toolchain for guests, or installs one.
pub(crate) fn wasm_toolchain() -> Outcome<Toolchain> {
    if has_target() {
        return Ok(Toolchain::Rustup);
    }
    match std::env::var("KTABLES_RUST_WASM").as_deref() {
        Ok("rustup") => rustup(),
        Ok("debian") => debian(),
        Ok(other) => Err(format!("KTABLES_RUST_WASM={other}: write rustup or debian")),
        Err(_) => rustup().or_else(|error| {
            say(&format!("{error}; trying Debian's packages"));
            debian().map_err(|debian| {
                format!(
                    "no Rust toolchain for WebAssembly.\n  rustup: {error}\n  Debian: {debian}\n\
                     Install one: rustup target add {WASM_TARGET}"
                )
            })
        }),
    }
}

/// Whether the toolchain that runs this has the target's standard library.
fn has_target() -> bool {
    let mut rustc = command(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let folder = output(rustc.args(["--print", "target-libdir", "--target", WASM_TARGET]));
    folder.is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

fn rustup() -> Outcome<Toolchain> {
    say(&format!("installing: rustup target add {WASM_TARGET}"));
    run(command("rustup").args(["target", "add", WASM_TARGET]))?;
    if has_target() { Ok(Toolchain::Rustup) } else { Err(format!("rustup did not install {WASM_TARGET}")) }
}

fn debian() -> Outcome<Toolchain> {
    let installed = |package: &&str| succeeds(command("dpkg-query").args(["-W", package]));
    if !DEBIAN_PACKAGES.iter().all(installed) {
        apt_install(&DEBIAN_PACKAGES)?;
    }
    Ok(Toolchain::Debian)
}

fn apt_install(packages: &[&str]) -> Outcome {
    say(&format!("installing: apt-get install {}", packages.join(" ")));
    run(command("apt-get").args(["update", "-qq"]))?;
    let mut install = command("apt-get");
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
    // What it says it says where progress goes.
    run(install.env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr()))
}

/// Installs these packages if something is missing without them, where that is
/// possible: on Debian, as root. What is missing then is an error.
fn require(check: impl Fn() -> Outcome, packages: &[&str]) -> Outcome {
    check().or_else(|missing| {
        let root = output(command("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
        if !root || !succeeds(command("apt-get").arg("--version")) {
            return Err(missing);
        }
        apt_install(packages).map_err(|error| format!("{missing}\n{error}"))?;
        check()
    })
}

/// Apache Kafka below the target folder, and the Java that runs it.
fn kafka() -> Outcome {
    require(ktables_broker::requirements, &DEBIAN_JAVA)?;
    if !ktables_broker::is_installed(&target()) {
        say(&format!("installing: Apache Kafka {}", ktables_broker::version()));
    }
    ktables_broker::install(&target())
}

/// Valgrind, whose callgrind counts instructions.
pub(crate) fn valgrind() -> Outcome {
    let check = || match succeeds(command("valgrind").arg("--version")) {
        true => Ok(()),
        false => Err("valgrind is missing: install it (Debian: apt-get install valgrind)".to_owned()),
    };
    require(check, &DEBIAN_VALGRIND)
}

/// The Python packages of the tests.
fn python() -> Outcome {
    virtual_environment(PYTHON_REQUIREMENTS, &target().join("tools/python"))
}

/// A virtual environment below the target folder with these Python packages.
fn virtual_environment(requirements: &str, folder: &Path) -> Outcome {
    let wanted = root().join(requirements);
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let text = read(&wanted)?;
    // Written last: an interrupted installation has none.
    let installed = folder.join("requirements.txt");
    if read(&installed).is_ok_and(|installed| installed == text) {
        return Ok(());
    }
    require(has_venv, &DEBIAN_PYTHON)?;
    say(&format!("installing: the Python packages of {requirements}"));
    run(command("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    let mut pip = command(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(wanted);
    run(&mut pip)?;
    fs::write(&installed, text).map_err(|error| format!("cannot write {}: {error}", installed.display()))
}

/// What the bench compares this project with, below the target folder.
pub(crate) fn peers() -> Outcome {
    let folder = target().join("tools/peers");
    let sources = root().join("tests/benches/peers");
    virtual_environment("tests/benches/peers/requirements.txt", &folder.join("python"))?;
    let (library, classes) = (folder.join("lib"), folder.join("classes"));
    // As with Python's packages, what the installation is of is written last.
    let installed = folder.join("pom.xml");
    let pom = fs::read(sources.join("pom.xml")).map_err(|error| format!("the peers' pom.xml: {error}"))?;
    if !fs::read(&installed).is_ok_and(|installed| installed == pom) {
        say("installing: Kafka Streams and KCache");
        // Nothing is there the first time.
        let _ = fs::remove_dir_all(&library);
        let mut mvn = command("mvn");
        mvn.args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-f"]);
        mvn.arg(sources.join("pom.xml"));
        run(mvn.arg(format!("-DoutputDirectory={}", library.display())))?;
        fs::write(&installed, pom)
            .map_err(|error| format!("cannot write {}: {error}", installed.display()))?;
    }
    let class_path = format!("{}/*", library.display());
    run(command("javac").args(["-cp", &class_path, "-d"]).arg(&classes).arg(sources.join("Replay.java")))
}

/// Whether Python can make virtual environments: Debian's may come without them.
fn has_venv() -> Outcome {
    if succeeds(command("python3").args(["-c", "import venv, ensurepip"])) {
        return Ok(());
    }
    Err("Python 3 with venv is missing: install it (Debian: apt-get install python3-venv)".to_owned())
}

/// cargo-deny.
pub(crate) fn cargo_deny() -> Outcome<PathBuf> {
    Ok(installed("cargo-deny", CARGO_DENY, "cargo-deny")?.join("cargo-deny"))
}

/// The folder of inferno's programs, which draw flame graphs.
pub(crate) fn inferno() -> Outcome<PathBuf> {
    installed("inferno", INFERNO, "inferno-flamegraph")
}

/// perf, which samples where a program is.
pub(crate) fn perf() -> Outcome {
    let check = || match succeeds(command("perf").arg("--version")) {
        true => Ok(()),
        false => Err("perf is missing: install it (Debian: apt-get install linux-perf)".to_owned()),
    };
    require(check, &DEBIAN_PERF)
}

/// The folder of a crate's programs, installed below the target folder; one of them is
/// named. Cargo knows what it installed, and in which version.
fn installed(name: &str, version: &str, program: &str) -> Outcome<PathBuf> {
    let tools = target().join("tools");
    let programs = tools.join("bin");
    if !programs.join(program).exists() {
        say(&format!("installing: {name} {version}"));
    }
    let root = tools.display().to_string();
    // Without optimization: they run for a second, and compile for many.
    let mut install = cargo(["install", name, "--version", version, "--locked", "--debug", "--quiet"]);
    run(install.args(["--root", &root]).env("CARGO_TARGET_DIR", tools.join("build")))?;
    Ok(programs)
}
