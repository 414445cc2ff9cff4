//! A broker that tests start, kill, pause and restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::detached::ServerKind;
use crate::folder::{self, ADDRESS_FILE, DATA_FOLDER, LOG_FILE};
use crate::guardian::Guardian;
use crate::install::{Installation, write_file};
use crate::java::tail;
use crate::jvm::Jvm;
use crate::options::BrokerOptions;
use crate::ports::{Ports, SecuredPorts, address};
use crate::probe::is_answering;
use crate::properties::{self, Node};

/// How long a broker may take to start or to stop. It takes 1 to 4 seconds, and a multiple of that on a busy
/// machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How often a starting broker is probed.
const INTERVAL: Duration = Duration::from_millis(20);

/// How long the answer to one probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A broker that belongs to the caller. It is killed and its folder removed when this is dropped, and when
/// the caller's process ends in whatever way.
#[derive(Debug)]
pub struct Broker {
    installation: Installation,
    folder: PathBuf,
    ports: Ports,
    /// `None` while the broker is down.
    jvm: Option<Jvm>,
    /// `None` once the broker is detached.
    guardian: Option<Guardian>,
}

impl Broker {
    /// Starts a broker with its folder below a target folder, and waits until it answers. Installs Kafka
    /// there if it is missing.
    ///
    /// # Errors
    ///
    /// If the broker cannot be started. The error has the end of the broker's log, if there is one.
    pub fn start(target: &Path, options: &BrokerOptions) -> Result<Self, String> {
        let ports = Ports::pick(options.secured)?;
        let name = options.name.clone().unwrap_or_else(folder::unique_name);
        let node = Node::single(&ports);
        let cluster = folder::unique_cluster_id(&name);
        let mut broker = Self::prepare(target, options, &name, &cluster, &node, ports)?;
        broker.launch()?;
        Ok(broker)
    }

    /// Configures a broker without starting it.
    pub(crate) fn prepare(
        target: &Path,
        options: &BrokerOptions,
        name: &str,
        cluster: &str,
        node: &Node,
        ports: Ports,
    ) -> Result<Self, String> {
        let installation = Installation::ensure(target)?;
        let folder = folder::claim(target, ServerKind::Broker, name)?;
        let guardian = Some(Guardian::start(&folder)?);
        let data = folder.join(DATA_FOLDER);
        let server = properties::server(node, &ports, &data, &installation, &options.properties);
        let broker = Self { installation, folder, ports, jvm: None, guardian };
        // If a step fails from here on, dropping the broker cleans up.
        folder::write_files(&broker.folder, &broker.installation, cluster, node.id, &server)?;
        write_file(&broker.folder.join(ADDRESS_FILE), broker.bootstrap().as_bytes())?;
        Ok(broker)
    }

