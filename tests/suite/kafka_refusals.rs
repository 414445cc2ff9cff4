//! Tests of records, batches and addresses that cannot work: each is refused with the reason, and blocks
//! nothing else.

use std::fmt::Write;
use std::time::{Duration, Instant};

use ktables::codec::Codecs;
use ktables::log::{LogError, LogOptions, NewRecord};
use ktables::writer::{Target, Write as Entry, WriteError, Writer};
use ktables_tests::{LogKind, Scratch, kafka, ktables, record, run, run_with_stdin, succeed, unique};

/// Creates a topic with these settings.
async fn topic_with(settings: &[(&str, &str)]) -> Scratch {
    let name = unique("refusals");
    kafka::create(&kafka::shared(), &name, 1, settings).await;
    Scratch::existing(&kafka::shared(), LogOptions::default(), &name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_a_small_max_message_bytes_gets_small_batches() {
    let scratch = topic_with(&[("max.message.bytes", "10000"), ("cleanup.policy", "compact")]).await;
    let mut lines = String::new();
    for number in 0..4096 {
        writeln!(lines, "{{\"key\":\"k{number}\",\"value\":\"{}\"}}", "x".repeat(100)).unwrap();
    }
    let imported = run_with_stdin(&mut scratch.ktables(&["import"]), &lines);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    assert_eq!(imported.json()[0]["acknowledged"], 4096);

    // Only the records that are too large are refused, and the errors name both limits.
    let large = |bytes: usize| format!("{{\"key\":\"large{bytes}\",\"value\":\"{}\"}}\n", "x".repeat(bytes));
    let lines = format!("{lines}{}{lines}{}{lines}", large(20_000), large(1_200_000));
    let imported = run_with_stdin(&mut scratch.ktables(&["import"]), &lines);
    assert_eq!(imported.code, 1, "{}", imported.stderr);
    let report = &imported.json()[0];
    assert_eq!((&report["acknowledged"], &report["refused"]), (&(3 * 4096).into(), &2.into()));
    assert_eq!(imported.stderr.matches("max.message.bytes").count(), 2, "{}", imported.stderr);
    assert!(imported.stderr.contains("10000") && imported.stderr.contains("message.max.bytes"));

    // A transaction keeps to the limit, too.
    let writer = Writer::open(scratch.log.clone(), &scratch.topic.name, Codecs::default()).await.unwrap();
    let value = format!("\"{}\"", "y".repeat(100));
    let all = (0..500)
        .map(|number| Entry { target: Target::Key(format!("k{number}")), value: Some(value.clone()) });
    assert_eq!(writer.set_many(all).atomic().await.unwrap().len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_queue_cannot_hold_is_refused() {
    let scratch = topic_with(&[]).await;
    let value = format!("\"{}\"", "x".repeat(2000));
    let set = run(&mut scratch.ktables(&["set", "k", &value, "-X", "queue.buffering.max.kbytes=1"]));
    assert_eq!(set.code, 1, "{}", set.stderr);
    assert!(set.stderr.contains("queue.buffering.max.kbytes"), "{}", set.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_max_message_bytes_is_noticed() {
    let scratch = topic_with(&[]).await;
    let writer = Writer::open(scratch.log.clone(), &scratch.topic.name, Codecs::default()).await.unwrap();
    let value = format!("\"{}\"", "x".repeat(100));
    let many = |round: usize| {
        let entry = |number| (Target::Key(format!("{round}-{number}")), Some(value.clone()));
        (0..2000).map(entry).map(|(target, value)| Entry { target, value }).collect::<Vec<_>>()
    };
    assert!(writer.set_many(many(0)).await.iter().all(Result::is_ok));
    kafka::alter_setting(&kafka::shared(), &scratch.topic.name, "max.message.bytes", "5000").await;
    // Records in batches that were too large are refused with the reason, and may be written again.
    ktables_tests::eventually_ok("all records are accepted", async || {
        let answers = writer.set_many(many(1)).await;
        let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        for error in &refused {
            assert!(matches!(error, WriteError::InvalidRecord { .. }), "{error}");
            assert!(error.to_string().contains("max.message.bytes"), "{error}");
        }
        if refused.is_empty() { Ok(()) } else { Err(format!("{} records are refused", refused.len())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_can_never_be_written_are_refused_with_the_reason() {
    let scratch = topic_with(&[("cleanup.policy", "compact,delete")]).await;
    let produce = |args: &[&str]| run(&mut scratch.ktables(&[&["produce", "--value", "1"], args].concat()));
    let future = (std::time::SystemTime::now() + Duration::from_secs(86_400 * 30))
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis()
        .to_string();
    for (args, reason) in [
        (&["--key", "a", "--timestamp", "0"][..], "timestamp of 0"),
        (&["--keyless"], "no key"),
        (&["--key", "a", "--timestamp", &future], "message.timestamp.after.max.ms"),
    ] {
        let refused = produce(args);
        assert_eq!(refused.code, 3, "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(reason), "{args:?}: {}", refused.stderr);
        assert!(!refused.stderr.contains("may have been written"), "{args:?}: {}", refused.stderr);
    }
    assert_eq!(produce(&["--key", "a", "--timestamp", "1"]).code, 0);

    // They do not block other records.
    let keyless = NewRecord { value: Some(b"1".to_vec()), ..NewRecord::default() };
    let mut deliveries = Vec::new();
    for number in 0..50 {
        let refused = scratch.log.send(&scratch.topic, keyless.clone()).await;
        assert!(matches!(refused, Err(LogError::InvalidRecord { .. })));
        let record = record(&format!("k{number}"), Some(b"1"));
        deliveries.push(scratch.log.send(&scratch.topic, record).await.unwrap());
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    // A directory log accepts a timestamp of 0.
    let scratch = Scratch::new(1).await;
    succeed(&mut scratch.ktables(&["produce", "--key", "a", "--value", "1", "--timestamp", "0"]));
    let entry = succeed(&mut scratch.ktables(&["get", "a", "--verbose"])).json().remove(0);
    assert_eq!(entry["timestamp"], 0);
}

#[test]
fn an_invalid_address_is_refused_with_the_reason() {
    for (url, reason) in [
        ("kafka://localhost", "port"),
        ("kafka://a:9092,b", "port"),
        ("kafka://[::1]", "port"),
        ("kafka://a:port", "port"),
        ("kafka://", "empty"),
        ("kafka://user:secret@a:9092", "sasl.username"),
        ("kafka:a:9092", "slashes"),
        ("dir:", "folder"),
        ("localhost:9092", "kafka://"),
    ] {
        let refused = run(&mut ktables(&["get", "a", "--log", url, "--topic", "t"]));
        assert_eq!(refused.code, 2, "{url}: {}", refused.stderr);
        assert!(refused.stderr.contains(reason), "{url}: {}", refused.stderr);
        assert!(!refused.stderr.contains("secret"), "{}", refused.stderr);
    }
}

#[test]
fn commands_wait_for_a_silent_broker_only_until_the_catchup_timeout() {
    // It accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("kafka://{}", silent.local_addr().unwrap());
    for command in [&["get", "a"][..], &["set", "a", "1"], &["dump"], &["watch"]] {
        let started = Instant::now();
        let args = [command, &["--log", &url, "--topic", "t", "--catchup-timeout", "1s"]].concat();
        let refused = run(&mut ktables(&args));
        assert_eq!(refused.code, 3, "{command:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(&url), "{command:?}: {}", refused.stderr);
        // Generous for a timeout of one second. Without the timeout, a command takes ten seconds.
        assert!(started.elapsed() < Duration::from_secs(5), "{command:?}: {:?}", started.elapsed());
    }
}

async fn a_flush_that_times_out_gives_up_no_record(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    let delivery = scratch.log.send(&scratch.topic, record("a", Some(b"1"))).await.unwrap();
    // A flush without any time to wait.
    scratch.log.flush(Duration::ZERO).await;
    delivery.await.unwrap();
    assert!(scratch.log.flush(ktables_tests::TIMEOUT).await);
    assert_eq!(scratch.log.close(ktables_tests::TIMEOUT).await, []);
}

ktables_tests::on_each_log! {
    a_flush_that_times_out_gives_up_no_record,
}
