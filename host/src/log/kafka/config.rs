//! librdkafka's configuration for each kind of client: what the user gave, and what
//! tables need.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::log::kafka::ffi::client::{Client, Kind};
use crate::log::{Acks, Isolation, LogError, LogOptions};

/// Properties that would break replay or ordering, and what is meant instead.
const REFUSED: [(&[&str], &str); 10] = [
    (&["bootstrap.servers", "metadata.broker.list"], "the brokers stand in the URL: kafka://HOST:PORT,…"),
    (&["isolation.level"], "write isolation = \"read_committed\" or \"read_uncommitted\""),
    (&["enable.idempotence"], "write idempotence = true or false"),
    (&["acks", "request.required.acks"], "write acks = \"all\" or \"leader\""),
    (
        &["max.in.flight.requests.per.connection", "max.in.flight"],
        "it follows from `idempotence`, so that records stay in order",
    ),
    (
        &["partitioner", "partitioner_cb"],
        "records go where Java's client puts them (murmur2), so that all writers agree",
    ),
    (
        &["auto.offset.reset", "enable.partition.eof", "offset.store.method"],
        "a table reads its whole topic from its first offset",
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
        "a table is in no consumer group: every process reads all partitions",
    ),
    (
        &[
            "transactional.id",
            "transaction.timeout.ms",
            "allow.auto.create.topics",
            "log.queue",
            "delivery.report.only.error",
        ],
        "it is not for tables; topics are made by `ktables topic ensure`",
    ),
];

/// Properties that librdkafka knows by two names: the other, and the one that is used here.
const ALIASES: [(&str, &str); 3] = [
    ("message.timeout.ms", "delivery.timeout.ms"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
];

/// How long a client asks brokers that do not answer before it begins anew, at most.
const REBOOTSTRAP: Duration = Duration::from_secs(5);

/// How long a transaction may be open, should its writer die: the default of clients, in
/// milliseconds.
const TRANSACTION_MILLIS: &str = "60000";

/// How large batches may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum BatchSize {
    /// As large as clients make them.
    Default,
    /// At most this many bytes, except for a single record that is larger.
    AtMost(u64),
    /// A batch for each record: batches were refused, and the topic does not tell what it takes.
    OneRecord,
}

/// What a client is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// To ask.
    Control,
    /// To load a topic: everything as fast as it comes.
    Load {
        /// The memory it may fill, in KiB.
        queue: u32,
    },
    /// To follow all topics that are loaded: quiet and small.
    Tail,
    /// To write, in batches of this size.
    Produce(BatchSize),
    /// To write in transactions, in batches of this size.
    Transact(BatchSize),
}

/// How the clients of a cluster are configured.
#[derive(Debug, Clone)]
pub(super) struct Configs {
    bootstrap: String,
    options: LogOptions,
}

impl Configs {
    /// Checks all that can be checked before anything is connected.
    pub(super) fn new(bootstrap: &str, mut options: LogOptions) -> Result<Self, LogError> {
        options.validate()?;
        for (alias, name) in ALIASES {
            if let Some(value) = options.properties.remove(alias)
                && options.properties.insert(name.to_owned(), value).is_some()
            {
                let reason = format!("it is another name of `{name}`: write one of them");
                return Err(LogError::Property { name: alias.to_owned(), reason });
            }
        }
        let refused: Vec<(&str, &str)> =
            options.properties.keys().filter_map(|name| Some((name.as_str(), refusal(name)?))).collect();
        if !refused.is_empty() {
            let (names, reasons): (Vec<&str>, Vec<&str>) = refused.into_iter().unzip();
            return Err(LogError::Property { name: names.join("`, `"), reason: reasons.join("; ") });
        }
        let configs = Self { bootstrap: bootstrap.to_owned(), options };
        if configs.protocol() != "plaintext" {
            // Before librdkafka does it: this way OpenSSL does not take itself apart at the end
            // of the process, while clients' threads still use it.
            openssl_sys::init();
        }
        configs.config(Purpose::Produce(BatchSize::Default)).create_native_config().map_err(property)?;
        Ok(configs)
    }

    /// A client.
    pub(super) fn start(&self, purpose: Purpose) -> Result<Client, LogError> {
        let kind = match purpose {
            Purpose::Control | Purpose::Produce(_) | Purpose::Transact(_) => Kind::Producer,
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
            Purpose::Control => self.base(&[]),
            Purpose::Load { queue } => self.loader(queue),
            Purpose::Tail => self.tail(),
            Purpose::Produce(batch) => self.producer(batch),
            Purpose::Transact(batch) => self.transactional(batch),
        }
    }

    /// The security protocol, in lower case.
    fn protocol(&self) -> String {
        self.options
            .properties
            .get("security.protocol")
            .map_or("plaintext".to_owned(), |it| it.to_lowercase())
    }

