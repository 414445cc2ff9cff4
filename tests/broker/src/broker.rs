//! A broker and what can be done to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::folder::{self, ADDRESS_FILE, DATA, LOG_FILE};
use crate::guardian::Guardian;
use crate::install::{Installation, write};
use crate::java::tail;
use crate::jvm::Jvm;
use crate::options::BrokerOptions;
use crate::ports::{Ports, SecuredPorts, address};
use crate::probe::answers;
use crate::properties::{self, Node};

/// How long a broker may take to answer, or to stop: it takes 1 to 4 seconds, and a
/// multiple on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a broker that starts is asked.
const INTERVAL: Duration = Duration::from_millis(20);

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A broker of the caller's own: killed, and its folder removed, when it is dropped and
/// when the caller ends in whatever way.
#[derive(Debug)]
pub struct Broker {
    installation: Installation,
    folder: PathBuf,
    ports: Ports,
    /// None while it is down.
    jvm: Option<Jvm>,
    /// None once the broker is somebody else's.
    guardian: Option<Guardian>,
}

impl Broker {
    /// Starts a broker below a target folder, where Kafka is installed if it is not,
    /// and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it cannot be started; with the end of its log if it has one.
    pub fn start(target: &Path, options: &BrokerOptions) -> Result<Self, String> {
        let ports = Ports::free(options.secured)?;
        let name = options.name.clone().unwrap_or_else(folder::unique_name);
        let node = Node::alone(&ports);
        let mut broker = Self::prepare(target, options, &name, &folder::cluster_id(&name), &node, ports)?;
        broker.launch()?;
        Ok(broker)
    }

    /// A broker that is configured and not started.
    pub(crate) fn prepare(
        target: &Path,
        options: &BrokerOptions,
        name: &str,
        cluster: &str,
        node: &Node,
        ports: Ports,
    ) -> Result<Self, String> {
        let installation = Installation::whole(target)?;
        let folder = folder::claim(target, name)?;
        let guardian = Some(Guardian::of(&folder)?);
        let server = properties::server(node, &ports, &folder.join(DATA), &installation, &options.properties);
        let broker = Self { installation, folder, ports, jvm: None, guardian };
        // From here on, what fails is cleaned up by dropping the broker.
        folder::fill(&broker.folder, &broker.installation, cluster, node.id, &server)?;
        write(&broker.folder.join(ADDRESS_FILE), broker.bootstrap().as_bytes())?;
        Ok(broker)
    }

    /// Host and port of the listener without encryption and authentication.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        address(self.ports.plaintext)
    }

    /// Host and port of the listener SASL_PLAINTEXT.
    ///
    /// # Panics
    ///
    /// If the broker is not secured.
    #[must_use]
    pub fn sasl_bootstrap(&self) -> String {
        address(self.secured().sasl)
    }

    /// Host and port of the listener SSL, which asks for no client certificate.
    ///
    /// # Panics
    ///
    /// If the broker is not secured.
    #[must_use]
    pub fn tls_bootstrap(&self) -> String {
        address(self.secured().tls)
    }

    /// Host and port of the listener SASL_SSL.
    ///
    /// # Panics
    ///
    /// If the broker is not secured.
    #[must_use]
    pub fn sasl_tls_bootstrap(&self) -> String {
        address(self.secured().sasl_tls)
    }

    /// The certificate that a client of the TLS listeners has to trust.
    #[must_use]
    pub fn ca_pem(&self) -> PathBuf {
        self.installation.ca_pem()
    }

    /// The broker's folder: its data are in `data`, its output in `broker.log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Kills it (SIGKILL); its folder stays. Nothing if it is down.
    ///
    /// # Errors
    ///
    /// If it cannot be killed.
    pub fn kill(&mut self) -> Result<(), String> {
        self.jvm.take().map_or(Ok(()), Jvm::kill)
    }

    /// Stops it (SIGTERM), and waits until it has ended; its folder stays. Nothing if
    /// it is down.
    ///
    /// # Errors
    ///
    /// If it does not end in time, as one that is paused; it is killed then.
    pub fn stop(&mut self) -> Result<(), String> {
        let Some(jvm) = self.jvm.take() else { return Ok(()) };
        jvm.signal("TERM")?;
        jvm.wait(PATIENCE).map_err(|jvm| {
            let killed = jvm.kill().err().unwrap_or_else(|| "it was killed".to_owned());
            format!("Kafka did not stop within {PATIENCE:?}: {killed}")
        })
    }

    /// Suspends it (SIGSTOP): connections stay open, and nothing is answered.
    ///
    /// # Errors
    ///
    /// If it is down.
    pub fn pause(&self) -> Result<(), String> {
        self.signal("STOP")
    }

    /// Lets it go on after [`Broker::pause`].
    ///
    /// # Errors
    ///
    /// If it is down.
    pub fn resume(&self) -> Result<(), String> {
        self.signal("CONT")
    }

    /// Starts it again on the same ports with the same data, after stopping it if it
    /// is not down, and waits until it answers. After [`Broker::kill`] this takes 2 s
    /// longer than else: so long the controller keeps the old session.
    ///
    /// # Errors
    ///
    /// If it cannot be stopped or started.
    pub fn restart(&mut self) -> Result<(), String> {
        self.stop()?;
        self.launch()
    }

    /// Lets it go on after the end of this process, until another process has ended
    /// or [`Detached::end`](crate::Detached::end) ends it. `name` was given in the options.
    ///
    /// # Errors
    ///
    /// If that cannot be arranged; it is ended then.
    pub fn detach(mut self, process: u32) -> Result<(), String> {
        let Some(guardian) = self.guardian.take() else { return Ok(()) };
        guardian.follow(process, &self.folder)
    }

    fn secured(&self) -> &SecuredPorts {
        // OK because the panic is documented: only tests ask.
        self.ports.secured.as_ref().expect("a broker started with `secured`")
    }

    fn signal(&self, name: &str) -> Result<(), String> {
        self.jvm.as_ref().ok_or("the broker is down")?.signal(name)
    }

    /// Starts the process and waits until it answers.
    fn launch(&mut self) -> Result<(), String> {
        self.begin()?;
        self.await_ready()
    }

    /// Starts the process.
    pub(crate) fn begin(&mut self) -> Result<(), String> {
        self.jvm = Some(Jvm::start(&self.installation, &self.folder)?);
        Ok(())
    }

    /// Waits until the process answers.
    pub(crate) fn await_ready(&mut self) -> Result<(), String> {
        let Some(mut jvm) = self.jvm.take() else { return Err("the broker is down".to_owned()) };
        let ready = self.wait_ready(&mut jvm);
        self.jvm = Some(jvm);
        ready.map_err(|error| {
            let log = fs::read(self.folder.join(LOG_FILE)).unwrap_or_default();
            // What is said about the start is worth more than what is said about this.
            let _ = self.kill();
            format!("{error}; the end of its log:\n{}", tail(&String::from_utf8_lossy(&log)))
        })
    }

    /// Whether its process was started and not ended by us.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.jvm.is_some()
    }

    fn wait_ready(&self, jvm: &mut Jvm) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = jvm.ended() {
                return Err(format!("Kafka ended while it was starting ({status})"));
            }
            if answers(&self.bootstrap(), ANSWER) {
                return Ok(());
            }
            std::thread::sleep(INTERVAL);
        }
        Err(format!("Kafka did not answer within {PATIENCE:?}"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(guardian) = self.guardian.take() {
            // What cannot be killed here, the guardian tries to.
            let _ = self.kill();
            guardian.finish();
        }
    }
}
