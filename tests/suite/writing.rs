//! Writes that wait until they are visible, atomic writes, heartbeats, and barriers that share requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ktables::codec::Codecs;
use ktables::log::{Isolation, LogError, LogOptions};
use ktables::table::{Table, WatchEvent, WatchStart};
use ktables::writer::{Target, Write, WriteError, Writer};
use ktables_tests::{
    LogKind, RunningCommand, Scratch, TIMEOUT, WrappedLog, contents, kafka, on_each_log, succeed,
};

fn write(key: &str, value: &str) -> Write {
    Write { target: Target::Key(key.to_owned()), value: Some(value.to_owned()) }
}

async fn writer(scratch: &Scratch) -> Writer {
    Writer::open(scratch.log.clone(), &scratch.topic.name, Codecs::default()).await.unwrap()
}

async fn a_write_that_waits_returns_after_it_is_visible(kind: LogKind) {
    let scratch = kind.scratch(4).await;
    let table = scratch.table(Codecs::default()).await;
    let writer = writer(&scratch).await.visible_in(&table, TIMEOUT);
    for number in 0..50 {
        let (key, value) = (format!("k{}", number % 5), number.to_string());
        writer.set(&key, &value).await.unwrap();
        assert_eq!(table.get(&key).unwrap().json(), value);
    }
    let writes: Vec<Write> = (0..20).map(|n| write(&format!("many-{n}"), "1")).collect();
    assert!(writer.set_many(writes).await.iter().all(Result::is_ok));
    assert_eq!(table.snapshot().prefix("many-").count(), 20);
    writer.delete("k0").await.unwrap();
    assert!(!table.contains("k0"));
    // A record that is durable but not visible has an error of its own.
    table.stop().await;
    let error = writer.set("k1", "1").await.unwrap_err();
    let WriteError::NotVisible { ack, reason } = &error else { panic!("{error}") };
    assert!(ack.offset > Some(0) && reason.to_string().contains("stopped"), "{error}");
}

async fn atomic_writes_are_all_visible(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let table = scratch.table(Codecs::default()).await;
    let mut watcher = table.watch(WatchStart::Now);
    let writer = writer(&scratch).await.visible_in(&table, TIMEOUT);
    for round in 0..5 {
        let writes = (0..300).map(|n| write(&format!("k{n}"), &(round * 1000 + n).to_string()));
        let acks = writer.set_many(writes).atomic().await.unwrap();
        assert_eq!(acks.len(), 300);
        assert!(acks.windows(2).all(|pair| pair[0].offset.map(|offset| offset + 1) == pair[1].offset));
        assert!(
            (0..300).all(|n| table.get(&format!("k{n}")).unwrap().json() == (round * 1000 + n).to_string())
        );
    }
    assert_eq!(writer.set_many([]).atomic().await.unwrap(), []);
    for number in 0..1500 {
        match tokio::time::timeout(TIMEOUT, watcher.next()).await.unwrap().unwrap() {
            WatchEvent::Change(change) => assert_eq!(change.key(), format!("k{}", number % 300)),
            other => panic!("{other:?}"),
        }
    }
}

async fn atomic_writes_with_a_bad_one_write_nothing(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let table = scratch.table(Codecs::default()).await;
    let writer = writer(&scratch).await;
    let too_large = format!("\"{}\"", "x".repeat(1_200_000));
    for bad in ["no json", too_large.as_str()] {
        let mut writes: Vec<Write> = (0..50).map(|n| write(&format!("k{n}"), "1")).collect();
        writes.insert(25, write("bad", bad));
        writer.set_many(writes).atomic().await.unwrap_err();
    }
    writer.set("end", "2").await.unwrap();
    scratch.sync(&table).await;
    let only_the_last = BTreeMap::from([("end".to_owned(), "2".to_owned())]);
    assert_eq!(contents(&table), only_the_last);
    assert_eq!(contents(&scratch.table(Codecs::default()).await), only_the_last);
    // The writer still works.
    assert_eq!(writer.set_many([write("a", "3")]).atomic().await.unwrap().len(), 1);
}

async fn concurrent_barriers_share_requests(kind: LogKind) {
    const CONCURRENT: usize = 64;
    let scratch = Arc::new(kind.scratch(2).await);
    let log = Arc::new(WrappedLog::new(scratch.log.clone()));
    let builder = Table::builder(log.clone(), &scratch.topic.name, Codecs::default());
    let table = builder.catchup_timeout(TIMEOUT).start().await.unwrap();
    let before = log.end_offset_requests();
    for round in 0..20_u32 {
        scratch.put("k", Some(round.to_string().as_bytes())).await;
        let barriers = futures_util::future::join_all((0..CONCURRENT).map(|_| table.barrier(TIMEOUT))).await;
        assert!(barriers.iter().all(ktables::table::Freshness::is_fresh));
        assert_eq!(table.get("k").unwrap().json(), round.to_string());
    }
    // The first barrier sends a request, and all that start meanwhile share the next one; a few may start
    // later.
    let requests = log.end_offset_requests() - before;
    assert!(requests <= 3 * 20, "{requests} requests for {} barriers", 20 * CONCURRENT);
}

