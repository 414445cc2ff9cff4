//! What a rejected record does to the entry of its key, and what is noticed of writers'
//! mistakes.

use std::collections::BTreeMap;
use std::time::Duration;

use ktables::codec::{Codecs, LengthPrefixed};
use ktables::log::{Ack, NewRecord};
use ktables::table::{
    Cause, Clock, OnReject, Status, SystemClock, Table, TableError, WatchEvent, WatchStart,
};
use ktables_tests::{On, PATIENCE, Scratch, contents, eventually_async, on_each_log, record, run, succeed};

async fn table(scratch: &Scratch, on_reject: OnReject) -> Table {
    let builder = Table::builder(scratch.log.clone(), &scratch.topic.name, Codecs::default());
    builder.on_reject(on_reject).catchup_timeout(PATIENCE).open().await.unwrap()
}

fn of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn remove_makes_the_table_independent_of_compaction(on: On) {
    let scratch = on.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    scratch.put("b", Some(b"2")).await;
    let live = table(&scratch, OnReject::Remove).await;
    live.ready().await.unwrap();
    let mut watcher = live.watch(WatchStart::Now);
    scratch.put("a", Some(b"{")).await;
    scratch.sync(&live).await;
    // As if only the newest record of each key were left.
    let compacted = on.scratch(1).await;
    compacted.write(vec![record("b", Some(b"2")), record("a", Some(b"{"))]).await;
    let compacted = table(&compacted, OnReject::Remove).await;
    let loaded = table(&scratch, OnReject::Remove).await;
    for table in [&live, &loaded, &compacted] {
        table.ready().await.unwrap();
        assert_eq!(contents(table), of(&[("b", "2")]));
        assert_eq!(table.notice("a").unwrap().kind.name(), "malformed");
    }
    match (watcher.next().await, watcher.next().await) {
        (Some(WatchEvent::Change(change)), Some(WatchEvent::Rejected { key, notice })) => {
            assert_eq!((change.cause, change.new, change.offset), (Cause::Rejected, None, 2));
            assert_eq!((key.as_deref(), notice.offset), (Some("a"), 2));
        }
        other => panic!("{other:?}"),
    }
    scratch.put("a", Some(b"3")).await;
    scratch.sync(&live).await;
    assert_eq!(contents(&live), of(&[("a", "3"), ("b", "2")]));
    assert_eq!(live.notice("a"), None);
}

async fn halt_stands_still_before_the_record(on: On) {
    let scratch = on.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    // Nobody's key: no reason to halt.
    scratch.write(vec![NewRecord { value: Some(b"{".to_vec()), ..NewRecord::default() }]).await;
    let live = table(&scratch, OnReject::Halt).await;
    live.ready().await.unwrap();
    assert_eq!(contents(&live), of(&[("a", "1")]));
    let waiting = {
        let live = live.clone();
        let far = Ack { partition: 0, offset: 1_000_000 };
        tokio::spawn(async move { live.wait_for(&[far], Duration::from_secs(3600)).await })
    };
    scratch.write(vec![record("b", Some(b"2")), record("a", Some(b"{")), record("c", Some(b"3"))]).await;
    eventually_async("the table fails", || live.status().is_final().then_some(())).await;
    assert_eq!(contents(&live), of(&[("a", "1"), ("b", "2")]));
    let Status::Failed(error) = live.status() else { panic!("{}", live.status()) };
    let TableError::Halted { reject, .. } = &*error else { panic!("{error}") };
    assert_eq!((reject.partition, reject.offset, reject.key.as_deref()), (0, 3, Some("a")));
    assert!(error.to_string().contains("partition 0, offset 3"), "{error}");
    assert_eq!(live.snapshot().positions().collect::<Vec<_>>(), [(0, 3)]);
    // Whoever waits is told, and who comes later, too.
    for stale in [waiting.await.unwrap(), live.barrier(PATIENCE).await] {
        let text = stale.to_string();
        assert!(text.contains("failed") && text.contains("partition 0, offset 3"), "{text}");
    }
    live.stop().await;
    assert!(matches!(live.status(), Status::Failed(_)), "{}", live.status());
    // One that starts now fails at once.
    let loading = table(&scratch, OnReject::Halt).await;
    assert!(matches!(loading.ready().await, Err(TableError::Halted { .. })));
}

