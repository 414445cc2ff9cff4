//! Kafka's jars, and what every broker starts from: an identity for TLS and formatted
//! storage. Made once, below the target folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::java::{FAST_START, jdk, requirements, run};
use crate::options::USERS;
use crate::ports::Ports;
use crate::properties::{self, Node};

/// What Maven fetches; lies in the installation too, which says what that was made of.
const POM: &str = include_str!("../../pom.xml");

/// The password of the key store, whose key protects nothing.
pub(crate) const KEYSTORE_PASSWORD: &str = "changeit";

/// How long the certificate lasts: longer than any target folder.
const CERTIFICATE_DAYS: &str = "3650";

/// The version of Apache Kafka.
#[must_use]
pub fn version() -> &'static str {
    between(POM, "<kafka.version>", "</kafka.version>").unwrap_or("unknown")
}

/// Whether [`install`] has nothing to do.
#[must_use]
pub fn is_installed(target: &Path) -> bool {
    Installation::below(target).is_current()
}

/// Installs Kafka below the target folder, if it is not there.
///
/// # Errors
///
/// If Java or Maven are missing, or fail.
pub fn install(target: &Path) -> Result<(), String> {
    Installation::whole(target).map(drop)
}

/// A command that runs Java with Kafka, its clients and jackson on the class path:
/// a main class of theirs, or a single source file. They must be installed.
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
        Self { folder: brokers(target).join(format!("lib-{}", version())) }
    }

    /// The installation, made if it is not there. Threads and processes that need it
    /// at the same time wait for the first of them.
    pub(crate) fn whole(target: &Path) -> Result<Self, String> {
        let installation = Self::below(target);
        fs::create_dir_all(brokers(target)).map_err(|error| cannot("create", &brokers(target), &error))?;
        let path = brokers(target).join("install.lock");
        let lock = File::create(&path).map_err(|error| cannot("create", &path, &error))?;
        lock.lock().map_err(|error| cannot("lock", &path, &error))?;
        if !installation.is_current() {
            installation.make()?;
        }
        Ok(installation)
    }

    fn is_current(&self) -> bool {
        fs::read_to_string(self.folder.join("pom.xml")).is_ok_and(|pom| pom == POM)
    }

    /// Makes it beside its place, so that what was interrupted is not taken for whole.
    fn make(&self) -> Result<(), String> {
        requirements()?;
        let partial = Self { folder: PathBuf::from(format!("{}.partial", self.folder.display())) };
        for old in [&partial, self] {
            remove(&old.folder)?;
        }
        write(&partial.folder.join("pom.xml"), POM.as_bytes())?;
        partial.copy_jars()?;
        partial.certify()?;
        partial.format()?;
        fs::rename(&partial.folder, &self.folder).map_err(|error| cannot("create", &self.folder, &error))
    }

    fn copy_jars(&self) -> Result<(), String> {
        let mut mvn = Command::new("mvn");
        mvn.args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-f"]);
        mvn.arg(self.folder.join("pom.xml"));
        run(mvn.arg(format!("-DoutputDirectory={}", self.folder.display()))).map(drop)
    }

    /// A key and its self-signed certificate, which clients are told to trust.
    fn certify(&self) -> Result<(), String> {
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

    /// Formats storage with Kafka's own tool: as every new cluster, it has the newest
    /// version of each feature. Each broker gets a copy, which saves it a JVM's start.
    fn format(&self) -> Result<(), String> {
        let config = self.folder.join("format.properties");
        let ports = Ports::unused();
        let text = properties::basic(&Node::alone(&ports), &ports, &self.storage());
        write(&config, text.as_bytes())?;
        let mut tool = self.java();
        tool.args(["kafka.tools.StorageTool", "format", "--cluster-id", "unnamed", "--config"]).arg(config);
        for user in USERS {
            let scram = format!("SCRAM-SHA-512=[name={},password={}]", user.name, user.password);
            tool.args(["--add-scram", &scram]);
        }
        run(&mut tool).map(drop)
    }

    /// Java with the jars on its class path.
    pub(crate) fn java(&self) -> Command {
        let mut java = jdk("java");
        // An option of the same name that comes later wins.
        java.args(FAST_START).arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        java.arg("-cp").arg(self.folder.join("*"));
        java
    }

    /// Formatted storage, to be copied.
    pub(crate) fn storage(&self) -> PathBuf {
        self.folder.join("storage")
    }

    /// The broker's key and certificate.
    pub(crate) fn keystore(&self) -> PathBuf {
        self.folder.join("broker.p12")
    }

    /// What a client trusts.
    pub(crate) fn ca_pem(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }
}

/// Where brokers live.
pub(crate) fn brokers(target: &Path) -> PathBuf {
    // Java and Maven run in folders of their own.
    std::path::absolute(target).unwrap_or_else(|_| target.to_owned()).join("kafka")
}

/// Writes a file, and creates the folder that it lies in.
pub(crate) fn write(path: &Path, text: &[u8]) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| cannot("write", path, &error))
}

/// Removes a folder that need not be there.
pub(crate) fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("remove", folder, &error)),
        _ => Ok(()),
    }
}

/// An error in words.
pub(crate) fn cannot(verb: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {verb} {}: {error}", path.display())
}

/// What stands between two marks.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_poms() {
        assert!(version().starts_with("4."), "{}", version());
        assert_eq!(between("a<v>4.1</v>b", "<v>", "</v>"), Some("4.1"));
        assert_eq!(between("a<v>4.1", "<v>", "</v>"), None);
    }
}
