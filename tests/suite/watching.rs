//! Watchers that resume, have a filter, or are slow.

use std::collections::BTreeMap;
use std::sync::Arc;

use ktables::codec::{Codecs, LengthPrefixed};
use ktables::table::{
    Cause, Entry, MAX_HISTORY_EFFECTS, Table, WatchEvent, WatchFilter, WatchStart, WatchToken, Watcher,
};
use ktables_tests::{LogKind, Scratch, TIMEOUT, on_each_log, record};

async fn next(watcher: &mut Watcher) -> WatchEvent {
    tokio::time::timeout(TIMEOUT, watcher.next()).await.expect("an event in time").expect("a running table")
}

/// Returns key and new value of the next change.
async fn change(watcher: &mut Watcher) -> (String, Option<String>) {
    match next(watcher).await {
        WatchEvent::Change(change) => {
            (change.key().to_owned(), change.new.map(|entry| entry.json().to_owned()))
        }
        other => panic!("{other:?}"),
    }
}

fn pair(key: &str, value: &str) -> (String, Option<String>) {
    (key.to_owned(), Some(value.to_owned()))
}

async fn a_resumed_watcher_sees_each_missed_change_once(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let table = scratch.table(Codecs::default()).await;
    let mut watcher = table.watch(WatchStart::Now);
    // The table may publish the changes at once or in several parts. The watcher resumes after each change.
    let written: Vec<(String, String)> = (0..60).map(|n| (format!("k{}", n % 7), n.to_string())).collect();
    scratch.write(written.iter().map(|(key, value)| record(key, Some(value.as_bytes()))).collect()).await;
    scratch.sync(&table).await;
    for (number, (key, value)) in written.iter().enumerate() {
        assert_eq!(change(&mut watcher).await, pair(key, value), "{number}");
        let token: WatchToken = watcher.token().unwrap().to_string().parse().unwrap();
        watcher = table.watch(WatchStart::Since(token));
    }
    scratch.put("live", Some(b"1")).await;
    assert_eq!(change(&mut watcher).await, pair("live", "1"));
}

