//! Builds librdkafka's configuration for each kind of client from the user's properties and from what
//! tables need.

use std::ops::RangeInclusive;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::log::kafka::ffi::client::{Client, Kind};
use crate::log::{Acks, Isolation, LogError, LogOptions};

/// Properties that users cannot set, because they would break replay or ordering, and the reason or the
/// alternative that the error names.
const RESERVED: [(&[&str], &str); 13] = [
    (&["bootstrap.servers", "metadata.broker.list"], "write the brokers in the URL: kafka://HOST:PORT,…"),
    (&["isolation.level"], "set isolation = \"read_committed\" or \"read_uncommitted\""),
    (&["enable.idempotence"], "set idempotence = true or false"),
    (&["acks", "request.required.acks"], "set acks = \"all\" or \"leader\""),
    (
        &["max.in.flight.requests.per.connection", "max.in.flight"],
        "ktables derives it from `idempotence`, to keep records in order",
    ),
    (
        &["partitioner", "partitioner_cb"],
        "ktables chooses partitions as Java's client does (murmur2), so that all writers agree",
    ),
    (
        &["auto.offset.reset", "enable.partition.eof", "offset.store.method"],
        "a table reads its whole topic from the first offset",
    ),
    (
        &["enable.auto.commit", "enable.auto.offset.store", "auto.commit.enable", "auto.commit.interval.ms"],
        "a table commits no offsets",
    ),
    (
        &[
            "group.id",
            "group.instance.id",
            "group.protocol",
            "group.remote.assignor",
            "partition.assignment.strategy",
        ],
        "a table uses no consumer group: every process reads all partitions",
    ),
    (&["allow.auto.create.topics"], "create topics with `ktables topic ensure`"),
    (&["transactional.id", "transaction.timeout.ms"], "ktables chooses it; set delivery.timeout.ms"),
    (&["log_level"], "the messages of librdkafka are filtered like all others, for example with KTABLES_LOG"),
    (&["log.queue", "delivery.report.only.error"], "ktables does not support it"),
];

/// Properties that have two names in librdkafka. The second one of each pair is used here.
const ALIASES: [(&str, &str); 3] = [
    ("message.timeout.ms", "delivery.timeout.ms"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
];

/// The longest time that a client spends without usable metadata before it returns to the brokers of the URL.
const MAX_REBOOTSTRAP_DELAY: Duration = Duration::from_secs(5);

/// The transaction timeout in milliseconds, unless `delivery.timeout.ms` is set: the broker aborts a
/// transaction that is open for longer. It is the default of Kafka's clients.
const TRANSACTION_TIMEOUT_MILLIS: u64 = 60_000;

/// The transaction timeouts in milliseconds that librdkafka and, by default, brokers accept.
const TRANSACTION_TIMEOUTS: RangeInclusive<u64> = 1_000..=900_000;

/// How long a record is retried, in milliseconds, unless `delivery.timeout.ms` is set: as with Java's client.
const DELIVERY_TIMEOUT_MILLIS: u64 = 120_000;

/// How much longer than its records are retried a producer that was replaced exists.
const RETIRE_MARGIN: Duration = Duration::from_secs(10);

/// The limit of batch sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum BatchSize {
    /// librdkafka's limit, or the user's `batch.size`.
    Default,
    /// At most this many bytes. A larger record gets a batch of its own.
    AtMost(u64),
    /// One record in each batch: the broker refused batches, and the topic's `max.message.bytes` is unknown.
    OneRecord,
}

/// The transactional id of a client. Brokers let only the newest client of an id write.
#[derive(Debug, Clone)]
pub(super) enum TransactionalId {
    /// An id that no other client has.
    Unique,
    /// The id of all clients that append to this topic at an expected offset.
    AppendTo(String),
}

/// The purpose of a client, which decides its configuration.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// Describes, creates, changes and deletes topics, and requests their settings and offsets: the end offsets
    /// of this isolation.
    Control(Isolation),
    /// Loads a topic as fast as possible.
    Load {
        /// The limit of its queue of fetched records, in KiB.
        queue_kib: u32,
    },
    /// Follows all loaded topics, with few requests and a small queue.
    Tail,
    /// Writes in batches of this size.
    Produce(BatchSize),
    /// Writes in transactions, in batches of this size.
    Transact(BatchSize, TransactionalId),
}

/// The configuration of all clients of a cluster.
#[derive(Debug, Clone)]
pub(super) struct Configs {
    bootstrap: String,
    options: LogOptions,
}

