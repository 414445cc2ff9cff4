//! Helpers that the tests share: the built command and components, logs with topics of their own, and waiting
//! with a timeout.

mod capture_logs;
mod clock;
mod command;
mod fake_registry;
mod faulty_codec;
pub mod kafka;
mod measure;
mod memory_log;
mod oci_registry;
mod proxy;
mod running;
pub mod server;
pub mod tools;
mod watch_client;
mod wit;
mod witness;
mod wrapped_log;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ktables::codec::Codecs;
use ktables::log::{Ack, Log, LogOptions, NewRecord, NewTopic, TopicDescription};
use ktables::table::Table;
use ktables::wasm::{Compiler, Component, Engine, EngineOptions, Limits, LoadOptions};
use serde_json::Value;
use tempfile::TempDir;

pub use capture_logs::capture_logs;
pub use clock::ManualClock;
use command::program;
pub use command::{CommandOutput, ktables, run, run_with_stdin, succeed};
pub use fake_registry::{FakeRegistry, avro, not_found};
pub use faulty_codec::FaultyCodec;
pub use measure::{PeakMemory, run_and_measure, run_and_measure_within};
pub use memory_log::MemoryLog;
pub use oci_registry::{OciRegistry, RegistryRequest, Reply, digest};
pub use proxy::{Interceptor, Proxy};
pub use running::RunningCommand;
pub use watch_client::{WatchClient, apply_event};
pub use wit::embed_world;
pub use witness::{FaultTally, STALE_AFTER, Witness};
pub use wrapped_log::{Appends, WrappedLog};

/// How long a test waits for anything before it fails: far longer than anything takes on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Whether tests may take long, as with `cargo xtask test --long`.
#[must_use]
pub fn is_long_run() -> bool {
    std::env::var_os("KTABLES_TEST_LONG").is_some()
}

/// Returns the project's folder.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project")
}

/// Returns the folder that the running test was built into.
#[must_use]
pub fn release_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a running test");
    test.ancestors().nth(2).expect("target/release/deps/test").to_owned()
}

/// Returns the path of a component of the project, built by `cargo xtask guests`.
///
/// # Panics
///
/// If it is not built.
#[must_use]
pub fn component_path(name: &str) -> PathBuf {
    let path = release_folder().with_file_name("components").join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, or `cargo xtask guests`", path.display());
    path
}

/// Returns the engine of the test process, with a cache below the target folder.
///
/// # Panics
///
/// If it cannot be created.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let cache = Some(cache_folder());
        Engine::new(EngineOptions { cache, ..engine_options() }).expect("an engine")
    })
}

/// Returns the options of the tests' engines, which compile components with the built command.
#[must_use]
pub fn engine_options() -> EngineOptions {
    EngineOptions::new(Compiler::Command(program()))
}

/// Returns the folder in which the tests cache compiled components.
#[must_use]
pub fn cache_folder() -> PathBuf {
    release_folder().with_file_name("test-cache")
}

/// Loads a component of the project with the default limits.
///
/// # Panics
///
/// If it is refused.
#[must_use]
pub fn component(name: &str) -> Component {
    component_with_limits(name, Limits::default())
}

/// Loads a component of the project with these limits.
///
/// # Panics
///
/// If it is refused.
#[must_use]
pub fn component_with_limits(name: &str, limits: Limits) -> Component {
    engine().load(component_path(name), LoadOptions { limits, ..LoadOptions::default() }).expect("accepted")
}

/// The kind of log that a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// A directory that no other test uses.
    Directory,
    /// The cluster that all tests share.
    Kafka,
}

/// Defines a test of each of these functions for each kind of log. The functions take the kind as their
/// argument.
#[macro_export]
macro_rules! on_each_log {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread")]
            async fn in_a_directory() {
                super::$test($crate::LogKind::Directory).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_kafka() {
                super::$test($crate::LogKind::Kafka).await;
            }
        }
    )*};
}

impl LogKind {
    /// Creates a topic that no other test uses, with this many partitions.
    ///
    /// # Panics
    ///
    /// If it cannot be created.
    pub async fn scratch(self, partitions: i32) -> Scratch {
        match self {
            Self::Directory => Scratch::new(partitions).await,
            Self::Kafka => Scratch::on_cluster(&kafka::shared(), LogOptions::default(), partitions).await,
        }
    }
}

/// A log, and a topic that no other test uses.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    url: String,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Its topic.
    pub topic: TopicDescription,
}

/// The name of the topic in a directory log.
pub const TOPIC: &str = "t";

