//! What a rejected record does to the entry of its key, and which anomalies of writers a table notices.

use std::collections::BTreeMap;
use std::time::Duration;

use ktables::codec::{Codecs, LengthPrefixed};
use ktables::log::{Ack, NewRecord};
use ktables::table::{
    Cause, Clock, OnReject, Status, SystemClock, Table, TableError, WatchEvent, WatchStart,
};
use ktables_tests::{
    LogKind, Scratch, TIMEOUT, contents, eventually_async, on_each_log, record, run, succeed,
};

async fn table(scratch: &Scratch, on_reject: OnReject) -> Table {
    let builder = Table::builder(scratch.log.clone(), &scratch.topic.name, Codecs::default());
    builder.on_reject(on_reject).catchup_timeout(TIMEOUT).open().await.unwrap()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn remove_makes_the_table_independent_of_compaction(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    scratch.put("b", Some(b"2")).await;
    let live = table(&scratch, OnReject::Remove).await;
    live.wait_until_ready().await.unwrap();
    let mut watcher = live.watch(WatchStart::Now);
    scratch.put("a", Some(b"{")).await;
    scratch.sync(&live).await;
    // The same topic, compacted: only the newest record of each key is left.
    let compacted = kind.scratch(1).await;
    compacted.write(vec![record("b", Some(b"2")), record("a", Some(b"{"))]).await;
    let compacted = table(&compacted, OnReject::Remove).await;
    let loaded = table(&scratch, OnReject::Remove).await;
    for table in [&live, &loaded, &compacted] {
        table.wait_until_ready().await.unwrap();
        assert_eq!(contents(table), map(&[("b", "2")]));
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
    assert_eq!(contents(&live), map(&[("a", "3"), ("b", "2")]));
    assert_eq!(live.notice("a"), None);
}

async fn halt_stops_before_the_rejected_record(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    // A record without a key does not halt the table.
    scratch.write(vec![NewRecord { value: Some(b"{".to_vec()), ..NewRecord::default() }]).await;
    let live = table(&scratch, OnReject::Halt).await;
    live.wait_until_ready().await.unwrap();
    assert_eq!(contents(&live), map(&[("a", "1")]));
    let waiting = {
        let live = live.clone();
        let unreached = Ack { partition: 0, offset: Some(1_000_000) };
        tokio::spawn(async move { live.wait_for(&[unreached], Duration::from_secs(3600)).await })
    };
    scratch.write(vec![record("b", Some(b"2")), record("a", Some(b"{")), record("c", Some(b"3"))]).await;
    eventually_async("the table fails", || live.status().is_final().then_some(())).await;
    assert_eq!(contents(&live), map(&[("a", "1"), ("b", "2")]));
    let Status::Failed(error) = live.status() else { panic!("{}", live.status()) };
    let TableError::Halted { reject, .. } = &*error else { panic!("{error}") };
    assert_eq!((reject.partition, reject.offset, reject.key.as_deref()), (0, 3, Some("a")));
    assert!(error.to_string().contains("partition 0, offset 3"), "{error}");
    assert_eq!(live.snapshot().positions().collect::<Vec<_>>(), [(0, 3)]);
    // A caller that is waiting gets the reason, and so does a later one.
    for stale in [waiting.await.unwrap(), live.barrier(TIMEOUT).await] {
        let text = stale.to_string();
        assert!(text.contains("failed") && text.contains("partition 0, offset 3"), "{text}");
    }
    live.stop().await;
    assert!(matches!(live.status(), Status::Failed(_)), "{}", live.status());
    // A table that starts now fails while it loads.
    let loading = table(&scratch, OnReject::Halt).await;
    assert!(matches!(loading.wait_until_ready().await, Err(TableError::Halted { .. })));
}

async fn undecodable_keys_affect_no_entry_but_halt_the_table(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let undecodable = NewRecord { key: Some(vec![0xff]), value: Some(b"2".to_vec()), ..NewRecord::default() };
    scratch.write(vec![undecodable]).await;
    for on_reject in [OnReject::Keep, OnReject::Remove] {
        let table = table(&scratch, on_reject).await;
        table.wait_until_ready().await.unwrap();
        assert_eq!(contents(&table), map(&[("a", "1")]));
        assert_eq!(table.stats().rejects.values().sum::<u64>(), 1);
    }
    assert!(table(&scratch, OnReject::Halt).await.wait_until_ready().await.is_err());
}

on_each_log! {
    remove_makes_the_table_independent_of_compaction,
    halt_stops_before_the_rejected_record,
    undecodable_keys_affect_no_entry_but_halt_the_table,
    writer_anomalies_are_counted_with_the_first_record,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_rejected_records_and_obeys_on_reject() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    scratch.put("a", Some(b"{")).await;
    let line = &succeed(&mut scratch.ktables(&["dump"])).json()[0];
    assert_eq!((&line["value"], &line["rejected"]["offset"]), (&1.into(), &1.into()));
    assert_eq!(line["rejected"]["kind"], "malformed");
    let line = &succeed(&mut scratch.ktables(&["get", "a", "--verbose"])).json()[0];
    assert_eq!((&line["value"], &line["rejected"]["offset"]), (&1.into(), &1.into()));
    let removed = run(&mut scratch.ktables(&["get", "a", "--on-reject", "remove"]));
    assert_eq!((removed.code, &*removed.stdout), (1, ""), "{}", removed.stderr);
    let halted = run(&mut scratch.ktables(&["get", "a", "--on-reject", "halt"]));
    assert_eq!(halted.code, 3);
    assert!(halted.stderr.contains("partition 0, offset 1"), "{}", halted.stderr);
    let is_error = |line: &str| {
        ["error:", "partition 0, offset 1", "Repair the codec"].iter().all(|part| line.contains(part))
    };
    assert!(halted.stderr.lines().any(is_error), "{}", halted.stderr);
    // Import ignores the additional fields of a dump.
    let dump = succeed(&mut scratch.ktables(&["dump"])).stdout;
    let copy = Scratch::new(1).await;
    let imported = ktables_tests::run_with_stdin(&mut copy.ktables(&["import"]), &dump);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
}

async fn writer_anomalies_are_counted_with_the_first_record(kind: LogKind) {
    let scratch = kind.scratch(2).await;
    let at = |key: &str, partition, timestamp| NewRecord {
        partition: Some(partition),
        timestamp: Some(timestamp),
        ..record(key, Some(b"1"))
    };
    // murmur2 puts the key into the partition `right`.
    let codecs = Codecs { group_scheme: Some(std::sync::Arc::new(LengthPrefixed)), ..Codecs::default() };
    let right = scratch.put("1:ka", Some(b"0")).await.partition;
    let table = Table::builder(scratch.log.clone(), &scratch.topic.name, codecs).start().await.unwrap();
    assert_eq!(table.stats().other_partitioner.count, 0);
    let now = SystemClock.now();
    scratch.write(vec![at("1:ka", right, now + 60_000)]).await;
    // Partitions have no order among each other, so each record must be applied before the next one.
    scratch.sync(&table).await;
    scratch.write(vec![at("1:ka", 1 - right, now)]).await;
    scratch.sync(&table).await;
    scratch.write(vec![at("foreign", right, now)]).await;
    scratch.sync(&table).await;
    let stats = table.stats();
    assert_eq!((stats.cross_partition.count, stats.cross_partition.first), (1, Some((1 - right, 0))));
    assert_eq!((stats.older.count, stats.older.first), (1, Some((1 - right, 0))));
    assert_eq!((stats.foreign.count, stats.foreign.first), (1, Some((right, 2))));
    assert_eq!(stats.other_partitioner.first, Some((1 - right, 0)));
}