async fn keys_that_cannot_be_told_concern_no_entry_but_halt(on: On) {
    let scratch = on.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let no_text = NewRecord { key: Some(vec![0xff]), value: Some(b"2".to_vec()), ..NewRecord::default() };
    scratch.write(vec![no_text]).await;
    for on_reject in [OnReject::Keep, OnReject::Remove] {
        let table = table(&scratch, on_reject).await;
        table.ready().await.unwrap();
        assert_eq!(contents(&table), of(&[("a", "1")]));
        assert_eq!(table.stats().rejects.values().sum::<u64>(), 1);
    }
    assert!(table(&scratch, OnReject::Halt).await.ready().await.is_err());
}

on_each_log! {
    remove_makes_the_table_independent_of_compaction,
    halt_stands_still_before_the_record,
    keys_that_cannot_be_told_concern_no_entry_but_halt,
    mistakes_of_writers_are_counted_with_the_first,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_was_rejected_of_an_entry_and_obeys() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    scratch.put("a", Some(b"{")).await;
    let line = &succeed(&mut scratch.ktables(&["dump"])).json()[0];
    assert_eq!((&line["value"], &line["rejected"]["offset"]), (&1.into(), &1.into()));
    assert_eq!(line["rejected"]["kind"], "malformed");
    let line = &succeed(&mut scratch.ktables(&["get", "a", "--verbose"])).json()[0];
    assert_eq!((&line["value"], &line["rejected"]["offset"]), (&1.into(), &1.into()));
    let gone = run(&mut scratch.ktables(&["get", "a", "--on-reject", "remove"]));
    assert_eq!((gone.code, &*gone.stdout), (1, ""), "{}", gone.stderr);
    let halted = run(&mut scratch.ktables(&["get", "a", "--on-reject", "halt"]));
    assert_eq!(halted.code, 3);
    assert!(halted.stderr.contains("partition 0, offset 1"), "{}", halted.stderr);
    let loud = |line: &str| {
        ["ERROR", "partition 0, offset 1", "its contents stay as they are"]
            .iter()
            .all(|part| line.contains(part))
    };
    assert!(halted.stderr.lines().any(loud), "{}", halted.stderr);
    // What dump says besides is no obstacle to import.
    let dump = succeed(&mut scratch.ktables(&["dump"])).stdout;
    let copy = Scratch::new(1).await;
    let imported = ktables_tests::run_with(&mut copy.ktables(&["import"]), &dump);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
}

async fn mistakes_of_writers_are_counted_with_the_first(on: On) {
    let scratch = on.scratch(2).await;
    let at = |key: &str, partition, timestamp| NewRecord {
        partition: Some(partition),
        timestamp: Some(timestamp),
        ..record(key, Some(b"1"))
    };
    // Of two partitions, murmur2 puts "1:ka" into one and not into the other.
    let codecs = Codecs { scheme: Some(std::sync::Arc::new(LengthPrefixed)), ..Codecs::default() };
    let right = scratch.put("1:ka", Some(b"0")).await.partition;
    let table = Table::builder(scratch.log.clone(), &scratch.topic.name, codecs).start().await.unwrap();
    assert_eq!(table.stats().other_partitioner.count, 0);
    let now = SystemClock.now();
    scratch.write(vec![at("1:ka", right, now + 60_000)]).await;
    // Two partitions have no order.
    scratch.sync(&table).await;
    scratch.write(vec![at("1:ka", 1 - right, now)]).await;
    scratch.write(vec![at("foreign", right, now)]).await;
    scratch.sync(&table).await;
    let stats = table.stats();
    assert_eq!((stats.cross_partition.count, stats.cross_partition.first), (1, Some((1 - right, 0))));
    assert_eq!((stats.older.count, stats.older.first), (1, Some((1 - right, 0))));
    assert_eq!((stats.foreign.count, stats.foreign.first), (1, Some((right, 2))));
    assert_eq!(stats.other_partitioner.first, Some((1 - right, 0)));
}
