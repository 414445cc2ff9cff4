//! Dead letters: rejected records are written to a topic of their own, once each, and can be tried again.

mod retry;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ktables::codec::{Bytes, Codecs, Utf8};
use ktables::log::{
    Header, Headers, Log, LogError, NewRecord, NewTopic, Offset, OffsetRange, Partition, StreamItem,
    TopicDescription, TopicEvent,
};
use ktables::table::{Clock, DeadLetterOnError, DeadLetterStats, Status, SystemClock, Table, TableError};
use ktables_tests::{
    Appends, LogKind, Scratch, TIMEOUT, WrappedLog, contents, eventually_async, ktables, on_each_log, record,
    run, succeed,
};

/// The settings of a topic that keeps all records.
const RETAIN_ALL: [(&str, &str); 3] =
    [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];

/// Creates a dead-letter topic for the topic of a test.
async fn create_dead_letters(scratch: &Scratch, partitions: i32) -> TopicDescription {
    let name = format!("{}-rejected", scratch.topic.name);
    let settings = RETAIN_ALL.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let new = NewTopic { partitions: Some(partitions), settings, ..NewTopic::default() };
    scratch.log.create(&name, new).await.unwrap()
}

async fn open(log: Arc<dyn Log>, topic: &str, codecs: Codecs, on_error: DeadLetterOnError) -> Table {
    let builder = Table::builder(log, topic, codecs).dead_letter(format!("{topic}-rejected"), on_error);
    builder.catchup_timeout(TIMEOUT).open().await.unwrap()
}

/// Starts a table with a dead-letter topic.
async fn start(scratch: &Scratch, codecs: Codecs) -> Table {
    let table = open(scratch.log.clone(), &scratch.topic.name, codecs, DeadLetterOnError::Wait).await;
    table.wait_until_ready().await.unwrap();
    table
}

/// A record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredRecord {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: Option<i64>,
    headers: Vec<Header>,
}

impl StoredRecord {
    /// Returns the value of one of the last headers.
    fn header(&self, name: &str) -> Option<String> {
        let header = self.headers.iter().rev().find(|header| header.name == name)?;
        Some(String::from_utf8(header.value.clone()?).unwrap())
    }

    /// Returns the partition and the offset of the rejected record.
    fn source(&self) -> (Partition, Offset) {
        let number = |name| self.header(name).unwrap().parse::<i64>().unwrap();
        (Partition::try_from(number("ktables.partition")).unwrap(), number("ktables.offset"))
    }
}

/// Reads all records of a topic.
async fn read_all(log: &dyn Log, topic: &str) -> Vec<StoredRecord> {
    let topic = log.describe(topic).await.unwrap();
    let ranges = log.offsets(&topic).await.unwrap();
    let mut letters = Vec::new();
    for range in ranges.into_iter().filter(|range| range.start < range.end) {
        let read = read_partition(log, &topic, range);
        letters.extend(tokio::time::timeout(TIMEOUT, read).await.unwrap());
    }
    letters
}

async fn read_partition(log: &dyn Log, topic: &TopicDescription, range: OffsetRange) -> Vec<StoredRecord> {
    let mut letters = Vec::new();
    let mut events = log.read(topic, &[range], Headers::Wanted).await.unwrap();
    let mut stream = loop {
        if let TopicEvent::Partition(stream) = events.next().await.unwrap().unwrap() {
            break stream;
        }
    };
    loop {
        let item = stream.next().await.unwrap().unwrap();
        let reached = match item {
            StreamItem::Records(batch) => {
                for record in (0..batch.len()).map(|index| batch.get(index)) {
                    letters.push(StoredRecord {
                        key: record.key.map(<[u8]>::to_vec),
                        value: record.value.map(<[u8]>::to_vec),
                        timestamp: record.timestamp,
                        headers: record.headers.to_vec(),
                    });
                }
                batch.next_offset().unwrap()
            }
            StreamItem::Position(position) | StreamItem::Start(position) => position,
            other => panic!("{other:?}"),
        };
        if reached >= range.end {
            return letters;
        }
    }
}

async fn letters(scratch: &Scratch) -> Vec<StoredRecord> {
    let mut letters = read_all(scratch.log.as_ref(), &format!("{}-rejected", scratch.topic.name)).await;
    letters.sort_by_key(StoredRecord::source);
    letters
}

fn stats(table: &Table) -> DeadLetterStats {
    table.stats().dead_letters.unwrap()
}

