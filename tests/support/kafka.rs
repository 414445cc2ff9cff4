//! The cluster of the tests, and operations on clusters that only tests need.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use ktables::log::{Log, LogError, TopicDescription};
use ktables_broker::{Broker, BrokerOptions, SchemaRegistry};
use procfs::process::{FDTarget, Process};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::{TIMEOUT, release_folder, unique};

/// Returns the address of the cluster that all tests share: `KTABLES_TEST_BOOTSTRAP`, or a broker that lives
/// as long as the test process.
///
/// # Panics
///
/// If no broker can be started.
#[must_use]
pub fn shared() -> String {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    std::env::var("KTABLES_TEST_BOOTSTRAP")
        .unwrap_or_else(|_| BROKER.get_or_init(|| start_broker(&BrokerOptions::default())).bootstrap())
}

/// Starts a broker that no other test uses, which may be paused and killed.
///
/// # Panics
///
/// If it cannot be started.
#[must_use]
pub fn start_broker(options: &BrokerOptions) -> Broker {
    Broker::start(&target(), options).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the broker with authentication and access control that all tests share.
///
/// # Panics
///
/// If it cannot be started.
pub fn secured_broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| start_broker(&BrokerOptions { secured: true, ..BrokerOptions::default() }))
}

/// Returns the address of the schema registry that all tests share, which lives as long as the test process.
///
/// # Panics
///
/// If it cannot be started.
pub fn schema_registry() -> String {
    static REGISTRY: OnceLock<SchemaRegistry> = OnceLock::new();
    let start = || SchemaRegistry::start(&target(), None).unwrap_or_else(|error| panic!("{error}"));
    REGISTRY.get_or_init(start).url()
}

/// Returns the project's target folder.
#[must_use]
pub fn target() -> PathBuf {
    release_folder().parent().expect("target/release").to_owned()
}

/// Returns the number of connections of this process to an address.
///
/// # Panics
///
/// If `/proc` cannot be read.
#[must_use]
pub fn count_connections(bootstrap: &str) -> usize {
    let address = bootstrap.parse().expect("an address");
    let files = Process::myself().and_then(|process| process.fd()?.collect::<Result<Vec<_>, _>>());
    let files = files.expect("its own open files");
    let is_own =
        |inode| files.iter().any(|file| matches!(file.target, FDTarget::Socket(own) if own == inode));
    let sockets = procfs::net::tcp().expect("the list of sockets");
    sockets.iter().filter(|socket| socket.remote_address == address && is_own(socket.inode)).count()
}

fn admin_client(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client")
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT))
}

/// Creates a topic with these settings. It is compacted only if they say so.
///
/// # Panics
///
/// If it cannot be created.
pub async fn create(bootstrap: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let created = admin_client(bootstrap).create_topics([&topic], &admin_options()).await.expect("an answer");
    created[0].as_ref().unwrap_or_else(|(_, code)| panic!("{name}: {code}"));
}

/// Creates a topic with these nodes as replicas of each partition. The first one is the preferred leader.
///
/// # Panics
///
/// If it cannot be created.
pub async fn create_with_replicas(
    bootstrap: &str,
    name: &str,
    replicas: &[&[i32]],
    settings: &[(&str, &str)],
) {
    let partitions = i32::try_from(replicas.len()).expect("few enough");
    let topic = NewTopic::new(name, partitions, TopicReplication::Variable(replicas));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let created = admin_client(bootstrap).create_topics([&topic], &admin_options()).await.expect("an answer");
    created[0].as_ref().unwrap_or_else(|(_, code)| panic!("{name}: {code}"));
}

/// Waits until a partition has a leader, and returns its node.
///
/// # Panics
///
/// If it has none in time.
#[must_use]
pub fn wait_for_leader(bootstrap: &str, topic: &str, partition: i32) -> usize {
    let client: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client");
    crate::eventually("the partition has a leader", || {
        let metadata = client.client().fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
        let partitions = metadata.topics().first()?.partitions();
        usize::try_from(partitions.iter().find(|found| found.id() == partition)?.leader()).ok()
    })
}

