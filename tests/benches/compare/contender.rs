//! Contenders of ours, each a process of its own: `contender KIND CODEC BOOTSTRAP TOPIC`.

use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ktables::Packed;
use ktables::codec::{Answers, Codecs, Encoded, HostFailure, Json, PackedAnswers, Utf8, ValueCodec};
use ktables::log::Header;
use ktables::table::Table;
use ktables_tests::{TOPIC, component};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::native;
use crate::process::now;
use crate::say;

/// How this program is told that it is a contender.
pub(crate) const COMMAND: &str = "contender";

/// No replay takes so long.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn run(args: Vec<String>) {
    let [kind, codec, bootstrap, topic] = &args[..] else { panic!("{args:?}") };
    let result = match kind.as_str() {
        "raw" => raw(bootstrap, topic),
        kind => table(kind, codec, bootstrap, topic),
    };
    say(&result.to_string());
    // What was used can be read until the input ends.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// The client and nothing else: every message is taken and its bytes are counted.
fn raw(bootstrap: &str, topic: &str) -> Value {
    let mut config = ClientConfig::new();
    let settings = [
        ("bootstrap.servers", bootstrap),
        ("group.id", "raw"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "error"),
        ("check.crcs", "true"),
        ("queued.max.messages.kbytes", "262144"),
        ("queued.min.messages", "1000000"),
        ("fetch.message.max.bytes", "8388608"),
        ("fetch.max.bytes", "52428800"),
        ("fetch.queue.backoff.ms", "5"),
        ("fetch.wait.max.ms", "10"),
    ];
    for (name, value) in settings {
        config.set(name, value);
    }
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let mut places = TopicPartitionList::new();
    let mut left = 0;
    for partition in metadata.topics()[0].partitions() {
        let (start, end) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE).unwrap();
        left += end - start;
        places.add_partition_offset(topic, partition.id(), Offset::Offset(start)).unwrap();
    }
    consumer.assign(&places).unwrap();
    let (mut first, mut records, mut bytes) = (None, 0_u64, 0);
    while left > 0 {
        let Some(Ok(message)) = consumer.poll(PATIENCE) else { continue };
        first.get_or_insert_with(now);
        bytes += message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len);
        records += 1;
        left -= 1;
    }
    json!({"first": first, "done": now(), "records": records, "bytes": bytes})
}

/// A table of ours.
fn table(kind: &str, codec: &str, bootstrap: &str, topic: &str) -> Value {
    let value: Arc<dyn ValueCodec> = match (kind, codec) {
        ("built-in", "json") => Arc::new(Json),
        ("component", "copy" | "json") => {
            component("mirror").value_codec(TOPIC, &json!({"mode": codec}).to_string()).unwrap()
        }
        ("component", name) => component(name).value_codec(TOPIC, "{}").unwrap(),
        ("native", name) => native::codec(name),
        other => panic!("{other:?}"),
    };
    let timed = Arc::new(Timed { codec: value, first: OnceLock::new() });
    let codecs = Codecs { key: Arc::new(Utf8), value: timed.clone(), scheme: None };
    let log = ktables::log::open(&format!("kafka://{bootstrap}")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let table = Table::builder(log, topic, codecs).catchup_timeout(PATIENCE);
    let table = runtime.block_on(table.start()).unwrap();
    let done = now();
    let stats = table.stats();
    assert!(stats.rejects.is_empty(), "{:?}", table.rejects().first());
    json!({
        "first": timed.first.get(), "done": done, "records": stats.records,
        "entries": stats.entries, "bytes": stats.payload_bytes,
    })
}

/// Remembers when it was first asked to decode.
#[derive(Debug)]
struct Timed {
    codec: Arc<dyn ValueCodec>,
    first: OnceLock<f64>,
}

impl ValueCodec for Timed {
    fn decode<'a>(&self, raw: &'a Packed, headers: &[&[Header]]) -> Result<PackedAnswers<'a>, HostFailure> {
        self.first.get_or_init(now);
        self.codec.decode(raw, headers)
    }

    fn encode(&self, values: &[&str]) -> Answers<Encoded> {
        self.codec.encode(values)
    }
}
