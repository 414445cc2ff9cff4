//! Watchers that resume with a token: in another process, after a restart, and where they cannot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use ktables::codec::{Codecs, Json, Utf8};
use ktables::log::NewRecord;
use ktables::table::{
    Cause, Change, MAX_HISTORY_EFFECTS, Table, WatchEvent, WatchFilter, WatchStart, WatchToken, Watcher,
};
use ktables_tests::{
    FaultyCodec, LogKind, ManualClock, RunningCommand, Scratch, TIMEOUT, contents, kafka, on_each_log, record,
};
use serde_json::Value;

/// A table as another process has it: through a log of its own.
async fn elsewhere(scratch: &Scratch, codecs: Codecs) -> Table {
    let log = ktables::log::open(&scratch.url()).unwrap();
    let table = Table::builder(log, &scratch.topic.name, codecs).start().await.unwrap();
    scratch.sync(&table).await;
    table
}

async fn next(watcher: &mut Watcher) -> WatchEvent {
    tokio::time::timeout(TIMEOUT, watcher.next()).await.expect("in time").expect("not over")
}

async fn change(watcher: &mut Watcher) -> Change {
    match next(watcher).await {
        WatchEvent::Change(change) => change,
        other => panic!("{other:?}"),
    }
}

/// The token in its text form, as it would come from another process.
fn token(watcher: &Watcher) -> WatchToken {
    watcher.token().unwrap().to_string().parse().unwrap()
}

/// Applies a change to what a client knows.
fn apply(known: &mut BTreeMap<String, String>, change: &Change) {
    match &change.new {
        Some(entry) => drop(known.insert(change.key().to_owned(), entry.json().to_owned())),
        None => drop(known.remove(change.key())),
    }
}

/// Records that overwrite, delete, and are rejected, as a small generator makes them.
fn random_records(seed: &mut u64, count: usize) -> Vec<NewRecord> {
    let mut number = move || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    };
    let mut next = || {
        let (key, value) = (format!("k{}", number() % 40), number().to_string());
        match number() % 6 {
            0 => record(&key, None),
            1 => record(&key, Some(b"{")),
            _ => record(&key, Some(value.as_bytes())),
        }
    };
    (0..count).map(|_| next()).collect()
}

