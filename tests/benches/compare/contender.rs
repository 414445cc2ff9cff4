//! Contenders of ours, each a process of its own: `contender KIND CODEC BOOTSTRAP TOPIC`,
//! or one of those in [`engine`].

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
use crate::{beside, engine, native, say, warm};

/// How this program is told that it is a contender.
pub(crate) const COMMAND: &str = "contender";

/// No replay takes so long.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn run(args: &[String]) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["follow", bootstrap, topic] = args[..] {
        return follow(bootstrap, topic);
    }
    // What was made lives until the input ends, and so long its memory can be read.
    let mut made: Option<(Table, Runtime)> = None;
    let result = match args[..] {
        ["neighbour" | "disturb" | "watched", ..] => {
            beside::contender(&args).unwrap_or_else(|| panic!("{args:?}"))
        }
        ["raw", how, bootstrap, topic] => raw(bootstrap, topic, how == "at-once"),
        [warm::WARM, folder, bootstrap, topic] => {
            let (result, table, runtime) = warm::contend(folder, bootstrap, topic);
            made = Some((table, runtime));
            result
        }
        [kind, codec, bootstrap, topic] => {
            let (result, table, runtime) = table(kind, codec, bootstrap, topic);
            made = Some((table, runtime));
            result
        }
        ref args => engine::contender(args).unwrap_or_else(|| panic!("{args:?}")),
    };
    say(&result.to_string());
    // Nothing comes, and nobody minds if it does.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(made);
}

/// A consumer that tells when each message came, in seconds since 1970, until its input
/// ends. Its first line says that it is there.
fn follow(bootstrap: &str, topic: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "raw")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let (_, end) = consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap();
    let mut places = TopicPartitionList::new();
    places.add_partition_offset(topic, 0, Offset::Offset(end)).unwrap();
    consumer.assign(&places).unwrap();
    // Makes it fetch.
    let _ = consumer.poll(Duration::from_secs(1));
    say("ready");
    let input = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    while !input.is_finished() {
        if let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {
            say(&now().to_string());
        }
    }
}

/// The client and nothing else: every message is taken and its bytes are counted; one
/// by one as programs do, or by the hundred, which is as fast as the client gets.
fn raw(bootstrap: &str, topic: &str, at_once: bool) -> Value {
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
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let mut places = TopicPartitionList::new();
    let partitions = metadata.topics()[0].partitions();
    for partition in partitions {
        places.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&places).unwrap();
    let mut seen = Seen { first: None, records: 0, bytes: 0, ends_left: partitions.len() };
    let take = if at_once { by_the_hundred } else { one_by_one };
    take(&consumer, &mut seen);
    json!({"first": seen.first, "done": now(), "records": seen.records, "bytes": seen.bytes})
}

/// What a loop has seen.
#[derive(Debug)]
struct Seen {
    first: Option<f64>,
    records: u64,
    bytes: usize,
    /// Partitions whose end has not come.
    ends_left: usize,
}

impl Seen {
    fn record(&mut self, bytes: usize) {
        self.first.get_or_insert_with(now);
        self.records += 1;
        self.bytes += bytes;
    }
}

fn one_by_one(consumer: &BaseConsumer, seen: &mut Seen) {
    while seen.ends_left > 0 {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => {
                seen.record(message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => seen.ends_left -= 1,
            Some(Err(_)) | None => {}
        }
    }
}

/// The same by the call that hands out many messages.
#[allow(unsafe_code, reason = "calls into librdkafka, which rdkafka does not wrap")]
fn by_the_hundred(consumer: &BaseConsumer, seen: &mut Seen) {
    let mut messages = [std::ptr::null_mut(); 512];
    // SAFETY: the client outlives its queue, and each message is freed once.
    unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        while seen.ends_left > 0 {
            let taken = sys::rd_kafka_consume_batch_queue(queue, 1, messages.as_mut_ptr(), messages.len());
            for &message in &messages[..usize::try_from(taken).unwrap()] {
                match (*message).err {
                    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                        seen.record((*message).key_len + (*message).len);
                    }
                    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => seen.ends_left -= 1,
                    _ => {}
                }
                sys::rd_kafka_message_destroy(message);
            }
        }
        sys::rd_kafka_queue_destroy(queue);
    }
}

/// A table of ours.
fn table(kind: &str, codec: &str, bootstrap: &str, topic: &str) -> (Value, Table, Runtime) {
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
    let result = json!({
        "first": timed.first.get(), "done": done, "records": stats.records,
        "entries": stats.entries, "bytes": stats.payload_bytes,
    });
    (result, table, runtime)
}

/// Remembers when it was first asked to decode: when the first batch was there, which is
/// up to some milliseconds after its first record.
#[derive(Debug)]
struct Timed {
    codec: Arc<dyn ValueCodec>,
    first: OnceLock<f64>,
}

impl Codec for Timed {
    fn component(&self) -> Option<&ComponentId> {
        self.codec.component()
    }

    fn is_built_in(&self) -> bool {
        self.codec.is_built_in()
    }
}

impl ValueCodec for Timed {
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
