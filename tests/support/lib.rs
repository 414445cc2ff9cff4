//! What the tests share: the built command and components, logs of their own,
//! waiting with a deadline.

mod clock;
mod command;
mod fed;
mod held;
pub mod kafka;
mod measured;
mod proxy;
mod running;
mod said;
pub mod tools;
mod witness;
mod wrapped;

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

pub use clock::HeldClock;
use command::program;
pub use command::{Ended, ktables, run, run_with, succeed};
pub use fed::FedLog;
pub use held::Held;
pub use measured::{Peaks, run_measured};
pub use proxy::{Between, Proxy};
pub use running::Running;
pub use said::said;
pub use witness::{FaultTally, STALE_AFTER, Witness};
pub use wrapped::Wrapped;

/// How long anything may take before a test fails: far above what it takes on a
/// busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether tests may take long: `cargo xtask test --long` runs them.
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("KTABLES_TEST_LONG").is_some()
}

/// The project's folder.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project")
}

/// The folder that the running test was built into.
fn release() -> PathBuf {
    let test = std::env::current_exe().expect("a running test");
    test.ancestors().nth(2).expect("target/release/deps/test").to_owned()
}

/// A component of the project, built by `cargo xtask guests`.
///
/// # Panics
///
/// If it is not built.
#[must_use]
pub fn component_path(name: &str) -> PathBuf {
    let path = release().with_file_name("components").join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, or `cargo xtask guests`", path.display());
    path
}

/// The engine of the test process, with a cache below the target folder.
///
/// # Panics
///
/// If there can be none.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let cache = Some(cache_folder());
        Engine::new(EngineOptions { cache, ..engine_options() }).expect("an engine")
    })
}

/// How engines of tests are made: components are compiled by the built command.
#[must_use]
pub fn engine_options() -> EngineOptions {
    EngineOptions::new(Compiler::Command(program()))
}

/// Where the tests keep compiled components.
#[must_use]
pub fn cache_folder() -> PathBuf {
    release().with_file_name("test-cache")
}

/// A component of the project, loaded.
///
/// # Panics
///
/// If it is refused.
#[must_use]
pub fn component(name: &str) -> Component {
    component_within(name, Limits::default())
}

/// The same with other limits.
///
/// # Panics
///
/// If it is refused.
#[must_use]
pub fn component_within(name: &str, limits: Limits) -> Component {
    engine().load(component_path(name), LoadOptions { digest: None, limits }).expect("accepted")
}

/// Which kind of log a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// A directory of the test's own.
    Directory,
    /// The cluster that all tests share.
    Kafka,
}

/// Runs each of these tests, functions of a kind of log, on each kind.
#[macro_export]
macro_rules! on_each_log {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread")]
            async fn in_a_directory() {
                super::$test($crate::On::Directory).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_kafka() {
                super::$test($crate::On::Kafka).await;
            }
        }
    )*};
}

impl On {
    /// A topic of the test's own, with this many partitions.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub async fn scratch(self, partitions: i32) -> Scratch {
        match self {
            Self::Directory => Scratch::new(partitions).await,
            Self::Kafka => Scratch::at(&kafka::shared(), LogOptions::default(), partitions).await,
        }
    }
}

/// A log with one topic of the test's own.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    url: String,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Its topic.
    pub topic: TopicDescription,
}

/// The topic's name in a directory.
pub const TOPIC: &str = "t";

