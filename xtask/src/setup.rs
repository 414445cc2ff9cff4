//! Installs what the other commands need: a Rust toolchain that builds for WebAssembly, compilers for other
//! languages, cargo-deny and valgrind; Java, Maven, Apache Kafka and Python packages for tests against a real broker; perf and inferno
//! for profiles; the peers for the bench.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Outcome, cargo, command, output, root, run, say, succeeds, target};
use crate::unpacked::{ensure_unpacked, ensure_unpacked_with};

/// The target that guests are built for. It has no WASI.
pub(crate) const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// Debian's Rust compiler and cargo, the source of the standard library in the same version, and a linker.
const DEBIAN_RUST: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-22"];

/// Debian's Java, with the compiler that the tests' Java sources need, and Maven.
const DEBIAN_JAVA: [&str; 2] = ["openjdk-17-jdk-headless", "maven"];

/// Debian's valgrind.
const DEBIAN_VALGRIND: [&str; 1] = ["valgrind"];

/// Debian's curl.
const DEBIAN_CURL: [&str; 1] = ["curl"];

/// The package with the command of OpenSSL.
const DEBIAN_OPENSSL: [&str; 1] = ["openssl"];

/// Debian's buildah, which builds images without a daemon.
const DEBIAN_BUILDAH: [&str; 1] = ["buildah"];

/// Debian's Python with virtual environments.
const DEBIAN_PYTHON: [&str; 1] = ["python3-venv"];

/// The Python packages that the tests need.
const PYTHON_REQUIREMENTS: &str = "tests/interop/requirements.txt";

/// A Python package whose sources contain public test data of a format.
struct TestData {
    name: &'static str,
    version: &'static str,
    /// Further arguments of `pip download`, which runs the package's build to read its metadata.
    arguments: &'static [&'static str],
}

const PUBLIC_DATA: [TestData; 2] = [
    // requirements.txt installs what its build needs.
    TestData { name: "fastavro", version: "1.13.1", arguments: &["--no-build-isolation"] },
    TestData { name: "jsonschema", version: "4.26.0", arguments: &[] },
];

/// The Python packages that contain compilers for components in other languages than Rust.
const GUEST_REQUIREMENTS: &str = "guest-sdk/requirements.txt";

/// Debian's perf.
const DEBIAN_PERF: [&str; 1] = ["linux-perf"];

/// The version of cargo-deny.
const CARGO_DENY: &str = "0.20.2";

/// The version of inferno.
const INFERNO: &str = "0.12.8";

/// Where the compiler for guests comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The toolchain that runs this program, with the target installed.
    Rustup,
    /// Debian's packages. The standard library is built from source.
    Debian,
}

impl Toolchain {
    /// Returns a `cargo build` that builds guests.
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
                    // These belong to the toolchain that runs this program, not to Debian's.
                    .env_remove("RUSTDOC")
                    .env_remove("RUSTC_WRAPPER")
                    .env_remove("LD_LIBRARY_PATH");
                cargo
            }
        }
    }
}

/// The program crane, which copies artifacts between registries.
const CRANE: &str = "github.com/google/go-containerregistry/cmd/crane@v0.22.1";

/// Installs what most commands need. `guard`, `memcheck`, `profile` and `bench --peers` install the rest.
pub(crate) fn setup() -> Outcome {
    check_prerequisites()?;
    let toolchain = ensure_wasm_toolchain()?;
    say(&format!("building guests with the toolchain of {toolchain:?}"));
    ensure_cargo_deny()?;
    ensure_kafka()?;
    ensure_guest_tools()?;
    // The documentation calls the server with it, and its blocks are tests.
    ensure_program("curl", "--version", &DEBIAN_CURL)?;
    // A key that another program holds signs a codec.
    ensure_program("openssl", "version", &DEBIAN_OPENSSL)?;
    // The documentation builds images with codecs.
    ensure_program("buildah", "--version", &DEBIAN_BUILDAH)?;
    // The server is tested behind nginx, and promtool checks its metrics.
    // Codecs are pushed to Debian's registry, and copied by skopeo.
    let unpacked = [("nginx", "nginx"), ("prometheus", "promtool"), ("docker-registry", "docker-registry")];
    for (package, program) in unpacked {
        ensure_unpacked(package, program)?;
    }
    ensure_unpacked_with("skopeo", "skopeo", &["libgpgme11", "libassuan0"])?;
    ensure_crane()?;
    let pom = root().join("tests/interop/pom.xml");
    ensure_java_libraries(&pom, &target().join("tools/java"), "Apicurio's serializers for Java")?;
    ensure_python_packages()?;
    PUBLIC_DATA.iter().try_for_each(ensure_test_data)
}

