//! Tables next to codecs that loop, panic or return too few answers: one table never delays another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ktables::Packed;
use ktables::codec::{
    Answers, Codec, CodecFailure, Codecs, Encoded, Json, PackedAnswers, RejectKind, Utf8, ValueCodec,
};
use ktables::log::{Header, LogOptions, NewTopic, TopicDescription};
use ktables::table::{Status, Table};
use ktables::wasm::{Limits, LoadOptions};
use ktables::writer::Writer;
use ktables_tests::{Scratch, TIMEOUT, TOPIC, component_path, contents, engine, eventually_async, record};

/// More looping records than a test has time to decode one after the other.
const LOOPING: usize = 400;

fn limits() -> Limits {
    Limits { deadline: Duration::from_millis(500), ..Limits::default() }
}

/// Returns codecs with a component that misbehaves on request, a different component for each number.
fn hostile_codecs(number: u8) -> Codecs {
    let mut bytes = std::fs::read(component_path("hostile")).unwrap();
    // A custom section gives each component another digest.
    bytes.extend([0, 3, 1, b'n', number]);
    let options = LoadOptions { limits: limits(), ..LoadOptions::default() };
    let component = engine().load_bytes(&format!("hostile-{number}"), bytes, options).unwrap();
    Codecs { value: component.value_codec(TOPIC, "{}").unwrap(), ..Codecs::default() }
}