impl Configs {
    /// Checks the options as far as possible without a connection.
    ///
    /// # Errors
    ///
    /// [`LogError::InvalidProperty`] if an option is not valid, or if the user must not set it.
    pub(super) fn new(bootstrap: &str, mut options: LogOptions) -> Result<Self, LogError> {
        options.validate()?;
        for (alias, name) in ALIASES {
            if let Some(value) = options.properties.remove(alias)
                && options.properties.insert(name.to_owned(), value).is_some()
            {
                let reason = format!("it is another name of `{name}`: set only one of them");
                return Err(LogError::InvalidProperty { name: alias.to_owned(), reason });
            }
        }
        let refused: Vec<(&str, &str)> =
            options.properties.keys().filter_map(|name| Some((&**name, reserved_reason(name)?))).collect();
        if let [(name, reason), others @ ..] = &refused[..] {
            let others = others.iter().map(|(name, reason)| format!("; property `{name}`: {reason}"));
            let reason = format!("{reason}{}", others.collect::<String>());
            return Err(LogError::InvalidProperty { name: (*name).to_owned(), reason });
        }
        let configs = Self { bootstrap: bootstrap.to_owned(), options };
        if configs.protocol() != "plaintext" {
            // Initialized before librdkafka does it: this way, OpenSSL does not tear itself down when the
            // process ends, while threads of clients still use it.
            openssl_sys::init();
        }
        for purpose in [
            Purpose::Produce(BatchSize::Default),
            Purpose::Transact(BatchSize::Default, TransactionalId::Unique),
        ] {
            configs.config(purpose).create_native_config().map_err(property_error)?;
        }
        Ok(configs)
    }

    /// Starts a client. It connects in the background.
    pub(super) fn start(&self, purpose: Purpose) -> Result<Client, LogError> {
        let kind = match purpose {
            Purpose::Control(_) | Purpose::Produce(_) | Purpose::Transact(..) => Kind::Producer,
            Purpose::Load { .. } | Purpose::Tail => Kind::Consumer,
        };
        let token_file = self.options.oauth_token_file.clone();
        Client::new(kind, &self.config(purpose), token_file).map_err(|error| {
            let reason = match error {
                KafkaError::ClientCreation(reason) => reason,
                error => error.to_string(),
            };
            LogError::Client { log: format!("kafka://{}", self.bootstrap), reason }
        })
    }

    fn config(&self, purpose: Purpose) -> ClientConfig {
        match purpose {
            Purpose::Control(isolation) => self.control(isolation),
            Purpose::Load { queue_kib } => self.loader(queue_kib),
            Purpose::Tail => self.tail(),
            Purpose::Produce(batch) => self.producer(batch),
            Purpose::Transact(batch, id) => self.transactional(batch, &id),
        }
    }

    /// The security protocol, in lower case.
    fn protocol(&self) -> String {
        self.options
            .properties
            .get("security.protocol")
            .map_or("plaintext".to_owned(), |protocol| protocol.to_lowercase())
    }

