//! The contract of tables, on each kind of log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ktables::codec::{Codecs, LengthPrefixed, RejectKind, Utf8};
use ktables::log::{Ack, LogError, NewRecord};
use ktables::table::{AnomalyCount, Status, Table, TableError, WatchEvent, WatchStart, Watcher};
use ktables::writer::{Target, Write, Writer};
use ktables_tests::{
    LogKind, Scratch, TIMEOUT, TOPIC, WrappedLog, contents, eventually_async, on_each_log, record,
};

/// Returns key, old value and new value of the next change.
async fn next_change(watcher: &mut Watcher) -> (String, Option<String>, Option<String>) {
    match watcher.next().await.unwrap() {
        WatchEvent::Change(change) => {
            let json =
                |entry: &Option<ktables::table::Entry>| entry.as_ref().map(|entry| entry.json().to_owned());
            (change.key().to_owned(), json(&change.old), json(&change.new))
        }
        other => panic!("{other:?}"),
    }
}

async fn catches_up_and_follows_on_one_and_four_partitions(kind: LogKind) {
    for partitions in [1, 4] {
        let scratch = kind.scratch(partitions).await;
        let mut expected = BTreeMap::new();
        let mut records = Vec::new();
        for round in 0..3 {
            for number in 0..500 {
                let (key, value) = (format!("key-{number}"), format!("{}", round * 1000 + number));
                records.push(record(&key, Some(value.as_bytes())));
                expected.insert(key, value);
            }
        }
        scratch.write(records).await;
        let table = scratch.table(Codecs::default()).await;
        assert!(matches!(table.status(), Status::CaughtUp));
        assert_eq!(contents(&table), expected);
        let stats = table.stats();
        assert_eq!((stats.records, stats.replayed, stats.entries), (1500, 1500, 500));
        assert_eq!(
            [stats.cross_partition, stats.older, stats.other_partitioner],
            [AnomalyCount::default(); 3]
        );

        scratch.put("key-7", Some(b"\"live\"")).await;
        scratch.put("new", Some(b"1")).await;
        scratch.put("key-8", None).await;
        scratch.sync(&table).await;
        expected.insert("key-7".to_owned(), "\"live\"".to_owned());
        expected.insert("new".to_owned(), "1".to_owned());
        expected.remove("key-8");
        assert_eq!(contents(&table), expected);
        // The positions of all partitions add up to the number of records.
        let total: i64 = table.snapshot().positions().map(|(_, offset)| offset).sum();
        assert_eq!(total, 1503);
    }
}

async fn a_tombstone_is_a_null_value_only(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("null", Some(b"null")).await;
    scratch.put("empty", Some(b"")).await;
    scratch.put("gone", Some(b"1")).await;
    scratch.put("gone", None).await;
    let table = scratch.table(Codecs::default()).await;
    assert_eq!(table.get("null").unwrap().json(), "null");
    assert!(!table.contains("gone"));
    // An empty value is data: as JSON it is rejected, as text it is an empty string.
    assert_eq!(table.stats().rejects, BTreeMap::from([(RejectKind::Malformed, 1)]));
    assert_eq!(table.stats().tombstones, 1);
    let text = scratch.table(Codecs::new(Utf8, Utf8)).await;
    assert_eq!(text.get("empty").unwrap().json(), "\"\"");
}

async fn a_keyless_record_is_counted_and_an_empty_key_is_a_key(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let keyless = NewRecord { value: Some(b"1".to_vec()), ..NewRecord::default() };
    scratch.write(vec![keyless, record("", Some(b"2"))]).await;
    let table = scratch.table(Codecs::default()).await;
    assert_eq!((table.stats().keyless, table.stats().rejects.len()), (1, 0));
    let listed = &table.rejects()[0];
    assert_eq!((listed.reason.kind, listed.offset, &*listed.raw), (RejectKind::Keyless, 0, &b"1"[..]));
    assert_eq!(table.len(), 1);
    assert_eq!(table.get("").unwrap().json(), "2");
}

async fn a_rejected_update_keeps_the_old_value_with_a_notice(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    scratch.put("a", Some(b"{")).await;
    scratch.put("b", Some(b"{")).await;
    let table = scratch.table(Codecs::default()).await;
    assert_eq!(table.get("a").unwrap().json(), "1");
    assert_eq!(table.notice("a").unwrap().offset, 1);
    assert!(!table.contains("b"));
    assert_eq!(table.notice("b").unwrap().kind, RejectKind::Malformed);
    let rejects = table.rejects();
    assert_eq!(
        rejects.iter().map(|reject| (reject.partition, reject.offset)).collect::<Vec<_>>(),
        [(0, 1), (0, 2)]
    );
    assert_eq!(rejects[0].raw, b"{");
    scratch.put("a", Some(b"2")).await;
    scratch.sync(&table).await;
    assert_eq!(table.notice("a"), None);
}

