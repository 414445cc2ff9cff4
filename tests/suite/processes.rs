//! Several processes that use one log, and processes that are killed or interrupted.

use std::collections::BTreeMap;

use ktables::codec::Codecs;
use ktables_tests::{
    LogKind, RunningCommand, Scratch, eventually, on_each_log, record, run_with_stdin, succeed,
};
use serde_json::{Value, json};

async fn three_reading_processes_agree_on_the_writes_of_two_others(kind: LogKind) {
    const RECORDS_PER_WRITER: usize = 2000;
    let scratch = kind.scratch(4).await;
    let readers: Vec<RunningCommand> =
        (0..3).map(|_| RunningCommand::start(&mut scratch.ktables(&["watch"]))).collect();
    readers.iter().for_each(|reader| drop(reader.until(|line| line["event"] == "synced")));
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let mut import = scratch.ktables(&["import"]);
            std::thread::spawn(move || {
                let line =
                    |n: usize| json!({"key": format!("key-{}", n % 300), "value": [writer, n]}).to_string();
                let lines: Vec<String> = (0..RECORDS_PER_WRITER).map(line).collect();
                run_with_stdin(&mut import, &lines.join("\n"))
            })
        })
        .collect();
    for writer in writers {
        let ended = writer.join().unwrap();
        assert_eq!(ended.json()[0]["acknowledged"], RECORDS_PER_WRITER, "{}", ended.stderr);
    }
    let table = scratch.table(Codecs::default()).await;
    assert_eq!(table.stats().records as usize, 2 * RECORDS_PER_WRITER);
    let expected: BTreeMap<String, String> =
        table.snapshot().iter().map(|e| (e.key().to_owned(), e.json().to_owned())).collect();
    for reader in readers {
        let mut seen = BTreeMap::new();
        for _ in 0..2 * RECORDS_PER_WRITER {
            let change = reader.next();
            let key = change["key"].as_str().unwrap_or_else(|| panic!("{change}"));
            let old = seen.insert(key.to_owned(), change["new"].to_string());
            assert_eq!(old.unwrap_or_else(|| "null".to_owned()), change["old"].to_string());
        }
        assert_eq!(seen, expected);
        assert_eq!(reader.rest(), Vec::<Value>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_lose_no_acknowledged_record() {
    let scratch = Scratch::new(2).await;
    let program = std::env::current_exe().unwrap();
    let mut acknowledged: Vec<(i64, i64, String)> = Vec::new();
    for round in 0..6 {
        // A process of this test binary writes, and prints each acknowledgement.
        let mut writer = std::process::Command::new(&program);
        writer.args(["--exact", "processes::write_until_killed", "--nocapture", "--quiet"]);
        let mut writer = RunningCommand::start(
            writer.env("KTABLES_TEST_LOG", scratch.url()).env("KTABLES_TEST_ROUND", round.to_string()),
        );
        for _ in 0..20 + round * 30 {
            acknowledged.push(parse_ack(&writer.next_with_prefix("ACK ")));
        }
        writer.kill();
        acknowledged.extend(writer.rest_with_prefix("ACK ").iter().map(|line| parse_ack(line)));
        // The next write repairs the log that the killed process left.
        scratch.write(vec![record(&format!("round-{round}"), Some(b"1"))]).await;
    }
    let table = scratch.table(Codecs::default()).await;
    for (partition, offset, key) in acknowledged {
        let entry = table.get(&key).unwrap_or_else(|| panic!("the acknowledged record {key} is lost"));
        assert_eq!((i64::from(entry.partition()), entry.offset()), (partition, offset), "{key}");
    }
}

/// Parses the partition, the offset and the key of a printed acknowledgement.
fn parse_ack(line: &str) -> (i64, i64, String) {
    let mut words = line.split(' ');
    let mut number = || words.next().unwrap().parse().unwrap();
    let (partition, offset) = (number(), number());
    (partition, offset, words.next().unwrap().to_owned())
}

/// Not a test: the killed processes above run this.
#[tokio::test]
async fn write_until_killed() {
    use std::io::Write;
    let (Ok(url), Ok(round)) = (std::env::var("KTABLES_TEST_LOG"), std::env::var("KTABLES_TEST_ROUND"))
    else {
        return;
    };
    let log = ktables::log::open(&url).unwrap();
    let topic = log.describe(ktables_tests::TOPIC).await.unwrap();
    for number in 0_u64.. {
        // Several records at once, so that one append has several records.
        let keys: Vec<String> = (0..1 + number % 5).map(|part| format!("{round}-{number}-{part}")).collect();
        let mut deliveries = Vec::new();
        for key in &keys {
            deliveries.push(log.send(&topic, record(key, Some(b"\"some value\""))).await.unwrap());
        }
        for (key, delivery) in keys.iter().zip(deliveries) {
            let ack = delivery.await.unwrap();
            writeln!(std::io::stdout(), "ACK {} {} {key}", ack.partition, ack.offset.unwrap()).unwrap();
        }
    }
}

async fn a_watch_exits_cleanly_on_sigint_and_sigterm(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    for signal in ["INT", "TERM"] {
        let mut watch = RunningCommand::start(&mut scratch.ktables(&["watch"]));
        watch.until(|line| line["event"] == "synced");
        watch.signal(signal);
        assert_eq!(watch.wait(), 0, "{signal}");
    }
}

async fn an_interrupted_import_reports_the_number_of_acknowledged_records(kind: LogKind) {
    use std::io::Write;
    use std::process::Stdio;
    let scratch = kind.scratch(1).await;
    let mut import = scratch.ktables(&["import"]);
    let mut child =
        import.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = (0..5000).map(|n| format!("{{\"key\":\"k{n}\",\"value\":{n}}}\n")).collect();
    stdin.write_all(lines.as_bytes()).unwrap();
    eventually("a first part is acknowledged", || {
        let topic = succeed(&mut scratch.ktables(&["topic", "describe"]));
        (topic.json()[0]["partitions"][0]["end"].as_i64()? > 0).then_some(())
    });
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let end = scratch.log.offsets(&scratch.topic).await.unwrap()[0].end;
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["acknowledged"], end);
}

on_each_log!(
    three_reading_processes_agree_on_the_writes_of_two_others,
    a_watch_exits_cleanly_on_sigint_and_sigterm,
    an_interrupted_import_reports_the_number_of_acknowledged_records,
);
