//! The contenders in Rust. Each runs as a process of its own: `contender KIND CODEC BOOTSTRAP TOPIC`, or one
//! of those in [`cluster`], [`engine`], [`neighbours`] and [`warm`].

use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ktables::Packed;
use ktables::codec::{
    Answers, Codec, CodecFailure, Codecs, ComponentId, Encoded, Json, PackedAnswers, Utf8, ValueCodec,
};
use ktables::log::Header;
use ktables::table::Table;
use ktables_tests::{TOPIC, component};
use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::process::now;
use crate::{cluster, engine, native, neighbours, say, warm};

/// The argument that makes this program a contender.
pub(crate) const COMMAND: &str = "contender";

/// A timeout that no replay reaches.
const TIMEOUT: Duration = Duration::from_secs(600);

pub(crate) fn run(args: &[String]) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["follow", bootstrap, topic] = args[..] {
        return follow(bootstrap, topic);
    }
    if let [cluster::IDLE_TABLES, address, clusters, ref topics @ ..] = args[..] {
        return cluster::run_idle_tables(address, clusters, topics);
    }
    // The table lives until the input ends, so that the caller can read this process's memory until then.
    let mut kept: Option<(Table, Runtime)> = None;
    let result = match args[..] {
        ["neighbour" | "disturb" | "watched", ..] => {
            neighbours::run_as_contender(&args).unwrap_or_else(|| panic!("no contender {args:?}"))
        }
        ["raw", how, bootstrap, topic] => replay_raw(bootstrap, topic, how == "bulk"),
        [warm::WARM, folder, bootstrap, topic] => {
            let (result, table, runtime) = warm::run_as_contender(folder, bootstrap, topic);
            kept = Some((table, runtime));
            result
        }
        [kind, codec, bootstrap, topic] => {
            let (result, table, runtime) = replay_into_table(kind, codec, bootstrap, topic);
            kept = Some((table, runtime));
            result
        }
        ref args => engine::run_as_contender(args).unwrap_or_else(|| panic!("no contender {args:?}")),
    };
    say(&result.to_string());
    // OK to ignore: this only waits until the caller closes the input.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(kept);
}

/// Follows a topic with a bare consumer, and prints when each message came, in seconds since 1970, until the
/// standard input ends. The first line is `ready`.
fn follow(bootstrap: &str, topic: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "raw")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let (_, end) = consumer.fetch_watermarks(topic, 0, TIMEOUT).unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Offset(end)).unwrap();
    consumer.assign(&assignment).unwrap();
    // The first poll starts fetching.
    let _ = consumer.poll(Duration::from_secs(1));
    say("ready");
    let input = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    while !input.is_finished() {
        if let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {
            say(&now().to_string());
        }
    }
}