    /// Returns host and port of the listener without encryption and authentication.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        address(self.ports.plaintext)
    }

    /// Returns host and port of the SASL_PLAINTEXT listener.
    ///
    /// # Panics
    ///
    /// If the broker is not secured.
    #[must_use]
    pub fn sasl_bootstrap(&self) -> String {
        address(self.secured().sasl)
    }

    /// Returns host and port of the SSL listener, which requires no client certificate.
    ///
    /// # Panics
    ///
    /// If the broker is not secured.
    #[must_use]
    pub fn tls_bootstrap(&self) -> String {
        address(self.secured().tls)
    }

    /// Returns host and port of the SASL_SSL listener.
    ///
    /// # Panics
    ///
    /// If the broker is not secured.
    #[must_use]
    pub fn sasl_tls_bootstrap(&self) -> String {
        address(self.secured().sasl_tls)
    }

    /// Returns the path of the certificate that clients of the TLS listeners have to trust.
    #[must_use]
    pub fn ca_pem(&self) -> PathBuf {
        self.installation.ca_pem()
    }

    /// Returns the broker's folder, with its data in `data` and its output in `broker.log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Kills the broker (SIGKILL). Its folder stays. Does nothing if the broker is down.
    ///
    /// # Errors
    ///
    /// If the process cannot be killed.
    pub fn kill(&mut self) -> Result<(), String> {
        self.jvm.take().map_or(Ok(()), Jvm::kill)
    }

    /// Stops the broker (SIGTERM), and waits until it has ended. Its folder stays. Does nothing if the broker
    /// is down.
    ///
    /// # Errors
    ///
    /// If the broker does not end in time, for example because it is paused. It is killed then.
    pub fn stop(&mut self) -> Result<(), String> {
        let Some(jvm) = self.jvm.take() else { return Ok(()) };
        jvm.signal("TERM")?;
        jvm.wait(TIMEOUT).map_err(|jvm| {
            let outcome = jvm.kill().err().unwrap_or_else(|| "it was killed".to_owned());
            format!("Kafka did not stop within {TIMEOUT:?}: {outcome}")
        })
    }

    /// Suspends the broker (SIGSTOP). Its connections stay open, and it answers nothing.
    ///
    /// # Errors
    ///
    /// If it is down.
    pub fn pause(&self) -> Result<(), String> {
        self.signal("STOP")
    }

    /// Resumes the broker after [`Broker::pause`].
    ///
    /// # Errors
    ///
    /// If it is down.
    pub fn resume(&self) -> Result<(), String> {
        self.signal("CONT")
    }

    /// Starts the broker again on the same ports with the same data, and waits until it answers. Stops it
    /// first if it is up. After [`Broker::kill`] this takes 2 s longer than usual, because the controller
    /// keeps the old session so long.
    ///
    /// # Errors
    ///
    /// If the broker cannot be stopped or started.
    pub fn restart(&mut self) -> Result<(), String> {
        self.stop()?;
        self.launch()
    }

    /// Lets the broker outlive the calling process. It runs until another one, `process`, has ended, or until
    /// [`DetachedServer::stop`](crate::DetachedServer::stop) stops it. The options must have named the
    /// broker.
    ///
    /// # Errors
    ///
    /// If `sh` cannot be run. The broker is killed then.
    pub fn detach(mut self, process: u32) -> Result<(), String> {
        let Some(guardian) = self.guardian.take() else { return Ok(()) };
        guardian.watch(process, &self.folder)
    }

    fn secured(&self) -> &SecuredPorts {
        // OK because the panic is documented, and only tests call this.
        self.ports
            .secured
            .as_ref()
            .expect("this broker has no such listener: start it with `BrokerOptions::secured`")
    }

    fn signal(&self, name: &str) -> Result<(), String> {
        self.jvm.as_ref().ok_or("the broker is down")?.signal(name)
    }

    /// Starts the broker's process, and waits until it answers.
    fn launch(&mut self) -> Result<(), String> {
        self.start_process()?;
        self.wait_until_ready()
    }

    /// Starts the broker's process without waiting for it.
    pub(crate) fn start_process(&mut self) -> Result<(), String> {
        self.jvm = Some(Jvm::start_broker(&self.installation, &self.folder)?);
        Ok(())
    }

    /// Waits until the process that was started answers. Kills it if it does not.
    pub(crate) fn wait_until_ready(&mut self) -> Result<(), String> {
        let Some(mut jvm) = self.jvm.take() else { return Err("the broker is down".to_owned()) };
        let ready = self.probe_until_ready(&mut jvm);
        self.jvm = Some(jvm);
        ready.map_err(|error| {
            let log = fs::read(self.folder.join(LOG_FILE)).unwrap_or_default();
            // OK to ignore: the error of the start matters more than an error here.
            let _ = self.kill();
            format!("{error}; the end of its log:\n{}", tail(&String::from_utf8_lossy(&log)))
        })
    }

    /// Returns true if the broker was started, and neither stopped nor killed by this owner.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.jvm.is_some()
    }

    fn probe_until_ready(&self, jvm: &mut Jvm) -> Result<(), String> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = jvm.exit_status() {
                return Err(format!("Kafka ended while it was starting ({status})"));
            }
            if is_answering(&self.bootstrap(), PROBE_TIMEOUT) {
                return Ok(());
            }
            std::thread::sleep(INTERVAL);
        }
        Err(format!("Kafka did not answer within {TIMEOUT:?}"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(guardian) = self.guardian.take() {
            // OK to ignore: if this fails, the guardian tries to kill the process.
            let _ = self.kill();
            guardian.finish();
        }
    }
}