/// Waits until this many rejected records of a table were written, or were in the dead-letter topic already.
async fn wait_for_letters(table: &Table, count: u64) {
    let is_done = || {
        let stats = stats(table);
        (stats.waiting == 0 && stats.written + stats.already_written >= count).then_some(())
    };
    eventually_async("all rejected records are in the dead-letter topic", is_done).await;
}

async fn rejected_records_are_kept_unchanged_and_once(kind: LogKind) {
    let scratch = kind.scratch(3).await;
    create_dead_letters(&scratch, 2).await;
    // Young enough for a broker to keep the record.
    let timestamp = SystemClock.now() - 1_000;
    let header = Header { name: "trace".to_owned(), value: Some(b"7".to_vec()) };
    let bad = NewRecord {
        key: Some(b"bad".to_vec()),
        value: Some(b"{".to_vec()),
        headers: vec![header.clone(), Header { name: "ktables.offset".to_owned(), value: None }],
        partition: Some(1),
        timestamp: Some(timestamp),
    };
    let keyless = NewRecord { value: Some(b"1".to_vec()), partition: Some(2), ..NewRecord::default() };
    let key = NewRecord { key: Some(vec![0xff]), partition: Some(0), ..NewRecord::default() };
    scratch.write(vec![bad.clone(), keyless, key]).await;
    scratch.put("good", Some(b"1")).await;
    let table = start(&scratch, Codecs::default()).await;
    assert_eq!(table.status(), Status::CaughtUp);
    wait_for_letters(&table, 3).await;
    let found = letters(&scratch).await;
    assert_eq!(found.iter().map(StoredRecord::source).collect::<Vec<_>>(), [(0, 0), (1, 0), (2, 0)]);
    let [key, bad_letter, keyless] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&key.key, &key.value), (&Some(vec![0xff]), &None));
    assert_eq!((&keyless.key, keyless.value.as_deref()), (&None, Some(&b"1"[..])));
    assert_eq!((&bad_letter.key, &bad_letter.value), (&bad.key, &bad.value));
    assert_eq!((bad_letter.timestamp, &bad_letter.headers[..2]), (Some(timestamp), &bad.headers[..]));
    let reason = table.rejects().into_iter().find(|reject| reject.partition == 1).unwrap().reason;
    for (name, value) in [
        ("topic", &*scratch.topic.name),
        ("topic-id", &*scratch.topic.id),
        ("part", "value"),
        ("kind", "malformed"),
        ("reason", &*reason.message),
    ] {
        assert_eq!(bad_letter.header(&format!("ktables.{name}")).as_deref(), Some(value), "{name}");
    }
    assert_eq!(key.header("ktables.part").as_deref(), Some("key"));
    // Neither a later start, nor another generation, nor another process writes them again.
    let other = Codecs::new(Utf8, ktables::codec::Json);
    table.swap_codecs(other).await.unwrap();
    scratch.put("bad", Some(b"[")).await;
    wait_for_letters(&table, 4).await;
    table.stop().await;
    let again = start(&scratch, Codecs::default()).await;
    wait_for_letters(&again, 4).await;
    assert_eq!(stats(&again).written, 0);
    let status = ["status", "--dead-letter", &format!("{}-rejected", scratch.topic.name)];
    let status = succeed(&mut scratch.ktables(&status)).json().remove(0);
    let count = |name: &str| status["dead_letters"][name].as_u64().unwrap();
    assert_eq!((count("already_written") + count("waiting"), count("written")), (4, 0));
    assert_eq!(letters(&scratch).await.len(), 4);
}