/// Returns a unique name.
#[must_use]
pub fn unique(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    format!("{prefix}-{}-{nanos}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

impl Scratch {
    /// Creates a directory log whose topic has this many partitions.
    ///
    /// # Panics
    ///
    /// If it cannot be created.
    pub async fn new(partitions: i32) -> Self {
        let folder = TempDir::new().expect("a folder");
        let url = format!("dir:{}", folder.path().display());
        let log = ktables::log::open(&url).expect("a log");
        let settings = NewTopic { partitions: Some(partitions), ..NewTopic::default() };
        let topic = log.create(TOPIC, settings).await.expect("a topic");
        Self { folder, url, log, topic }
    }

    /// Creates a topic on a cluster. It is not compacted, so that it accepts records without keys.
    ///
    /// # Panics
    ///
    /// If it cannot be created.
    pub async fn on_cluster(bootstrap: &str, options: LogOptions, partitions: i32) -> Self {
        let name = unique("t");
        kafka::create(bootstrap, &name, partitions, &[]).await;
        Self::existing(bootstrap, options, &name).await
    }

    /// Opens an existing topic on a cluster.
    ///
    /// # Panics
    ///
    /// If it does not exist.
    pub async fn existing(bootstrap: &str, options: LogOptions, topic: &str) -> Self {
        let url = format!("kafka://{bootstrap}");
        let log = ktables::log::open_with(&url, options).expect("a log");
        let topic = kafka::wait_for_topic(log.as_ref(), topic).await;
        Self { folder: TempDir::new().expect("a folder"), url, log, topic }
    }

    /// Creates another topic on the same cluster, which uses the same clients.
    ///
    /// # Panics
    ///
    /// If it cannot be created.
    pub async fn create_sibling(&self, partitions: i32) -> Self {
        let bootstrap = self.url.strip_prefix("kafka://").expect("a cluster");
        let name = unique("t");
        kafka::create(bootstrap, &name, partitions, &[]).await;
        let topic = kafka::wait_for_topic(self.log.as_ref(), &name).await;
        Self {
            folder: TempDir::new().expect("a folder"),
            url: self.url.clone(),
            log: self.log.clone(),
            topic,
        }
    }

    /// Returns the folder of this test, which contains the topics of a directory log.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the log's URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Deletes the topic, and creates another one with the same name.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn recreate_topic(&self, partitions: i32) -> TopicDescription {
        self.delete_topic().await;
        self.create_topic(partitions).await
    }

    /// Deletes the topic.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn delete_topic(&self) {
        let name = &self.topic.name;
        match self.url.strip_prefix("kafka://") {
            None => std::fs::remove_dir_all(self.path().join(name)).expect("deleted"),
            Some(bootstrap) => kafka::delete(bootstrap, name).await,
        }
    }

    /// Creates the topic again after it was deleted, with this many partitions. On a cluster, it is compacted
    /// now.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn create_topic(&self, partitions: i32) -> TopicDescription {
        let name = &self.topic.name;
        let settings = NewTopic { partitions: Some(partitions), ..NewTopic::default() };
        self.log.create(name, settings).await.expect("a topic")
    }

    /// Writes a record, and waits until it is acknowledged.
    ///
    /// # Panics
    ///
    /// If it is not acknowledged.
    pub async fn put(&self, key: &str, value: Option<&[u8]>) -> Ack {
        self.write(vec![record(key, value)]).await[0]
    }

    /// Writes records without waiting in between, then waits until all are acknowledged.
    ///
    /// # Panics
    ///
    /// If one is not acknowledged.
    pub async fn write(&self, records: Vec<NewRecord>) -> Vec<Ack> {
        let mut deliveries = Vec::new();
        for record in records {
            deliveries.push(self.log.send(&self.topic, record).await.expect("queued"));
        }
        let mut acks = Vec::new();
        for delivery in deliveries {
            acks.push(delivery.await.expect("acknowledged"));
        }
        acks
    }

    /// Starts a table of the topic, and waits until it is loaded.
    ///
    /// # Panics
    ///
    /// If the table cannot be started.
    pub async fn table(&self, codecs: Codecs) -> Table {
        Table::builder(self.log.clone(), &self.topic.name, codecs)
            .catchup_timeout(TIMEOUT)
            .start()
            .await
            .expect("a table")
    }

    /// Waits until a table has applied everything that was written.
    ///
    /// # Panics
    ///
    /// If it does not in time.
    pub async fn sync(&self, table: &Table) {
        let freshness = table.barrier(TIMEOUT).await;
        assert!(freshness.is_fresh(), "{freshness:?}");
    }

    /// Returns the `ktables` command with the options for this topic.
    #[must_use]
    pub fn ktables(&self, args: &[&str]) -> Command {
        let mut command = ktables(args);
        command.args(["--log", &self.url(), "--topic", &self.topic.name]);
        command
    }
}

/// Returns a record with a key and a value.
#[must_use]
pub fn record(key: &str, value: Option<&[u8]>) -> NewRecord {
    NewRecord { key: Some(key.as_bytes().to_vec()), value: value.map(<[u8]>::to_vec), ..NewRecord::default() }
}

/// Parses JSON.
///
/// # Panics
///
/// If the text is not JSON.
#[must_use]
pub fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Calls `poll` until it returns a value, and returns that. `condition` describes what the test waits for.
///
/// # Panics
///
/// If `poll` returns no value in time.
pub fn eventually<T>(condition: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {TIMEOUT:?} in vain until {condition}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Does the same as [`eventually`] without blocking the test's runtime.
///
/// # Panics
///
/// If `poll` returns no value in time.
pub async fn eventually_async<T>(condition: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {TIMEOUT:?} in vain until {condition}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Calls `attempt` until it succeeds, and returns its value.
///
/// # Panics
///
/// With the last error, if it does not succeed in time.
pub async fn eventually_ok<T, E: std::fmt::Display, F>(condition: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => {
                assert!(Instant::now() < deadline, "waited {TIMEOUT:?} in vain until {condition}: {error}")
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the keys and values of a table.
#[must_use]
pub fn contents(table: &Table) -> BTreeMap<String, String> {
    table.snapshot().iter().map(|entry| (entry.key().to_owned(), entry.json().to_owned())).collect()
}

/// Returns the keys of a table and the offsets of their records.
#[must_use]
pub fn record_offsets(table: &Table) -> BTreeMap<String, i64> {
    table.snapshot().iter().map(|entry| (entry.key().to_owned(), entry.offset())).collect()
}