async fn barriers_are_right_while_others_write(kind: LogKind) {
    let scratch = Arc::new(kind.scratch(4).await);
    let table = scratch.table(Codecs::default()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let others = {
        let (writer, stop) = (writer(&scratch).await, stop.clone());
        tokio::spawn(async move {
            let mut written = 0_u64;
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            while !stop.load(Ordering::Relaxed) {
                ticks.tick().await;
                let writes = (0..100).map(|n| write(&format!("other-{n}"), &written.to_string()));
                assert!(writer.set_many(writes).await.iter().all(Result::is_ok));
                written += 100;
            }
            written
        })
    };
    let mine = writer(&scratch).await;
    for number in 0..100 {
        let (key, value) = (format!("mine-{}", number % 3), number.to_string());
        mine.set(&key, &value).await.unwrap();
        scratch.sync(&table).await;
        assert_eq!(table.get(&key).unwrap().json(), value);
    }
    stop.store(true, Ordering::Relaxed);
    let written = others.await.unwrap();
    scratch.sync(&table).await;
    assert_eq!(table.stats().records, written + 100);
}

async fn heartbeats_keep_an_entry_until_ctrl_c(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let table = scratch.table(Codecs::default()).await;
    for (args, left) in
        [(&["--heartbeat", "20ms"][..], None), (&["--heartbeat", "20ms", "--keep"], Some("7"))]
    {
        let command = [&["set", "beat", "7", "--wait"], args].concat();
        let mut running = RunningCommand::start(&mut scratch.ktables(&command));
        let beats: Vec<_> = (0..3).map(|_| running.next()["offset"].as_i64().unwrap()).collect();
        assert!(beats.is_sorted_by(|a, b| a < b), "{beats:?}");
        scratch.sync(&table).await;
        assert_eq!(table.get("beat").unwrap().json(), "7");
        running.signal("INT");
        assert_eq!(running.wait(), 0);
        scratch.sync(&table).await;
        assert_eq!(table.get("beat").map(|entry| entry.json().to_owned()), left.map(str::to_owned));
    }
}

on_each_log! {
    a_write_that_waits_returns_after_it_is_visible,
    atomic_writes_are_all_visible,
    atomic_writes_with_a_bad_one_write_nothing,
    concurrent_barriers_share_requests,
    barriers_are_right_while_others_write,
    heartbeats_keep_an_entry_until_ctrl_c,
}

#[tokio::test(flavor = "multi_thread")]
async fn atomic_writes_to_several_partitions_need_a_transaction() {
    let directory = Scratch::new(4).await;
    let writes = || (0..20).map(|n| write(&format!("k{n}"), "1"));
    let error = writer(&directory).await.set_many(writes()).atomic().await.unwrap_err();
    assert!(error.to_string().contains("one partition"), "{error}");
    assert!(directory.table(Codecs::default()).await.is_empty());

    let scratch = LogKind::Kafka.scratch(4).await;
    let table = scratch.table(Codecs::default()).await;
    let acks = writer(&scratch).await.set_many(writes()).atomic().await.unwrap();
    assert!(table.wait_for(&acks, TIMEOUT).await.is_fresh());
    assert_eq!(table.len(), 20);
    let partitions: std::collections::BTreeSet<i32> = acks.iter().map(|ack| ack.partition).collect();
    assert_eq!(partitions.len(), 4);
    // A reader of uncommitted records sees the same records, and no others.
    let options = LogOptions { isolation: Isolation::ReadUncommitted, ..LogOptions::default() };
    let uncommitted = Scratch::existing(&kafka::shared(), options, &scratch.topic.name).await;
    assert_eq!(uncommitted.table(Codecs::default()).await.stats().records, 20);

    let options = LogOptions { idempotence: false, ..LogOptions::default() };
    let not_idempotent = Scratch::existing(&kafka::shared(), options, &scratch.topic.name).await;
    let error = writer(&not_idempotent).await.set_many(writes()).atomic().await.unwrap_err();
    assert!(
        matches!(&error, WriteError::Log(LogError::InvalidProperty { name, .. }) if name == "idempotence")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_waits_until_its_write_is_visible() {
    let scratch = Scratch::new(2).await;
    for args in [&["set", "a", "1", "--wait"][..], &["delete", "a", "--wait"]] {
        let line = succeed(&mut scratch.ktables(args)).json().remove(0);
        assert!(line["offset"].is_i64(), "{line}");
    }
}