async fn a_filtered_watcher_sees_only_matching_events(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let codecs = Codecs { group_scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
    scratch.put("1:ax", Some(b"1")).await;
    scratch.put("1:by", Some(b"2")).await;
    let table = scratch.table(codecs).await;
    let watch_only = |filter| table.watch(WatchStart::Entries).with_filter(filter);
    // Each watcher, with the keys of the entries and of the changes that it should receive.
    let mut watchers = [
        (watch_only(WatchFilter::Key("1:ax".to_owned())), vec!["1:ax"], vec!["1:ax"]),
        (watch_only(WatchFilter::Prefix("1:b".to_owned())), vec!["1:by"], vec!["1:by", "1:bz"]),
        (watch_only(WatchFilter::Group("a".to_owned())), vec!["1:ax"], vec!["1:ax", "1:aw"]),
    ];
    for key in ["1:by", "1:ax", "1:bz", "1:aw", "1:end"] {
        scratch.put(key, Some(b"3")).await;
    }
    scratch.put("1:ax", Some(b"{")).await;
    scratch.sync(&table).await;
    for (watcher, entries, changes) in &mut watchers {
        let mut seen = (Vec::new(), Vec::new());
        while seen.0.len() < entries.len() || seen.1.len() < changes.len() {
            match next(watcher).await {
                WatchEvent::Entry(entry) => seen.0.push(entry.key().to_owned()),
                WatchEvent::Change(change) => seen.1.push(change.key().to_owned()),
                WatchEvent::Synced => assert_eq!(seen.0.len(), entries.len()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((&seen.0, &seen.1), (&to_owned(entries), &to_owned(changes)));
    }
    // Two of the watchers receive the rejected record.
    table.stop().await;
    for ((mut watcher, ..), rejected) in watchers.into_iter().zip([1, 0, 1]) {
        let mut seen = 0;
        while let Some(event) = watcher.next().await {
            match event {
                WatchEvent::Rejected { key, notice } => {
                    assert_eq!((key.as_deref(), notice.offset), (Some("1:ax"), 7));
                    seen += 1;
                }
                WatchEvent::Status(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, rejected);
    }
}

fn to_owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|&key| key.to_owned()).collect()
}

async fn resuming_during_writes_neither_loses_nor_repeats_a_change(kind: LogKind) {
    let scratch = Arc::new(kind.scratch(4).await);
    let table: Table = scratch.table(Codecs::default()).await;
    let mut watcher = table.watch(WatchStart::Entries);
    let writing = {
        let scratch = scratch.clone();
        tokio::spawn(async move {
            for round in 0..20 {
                let value = |n: usize| (round * 100 + n).to_string();
                let records: Vec<_> =
                    (0..100).map(|n| record(&format!("k{n}"), Some(value(n).as_bytes()))).collect();
                scratch.write(records).await;
            }
        })
    };
    let mut seen = BTreeMap::new();
    let mut changes = 0;
    while changes < 2000 {
        match next(&mut watcher).await {
            WatchEvent::Change(change) => {
                let old = seen.insert(change.key().to_owned(), change.new.clone());
                assert_eq!(old.flatten(), change.old);
                changes += 1;
                if changes % 37 == 0 {
                    watcher = table.watch(WatchStart::Since(watcher.token().unwrap()));
                }
            }
            WatchEvent::Synced => {}
            other => panic!("{other:?}"),
        }
    }
    writing.await.unwrap();
    assert_eq!(seen.len(), 100);
}

// Long because it is one story, in the order in which it happens.
async fn a_slow_watcher_receives_the_difference_or_a_lag_event(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.write(["same", "other", "gone"].map(|key| record(key, Some(b"1"))).into()).await;
    let table = scratch.table(Codecs::default()).await;
    let (mut slow, mut every_change) =
        (table.watch(WatchStart::Now), table.watch(WatchStart::Now).every_change());
    let mut filtered = table.watch(WatchStart::Now).with_filter(WatchFilter::Key("other".to_owned()));
    // The history keeps these changes, although the slow watchers have not read them.
    for number in 0..1500 {
        let ack = scratch.put("k", Some(number.to_string().as_bytes())).await;
        assert!(table.wait_for(&[ack], TIMEOUT).await.is_fresh());
    }
    for number in 0..700 {
        assert_eq!(change(&mut slow).await, pair("k", &number.to_string()));
        assert_eq!(change(&mut every_change).await, pair("k", &number.to_string()));
    }
    let many = (0..=MAX_HISTORY_EFFECTS).map(|n| record(&format!("new{}", n % 5), Some(b"2")));
    scratch.write(many.collect()).await;
    scratch.write(vec![record("gone", None), record("other", Some(b"2")), record("k", Some(b"2"))]).await;
    scratch.sync(&table).await;
    assert_eq!(change(&mut filtered).await, pair("other", "2"));
    scratch.put("end", Some(b"1")).await;
    scratch.sync(&table).await;

    // The slow watcher receives the difference from what it has seen, each key once.
    let mut seen = BTreeMap::new();
    while seen.len() < 9 {
        let WatchEvent::Change(change) = next(&mut slow).await else { panic!("not a change") };
        let json = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.json().to_owned());
        assert!(change.cause == Cause::Difference || change.key() == "end", "{change:?}");
        assert_eq!(seen.insert(change.key().to_owned(), (json(&change.old), json(&change.new))), None);
    }
    let some = |text: &str| Some(text.to_owned());
    let mut expected: BTreeMap<_, _> = (0..5).map(|n| (format!("new{n}"), (None, some("2")))).collect();
    expected.extend([
        ("end".to_owned(), (None, some("1"))),
        ("gone".to_owned(), (some("1"), None)),
        ("other".to_owned(), (some("1"), some("2"))),
        ("k".to_owned(), (some("699"), some("2"))),
    ]);
    assert_eq!(seen, expected);
    scratch.put("live", Some(b"1")).await;
    assert_eq!(change(&mut slow).await, pair("live", "1"));

    // The watcher of every change receives a lag event.
    let mut next_value = 700;
    loop {
        match next(&mut every_change).await {
            WatchEvent::Lagged(lost) => break assert!(lost > 0),
            WatchEvent::Change(change) => {
                assert_eq!(
                    change.new.unwrap().json(),
                    next_value.to_string(),
                    "a change was skipped silently"
                );
                next_value += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    while change(&mut every_change).await != pair("end", "1") {}
}

on_each_log! {
    a_slow_watcher_receives_the_difference_or_a_lag_event,
    a_resumed_watcher_sees_each_missed_change_once,
    a_filtered_watcher_sees_only_matching_events,
    resuming_during_writes_neither_loses_nor_repeats_a_change,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_watches_with_a_filter() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    scratch.put("b", Some(b"2")).await;
    let watch = ktables_tests::RunningCommand::start(&mut scratch.ktables(&["watch", "--prefix", "b"]));
    let lines = watch.until(|line| line["event"] == "synced");
    assert_eq!(lines.iter().map(|line| line["key"].as_str()).collect::<Vec<_>>(), [Some("b"), None]);
    scratch.put("a", Some(b"3")).await;
    scratch.put("b", Some(b"{")).await;
    let rejected = watch.next();
    assert_eq!((&rejected["event"], &rejected["key"]), (&"rejected".into(), &"b".into()));
    assert_eq!((&rejected["offset"], &rejected["kind"]), (&3.into(), &"malformed".into()));
}
