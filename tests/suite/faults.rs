//! Tests that inject faults into brokers, topics and rights. No acknowledged record may be lost, no change
//! may be delivered twice, the table must equal a fresh replay, and its status must report the fault.
//!
//! `cargo xtask soak` repeats these tests.

mod freeze;
mod metadata;
mod nodes;
mod rights;
mod topics;
mod transactions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ktables::codec::Codecs;
use ktables::log::{LogError, LogOptions};
use ktables::table::{Status, Table};
use ktables::writer::{Target, Write, Writer};
use ktables_broker::{Broker, BrokerOptions};
use ktables_tests::{
    FaultTally, FaultyCodec, RunningCommand, Scratch, TIMEOUT, contents, eventually_async, kafka, record,
};
use serde_json::{Value, json};

/// Starts a broker for one test and creates a topic on it. The log reports silence after a second.
async fn start_cluster(partitions: i32) -> (Broker, Scratch) {
    start_cluster_with(partitions, &[]).await
}

/// Does the same as [`start_cluster`], with these properties of librdkafka.
async fn start_cluster_with(partitions: i32, properties: &[(&str, &str)]) -> (Broker, Scratch) {
    let broker = kafka::start_broker(&BrokerOptions::default());
    let properties = properties.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let options = LogOptions { stale_after: Duration::from_secs(1), properties, ..LogOptions::default() };
    let scratch = Scratch::on_cluster(&broker.bootstrap(), options, partitions).await;
    (broker, scratch)
}