/// A name nobody else has.
#[must_use]
pub fn unique(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    format!("{prefix}-{}-{since}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

impl Scratch {
    /// A directory log whose topic has this many partitions.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub async fn new(partitions: i32) -> Self {
        let folder = TempDir::new().expect("a folder");
        let url = format!("dir:{}", folder.path().display());
        let log = ktables::log::open(&url).expect("a log");
        let settings = NewTopic { partitions: Some(partitions), ..NewTopic::default() };
        let topic = log.create(TOPIC, settings).await.expect("a topic");
        Self { folder, url, log, topic }
    }

    /// A topic on a cluster. It is not compacted, so that it takes keyless records.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub async fn at(bootstrap: &str, options: LogOptions, partitions: i32) -> Self {
        let name = unique("t");
        kafka::create(bootstrap, &name, partitions, &[]).await;
        Self::of(bootstrap, options, &name).await
    }

    /// A topic that is there, on a cluster.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub async fn of(bootstrap: &str, options: LogOptions, topic: &str) -> Self {
        let url = format!("kafka://{bootstrap}");
        let log = ktables::log::open_with(&url, options).expect("a log");
        let topic = kafka::seen(log.as_ref(), topic).await;
        Self { folder: TempDir::new().expect("a folder"), url, log, topic }
    }

    /// Another topic on the same cluster, through the same clients.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub async fn beside(&self, partitions: i32) -> Self {
        let bootstrap = self.url.strip_prefix("kafka://").expect("a cluster");
        let name = unique("t");
        kafka::create(bootstrap, &name, partitions, &[]).await;
        let topic = kafka::seen(self.log.as_ref(), &name).await;
        Self {
            folder: TempDir::new().expect("a folder"),
            url: self.url.clone(),
            log: self.log.clone(),
            topic,
        }
    }

    /// A folder of the test's own; a directory log lies in it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The log's URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Deletes the topic and creates another one of its name.
    ///
    /// # Panics
    ///
    /// If that cannot be done.
    pub async fn make_anew(&self, partitions: i32) -> TopicDescription {
        self.delete().await;
        self.create(partitions).await
    }

    /// Deletes the topic.
    ///
    /// # Panics
    ///
    /// If that cannot be done.
    pub async fn delete(&self) {
        let name = &self.topic.name;
        match self.url.strip_prefix("kafka://") {
            None => std::fs::remove_dir_all(self.path().join(name)).expect("deleted"),
            Some(bootstrap) => kafka::delete(bootstrap, name).await,
        }
    }

    /// Makes the topic that was deleted, empty, with this many partitions.
    ///
    /// # Panics
    ///
    /// If that cannot be done.
    pub async fn create(&self, partitions: i32) -> TopicDescription {
        let name = &self.topic.name;
        let settings = NewTopic { partitions: Some(partitions), ..NewTopic::default() };
        self.log.create(name, settings).await.expect("a topic")
    }

    /// Writes a record.
    ///
    /// # Panics
    ///
    /// If it is not acknowledged.
    pub async fn put(&self, key: &str, value: Option<&[u8]>) -> Ack {
        self.write(vec![record(key, value)]).await[0]
    }

    /// Writes records, pipelined.
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

    /// The topic as a table, loaded.
    ///
    /// # Panics
    ///
    /// If it cannot be.
    pub async fn table(&self, codecs: Codecs) -> Table {
        Table::builder(self.log.clone(), &self.topic.name, codecs)
            .catchup_timeout(PATIENCE)
            .start()
            .await
            .expect("a table")
    }

    /// Waits until all that was written is in the table.
    ///
    /// # Panics
    ///
    /// If that does not happen.
    pub async fn sync(&self, table: &Table) {
        let freshness = table.barrier(PATIENCE).await;
        assert!(freshness.is_fresh(), "{freshness:?}");
    }

    /// The `ktables` command on this topic.
    #[must_use]
    pub fn ktables(&self, args: &[&str]) -> Command {
        let mut command = ktables(args);
        command.args(["--log", &self.url(), "--topic", &self.topic.name]);
        command
    }
}

/// A record.
#[must_use]
pub fn record(key: &str, value: Option<&[u8]>) -> NewRecord {
    NewRecord { key: Some(key.as_bytes().to_vec()), value: value.map(<[u8]>::to_vec), ..NewRecord::default() }
}

/// JSON.
///
/// # Panics
///
/// If it is none.
#[must_use]
pub fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Asks again and again until there is an answer.
///
/// # Panics
///
/// If there is none in time.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same in a test with a runtime, which goes on meanwhile.
///
/// # Panics
///
/// If there is no answer in time.
pub async fn eventually_async<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks again and again until the answer is no error.
///
/// # Panics
///
/// With the last error, if it does not come in time.
pub async fn eventually_ok<T, E: std::fmt::Display, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}: {error}")
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Keys and values of a table.
#[must_use]
pub fn contents(table: &Table) -> BTreeMap<String, String> {
    table.snapshot().iter().map(|entry| (entry.key().to_owned(), entry.json().to_owned())).collect()
}

/// Keys of a table, and the offsets of their records.
#[must_use]
pub fn places(table: &Table) -> BTreeMap<String, i64> {
    table.snapshot().iter().map(|entry| (entry.key().to_owned(), entry.offset())).collect()
}
