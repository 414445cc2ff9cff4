//! Tests topics that are recreated, grow, lose records and are compacted while tables load or follow them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ktables::codec::Codecs;
use ktables::log::{LogOptions, NewTopic};
use ktables::table::{Cause, Table, WatchEvent, WatchStart};
use ktables_tests::{
    FaultTally, FaultyCodec, Scratch, TIMEOUT, Witness, eventually_async, kafka, record, record_offsets,
    unique,
};

/// Creates a topic with two partitions. Returns the address of the cluster and the topic's name.
async fn create_topic(settings: &[(&str, &str)]) -> (String, String) {
    let (bootstrap, name) = (kafka::shared(), unique("t"));
    kafka::create(&bootstrap, &name, 2, settings).await;
    (bootstrap, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_deleted_and_recreated_with_other_content() {
    let (bootstrap, name) = create_topic(&[]).await;
    let witness = Witness::start(&bootstrap, &[], &name).await;
    for _ in 0..2 {
        witness.wait_for_writes(200).await;
        witness.pause_writes().await;
        witness.forget_writes();
        kafka::delete(&bootstrap, &name).await;
        let status = witness.wait_for_status("missing").await;
        assert!(status.starts_with("degraded"), "{status}");
        witness.forget_statuses();
        kafka::create(&bootstrap, &name, 2, &[]).await;
        witness.resume_writes();
        witness.wait_for_writes(100).await;
        witness.wait_for_status("caught_up").await;
    }
    assert_eq!(witness.generations(), 2);
    witness.finish(2).await.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_added_while_a_table_follows() {
    let (bootstrap, name) = create_topic(&[]).await;
    let witness = Witness::start(&bootstrap, &[], &name).await;
    witness.wait_for_writes(100).await;
    for partitions in [3, 5] {
        kafka::grow(&bootstrap, &name, partitions).await;
        let grown = Scratch::existing(&bootstrap, LogOptions::default(), &name).await;
        let in_new = ktables::log::NewRecord {
            partition: i32::try_from(partitions).ok().map(|count| count - 1),
            ..record(&format!("new-{partitions}"), Some(b"1"))
        };
        write_when_possible(&grown, in_new).await;
        assert!(witness.table.barrier(TIMEOUT).await.is_fresh());
        assert!(witness.table.contains(&format!("new-{partitions}")));
        witness.wait_for_writes(100).await;
    }
    assert_eq!(witness.table.stats().partitions.len(), 5);
    witness.finish(2).await.report();
}

/// Writes a record, and retries until it succeeds: some brokers may not know a new partition yet.
async fn write_when_possible(scratch: &Scratch, record: ktables::log::NewRecord) {
    ktables_tests::eventually_ok("the record is written", || async {
        let topic = scratch.log.describe(&scratch.topic.name).await?;
        scratch.log.send(&topic, record.clone()).await?.await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_added_while_a_table_loads_are_loaded_too() {
    let (bootstrap, name) = create_topic(&[]).await;
    let options = LogOptions { stale_after: ktables_tests::STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::existing(&bootstrap, options, &name).await;
    scratch.write((0..200).map(|n| record(&format!("old-{n}"), Some(b"1"))).collect()).await;
    let codec = Arc::new(FaultyCodec::default());
    codec.fail();
    let codecs = Codecs { value: codec.clone(), ..Codecs::default() };
    let builder = Table::builder(scratch.log.clone(), &name, codecs);
    let loading = builder.catchup_timeout(TIMEOUT).open().await.unwrap();
    kafka::grow(&bootstrap, &name, 4).await;
    let in_new = ktables::log::NewRecord { partition: Some(3), ..record("new", Some(b"2")) };
    write_when_possible(&scratch, in_new).await;
    eventually_async("the table has the added partitions", || {
        (loading.stats().partitions.len() == 4).then_some(())
    })
    .await;
    codec.recover();
    loading.wait_until_ready().await.unwrap();
    eventually_async("the table is caught up", || (loading.status().name() == "caught_up").then_some(()))
        .await;
    // The table became caught up only after it had loaded the new partition, too.
    assert_eq!((loading.len(), loading.contains("new")), (201, true));
    FaultTally::without_errors(1).report();
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_deleted_records_are_removed() {
    let (bootstrap, name) = create_topic(&[]).await;
    let witness = Witness::start(&bootstrap, &[], &name).await;
    let scratch = Scratch::existing(&bootstrap, LogOptions::default(), &name).await;
    let old = scratch.write((0..50).map(|n| record(&format!("old-{n}"), Some(b"1"))).collect()).await;
    scratch.write(vec![record("old-0", Some(b"{")), record("rejected", Some(b"{"))]).await;
    witness.wait_for_writes(100).await;
    assert!(witness.table.barrier(TIMEOUT).await.is_fresh());
    let mut watcher = witness.table.watch(WatchStart::Now);
    let below = |partition: i32| {
        let last = old.iter().filter(|ack| ack.partition == partition).filter_map(|ack| ack.offset).max();
        (partition, last.unwrap_or(0) + 1)
    };
    kafka::delete_records(&bootstrap, &name, &[below(0), below(1)]).await;
    eventually_async("the entries of the deleted records are removed", || {
        (witness.table.snapshot().prefix("old-").count() == 0).then_some(())
    })
    .await;
    let mut gone = BTreeMap::new();
    while gone.len() < 50 {
        match tokio::time::timeout(TIMEOUT, watcher.next()).await.unwrap().unwrap() {
            WatchEvent::Change(change) if change.cause == Cause::Retention => {
                *gone.entry(change.key().to_owned()).or_insert(0) += 1;
            }
            // On a busy machine, the table may lag for a moment.
            WatchEvent::Change(_) | WatchEvent::Status(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(gone.iter().all(|(key, times)| *times == 1 || !key.starts_with("old-")), "{gone:?}");
    // Some records of the witness were deleted with the others. Only later records must stay.
    witness.pause_writes().await;
    witness.forget_writes();
    witness.resume_writes();
    witness.wait_for_writes(100).await;
    witness.finish(1).await.report();
}

/// Makes the codec of a loading table fail, so that the load stalls; calls `lose` to delete records that the
/// table has not read; lets the codec recover; and checks that the table equals a fresh replay.
async fn check_that_unread_records_are_lost(settings: &[(&str, &str)], lose: impl AsyncFnOnce(&Scratch)) {
    let (bootstrap, name) = create_topic(settings).await;
    let small = BTreeMap::from(
        [("fetch.message.max.bytes", "10000"), ("queued.max.messages.kbytes", "64"), ("batch.size", "10000")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let options =
        LogOptions { stale_after: ktables_tests::STALE_AFTER, properties: small, ..LogOptions::default() };
    let scratch = Scratch::existing(&bootstrap, options, &name).await;
    let value = format!("\"{}\"", "x".repeat(500));
    let records_from =
        |from: usize| (from..from + 5000).map(|n| record(&format!("k{n}"), Some(value.as_bytes()))).collect();
    scratch.write(records_from(0)).await;
    let codec = Arc::new(FaultyCodec::default());
    codec.fail();
    let codecs = Codecs { value: codec.clone(), ..Codecs::default() };
    let builder = Table::builder(scratch.log.clone(), &name, codecs);
    let loading = builder.catchup_timeout(Duration::from_secs(1)).open().await.unwrap();
    eventually_async("the codec fails", || loading.status().reason()?.contains("a test fault").then_some(()))
        .await;
    lose(&scratch).await;
    scratch.write(records_from(20_000)).await;
    codec.recover();
    eventually_async("the table is caught up", || (loading.status().name() == "caught_up").then_some(()))
        .await;
    scratch.sync(&loading).await;
    let fresh = scratch.table(Codecs::default()).await;
    // Retention may delete more records between the two loads.
    eventually_async("both tables are equal", || {
        (record_offsets(&loading) == record_offsets(&fresh)).then_some(())
    })
    .await;
    assert!(!record_offsets(&fresh).contains_key("k0"));
    FaultTally::without_errors(1).report();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_loading_table_has_not_read_are_deleted() {
    check_that_unread_records_are_lost(&[], async |scratch| {
        let ends = scratch.log.end_offsets(&scratch.topic).await.unwrap();
        let below: Vec<(i32, i64)> = ends.iter().map(|&(partition, end)| (partition, end - 10)).collect();
        kafka::delete_records(&kafka::shared(), &scratch.topic.name, &below).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_moves_the_log_start_while_a_table_loads() {
    let settings =
        [("retention.bytes", "200000"), ("segment.bytes", "1048576"), ("file.delete.delay.ms", "0")];
    check_that_unread_records_are_lost(&settings, async |scratch| {
        // Retention deletes closed segments only, so these records begin new ones.
        let value = format!("\"{}\"", "y".repeat(500));
        let more = (5000..12_000).map(|n| record(&format!("k{n}"), Some(value.as_bytes()))).collect();
        scratch.write(more).await;
        ktables_tests::eventually_ok("the log start offsets have moved", || async {
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
    let witness = Witness::start(&bootstrap, &[], &name).await;
    for round in 0..5 {
        witness.wait_for_writes(300).await;
        // A table that loads while the cleaner works.
        let log = ktables::log::open(&format!("kafka://{bootstrap}")).unwrap();
        let loading = Table::builder(log, &name, Codecs::default()).catchup_timeout(TIMEOUT);
        let loading = loading.start().await.unwrap();
        assert!(loading.barrier(TIMEOUT).await.is_fresh(), "round {round}");
        witness.pause_writes().await;
        assert!(loading.barrier(TIMEOUT).await.is_fresh() && witness.table.barrier(TIMEOUT).await.is_fresh());
        assert_eq!(record_offsets(&loading), record_offsets(&witness.table), "round {round}");
        witness.resume_writes();
    }
    witness.finish(5).await.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_recreated_by_another_client() {
    let (bootstrap, name) = create_topic(&[]).await;
    let witness = Witness::start(&bootstrap, &[], &name).await;
    witness.wait_for_writes(50).await;
    witness.pause_writes().await;
    witness.forget_writes();
    kafka::delete(&bootstrap, &name).await;
    let log = ktables::log::open(&format!("kafka://{bootstrap}")).unwrap();
    log.create(&name, NewTopic { partitions: Some(2), ..NewTopic::default() }).await.unwrap();
    witness.resume_writes();
    witness.wait_for_writes(50).await;
    witness.finish(1).await.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_of_the_same_keys_leave_all_tables_equal() {
    let (bootstrap, name) = create_topic(&[]).await;
    let witness = Witness::start(&bootstrap, &[], &name).await;
    let scratch = Arc::new(Scratch::existing(&bootstrap, LogOptions::default(), &name).await);
    let other_writer = {
        let scratch = scratch.clone();
        tokio::spawn(async move {
            for number in 0..300 {
                // The same keys as those of the witness.
                let key = format!("k{}", number % 40);
                scratch.put(&key, Some(format!("\"other {number}\"").as_bytes())).await;
            }
        })
    };
    witness.wait_for_writes(500).await;
    other_writer.await.unwrap();
    witness.finish(1).await.report();
}
