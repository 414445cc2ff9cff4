//! The directory log: its format, checked with an independent decoder; torn tails, damage, and segments.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use ktables::codec::Codecs;
use ktables::log::{Header, Headers, LogError, NewRecord, NewTopic, OffsetRange, StreamItem, TopicEvent};
use ktables::table::{Status, TableError};
use ktables_tests::{Scratch, TOPIC, eventually_async, record};
use proptest::prelude::*;

/// Decodes record batches, version 2, as Kafka's documentation describes them. Uses no code of the crate that
/// wrote them.
mod independent {
    /// The offset, key, value and headers of a record.
    pub(super) type Record = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

    struct Bytes<'a>(&'a [u8]);

    impl<'a> Bytes<'a> {
        fn take(&mut self, len: usize) -> &'a [u8] {
            let (taken, rest) = self.0.split_at(len);
            self.0 = rest;
            taken
        }

        fn int(&mut self, len: usize) -> i64 {
            let bytes = self.take(len);
            let sign = if bytes[0] & 0x80 == 0 { 0 } else { -1 };
            bytes.iter().fold(sign, |value, &byte| value << 8 | i64::from(byte))
        }

        /// Decodes a zigzag varint: seven bits in each byte, the low ones first.
        fn varint(&mut self) -> i64 {
            let (mut value, mut shift) = (0_u64, 0);
            loop {
                let byte = self.take(1)[0];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return (value >> 1) as i64 ^ -((value & 1) as i64);
                }
            }
        }

        fn nullable(&mut self) -> Option<Vec<u8>> {
            let len = usize::try_from(self.varint()).ok()?;
            Some(self.take(len).to_vec())
        }
    }

    pub(super) fn records(segment: &[u8]) -> Vec<Record> {
        let mut segment = Bytes(segment);
        let mut records = Vec::new();
        while !segment.0.is_empty() {
            let base = segment.int(8);
            let len = segment.int(4);
            let mut batch = Bytes(segment.take(len as usize));
            let _leader_epoch = batch.int(4);
            assert_eq!(batch.int(1), 2, "magic");
            let checksum = batch.int(4) as u32;
            assert_eq!(crc32c::crc32c(batch.0), checksum, "checksum at offset {base}");
            assert_eq!(batch.int(2), 0, "no compression, create time, no transaction");
            let last_delta = batch.int(4);
            let (first_timestamp, last_timestamp) = (batch.int(8), batch.int(8));
            assert!(first_timestamp > 1_600_000_000_000 && last_timestamp >= first_timestamp);
            assert_eq!((batch.int(8), batch.int(2), batch.int(4)), (-1, -1, -1), "no producer");
            let count = batch.int(4);
            assert_eq!(count, last_delta + 1);
            for index in 0..count {
                let len = batch.varint();
                let mut record = Bytes(batch.take(len as usize));
                assert_eq!(record.int(1), 0, "attributes");
                let _timestamp_delta = record.varint();
                assert_eq!(record.varint(), index, "offset delta");
                let (key, value) = (record.nullable(), record.nullable());
                let headers = (0..record.varint())
                    .map(|_| {
                        let len = record.varint() as usize;
                        (String::from_utf8(record.take(len).to_vec()).unwrap(), record.nullable())
                    })
                    .collect();
                assert!(record.0.is_empty());
                records.push((base + index, key, value, headers));
            }
            assert!(batch.0.is_empty());
        }
        records
    }
}

fn segment(scratch: &Scratch, partition: i32) -> PathBuf {
    scratch.path().join(format!("{TOPIC}/{partition}/00000000000000000000.log"))
}

