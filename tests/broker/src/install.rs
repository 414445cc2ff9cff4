//! Installs Kafka below the target folder, once: its jars, and what every broker starts from, which are a TLS
//! identity and formatted storage.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::java::{FAST_START, check_requirements, jdk, run};
use crate::options::USERS;
use crate::ports::Ports;
use crate::properties::{self, Node};

/// The dependencies that Maven fetches. The installation has a copy, which shows whether it has these
/// versions.
const POM: &str = include_str!("../../pom.xml");

/// The password of the key store. The key in it protects nothing.
pub(crate) const KEYSTORE_PASSWORD: &str = "changeit";

/// How long the certificate is valid: longer than any target folder lives.
const CERTIFICATE_DAYS: &str = "3650";

/// Returns the version of Apache Kafka that is installed.
#[must_use]
pub fn version() -> &'static str {
    between(POM, "<kafka.version>", "</kafka.version>").unwrap_or("unknown")
}

/// Returns true if [`install`] has nothing to do.
#[must_use]
pub fn is_installed(target: &Path) -> bool {
    Installation::below(target).is_current()
}

/// Installs Kafka below the target folder, unless it is there.
///
/// # Errors
///
/// If Java or Maven is missing or fails.
pub fn install(target: &Path) -> Result<(), String> {
    Installation::ensure(target).map(drop)
}

/// Returns a command that runs Java with Kafka, its clients and jackson on the class path. The caller adds a
/// main class, or a single source file. Kafka must be installed.
#[must_use]
pub fn java(target: &Path) -> Command {
    Installation::below(target).java()
}

/// An installation below the target folder.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    folder: PathBuf,
}

impl Installation {
    fn below(target: &Path) -> Self {
        Self { folder: kafka_folder(target).join(format!("lib-{}", version())) }
    }

    /// Returns the installation, and creates it if it is missing. If threads or processes need it at the same
    /// time, the first one creates it and the others wait.
    pub(crate) fn ensure(target: &Path) -> Result<Self, String> {
        let installation = Self::below(target);
        with_install_lock(target, || if installation.is_current() { Ok(()) } else { installation.create() })?;
        Ok(installation)
    }

    fn is_current(&self) -> bool {
        fs::read_to_string(self.folder.join("pom.xml")).is_ok_and(|pom| pom == POM)
    }

    /// Creates the installation in another folder and renames that in the end, so that an interrupted one is
    /// not taken for complete.
    fn create(&self) -> Result<(), String> {
        check_requirements()?;
        let partial = Self { folder: PathBuf::from(format!("{}.partial", self.folder.display())) };
        for old in [&partial, self] {
            remove_folder(&old.folder)?;
        }
        write_file(&partial.folder.join("pom.xml"), POM.as_bytes())?;
        partial.copy_jars()?;
        partial.create_certificate()?;
        partial.format_storage()?;
        fs::rename(&partial.folder, &self.folder).map_err(|error| io_error("create", &self.folder, &error))
    }

    fn copy_jars(&self) -> Result<(), String> {
        let mut mvn = Command::new("mvn");
        mvn.args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-f"]);
        mvn.arg(self.folder.join("pom.xml"));
        run(mvn.arg(format!("-DoutputDirectory={}", self.folder.display()))).map(drop)
    }

    /// Creates a key and its self-signed certificate, which clients are configured to trust.
    fn create_certificate(&self) -> Result<(), String> {
        let keytool = |arguments: &[&str]| {
            let mut keytool = jdk("keytool");
            keytool.args(arguments).args(["-alias", "broker", "-storepass", KEYSTORE_PASSWORD]);
            keytool.arg("-keystore").arg(self.keystore());
            keytool
        };
        let mut generate = keytool(&["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1"]);
        generate.args(["-storetype", "PKCS12", "-validity", CERTIFICATE_DAYS]);
        run(generate.args(["-dname", "CN=localhost", "-ext", "san=ip:127.0.0.1,dns:localhost"]))?;
        run(keytool(&["-exportcert", "-rfc"]).arg("-file").arg(self.ca_pem())).map(drop)
    }

    /// Formats storage with Kafka's own tool. As in every new cluster, it has the newest version of each
    /// feature. Each broker gets a copy, which saves the start of a JVM.
    fn format_storage(&self) -> Result<(), String> {
        let config = self.folder.join("format.properties");
        let ports = Ports::placeholder();
        let text = properties::basic(&Node::single(&ports), &ports, &self.storage());
        write_file(&config, text.as_bytes())?;
        let mut tool = self.java();
        tool.args(["kafka.tools.StorageTool", "format", "--cluster-id", "unnamed", "--config"]).arg(config);
        for user in USERS {
            let scram = format!("SCRAM-SHA-512=[name={},password={}]", user.name, user.password);
            tool.args(["--add-scram", &scram]);
        }
        run(&mut tool).map(drop)
    }

    /// Returns a command that runs Java with the jars on its class path.
    pub(crate) fn java(&self) -> Command {
        let mut java = jdk("java");
        // Callers may override an option by adding it again: the last one wins.
        java.args(FAST_START).arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        java.arg("-cp").arg(self.folder.join("*"));
        java
    }

    /// Returns the folder with formatted storage, which every broker copies.
    pub(crate) fn storage(&self) -> PathBuf {
        self.folder.join("storage")
    }

    /// Returns the key store with the brokers' key and certificate.
    pub(crate) fn keystore(&self) -> PathBuf {
        self.folder.join("broker.p12")
    }

    /// Returns the certificate that clients have to trust.
    pub(crate) fn ca_pem(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }
}

/// Installs something while no other thread and no other process does.
pub(crate) fn with_install_lock(
    target: &Path,
    install: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let kafka = kafka_folder(target);
    fs::create_dir_all(&kafka).map_err(|error| io_error("create", &kafka, &error))?;
    let path = kafka.join("install.lock");
    let lock = File::create(&path).map_err(|error| io_error("create", &path, &error))?;
    lock.lock().map_err(|error| io_error("lock", &path, &error))?;
    install()
}

/// Returns the folder with the installation and the brokers' folders.
pub(crate) fn kafka_folder(target: &Path) -> PathBuf {
    // Absolute, because Java and Maven run in other folders.
    std::path::absolute(target).unwrap_or_else(|_| target.to_owned()).join("kafka")
}

/// Writes a file. Creates its folder if it is missing.
pub(crate) fn write_file(path: &Path, text: &[u8]) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| io_error("write", path, &error))
}

/// Removes a folder, if it exists.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", folder, &error)),
        _ => Ok(()),
    }
}

/// Describes what could not be done to a path, and why.
pub(crate) fn io_error(verb: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {verb} {}: {error}", path.display())
}

/// Returns the text between the first `start` and the `end` after it.
pub(crate) fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_comes_from_the_pom() {
        assert!(version().starts_with("4."), "{}", version());
        assert_eq!(between("a<v>4.1</v>b", "<v>", "</v>"), Some("4.1"));
        assert_eq!(between("a<v>4.1", "<v>", "</v>"), None);
    }
}
