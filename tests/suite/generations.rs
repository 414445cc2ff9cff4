//! Swaps of codecs: a table loads its topic with other codecs while it serves the old contents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ktables::Packed;
use ktables::codec::{
    Answers, Bytes, Codec, CodecFailure, Codecs, Encoded, Json, LengthPrefixed, PackedAnswers, Utf8,
    ValueCodec,
};
use ktables::log::Header;
use ktables::table::{
    Freshness, OnReject, Snapshot, Status, Table, TableError, WatchEvent, WatchFilter, WatchStart,
};
use ktables_tests::{
    FaultyCodec, LogKind, Scratch, TIMEOUT, contents, eventually_async, on_each_log, record,
};
use tokio::sync::oneshot;

/// Records before the swap: enough that loading takes a while.
const RECORDS: u64 = 60_000;
const KEYS: u64 = 3_000;

/// Whether a value was decoded as text. All values are numbers: decoded as text they are strings, and decoded
/// as JSON they are numbers.
fn is_text(json: &str) -> bool {
    json.starts_with('"')
}

/// Whether the entries were decoded as text. Panics if only some of them were.
fn is_decoded_as_text(snapshot: &Snapshot) -> bool {
    let texts = snapshot.iter().filter(|entry| is_text(entry.json())).count();
    assert!(texts == 0 || texts == snapshot.len(), "{texts} of {} entries are text", snapshot.len());
    texts > 0
}

// Long because it sets up a writer, a reader and a watcher, which run beside the swap.
async fn a_swap_of_codecs_is_one_step_for_readers_while_others_write(kind: LogKind) {
    let scratch = Arc::new(kind.scratch(4).await);
    let value = |n: u64| record(&format!("k{}", n % KEYS), Some(n.to_string().as_bytes()));
    scratch.write((0..RECORDS).map(value).collect()).await;
    let table = scratch.table(Codecs::new(Utf8, Json)).await;
    let (is_over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(RECORDS)));
    let writer = tokio::spawn({
        let (scratch, is_over, written) = (scratch.clone(), is_over.clone(), written.clone());
        async move {
            while !is_over.load(Ordering::Acquire) {
                let n = written.fetch_add(1, Ordering::AcqRel);
                scratch.write(vec![value(n)]).await;
            }
        }
    });
    // How often the reader has read the old generation, and the new one.
    let reads_by_generation = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let reader = std::thread::spawn({
        let (table, is_over, reads) = (table.clone(), is_over.clone(), reads_by_generation.clone());
        move || {
            let mut positions = BTreeMap::new();
            while !is_over.load(Ordering::Acquire) {
                assert_eq!(table.status(), Status::CaughtUp);
                let snapshot = table.snapshot();
                let is_text = is_decoded_as_text(&snapshot);
                assert_eq!(snapshot.generation(), if is_text { 2 } else { 1 });
                let is_new_read = reads[1].load(Ordering::Relaxed) > 0;
                assert!(is_text || !is_new_read, "the old generation came back");
                reads[usize::from(is_text)].fetch_add(1, Ordering::Relaxed);
                for (partition, position) in snapshot.positions() {
                    let before = positions.insert(partition, position).unwrap_or(0);
                    assert!(
                        position >= before,
                        "partition {partition} went back from {before} to {position}"
                    );
                }
            }
        }
    });
    // A reader that has panicked ends the wait, and fails the test when it is joined.
    let has_read = |generation: usize| {
        let has_read = reads_by_generation[generation].load(Ordering::Relaxed) > 0;
        (has_read || reader.is_finished()).then_some(())
    };
    eventually_async("the reader reads the old generation", || has_read(0)).await;
    let mut watcher = table.watch(WatchStart::Entries);
    let watching = tokio::spawn(async move {
        let (mut entries, mut generations) = (BTreeMap::new(), Vec::new());
        while let Some(event) = watcher.next().await {
            match event {
                WatchEvent::Entry(entry) => drop(entries.insert(entry.key().to_owned(), entry)),
                WatchEvent::Change(change) => match &change.new {
                    Some(entry) => drop(entries.insert(change.key().to_owned(), entry.clone())),
                    None => drop(entries.remove(change.key())),
                },
                WatchEvent::Generation(number) => generations.push(number),
                WatchEvent::Restarted => entries.clear(),
                _ => {}
            }
        }
        (entries, generations)
    });
    // Writes are visible while the new generation is loaded.
    let swap = tokio::spawn({
        let table = table.clone();
        async move { table.swap_codecs(Codecs::new(Utf8, Utf8)).await }
    });
    while !swap.is_finished() {
        let before = written.load(Ordering::Acquire);
        assert!(matches!(table.barrier(TIMEOUT).await, Freshness::Fresh), "{before} written");
    }
    assert_eq!(swap.await.unwrap().unwrap(), 2);
    let snapshot = table.snapshot();
    assert!(is_decoded_as_text(&snapshot) && snapshot.generation() == 2);
    eventually_async("the reader reads the new generation", || has_read(1)).await;
    eventually_async("new records are applied", || (table.stats().records > RECORDS).then_some(())).await;
    is_over.store(true, Ordering::Release);
    writer.await.unwrap();
    reader.join().unwrap();
    scratch.sync(&table).await;
    let mut expected = BTreeMap::new();
    for n in 0..written.load(Ordering::Acquire) {
        expected.insert(format!("k{}", n % KEYS), format!("\"{n}\""));
    }
    assert_eq!(contents(&table), expected);
    table.stop().await;
    let (entries, generations) = watching.await.unwrap();
    let entries: BTreeMap<_, _> =
        entries.into_iter().map(|(key, entry)| (key, entry.json().to_owned())).collect();
    assert_eq!((entries, generations), (expected, vec![2]));
}