/// Checks for the programs that nothing here installs, because this user may lack the rights for that.
pub(crate) fn check_prerequisites() -> Outcome {
    for (program, name, package) in
        [("cc", "a C compiler", "gcc"), ("make", "make", "make"), ("perl", "perl", "perl")]
    {
        if !succeeds(command(program).arg("--version")) {
            return Err(format!("{name} is missing: install it (Debian: apt-get install {package})"));
        }
    }
    Ok(())
}

/// Finds a toolchain for guests. If this one has no target for them, installs the one that `KTABLES_RUST_WASM`
/// chooses.
pub(crate) fn ensure_wasm_toolchain() -> Outcome<Toolchain> {
    if has_target() {
        return Ok(Toolchain::Rustup);
    }
    match std::env::var("KTABLES_RUST_WASM").as_deref() {
        Ok("rustup") => add_rustup_target(),
        Ok("debian") => ensure_debian_toolchain(),
        Ok(other) => Err(format!("KTABLES_RUST_WASM={other} is not supported: use rustup or debian")),
        Err(_) => add_rustup_target().or_else(|error| {
            say(&format!("{error}; trying Debian's packages"));
            ensure_debian_toolchain().map_err(|debian| {
                format!(
                    "no Rust toolchain for WebAssembly.\n  rustup: {error}\n  Debian: {debian}\n\
                     Install one: rustup target add {WASM_TARGET}"
                )
            })
        }),
    }
}

