//! The files of directory logs and checkpoints: locks, torn writes, permissions, and limits of the system.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ktables::codec::Codecs;
use ktables::log::{LogError, NewTopic};
use ktables::table::Table;
use ktables_tests::{Scratch, TIMEOUT, TOPIC, contents, record, run, succeed};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn no_offset_is_assigned_twice_while_lock_files_are_removed() {
    let scratch = Arc::new(Scratch::new(1).await);
    let is_finished = Arc::new(AtomicBool::new(false));
    let remover = {
        let (is_finished, lock) = (is_finished.clone(), scratch.path().join(TOPIC).join("0/lock"));
        std::thread::spawn(move || {
            while !is_finished.load(Ordering::Relaxed) {
                let _ = fs::remove_file(&lock);
            }
        })
    };
    // Each writer opens its own log, as separate processes do.
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (url, topic) = (scratch.url(), scratch.topic.clone());
            tokio::spawn(async move {
                let log = ktables::log::open(&url).unwrap();
                let mut offsets = Vec::new();
                for number in 0..150 {
                    let record = record(&format!("{writer}-{number}"), Some(b"1"));
                    offsets.push(log.send(&topic, record).await.unwrap().await.unwrap().offset);
                }
                offsets
            })
        })
        .collect();
    let mut offsets = Vec::new();
    for writer in writers {
        offsets.extend(writer.await.unwrap());
    }
    is_finished.store(true, Ordering::Relaxed);
    remover.join().unwrap();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..600).map(Some).collect::<Vec<_>>());
    assert_eq!(scratch.table(Codecs::default()).await.len(), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_topic_does_not_delay_other_topics() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    let other = scratch.log.create("other", NewTopic::default()).await.unwrap();
    let lock = File::open(scratch.path().join(TOPIC).join("0")).unwrap();
    lock.lock().unwrap();
    let waiting = scratch.log.send(&scratch.topic, record("b", Some(b"1"))).await.unwrap();
    let ack = scratch.log.send(&other, record("c", Some(b"1"))).await.unwrap().await.unwrap();
    assert_eq!(ack.offset, Some(0));
    assert!(!scratch.log.flush(Duration::from_millis(50)).await, "the record waits for the lock");
    // A record that is given up is returned and its delivery fails, and it is never written.
    let given_up = scratch.log.close(Duration::from_millis(50)).await;
    assert_eq!(given_up.iter().map(|record| record.key.as_deref()).collect::<Vec<_>>(), [Some(&b"b"[..])]);
    assert!(matches!(waiting.await, Err(LogError::Undelivered { .. })));
    drop(lock);
    assert_eq!(scratch.put("d", Some(b"1")).await.offset, Some(1));
    assert!(scratch.log.flush(TIMEOUT).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_write_whose_value_contains_whole_batches_is_cut() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    let segment = scratch.path().join(TOPIC).join("0/00000000000000000000.log");
    let whole = fs::read(&segment).unwrap();
    // A record whose value is a segment with whole batches, whose offsets are the next ones.
    let inner = Scratch::new(1).await;
    for _ in 0..4 {
        inner.put("inner", Some(b"1")).await;
    }
    let value = fs::read(inner.path().join(TOPIC).join("0/00000000000000000000.log")).unwrap();
    succeed(&mut {
        let file = scratch.path().join("value");
        fs::write(&file, &value).unwrap();
        scratch.ktables(&["produce", "--key", "b", "--value-file", file.to_str().unwrap()])
    });
    let all = fs::read(&segment).unwrap();
    for cut in [1, 3, (all.len() - whole.len()) / 2] {
        fs::write(&segment, &all[..all.len() - cut]).unwrap();
        let url = scratch.url();
        let log = ktables::log::open(&url).unwrap();
        let table = Table::builder(log.clone(), TOPIC, Codecs::default()).catchup_timeout(TIMEOUT);
        assert_eq!(contents(&table.start().await.unwrap()).len(), 1, "cut by {cut}");
        let ack = log.send(&scratch.topic, record("c", Some(b"1"))).await.unwrap().await.unwrap();
        assert_eq!(ack.offset, Some(1), "cut by {cut}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn durable_records_are_not_reported_as_refused_when_file_descriptors_run_out() {
    // The command runs with a limit on open files. With each limit, it must report the outcome correctly.
    let mut outcomes = std::collections::BTreeSet::new();
    for limit in 8..40 {
        let scratch = Scratch::new(1).await;
        let produce = scratch.ktables(&["produce", "--key", "a", "--value", "1"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh"]).arg(produce.get_program());
        let ended = run(shell.args(produce.get_args()));
        let is_written = scratch.table(Codecs::default()).await.len() == 1;
        let is_unknown = ended.stderr.contains("may have been written");
        match ended.code {
            0 => assert!(is_written, "limit {limit}: the command reported success, but wrote nothing"),
            _ => assert!(!is_written || is_unknown, "limit {limit}: {}", ended.stderr),
        }
        assert!(!ended.stderr.contains("panicked"), "limit {limit}: {}", ended.stderr);
        outcomes.insert((ended.code, is_written));
    }
    assert!(outcomes.contains(&(0, true)) && outcomes.len() > 1, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_create_leaves_no_files() {
    let scratch = Scratch::new(1).await;
    let before = files(scratch.path());
    // A file that is not a topic has the name.
    fs::write(scratch.path().join("file"), "").unwrap();
    assert!(scratch.log.create("file", NewTopic::default()).await.is_err());
    fs::remove_file(scratch.path().join("file")).unwrap();
    assert!(scratch.log.create(TOPIC, NewTopic::default()).await.is_err());
    // The command runs with a limit on the size of files, as on a full disk.
    for limit in [0, 1] {
        let mut shell = Command::new("sh");
        let ensure = ktables_tests::ktables(&["topic", "ensure", "--log", &scratch.url(), "--topic", "new"]);
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$@\"");
        shell.args(["-c", &script, "sh"]).arg(ensure.get_program()).args(ensure.get_args());
        let ended = run(&mut shell);
        if ended.code == 0 {
            fs::remove_dir_all(scratch.path().join("new")).unwrap();
        }
        assert_eq!(files(scratch.path()), before, "limit {limit}: {}", ended.stderr);
    }
}

/// Returns the sorted names of the files in a folder.
fn files(folder: &std::path::Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_private_and_not_used_if_others_can_write_them() {
    let (scratch, parent) = (Scratch::new(1).await, TempDir::new().unwrap());
    let folder = parent.path().join("checkpoint");
    scratch.put("a", Some(b"1")).await;
    let start = || {
        let table = Table::builder(scratch.log.clone(), TOPIC, Codecs::default()).checkpoint(&folder);
        table.catchup_timeout(TIMEOUT).start()
    };
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o777;
    let table = start().await.unwrap();
    table.stop().await;
    drop(table);
    assert_eq!(mode(&folder), 0o700);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        count += 1;
    }
    assert!(count > 1);
    // A checkpoint that others can write is not used. The topic is replayed instead.
    let paths = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    for path in paths {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    }
    let table = start().await.unwrap();
    assert_eq!(contents(&table).len(), 1);
    let checkpoint = table.stats().checkpoint.unwrap();
    assert_eq!((checkpoint.loaded, checkpoint.unused.is_some()), (0, true), "{checkpoint:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifos_and_devices_are_refused_without_waiting() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    let partition = scratch.path().join(TOPIC).join("0");
    let fifo = |path: &std::path::Path| {
        let _ = fs::remove_file(path);
        assert!(Command::new("mkfifo").args(["-m", "600"]).arg(path).status().unwrap().success());
    };
    let input = scratch.path().join("input");
    fifo(&input);
    for special in [input.to_str().unwrap(), "/dev/zero"] {
        for args in [["--key-file", special, "--null"], ["--keyless", "--value-file", special]] {
            let refused = run(&mut scratch.ktables(&[&["produce"], &args[..]].concat()));
            assert!(refused.code != 0 && refused.stderr.contains("regular file"), "{}", refused.stderr);
        }
    }
    // A checkpoint with a FIFO in it is not used, and the topic is replayed.
    let folder = scratch.path().join("checkpoint");
    let get = || scratch.ktables(&["get", "a", "--checkpoint", folder.to_str().unwrap()]);
    succeed(&mut get());
    for entry in fs::read_dir(&folder).unwrap() {
        fifo(&entry.unwrap().path());
        assert_eq!(run(&mut get()).stdout, "1\n");
    }
    fifo(&partition.join("lock"));
    let refused = run(&mut scratch.ktables(&["set", "a", "2"]));
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    fs::remove_file(partition.join("lock")).unwrap();
    fifo(&partition.join("00000000000000000000.log"));
    for args in [&["set", "a", "2"][..], &["get", "a"]] {
        let refused = run(&mut scratch.ktables(args));
        assert!(refused.code == 3 && refused.stderr.contains("regular file"), "{}", refused.stderr);
    }
}