    /// The configuration that all clients share. The user's properties override `defaults`.
    fn base(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "ktables");
        // librdkafka leaves its first connection when it knows the broker by name, and delays the second
        // one for half of this time. With the default of 100 ms, that costs each command 50 ms.
        config.set("reconnect.backoff.ms", "20");
        // Clients reconnect at most a second after a broker is back.
        config.set("reconnect.backoff.max.ms", "1000");
        // Without usable metadata for this long, the client returns to the brokers of the URL: the brokers it
        // knows do not answer, or a response names none, for example while a broker joins its cluster.
        // librdkafka's default is five minutes.
        let delay = (self.options.stale_after / 2).clamp(Duration::from_secs(1), MAX_REBOOTSTRAP_DELAY);
        config.set("metadata.recovery.rebootstrap.trigger.ms", delay.as_millis().to_string());
        config.set("enable.metrics.push", "false");
        config.set("socket.keepalive.enable", "true");
        if self.protocol().contains("ssl") {
            // OpenSSL is linked statically, so it does not know where the system's certificates are.
            config.set("ssl.ca.location", "probe");
        }
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.options.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.bootstrap);
        config.set("allow.auto.create.topics", "false");
        // Our log callback receives all log lines of librdkafka, and the subscriber filters them.
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Debug);
        config
    }

    fn control(&self, isolation: Isolation) -> ClientConfig {
        let mut config = self.base(&[]);
        config.set("isolation.level", isolation_level(isolation));
        config
    }

    fn producer(&self, batch: BatchSize) -> ClientConfig {
        // A single write should not wait for others, and many writes fill batches anyway while requests are
        // in flight.
        let delivery_timeout = DELIVERY_TIMEOUT_MILLIS.to_string();
        let mut config = self.base(&[("linger.ms", "0"), ("delivery.timeout.ms", &delivery_timeout)]);
        match batch {
            BatchSize::Default => {}
            BatchSize::AtMost(bytes) => drop(config.set("batch.size", bytes.to_string())),
            BatchSize::OneRecord => drop(config.set("batch.num.messages", "1")),
        }
        config.set("partitioner", "murmur2_random");
        config.set("enable.idempotence", self.options.idempotence.to_string());
        config.set(
            "acks",
            match self.options.acks {
                Acks::All => "all",
                Acks::Leader => "1",
            },
        );
        // Without idempotence, a record that is retried must not be overtaken by later ones.
        config.set("max.in.flight.requests.per.connection", if self.options.idempotence { "5" } else { "1" });
        config
    }

    fn transactional(&self, batch: BatchSize, id: &TransactionalId) -> ClientConfig {
        let mut config = self.producer(batch);
        let id = match id {
            TransactionalId::Unique => format!("ktables-{}", uuid::Uuid::new_v4()),
            TransactionalId::AppendTo(topic) => format!("ktables-append-{topic}"),
        };
        config.set("transactional.id", id);
        // A record may be retried for as long as its transaction may be open.
        let (min, max) = TRANSACTION_TIMEOUTS.into_inner();
        let timeout = match self.number("delivery.timeout.ms") {
            None => TRANSACTION_TIMEOUT_MILLIS,
            // Without a limit.
            Some(0) => max,
            Some(millis) => millis.clamp(min, max),
        };
        config.set("transaction.timeout.ms", timeout.to_string());
        config.set("delivery.timeout.ms", timeout.to_string());
        if !self.options.properties.contains_key("linger.ms") {
            // All records of a transaction are queued at once, so a short wait fills batches.
            config.set("linger.ms", "5");
        }
        config
    }

    fn loader(&self, queue_kib: u32) -> ClientConfig {
        self.consumer(&[
            ("queued.max.messages.kbytes", &queue_kib.to_string()),
            // librdkafka does not count its own overhead, some hundred bytes for each message. One message
            // for each KiB of the queue bounds it.
            ("queued.min.messages", &queue_kib.to_string()),
            ("fetch.message.max.bytes", "8388608"),
            ("fetch.max.bytes", "52428800"),
            // The default of one second stalls a load whenever the queue is full.
            ("fetch.queue.backoff.ms", "5"),
            // The broker answers as soon as it has data. Only the end-of-partition event waits for this.
            ("fetch.wait.max.ms", "10"),
        ])
    }

    fn tail(&self) -> ClientConfig {
        self.consumer(&[
            ("queued.max.messages.kbytes", "16384"),
            ("queued.min.messages", "10000"),
            ("fetch.queue.backoff.ms", "10"),
            ("fetch.wait.max.ms", "500"),
        ])
    }

    fn consumer(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config =
            self.base(&[defaults, &[("check.crcs", "true"), ("fetch.error.backoff.ms", "50")]].concat());
        // librdkafka requires a group id, although no consumer group is used.
        config.set("group.id", format!("ktables-{}", uuid::Uuid::new_v4()));
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "error");
        config.set("isolation.level", isolation_level(self.options.isolation));
        config
    }

    /// The largest record that a client accepts, in bytes.
    pub(super) fn max_message_bytes(&self) -> u64 {
        self.number("message.max.bytes").unwrap_or(1_000_000)
    }

    /// The batch size for a topic whose `max.message.bytes`, which limits batches, is this.
    pub(super) fn batch_size_for(&self, max_message_bytes: u64) -> BatchSize {
        let default = self.number("batch.size").unwrap_or(1_000_000);
        if default <= max_message_bytes {
            BatchSize::Default
        } else {
            BatchSize::AtMost(max_message_bytes.max(1))
        }
    }

    /// Returns how long a producer that was replaced may take to write its queued records: a little longer than
    /// they are retried.
    pub(super) fn retire_timeout(&self) -> Duration {
        let millis = match self.number("delivery.timeout.ms") {
            None => DELIVERY_TIMEOUT_MILLIS,
            // Without a limit.
            Some(0) => u64::from(u32::MAX),
            Some(millis) => millis,
        };
        Duration::from_millis(millis) + RETIRE_MARGIN
    }

    /// Returns a property of the user's as a number, or `None` if it is not set.
    fn number(&self, property: &str) -> Option<u64> {
        self.options.properties.get(property).and_then(|value| value.parse().ok())
    }

    pub(super) fn options(&self) -> &LogOptions {
        &self.options
    }
}