#[tokio::test]
async fn segments_follow_kafkas_record_batch_format() {
    let scratch = Scratch::new(1).await;
    let headers = vec![
        Header { name: "origin".to_owned(), value: Some(b"test".to_vec()) },
        Header { name: "none".to_owned(), value: None },
        Header { name: "empty".to_owned(), value: Some(Vec::new()) },
    ];
    let mut records = vec![
        record("key", Some(b"value")),
        record("", Some(b"")),
        record("deleted", None),
        NewRecord { value: Some(b"keyless".to_vec()), ..NewRecord::default() },
        NewRecord { headers, ..record("with headers", Some(&[0xff; 300])) },
    ];
    records.extend((0..2000).map(|n| record(&format!("key-{n}"), Some(n.to_string().as_bytes()))));
    scratch.write(records.clone()).await;
    let read = independent::records(&fs::read(segment(&scratch, 0)).unwrap());
    assert_eq!(read.len(), records.len());
    for (index, (read, written)) in read.into_iter().zip(records).enumerate() {
        let headers: Vec<_> = written.headers.into_iter().map(|header| (header.name, header.value)).collect();
        assert_eq!(read, (index as i64, written.key, written.value, headers));
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_no_acknowledged_record_is_lost() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    let whole = fs::read(segment(&scratch, 0)).unwrap();
    scratch.put("b", Some(b"2")).await;
    let both = fs::read(segment(&scratch, 0)).unwrap();
    let second = &both[whole.len()..];
    // Incomplete writes of many lengths, and blocks of zeros that were allocated and never written.
    let mut tails: Vec<Vec<u8>> = (1..second.len()).step_by(7).map(|len| second[..len].to_vec()).collect();
    tails.push(vec![0; 4096]);
    tails.push([&second[..40], &vec![0; second.len() - 40]].concat());
    for tail in tails {
        let scratch = Scratch::new(1).await;
        scratch.put("a", Some(b"1")).await;
        OpenOptions::new().append(true).open(segment(&scratch, 0)).unwrap().write_all(&tail).unwrap();
        // A reader ignores the torn tail, and reads the record that is written after it was cut.
        let table = scratch.table(Codecs::default()).await;
        assert_eq!(table.len(), 1);
        let ack = scratch.put("c", Some(b"3")).await;
        assert_eq!(ack.offset, Some(1));
        scratch.sync(&table).await;
        assert_eq!(table.get("c").unwrap().json(), "3");
        assert_eq!(independent::records(&fs::read(segment(&scratch, 0)).unwrap()).len(), 2);
    }
}

#[tokio::test]
async fn damage_before_whole_batches_is_an_error_that_names_file_and_offset() {
    let scratch = Scratch::new(1).await;
    for number in 0..3 {
        scratch.put("a", Some(number.to_string().as_bytes())).await;
    }
    let path = segment(&scratch, 0);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&path, &bytes).unwrap();
    let started = ktables::table::Table::builder(scratch.log.clone(), TOPIC, Codecs::default()).start().await;
    let Err(TableError::Log(error @ LogError::Corrupt { offset: 1, .. })) = started else {
        panic!("{started:?}")
    };
    assert!(error.to_string().contains("00000000000000000000.log"), "{error}");
    // Another process that writes does not cut the damaged bytes: the file may be restored.
    let other = ktables::log::open(&scratch.url()).unwrap();
    let written = other.send(&scratch.topic, record("b", Some(b"1"))).await.unwrap().await;
    assert!(matches!(written, Err(LogError::Corrupt { offset: 1, .. })), "{written:?}");
    assert!(fs::read(&path).unwrap() == bytes, "the log was changed");
}

#[tokio::test]
async fn a_damaged_length_does_not_hide_later_batches() {
    let scratch = Scratch::new(1).await;
    for number in 0..3 {
        scratch.put("a", Some(number.to_string().as_bytes())).await;
    }
    let path = segment(&scratch, 0);
    let mut bytes = fs::read(&path).unwrap();
    // The length of the second batch now reaches far beyond the end of the file.
    let second = bytes.len() / 3;
    bytes[second + 8] ^= 0x01;
    fs::write(&path, &bytes).unwrap();
    let started = ktables::table::Table::builder(scratch.log.clone(), TOPIC, Codecs::default()).start().await;
    assert!(matches!(started, Err(TableError::Log(LogError::Corrupt { offset: 1, .. }))), "{started:?}");
}