async fn a_swap_that_fails_or_is_cancelled_leaves_the_table_as_it_was(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("k", Some(b"text")).await;
    let builder = Table::builder(scratch.log.clone(), scratch.topic.name.clone(), Codecs::new(Utf8, Utf8));
    let table = builder.on_reject(OnReject::Halt).start().await.unwrap();
    let before = contents(&table);
    // The value is not JSON.
    let error = table.swap_codecs(Codecs::default()).await.unwrap_err();
    assert!(matches!(error, TableError::Halted { .. }), "{error}");
    assert_eq!((table.status(), contents(&table)), (Status::CaughtUp, before.clone()));
    // The codec does not answer, and the caller cancels the swap.
    let blocked = Arc::new(FaultyCodec::default());
    blocked.block();
    let codecs = Codecs { value: blocked.clone(), ..Codecs::default() };
    let swap = tokio::time::timeout(Duration::from_millis(300), table.swap_codecs(codecs)).await;
    assert!(swap.is_err(), "{swap:?}");
    blocked.recover();
    assert_eq!((table.status(), contents(&table)), (Status::CaughtUp, before));
    eventually_async("the swap has ended", || table.stats().loading.is_none().then_some(())).await;
    // The table follows its topic, and can be swapped again.
    scratch.put("k", Some(b"more")).await;
    scratch.sync(&table).await;
    assert_eq!(table.get("k").unwrap().json(), "\"more\"");
    let number = swap_when_possible(&table).await;
    assert_eq!((table.snapshot().generation(), table.status()), (number, Status::CaughtUp));
}