async fn several_writers_write_each_record_once(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    create_dead_letters(&scratch, 2).await;
    // Each has clients of its own, as another process has.
    let mut tables = Vec::new();
    for _ in 0..3 {
        let log = ktables::log::open(&scratch.url()).unwrap();
        let table = open(log, &scratch.topic.name, Codecs::default(), DeadLetterOnError::Wait).await;
        table.wait_until_ready().await.unwrap();
        tables.push(table);
    }
    for number in 0..20 {
        scratch.put(&format!("key-{number}"), Some(b"{")).await;
    }
    for table in &tables {
        wait_for_letters(table, 20).await;
    }
    let sources: Vec<_> = letters(&scratch).await.iter().map(StoredRecord::source).collect();
    assert_eq!(sources, (0..20).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert_eq!(tables.iter().map(|table| stats(table).written).sum::<u64>(), 20);
}

async fn an_append_at_another_end_writes_nothing(kind: LogKind) {
    let scratch = kind.scratch(2).await;
    let topic = create_dead_letters(&scratch, 2).await;
    let other = ktables::log::open(&scratch.url()).unwrap();
    let records = |text: &str| {
        vec![
            record(text, Some(b"1")),
            NewRecord { value: Some(text.as_bytes().to_vec()), ..NewRecord::default() },
        ]
    };
    let end = scratch.log.append_at(&topic, 1, 0, records("a")).await.unwrap().unwrap().end;
    assert_eq!(other.append_at(&topic, 1, 0, records("b")).await.unwrap(), None);
    let end = other.append_at(&topic, 1, end, records("b")).await.unwrap().unwrap().end;
    // The first log may learn only now that somebody else has written.
    let mut late = scratch.log.append_at(&topic, 1, end, records("c")).await.unwrap();
    for _ in 0..10 {
        if late.is_none() {
            late = scratch.log.append_at(&topic, 1, end, records("c")).await.unwrap();
        }
    }
    let end = late.unwrap().end;
    assert_eq!(scratch.log.append_at(&topic, 1, end, Vec::new()).await.unwrap().unwrap().end, end);
    assert_eq!(scratch.log.end_offsets(&topic).await.unwrap(), [(0, 0), (1, end)]);
    let unknown = scratch.log.append_at(&topic, 2, 0, records("d")).await.unwrap_err();
    assert!(matches!(unknown, LogError::UnknownPartition { partition: 2, .. }), "{unknown}");
    let written = read_all(scratch.log.as_ref(), &topic.name).await;
    let keys: Vec<_> = written.iter().filter_map(|letter| letter.key.clone()).collect();
    assert_eq!(keys, [b"a", b"b", b"c"]);
}

async fn readers_do_not_wait_but_the_checkpoint_does(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    create_dead_letters(&scratch, 1).await;
    let log = Arc::new(WrappedLog::new(scratch.log.clone()));
    let checkpoint = scratch.path().join("checkpoint");
    let builder = || {
        Table::builder(log.clone(), &scratch.topic.name, Codecs::default())
            .dead_letter(format!("{}-rejected", scratch.topic.name), DeadLetterOnError::Wait)
            .checkpoint(&checkpoint)
            .checkpoint_max_age(Duration::from_secs(3600))
            .catchup_timeout(TIMEOUT)
    };
    scratch.put("a", Some(b"1")).await;
    let table = builder().start().await.unwrap();
    table.stop().await;
    log.set_appends(Appends::Blocked);
    let table = builder().start().await.unwrap();
    scratch.write(vec![record("b", Some(b"{")), record("c", Some(b"3"))]).await;
    assert!(table.barrier(TIMEOUT).await.is_fresh());
    assert_eq!((table.status(), table.get("c").is_some()), (Status::CaughtUp, true));
    assert_eq!(stats(&table).waiting, 1);
    // The log does not answer, so the table gives up after a while, and its checkpoint ends before the record.
    table.stop().await;
    log.set_appends(Appends::Forwarded);
    let loaded = builder().start().await.unwrap();
    assert_eq!(loaded.stats().checkpoint.unwrap().loaded, 1);
    wait_for_letters(&loaded, 1).await;
    assert_eq!(letters(&scratch).await.len(), 1);
    // What was written before the table ends is in the checkpoint.
    loaded.stop().await;
    let loaded = builder().start().await.unwrap();
    assert_eq!(loaded.stats().checkpoint.unwrap().loaded, 3);
    wait_for_letters(&loaded, 1).await;
    assert_eq!((stats(&loaded).written, stats(&loaded).already_written), (0, 1));
}

async fn a_table_pauses_while_its_dead_letters_cannot_be_written(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    create_dead_letters(&scratch, 1).await;
    let log = Arc::new(WrappedLog::new(scratch.log.clone()));
    log.set_appends(Appends::Failing);
    let table = open(log.clone(), &scratch.topic.name, Codecs::default(), DeadLetterOnError::Wait).await;
    table.wait_until_ready().await.unwrap();
    scratch.put("a", Some(b"{")).await;
    eventually_async("the table is degraded", || matches!(table.status(), Status::Degraded(_)).then_some(()))
        .await;
    let reason = table.status().reason().unwrap();
    assert!(reason.contains(&format!("{}-rejected", scratch.topic.name)), "{reason}");
    assert!(reason.contains("partition 0, offset 0") && reason.contains("a test fault"), "{reason}");
    scratch.put("b", Some(b"2")).await;
    assert!(!table.barrier(Duration::from_millis(300)).await.is_fresh());
    assert!(table.is_empty());
    log.set_appends(Appends::Forwarded);
    eventually_async("the table goes on", || (table.status() == Status::CaughtUp).then_some(())).await;
    scratch.sync(&table).await;
    assert_eq!(contents(&table), BTreeMap::from([("b".to_owned(), "2".to_owned())]));
    assert_eq!((letters(&scratch).await.len(), stats(&table).lost), (1, 0));
}

async fn a_table_that_continues_counts_what_is_lost(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    create_dead_letters(&scratch, 1).await;
    let log = Arc::new(WrappedLog::new(scratch.log.clone()));
    log.set_appends(Appends::Failing);
    let table = open(log.clone(), &scratch.topic.name, Codecs::default(), DeadLetterOnError::Continue).await;
    table.wait_until_ready().await.unwrap();
    scratch.write(vec![record("a", Some(b"{")), record("b", Some(b"2"))]).await;
    scratch.sync(&table).await;
    assert_eq!((table.status(), table.len()), (Status::CaughtUp, 1));
    eventually_async("the record is lost", || (stats(&table).lost == 1).then_some(())).await;
    assert_eq!(letters(&scratch).await, []);
    // Once the topic can be written, a start tries it again.
    log.set_appends(Appends::Forwarded);
    table.stop().await;
    let table = start(&scratch, Codecs::default()).await;
    wait_for_letters(&table, 1).await;
    assert_eq!(letters(&scratch).await.len(), 1);
}

async fn a_swap_writes_its_dead_letters_when_it_succeeds(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    create_dead_letters(&scratch, 1).await;
    let log = Arc::new(WrappedLog::new(scratch.log.clone()));
    scratch.put("text", Some(b"{")).await;
    let table =
        open(log.clone(), &scratch.topic.name, Codecs::new(Utf8, Bytes), DeadLetterOnError::Wait).await;
    table.wait_until_ready().await.unwrap();
    assert_eq!((table.len(), stats(&table).written), (1, 0));
    table.swap_codecs(Codecs::default()).await.unwrap();
    wait_for_letters(&table, 1).await;
    assert_eq!((table.len(), letters(&scratch).await.len()), (0, 1));
}

on_each_log! {
    rejected_records_are_kept_unchanged_and_once,
    several_writers_write_each_record_once,
    an_append_at_another_end_writes_nothing,
    readers_do_not_wait_but_the_checkpoint_does,
    a_table_pauses_while_its_dead_letters_cannot_be_written,
    a_table_that_continues_counts_what_is_lost,
    a_swap_writes_its_dead_letters_when_it_succeeds,
    a_record_that_is_too_large_with_its_headers_does_not_stop_others,
    tables_share_a_dead_letter_topic,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_is_given_up_writes_no_dead_letters() {
    let scratch = Scratch::new(1).await;
    create_dead_letters(&scratch, 1).await;
    scratch.put("text", Some(b"{")).await;
    // More rejected bytes than a swap may keep.
    let value = vec![b'{'; 1_000_000];
    for number in 0..70 {
        scratch.put(&format!("large-{number}"), Some(&value)).await;
    }
    let table = start(&scratch, Codecs::new(Utf8, Bytes)).await;
    let error = table.swap_codecs(Codecs::default()).await.unwrap_err();
    assert!(matches!(error, TableError::DeadLetters { .. }), "{error}");
    assert!(error.to_string().contains("t-rejected"), "{error}");
    assert_eq!((table.len(), table.status()), (71, Status::CaughtUp));
    assert_eq!((letters(&scratch).await.len(), stats(&table).waiting), (0, 0));
}

async fn a_record_that_is_too_large_with_its_headers_does_not_stop_others(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    create_dead_letters(&scratch, 1).await;
    // With its headers, it is larger than a record may be. A directory makes an exception for dead letters.
    let (limit, lost) = if kind == LogKind::Directory { (1024 * 1024, 0) } else { (1_000_000, 1) };
    let mut large = None;
    for spare in [16, 64, 100, 200] {
        let value = vec![b'{'; limit - "large".len() - spare];
        let queued = scratch.log.send(&scratch.topic, record("large", Some(&value))).await;
        if let Ok(delivery) = queued
            && delivery.await.is_ok()
        {
            large = Some(spare);
            break;
        }
    }
    assert!(large.is_some(), "no record of this size can be written");
    scratch.write(vec![record("a", Some(b"{")), record("b", Some(b"{"))]).await;
    let table = start(&scratch, Codecs::default()).await;
    let is_done = || (stats(&table).written + stats(&table).lost == 3).then_some(());
    eventually_async("the others are written", is_done).await;
    assert_eq!((stats(&table).lost, stats(&table).waiting), (lost, 0));
    assert_eq!(table.status(), Status::CaughtUp);
    let sources: Vec<_> = letters(&scratch).await.iter().map(StoredRecord::source).collect();
    assert!(sources.ends_with(&[(0, 1), (0, 2)]) && sources.len() as u64 == 3 - lost, "{sources:?}");
}

async fn tables_share_a_dead_letter_topic(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let dead_letter = create_dead_letters(&scratch, 1).await.name;
    let other = format!("{}-other", scratch.topic.name);
    let new = NewTopic { partitions: Some(1), ..NewTopic::default() };
    let other = scratch.log.create(&other, new).await.unwrap();
    scratch.put("a", Some(b"{")).await;
    scratch.log.send(&other, record("b", Some(b"{"))).await.unwrap().await.unwrap();
    for _ in 0..2 {
        for topic in [&scratch.topic.name, &other.name] {
            let table = Table::builder(scratch.log.clone(), topic, Codecs::default())
                .dead_letter(&dead_letter, DeadLetterOnError::Wait)
                .start()
                .await
                .unwrap();
            wait_for_letters(&table, 1).await;
            table.stop().await;
        }
    }
    let topics: Vec<_> =
        letters(&scratch).await.iter().map(|letter| letter.header("ktables.topic").unwrap()).collect();
    assert_eq!(topics.len(), 2, "{topics:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_dead_letter_topic_is_refused() {
    let scratch = LogKind::Kafka.scratch(1).await;
    let name = format!("{}-rejected", scratch.topic.name);
    scratch.log.create(&name, NewTopic::default()).await.unwrap();
    let builder = Table::builder(scratch.log.clone(), &scratch.topic.name, Codecs::default());
    let error = builder.dead_letter(&name, DeadLetterOnError::Wait).open().await.unwrap_err();
    assert!(matches!(error, TableError::DeadLetters { .. }), "{error}");
    assert!(error.to_string().contains("compacted"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_topic_that_cannot_be_used_is_refused() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"{")).await;
    let own = run(&mut scratch.ktables(&["keys", "--dead-letter", "t"]));
    assert_eq!(own.code, 2, "{}", own.stderr);
    assert!(own.stderr.contains("choose another one"), "{}", own.stderr);
    let missing = run(&mut scratch.ktables(&["keys", "--dead-letter", "t-rejected"]));
    assert_eq!(missing.code, 2, "{}", missing.stderr);
    assert!(missing.stderr.contains("ktables topic ensure"), "{}", missing.stderr);
    // The command of the message works.
    let start = missing.stderr.find("ktables topic ensure").unwrap();
    let command = missing.stderr[start..].split('`').next().unwrap();
    let arguments: Vec<&str> = command.split_whitespace().skip(1).collect();
    succeed(&mut ktables(&arguments));
    succeed(&mut scratch.ktables(&["keys", "--dead-letter", "t-rejected"]));
    assert_eq!(letters(&scratch).await.len(), 1);
    let none = run(&mut scratch.ktables(&["rejects", "retry"]));
    assert!(none.code == 2 && none.stderr.contains("has no dead-letter topic"), "{}", none.stderr);
    let own = run(&mut scratch.ktables(&["rejects", "retry", "--dead-letter", "t"]));
    assert!(own.code == 2 && own.stderr.contains("choose another one"), "{}", own.stderr);
    let only_policy = run(&mut scratch.ktables(&["keys", "--dead-letter-on-error", "wait"]));
    assert!(only_policy.code == 2 && only_policy.stderr.contains("dead_letter ="), "{}", only_policy.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn ensure_topic_creates_the_dead_letter_topic() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"{")).await;
    let file = scratch.path().join("ktables.toml");
    let config = format!(
        "[logs.l]\nurl = \"{}\"\n[tables.t]\nlog = \"l\"\ntopic = \"t\"\nensure_topic = true\n\
         dead_letter = \"t-rejected\"\ndead_letter_on_error = \"continue\"\n",
        scratch.url()
    );
    std::fs::write(&file, config).unwrap();
    succeed(&mut ktables(&["keys", "--config", file.to_str().unwrap(), "-t", "t"]));
    assert_eq!(letters(&scratch).await.len(), 1);
}