async fn a_client_that_goes_from_process_to_process_misses_nothing(kind: LogKind) {
    let scratch = kind.scratch(3).await;
    let mut seed = 7;
    scratch.write(random_records(&mut seed, 200)).await;
    let mut table = elsewhere(&scratch, Codecs::default()).await;
    let mut watcher = table.watch(WatchStart::Entries);
    let mut known = BTreeMap::new();
    loop {
        match next(&mut watcher).await {
            WatchEvent::Entry(entry) => drop(known.insert(entry.key().to_owned(), entry.json().to_owned())),
            WatchEvent::Synced => break,
            other => panic!("{other:?}"),
        }
    }
    for round in 0..8 {
        // Some of the changes are seen, at most; then the client goes elsewhere, or the process is new.
        scratch.write(random_records(&mut seed, 100)).await;
        scratch.sync(&table).await;
        for _ in 0..round * 7 {
            if let WatchEvent::Change(change) = next(&mut watcher).await {
                apply(&mut known, &change);
            }
        }
        let token = token(&watcher);
        drop((watcher, table));
        scratch.write(random_records(&mut seed, 100)).await;
        table = elsewhere(&scratch, Codecs::default()).await;
        watcher = table.watch(WatchStart::Since(token));
        scratch.put("end", Some(round.to_string().as_bytes())).await;
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        // What is read from the log is ordered within a partition only.
        while known.get("end") != Some(&round.to_string()) || watcher.token().is_none() {
            match next(&mut watcher).await {
                WatchEvent::Change(change) => {
                    apply(&mut known, &change);
                    *times.entry(change.key().to_owned()).or_default() += 1;
                }
                WatchEvent::Rejected { .. } | WatchEvent::Status(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(known, contents(&table), "round {round}");
        assert!(times.values().all(|&times| times == 1), "each key once: {times:?}");
    }
}

async fn a_client_that_wants_every_change_sees_each_record_once(kind: LogKind) {
    let scratch = kind.scratch(3).await;
    let mut seed = 11;
    let table = elsewhere(&scratch, Codecs::default()).await;
    let mut place = token(&table.watch(WatchStart::Now).every_change());
    drop(table);
    let mut seen: BTreeMap<(i32, i64), usize> = BTreeMap::new();
    let mut written = 0;
    for round in 0..5 {
        let records: Vec<_> = random_records(&mut seed, 150);
        written += records.len();
        scratch.write(records).await;
        let table = elsewhere(&scratch, Codecs::default()).await;
        let mut watcher = table.watch(WatchStart::Since(place)).every_change();
        // Live changes follow what was read from the log.
        let live = random_records(&mut seed, 20 * round);
        written += live.len();
        scratch.write(live).await;
        let ack = scratch.put("end", Some(round.to_string().as_bytes())).await;
        written += 1;
        while !seen.contains_key(&(ack.partition, ack.offset.unwrap())) || watcher.token().is_none() {
            match next(&mut watcher).await {
                WatchEvent::Change(change) => {
                    *seen.entry((change.partition, change.offset)).or_default() += 1;
                }
                WatchEvent::Rejected { notice, .. } => {
                    *seen.entry((notice.partition, notice.offset)).or_default() += 1;
                }
                WatchEvent::Status(_) => {}
                other => panic!("{other:?}"),
            }
        }
        scratch.sync(&table).await;
        // A tombstone of a key that is not there is no change, once the table follows.
        loop {
            match tokio::time::timeout(Duration::from_millis(200), watcher.next()).await {
                Ok(Some(WatchEvent::Change(change))) => {
                    *seen.entry((change.partition, change.offset)).or_default() += 1;
                }
                Ok(Some(WatchEvent::Rejected { notice, .. })) => {
                    *seen.entry((notice.partition, notice.offset)).or_default() += 1;
                }
                Ok(_) => {}
                Err(_) if watcher.token().is_some() => break,
                Err(_) => {}
            }
        }
        place = token(&watcher);
    }
    assert!(seen.values().all(|&times| times == 1), "{seen:?}");
    assert!(seen.len() > written * 4 / 5 && seen.len() <= written, "{} of {written}", seen.len());
}

async fn a_client_whose_changes_left_the_history_gets_them_from_the_log(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let table = scratch.table(Codecs::default()).await;
    let mut watcher = table.watch(WatchStart::Now);
    scratch.put("first", Some(b"1")).await;
    assert_eq!(change(&mut watcher).await.key(), "first");
    let place = token(&watcher);
    let records = (0..=MAX_HISTORY_EFFECTS).map(|n| record(&format!("k{}", n % 5), Some(b"2")));
    scratch.write(records.collect()).await;
    scratch.sync(&table).await;
    let mut watcher = table.watch(WatchStart::Since(place.clone()));
    assert_eq!(watcher.token(), None, "what is to come is behind no place");
    let mut keys: Vec<String> = Vec::new();
    for _ in 0..5 {
        let change = change(&mut watcher).await;
        assert_eq!((change.cause, &change.old), (Cause::Difference, &None));
        keys.push(change.key().to_owned());
    }
    keys.sort();
    assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4"]);
    let mut part = table.watch(WatchStart::Since(place)).with_filter(WatchFilter::Key("k3".to_owned()));
    assert_eq!(change(&mut part).await.key(), "k3");
    scratch.put("live", Some(b"1")).await;
    assert_eq!(change(&mut watcher).await.key(), "live");
    scratch.put("k3", None).await;
    let last = change(&mut part).await;
    assert_eq!((last.key(), &last.new), ("k3", &None));
}

/// Expects a watcher to start again, and to see these entries.
async fn starts_again(mut watcher: Watcher, entries: &[&str], why: &str) {
    assert!(matches!(next(&mut watcher).await, WatchEvent::Restarted), "{why}");
    assert_eq!(watcher.token(), None, "{why}");
    let mut seen = Vec::new();
    loop {
        match next(&mut watcher).await {
            WatchEvent::Entry(entry) => seen.push(entry.key().to_owned()),
            WatchEvent::Synced => break,
            other => panic!("{why}: {other:?}"),
        }
    }
    assert_eq!(seen, entries, "{why}");
    assert!(watcher.token().is_some(), "{why}");
}

async fn a_token_of_other_codecs_or_of_another_topic_starts_again(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let table = elsewhere(&scratch, Codecs::default()).await;
    let place = token(&table.watch(WatchStart::Now));
    let same = elsewhere(&scratch, Codecs::new(Utf8, Json)).await;
    scratch.put("b", Some(b"1")).await;
    assert_eq!(change(&mut same.watch(WatchStart::Since(place.clone()))).await.key(), "b");
    let text = elsewhere(&scratch, Codecs::new(Utf8, Utf8)).await;
    starts_again(text.watch(WatchStart::Since(place.clone())), &["a", "b"], "other codecs").await;
    scratch.recreate_topic(1).await;
    scratch.put("c", Some(b"1")).await;
    let anew = elsewhere(&scratch, Codecs::default()).await;
    starts_again(anew.watch(WatchStart::Since(place)), &["c"], "another topic").await;
}

on_each_log!(
    a_client_that_goes_from_process_to_process_misses_nothing,
    a_client_that_wants_every_change_sees_each_record_once,
    a_client_whose_changes_left_the_history_gets_them_from_the_log,
    a_token_of_other_codecs_or_of_another_topic_starts_again,
);

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_before_what_the_log_has_lost_starts_again() {
    let scratch = LogKind::Kafka.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let table = elsewhere(&scratch, Codecs::default()).await;
    let place = token(&table.watch(WatchStart::Now));
    for n in 0..5 {
        scratch.put("b", Some(n.to_string().as_bytes())).await;
    }
    kafka::delete_records(&kafka::shared(), &scratch.topic.name, &[(0, 4)]).await;
    let table = elsewhere(&scratch, Codecs::default()).await;
    starts_again(table.watch(WatchStart::Since(place)), &["b"], "records were deleted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_before_retention_starts_again_although_the_log_has_all_records_after_it() {
    let scratch = LogKind::Kafka.scratch(1).await;
    scratch.put("lost", Some(b"1")).await;
    scratch.put("kept", Some(b"1")).await;
    let table = elsewhere(&scratch, Codecs::default()).await;
    let place = token(&table.watch(WatchStart::Now));
    drop(table);
    kafka::delete_records(&kafka::shared(), &scratch.topic.name, &[(0, 1)]).await;
    let table = elsewhere(&scratch, Codecs::default()).await;
    starts_again(table.watch(WatchStart::Since(place)), &["kept"], "an entry was deleted").await;
}

/// A token with other positions of partition 0.
fn moved(token: &WatchToken, position: i64) -> WatchToken {
    let bytes = URL_SAFE_NO_PAD.decode(token.to_string()).unwrap();
    let mut content: Value = serde_json::from_slice(&bytes).unwrap();
    content["positions"][0][1] = position.into();
    content["cursor"]["batch"] = u64::MAX.into();
    URL_SAFE_NO_PAD.encode(content.to_string()).parse().unwrap()
}

async fn a_token_from_after_the_end_of_the_log_starts_again(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let table = elsewhere(&scratch, Codecs::default()).await;
    let place = token(&table.watch(WatchStart::Now));
    for position in [2, i64::MAX] {
        let watcher = table.watch(WatchStart::Since(moved(&place, position)));
        starts_again(watcher, &["a"], &format!("position {position}")).await;
    }
}

async fn a_table_that_is_behind_a_token_resumes_there_once_it_has_reached_it(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let held = Arc::new(FaultyCodec::default());
    let slow = elsewhere(&scratch, Codecs { value: held.clone(), ..Codecs::default() }).await;
    held.fail();
    let same = Codecs { value: Arc::new(FaultyCodec::default()), ..Codecs::default() };
    let ahead = elsewhere(&scratch, same).await;
    scratch.put("b", Some(b"1")).await;
    scratch.sync(&ahead).await;
    let place = token(&ahead.watch(WatchStart::Now));
    let mut watcher = slow.watch(WatchStart::Since(place));
    let early = tokio::time::timeout(Duration::from_millis(300), watcher.next()).await;
    assert!(early.is_err() && watcher.token().is_none(), "{early:?}");
    held.recover();
    scratch.put("c", Some(b"1")).await;
    loop {
        match next(&mut watcher).await {
            WatchEvent::Status(_) => {}
            WatchEvent::Change(change) => break assert_eq!(change.key(), "c", "b was seen"),
            other => panic!("{other:?}"),
        }
    }
}

async fn a_rejected_record_is_no_change_of_its_key(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("known", Some(b"1")).await;
    scratch.put("gone", Some(b"1")).await;
    let table = elsewhere(&scratch, Codecs::default()).await;
    let place = token(&table.watch(WatchStart::Now));
    drop(table);
    scratch.put("known", Some(b"{")).await;
    scratch.put("unknown", Some(b"{")).await;
    let tombstone = scratch.put("gone", None).await;
    scratch.put("gone", Some(b"{")).await;
    let table = elsewhere(&scratch, Codecs::default()).await;
    let mut watcher = table.watch(WatchStart::Since(place));
    scratch.put("end", Some(b"1")).await;
    let mut events = Vec::new();
    while !matches!(events.last(), Some(WatchEvent::Change(change)) if change.key() == "end") {
        events.push(next(&mut watcher).await);
    }
    let rejected = |event: &WatchEvent| match event {
        WatchEvent::Rejected { key, .. } => Some(key.as_deref().unwrap_or_default().to_owned()),
        _ => None,
    };
    assert_eq!(events.iter().filter_map(rejected).collect::<Vec<_>>(), ["known", "unknown", "gone"]);
    let changes: Vec<(&str, Option<i64>)> = events
        .iter()
        .filter_map(|event| match event {
            WatchEvent::Change(change) => Some((change.key(), Some(change.offset))),
            _ => None,
        })
        .collect();
    // The tombstone deleted the entry, not the rejected record after it.
    assert_eq!(changes[0], ("gone", tombstone.offset));
    assert_eq!(changes.len(), 2);
}

on_each_log!(
    a_token_from_after_the_end_of_the_log_starts_again,
    a_table_that_is_behind_a_token_resumes_there_once_it_has_reached_it,
    a_rejected_record_is_no_change_of_its_key,
);

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_meanwhile_is_seen_by_whoever_resumes() {
    let (scratch, clock) = (Scratch::new(1).await, ManualClock::default());
    let table = || async {
        let builder = Table::builder(scratch.log.clone(), &scratch.topic.name, Codecs::default());
        builder.ttl(Duration::from_secs(60)).clock(Arc::new(clock.clone())).start().await.unwrap()
    };
    scratch.put("a", Some(b"1")).await;
    let before = table().await;
    let place = token(&before.watch(WatchStart::Now));
    drop(before);
    clock.advance(Duration::from_secs(3600));
    let after = table().await;
    let mut watcher = after.watch(WatchStart::Since(place));
    let change = change(&mut watcher).await;
    assert_eq!((change.key(), change.cause, &change.new), ("a", Cause::Expired, &None));
    let seen = token(&watcher);
    let mut watcher = table().await.watch(WatchStart::Since(seen));
    scratch.put("b", Some(b"1")).await;
    // What was written by the machine's clock has expired by this one.
    let next = tokio::time::timeout(Duration::from_millis(300), watcher.next()).await;
    assert!(!matches!(&next, Ok(Some(WatchEvent::Change(change))) if change.key() == "a"), "{next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_continues_where_it_ended() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    let file = scratch.path().join("place.token");
    let watch =
        || RunningCommand::start(&mut scratch.ktables(&["watch", "--resume", file.to_str().unwrap()]));
    let is_change = |line: &Value| line.get("event").is_none();
    let first = watch();
    first.until(|line| line["event"] == "synced");
    scratch.put("b", Some(b"2")).await;
    let lines = first.until(is_change);
    assert_eq!(lines.last().unwrap()["key"], "b");
    first.signal("INT");
    assert!(first.rest_with_prefix("").is_empty(), "it ends");
    scratch.put("c", Some(b"3")).await;
    let mut second = watch();
    let lines = second.until(is_change);
    let keys: Vec<&Value> = lines.iter().filter(|line| is_change(line)).map(|line| &line["key"]).collect();
    assert_eq!(keys, ["c"]);
    second.kill();
    // A command that is killed before anything happens has stored its place, too.
    let quiet = scratch.path().join("quiet.token");
    let quiet = ["watch", "--from-now", "--resume", quiet.to_str().unwrap()];
    let mut killed = RunningCommand::start(&mut scratch.ktables(&quiet));
    ktables_tests::eventually("the token is stored", || std::fs::metadata(quiet[3]).ok());
    killed.kill();
    scratch.put("d", Some(b"4")).await;
    let mut third = RunningCommand::start(&mut scratch.ktables(&quiet));
    assert_eq!(third.until(is_change).last().unwrap()["key"], "d");
    third.kill();
    let nowhere = scratch.path().join("nowhere/token");
    let refused = ktables_tests::run(&mut scratch.ktables(&["watch", "--resume", nowhere.to_str().unwrap()]));
    assert!(
        refused.code == 3 && refused.stderr.contains("cannot write the watch token"),
        "{}",
        refused.stderr
    );
    std::fs::write(&file, "no token").unwrap();
    let refused = ktables_tests::run(&mut scratch.ktables(&["watch", "--resume", file.to_str().unwrap()]));
    assert!(refused.code == 2 && refused.stderr.contains("not a watch token"), "{}", refused.stderr);
}