    fn base(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "ktables");
        // Half of this is for how long librdkafka, which leaves its first connection once
        // it knows the broker by name, holds back the second: by default 50 ms of each
        // command.
        config.set("reconnect.backoff.ms", "20");
        // After a broker is back, a second is long enough to wait.
        config.set("reconnect.backoff.max.ms", "1000");
        // A client that was told of no brokers at all, as happens while a broker joins its
        // cluster, begins anew with those of the URL. The default is five minutes.
        let patience = (self.options.stale_after / 2).clamp(Duration::from_secs(1), REBOOTSTRAP);
        config.set("metadata.recovery.rebootstrap.trigger.ms", patience.as_millis().to_string());
        config.set("enable.metrics.push", "false");
        config.set("socket.keepalive.enable", "true");
        if self.protocol().contains("ssl") {
            // OpenSSL is linked in, so it does not know the system's certificates.
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
        // Everything librdkafka says comes as an event, and its subscribers choose.
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Debug);
        config
    }

    fn producer(&self, batch: BatchSize) -> ClientConfig {
        // A single write should not wait for others; many fill batches anyway while
        // requests are on their way. Two minutes are what Java's client waits.
        let mut config = self.base(&[("linger.ms", "0"), ("delivery.timeout.ms", "120000")]);
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
        // Without idempotence a record that is sent again must not overtake.
        config.set("max.in.flight.requests.per.connection", if self.options.idempotence { "5" } else { "1" });
        config
    }

    fn transactional(&self, batch: BatchSize) -> ClientConfig {
        let mut config = self.producer(batch);
        config.set("transactional.id", format!("ktables-{}", uuid::Uuid::new_v4()));
        // A record may be tried for as long as its transaction may be open.
        let properties = &self.options.properties;
        let patience = properties.get("delivery.timeout.ms").map_or(TRANSACTION_MILLIS, String::as_str);
        config.set("transaction.timeout.ms", patience);
        config.set("delivery.timeout.ms", patience);
        if !properties.contains_key("linger.ms") {
            // Records of one transaction come at once.
            config.set("linger.ms", "5");
        }
        config
    }

    fn loader(&self, queue: u32) -> ClientConfig {
        self.consumer(&[
            ("queued.max.messages.kbytes", &queue.to_string()),
            // What it keeps of a message besides is some hundred bytes, which it does not
            // count: a message for each KiB.
            ("queued.min.messages", &queue.to_string()),
            ("fetch.message.max.bytes", "8388608"),
            ("fetch.max.bytes", "52428800"),
            // The default of a second stalls.
            ("fetch.queue.backoff.ms", "5"),
            // Data wakes the broker; only the news of the end waits for this.
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
        // librdkafka wants a group where there is none.
        config.set("group.id", format!("ktables-{}", uuid::Uuid::new_v4()));
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "error");
        config.set(
            "isolation.level",
            match self.options.isolation {
                Isolation::ReadCommitted => "read_committed",
                Isolation::ReadUncommitted => "read_uncommitted",
            },
        );
        config
    }

    /// The largest record that a client takes, in bytes.
    pub(super) fn max_message_bytes(&self) -> u64 {
        self.number("message.max.bytes").unwrap_or(1_000_000)
    }

    /// How large batches may be for a topic that takes so many bytes at once.
    pub(super) fn batch_of(&self, max_message_bytes: u64) -> BatchSize {
        let default = self.number("batch.size").unwrap_or(1_000_000);
        if default <= max_message_bytes {
            BatchSize::Default
        } else {
            BatchSize::AtMost(max_message_bytes.max(1))
        }
    }

    fn number(&self, property: &str) -> Option<u64> {
        self.options.properties.get(property).and_then(|value| value.parse().ok())
    }

    pub(super) fn options(&self) -> &LogOptions {
        &self.options
    }
}

/// Why a property is not the user's to set, if so.
fn refusal(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(names, _)| names.contains(&name)).map(|(_, reason)| *reason)
}

/// What is wrong with a property. librdkafka's own words quote the value, which may
/// be a secret.
fn property(error: KafkaError) -> LogError {
    use rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
    match error {
        KafkaError::ClientConfig(RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            LogError::Property { name, reason: "librdkafka has no such property".to_owned() }
        }
        KafkaError::ClientConfig(_, _, name, _) => {
            LogError::Property { name, reason: "librdkafka does not take this value".to_owned() }
        }
        error => LogError::Property { name: "properties".to_owned(), reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_counts_by_each_of_its_names() {
        let configs = |properties: &[(&str, &str)]| {
            let properties =
                properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Configs::new("a:1", LogOptions { properties, ..LogOptions::default() })
        };
        for (alias, name) in ALIASES {
            for purpose in [
                Purpose::Load { queue: 1024 },
                Purpose::Produce(BatchSize::Default),
                Purpose::Transact(BatchSize::Default),
            ] {
                let native = configs(&[(alias, "5000")]).unwrap().config(purpose).create_native_config();
                assert_eq!(native.unwrap().get(name).unwrap(), "5000", "{alias} for {purpose:?}");
            }
            let refused = configs(&[(alias, "5000"), (name, "5000")]).unwrap_err().to_string();
            assert!(refused.contains(alias) && refused.contains(name), "{refused}");
        }
    }

    /// A property that a client gets whatever the user says must not be the user's to say.
    #[test]
    fn what_is_set_in_any_case_is_refused_by_name() {
        let configs = |properties: &[(&str, &str)]| {
            let properties =
                properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let options = LogOptions { properties, ..LogOptions::default() };
            Configs { bootstrap: "a:1".to_owned(), options }
        };
        // A property that is set only with TLS is among them.
        let tls = ("security.protocol", "ssl");
        let purposes = [
            Purpose::Control,
            Purpose::Load { queue: 1024 },
            Purpose::Tail,
            Purpose::Produce(BatchSize::Default),
            Purpose::Transact(BatchSize::Default),
        ];
        for purpose in purposes {
            let ours = configs(&[tls]).config(purpose);
            assert!(ours.config_map().len() > 8, "{purpose:?}");
            for name in ours.config_map().keys() {
                let theirs = configs(&[tls, (name, "theirs")]).config(purpose);
                let is_overridden = theirs.get(name) != Some("theirs");
                assert!(!is_overridden || refusal(name).is_some(), "{name} for {purpose:?}");
            }
        }
    }
}