#[tokio::test]
async fn records_before_a_batch_that_cannot_be_read_are_delivered() {
    let scratch = Scratch::new(1).await;
    for number in 0..2 {
        scratch.put("a", Some(number.to_string().as_bytes())).await;
    }
    let path = segment(&scratch, 0);
    let mut bytes = fs::read(&path).unwrap();
    // The second batch claims to be compressed, and its checksum is correct.
    let second = bytes.len() / 2;
    bytes[second + 22] |= 1;
    let crc = crc32c::crc32c(&bytes[second + 21..]);
    bytes[second + 17..second + 21].copy_from_slice(&crc.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    let range = OffsetRange { partition: 0, start: 0, end: 2 };
    let mut events = scratch.log.read(&scratch.topic, &[range], Headers::Unwanted).await.unwrap();
    let Some(Ok(TopicEvent::Partition(mut stream))) = events.next().await else { panic!("no partition") };
    let Some(Ok(StreamItem::Records(records))) = stream.next().await else { panic!("no records") };
    assert_eq!((records.len(), records.get(0).offset), (1, 0));
    let Some(Err(LogError::Corrupt { offset: 1, position, .. })) = stream.next().await else {
        panic!("no error")
    };
    assert_eq!(position, second as u64);
}

#[tokio::test]
async fn records_without_a_key_are_spread_and_can_be_written_atomically() {
    let scratch = Scratch::new(2).await;
    let keyless =
        |count: usize| vec![NewRecord { value: Some(b"1".to_vec()), ..NewRecord::default() }; count];
    let mut partitions = Vec::new();
    for _ in 0..2 {
        let acks = scratch.log.send_atomically(&scratch.topic, keyless(3)).await.unwrap();
        assert!(acks.iter().all(|ack| ack.partition == acks[0].partition), "{acks:?}");
        partitions.push(acks[0].partition);
    }
    assert_eq!(partitions, [0, 1]);
    // It goes where a record with a key goes.
    let mixed = [keyless(1), vec![record("a", Some(b"1"))]].concat();
    let acks = scratch.log.send_atomically(&scratch.topic, mixed).await.unwrap();
    assert_eq!(acks[0].partition, acks[1].partition);
}

#[tokio::test]
async fn a_topic_that_is_deleted_and_restored_is_followed() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    let table = scratch.table(Codecs::default()).await;
    let (folder, backup) = (scratch.path().join(TOPIC), scratch.path().join("backup"));
    let copy = |from: &Path, to: &Path| {
        let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
        assert!(copied.unwrap().success());
    };
    copy(&folder, &backup);
    fs::remove_dir_all(&folder).unwrap();
    eventually_async("the table has noticed", || (table.status() != Status::CaughtUp).then_some(())).await;
    copy(&backup, &folder);
    eventually_async("the table is loaded again", || (table.status() == Status::CaughtUp).then_some(()))
        .await;
    ktables_tests::succeed(&mut scratch.ktables(&["set", "b", "2"]));
    eventually_async("the table follows", || table.get("b")).await;
}

#[tokio::test]
async fn a_log_restored_from_a_backup_is_reloaded() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    let backup = fs::read(segment(&scratch, 0)).unwrap();
    scratch.put("a", Some(b"2")).await;
    let table = scratch.table(Codecs::default()).await;
    assert_eq!(table.get("a").unwrap().json(), "2");
    fs::write(segment(&scratch, 0), &backup).unwrap();
    eventually_async("the table has the contents of the backup", || {
        (table.get("a").unwrap().json() == "1").then_some(())
    })
    .await;
    assert_eq!(scratch.put("b", Some(b"3")).await.offset, Some(1));
    scratch.sync(&table).await;
    assert_eq!(table.get("b").unwrap().json(), "3");
}

#[tokio::test]
async fn damage_while_reading_fails_the_table_and_keeps_its_contents() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    let whole = fs::read(segment(&scratch, 0)).unwrap();
    let table = scratch.table(Codecs::default()).await;
    // A batch of another format, and a valid one after it.
    let mut invalid = whole.clone();
    invalid[16] = 1;
    let mut valid = whole.clone();
    valid[7] = 9;
    let mut file = OpenOptions::new().append(true).open(segment(&scratch, 0)).unwrap();
    file.write_all(&[invalid, valid].concat()).unwrap();
    eventually_async("the table fails", || matches!(table.status(), Status::Failed(_)).then_some(())).await;
    assert_eq!(table.get("a").unwrap().json(), "1");
}

