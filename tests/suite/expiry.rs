//! Entries whose time is over, by a clock that the tests hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ktables::codec::{Codecs, LengthPrefixed};
use ktables::log::NewRecord;
use ktables::table::{Cause, Clock, Table, WatchEvent, WatchStart, Watcher};
use ktables_tests::{
    FaultTally, HeldClock, On, PATIENCE, Scratch, eventually_async, on_each_log, record, succeed,
};

const TTL: Duration = Duration::from_secs(30);

async fn table(scratch: &Scratch, clock: &HeldClock) -> Table {
    let codecs = Codecs { scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
    let builder = Table::builder(scratch.log.clone(), &scratch.topic.name, codecs);
    builder.ttl(TTL).clock(Arc::new(clock.clone())).catchup_timeout(PATIENCE).start().await.unwrap()
}

/// Writes a record that is so old by the clock.
async fn write(scratch: &Scratch, clock: &HeldClock, key: &str, value: Option<&[u8]>, age: u64) {
    let timestamp = Some(clock.now() - i64::try_from(age).unwrap() * 1000);
    scratch.write(vec![NewRecord { timestamp, ..record(key, value) }]).await;
}

fn keys(table: &Table) -> Vec<String> {
    table.snapshot().iter().map(|entry| entry.key().to_owned()).collect()
}

async fn becomes(table: &Table, expected: &[&str]) {
    eventually_async(&format!("the keys are {expected:?}"), || (keys(table) == expected).then_some(())).await;
}

async fn next(watcher: &mut Watcher) -> (String, Cause, bool) {
    match tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap().unwrap() {
        WatchEvent::Change(change) => (change.key().to_owned(), change.cause, change.new.is_some()),
        other => panic!("{other:?}"),
    }
}

async fn what_is_not_written_again_is_hidden_and_comes_back(on: On) {
    let (scratch, clock) = (on.scratch(2).await, HeldClock::default());
    write(&scratch, &clock, "1:ga", Some(b"1"), 10).await;
    write(&scratch, &clock, "1:gb", Some(b"2"), 29).await;
    write(&scratch, &clock, "1:gc", Some(b"3"), 31).await;
    let table = table(&scratch, &clock).await;
    assert_eq!(keys(&table), ["1:ga", "1:gb"]);
    assert_eq!(table.get_expired("1:gc").unwrap().json(), "3");
    let mut watcher = table.watch(WatchStart::Now);
    clock.advance(Duration::from_secs(2));
    becomes(&table, &["1:ga"]).await;
    assert_eq!(next(&mut watcher).await, ("1:gb".to_owned(), Cause::Expired, false));
    assert_eq!((table.get("1:gb"), table.len(), table.members("g").len()), (None, 1, 1));
    assert_eq!(
        table.snapshot().expired().map(|entry| entry.key().to_owned()).collect::<Vec<_>>(),
        ["1:gb", "1:gc"]
    );
    // A heartbeat, and a delete of what is over already.
    write(&scratch, &clock, "1:gb", Some(b"4"), 0).await;
    write(&scratch, &clock, "1:gc", None, 0).await;
    scratch.sync(&table).await;
    assert_eq!(next(&mut watcher).await, ("1:gb".to_owned(), Cause::Record, true));
    assert_eq!((table.get_expired("1:gb"), table.get_expired("1:gc")), (None, None));
    // The one that was replaced does not expire by its old record.
    clock.advance(Duration::from_secs(25));
    becomes(&table, &["1:gb"]).await;
    assert_eq!(next(&mut watcher).await, ("1:ga".to_owned(), Cause::Expired, false));
    let stats = table.stats();
    assert_eq!((stats.entries, stats.payload_bytes), (1, 5));
}

async fn a_clock_that_is_set_hides_and_shows(on: On) {
    let (scratch, clock) = (on.scratch(1).await, HeldClock::default());
    for key in ["1:ga", "1:gb"] {
        write(&scratch, &clock, key, Some(b"1"), 0).await;
    }
    let table = table(&scratch, &clock).await;
    let mut watcher = table.watch(WatchStart::Now);
    let mut seen = HashMap::new();
    for _ in 0..3 {
        clock.advance(Duration::from_secs(3600));
        becomes(&table, &[]).await;
        clock.set_back(Duration::from_secs(3600));
        becomes(&table, &["1:ga", "1:gb"]).await;
        for _ in 0..4 {
            *seen.entry(next(&mut watcher).await).or_insert(0) += 1;
        }
    }
    for key in ["1:ga", "1:gb"] {
        assert_eq!(seen[&(key.to_owned(), Cause::Expired, false)], 3);
        assert_eq!(seen[&(key.to_owned(), Cause::Revived, true)], 3);
    }
    FaultTally::of(6).tell();
}

async fn what_is_over_is_hidden_while_the_topic_is_missing_and_loaded_again(on: On) {
    let (scratch, clock) = (on.scratch(1).await, HeldClock::default());
    write(&scratch, &clock, "1:ga", Some(b"1"), 10).await;
    write(&scratch, &clock, "1:gb", Some(b"1"), 0).await;
    let table = table(&scratch, &clock).await;
    scratch.delete().await;
    let missing = || table.status().reason().filter(|reason| reason.contains("the topic is missing"));
    eventually_async("that it is missing is told", missing).await;
    assert_eq!(keys(&table), ["1:ga", "1:gb"]);
    clock.advance(Duration::from_secs(25));
    becomes(&table, &["1:gb"]).await;
    scratch.create(1).await;
    eventually_async("it is loaded", || keys(&table).is_empty().then_some(())).await;
    assert!(table.barrier(PATIENCE).await.is_fresh());
}

on_each_log! {
    what_is_over_is_hidden_while_the_topic_is_missing_and_loaded_again,
    what_is_not_written_again_is_hidden_and_comes_back,
    a_clock_that_is_set_hides_and_shows,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_hides_what_is_over_and_shows_it_on_request() {
    let scratch = Scratch::new(1).await;
    let clock = HeldClock::default();
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
