//! A real schema registry for tests and for `cargo xtask registry`: Apicurio, with the API of Confluent's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::detached::ServerKind;
use crate::folder::{self, ADDRESS_FILE, LOG_FILE};
use crate::guardian::Guardian;
use crate::install::{between, io_error, kafka_folder, remove_folder, with_install_lock, write_file};
use crate::java::{FAST_START, check_requirements, jdk, run, tail};
use crate::jvm::Jvm;
use crate::ports::{address, pick_port};
use crate::probe::{REGISTRY_API, is_registry_answering};

/// The artifact, in whose version Maven fetches it.
const POM: &str = include_str!("../../pom.xml");

/// The heap: it holds a test's schemas in memory.
const HEAP: [&str; 2] = ["-Xms64m", "-Xmx256m"];

/// How long it may take to start. It takes 6 to 12 seconds, and a multiple of that on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How often it is probed while it starts.
const INTERVAL: Duration = Duration::from_millis(50);

/// How long one probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A schema registry that belongs to the caller. It is killed and its folder removed when this is dropped, and when the
/// caller's process ends in whatever way.
#[derive(Debug)]
pub struct SchemaRegistry {
    installation: PathBuf,
    folder: PathBuf,
    port: u16,
    /// `None` while it is down.
    jvm: Option<Jvm>,
    guardian: Option<Guardian>,
}

impl SchemaRegistry {
    /// Starts a registry with its folder below a target folder, and waits until it answers. Installs it there if it is
    /// missing. Its schemas are in memory: they are gone when it is stopped. Without a name, it has one that no other has.
    ///
    /// # Errors
    ///
    /// If it cannot be started. The error has the end of its log.
    pub fn start(target: &Path, name: Option<&str>) -> Result<Self, String> {
        let installation = ensure(target)?;
        let name = name.map_or_else(folder::unique_name, str::to_owned);
        let folder = folder::claim(target, ServerKind::SchemaRegistry, &name)?;
        let guardian = Some(Guardian::start(&folder)?);
        let mut registry = Self { installation, folder, port: pick_port()?, jvm: None, guardian };
        write_file(&registry.folder.join(ADDRESS_FILE), registry.address().as_bytes())?;
        registry.restart()?;
        Ok(registry)
    }

    /// The address of its API.
    #[must_use]
    pub fn url(&self) -> String {
        Self::url_at(&self.address())
    }

    /// The address of the API of a registry at this host and port.
    #[must_use]
    pub fn url_at(address: &str) -> String {
        format!("http://{address}{REGISTRY_API}")
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> String {
        address(self.port)
    }

    /// Kills it. Does nothing if it is down.
    ///
    /// # Errors
    ///
    /// If the process cannot be killed.
    pub fn kill(&mut self) -> Result<(), String> {
        self.jvm.take().map_or(Ok(()), Jvm::kill)
    }

    /// Starts it again on the same port, without any schema, and waits until it answers. Kills it first if it is up.
    ///
    /// # Errors
    ///
    /// If it cannot be killed or started.
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill()?;
        let mut java = jdk("java");
        java.args(FAST_START).args(HEAP);
        java.args(["-Dquarkus.http.host=127.0.0.1", &format!("-Dquarkus.http.port={}", self.port)]);
        let program = format!("apicurio-registry-app-{}-runner.jar", registry_version());
        java.arg("-jar").arg(self.installation.join(program));
        let mut jvm = Jvm::start(&java, &self.folder)?;
        let ready = self.wait_until_ready(&mut jvm);
        self.jvm = Some(jvm);
        ready.map_err(|error| {
            let log = fs::read(self.folder.join(LOG_FILE)).unwrap_or_default();
            // OK to ignore: the error of the start matters more than an error here.
            let _ = self.kill();
            format!("{error}; the end of its log:\n{}", tail(&String::from_utf8_lossy(&log)))
        })
    }

    /// Lets the registry outlive the calling process. It runs until another one, `process`, has ended, or until
    /// [`DetachedServer::stop`](crate::DetachedServer::stop) stops it.
    ///
    /// # Errors
    ///
    /// If `sh` cannot be run. It is killed then.
    pub fn detach(mut self, process: u32) -> Result<(), String> {
        let Some(guardian) = self.guardian.take() else { return Ok(()) };
        guardian.watch(process, &self.folder)?;
        self.jvm = None;
        Ok(())
    }

    fn wait_until_ready(&self, jvm: &mut Jvm) -> Result<(), String> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = jvm.exit_status() {
                return Err(format!("the schema registry ended while it was starting ({status})"));
            }
            if is_registry_answering(&self.address(), PROBE_TIMEOUT) {
                return Ok(());
            }
            std::thread::sleep(INTERVAL);
        }
        Err(format!("the schema registry did not answer within {TIMEOUT:?}"))
    }
}

impl Drop for SchemaRegistry {
    fn drop(&mut self) {
        // OK to ignore: the guardian kills it.
        let _ = self.kill();
        if let Some(guardian) = self.guardian.take() {
            guardian.finish();
        }
    }
}

/// Returns the version of Apicurio that is installed.
#[must_use]
pub fn registry_version() -> &'static str {
    between(POM, "<apicurio.version>", "</apicurio.version>").unwrap_or("unknown")
}

fn installation(target: &Path) -> PathBuf {
    kafka_folder(target).join(format!("registry-{}", registry_version()))
}

/// Returns true if [`install_registry`] has nothing to do.
#[must_use]
pub fn is_registry_installed(target: &Path) -> bool {
    installation(target).is_dir()
}

/// Installs the registry below the target folder, unless it is there.
///
/// # Errors
///
/// If Maven or tar fails.
pub fn install_registry(target: &Path) -> Result<(), String> {
    ensure(target).map(drop)
}

fn ensure(target: &Path) -> Result<PathBuf, String> {
    let folder = installation(target);
    check_requirements()?;
    with_install_lock(target, || if folder.is_dir() { Ok(()) } else { create(&folder) })?;
    Ok(folder)
}

/// Creates the installation in another folder and renames that in the end, so that an interrupted one is not taken for
/// complete.
fn create(folder: &Path) -> Result<(), String> {
    let partial = PathBuf::from(format!("{}.partial", folder.display()));
    remove_folder(&partial)?;
    fs::create_dir_all(&partial).map_err(|error| io_error("create", &partial, &error))?;
    let version = registry_version();
    let artifact = format!("-Dartifact=io.apicurio:apicurio-registry-app:{version}:tar.gz:all");
    let mut mvn = Command::new("mvn");
    // Newer versions of the plugin also want the parents of its POM, which are not needed.
    mvn.args(["-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:2.10:copy", &artifact]);
    run(mvn.arg(format!("-DoutputDirectory={}", partial.display())))?;
    let archive = partial.join(format!("apicurio-registry-app-{version}-all.tar.gz"));
    run(Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(&partial))?;
    fs::remove_file(&archive).map_err(|error| io_error("remove", &archive, &error))?;
    fs::rename(&partial, folder).map_err(|error| io_error("create", folder, &error))
}