/// Returns why the user must not set a property, or `None` if it is allowed.
fn reserved_reason(name: &str) -> Option<&'static str> {
    RESERVED.iter().find(|(names, _)| names.contains(&name)).map(|(_, reason)| *reason)
}

/// Converts an error about a property. librdkafka's own text is left out, because it quotes the value,
/// which may be a secret.
fn property_error(error: KafkaError) -> LogError {
    use rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
    match error {
        KafkaError::ClientConfig(RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            LogError::InvalidProperty { name, reason: "librdkafka has no such property".to_owned() }
        }
        KafkaError::ClientConfig(_, _, name, _) => {
            LogError::InvalidProperty { name, reason: "librdkafka rejects this value".to_owned() }
        }
        error => LogError::InvalidProperty { name: "properties".to_owned(), reason: error.to_string() },
    }
}

/// Returns the value of librdkafka's `isolation.level`.
fn isolation_level(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadCommitted => "read_committed",
        Isolation::ReadUncommitted => "read_uncommitted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_can_be_set_by_its_name_or_its_alias_but_not_by_both() {
        let configs = |properties: &[(&str, &str)]| {
            let properties =
                properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Configs::new("a:1", LogOptions { properties, ..LogOptions::default() })
        };
        for (alias, name) in ALIASES {
            for purpose in [
                Purpose::Load { queue_kib: 1024 },
                Purpose::Produce(BatchSize::Default),
                Purpose::Transact(BatchSize::Default, TransactionalId::Unique),
            ] {
                let native =
                    configs(&[(alias, "5000")]).unwrap().config(purpose.clone()).create_native_config();
                assert_eq!(native.unwrap().get(name).unwrap(), "5000", "{alias} for {purpose:?}");
            }
            let refused = configs(&[(alias, "5000"), (name, "5000")]).unwrap_err().to_string();
            assert!(refused.contains(alias) && refused.contains(name), "{refused}");
        }
    }

    #[test]
    fn every_delivery_timeout_gives_a_valid_transaction_timeout() {
        for (delivery, transaction) in
            [("0", "900000"), ("1", "1000"), ("5000", "5000"), ("2147483647", "900000")]
        {
            let properties = [("delivery.timeout.ms".to_owned(), delivery.to_owned())].into();
            let options = LogOptions { properties, ..LogOptions::default() };
            let config = Configs::new("a:1", options)
                .unwrap()
                .config(Purpose::Transact(BatchSize::Default, TransactionalId::Unique));
            assert_eq!(config.get("transaction.timeout.ms"), Some(transaction), "{delivery}");
            assert_eq!(config.get("delivery.timeout.ms"), Some(transaction), "{delivery}");
        }
    }

    /// The list of reserved properties is complete: it names each property whose value ktables overrides. The
    /// limits of a batch are not on it: the user's are lowered to what a topic accepts.
    #[test]
    fn properties_that_ktables_overrides_are_refused() {
        // A number, because some properties are limited to a range.
        const THEIRS: &str = "7777";
        let configs = |properties: &[(&str, &str)]| {
            let properties =
                properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let options = LogOptions { properties, ..LogOptions::default() };
            Configs { bootstrap: "a:1".to_owned(), options }
        };
        // With TLS, because one property is set only then.
        let tls = ("security.protocol", "ssl");
        let purposes = [
            Purpose::Control(Isolation::ReadCommitted),
            Purpose::Load { queue_kib: 1024 },
            Purpose::Tail,
            Purpose::Produce(BatchSize::Default),
            Purpose::Transact(BatchSize::Default, TransactionalId::Unique),
        ];
        for purpose in purposes {
            let ours = configs(&[tls]).config(purpose.clone());
            assert!(ours.config_map().len() > 8, "{purpose:?}");
            for name in ours.config_map().keys() {
                let theirs = configs(&[tls, (name, THEIRS)]).config(purpose.clone());
                let is_overridden = theirs.get(name) != Some(THEIRS);
                assert!(!is_overridden || reserved_reason(name).is_some(), "{name} for {purpose:?}");
            }
        }
    }
}