/// Returns true if the toolchain that runs this program has the target's standard library.
fn has_target() -> bool {
    let mut rustc = command(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let folder = output(rustc.args(["--print", "target-libdir", "--target", WASM_TARGET]));
    folder.is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

/// Adds the target to rustup's toolchain.
fn add_rustup_target() -> Outcome<Toolchain> {
    say(&format!("installing: rustup target add {WASM_TARGET}"));
    run(command("rustup").args(["target", "add", WASM_TARGET]))?;
    if has_target() { Ok(Toolchain::Rustup) } else { Err(format!("rustup did not install {WASM_TARGET}")) }
}

/// Installs Debian's compiler packages, unless they are there.
fn ensure_debian_toolchain() -> Outcome<Toolchain> {
    let installed = |package: &&str| succeeds(command("dpkg-query").args(["-W", package]));
    if !DEBIAN_RUST.iter().all(installed) {
        apt_install(&DEBIAN_RUST)?;
    }
    Ok(Toolchain::Debian)
}

fn apt_install(packages: &[&str]) -> Outcome {
    say(&format!("installing: apt-get install {}", packages.join(" ")));
    run(command("apt-get").args(["update", "-qq"]))?;
    let mut install = command("apt-get");
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
    // Its output goes where this program's progress goes.
    run(install.env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr()))
}

/// Runs a check, and installs these packages if it fails. Only root on Debian can install them; otherwise the
/// check's error is returned.
fn check_or_install(check: impl Fn() -> Outcome, packages: &[&str]) -> Outcome {
    check().or_else(|missing| {
        let is_root = output(command("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
        if !is_root || !succeeds(command("apt-get").arg("--version")) {
            return Err(missing);
        }
        apt_install(packages).map_err(|error| format!("{missing}\n{error}"))?;
        check()
    })
}

/// Installs Apache Kafka below the target folder, and the Java that runs it.
fn ensure_kafka() -> Outcome {
    check_or_install(ktables_broker::check_requirements, &DEBIAN_JAVA)?;
    if !ktables_broker::is_installed(&target()) {
        say(&format!("installing: Apache Kafka {}", ktables_broker::version()));
    }
    ktables_broker::install(&target())?;
    if !ktables_broker::is_registry_installed(&target()) {
        say(&format!("installing: the schema registry Apicurio {}", ktables_broker::registry_version()));
    }
    ktables_broker::install_registry(&target())
}

/// Installs valgrind, whose callgrind counts instructions, unless it is there.
pub(crate) fn ensure_valgrind() -> Outcome {
    ensure_program("valgrind", "--version", &DEBIAN_VALGRIND)
}

/// Installs a program of Debian, unless it is there, and prints its version with this argument.
fn ensure_program(name: &str, version: &str, packages: &[&str]) -> Outcome {
    let check = || match succeeds(command(name).arg(version)) {
        true => Ok(()),
        false => {
            Err(format!("{name} is missing: install it (Debian: apt-get install {})", packages.join(" ")))
        }
    };
    check_or_install(check, packages)
}

/// Installs the Python packages of the tests.
fn ensure_python_packages() -> Outcome {
    ensure_virtual_environment(PYTHON_REQUIREMENTS, &target().join("tools/python"))
}

/// Unpacks the sources of a Python package below the target folder, unless they are there.
fn ensure_test_data(TestData { name, version, arguments }: &TestData) -> Outcome {
    let folder = target().join("tools/data").join(name);
    // Written last, as `requirements.txt` is.
    let installed = folder.join("version.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == *version) {
        return Ok(());
    }
    say(&format!("installing: the sources of {name} {version}"));
    // OK to ignore: there is no folder before the first installation.
    let _ = fs::remove_dir_all(&folder);
    let error = |error| format!("cannot write {}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(error)?;
    let mut pip = command(target().join("tools/python/bin/python"));
    pip.args([
        "-m",
        "pip",
        "download",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-binary",
        name,
    ]);
    run(pip.args(*arguments).arg("-d").arg(&folder).arg(format!("{name}=={version}")))?;
    let archive = folder.join(format!("{name}-{version}.tar.gz"));
    let unpack = ["--strip-components=1", "--no-same-owner", "-xzf"];
    run(command("tar").arg("-C").arg(&folder).args(unpack).arg(&archive))?;
    fs::write(&installed, version).map_err(error)
}

/// Builds crane, which copies what is in registries, unless it is there.
fn ensure_crane() -> Outcome {
    let (folder, go) = (target().join("tools/crane"), ensure_guest_tools()?.join("bin/go"));
    if folder.join("crane").is_file() {
        return Ok(());
    }
    say(&format!("building: {CRANE}"));
    let mut install = command(go);
    install.args(["install", CRANE]).current_dir(target()).envs([
        ("GOFLAGS", "-modcacherw"),
        ("GOTOOLCHAIN", "local"),
        ("CGO_ENABLED", "0"),
    ]);
    let (path, cache) = (target().join("tools/go"), target().join("go"));
    run(install.env("GOBIN", folder).env("GOPATH", path).env("GOCACHE", cache))
}

/// Installs the compilers for guests in other languages than Rust. Returns the folder that has them in `bin`.
pub(crate) fn ensure_guest_tools() -> Outcome<PathBuf> {
    let folder = target().join("tools/guests");
    ensure_virtual_environment(GUEST_REQUIREMENTS, &folder)?;
    Ok(folder)
}

/// Installs the packages of a `package.json` with the npm of the guests' tools. Returns the folder that has them in
/// `node_modules`.
pub(crate) fn ensure_npm_packages(tools: &Path, manifest: &Path) -> Outcome<PathBuf> {
    let folder = target().join("tools/npm");
    // Written last, as `requirements.txt` is.
    let installed = folder.join("installed.json");
    let text = fs::read(manifest).map_err(|error| format!("cannot read {}: {error}", manifest.display()))?;
    if fs::read(&installed).is_ok_and(|installed| installed == text) {
        return Ok(folder);
    }
    say(&format!("installing: the npm packages of {}", manifest.display()));
    // OK to ignore: usually there is none.
    let _ = fs::remove_file(&installed);
    let write = |file: &Path| {
        fs::write(file, &text).map_err(|error| format!("cannot write {}: {error}", file.display()))
    };
    fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    write(&folder.join("package.json"))?;
    let mut npm = command(tools.join("bin/npm"));
    npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).stdout(std::io::stderr());
    // npm starts `node`.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(tools.join("bin")).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(folders).map_err(|error| format!("cannot extend PATH: {error}"))?;
    run(npm.env("PATH", path).current_dir(&folder))?;
    write(&installed)?;
    Ok(folder)
}

/// Creates a Python virtual environment with these packages, unless it is there.
fn ensure_virtual_environment(requirements: &str, folder: &Path) -> Outcome {
    let source = root().join(requirements);
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let text = read(&source)?;
    // Written last, so that an interrupted installation does not have it.
    let installed = folder.join("requirements.txt");
    if read(&installed).is_ok_and(|installed| installed == text) {
        return Ok(());
    }
    check_or_install(check_venv, &DEBIAN_PYTHON)?;
    say(&format!("installing: the Python packages of {requirements}"));
    run(command("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    let mut pip = command(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(source);
    run(&mut pip)?;
    fs::write(&installed, text).map_err(|error| format!("cannot write {}: {error}", installed.display()))
}

/// Installs the peers that the bench compares this project with, below the target folder.
pub(crate) fn ensure_peers() -> Outcome {
    let folder = target().join("tools/peers");
    let sources = root().join("tests/benches/peers");
    ensure_virtual_environment("tests/benches/peers/requirements.txt", &folder.join("python"))?;
    let (library, classes) = (folder.join("lib"), folder.join("classes"));
    ensure_java_libraries(&sources.join("pom.xml"), &library, "Kafka Streams and KCache")?;
    let class_path = format!("{}/*", library.display());
    run(command("javac").args(["-cp", &class_path, "-d"]).arg(&classes).arg(sources.join("Replay.java")))
}

/// Copies the Java libraries that a POM names into a folder, unless they are there.
fn ensure_java_libraries(pom: &Path, library: &Path, what: &str) -> Outcome {
    // Written last, as `requirements.txt` is.
    let installed = library.join("pom.xml");
    let text = fs::read(pom).map_err(|error| format!("cannot read {}: {error}", pom.display()))?;
    if fs::read(&installed).is_ok_and(|installed| installed == text) {
        return Ok(());
    }
    say(&format!("installing: {what}"));
    // OK to ignore: there is no folder before the first installation.
    let _ = fs::remove_dir_all(library);
    let mut mvn = command("mvn");
    mvn.args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-f"]).arg(pom);
    run(mvn.arg(format!("-DoutputDirectory={}", library.display())))?;
    fs::write(&installed, text).map_err(|error| format!("cannot write {}: {error}", installed.display()))
}

/// Checks that Python can create virtual environments. Debian's Python may be installed without that.
fn check_venv() -> Outcome {
    if succeeds(command("python3").args(["-c", "import venv, ensurepip"])) {
        return Ok(());
    }
    Err("Python 3 with venv is missing: install it (Debian: apt-get install python3-venv)".to_owned())
}

/// Installs cargo-deny. Returns its path.
pub(crate) fn ensure_cargo_deny() -> Outcome<PathBuf> {
    Ok(ensure_crate("cargo-deny", CARGO_DENY, "cargo-deny")?.join("cargo-deny"))
}

/// Installs inferno, which draws flame graphs. Returns the folder of its programs.
pub(crate) fn ensure_inferno() -> Outcome<PathBuf> {
    ensure_crate("inferno", INFERNO, "inferno-flamegraph")
}

/// Installs the programs that generate load for the server, unless they are there.
pub(crate) fn ensure_load_generators() -> Outcome {
    let check = || match succeeds(command("which").arg("wrk")) {
        true => Ok(()),
        false => Err("wrk is missing: install it (Debian: apt-get install wrk)".to_owned()),
    };
    check_or_install(check, &["wrk"])?;
    ensure_program("h2load", "--version", &["nghttp2-client"])
}

/// Installs perf, which samples where a program spends its time, unless it is there.
pub(crate) fn ensure_perf() -> Outcome {
    let check = || match succeeds(command("perf").arg("--version")) {
        true => Ok(()),
        false => Err("perf is missing: install it (Debian: apt-get install linux-perf)".to_owned()),
    };
    check_or_install(check, &DEBIAN_PERF)
}

/// Installs a crate's programs below the target folder, and returns their folder. `program` is one of them.
/// Cargo does nothing if this version is already installed.
fn ensure_crate(name: &str, version: &str, program: &str) -> Outcome<PathBuf> {
    let tools = target().join("tools");
    let programs = tools.join("bin");
    if !programs.join(program).exists() {
        say(&format!("installing: {name} {version}"));
    }
    let root = tools.display().to_string();
    // Without optimization: they run for a second, but optimizing them would take many.
    let mut install = cargo(["install", name, "--version", version, "--locked", "--debug", "--quiet"]);
    run(install.args(["--root", &root]).env("CARGO_TARGET_DIR", tools.join("build")))?;
    Ok(programs)
}
