//! Creates the topics that contenders replay.

use std::time::Duration;

use ktables_tests::{kafka, unique};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::native;

/// The contents of a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) records: usize,
    pub(crate) keys: usize,
    pub(crate) partitions: i32,
    pub(crate) values: Values,
    /// The producer's `compression.type`.
    pub(crate) compression: &'static str,
}

/// The format of the values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values {
    /// JSON of this many bytes.
    Json(usize),
    /// Binary service records.
    Services,
    /// Debian's package descriptions.
    Packages,
}

impl Values {
    /// Returns enough different values that repeating them does not matter.
    fn generate(self) -> Vec<Vec<u8>> {
        match self {
            Self::Json(size) => (0..1000).map(|n| json(n, size).into_bytes()).collect(),
            Self::Services => (0..1000).map(service).collect(),
            Self::Packages => {
                let sample = include_str!("../../../examples/deb822/sample/status");
                let stanzas = sample.split("\n\n").filter(|stanza| !stanza.trim().is_empty());
                stanzas.map(|stanza| stanza.as_bytes().to_vec()).collect()
            }
        }
    }
}

/// Returns a JSON object of exactly this many bytes.
pub(crate) fn json(n: usize, size: usize) -> String {
    let head =
        format!(r#"{{"id":{n},"up":true,"weight":0.{},"tags":["eu","zone-{}"],"host":""#, n % 100, n % 7);
    let filler = "node-0123456789.example.net/".chars().cycle().take(size - head.len() - 2);
    format!("{head}{}\"}}", filler.collect::<String>())
}

fn service(n: usize) -> Vec<u8> {
    let json = format!(
        r#"{{"host":"host-{n}.example","port":{},"weight":{n},"healthy":true,"draining":false,"started":1700000000000,"tags":["eu","zone-{}"]}}"#,
        8000 + n,
        n % 5
    );
    native::codec("service-record").encode_values(&[&json]).unwrap().remove(0).unwrap().raw
}

/// Returns a key of 20 bytes. Keys of consecutive numbers are far apart in the order of keys.
pub(crate) fn key(n: usize) -> String {
    // Multiplying by an odd factor is a bijection modulo a power of two, so no two numbers share a key.
    let mixed = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("key-{mixed:016x}")
}

/// Creates a topic and fills it. Returns its name.
pub(crate) fn produce(bootstrap: &str, workload: &Workload) -> String {
    produce_values(bootstrap, workload, &workload.values.generate())
}

/// Creates a topic and fills it with these values instead of those of the workload. Returns its name.
pub(crate) fn produce_values(bootstrap: &str, workload: &Workload, values: &[Vec<u8>]) -> String {
    let name = unique(workload.name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(kafka::create(bootstrap, &name, workload.partitions, &[]));
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "20")
        .set("batch.size", "262144")
        .set("compression.type", workload.compression)
        .set("queue.buffering.max.messages", "500000")
        .create()
        .unwrap();
    for n in 0..workload.records {
        let key = key(n % workload.keys);
        let mut record = BaseRecord::to(&name).key(&key).payload(&values[n % values.len()]);
        while let Err((_, back)) = producer.send(record) {
            record = back;
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    name
}
