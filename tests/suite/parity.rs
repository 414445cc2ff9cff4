//! Promises of Python's ktables that no other test covers. `docs/contract.md` lists all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ktables::codec::{Codecs, LengthPrefixed, RejectKind};
use ktables::log::{EnsureTopic, LogError, LogOptions, NewRecord, NewTopic, OnPolicyMismatch, ensure_topic};
use ktables::table::{
    DEFAULT_CATCHUP_TIMEOUT, OnReject, RecordPart, Status, Table, TableError, WatchEvent, WatchStart,
};
use ktables::writer::{WriteError, Writer};
use ktables_broker::BrokerOptions;
use ktables_tests::{
    LogKind, STALE_AFTER, Scratch, TIMEOUT, WrappedLog, eventually_async, kafka, ktables, on_each_log,
    record, run, succeed, unique,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

/// Opens a table that loads until the topic has this many more records in its first partition.
async fn loading(scratch: &Scratch, claimed: i64, timeout: Duration) -> Table {
    let log = Arc::new(WrappedLog::new(scratch.log.clone()).with_claimed_records(claimed));
    let builder = Table::builder(log, &scratch.topic.name, Codecs::default());
    builder.catchup_timeout(timeout).open().await.unwrap()
}

async fn a_table_shows_nothing_until_all_partitions_are_loaded(kind: LogKind) {
    let scratch = kind.scratch(4).await;
    for partition in 0..4 {
        let key = format!("k{partition}");
        scratch.write(vec![NewRecord { partition: Some(partition), ..record(&key, Some(b"1")) }]).await;
    }
    // Only the first partition is behind.
    let table = loading(&scratch, 1, TIMEOUT).await;
    eventually_async("all existing records are read", || (table.stats().records == 4).then_some(())).await;
    assert!(matches!(table.status(), Status::Loading), "{}", table.status());
    assert_eq!((table.len(), table.get("k1")), (0, None));
    let progress = table.stats().loading.unwrap();
    assert_eq!((progress.done, progress.total), (4, 5));
    assert!(progress.to_string().contains("4 of 5 offsets, 80 %"), "{progress}");
    // With a timeout of zero, the table is degraded at once.
    let immediate = loading(&scratch, 1, Duration::ZERO).await;
    assert!(matches!(immediate.wait_until_ready().await.unwrap(), Status::Degraded(_)));
    let late = loading(&scratch, 1, Duration::from_millis(500)).await;
    let status = late.wait_until_ready().await.unwrap();
    let reason = status.reason().unwrap();
    assert!(reason.contains("partition 0 at 1 of 2") && !reason.contains("partition 1"), "{reason}");
    eventually_async("the other partitions are served", || late.get("k3")).await;
    let mut watcher = late.watch(WatchStart::Now);
    scratch.write(vec![NewRecord { partition: Some(0), ..record("k0", Some(b"2")) }]).await;
    for table in [&table, &late] {
        assert!(table.barrier(TIMEOUT).await.is_fresh());
        eventually_async("the table is caught up", || {
            matches!(table.status(), Status::CaughtUp).then_some(())
        })
        .await;
        assert_eq!(table.get("k0").unwrap().json(), "2");
        assert!(table.stats().loading.is_none() && table.stats().catch_up.unwrap() > Duration::ZERO);
        assert_eq!(table.stats().replayed, 5);
    }
    let status = loop {
        match watcher.next().await.unwrap() {
            WatchEvent::Status(status) => break status,
            WatchEvent::Change(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(status, Status::CaughtUp), "{status}");
    // Later records do not count as replayed.
    scratch.put("later", Some(b"1")).await;
    scratch.sync(&table).await;
    assert_eq!((table.stats().replayed, table.stats().records), (5, 6));
}

async fn a_table_ends_when_its_last_handle_is_dropped(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let log = Arc::new(WrappedLog::new(scratch.log.clone()).with_claimed_records(1));
    let builder = || {
        let builder = Table::builder(log.clone(), &scratch.topic.name, Codecs::default());
        builder.catchup_timeout(TIMEOUT)
    };
    // A start that is cancelled, and a table whose last handle is dropped.
    assert!(tokio::time::timeout(Duration::from_millis(50), builder().start()).await.is_err());
    let table = builder().open().await.unwrap();
    let clone = table.clone();
    drop(table);
    assert!(matches!(clone.status(), Status::Loading));
    drop(clone);
    eventually_async("the table has released the log", || (Arc::strong_count(&log) == 1).then_some(())).await;
}

async fn a_failed_start_leaves_nothing_behind(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("bad", Some(b"{")).await;
    let log = Arc::new(WrappedLog::new(scratch.log.clone()));
    let start = |topic: &str| {
        let builder = Table::builder(log.clone(), topic, Codecs::default());
        builder.catchup_timeout(TIMEOUT).on_reject(OnReject::Halt).start()
    };
    let failed = start(&unique("missing")).await.unwrap_err();
    assert!(matches!(failed, TableError::Log(LogError::UnknownTopic { .. })), "{failed}");
    assert_eq!(Arc::strong_count(&log), 1);
    // A start that fails after it has begun to read.
    let failed = start(&scratch.topic.name).await.unwrap_err();
    assert!(matches!(failed, TableError::Halted { .. }), "{failed}");
    eventually_async("the table has released the log", || (Arc::strong_count(&log) == 1).then_some(())).await;
}

async fn a_barrier_retries_failed_requests_and_reports_the_cause(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let log = Arc::new(WrappedLog::new(scratch.log.clone()));
    let builder = Table::builder(log.clone(), &scratch.topic.name, Codecs::default());
    let table = builder.catchup_timeout(TIMEOUT).start().await.unwrap();
    scratch.put("a", Some(b"1")).await;
    log.fail_requests(2);
    assert!(table.barrier(TIMEOUT).await.is_fresh() && table.contains("a"));
    // The offset of an acknowledgement may be unknown. Waiting for it is a barrier then.
    let (unknown, before) = (ktables::log::Ack { partition: 0, offset: None }, log.end_offset_requests());
    scratch.put("b", Some(b"1")).await;
    assert!(table.wait_for(&[unknown], TIMEOUT).await.is_fresh() && table.contains("b"));
    assert!(log.end_offset_requests() > before);
    log.fail_requests(u32::MAX);
    let stale = table.barrier(Duration::from_millis(300)).await;
    let text = stale.to_string();
    assert!(!stale.is_fresh() && text.contains("300ms") && text.contains("a test fault"), "{text}");
}

async fn waiting_ends_when_the_table_stops(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let table = scratch.table(Codecs::default()).await;
    let far = ktables::log::Ack { partition: 0, offset: Some(1_000_000) };
    let hour = Duration::from_secs(3600);
    let stop = async {
        tokio::task::yield_now().await;
        table.stop().await;
    };
    let (waited, ()) = tokio::join!(table.wait_for(std::slice::from_ref(&far), hour), stop);
    assert!(!waited.is_fresh() && waited.to_string().contains("stopped"), "{waited:?}");
    // A stopped table is never fresh, even if the topic has nothing newer.
    let stale = table.barrier(hour).await;
    assert!(stale.to_string().contains("stopped"), "{stale:?}");
    assert!(matches!(table.wait_until_ready().await, Ok(Status::Stopped)));
    table.stop().await;
    assert!(matches!(table.status(), Status::Stopped));
    // Stopping a table that loads ends waiting, too.
    let table = loading(&scratch, 1, TIMEOUT).await;
    let (ready, ()) = tokio::join!(table.wait_until_ready(), table.stop());
    assert!(matches!(ready, Ok(Status::Stopped)));
}

async fn debug_output_contains_no_keys_or_values(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("sEcReTkey", Some(b"\"sEcReTvalue\"")).await;
    let table = scratch.table(Codecs::default()).await;
    for text in [format!("{table:?}"), format!("{:?}", table.snapshot())] {
        assert!(text.contains(&scratch.topic.name) && text.contains("entries: 1"), "{text}");
        assert!(!text.contains("sEcReT") && text.len() < 200, "{text}");
    }
    assert!(format!("{table:?}").contains("CaughtUp"));
    let writer = Writer::open(scratch.log.clone(), &scratch.topic.name, Codecs::default()).await.unwrap();
    let text = format!("{:?}", writer.visible_in(&table, TIMEOUT));
    assert!(text.contains(&scratch.topic.name) && text.len() < 200, "{text}");
}

async fn skipped_records_are_counted_separately_and_are_no_changes(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let codecs = Codecs { group_scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
    let table = scratch.table(codecs).await;
    let mut watcher = table.watch(WatchStart::Now);
    let no_text = NewRecord { key: Some(vec![0xff]), value: Some(b"1".to_vec()), ..NewRecord::default() };
    let keyless = NewRecord { value: Some(b"1".to_vec()), ..NewRecord::default() };
    let records = vec![
        record("1:ga", Some(b"1")),
        record("foreign", Some(b"1")),
        record("foreign", None),
        keyless,
        no_text,
        record("1:gb", Some(b"{")),
        record("1:gb", None),
        // The same value again is a heartbeat.
        record("1:ga", Some(b"1")),
        record("1:gc", Some(b"{")),
    ];
    let last = *scratch.write(records).await.last().unwrap();
    // A barrier is fresh although the last record is rejected.
    scratch.sync(&table).await;
    assert!(table.wait_for(&[last], TIMEOUT).await.is_fresh());
    let stats = table.stats();
    assert_eq!((stats.records, stats.foreign.count, stats.keyless, stats.tombstones), (9, 2, 1, 1));
    assert_eq!(stats.rejects.values().sum::<u64>(), 3);
    let rejects = table.rejects();
    let parts: Vec<_> = rejects.iter().map(|reject| (reject.part, reject.key.as_deref())).collect();
    let expected = [
        (RecordPart::Value, None),
        (RecordPart::Key, None),
        (RecordPart::Value, Some("1:gb")),
        (RecordPart::Value, Some("1:gc")),
    ];
    assert_eq!(parts, expected);
    assert_eq!(rejects[0].reason.kind, RejectKind::Keyless);
    let mut events = Vec::new();
    while events.len() < 6 {
        events.push(match watcher.next().await.unwrap() {
            WatchEvent::Change(change) => {
                let json = |entry: &Option<ktables::table::Entry>| {
                    entry.as_ref().map(|entry| entry.json().to_owned())
                };
                format!("{} {:?} {:?} {}", change.key(), json(&change.old), json(&change.new), change.offset)
            }
            WatchEvent::Rejected { key, notice } => format!("{key:?} rejected {}", notice.offset),
            other => panic!("{other:?}"),
        });
    }
    let expected = [
        "1:ga None Some(\"1\") 0",
        // Records without a readable key.
        "None rejected 3",
        "None rejected 4",
        "Some(\"1:gb\") rejected 5",
        "1:ga Some(\"1\") Some(\"1\") 7",
        "Some(\"1:gc\") rejected 8",
    ];
    assert_eq!(events, expected);
}

async fn a_table_waits_for_a_topic_that_is_deleted_while_it_loads(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    scratch.put("old", Some(b"1")).await;
    let table = loading(&scratch, 1, Duration::from_millis(300)).await;
    eventually_async("the record is read", || (table.stats().records == 1).then_some(())).await;
    scratch.delete_topic().await;
    let missing = || table.status().reason().filter(|reason| reason.contains("the topic is missing"));
    eventually_async("the status says that the topic is missing", missing).await;
    assert!(matches!(table.status(), Status::Degraded(_)), "{}", table.status());
    scratch.create_topic(1).await;
    scratch.put("new", Some(b"1")).await;
    // Whenever the table starts to load, it needs one more record.
    ktables_tests::eventually_ok("the new topic is served", || async {
        scratch.put("more", Some(b"1")).await;
        table.get("new").ok_or_else(|| table.status().to_string())
    })
    .await;
    assert!(!table.status().is_final() && table.get("old").is_none(), "{}", table.status());
}

on_each_log! {
    a_table_shows_nothing_until_all_partitions_are_loaded,
    a_table_ends_when_its_last_handle_is_dropped,
    a_failed_start_leaves_nothing_behind,
    a_barrier_retries_failed_requests_and_reports_the_cause,
    waiting_ends_when_the_table_stops,
    debug_output_contains_no_keys_or_values,
    skipped_records_are_counted_separately_and_are_no_changes,
    a_table_waits_for_a_topic_that_is_deleted_while_it_loads,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_leaves_no_consumer_group_on_the_cluster() {
    let scratch = LogKind::Kafka.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let table = scratch.table(Codecs::default()).await;
    scratch.put("b", Some(b"1")).await;
    scratch.sync(&table).await;
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka::shared()).create().unwrap();
    let groups = client.fetch_group_list(None, TIMEOUT).unwrap();
    let names: Vec<&str> = groups.groups().iter().map(rdkafka::groups::GroupInfo::name).collect();
    assert!(!names.iter().any(|name| name.starts_with("ktables")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_succeeds_after_a_failed_one_and_a_silence_delays_a_barrier() {
    let mut broker = kafka::start_broker(&BrokerOptions::default());
    let options = LogOptions { stale_after: STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::on_cluster(&broker.bootstrap(), options, 1).await;
    broker.kill().unwrap();
    let start = || Table::builder(scratch.log.clone(), &scratch.topic.name, Codecs::default()).start();
    let failed = start().await.unwrap_err();
    assert!(matches!(failed, TableError::Log(LogError::Unreachable { .. })), "{failed}");
    for mode in [OnPolicyMismatch::Ignore, OnPolicyMismatch::Raise] {
        let how = EnsureTopic { on_policy_mismatch: mode, ..EnsureTopic::default() };
        let failed = ensure_topic(&*scratch.log, "t", &how).await.unwrap_err();
        assert!(matches!(failed, LogError::Unreachable { .. }), "{mode:?}: {failed}");
    }
    tokio::task::block_in_place(|| broker.restart()).unwrap();
    let table = ktables_tests::eventually_ok("the cluster answers again", start).await;
    scratch.put("a", Some(b"1")).await;
    broker.pause().unwrap();
    let resume = async {
        eventually_async("the table reports the silence", || {
            matches!(table.status(), Status::Degraded(_)).then_some(())
        })
        .await;
        // A barrier has its own timeout, however long a request takes.
        let late = table.barrier(Duration::from_millis(100)).await;
        assert!(!late.is_fresh());
        broker.resume().unwrap();
    };
    let (fresh, ()) = tokio::join!(table.barrier(TIMEOUT), resume);
    assert!(fresh.is_fresh(), "{fresh:?}");
    assert_eq!(table.get("a").unwrap().json(), "1");
    // Dropping the last handle closes all connections, and ends their threads.
    let bootstrap = broker.bootstrap();
    assert!(kafka::count_connections(&bootstrap) > 0);
    drop((table, scratch));
    eventually_async("nobody is connected", || (kafka::count_connections(&bootstrap) == 0).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_cannot_open_reports_the_cause() {
    let unreachable = ktables::log::open("kafka://127.0.0.1:1").unwrap();
    let failed = Writer::open(unreachable, "t", Codecs::default()).await.unwrap_err();
    assert!(matches!(failed, LogError::Unreachable { .. }), "{failed}");
    let log = ktables::log::open(&format!("kafka://{}", kafka::shared())).unwrap();
    let failed = Writer::open(log.clone(), &unique("missing"), Codecs::default()).await.unwrap_err();
    assert!(matches!(failed, LogError::UnknownTopic { .. }), "{failed}");
    for settings in [
        NewTopic { partitions: Some(0), ..NewTopic::default() },
        NewTopic { replication_factor: Some(0), ..NewTopic::default() },
    ] {
        let refused = log.create(&unique("t"), settings).await.unwrap_err();
        assert!(matches!(refused, LogError::InvalidTopic { .. }), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn size_limits_can_be_raised() {
    let (bootstrap, name) = (kafka::shared(), unique("large"));
    kafka::create(&bootstrap, &name, 1, &[("max.message.bytes", "6291456")]).await;
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    let default = Scratch::existing(&bootstrap, LogOptions::default(), &name).await;
    let writer = Writer::open(default.log.clone(), &name, Codecs::default()).await.unwrap();
    let refused = writer.set("a", &large).await.unwrap_err();
    assert!(matches!(&refused, WriteError::InvalidRecord { .. }), "{refused}");
    assert!(refused.to_string().contains("message.max.bytes"), "{refused}");
    let properties = BTreeMap::from([("message.max.bytes".to_owned(), "5242880".to_owned())]);
    let options = LogOptions { properties, ..LogOptions::default() };
    let raised = Scratch::existing(&bootstrap, options, &name).await;
    let table = raised.table(Codecs::default()).await;
    let writer = Writer::open(raised.log.clone(), &name, Codecs::default()).await.unwrap();
    writer.visible_in(&table, TIMEOUT).set("a", &large).await.unwrap();
    assert_eq!(raised.table(Codecs::default()).await.get("a").unwrap().json(), large);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_all_refused_properties() {
    let properties = ["group.id", "partitioner"].map(|name| (name.to_owned(), "x".to_owned()));
    let options = LogOptions { properties: properties.into(), ..LogOptions::default() };
    let refused = ktables::log::open_with("kafka://127.0.0.1:1", options).unwrap_err().to_string();
    assert!(refused.contains("group.id") && refused.contains("partitioner"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_report_a_degraded_table_with_exit_code_4() {
    assert_eq!(DEFAULT_CATCHUP_TIMEOUT, Duration::from_secs(30));
    let help = succeed(&mut ktables(&["get", "--help"])).stdout;
    assert!(help.contains("[default: 30s]"), "{help}");
    let scratch = LogKind::Kafka.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    // An open transaction hides the records after it.
    let producer = kafka::Transactional::new(&kafka::shared());
    producer.begin();
    producer.send(&scratch.topic.name, 0, "b", "2");
    for args in [&["get", "a"][..], &["get", "nothing"], &["keys"], &["dump"], &["status"]] {
        let ended = run(scratch.ktables(args).args(["--catchup-timeout", "1s"]));
        assert_eq!(ended.code, 4, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("degraded"), "{args:?}: {}", ended.stderr);
    }
    let ended = run(scratch.ktables(&["get", "a"]).args(["--catchup-timeout", "3s"]));
    assert_eq!(ended.stdout, "1\n");
    producer.abort();
    let ended = run(scratch.ktables(&["get", "a"]).env("KTABLES_LOG", "debug"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

#[tokio::test]
async fn without_a_time_to_live_old_records_are_entries() {
    let scratch = Scratch::new(1).await;
    scratch.write(vec![NewRecord { timestamp: Some(1), ..record("old", Some(b"1")) }]).await;
    assert!(scratch.table(Codecs::default()).await.contains("old"));
}
