//! The memory that records, guests and watchers can make a process use is limited in bytes.

use ktables::codec::Codecs;
use ktables::table::{Status, Table, WatchStart};
use ktables_tests::{
    RunningCommand, Scratch, TIMEOUT, eventually_async, eventually_ok, record, root, run, run_and_measure,
};

const MIB: u64 = 1 << 20;

/// Returns the path of a test vector.
fn vector(name: &str) -> String {
    root().join("tests/vectors").join(name).to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_much_larger_than_their_records_are_decoded_in_parts() {
    let scratch = Scratch::new(1).await;
    // Each record decodes to 8 MB. All have the same key, so the table keeps one.
    scratch.write((0..300).map(|_| record("k", Some(b"!a"))).collect()).await;
    let mut get = scratch.ktables(&["get", "k", "--value-codec", &vector("digits.wasm")]);
    let (ended, peaks) = run_and_measure(&mut get);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.len() > 7_000_000);
    assert!(peaks.own < 700 * MIB, "{} MiB", peaks.own / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_rejected_records_are_limited_in_size() {
    let scratch = Scratch::new(1).await;
    scratch.write((0..120).map(|number| record(&format!("k{number}"), Some(b"1"))).collect()).await;
    let mut rejects = scratch.ktables(&["rejects", "--key-codec", &vector("kctl.wasm")]);
    let (ended, peaks) = run_and_measure(&mut rejects);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(ended.json().len(), 120);
    assert!(ended.stdout.len() < 120 * 16 * 1024, "{} bytes", ended.stdout.len());
    assert!(peaks.own < 400 * MIB, "{} MiB", peaks.own / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_at_its_memory_limit_keeps_its_entries_and_a_larger_limit_loads_all() {
    let scratch = Scratch::new(1).await;
    let value = format!("\"{}\"", "x".repeat(10_000));
    let table = Table::builder(scratch.log.clone(), &scratch.topic.name, Codecs::default());
    let table = table.memory_limit(1 << 20).catchup_timeout(TIMEOUT).start().await.unwrap();
    assert!(matches!(table.status(), Status::CaughtUp));
    let records = (0..300).map(|number| record(&format!("k{number}"), Some(value.as_bytes())));
    scratch.write(records.collect()).await;
    let degraded = eventually_async("the table is degraded", || match table.status() {
        Status::Degraded(reason) => Some(reason),
        _ => None,
    });
    let reason = degraded.await.to_string();
    assert!(reason.contains("memory limit") && reason.contains("memory_limit"), "{reason}");
    let len = table.len();
    assert!(len > 0 && len < 300, "{len}");
    assert!(table.get("k0").is_some());

    // A larger limit has room for all of them.
    let larger = Table::builder(scratch.log.clone(), &scratch.topic.name, Codecs::default());
    let larger = larger.memory_limit(64 << 20).catchup_timeout(TIMEOUT).start().await.unwrap();
    assert!(matches!(larger.status(), Status::CaughtUp) && larger.len() == 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_limit_is_read_from_the_configuration() {
    let scratch = Scratch::new(1).await;
    let value = format!("\"{}\"", "x".repeat(10_000));
    let records = (0..300).map(|number| record(&format!("k{number}"), Some(value.as_bytes())));
    scratch.write(records.collect()).await;
    let config = scratch.path().join("ktables.toml");
    let text = format!(
        "[logs.l]\nurl = \"{}\"\n[tables.t]\nlog = \"l\"\ntopic = \"{}\"\nmemory_limit = \"1MiB\"\n",
        scratch.url(),
        scratch.topic.name
    );
    std::fs::write(&config, text).unwrap();
    let table = |args: &[&str], timeout| {
        let table = ["--config", config.to_str().unwrap(), "-t", "t", "--catchup-timeout", timeout];
        ktables_tests::ktables(&[args, &table].concat())
    };
    let status = run(&mut table(&["status"], "1s"));
    assert_eq!(status.code, 4, "{}", status.stderr);
    let output = format!("{}{}", status.stdout, status.stderr);
    assert!(output.contains("memory limit") && output.contains("memory_limit"), "{output}");
    // A watch says that its entries are not all.
    let first = RunningCommand::start(&mut table(&["watch"], "1s")).next();
    assert_eq!((&first["event"], &first["status"]), (&"status".into(), &"degraded".into()));
    // A write that never becomes visible is given up on request, and its place is printed.
    let before = end(&scratch).await;
    let mut set = RunningCommand::start(&mut table(&["set", "last", "1", "--wait"], "5m"));
    eventually_ok("the record is written", || async {
        if end(&scratch).await > before { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    set.signal("INT");
    assert_eq!((&set.next()["offset"], set.wait()), (&before.into(), 3));
}

async fn end(scratch: &Scratch) -> i64 {
    scratch.log.end_offsets(&scratch.topic).await.unwrap()[0].1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_watcher_uses_limited_memory() {
    let scratch = Scratch::new(1).await;
    let value = format!("\"{}\"", "x".repeat(100_000));
    let table = scratch.table(Codecs::default()).await;
    let write = |count: usize| {
        let records = (0..count).map(|_| record("k", Some(value.as_bytes())));
        scratch.write(records.collect())
    };
    let stalled = table.watch(WatchStart::Now);
    let before = resident_bytes();
    for _ in 0..15 {
        write(100).await;
        scratch.sync(&table).await;
    }
    let grown = resident_bytes().saturating_sub(before);
    // 150 MB were written. The history, the watcher's queue and the allocator's reserves hold less.
    assert!(grown < 110 * MIB, "{} MiB", grown / MIB);
    drop(stalled);
}

/// Returns the resident memory of the process, in bytes.
fn resident_bytes() -> u64 {
    procfs::process::Process::myself().unwrap().status().unwrap().vmrss.unwrap() * 1024
}