/// Swaps the codecs, and returns the number of the new generation. Retries while the table refuses, because
/// it may not have noticed yet that the swap before was cancelled.
async fn swap_when_possible(table: &Table) -> u64 {
    let swap = async {
        loop {
            match table.swap_codecs(Codecs::new(Utf8, Utf8)).await {
                Ok(number) => return number,
                Err(TableError::Loading { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(TIMEOUT, swap).await.expect("the table swaps in time")
}

async fn a_topic_that_is_recreated_during_a_swap_is_read_with_the_new_codecs(kind: LogKind) {
    let scratch: Scratch = kind.scratch(1).await;
    scratch.put("old", Some(b"1")).await;
    // The old codec decodes numbers to strings, the new one to numbers.
    let table = scratch.table(Codecs::new(Utf8, Utf8)).await;
    assert_eq!(contents(&table), [("old".to_owned(), "\"1\"".to_owned())].into());
    let codec = Arc::new(FaultyCodec::default());
    codec.fail();
    let swap = tokio::spawn({
        let (table, codecs) = (table.clone(), Codecs { value: codec.clone(), ..Codecs::default() });
        async move { table.swap_codecs(codecs).await }
    });
    eventually_async("the table loads", || table.stats().loading).await;
    let topic = scratch.recreate_topic(1).await;
    scratch.put("new", Some(b"2")).await;
    codec.recover();
    assert!(swap.await.unwrap().unwrap() >= 2);
    eventually_async("the new topic is served", || (table.topic().id == topic.id).then_some(())).await;
    scratch.sync(&table).await;
    assert_eq!(contents(&table), [("new".to_owned(), "2".to_owned())].into());
    eventually_async("the table is caught up", || (table.status() == Status::CaughtUp).then_some(())).await;
}

/// Returns the next pseudorandom number, and changes the seed.
fn next_random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

async fn a_table_follows_its_topic_whenever_a_swap_is_cancelled(kind: LogKind) {
    let scratch = kind.scratch(2).await;
    scratch.write((0..200).map(|n| record(&format!("k{n}"), Some(b"1"))).collect()).await;
    let table = scratch.table(Codecs::new(Utf8, Json)).await;
    let mut seed = 5;
    for round in 0..if kind == LogKind::Kafka { 10 } else { 60 } {
        // A swap takes about as long as this timeout, so some swaps are cancelled as they take effect.
        let timeout = Duration::from_micros(next_random(&mut seed) % 12_000);
        let codecs = if round % 2 == 0 { Codecs::new(Utf8, Utf8) } else { Codecs::new(Utf8, Json) };
        let swap = tokio::time::timeout(timeout, table.swap_codecs(codecs)).await;
        let value = round.to_string();
        scratch.put("k7", Some(value.as_bytes())).await;
        scratch.sync(&table).await;
        let json = table.get("k7").unwrap().json().to_owned();
        assert_eq!(json.trim_matches('"'), value, "after {swap:?}");
    }
    eventually_async("the table is caught up", || (table.status() == Status::CaughtUp).then_some(())).await;
}

async fn a_swap_that_is_cancelled_after_its_topic_was_recreated_leaves_a_table_of_the_new_topic(
    kind: LogKind,
) {
    let scratch: Scratch = kind.scratch(1).await;
    scratch.put("old", Some(b"1")).await;
    let table = scratch.table(Codecs::default()).await;
    let codec = Arc::new(FaultyCodec::default());
    codec.fail();
    let (cancel, cancelled) = oneshot::channel::<()>();
    let swap = tokio::spawn({
        let (table, codecs) = (table.clone(), Codecs { value: codec.clone(), ..Codecs::default() });
        async move {
            tokio::select! {
                biased;
                swapped = table.swap_codecs(codecs) => swapped.is_ok(),
                _ = cancelled => false,
            }
        }
    });
    eventually_async("the table loads", || table.stats().loading).await;
    let topic = scratch.recreate_topic(1).await;
    scratch.put("new", Some(b"2")).await;
    let is_noticed = || matches!(table.status(), Status::Degraded(_)).then_some(());
    eventually_async("the table notices that its topic is gone", is_noticed).await;
    drop(cancel);
    if swap.await.unwrap() {
        // The new topic was read before its record was written, so nothing failed until the swap was complete.
        codec.recover();
    }
    eventually_async("the new topic is served", || (table.topic().id == topic.id).then_some(())).await;
    scratch.sync(&table).await;
    assert_eq!(contents(&table), [("new".to_owned(), "2".to_owned())].into());
    eventually_async("the table is caught up", || (table.status() == Status::CaughtUp).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_of_a_group_sees_what_another_group_scheme_moves() {
    let scratch = Scratch::new(1).await;
    scratch.put("1:gm", Some(b"1")).await;
    let table = scratch.table(Codecs::default()).await;
    let filter = WatchFilter::Group("g".to_owned());
    let mut watcher = table.watch(WatchStart::Now).with_filter(filter);
    let grouped = Codecs { group_scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
    for (codecs, is_member) in [(grouped, true), (Codecs::default(), false)] {
        table.swap_codecs(codecs).await.unwrap();
        let change = async {
            loop {
                if let WatchEvent::Change(change) = watcher.next().await.expect("the table runs") {
                    return change;
                }
            }
        };
        let change = tokio::time::timeout(TIMEOUT, change).await.expect("a change");
        assert_eq!((change.key(), change.new.is_some()), ("1:gm", is_member));
    }
}

async fn a_swap_completes_although_its_codec_is_slow_and_others_write(kind: LogKind) {
    let scratch = Arc::new(kind.scratch(3).await);
    scratch.put("k", Some(b"1")).await;
    let table = scratch.table(Codecs::new(Utf8, Json)).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (scratch, is_over) = (scratch.clone(), is_over.clone());
            tokio::spawn(async move {
                let mut n = 0_u64;
                while !is_over.load(Ordering::Acquire) {
                    let records =
                        (0..200).map(|i| record(&format!("w{writer}-{i}"), Some(n.to_string().as_bytes())));
                    scratch.write(records.collect()).await;
                    n += 1;
                }
            })
        })
        .collect();
    let slow = Codecs { value: Arc::new(SlowCodec), ..Codecs::default() };
    let swap = tokio::time::timeout(TIMEOUT, table.swap_codecs(slow)).await;
    is_over.store(true, Ordering::Release);
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(swap.expect("in time").unwrap(), 2);
    scratch.sync(&table).await;
    assert_eq!(table.status(), Status::CaughtUp);
}

/// The JSON codec, except that decoding takes 3 ms longer.
#[derive(Debug)]
struct SlowCodec;

impl Codec for SlowCodec {}

impl ValueCodec for SlowCodec {
    fn decode_values<'a>(
        &self,
        raw: &'a Packed,
        headers: &[&[Header]],
    ) -> Result<PackedAnswers<'a>, CodecFailure> {
        std::thread::sleep(Duration::from_millis(3));
        Json.decode_values(raw, headers)
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        Json.encode_values(values)
    }
}

async fn a_swap_that_needs_too_much_memory_fails_and_the_table_continues(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let value = vec![b'1'; 1000];
    scratch.write((0..500).map(|n| record(&format!("k{n}"), Some(&value))).collect()).await;
    let builder = Table::builder(scratch.log.clone(), scratch.topic.name.clone(), Codecs::new(Utf8, Json));
    let table = builder.memory_limit(600_000).start().await.unwrap();
    scratch.sync(&table).await;
    // As Base64, the values are a third larger.
    let error = table.swap_codecs(Codecs::new(Utf8, Bytes)).await.unwrap_err();
    assert!(
        matches!(error, TableError::MemoryLimit { .. }) && error.to_string().contains("600000"),
        "{error}"
    );
    scratch.put("more", Some(b"2")).await;
    scratch.sync(&table).await;
    assert_eq!(table.get("more").unwrap().json(), "2");
    // The memory of the other generation returns a little later.
    eventually_async("the table has room", || matches!(table.status(), Status::CaughtUp).then_some(())).await;
}

on_each_log!(
    a_table_follows_its_topic_whenever_a_swap_is_cancelled,
    a_swap_that_is_cancelled_after_its_topic_was_recreated_leaves_a_table_of_the_new_topic,
    a_swap_completes_although_its_codec_is_slow_and_others_write,
    a_swap_that_needs_too_much_memory_fails_and_the_table_continues,
    a_swap_of_codecs_is_one_step_for_readers_while_others_write,
    a_swap_that_fails_or_is_cancelled_leaves_the_table_as_it_was,
    a_topic_that_is_recreated_during_a_swap_is_read_with_the_new_codecs,
);
