//! Several processes on one log; processes that die.

use std::collections::BTreeMap;

use ktables::codec::Codecs;
use ktables_tests::{On, Running, Scratch, eventually, on_each_log, record, run_with, succeed};
use serde_json::{Value, json};

async fn two_writing_and_three_reading_processes(on: On) {
    const EACH: usize = 2000;
    let scratch = on.scratch(4).await;
    let readers: Vec<Running> = (0..3).map(|_| Running::start(&mut scratch.ktables(&["watch"]))).collect();
    readers.iter().for_each(|reader| drop(reader.until(|line| line["event"] == "synced")));
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let mut import = scratch.ktables(&["import"]);
            std::thread::spawn(move || {
                let line =
                    |n: usize| json!({"key": format!("key-{}", n % 300), "value": [writer, n]}).to_string();
                let lines: Vec<String> = (0..EACH).map(line).collect();
                run_with(&mut import, &lines.join("\n"))
            })
        })
        .collect();
    for writer in writers {
        let ended = writer.join().unwrap();
        assert_eq!(ended.json()[0]["acknowledged"], EACH, "{}", ended.stderr);
    }
    let table = scratch.table(Codecs::default()).await;
    assert_eq!(table.stats().records as usize, 2 * EACH);
    let expected: BTreeMap<String, String> =
        table.snapshot().iter().map(|e| (e.key().to_owned(), e.json().to_owned())).collect();
    for reader in readers {
        let mut seen = BTreeMap::new();
        for _ in 0..2 * EACH {
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
async fn killed_writers_lose_nothing_that_was_acknowledged() {
    let scratch = Scratch::new(2).await;
    let program = std::env::current_exe().unwrap();
    let mut acknowledged: Vec<(i64, i64, String)> = Vec::new();
    for round in 0..6 {
        // This very test binary writes, and prints each acknowledgement.
        let mut writer = std::process::Command::new(&program);
        writer.args(["--exact", "processes::write_for_ever", "--nocapture", "--quiet"]);
        let mut writer = Running::start(
            writer.env("KTABLES_TEST_LOG", scratch.url()).env("KTABLES_TEST_ROUND", round.to_string()),
        );
        for _ in 0..20 + round * 30 {
            acknowledged.push(ack(&writer.next_with("ACK ")));
        }
        writer.kill();
        acknowledged.extend(writer.rest_with("ACK ").iter().map(|line| ack(line)));
        // The next process repairs what this one left.
        scratch.write(vec![record(&format!("round-{round}"), Some(b"1"))]).await;
    }
    let table = scratch.table(Codecs::default()).await;
    for (partition, offset, key) in acknowledged {
        let entry = table.get(&key).unwrap_or_else(|| panic!("{key} was acknowledged and is lost"));
        assert_eq!((i64::from(entry.partition()), entry.offset()), (partition, offset), "{key}");
    }
}

fn ack(line: &str) -> (i64, i64, String) {
    let mut words = line.split(' ');
    let mut number = || words.next().unwrap().parse().unwrap();
    let (partition, offset) = (number(), number());
    (partition, offset, words.next().unwrap().to_owned())
}

/// Not a test: what the processes above run, until they are killed.
#[tokio::test]
async fn write_for_ever() {
    use std::io::Write;
    let (Ok(url), Ok(round)) = (std::env::var("KTABLES_TEST_LOG"), std::env::var("KTABLES_TEST_ROUND"))
    else {
        return;
    };
    let log = ktables::log::open(&url).unwrap();
    let topic = log.describe(ktables_tests::TOPIC).await.unwrap();
    for number in 0_u64.. {
        // Several at once, so that appends hold several records.
        let keys: Vec<String> = (0..1 + number % 5).map(|part| format!("{round}-{number}-{part}")).collect();
        let mut deliveries = Vec::new();
        for key in &keys {
            deliveries.push(log.send(&topic, record(key, Some(b"\"some value\""))).await.unwrap());
        }
        for (key, delivery) in keys.iter().zip(deliveries) {
            let ack = delivery.await.unwrap();
            writeln!(std::io::stdout(), "ACK {} {} {key}", ack.partition, ack.offset).unwrap();
        }
    }
}

async fn a_watch_ends_cleanly_on_ctrl_c(on: On) {
    let scratch = on.scratch(1).await;
    for signal in ["INT", "TERM"] {
        let mut watch = Running::start(&mut scratch.ktables(&["watch"]));
        watch.until(|line| line["event"] == "synced");
        watch.signal(signal);
        assert_eq!(watch.wait(), 0, "{signal}");
    }
}

async fn an_import_that_is_interrupted_says_how_far_it_came(on: On) {
    use std::io::Write;
    use std::process::Stdio;
    let scratch = on.scratch(1).await;
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
    two_writing_and_three_reading_processes,
    a_watch_ends_cleanly_on_ctrl_c,
    an_import_that_is_interrupted_says_how_far_it_came,
);
