//! `rejects retry`: dead letters are decoded again, and published if they are accepted and have no newer record.

use ktables::codec::{Bytes, Codecs, Utf8};
use ktables::log::{Header, NewRecord};
use ktables::table::{Clock, SystemClock};
use ktables_tests::{LogKind, Scratch, contents, on_each_log, record, run};
use serde_json::{Value, json};

use super::{create_dead_letters, read_all, start, wait_for_letters};

/// Runs `rejects retry`. Returns the lines of the records, the summary, and the exit code.
fn retry(scratch: &Scratch, arguments: &[&str]) -> (Vec<Value>, Value, i32) {
    let dead_letter = format!("{}-rejected", scratch.topic.name);
    let all = [&["rejects", "retry", "--dead-letter", &dead_letter], arguments].concat();
    let output = run(&mut scratch.ktables(&all));
    let mut lines = output.json();
    let summary = lines.pop().unwrap_or_else(|| panic!("{}", output.stderr));
    (lines, summary, output.code)
}

/// Checks the key and the outcome of each line, and a part of the reason.
fn check_outcomes(lines: &[Value], expected: &[(Value, &str, &str)]) {
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, (key, outcome, reason)) in lines.iter().zip(expected) {
        assert_eq!((&line["key"], &line["outcome"]), (key, &json!(outcome)), "{lines:#?}");
        assert!(line["reason"].as_str().unwrap_or_default().contains(reason), "{line}");
    }
}

async fn retry_publishes_what_is_accepted_now(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    create_dead_letters(&scratch, 3).await;
    let keyless = NewRecord { value: Some(b"1".to_vec()), ..NewRecord::default() };
    let with_header = NewRecord {
        headers: vec![Header { name: "h".to_owned(), value: None }],
        timestamp: Some(SystemClock.now() - 5_000),
        ..record("alone", Some(b"text"))
    };
    let text = |key| record(key, Some(b"text"));
    let old = [text("old"), record("old", Some(b"1"))];
    let twice = [text("twice"), record("twice", Some(b"second"))];
    let deleted = [text("deleted"), record("deleted", None)];
    scratch
        .write([vec![with_header], old.into(), twice.into(), vec![keyless], deleted.into()].concat())
        .await;
    let table = start(&scratch, Codecs::default()).await;
    wait_for_letters(&table, 6).await;
    table.stop().await;
    let expected = |outcome, reason| {
        [
            (json!("alone"), outcome, reason),
            (json!("old"), "skipped", "partition 0, offset 2"),
            (json!("twice"), "skipped", "partition 0, offset 4"),
            (json!("twice"), outcome, reason),
            (Value::Null, "skipped", "null"),
            (json!("deleted"), "skipped", "partition 0, offset 7"),
        ]
    };
    let (lines, summary, code) = retry(&scratch, &[]);
    check_outcomes(&lines, &expected("rejected", "malformed"));
    assert_eq!((summary, code), (json!({"published": 0, "rejected": 2, "skipped": 4}), 1));
    // With a codec that accepts any bytes.
    let (lines, summary, code) = retry(&scratch, &["--value-codec", "bytes"]);
    check_outcomes(&lines, &expected("published", ""));
    assert_eq!((summary, code), (json!({"published": 2, "rejected": 0, "skipped": 4}), 0));
    let records = read_all(scratch.log.as_ref(), &scratch.topic.name).await;
    assert_eq!(records.len(), 10);
    assert_eq!(records[8], records[0], "the record is unchanged");
    assert_eq!(records[9].value.as_deref(), Some(&b"second"[..]));
}

async fn retry_publishes_again_only_with_force(kind: LogKind) {
    let scratch = kind.scratch(1).await;
    create_dead_letters(&scratch, 1).await;
    scratch.write(vec![record("a", Some(b"text")), record("b", Some(b"text")), record("b", None)]).await;
    let table = start(&scratch, Codecs::default()).await;
    wait_for_letters(&table, 2).await;
    table.stop().await;
    for (arguments, published) in [(&[][..], 1), (&[], 0), (&["--force"], 2)] {
        let (lines, summary, code) = retry(&scratch, &[&["--value-codec", "bytes"], arguments].concat());
        assert_eq!((lines.len(), &summary["published"], code), (2, &json!(published), 0), "{lines:#?}");
    }
    let table = start(&scratch, Codecs::new(Utf8, Bytes)).await;
    assert_eq!(contents(&table).into_keys().collect::<Vec<_>>(), ["a", "b"]);
}

on_each_log! {
    retry_publishes_what_is_accepted_now,
    retry_publishes_again_only_with_force,
}