/// Waits until the status of a table has this name, and returns it.
async fn wait_for_status(table: &Table, name: &str) -> Status {
    eventually_async(&format!("the table is {name}"), || {
        let status = table.status();
        (status.name() == name).then_some(status)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_reports_each_change_once_and_each_outage_while_its_broker_is_killed() {
    let (mut broker, scratch) = start_cluster(2).await;
    let watch = RunningCommand::start(scratch.ktables(&["watch"]).args(["-X", "stale_after=1s"]));
    watch.until(|line| line["event"] == "synced");
    let writer = Writer::open(scratch.log.clone(), &scratch.topic.name, Codecs::default()).await.unwrap();
    let mut writes = Writes::default();
    for _ in 0..2 {
        for number in 0..20 {
            writes.set(&writer, &format!("k{}", number % 7)).await;
        }
        broker.kill().unwrap();
        // The watch may report a lagging partition before that.
        let is_unreachable = |line: &Value| {
            let reason = line["reason"].as_str().unwrap_or_default();
            line["status"] == "degraded" && reason.starts_with("unreachable since 20")
        };
        let lines = tokio::task::block_in_place(|| watch.until(is_unreachable));
        writes.remove_delivered(&lines);
        // Written while the broker is down, and acknowledged after its restart.
        let writing = writes.set(&writer, "late");
        let ((), restarted) =
            tokio::join!(writing, async { tokio::task::block_in_place(|| broker.restart()) });
        restarted.unwrap();
        let lines = tokio::task::block_in_place(|| watch.until(|line| line["status"] == "caught_up"));
        writes.remove_delivered(&lines);
        for number in 0..20 {
            writes.set(&writer, &format!("k{}", number % 7)).await;
        }
    }
    while !writes.changes.is_empty() {
        writes.remove_delivered(&[tokio::task::block_in_place(|| watch.next())]);
    }
    // A change of its partition that is delivered twice would come before this one.
    writes.set(&writer, "last").await;
    let mut lines = tokio::task::block_in_place(|| watch.until(|line| line["key"] == "last"));
    lines.extend(watch.rest());
    lines.retain(|line| line["event"].is_null());
    assert_eq!(lines.len(), 1, "{lines:?}");
    FaultTally { acknowledged: writes.number, ..FaultTally::without_errors(2) }.report();
}

/// The writes of a test, and the changes that its watch has not delivered yet.
#[derive(Debug, Default)]
struct Writes {
    number: u64,
    newest: BTreeMap<String, Value>,
    /// Key, old value and new value.
    changes: Vec<(String, Value, Value)>,
}

impl Writes {
    async fn set(&mut self, writer: &Writer, key: &str) {
        self.number += 1;
        writer.set(key, self.number.to_string()).await.unwrap();
        let new = json!(self.number);
        let old = self.newest.insert(key.to_owned(), new.clone()).unwrap_or(Value::Null);
        self.changes.push((key.to_owned(), old, new));
    }

    /// Removes the changes in the output of a watch. Each must be the next change of its key: keys are in two
    /// partitions, so only the changes of one key are ordered.
    fn remove_delivered(&mut self, lines: &[Value]) {
        for line in lines.iter().filter(|line| line["event"].is_null()) {
            let next = self.changes.iter().position(|(key, ..)| line["key"] == **key);
            let next = next.unwrap_or_else(|| panic!("never written, or delivered twice: {line}"));
            let (_, old, new) = self.changes.remove(next);
            assert_eq!((&line["old"], &line["new"]), (&old, &new), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_loads_completely_although_its_broker_is_killed() {
    // Small fetches and a small queue, so that most records are not fetched while the codec fails.
    let small =
        [("batch.size", "10000"), ("fetch.message.max.bytes", "10000"), ("queued.max.messages.kbytes", "64")];
    let (mut broker, scratch) = start_cluster_with(3, &small).await;
    let codec = Arc::new(FaultyCodec::default());
    codec.fail();
    let value = format!("\"{}\"", "x".repeat(500));
    let mut expected = BTreeMap::new();
    let mut records = Vec::new();
    for number in 0..30_000 {
        let key = format!("k{}", number % 5000);
        let value = format!("[{number},{value}]");
        records.push(record(&key, Some(value.as_bytes())));
        expected.insert(key, value);
    }
    scratch.write(records).await;
    let codecs = Codecs { value: codec.clone(), ..Codecs::default() };
    let builder = Table::builder(scratch.log.clone(), &scratch.topic.name, codecs);
    let table = builder.catchup_timeout(Duration::from_secs(1)).open().await.unwrap();
    // On a busy machine, no record may have arrived after the second.
    eventually_async("the status has the failure of the codec", || {
        table.status().reason()?.contains("a test fault").then_some(())
    })
    .await;
    broker.kill().unwrap();
    eventually_async("the status reports the outage", || {
        table.status().reason()?.starts_with("unreachable since 20").then_some(())
    })
    .await;
    codec.recover();
    broker.restart().unwrap();
    wait_for_status(&table, "caught_up").await;
    assert_eq!(contents(&table), expected);
    assert_eq!(table.stats().records, 30_000);
    FaultTally { acknowledged: 30_000, ..FaultTally::without_errors(1) }.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_during_writes_loses_no_acknowledged_record() {
    let (mut broker, scratch) = start_cluster(3).await;
    let table = scratch.table(Codecs::default()).await;
    let writer = Writer::open(scratch.log.clone(), &scratch.topic.name, Codecs::default()).await.unwrap();
    let writing = tokio::spawn(async move {
        let mut acks = Vec::new();
        for round in 0..60 {
            let write = |n: usize| Write {
                target: Target::Key(format!("k{}", n % 300)),
                value: Some(json!([round, n]).to_string()),
            };
            for (n, ack) in writer.set_many((0..500).map(write)).await.into_iter().enumerate() {
                acks.push((format!("k{}", n % 300), json!([round, n]).to_string(), ack.unwrap()));
            }
        }
        acks
    });
    for round in 0..2 {
        eventually_async("some records are applied", || {
            (table.stats().records > round * 10_000).then_some(())
        })
        .await;
        broker.kill().unwrap();
        broker.restart().unwrap();
    }
    let acks = writing.await.unwrap();
    scratch.sync(&table).await;
    wait_for_status(&table, "caught_up").await;
    // Idempotence: records that were retried are in the topic once.
    assert_eq!(table.stats().records, 30_000);
    let mut newest: BTreeMap<String, (i64, String)> = BTreeMap::new();
    for (key, value, ack) in acks {
        let entry = newest.entry(key).or_default();
        *entry = (*entry).clone().max((ack.offset.unwrap(), value));
    }
    let expected: BTreeMap<_, _> = newest.into_iter().map(|(key, (_, value))| (key, value)).collect();
    assert_eq!(contents(&table), expected);
    let fresh = scratch.table(Codecs::default()).await;
    assert_eq!(contents(&fresh), expected);
    FaultTally { acknowledged: 30_000, ..FaultTally::without_errors(2) }.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_wait_during_a_long_outage_are_written_after_it() {
    let (mut broker, scratch) = start_cluster(1).await;
    let table = scratch.table(Codecs::default()).await;
    for round in 0..3 {
        broker.kill().unwrap();
        let written: Vec<_> = (0..20).map(|n| record(&format!("{round}-{n}"), Some(b"1"))).collect();
        let mut deliveries = Vec::new();
        for record in written {
            deliveries.push(scratch.log.send(&scratch.topic, record).await.unwrap());
        }
        wait_for_status(&table, "degraded").await;
        broker.restart().unwrap();
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        wait_for_status(&table, "caught_up").await;
    }
    scratch.sync(&table).await;
    assert_eq!(table.stats().records, 60);
    FaultTally { acknowledged: 60, ..FaultTally::without_errors(3) }.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn close_lists_the_unacknowledged_records() {
    let (mut broker, scratch) = start_cluster(1).await;
    let table = scratch.table(Codecs::default()).await;
    scratch.put("a", Some(b"1")).await;
    scratch.sync(&table).await;
    assert_eq!(scratch.log.close(Duration::from_secs(5)).await, []);
    broker.kill().unwrap();
    let mut deliveries = Vec::new();
    for key in ["b", "c"] {
        deliveries.push(scratch.log.send(&scratch.topic, record(key, Some(b"2"))).await.unwrap());
    }
    let lost = scratch.log.close(Duration::from_millis(100)).await;
    let mut keys: Vec<_> = lost.iter().map(|lost| lost.key.clone().unwrap()).collect();
    keys.sort();
    assert_eq!(keys, [b"b".to_vec(), b"c".to_vec()]);
    assert!(lost.iter().all(|lost| lost.topic == scratch.topic.name));
    for delivery in deliveries {
        assert!(matches!(delivery.await, Err(LogError::Undelivered { .. })));
    }
    // A barrier is stale while the broker is down.
    wait_for_status(&table, "degraded").await;
    let stale = table.barrier(Duration::from_secs(3)).await;
    assert!(!stale.is_fresh());
    // The contents can still be read.
    assert_eq!(table.get("a").unwrap().json(), "1");
    broker.restart().unwrap();
    scratch.put("d", Some(b"3")).await;
    scratch.sync(&table).await;
    assert_eq!(table.get("d").unwrap().json(), "3");
    FaultTally { acknowledged: 2, ..FaultTally::without_errors(1) }.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_broker_is_reported_until_it_resumes() {
    let (broker, scratch) = start_cluster(1).await;
    let table = scratch.table(Codecs::default()).await;
    broker.pause().unwrap();
    eventually_async("the status reports the outage", || {
        table.status().reason()?.starts_with("unreachable since 20").then_some(())
    })
    .await;
    broker.resume().unwrap();
    wait_for_status(&table, "caught_up").await;
    scratch.put("a", Some(b"1")).await;
    tokio::time::timeout(TIMEOUT, scratch.sync(&table)).await.unwrap();
    assert_eq!(table.get("a").unwrap().json(), "1");
    FaultTally { acknowledged: 1, ..FaultTally::without_errors(1) }.report();
}
