//! Entries with a time to live, by a clock that the tests control.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ktables::codec::{Codecs, LengthPrefixed};
use ktables::log::NewRecord;
use ktables::table::{Cause, Clock, Table, WatchEvent, WatchStart, Watcher};
use ktables_tests::{
    FaultTally, LogKind, ManualClock, Scratch, TIMEOUT, eventually_async, on_each_log, record, succeed,
};

const TTL: Duration = Duration::from_secs(30);

async fn table(scratch: &Scratch, clock: &ManualClock) -> Table {
    let codecs = Codecs { group_scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
    let builder = Table::builder(scratch.log.clone(), &scratch.topic.name, codecs);
    builder.ttl(TTL).clock(Arc::new(clock.clone())).catchup_timeout(TIMEOUT).start().await.unwrap()
}

/// Writes a record whose timestamp is `age` seconds before the time of the clock.
async fn write(scratch: &Scratch, clock: &ManualClock, key: &str, value: Option<&[u8]>, age: u64) {
    let timestamp = Some(clock.now() - i64::try_from(age).unwrap() * 1000);
    scratch.write(vec![NewRecord { timestamp, ..record(key, value) }]).await;
}

fn keys(table: &Table) -> Vec<String> {
    table.snapshot().iter().map(|entry| entry.key().to_owned()).collect()
}

/// Waits until the table has these keys.
async fn wait_for_keys(table: &Table, expected: &[&str]) {
    eventually_async(&format!("the keys are {expected:?}"), || (keys(table) == expected).then_some(())).await;
}

/// Returns key and cause of the next change, and whether the entry exists after it.
async fn next(watcher: &mut Watcher) -> (String, Cause, bool) {
    match tokio::time::timeout(TIMEOUT, watcher.next()).await.unwrap().unwrap() {
        WatchEvent::Change(change) => (change.key().to_owned(), change.cause, change.new.is_some()),
        other => panic!("{other:?}"),
    }
}

async fn expired_entries_are_hidden_until_written_again(kind: LogKind) {
    let (scratch, clock) = (kind.scratch(2).await, ManualClock::default());
    write(&scratch, &clock, "1:ga", Some(b"1"), 10).await;
    write(&scratch, &clock, "1:gb", Some(b"2"), 29).await;
    write(&scratch, &clock, "1:gc", Some(b"3"), 31).await;
    let table = table(&scratch, &clock).await;
    assert_eq!(keys(&table), ["1:ga", "1:gb"]);
    assert_eq!(table.get_expired("1:gc").unwrap().json(), "3");
    let mut watcher = table.watch(WatchStart::Now);
    clock.advance(Duration::from_secs(2));
    wait_for_keys(&table, &["1:ga"]).await;
    assert_eq!(next(&mut watcher).await, ("1:gb".to_owned(), Cause::Expired, false));
    assert_eq!((table.get("1:gb"), table.len(), table.members("g").len()), (None, 1, 1));
    assert_eq!(
        table.snapshot().expired().map(|entry| entry.key().to_owned()).collect::<Vec<_>>(),
        ["1:gb", "1:gc"]
    );
    // A heartbeat, and a tombstone of an entry that has expired.
    write(&scratch, &clock, "1:gb", Some(b"4"), 0).await;
    write(&scratch, &clock, "1:gc", None, 0).await;
    scratch.sync(&table).await;
    assert_eq!(next(&mut watcher).await, ("1:gb".to_owned(), Cause::Record, true));
    assert_eq!((table.get_expired("1:gb"), table.get_expired("1:gc")), (None, None));
    // An entry that was replaced does not expire by the timestamp of its old record.
    clock.advance(Duration::from_secs(25));
    wait_for_keys(&table, &["1:gb"]).await;
    assert_eq!(next(&mut watcher).await, ("1:ga".to_owned(), Cause::Expired, false));
    let stats = table.stats();
    assert_eq!((stats.entries, stats.payload_bytes), (1, 5));
}

async fn setting_the_clock_hides_and_revives_entries(kind: LogKind) {
    let (scratch, clock) = (kind.scratch(1).await, ManualClock::default());
    for key in ["1:ga", "1:gb"] {
        write(&scratch, &clock, key, Some(b"1"), 0).await;
    }
    let table = table(&scratch, &clock).await;
    let mut watcher = table.watch(WatchStart::Now);
    let mut seen = HashMap::new();
    for _ in 0..3 {
        clock.advance(Duration::from_secs(3600));
        wait_for_keys(&table, &[]).await;
        clock.rewind(Duration::from_secs(3600));
        wait_for_keys(&table, &["1:ga", "1:gb"]).await;
        for _ in 0..4 {
            *seen.entry(next(&mut watcher).await).or_insert(0) += 1;
        }
    }
    for key in ["1:ga", "1:gb"] {
        assert_eq!(seen[&(key.to_owned(), Cause::Expired, false)], 3);
        assert_eq!(seen[&(key.to_owned(), Cause::Revived, true)], 3);
    }
    FaultTally::without_errors(6).report();
}

async fn entries_expire_while_the_topic_is_missing_and_reloaded(kind: LogKind) {
    let (scratch, clock) = (kind.scratch(1).await, ManualClock::default());
    write(&scratch, &clock, "1:ga", Some(b"1"), 10).await;
    write(&scratch, &clock, "1:gb", Some(b"1"), 0).await;
    let table = table(&scratch, &clock).await;
    scratch.delete_topic().await;
    let missing = || table.status().reason().filter(|reason| reason.contains("the topic is missing"));
    eventually_async("the status reports that the topic is missing", missing).await;
    assert_eq!(keys(&table), ["1:ga", "1:gb"]);
    clock.advance(Duration::from_secs(25));
    wait_for_keys(&table, &["1:gb"]).await;
    scratch.create_topic(1).await;
    eventually_async("the recreated topic is loaded", || keys(&table).is_empty().then_some(())).await;
    assert!(table.barrier(TIMEOUT).await.is_fresh());
}

on_each_log! {
    entries_expire_while_the_topic_is_missing_and_reloaded,
    expired_entries_are_hidden_until_written_again,
    setting_the_clock_hides_and_revives_entries,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_hides_expired_entries_and_shows_them_on_request() {
    let scratch = Scratch::new(1).await;
    let clock = ManualClock::default();
    write(&scratch, &clock, "old", Some(b"1"), 3600).await;
    write(&scratch, &clock, "new", Some(b"2"), 0).await;
    let dump = |args: &[&str]| {
        let lines = succeed(&mut scratch.ktables(&[&["dump", "--ttl", "10m"], args].concat())).json();
        lines.iter().map(|line| (line["key"].clone(), line["expired"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(dump(&[]), [("new".into(), serde_json::Value::Null)]);
    assert_eq!(dump(&["--expired"])[1], ("old".into(), true.into()));
    let get = |args: &[&str]| {
        ktables_tests::run(&mut scratch.ktables(&[&["get", "old", "--ttl", "10m"], args].concat()))
    };
    assert_eq!(get(&[]).code, 1);
    assert_eq!((get(&["--expired"]).code, &*get(&["--expired"]).stdout), (0, "1\n"));
}
