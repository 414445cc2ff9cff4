//! Tests of features that only a cluster has: transactions, compaction, compression, added partitions, and
//! several tables that share one client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ktables::codec::Codecs;
use ktables::log::{Header, Headers, Isolation, LogOptions, NewRecord, StreamItem, TopicEvent};
use ktables::table::{Status, Table, WatchEvent, WatchStart};
use ktables::writer::Writer;
use ktables_tests::kafka::{self, Transactional};
use ktables_tests::{
    FaultyCodec, LogKind, STALE_AFTER, Scratch, TIMEOUT, contents, eventually_async, record,
};

async fn wait_until_caught_up(table: &Table) {
    eventually_async("the table is caught up", || matches!(table.status(), Status::CaughtUp).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_are_invisible_and_trailing_markers_do_not_block() {
    let scratch = LogKind::Kafka.scratch(4).await;
    let live = scratch.table(Codecs::default()).await;
    let producer = Transactional::new(&kafka::shared());
    for round in 0..3 {
        producer.begin();
        for partition in 0..4 {
            producer.send(&scratch.topic.name, partition, &format!("good-{partition}"), &round.to_string());
        }
        producer.commit();
        producer.begin();
        for partition in 0..4 {
            producer.send(&scratch.topic.name, partition, &format!("good-{partition}"), "\"aborted\"");
            producer.send(&scratch.topic.name, partition, &format!("bad-{partition}"), "\"aborted\"");
        }
        producer.abort();
        // The last offset of each partition is a marker, and the records just before it are aborted.
        scratch.sync(&live).await;
        assert_eq!(live.get("good-3").unwrap().json(), round.to_string());
    }
    let expected = (0..4).map(|partition| (format!("good-{partition}"), "2".to_owned())).collect();
    let loaded = scratch.table(Codecs::default()).await;
    assert!(matches!(loaded.status(), Status::CaughtUp), "{}", loaded.status());
    for table in [&live, &loaded] {
        assert_eq!(contents(table), expected);
        assert_eq!(table.stats().records, 12);
    }
    let options = LogOptions { isolation: Isolation::ReadUncommitted, ..LogOptions::default() };
    let uncommitted = Scratch::existing(&kafka::shared(), options, &scratch.topic.name).await;
    let table = uncommitted.table(Codecs::default()).await;
    assert_eq!((table.len(), table.stats().records), (8, 36));
    assert_eq!(table.get("bad-0").unwrap().json(), "\"aborted\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_hides_later_records_until_it_ends() {
    let scratch = LogKind::Kafka.scratch(1).await;
    scratch.put("before", Some(b"1")).await;
    let live = scratch.table(Codecs::default()).await;
    let producer = Transactional::new(&kafka::shared());
    producer.begin();
    producer.send(&scratch.topic.name, 0, "inside", "2");
    scratch.put("after", Some(b"3")).await;
    // Neither a starting table nor a barrier counts the partition as complete.
    let builder = Table::builder(scratch.log.clone(), &scratch.topic.name, Codecs::default());
    let loading = builder.catchup_timeout(Duration::from_secs(1)).start().await.unwrap();
    let status = loading.status();
    assert!(matches!(&status, Status::Degraded(reason) if reason.contains(" of 3")), "{status}");
    eventually_async("the record before the transaction is in the table", || loading.get("before")).await;
    assert!(!live.barrier(Duration::from_millis(300)).await.is_fresh());
    for table in [&live, &loading] {
        assert_eq!(contents(table), BTreeMap::from([("before".to_owned(), "1".to_owned())]));
    }
    producer.commit();
    for table in [&live, &loading] {
        scratch.sync(table).await;
        assert_eq!(table.len(), 3);
        wait_until_caught_up(table).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_by_the_broker_gives_the_same_table() {
    let bootstrap = kafka::shared();
    let name = kafka::create_compacting(&bootstrap, 2).await;
    let scratch = Scratch::existing(&bootstrap, LogOptions::default(), &name).await;
    let live = scratch.table(Codecs::default()).await;
    let mut written = 0;
    for round in 0..5 {
        let records = (0..100).map(|n| record(&format!("k{n}"), (n % 10 > 0 || round < 4).then_some(b"1")));
        written += scratch.write(records.collect()).await.len();
    }
    // Another record rolls the segment, and the cleaner compacts the segments before it.
    let deadline = std::time::Instant::now() + TIMEOUT;
    let compacted = loop {
        for partition in 0..2 {
            scratch
                .write(vec![NewRecord {
                    partition: Some(partition),
                    ..record(&format!("roll-{partition}"), Some(b"0"))
                }])
                .await;
            written += 1;
        }
        let table = scratch.table(Codecs::default()).await;
        if (table.stats().records as usize) < written / 2 {
            break table;
        }
        assert!(std::time::Instant::now() < deadline, "the broker does not compact");
    };
    scratch.sync(&live).await;
    scratch.sync(&compacted).await;
    assert_eq!(live.len(), 92);
    assert_eq!(contents(&live), contents(&compacted));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_compression_codecs_are_read() {
    let scratch = LogKind::Kafka.scratch(1).await;
    let value = format!("\"{}\"", "compressible ".repeat(200));
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let properties = BTreeMap::from([
            ("compression.type".to_owned(), codec.to_owned()),
            ("linger.ms".to_owned(), "5".to_owned()),
        ]);
        let options = LogOptions { properties, ..LogOptions::default() };
        let writer = Scratch::existing(&kafka::shared(), options, &scratch.topic.name).await;
        let records = (0..50).map(|n| record(&format!("{codec}-{n}"), Some(value.as_bytes())));
        writer.write(records.collect()).await;
    }
    let table = scratch.table(Codecs::default()).await;
    assert_eq!(table.len(), 250);
    assert!(table.snapshot().iter().all(|entry| entry.json() == value));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_replaced_client_did_not_write_are_listed_by_close() {
    let scratch = Scratch::on_cluster(
        &kafka::shared(),
        LogOptions {
            properties: [("linger.ms".to_owned(), "60000".to_owned())].into(),
            ..LogOptions::default()
        },
        1,
    )
    .await;
    let queued = scratch.log.send(&scratch.topic, record("queued", Some(b"1"))).await.unwrap();
    // A recreated topic gets another client.
    let recreated = scratch.recreate_topic(1).await;
    drop(scratch.log.send(&recreated, record("new", Some(b"1"))).await.unwrap());
    let lost = scratch.log.close(Duration::from_millis(200)).await;
    let keys: std::collections::BTreeSet<_> = lost.iter().map(|lost| lost.key.clone().unwrap()).collect();
    assert_eq!(keys, [b"queued".to_vec(), b"new".to_vec()].into());
    assert!(queued.await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_64_mostly_empty_partitions_catches_up() {
    let scratch = LogKind::Kafka.scratch(64).await;
    let empty = scratch.table(Codecs::default()).await;
    assert!(matches!(empty.status(), Status::CaughtUp));
    for partition in [0, 17, 63] {
        let records = (0..100).map(|n| NewRecord {
            partition: Some(partition),
            ..record(&format!("{partition}-{n}"), Some(b"1"))
        });
        scratch.write(records.collect()).await;
    }
    scratch.sync(&empty).await;
    let loaded = scratch.table(Codecs::default()).await;
    for table in [&empty, &loaded] {
        assert!(matches!(table.status(), Status::CaughtUp));
        assert_eq!((table.len(), table.stats().partitions.len()), (300, 64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_are_read_from_their_first_record() {
    let scratch = LogKind::Kafka.scratch(1).await;
    scratch.put("old", Some(b"1")).await;
    let table = scratch.table(Codecs::default()).await;
    let mut watcher = table.watch(WatchStart::Now);
    kafka::grow(&kafka::shared(), &scratch.topic.name, 3).await;
    // This log knows all three partitions from the start.
    let grown = open_with_partitions(&scratch, 3).await;
    for partition in 0..3 {
        let new = NewRecord { partition: Some(partition), ..record(&format!("new-{partition}"), Some(b"2")) };
        grown.write(vec![new]).await;
    }
    // The barrier covers everything acknowledged before, in all partitions.
    scratch.sync(&table).await;
    assert_eq!((table.len(), table.stats().partitions.len()), (4, 3));
    let mut changed_keys = Vec::new();
    while changed_keys.len() < 3 {
        match tokio::time::timeout(TIMEOUT, watcher.next()).await.unwrap().unwrap() {
            WatchEvent::Change(change) => changed_keys.push(change.key().to_owned()),
            other => panic!("{other:?}"),
        }
    }
    changed_keys.sort();
    assert_eq!(changed_keys, ["new-0", "new-1", "new-2"]);
    assert!(matches!(table.status(), Status::CaughtUp));
}

/// Opens logs until one describes this many partitions.
async fn open_with_partitions(scratch: &Scratch, partitions: i32) -> Scratch {
    let deadline = std::time::Instant::now() + TIMEOUT;
    loop {
        let grown = Scratch::existing(&kafka::shared(), LogOptions::default(), &scratch.topic.name).await;
        if grown.topic.partitions == partitions {
            return grown;
        }
        assert!(std::time::Instant::now() < deadline, "the log does not describe the added partitions");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_timestamps_null_and_empty_bytes_are_read_as_written() {
    let scratch = LogKind::Kafka.scratch(1).await;
    let header =
        |name: &str, value: Option<&[u8]>| Header { name: name.to_owned(), value: value.map(<[u8]>::to_vec) };
    let headers = vec![
        header("a", Some(b"1")),
        header("null", None),
        header("empty", Some(b"")),
        header("a", Some(b"2")),
    ];
    let null_key = NewRecord { value: Some(b"x".to_vec()), ..NewRecord::default() };
    let records = vec![
        NewRecord { headers: headers.clone(), ..record("k", Some(b"1")) },
        record("", Some(b"")),
        record("deleted", None),
        null_key,
    ];
    scratch.write(records).await;
    let ranges = scratch.log.offsets(&scratch.topic).await.unwrap();
    let mut streams = scratch.log.read(&scratch.topic, &ranges, Headers::Wanted).await.unwrap();
    let TopicEvent::Partition(mut stream) = streams.next().await.unwrap().unwrap() else { panic!() };
    let mut read = Vec::new();
    while read.len() < 4 {
        if let StreamItem::Records(batch) = stream.next().await.unwrap().unwrap() {
            for index in 0..batch.len() {
                let record = batch.get(index);
                let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                let age =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
                        as i64
                        - record.timestamp.unwrap();
                assert!((-1000..60_000).contains(&age), "{age} ms");
                read.push((bytes(record.key), bytes(record.value), record.headers.to_vec()));
            }
        }
    }
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    let expected = [
        (some(b"k"), some(b"1"), headers),
        (some(b""), some(b""), Vec::new()),
        (some(b"deleted"), None, Vec::new()),
        (None, some(b"x"), Vec::new()),
    ];
    assert_eq!(read, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_after_each_of_a_thousand_writes_is_fresh() {
    let scratch = LogKind::Kafka.scratch(4).await;
    let table = scratch.table(Codecs::default()).await;
    let writer = Writer::open(scratch.log.clone(), &scratch.topic.name, Codecs::default()).await.unwrap();
    for number in 0..1000 {
        let key = format!("key-{}", number % 50);
        writer.set(&key, number.to_string()).await.unwrap();
        scratch.sync(&table).await;
        assert_eq!(table.get(&key).unwrap().json(), number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_concurrent_barriers_are_all_fresh() {
    let scratch = LogKind::Kafka.scratch(2).await;
    let table = scratch.table(Codecs::default()).await;
    for number in 0..20 {
        scratch.put("k", Some(number.to_string().as_bytes())).await;
        let barriers: Vec<_> = (0..50)
            .map(|_| {
                let table = table.clone();
                tokio::spawn(async move {
                    (table.barrier(TIMEOUT).await, table.get("k").unwrap().json().to_owned())
                })
            })
            .collect();
        for barrier in barriers {
            let (freshness, value) = barrier.await.unwrap();
            assert!(freshness.is_fresh());
            assert_eq!(value, number.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_one_topic_share_a_log() {
    let scratch = LogKind::Kafka.scratch(2).await;
    scratch.put("k", Some(b"0")).await;
    let mut tables = Vec::new();
    for _ in 0..3 {
        tables.push(scratch.table(Codecs::default()).await);
    }
    for number in 1..20 {
        scratch.put("k", Some(number.to_string().as_bytes())).await;
        for table in &tables {
            scratch.sync(table).await;
            assert_eq!(table.get("k").unwrap().json(), number.to_string());
        }
        // Replaces one table, so that tables of different ages share the log.
        tables.remove(0);
        tables.push(scratch.table(Codecs::default()).await);
    }
    for table in &tables {
        table.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_table_blocks_no_other_and_loses_nothing() {
    let stalled = LogKind::Kafka.scratch(2).await;
    let name = ktables_tests::unique("quick");
    kafka::create(&kafka::shared(), &name, 2, &[]).await;
    let quick_topic = kafka::wait_for_topic(stalled.log.as_ref(), &name).await;
    let codec = Arc::new(FaultyCodec::default());
    let codecs = Codecs { value: codec.clone(), ..Codecs::default() };
    let stalled_table = stalled.table(codecs).await;
    let builder = Table::builder(stalled.log.clone(), &name, Codecs::default());
    let quick_table = builder.start().await.unwrap();
    codec.fail();
    // Far more records than a stream and the client's queue can hold.
    let value = format!("\"{}\"", "x".repeat(1000));
    let records = (0..40_000).map(|n| record(&format!("k{}", n % 1000), Some(value.as_bytes())));
    stalled.write(records.collect()).await;
    for number in 0..20 {
        let delivery = stalled.log.send(&quick_topic, record("k", Some(number.to_string().as_bytes()))).await;
        delivery.unwrap().await.unwrap();
        assert!(quick_table.barrier(TIMEOUT).await.is_fresh());
        assert_eq!(quick_table.get("k").unwrap().json(), number.to_string());
    }
    codec.recover();
    stalled.sync(&stalled_table).await;
    assert_eq!((stalled_table.stats().records, stalled_table.len()), (40_000, 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_with_undecoded_records_lags() {
    let (bootstrap, name) = (kafka::shared(), ktables_tests::unique("t"));
    kafka::create(&bootstrap, &name, 2, &[]).await;
    let options = LogOptions { stale_after: STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::existing(&bootstrap, options, &name).await;
    let codec = Arc::new(FaultyCodec::default());
    let table = scratch.table(Codecs { value: codec.clone(), ..Codecs::default() }).await;
    codec.block();
    scratch.put("k", Some(b"1")).await;
    let reason = eventually_async("the status reports the lag", || table.status().reason()).await;
    // A time follows, as 2026-11-21T06:05:55Z.
    assert!(reason.contains(" behind since 20"), "{reason}");
    codec.recover();
    wait_until_caught_up(&table).await;
    assert_eq!(table.get("k").unwrap().json(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_load_does_not_block_others() {
    // Enough records that the load takes as much of the loading clients' memory budget as one load may.
    let large = LogKind::Kafka.scratch(1).await;
    large.write((0..270_000).map(|n| record(&format!("k{}", n % 1000), Some(b"1"))).collect()).await;
    let codec = Arc::new(FaultyCodec::default());
    codec.fail();
    let codecs = Codecs { value: codec.clone(), ..Codecs::default() };
    let builder = Table::builder(large.log.clone(), &large.topic.name, codecs);
    let stalled = builder.open().await.unwrap();
    eventually_async("the load has begun", || {
        stalled.status().reason()?.contains("a test fault").then_some(())
    })
    .await;
    let other = LogKind::Kafka.scratch(1).await;
    other.put("k", Some(b"1")).await;
    let table = other.table(Codecs::default()).await;
    assert!(matches!(table.status(), Status::CaughtUp), "{}", table.status());
    codec.recover();
    wait_until_caught_up(&stalled).await;
    large.sync(&stalled).await;
    assert_eq!((stalled.stats().records, stalled.len()), (270_000, 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_dropped_with_a_full_stream_does_not_block_the_next_one() {
    let scratch = LogKind::Kafka.scratch(1).await;
    let codec = Arc::new(FaultyCodec::default());
    for round in 0..3 {
        codec.recover();
        let codecs = Codecs { value: codec.clone(), ..Codecs::default() };
        let full = scratch.table(codecs).await;
        codec.fail();
        scratch.write((0..20_000).map(|n| record(&format!("k{n}"), Some(b"1"))).collect()).await;
        eventually_async("the codec fails", || {
            full.status().reason()?.contains("a test fault").then_some(())
        })
        .await;
        full.stop().await;
        drop(full);
        let next = scratch.table(Codecs::default()).await;
        scratch.put("last", Some(round.to_string().as_bytes())).await;
        scratch.sync(&next).await;
        assert_eq!((next.len(), next.get("last").unwrap().json()), (20_001, &*round.to_string()));
    }
}
