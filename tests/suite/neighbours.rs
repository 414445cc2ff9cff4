//! Tables beside codecs that loop, panic or answer too little: one table never delays another.

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

/// More records that loop than a test has time for, one behind the other.
const LOOPING: usize = 400;

fn limits() -> Limits {
    Limits { deadline: Duration::from_millis(500), ..Limits::default() }
}

/// Codecs with a component that misbehaves on request; another one for each number.
fn hostile(number: u8) -> Codecs {
    let mut bytes = std::fs::read(component_path("hostile")).unwrap();
    // A custom section makes it another file.
    bytes.extend([0, 3, 1, b'n', number]);
    let options = LoadOptions { digest: None, limits: limits() };
    let component = engine().load_bytes(&format!("hostile-{number}"), bytes, options).unwrap();
    Codecs { value: component.value_codec(TOPIC, "{}").unwrap(), ..Codecs::default() }
}

/// Another topic of the same log, with these records.
async fn topic(scratch: &Scratch, name: &str, values: impl Iterator<Item = String>) -> TopicDescription {
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

/// A table of records that all make its codec loop.
async fn looping(scratch: &Scratch, number: u8) -> Table {
    let name = format!("looping-{number}");
    topic(scratch, &name, (0..LOOPING).map(|_| "poison:loop".to_owned())).await;
    Table::builder(scratch.log.clone(), &name, hostile(number))
        .catchup_timeout(Duration::from_secs(1))
        .open()
        .await
        .unwrap()
}

/// A table is loaded, follows, and is written to, beside so many components that loop.
async fn check_beside(count: u8) {
    let scratch = Scratch::new(2).await;
    let mut loops = Vec::new();
    for number in 0..count {
        loops.push(looping(&scratch, number).await);
    }
    // Each of them is in its loop.
    for table in &loops {
        eventually_async("a record is rejected", || table.rejects().into_iter().next()).await;
    }
    scratch.write((0..5000).map(|n| record(&format!("k{n}"), Some(b"1"))).collect()).await;
    for codecs in [Codecs::default(), hostile(200 + count)] {
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
        assert!(table.stats().records < LOOPING as u64, "the loops were not in the way");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_beside_one_component_that_loops() {
    check_beside(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_beside_four_components_that_loop() {
    check_beside(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_beside_sixteen_components_that_loop() {
    check_beside(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_does_not_wait_behind_a_table_of_the_same_component() {
    let scratch = Scratch::new(1).await;
    let _looping = looping(&scratch, 50).await;
    let writer = Writer::open(scratch.log.clone(), TOPIC, hostile(50)).await.unwrap();
    let began = Instant::now();
    for n in 0..50 {
        writer.set(format!("k{n}"), "1").await.unwrap();
    }
    // One deadline for each write would be 25 s.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_among_good_records_is_decided_piece_by_piece() {
    let scratch = Scratch::new(1).await;
    let values = (0..600).map(|n| if n % 3 == 0 { "poison:loop".to_owned() } else { n.to_string() });
    topic(&scratch, "mixed", values).await;
    let builder = Table::builder(scratch.log.clone(), "mixed", hostile(60));
    let began = Instant::now();
    let table = builder.catchup_timeout(Duration::from_secs(2)).start().await.unwrap();
    // 100 s of loops are before it.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(matches!(table.status(), Status::Degraded(_)), "{}", table.status());
    eventually_async("the records before and behind a few loops are there", || table.get("k7")).await;
    assert!(table.stats().records < 600);
    assert_eq!(table.get("k6"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_codec_is_slow_says_so_on_a_directory() {
    let scratch = Scratch::new(1).await;
    let options = LogOptions { stale_after: Duration::from_secs(2), ..LogOptions::default() };
    let log = ktables::log::open_with(&scratch.url(), options).unwrap();
    let table = Table::builder(log, TOPIC, hostile(70)).start().await.unwrap();
    assert!(matches!(table.status(), Status::CaughtUp));
    scratch.write((0..LOOPING).map(|n| record(&format!("k{n}"), Some(b"poison:loop"))).collect()).await;
    let reason = eventually_async("the table is degraded", || table.status().reason()).await;
    assert!(reason.contains("partition 0") && reason.contains("decoded or applied too slowly"), "{reason}");
    let other = scratch.table(Codecs::default()).await;
    assert!(matches!(other.status(), Status::CaughtUp));
}

/// A native codec that breaks the contract on request.
#[derive(Debug)]
struct Broken;

impl Codec for Broken {}

impl ValueCodec for Broken {
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
async fn a_native_codec_that_breaks_the_contract_costs_the_record_that_made_it_do_so() {
    let scratch = Scratch::new(1).await;
    let codecs = Codecs::new(Utf8, Broken);
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
async fn a_native_codec_that_takes_long_delays_no_other_table() {
    #[derive(Debug)]
    struct Slow;
    impl Codec for Slow {}
    impl ValueCodec for Slow {
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
    topic(&scratch, "slow", (0..1000).map(|n| n.to_string())).await;
    let slow = Table::builder(scratch.log.clone(), "slow", Codecs::new(Utf8, Slow)).open().await.unwrap();
    scratch.write((0..1000).map(|n| record(&format!("k{n}"), Some(b"1"))).collect()).await;
    let table = Arc::new(scratch.table(Codecs::default()).await);
    assert_eq!((table.len(), slow.len()), (1000, 0));
}