/// Deletes the records of a topic's partitions below these offsets.
///
/// # Panics
///
/// If they cannot be deleted.
pub async fn delete_records(bootstrap: &str, topic: &str, below: &[(i32, i64)]) {
    let mut offsets = TopicPartitionList::new();
    for &(partition, offset) in below {
        offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
    }
    let deleted = admin_client(bootstrap).delete_records(&offsets, &admin_options()).await;
    let deleted = deleted.expect("an answer");
    for partition in deleted.elements() {
        partition.error().expect("deleted");
    }
}

/// Deletes a topic, and waits until it does not exist any more.
///
/// # Panics
///
/// If it cannot be deleted.
pub async fn delete(bootstrap: &str, name: &str) {
    let deleted = admin_client(bootstrap).delete_topics(&[name], &admin_options()).await.expect("an answer");
    deleted[0].as_ref().unwrap_or_else(|(_, code)| panic!("{name}: {code}"));
    let log = ktables::log::open(&format!("kafka://{bootstrap}")).expect("a log");
    let gone = async {
        while !matches!(log.describe(name).await, Err(LogError::UnknownTopic { .. })) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, gone).await.expect("the topic disappears");
}

/// Adds partitions to a topic, up to this number.
///
/// # Panics
///
/// If they cannot be added.
pub async fn grow(bootstrap: &str, name: &str, partitions: usize) {
    let partitions = NewPartitions::new(name, partitions);
    let grown = admin_client(bootstrap).create_partitions([&partitions], &admin_options()).await;
    grown.expect("an answer")[0].as_ref().unwrap_or_else(|(_, code)| panic!("{name}: {code}"));
}

/// Changes one setting of a topic, and resets all others to their defaults.
///
/// # Panics
///
/// If it cannot be changed.
pub async fn alter_setting(bootstrap: &str, name: &str, setting: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(setting, value);
    let changed = admin_client(bootstrap).alter_configs([&change], &admin_options()).await;
    changed.expect("an answer")[0].as_ref().unwrap_or_else(|(_, code)| panic!("{name}: {code}"));
}

/// Waits until a topic that was just created is visible, with its offsets.
///
/// # Panics
///
/// If it does not become visible in time.
pub async fn wait_for_topic(log: &dyn Log, name: &str) -> TopicDescription {
    let visible = async {
        loop {
            if let Ok(topic) = log.describe(name).await
                && log.offsets(&topic).await.is_ok()
            {
                return topic;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, visible).await.expect("the topic becomes visible")
}

/// Creates a compacted topic with segments so short that the broker compacts soon. Returns its name.
///
/// # Panics
///
/// If it cannot be created.
pub async fn create_compacting(bootstrap: &str, partitions: i32) -> String {
    let name = unique("compacted");
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("delete.retention.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    create(bootstrap, &name, partitions, &settings).await;
    name
}

/// A producer that writes in transactions.
pub struct Transactional(BaseProducer);

impl std::fmt::Debug for Transactional {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transactional").finish_non_exhaustive()
    }
}

impl Transactional {
    /// Starts a producer with a transactional id of its own.
    ///
    /// # Panics
    ///
    /// If the cluster does not accept it.
    #[must_use]
    pub fn new(bootstrap: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("transactional.id", unique("transactions"));
        let producer: BaseProducer = config.create().expect("a producer");
        producer.init_transactions(TIMEOUT).expect("transactions");
        Self(producer)
    }

    /// Begins a transaction.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn begin(&self) {
        self.0.begin_transaction().expect("begun");
    }

    /// Writes a record, and waits until its delivery has succeeded or failed. A failure shows at the commit.
    ///
    /// # Panics
    ///
    /// If the record cannot be queued.
    pub fn send(&self, topic: &str, partition: i32, key: &str, value: &str) {
        let record = BaseRecord::to(topic).partition(partition).key(key).payload(value);
        self.0.send(record).map_err(|(error, _)| error).expect("queued");
        self.0.flush(TIMEOUT).expect("written");
    }

    /// Commits the transaction.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn commit(&self) {
        self.0.commit_transaction(TIMEOUT).expect("committed");
    }

    /// Aborts the transaction.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn abort(&self) {
        self.0.abort_transaction(TIMEOUT).expect("aborted");
    }
}
