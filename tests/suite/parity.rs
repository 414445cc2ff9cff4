//! What Python's ktables promises and nothing else here shows: `docs/contract.md` has the
//! whole list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ktables::codec::{Codecs, LengthPrefixed, RejectKind};
use ktables::log::{EnsureTopic, LogError, LogOptions, NewRecord, NewTopic, OnPolicyMismatch, ensure_topic};
use ktables::table::{
    CATCHUP_TIMEOUT, OnReject, RecordPart, Status, Table, TableError, WatchEvent, WatchStart,
};
use ktables::writer::{WriteError, Writer};
use ktables_broker::BrokerOptions;
use ktables_tests::{
    On, PATIENCE, STALE_AFTER, Scratch, Wrapped, eventually_async, kafka, ktables, on_each_log, record, run,
    succeed, unique,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

/// A table that loads for as long as the topic has not so many records more.
async fn loading(scratch: &Scratch, claimed: i64, patience: Duration) -> Table {
    let log = Arc::new(Wrapped::new(scratch.log.clone()).claiming(claimed));
    let builder = Table::builder(log, &scratch.topic.name, Codecs::default());
    builder.catchup_timeout(patience).open().await.unwrap()
}

async fn nothing_is_shown_while_a_table_loads_and_all_partitions_count(on: On) {
    let scratch = on.scratch(4).await;
    for partition in 0..4 {
        let key = format!("k{partition}");
        scratch.write(vec![NewRecord { partition: Some(partition), ..record(&key, Some(b"1")) }]).await;
    }
    // Only the first partition is behind.
    let table = loading(&scratch, 1, PATIENCE).await;
    eventually_async("what there is is read", || (table.stats().records == 4).then_some(())).await;
    assert!(matches!(table.status(), Status::Loading), "{}", table.status());
    assert_eq!((table.len(), table.get("k1")), (0, None));
    let progress = table.stats().loading.unwrap();
    assert_eq!((progress.done, progress.total), (4, 5));
    assert!(progress.to_string().contains("4 of 5 records, 80 %"), "{progress}");
    // No patience at all is degraded at once.
    let hasty = loading(&scratch, 1, Duration::ZERO).await;
    assert!(matches!(hasty.ready().await.unwrap(), Status::Degraded(_)));
    let late = loading(&scratch, 1, Duration::from_millis(500)).await;
    let status = late.ready().await.unwrap();
    let reason = status.reason().unwrap();
    assert!(reason.contains("partition 0 at 1 of 2") && !reason.contains("partition 1"), "{reason}");
    eventually_async("the others are served", || late.get("k3")).await;
    let mut watcher = late.watch(WatchStart::Now);
    scratch.write(vec![NewRecord { partition: Some(0), ..record("k0", Some(b"2")) }]).await;
    for table in [&table, &late] {
        assert!(table.barrier(PATIENCE).await.is_fresh());
        eventually_async("it is caught up", || matches!(table.status(), Status::CaughtUp).then_some(()))
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
    // What comes later is no part of what was replayed.
    scratch.put("later", Some(b"1")).await;
    scratch.sync(&table).await;
    assert_eq!((table.stats().replayed, table.stats().records), (5, 6));
}

async fn a_table_nobody_has_any_more_ends(on: On) {
    let scratch = on.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let log = Arc::new(Wrapped::new(scratch.log.clone()).claiming(1));
    let builder = || {
        let builder = Table::builder(log.clone(), &scratch.topic.name, Codecs::default());
        builder.catchup_timeout(PATIENCE)
    };
    // A start that is given up, and a table whose last handle goes.
    assert!(tokio::time::timeout(Duration::from_millis(50), builder().start()).await.is_err());
    let table = builder().open().await.unwrap();
    let clone = table.clone();
    drop(table);
    assert!(matches!(clone.status(), Status::Loading));
    drop(clone);
    eventually_async("nothing of it is left", || (Arc::strong_count(&log) == 1).then_some(())).await;
}

async fn a_start_that_fails_leaves_nothing(on: On) {
    let scratch = on.scratch(1).await;
    scratch.put("bad", Some(b"{")).await;
    let log = Arc::new(Wrapped::new(scratch.log.clone()));
    let start = |topic: &str| {
        let builder = Table::builder(log.clone(), topic, Codecs::default());
        builder.catchup_timeout(PATIENCE).on_reject(OnReject::Halt).start()
    };
    let failed = start(&unique("missing")).await.unwrap_err();
    assert!(matches!(failed, TableError::Log(LogError::UnknownTopic { .. })), "{failed}");
    assert_eq!(Arc::strong_count(&log), 1);
    // One that begins to read.
    let failed = start(&scratch.topic.name).await.unwrap_err();
    assert!(matches!(failed, TableError::Halted { .. }), "{failed}");
    eventually_async("nothing of it is left", || (Arc::strong_count(&log) == 1).then_some(())).await;
}

async fn a_barrier_that_cannot_ask_tries_again_and_says_why_in_the_end(on: On) {
    let scratch = on.scratch(1).await;
    let log = Arc::new(Wrapped::new(scratch.log.clone()));
    let builder = Table::builder(log.clone(), &scratch.topic.name, Codecs::default());
    let table = builder.catchup_timeout(PATIENCE).start().await.unwrap();
    scratch.put("a", Some(b"1")).await;
    log.out_of_reach(2);
    assert!(table.barrier(PATIENCE).await.is_fresh() && table.contains("a"));
    // Where a record is need not be told; what is known then is what a barrier knows.
    let (nowhere, asked) = (ktables::log::Ack { partition: 0, offset: -1 }, log.barriers());
    scratch.put("b", Some(b"1")).await;
    assert!(table.wait_for(&[nowhere], PATIENCE).await.is_fresh() && table.contains("b"));
    assert!(log.barriers() > asked);
    log.out_of_reach(u32::MAX);
    let stale = table.barrier(Duration::from_millis(300)).await;
    let text = stale.to_string();
    assert!(!stale.is_fresh() && text.contains("300ms") && text.contains("for once"), "{text}");
}

async fn waiting_ends_when_a_table_does(on: On) {
    let scratch = on.scratch(1).await;
    let table = scratch.table(Codecs::default()).await;
    let far = ktables::log::Ack { partition: 0, offset: 1_000_000 };
    let hour = Duration::from_secs(3600);
    let stop = async {
        tokio::task::yield_now().await;
        table.stop().await;
    };
    let (waited, ()) = tokio::join!(table.wait_for(std::slice::from_ref(&far), hour), stop);
    assert!(!waited.is_fresh() && waited.to_string().contains("stopped"), "{waited:?}");
    // Stopped, with nothing newer: no table says it is fresh that follows nothing.
    let stale = table.barrier(hour).await;
    assert!(stale.to_string().contains("stopped"), "{stale:?}");
    assert!(matches!(table.ready().await, Ok(Status::Stopped)));
    table.stop().await;
    assert!(matches!(table.status(), Status::Stopped));
    // So does stopping one that loads.
    let still = loading(&scratch, 1, PATIENCE).await;
    let (ready, ()) = tokio::join!(still.ready(), still.stop());
    assert!(matches!(ready, Ok(Status::Stopped)));
}

async fn the_text_of_a_table_has_none_of_its_contents(on: On) {
    let scratch = on.scratch(1).await;
    scratch.put("sEcReTkey", Some(b"\"sEcReTvalue\"")).await;
    let table = scratch.table(Codecs::default()).await;
    for text in [format!("{table:?}"), format!("{:?}", table.snapshot())] {
        assert!(text.contains(&scratch.topic.name) && text.contains("entries: 1"), "{text}");
        assert!(!text.contains("sEcReT") && text.len() < 200, "{text}");
    }
    assert!(format!("{table:?}").contains("CaughtUp"));
    let writer = Writer::open(scratch.log.clone(), &scratch.topic.name, Codecs::default()).await.unwrap();
    let text = format!("{:?}", writer.visible_in(&table, PATIENCE));
    assert!(text.contains(&scratch.topic.name) && text.len() < 200, "{text}");
}

async fn what_a_table_leaves_out_is_counted_apart_and_is_no_change(on: On) {
    let scratch = on.scratch(1).await;
    let codecs = Codecs { scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
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
        // The same again is a heartbeat.
        record("1:ga", Some(b"1")),
        record("1:gc", Some(b"{")),
    ];
    let last = *scratch.write(records).await.last().unwrap();
    // Poison is no obstacle, though it is the last.
    scratch.sync(&table).await;
    assert!(table.wait_for(&[last], PATIENCE).await.is_fresh());
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
    let mut told = Vec::new();
    while told.len() < 6 {
        told.push(match watcher.next().await.unwrap() {
            WatchEvent::Change(change) => {
                let json =
                    |entry: &Option<ktables::table::Entry>| entry.as_ref().map(|it| it.json().to_owned());
                format!("{} {:?} {:?} {}", change.key(), json(&change.old), json(&change.new), change.offset)
            }
            WatchEvent::Rejected { key, notice } => format!("{key:?} rejected {}", notice.offset),
            other => panic!("{other:?}"),
        });
    }
    let expected = [
        "1:ga None Some(\"1\") 0",
        // Without a key that can be read.
        "None rejected 3",
        "None rejected 4",
        "Some(\"1:gb\") rejected 5",
        "1:ga Some(\"1\") Some(\"1\") 7",
        "Some(\"1:gc\") rejected 8",
    ];
    assert_eq!(told, expected);
}

async fn a_topic_that_goes_while_a_table_loads_is_waited_for(on: On) {
    let scratch = on.scratch(1).await;
    scratch.put("old", Some(b"1")).await;
    let table = loading(&scratch, 1, Duration::from_millis(300)).await;
    eventually_async("it is read", || (table.stats().records == 1).then_some(())).await;
    scratch.delete().await;
    let missing = || table.status().reason().filter(|reason| reason.contains("the topic is missing"));
    eventually_async("that it is missing is told", missing).await;
    assert!(matches!(table.status(), Status::Degraded(_)), "{}", table.status());
    scratch.create(1).await;
    scratch.put("new", Some(b"1")).await;
    // Whenever it begins to load, there is one more to come.
    ktables_tests::eventually_ok("the new topic is served", || async {
        scratch.put("more", Some(b"1")).await;
        table.get("new").ok_or_else(|| table.status().to_string())
    })
    .await;
    assert!(!table.status().is_final() && table.get("old").is_none(), "{}", table.status());
}

on_each_log! {
    nothing_is_shown_while_a_table_loads_and_all_partitions_count,
    a_table_nobody_has_any_more_ends,
    a_start_that_fails_leaves_nothing,
    a_barrier_that_cannot_ask_tries_again_and_says_why_in_the_end,
    waiting_ends_when_a_table_does,
    the_text_of_a_table_has_none_of_its_contents,
    what_a_table_leaves_out_is_counted_apart_and_is_no_change,
    a_topic_that_goes_while_a_table_loads_is_waited_for,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_no_trace_of_a_reader() {
    let scratch = On::Kafka.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    let table = scratch.table(Codecs::default()).await;
    scratch.put("b", Some(b"1")).await;
    scratch.sync(&table).await;
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka::shared()).create().unwrap();
    let groups = client.fetch_group_list(None, PATIENCE).unwrap();
    let names: Vec<&str> = groups.groups().iter().map(rdkafka::groups::GroupInfo::name).collect();
    assert!(!names.iter().any(|name| name.starts_with("ktables")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_start_that_failed_another_succeeds_and_a_silence_delays_a_barrier() {
    let mut broker = kafka::own(&BrokerOptions::default());
    let options = LogOptions { stale_after: STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::at(&broker.bootstrap(), options, 1).await;
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
    let table = ktables_tests::eventually_ok("the cluster is there again", start).await;
    scratch.put("a", Some(b"1")).await;
    broker.pause().unwrap();
    let resume = async {
        eventually_async("the silence is noticed", || {
            matches!(table.status(), Status::Degraded(_)).then_some(())
        })
        .await;
        // However long a request would take, a barrier has its own time.
        let late = table.barrier(Duration::from_millis(100)).await;
        assert!(!late.is_fresh());
        broker.resume().unwrap();
    };
    let (fresh, ()) = tokio::join!(table.barrier(PATIENCE), resume);
    assert!(fresh.is_fresh(), "{fresh:?}");
    assert_eq!(table.get("a").unwrap().json(), "1");
    // With the last handle all connections end, and with them the threads that have them.
    let bootstrap = broker.bootstrap();
    assert!(kafka::connections(&bootstrap) > 0);
    drop((table, scratch));
    eventually_async("nobody is connected", || (kafka::connections(&bootstrap) == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_cannot_begin_says_why() {
    let nobody = ktables::log::open("kafka://127.0.0.1:1").unwrap();
    let failed = Writer::open(nobody, "t", Codecs::default()).await.unwrap_err();
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
async fn size_limits_may_be_raised() {
    let (bootstrap, name) = (kafka::shared(), unique("large"));
    kafka::create(&bootstrap, &name, 1, &[("max.message.bytes", "6291456")]).await;
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    let usual = Scratch::of(&bootstrap, LogOptions::default(), &name).await;
    let writer = Writer::open(usual.log.clone(), &name, Codecs::default()).await.unwrap();
    let refused = writer.set("a", &large).await.unwrap_err();
    assert!(matches!(&refused, WriteError::InvalidRecord { .. }), "{refused}");
    assert!(refused.to_string().contains("message.max.bytes"), "{refused}");
    let properties = BTreeMap::from([("message.max.bytes".to_owned(), "5242880".to_owned())]);
    let raised = Scratch::of(&bootstrap, LogOptions { properties, ..LogOptions::default() }, &name).await;
    let table = raised.table(Codecs::default()).await;
    let writer = Writer::open(raised.log.clone(), &name, Codecs::default()).await.unwrap();
    writer.visible_in(&table, PATIENCE).set("a", &large).await.unwrap();
    assert_eq!(raised.table(Codecs::default()).await.get("a").unwrap().json(), large);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_properties_that_are_refused_are_named() {
    let properties = ["group.id", "partitioner"].map(|name| (name.to_owned(), "x".to_owned()));
    let options = LogOptions { properties: properties.into(), ..LogOptions::default() };
    let refused = ktables::log::open_with("kafka://127.0.0.1:1", options).unwrap_err().to_string();
    assert!(refused.contains("group.id") && refused.contains("partitioner"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_loudly_that_a_table_is_degraded() {
    assert_eq!(CATCHUP_TIMEOUT, Duration::from_secs(30));
    let help = succeed(&mut ktables(&["get", "--help"])).stdout;
    assert!(help.contains("[default: 30s]"), "{help}");
    let scratch = On::Kafka.scratch(1).await;
    scratch.put("a", Some(b"1")).await;
    // A transaction that stays open holds up what follows.
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
async fn a_record_of_any_age_is_an_entry_if_nothing_expires() {
    let scratch = Scratch::new(1).await;
    scratch.write(vec![NewRecord { timestamp: Some(1), ..record("old", Some(b"1")) }]).await;
    assert!(scratch.table(Codecs::default()).await.contains("old"));
}
