//! Topics that are made anew, grow, lose records and are compacted while tables follow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ktables::codec::Codecs;
use ktables::log::{LogOptions, NewTopic};
use ktables::table::{Cause, Table, WatchEvent, WatchStart};
use ktables_tests::{
    FaultTally, Held, PATIENCE, Scratch, Witness, eventually_async, kafka, places, record, unique,
};

async fn topic(settings: &[(&str, &str)]) -> (String, String) {
    let (bootstrap, name) = (kafka::shared(), unique("t"));
    kafka::create(&bootstrap, &name, 2, settings).await;
    (bootstrap, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_deleted_and_made_anew_with_other_content() {
    let (bootstrap, name) = topic(&[]).await;
    let witness = Witness::of(&bootstrap, &[], &name).await;
    for _ in 0..2 {
        witness.more_acknowledged(200).await;
        witness.hold().await;
        witness.forget();
        kafka::delete(&bootstrap, &name).await;
        let told = witness.told("missing").await;
        assert!(told.starts_with("degraded"), "{told}");
        witness.forget_statuses();
        kafka::create(&bootstrap, &name, 2, &[]).await;
        witness.go_on();
        witness.more_acknowledged(100).await;
        witness.told("caught_up").await;
    }
    assert_eq!(witness.generations(), 2);
    witness.finish(2).await.tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_added_while_a_table_follows() {
    let (bootstrap, name) = topic(&[]).await;
    let witness = Witness::of(&bootstrap, &[], &name).await;
    witness.more_acknowledged(100).await;
    for partitions in [3, 5] {
        kafka::grow(&bootstrap, &name, partitions).await;
        let grown = Scratch::of(&bootstrap, LogOptions::default(), &name).await;
        let in_new = ktables::log::NewRecord {
            partition: i32::try_from(partitions).ok().map(|count| count - 1),
            ..record(&format!("new-{partitions}"), Some(b"1"))
        };
        eventually_written(&grown, in_new).await;
        assert!(witness.table.barrier(PATIENCE).await.is_fresh());
        assert!(witness.table.contains(&format!("new-{partitions}")));
        witness.more_acknowledged(100).await;
    }
    assert_eq!(witness.table.stats().partitions.len(), 5);
    witness.finish(2).await.tell();
}

/// A partition that was just added may not be known everywhere.
async fn eventually_written(scratch: &Scratch, record: ktables::log::NewRecord) {
    ktables_tests::eventually_ok("the record is written", || async {
        let topic = scratch.log.describe(&scratch.topic.name).await?;
        scratch.log.send(&topic, record.clone()).await?.await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_while_a_table_loads_belong_to_what_is_loaded() {
    let (bootstrap, name) = topic(&[]).await;
    let options = LogOptions { stale_after: ktables_tests::STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::of(&bootstrap, options, &name).await;
    scratch.write((0..200).map(|n| record(&format!("old-{n}"), Some(b"1"))).collect()).await;
    let codec = Arc::new(Held::default());
    codec.hold();
    let codecs = Codecs { value: codec.clone(), ..Codecs::default() };
    let builder = Table::builder(scratch.log.clone(), &name, codecs);
    let loading = builder.catchup_timeout(PATIENCE).open().await.unwrap();
    kafka::grow(&bootstrap, &name, 4).await;
    let in_new = ktables::log::NewRecord { partition: Some(3), ..record("new", Some(b"2")) };
    eventually_written(&scratch, in_new).await;
    eventually_async("the partitions are known", || (loading.stats().partitions.len() == 4).then_some(()))
        .await;
    codec.release();
    loading.ready().await.unwrap();
    eventually_async("the table is caught up", || (loading.status().name() == "caught_up").then_some(()))
        .await;
    // It was not, before the new partition was there, too.
    assert_eq!((loading.len(), loading.contains("new")), (201, true));
    FaultTally::of(1).tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_deleted_that_were_read_and_their_entries_go() {
    let (bootstrap, name) = topic(&[]).await;
    let witness = Witness::of(&bootstrap, &[], &name).await;
    let scratch = Scratch::of(&bootstrap, LogOptions::default(), &name).await;
    let old = scratch.write((0..50).map(|n| record(&format!("old-{n}"), Some(b"1"))).collect()).await;
    scratch.write(vec![record("old-0", Some(b"{")), record("rejected", Some(b"{"))]).await;
    witness.more_acknowledged(100).await;
    assert!(witness.table.barrier(PATIENCE).await.is_fresh());
    let mut watcher = witness.table.watch(WatchStart::Now);
    let below = |partition: i32| {
        let last = old.iter().filter(|ack| ack.partition == partition).map(|ack| ack.offset).max();
        (partition, last.unwrap_or(0) + 1)
    };
    kafka::delete_records(&bootstrap, &name, &[below(0), below(1)]).await;
    eventually_async("the entries are gone", || {
        (witness.table.snapshot().prefix("old-").count() == 0).then_some(())
    })
    .await;
    let mut gone = BTreeMap::new();
    while gone.len() < 50 {
        match tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap().unwrap() {
            WatchEvent::Change(change) if change.cause == Cause::Retention => {
                *gone.entry(change.key().to_owned()).or_insert(0) += 1;
            }
            // On a busy machine, it may lag for a moment.
            WatchEvent::Change(_) | WatchEvent::Status(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(gone.iter().all(|(key, times)| *times == 1 || !key.starts_with("old-")), "{gone:?}");
    // Some of its own records went with the others; what it writes from now on is to stay.
    witness.hold().await;
    witness.forget();
    witness.go_on();
    witness.more_acknowledged(100).await;
    witness.finish(1).await.tell();
}

/// A table that is held while records go that it has not read.
async fn loses_what_it_has_not_read(settings: &[(&str, &str)], lose: impl AsyncFnOnce(&Scratch)) {
    let (bootstrap, name) = topic(settings).await;
    let small = BTreeMap::from(
        [("fetch.message.max.bytes", "10000"), ("queued.max.messages.kbytes", "64"), ("batch.size", "10000")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let options =
        LogOptions { stale_after: ktables_tests::STALE_AFTER, properties: small, ..LogOptions::default() };
    let scratch = Scratch::of(&bootstrap, options, &name).await;
    let value = format!("\"{}\"", "x".repeat(500));
    let write =
        |from: usize| (from..from + 5000).map(|n| record(&format!("k{n}"), Some(value.as_bytes()))).collect();
    scratch.write(write(0)).await;
    let codec = Arc::new(Held::default());
    codec.hold();
    let codecs = Codecs { value: codec.clone(), ..Codecs::default() };
    let builder = Table::builder(scratch.log.clone(), &name, codecs);
    let loading = builder.catchup_timeout(Duration::from_secs(1)).open().await.unwrap();
    eventually_async("the table is held", || loading.status().reason()?.contains("held").then_some(())).await;
    lose(&scratch).await;
    scratch.write(write(20_000)).await;
    codec.release();
    eventually_async("the table is caught up", || (loading.status().name() == "caught_up").then_some(()))
        .await;
    scratch.sync(&loading).await;
    let fresh = scratch.table(Codecs::default()).await;
    // Retention may have gone on between the two.
    eventually_async("both are the same", || (places(&loading) == places(&fresh)).then_some(())).await;
    assert!(!places(&fresh).contains_key("k0"));
    FaultTally::of(1).tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_deleted_that_a_loading_table_has_not_read() {
    loses_what_it_has_not_read(&[], async |scratch| {
        let ends = scratch.log.end_offsets(&scratch.topic).await.unwrap();
        let below: Vec<(i32, i64)> = ends.iter().map(|&(partition, end)| (partition, end - 10)).collect();
        kafka::delete_records(&kafka::shared(), &scratch.topic.name, &below).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_moves_the_start_while_a_table_loads() {
    let settings =
        [("retention.bytes", "200000"), ("segment.bytes", "1048576"), ("file.delete.delay.ms", "0")];
    loses_what_it_has_not_read(&settings, async |scratch| {
        // Another segment makes the ones before it go.
        let value = format!("\"{}\"", "y".repeat(500));
        let more = (5000..12_000).map(|n| record(&format!("k{n}"), Some(value.as_bytes()))).collect();
        scratch.write(more).await;
        ktables_tests::eventually_ok("the start has moved", || async {
            let ranges = scratch.log.offsets(&scratch.topic).await.map_err(|error| error.to_string())?;
            let moved = ranges.iter().all(|range| range.start > 0);
            moved.then_some(()).ok_or_else(|| format!("{ranges:?}"))
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_compacts_while_tables_load_and_follow() {
    let bootstrap = kafka::shared();
    let name = kafka::create_compacting(&bootstrap, 2).await;
    let witness = Witness::of(&bootstrap, &[], &name).await;
    for round in 0..5 {
        witness.more_acknowledged(300).await;
        // One that starts while the cleaner works.
        let log = ktables::log::open(&format!("kafka://{bootstrap}")).unwrap();
        let loading = Table::builder(log, &name, Codecs::default()).catchup_timeout(PATIENCE);
        let loading = loading.start().await.unwrap();
        assert!(loading.barrier(PATIENCE).await.is_fresh(), "round {round}");
        witness.hold().await;
        assert!(
            loading.barrier(PATIENCE).await.is_fresh() && witness.table.barrier(PATIENCE).await.is_fresh()
        );
        assert_eq!(places(&loading), places(&witness.table), "round {round}");
        witness.go_on();
    }
    witness.finish(5).await.tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_ensures_its_topic_finds_it_made_anew_by_others() {
    let (bootstrap, name) = topic(&[]).await;
    let witness = Witness::of(&bootstrap, &[], &name).await;
    witness.more_acknowledged(50).await;
    witness.hold().await;
    witness.forget();
    kafka::delete(&bootstrap, &name).await;
    let log = ktables::log::open(&format!("kafka://{bootstrap}")).unwrap();
    log.create(&name, NewTopic { partitions: Some(2), ..NewTopic::default() }).await.unwrap();
    witness.go_on();
    witness.more_acknowledged(50).await;
    witness.finish(1).await.tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_of_one_key_leave_every_table_the_same() {
    let (bootstrap, name) = topic(&[]).await;
    let one = Witness::of(&bootstrap, &[], &name).await;
    let scratch = Arc::new(Scratch::of(&bootstrap, LogOptions::default(), &name).await);
    let other = {
        let scratch = scratch.clone();
        tokio::spawn(async move {
            for number in 0..300 {
                // The witness's own keys.
                let key = format!("k{}", number % 40);
                scratch.put(&key, Some(format!("\"other {number}\"").as_bytes())).await;
            }
        })
    };
    one.more_acknowledged(500).await;
    other.await.unwrap();
    one.finish(1).await.tell();
}