async fn snapshots_list_ranges_and_prefixes(kind: LogKind) {
    let scratch = kind.scratch(4).await;
    let keys = ["a", "ab", "abc", "b", "ba", "c"];
    scratch.write(keys.iter().map(|key| record(key, Some(b"0"))).collect()).await;
    let table = scratch.table(Codecs::default()).await;
    let snapshot = table.snapshot();
    scratch.put("aa", Some(b"1")).await;
    scratch.sync(&table).await;
    let names =
        |entries: Vec<&ktables::table::Entry>| entries.iter().map(|e| e.key().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(snapshot.iter().collect()), keys);
    assert_eq!(names(snapshot.prefix("ab").collect()), ["ab", "abc"]);
    assert_eq!(names(snapshot.range("ab".."ba").collect()), ["ab", "abc", "b"]);
    assert_eq!(names(snapshot.range("ab"..="ba").collect()), ["ab", "abc", "b", "ba"]);
    assert_eq!(names(snapshot.range("c".."a").collect()), [""; 0]);
    assert_eq!(snapshot.len(), 6);
    assert_eq!(table.len(), 7);
}

async fn a_grouped_table_is_a_nested_view(kind: LogKind) {
    let scratch = kind.scratch(4).await;
    let codecs = Codecs { group_scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
    let writer = Writer::open(scratch.log.clone(), &scratch.topic.name, codecs.clone()).await.unwrap();
    let write = |group: &str, member: &str, value: Option<&str>| {
        let target = Target::Member { group: group.to_owned(), member: member.to_owned() };
        let writer = writer.clone();
        let value = value.map(str::to_owned);
        async move { writer.write(Write { target, value }).await.unwrap() }
    };
    write("billing", "host-a", Some("1")).await;
    write("billing", "host-b", Some("2")).await;
    write("größe", "x", Some("3")).await;
    write("gone", "y", Some("4")).await;
    scratch.put("foreign", Some(b"5")).await;
    let table = scratch.table(codecs).await;
    assert_eq!((table.stats().entries, table.stats().groups), (4, 3));
    write("gone", "y", None).await;
    scratch.sync(&table).await;
    assert_eq!(table.groups().iter().map(|group| &**group).collect::<Vec<_>>(), ["billing", "größe"]);
    assert_eq!(table.member("billing", "host-b").unwrap().json(), "2");
    assert_eq!(table.members("billing").iter().map(|e| e.json().to_owned()).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(
        (table.member_count("billing"), table.member_count("gone"), table.member_count("no")),
        (2, 0, 0)
    );
    assert!(!table.contains("foreign"));
    assert_eq!(table.stats().foreign.count, 1);
    let snapshot = table.snapshot();
    let nested: Vec<(&str, usize)> =
        snapshot.groups().map(|group| (group, snapshot.members(group).count())).collect();
    assert_eq!(nested, [("billing", 2), ("größe", 1)]);
}

async fn a_watcher_sees_the_entries_then_every_change_once(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let table = scratch.table(Codecs::default()).await;
    let mut watcher = table.watch(WatchStart::Entries);
    assert!(matches!(watcher.next().await, Some(WatchEvent::Entry(entry)) if entry.key() == "a"));
    assert!(matches!(watcher.next().await, Some(WatchEvent::Synced)));
    let mut changes_only = table.watch(WatchStart::Now);
    scratch.put("a", Some(b"2")).await;
    scratch.put("b", Some(b"3")).await;
    // No change: the key does not exist.
    scratch.put("c", None).await;
    scratch.put("a", None).await;
    let text = |text: &str| Some(text.to_owned());
    for watcher in [&mut watcher, &mut changes_only] {
        assert_eq!(next_change(watcher).await, ("a".to_owned(), text("1"), text("2")));
        assert_eq!(next_change(watcher).await, ("b".to_owned(), None, text("3")));
        assert_eq!(next_change(watcher).await, ("a".to_owned(), text("2"), None));
    }
    table.stop().await;
    assert!(matches!(watcher.next().await, Some(WatchEvent::Status(Status::Stopped))));
    assert!(watcher.next().await.is_none());
}

async fn watchers_that_start_during_writes_miss_nothing(kind: LogKind) {
    let scratch = Arc::new(kind.scratch(4).await);
    let table = scratch.table(Codecs::default()).await;
    let writer = {
        let scratch = scratch.clone();
        tokio::spawn(async move {
            for number in 0..300 {
                scratch.put(&format!("key-{}", number % 20), Some(number.to_string().as_bytes())).await;
            }
        })
    };
    // Each write that is acknowledged is followed by another watcher.
    let mut watchers = Vec::new();
    for number in 0..100 {
        scratch.put("mine", Some(number.to_string().as_bytes())).await;
        watchers.push((table.watch(WatchStart::Entries), BTreeMap::<String, String>::new()));
    }
    writer.await.unwrap();
    scratch.sync(&table).await;
    let expected = contents(&table);
    for (mut watcher, mut seen) in watchers {
        while seen != expected {
            match tokio::time::timeout(TIMEOUT, watcher.next()).await.unwrap().unwrap() {
                WatchEvent::Entry(entry) => {
                    drop(seen.insert(entry.key().to_owned(), entry.json().to_owned()))
                }
                WatchEvent::Change(change) => {
                    let old = change.old.as_ref().map(|entry| entry.json().to_owned());
                    let new = change.new.as_ref().unwrap().json().to_owned();
                    // Each change begins with the value that the previous one ended with.
                    assert_eq!(seen.insert(change.key().to_owned(), new), old);
                }
                WatchEvent::Synced => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn a_write_is_visible_after_a_barrier_or_wait_for(kind: LogKind) {
    let scratch = kind.scratch(4).await;
    let table = scratch.table(Codecs::default()).await;
    let writer = Writer::open(scratch.log.clone(), &scratch.topic.name, Codecs::default()).await.unwrap();
    for number in 0..50 {
        let (key, value) = (format!("key-{number}"), number.to_string());
        let ack = writer.set(&key, &value).await.unwrap();
        let freshness = if number % 2 == 0 {
            table.wait_for(&[ack], TIMEOUT).await
        } else {
            table.barrier(TIMEOUT).await
        };
        assert!(freshness.is_fresh(), "{freshness:?}");
        let entry = table.get(&key).unwrap();
        assert_eq!(
            (entry.json(), entry.partition(), entry.offset()),
            (&*value, ack.partition, ack.offset.unwrap())
        );
    }
    let unreached = Ack { partition: 0, offset: Some(1_000_000) };
    assert!(!table.wait_for(&[unreached], Duration::from_millis(20)).await.is_fresh());
}

async fn a_stopped_table_keeps_its_contents_and_a_barrier_on_it_is_stale(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let table = scratch.table(Codecs::default()).await;
    table.stop().await;
    scratch.put("a", Some(b"2")).await;
    assert!(matches!(table.status(), Status::Stopped));
    assert!(!table.barrier(TIMEOUT).await.is_fresh());
    assert_eq!(table.get("a").unwrap().json(), "1");
}

async fn an_empty_topic_is_caught_up_and_a_missing_one_is_an_error(kind: LogKind) {
    let scratch = kind.scratch(2).await;
    let table = scratch.table(Codecs::default()).await;
    assert!(table.is_empty());
    assert_eq!((table.stats().generation, table.stats().entries), (1, 0));
    let missing = Table::builder(scratch.log.clone(), "missing", Codecs::default()).start().await;
    assert!(matches!(missing, Err(TableError::Log(LogError::UnknownTopic { .. }))));
}

async fn values_are_one_line_of_valid_json(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"{\n  \"port\": 80,\r\n  \"text\": \"a\\nb\"\n}")).await;
    let table = scratch.table(Codecs::default()).await;
    let entry = table.get("a").unwrap();
    assert!(!entry.json().contains(['\n', '\r']));
    let value: serde_json::Value = entry.parse().unwrap();
    assert_eq!(value, serde_json::json!({"port": 80, "text": "a\nb"}));
}

async fn a_recreated_topic_is_a_new_generation(kind: LogKind) {
    let scratch = kind.scratch(2).await;
    scratch.write((0..20).map(|n| record(&format!("old-{n}"), Some(b"1"))).collect()).await;
    scratch.put("both", Some(b"1")).await;
    let table = scratch.table(Codecs::default()).await;
    let mut watcher = table.watch(WatchStart::Now);
    scratch.recreate_topic(2).await;
    // Writers of the old topic continue with the new one.
    let acks = scratch.write(vec![record("both", Some(b"2")), record("new", Some(b"3"))]).await;
    assert!(acks.iter().all(|ack| ack.offset.unwrap() < 2), "{acks:?}");
    eventually_async("the new generation is served", || (table.snapshot().generation() == 2).then_some(()))
        .await;
    scratch.sync(&table).await;
    let expected = [("both", "2"), ("new", "3")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(contents(&table), BTreeMap::from(expected));
    eventually_async("the table is caught up", || matches!(table.status(), Status::CaughtUp).then_some(()))
        .await;
    // The watcher receives the changes from the old contents to the new ones.
    let (mut seen, mut generations) = (BTreeMap::new(), 0);
    seen.extend((0..20).map(|n| (format!("old-{n}"), "1".to_owned())));
    seen.insert("both".to_owned(), "1".to_owned());
    while seen != contents(&table) {
        match tokio::time::timeout(TIMEOUT, watcher.next()).await.unwrap().unwrap() {
            WatchEvent::Change(change) => match &change.new {
                Some(new) => drop(seen.insert(change.key().to_owned(), new.json().to_owned())),
                None => drop(seen.remove(change.key())),
            },
            WatchEvent::Generation(2) => generations += 1,
            WatchEvent::Status(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(generations, 1);
    scratch.recreate_topic(2).await;
    eventually_async("an empty generation is served", || (table.snapshot().generation() == 3).then_some(()))
        .await;
    assert_eq!((table.stats().generation, table.stats().entries, table.stats().records), (3, 0, 0));
}

async fn a_barrier_waits_for_the_recreated_topic(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.write((0..100).map(|n| record(&format!("old-{n}"), Some(b"1"))).collect()).await;
    let table = scratch.table(Codecs::default()).await;
    scratch.recreate_topic(1).await;
    scratch.put("new", Some(b"2")).await;
    // The positions of the old topic are above the end of the new one, and must not count for it.
    scratch.sync(&table).await;
    assert_eq!(contents(&table), BTreeMap::from([("new".to_owned(), "2".to_owned())]));
}

#[tokio::test]
async fn a_recreated_empty_topic_is_followed_and_writes_of_old_writers_fail() {
    let scratch = Scratch::new(1).await;
    let table = scratch.table(Codecs::default()).await;
    let writer = Writer::open(scratch.log.clone(), TOPIC, Codecs::default()).await.unwrap();
    let topic = scratch.recreate_topic(3).await;
    for number in 0..9 {
        let record = record(&format!("k{number}"), Some(b"1"));
        scratch.log.send(&topic, record).await.unwrap().await.unwrap();
    }
    eventually_async("the new topic is followed", || (table.len() == 9).then_some(())).await;
    // It would write keys to other partitions than all other writers.
    let refused = writer.set("k1", "2").await.unwrap_err();
    assert!(refused.to_string().contains("3 partitions instead of 1"), "{refused}");
}

async fn a_table_that_loads_too_slowly_is_degraded_and_continues(kind: LogKind) {
    // Also if loading begins again after the timeout.
    for times_out_of_reach in [0, 1] {
        let scratch = kind.scratch(1).await;
        scratch.put("a", Some(b"1")).await;
        check_slow_catch_up(&scratch, times_out_of_reach).await;
    }
}

async fn check_slow_catch_up(scratch: &Scratch, times_out_of_reach: u32) {
    let log = Arc::new(WrappedLog::new(scratch.log.clone()).with_claimed_records(5));
    log.fail_requests(times_out_of_reach);
    let builder = Table::builder(log, &scratch.topic.name, Codecs::default())
        .catchup_timeout(Duration::from_millis(50));
    let table = builder.start().await.unwrap();
    eventually_async("the loaded entries can be read", || table.get("a")).await;
    let status = table.status();
    let expected = if times_out_of_reach == 0 { " of 6" } else { "a test fault" };
    assert!(matches!(&status, Status::Degraded(reason) if reason.contains(expected)), "{status}");
    assert_eq!((table.stats().partitions[0].position, table.stats().partitions[0].target), (1, 6));
    scratch.write((0..5).map(|n| record("b", Some(format!("{n}").as_bytes()))).collect()).await;
    eventually_async("the table catches up", || matches!(table.status(), Status::CaughtUp).then_some(()))
        .await;
    assert_eq!(table.get("b").unwrap().json(), "4");
    scratch.sync(&table).await;
}

async fn a_key_on_two_partitions_is_counted(kind: LogKind) {
    let scratch = kind.scratch(2).await;
    for partition in [0, 1] {
        scratch.write(vec![NewRecord { partition: Some(partition), ..record("a", Some(b"1")) }]).await;
    }
    assert_eq!(scratch.table(Codecs::default()).await.stats().cross_partition.count, 1);
}

on_each_log!(
    catches_up_and_follows_on_one_and_four_partitions,
    a_tombstone_is_a_null_value_only,
    a_keyless_record_is_counted_and_an_empty_key_is_a_key,
    a_rejected_update_keeps_the_old_value_with_a_notice,
    snapshots_list_ranges_and_prefixes,
    a_grouped_table_is_a_nested_view,
    a_watcher_sees_the_entries_then_every_change_once,
    watchers_that_start_during_writes_miss_nothing,
    a_write_is_visible_after_a_barrier_or_wait_for,
    a_stopped_table_keeps_its_contents_and_a_barrier_on_it_is_stale,
    an_empty_topic_is_caught_up_and_a_missing_one_is_an_error,
    values_are_one_line_of_valid_json,
    a_recreated_topic_is_a_new_generation,
    a_barrier_waits_for_the_recreated_topic,
    a_table_that_loads_too_slowly_is_degraded_and_continues,
    a_key_on_two_partitions_is_counted,
);