/// Replays a topic with the bare client, and counts messages and bytes. It polls one message at a time, as
/// programs do, or takes many at once, which is as fast as the client gets.
fn replay_raw(bootstrap: &str, topic: &str, in_bulk: bool) -> Value {
    let mut config = ClientConfig::new();
    let settings = [
        ("bootstrap.servers", bootstrap),
        ("group.id", "raw"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "error"),
        ("check.crcs", "true"),
        ("reconnect.backoff.ms", "20"),
        ("queued.max.messages.kbytes", "262144"),
        ("queued.min.messages", "262144"),
        ("fetch.message.max.bytes", "8388608"),
        ("fetch.max.bytes", "52428800"),
        ("fetch.queue.backoff.ms", "5"),
        ("fetch.wait.max.ms", "10"),
    ];
    for (name, value) in settings {
        config.set(name, value);
    }
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let mut assignment = TopicPartitionList::new();
    let partitions = metadata.topics()[0].partitions();
    for partition in partitions {
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut totals = Totals { first: None, records: 0, bytes: 0, unfinished: partitions.len() };
    let read = if in_bulk { read_in_bulk } else { read_one_by_one };
    read(&consumer, &mut totals);
    json!({"first": totals.first, "done": now(), "records": totals.records, "bytes": totals.bytes})
}

/// Counts of what a loop has read so far.
#[derive(Debug)]
struct Totals {
    first: Option<f64>,
    records: u64,
    bytes: usize,
    /// The number of partitions whose end is not reached yet.
    unfinished: usize,
}

impl Totals {
    fn record(&mut self, bytes: usize) {
        self.first.get_or_insert_with(now);
        self.records += 1;
        self.bytes += bytes;
    }
}

fn read_one_by_one(consumer: &BaseConsumer, totals: &mut Totals) {
    while totals.unfinished > 0 {
        match consumer.poll(TIMEOUT) {
            Some(Ok(message)) => {
                let key = message.key().map_or(0, <[u8]>::len);
                totals.record(key + message.payload().map_or(0, <[u8]>::len));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => totals.unfinished -= 1,
            Some(Err(_)) | None => {}
        }
    }
}

/// Reads with the call of librdkafka that returns many messages at once.
#[allow(unsafe_code, reason = "calls into librdkafka, which rdkafka does not wrap")]
fn read_in_bulk(consumer: &BaseConsumer, totals: &mut Totals) {
    let mut messages = [std::ptr::null_mut(); 512];
    // SAFETY: the client outlives its queue, and each message is freed once.
    unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        while totals.unfinished > 0 {
            let taken = sys::rd_kafka_consume_batch_queue(queue, 1, messages.as_mut_ptr(), messages.len());
            for &message in &messages[..usize::try_from(taken).unwrap()] {
                match (*message).err {
                    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                        totals.record((*message).key_len + (*message).len);
                    }
                    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => totals.unfinished -= 1,
                    _ => {}
                }
                sys::rd_kafka_message_destroy(message);
            }
        }
        sys::rd_kafka_queue_destroy(queue);
    }
}

/// Replays a topic into a table.
fn replay_into_table(kind: &str, codec: &str, bootstrap: &str, topic: &str) -> (Value, Table, Runtime) {
    let value: Arc<dyn ValueCodec> = match (kind, codec) {
        ("built-in", "json") => Arc::new(Json),
        ("component", "copy" | "json") => {
            component("mirror").value_codec(TOPIC, &json!({"mode": codec}).to_string()).unwrap()
        }
        ("component", name) => component(name).value_codec(TOPIC, "{}").unwrap(),
        ("native", name) => native::codec(name),
        other => panic!("no codec {other:?}"),
    };
    let timed = Arc::new(TimedCodec { codec: value, first: OnceLock::new() });
    let codecs = Codecs { key: Arc::new(Utf8), value: timed.clone(), group_scheme: None };
    let log = ktables::log::open(&format!("kafka://{bootstrap}")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let table = Table::builder(log, topic, codecs).catchup_timeout(TIMEOUT);
    let table = runtime.block_on(table.start()).unwrap();
    let done = now();
    let stats = table.stats();
    assert!(stats.rejects.is_empty(), "{:?}", table.rejects().first());
    let result = json!({
        "first": timed.first.get(), "done": done, "records": stats.records,
        "entries": stats.entries, "bytes": stats.payload_bytes,
    });
    (result, table, runtime)
}

/// A codec that records when it was first called. That is when the first batch is complete, which may be some
/// milliseconds after its first record came.
#[derive(Debug)]
struct TimedCodec {
    codec: Arc<dyn ValueCodec>,
    first: OnceLock<f64>,
}

impl Codec for TimedCodec {
    fn component(&self) -> Option<&ComponentId> {
        self.codec.component()
    }

    fn is_built_in(&self) -> bool {
        self.codec.is_built_in()
    }
}

impl ValueCodec for TimedCodec {
    fn decode_values<'a>(
        &self,
        raw: &'a Packed,
        headers: &[&[Header]],
    ) -> Result<PackedAnswers<'a>, CodecFailure> {
        self.first.get_or_init(now);
        self.codec.decode_values(raw, headers)
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        self.codec.encode_values(values)
    }
}