#[tokio::test]
async fn a_partition_continues_in_a_new_segment() {
    let scratch = Scratch::new(1).await;
    let value = format!("\"{}\"", "x".repeat(900_000));
    let follower = scratch.table(Codecs::default()).await;
    for round in 0..8 {
        let records = (0..10).map(|n| record(&format!("key-{round}-{n}"), Some(value.as_bytes()))).collect();
        scratch.write(records).await;
    }
    let segments = fs::read_dir(scratch.path().join(TOPIC).join("0")).unwrap();
    let segments =
        segments.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "log"));
    assert!(segments.count() > 1);
    scratch.sync(&follower).await;
    let table = scratch.table(Codecs::default()).await;
    assert_eq!((table.len(), follower.len()), (80, 80));
    // A log that was just opened finds the end offset, too.
    let other = ktables::log::open(&scratch.url()).unwrap();
    assert_eq!(other.offsets(&scratch.topic).await.unwrap()[0].end, 80);
}

#[tokio::test]
async fn invalid_records_and_topics_are_refused_with_specific_errors() {
    let scratch = Scratch::new(2).await;
    let send = async |record| scratch.log.send(&scratch.topic, record).await.map(drop);
    let too_large = record("a", Some(&vec![0; 2 << 20]));
    assert!(matches!(send(too_large).await, Err(LogError::InvalidRecord { .. })));
    let unknown_partition = NewRecord { partition: Some(2), ..record("a", None) };
    assert!(matches!(send(unknown_partition).await, Err(LogError::UnknownPartition { partitions: 2, .. })));
    for name in ["", ".", "..", "a/b", "a b", &"x".repeat(250)] {
        let created = scratch.log.create(name, NewTopic { partitions: Some(1), ..NewTopic::default() }).await;
        assert!(matches!(created, Err(LogError::InvalidTopic { .. })), "{name}: {created:?}");
    }
    let created = scratch.log.create(TOPIC, NewTopic { partitions: Some(1), ..NewTopic::default() }).await;
    assert!(matches!(created, Err(LogError::TopicExists { .. })));
    assert!(scratch.log.create("p", NewTopic { partitions: Some(0), ..NewTopic::default() }).await.is_err());
}

/// An operation on a log.
#[derive(Debug, Clone)]
enum Step {
    Put(u8, Option<u8>),
    /// The log is opened again, as by another process.
    Reopen,
    /// A process died in the middle of a write, which leaves a torn tail of this many bytes.
    Tear(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..6_u8, proptest::option::weighted(0.8, any::<u8>())).prop_map(|(key, value)| Step::Put(key, value)),
        1 => Just(Step::Reopen),
        1 => (1..100_u8).prop_map(Step::Tear),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever happens to a log, a table of it holds the last acknowledged value of each key.
    #[test]
    fn a_table_holds_the_last_acknowledged_values(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut scratch = Scratch::new(3).await;
            let mut model = std::collections::BTreeMap::new();
            // The lengths of the segment without and with its torn tail.
            let mut torn = (0, 0);
            for step in steps {
                match step {
                    Step::Put(key, value) => {
                        let (key, value) = (format!("k{key}"), value.map(|value| value.to_string()));
                        scratch.put(&key, value.as_ref().map(|value| value.as_bytes())).await;
                        match value {
                            Some(value) => drop(model.insert(key, value)),
                            None => drop(model.remove(&key)),
                        }
                    }
                    Step::Reopen => scratch.log = ktables::log::open(&scratch.url()).unwrap(),
                    Step::Tear(len) => {
                        let path = segment(&scratch, 0);
                        let Ok(mut bytes) = fs::read(&path) else { continue };
                        // Nothing is written after a torn tail, so a new one replaces it.
                        if bytes.len() == torn.1 {
                            bytes.truncate(torn.0);
                        }
                        let end = scratch.log.offsets(&scratch.topic).await.unwrap()[0].end;
                        let mut tail = [&end.to_be_bytes(), &bytes[8..61]].concat();
                        // Shorter than a header, so that it is not a whole batch.
                        tail.truncate(usize::from(len).min(60));
                        torn = (bytes.len(), bytes.len() + tail.len());
                        fs::write(&path, [bytes, tail].concat()).unwrap();
                    }
                }
            }
            let table = scratch.table(Codecs::default()).await;
            let contents: std::collections::BTreeMap<String, String> =
                table.snapshot().iter().map(|e| (e.key().to_owned(), e.json().to_owned())).collect();
            assert_eq!(contents, model);
        });
    }
}