/// Creates another topic in the same log, with these values.
async fn create_topic(
    scratch: &Scratch,
    name: &str,
    values: impl Iterator<Item = String>,
) -> TopicDescription {
    let topic = scratch.log.create(name, NewTopic::default()).await.unwrap();
    let mut deliveries = Vec::new();
    for (number, value) in values.enumerate() {
        let record = record(&format!("k{number}"), Some(value.as_bytes()));
        deliveries.push(scratch.log.send(&topic, record).await.unwrap());
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    topic
}

/// Opens a table whose records all make its codec loop.
async fn open_looping(scratch: &Scratch, number: u8) -> Table {
    let name = format!("looping-{number}");
    create_topic(scratch, &name, (0..LOOPING).map(|_| "poison:loop".to_owned())).await;
    Table::builder(scratch.log.clone(), &name, hostile_codecs(number))
        .catchup_timeout(Duration::from_secs(1))
        .open()
        .await
        .unwrap()
}

/// Checks that a table loads, follows its topic and is written to, next to this many looping components.
async fn check_next_to_loops(count: u8) {
    let scratch = Scratch::new(2).await;
    let mut loops = Vec::new();
    for number in 0..count {
        loops.push(open_looping(&scratch, number).await);
    }
    // When a record was rejected, its component has begun to loop.
    for table in &loops {
        eventually_async("a record is rejected", || table.rejects().into_iter().next()).await;
    }
    scratch.write((0..5000).map(|n| record(&format!("k{n}"), Some(b"1"))).collect()).await;
    for codecs in [Codecs::default(), hostile_codecs(200 + count)] {
        let table = scratch.table(codecs.clone()).await;
        assert!(matches!(table.status(), Status::CaughtUp), "{}", table.status());
        let writer = Writer::open(scratch.log.clone(), TOPIC, codecs).await.unwrap();
        for n in 0..20 {
            let ack = writer.set(format!("new-{n}"), "2").await.unwrap();
            assert!(table.wait_for(&[ack], TIMEOUT).await.is_fresh());
        }
        assert_eq!(table.get("new-19").unwrap().json(), "2");
    }
    for table in loops {
        assert!(table.rejects().iter().all(|reject| reject.reason.kind == RejectKind::Deadline));
        assert!(table.stats().records < LOOPING as u64, "the loops ended too early");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_looping_component_delays_no_other_table() {
    check_next_to_loops(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_looping_components_delay_no_other_table() {
    check_next_to_loops(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_looping_components_delay_no_other_table() {
    check_next_to_loops(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_does_not_wait_for_a_table_with_the_same_component() {
    let scratch = Scratch::new(1).await;
    let _looping = open_looping(&scratch, 50).await;
    let writer = Writer::open(scratch.log.clone(), TOPIC, hostile_codecs(50)).await.unwrap();
    let began = Instant::now();
    for n in 0..50 {
        writer.set(format!("k{n}"), "1").await.unwrap();
    }
    // One deadline for each write would be 25 s.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_poison_records_is_applied_in_parts() {
    let scratch = Scratch::new(1).await;
    let values = (0..600).map(|n| if n % 3 == 0 { "poison:loop".to_owned() } else { n.to_string() });
    create_topic(&scratch, "mixed", values).await;
    let builder = Table::builder(scratch.log.clone(), "mixed", hostile_codecs(60));
    let began = Instant::now();
    let table = builder.catchup_timeout(Duration::from_secs(2)).start().await.unwrap();
    // All loops together take 100 s.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(matches!(table.status(), Status::Degraded(_)), "{}", table.status());
    eventually_async("the good records around a few poison records are applied", || table.get("k7")).await;
    assert!(table.stats().records < 600);
    assert_eq!(table.get("k6"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_slow_codec_reports_it_on_a_directory_log() {
    let scratch = Scratch::new(1).await;
    let options = LogOptions { stale_after: Duration::from_secs(2), ..LogOptions::default() };
    let log = ktables::log::open_with(&scratch.url(), options).unwrap();
    let table = Table::builder(log, TOPIC, hostile_codecs(70)).start().await.unwrap();
    assert!(matches!(table.status(), Status::CaughtUp));
    scratch.write((0..LOOPING).map(|n| record(&format!("k{n}"), Some(b"poison:loop"))).collect()).await;
    let reason = eventually_async("the table is degraded", || table.status().reason()).await;
    assert!(reason.contains("partition 0") && reason.contains("decoded or applied too slowly"), "{reason}");
    let other = scratch.table(Codecs::default()).await;
    assert!(matches!(other.status(), Status::CaughtUp));
}

/// A native codec that breaks the contract on request.
#[derive(Debug)]
struct MisbehavingCodec;

impl Codec for MisbehavingCodec {}

impl ValueCodec for MisbehavingCodec {
    fn decode_values<'a>(
        &self,
        raw: &'a Packed,
        headers: &[&[Header]],
    ) -> Result<PackedAnswers<'a>, CodecFailure> {
        if raw.iter().any(|value| value == b"panic") {
            panic!("asked to panic");
        }
        if raw.iter().any(|value| value == b"few") {
            return Ok(PackedAnswers::new());
        }
        if raw.iter().any(|value| value == b"many") {
            return Ok([Ok("1"), Ok("2"), Ok("3")].into_iter().collect());
        }
        Json.decode_values(raw, headers)
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        if values.contains(&"\"panic\"") {
            panic!("asked to panic");
        }
        if values.contains(&"\"few\"") {
            return Ok(Vec::new());
        }
        Json.encode_values(values)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_codec_that_breaks_the_contract_loses_only_the_record_at_fault() {
    let scratch = Scratch::new(1).await;
    let codecs = Codecs::new(Utf8, MisbehavingCodec);
    let mut records: Vec<_> = (0..300).map(|n| record(&format!("k{n}"), Some(b"1"))).collect();
    for (at, value) in [(10, "panic"), (100, "few"), (200, "many"), (250, "panic")] {
        records.insert(at, record(&format!("bad-{at}"), Some(value.as_bytes())));
    }
    scratch.write(records).await;
    let table = scratch.table(codecs.clone()).await;
    assert_eq!(contents(&table).len(), 300);
    let kinds: Vec<RejectKind> = table.rejects().iter().map(|reject| reject.reason.kind).collect();
    assert_eq!(kinds, [RejectKind::Trap, RejectKind::Contract, RejectKind::Contract, RejectKind::Trap]);
    assert!(table.rejects()[0].reason.message.contains("asked to panic"));
    let writer = Writer::open(scratch.log.clone(), TOPIC, codecs).await.unwrap();
    let writes = ["1", "\"panic\"", "2", "\"few\"", "3"].into_iter().enumerate().map(|(n, value)| {
        let target = ktables::writer::Target::Key(format!("w{n}"));
        ktables::writer::Write { target, value: Some(value.to_owned()) }
    });
    let written: Vec<bool> = writer.set_many(writes).await.iter().map(Result::is_ok).collect();
    assert_eq!(written, [true, false, true, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_native_codec_delays_no_other_table() {
    #[derive(Debug)]
    struct SlowCodec;
    impl Codec for SlowCodec {}
    impl ValueCodec for SlowCodec {
        fn decode_values<'a>(
            &self,
            raw: &'a Packed,
            headers: &[&[Header]],
        ) -> Result<PackedAnswers<'a>, CodecFailure> {
            std::thread::sleep(Duration::from_millis(300) * u32::try_from(raw.len()).unwrap());
            Json.decode_values(raw, headers)
        }

        fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
            Json.encode_values(values)
        }
    }
    let scratch = Scratch::new(4).await;
    create_topic(&scratch, "slow", (0..1000).map(|n| n.to_string())).await;
    let codecs = Codecs::new(Utf8, SlowCodec);
    let slow = Table::builder(scratch.log.clone(), "slow", codecs).open().await.unwrap();
    scratch.write((0..1000).map(|n| record(&format!("k{n}"), Some(b"1"))).collect()).await;
    let table = Arc::new(scratch.table(Codecs::default()).await);
    assert_eq!((table.len(), slow.len()), (1000, 0));
}
