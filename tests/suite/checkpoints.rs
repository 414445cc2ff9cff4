//! Checkpoints: a table that starts from a checkpoint equals a table that replays its topic, whatever has
//! happened to the checkpoint or the topic.

mod swaps;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ktables::checkpoint;
use ktables::codec::{Codecs, LengthPrefixed, RejectKind, Utf8};
use ktables::log::{LogError, NewRecord};
use ktables::table::{CheckpointStats, Status, Table, TableBuilder, WatchEvent, WatchStart};
use ktables_tests::{
    FaultTally, LogKind, ManualClock, RunningCommand, Scratch, TIMEOUT, WrappedLog, eventually_async,
    on_each_log, record, run, succeed,
};
use tempfile::TempDir;

/// Everything that a reader sees: entries with partition and offset, and notices.
type Contents = (BTreeMap<String, (String, i32, i64)>, BTreeMap<String, (i64, RejectKind)>);

fn contents(table: &Table) -> Contents {
    let snapshot = table.snapshot();
    let entry = |entry: &ktables::table::Entry| {
        (entry.key().to_owned(), (entry.json().to_owned(), entry.partition(), entry.offset()))
    };
    let notices = snapshot.notices().map(|(key, notice)| (key.to_owned(), (notice.offset, notice.kind)));
    (snapshot.iter().map(entry).collect(), notices.collect())
}

fn builder(scratch: &Scratch, codecs: Codecs) -> TableBuilder {
    Table::builder(scratch.log.clone(), &scratch.topic.name, codecs).catchup_timeout(TIMEOUT)
}

/// Starts a table with a checkpoint in this folder.
async fn start_table(scratch: &Scratch, folder: &Path) -> Table {
    builder(scratch, Codecs::default()).checkpoint(folder).start().await.unwrap()
}

fn stats(table: &Table) -> CheckpointStats {
    table.stats().checkpoint.unwrap()
}

/// Returns records of all kinds: values, tombstones, malformed and keyless ones.
fn records(from: usize, count: usize) -> Vec<NewRecord> {
    let of = |number: usize| match number % 10 {
        7 => record(&format!("k{}", number % 97), None),
        8 => record(&format!("k{}", number % 89), Some(b"{")),
        9 => NewRecord { value: Some(b"keyless".to_vec()), ..NewRecord::default() },
        _ => record(&format!("k{}", number % 101), Some(number.to_string().as_bytes())),
    };
    (from..from + count).map(of).collect()
}

async fn a_restarted_table_reads_only_new_records(kind: LogKind) {
    let (scratch, folder) = (kind.scratch(3).await, TempDir::new().unwrap());
    let mut written = 0;
    for round in 0..4 {
        scratch.write(records(written, 500)).await;
        written += 500;
        let table = start_table(&scratch, folder.path()).await;
        assert_eq!(contents(&table), contents(&scratch.table(Codecs::default()).await));
        let CheckpointStats { loaded, unused, failed, .. } = stats(&table);
        assert_eq!((loaded, unused.is_some(), failed), (round * 600, round == 0, None));
        // The checkpoint also gets the records that arrive while the table runs.
        scratch.write(records(written, 100)).await;
        written += 100;
        scratch.sync(&table).await;
        assert_eq!(contents(&table), contents(&scratch.table(Codecs::default()).await));
        table.stop().await;
        let info = checkpoint::inspect(folder.path()).unwrap();
        assert_eq!(info.records as usize, written);
        assert_eq!(info.positions.iter().map(|(_, position)| position).sum::<i64>() as usize, written);
    }
    // However often the table starts, there is one file for each partition, and the manifest.
    assert_eq!(files(folder.path()).len(), 4);
}

async fn another_codec_is_loaded_from_the_same_records(kind: LogKind) {
    let (scratch, folder) = (kind.scratch(2).await, TempDir::new().unwrap());
    for key in ["1:ab", "no group", "2:xyz"] {
        scratch.put(key, Some(b"text")).await;
        scratch.put(key, Some(b"1")).await;
        scratch.put(key, Some(b"more text")).await;
    }
    let grouped = Codecs { group_scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
    for codecs in [grouped, Codecs::new(Utf8, Utf8), Codecs::default()] {
        let table = builder(&scratch, codecs.clone()).checkpoint(folder.path()).start().await.unwrap();
        assert_eq!(contents(&table), contents(&scratch.table(codecs).await));
        table.stop().await;
    }
    let table = start_table(&scratch, folder.path()).await;
    assert_eq!(stats(&table).loaded, 9);
}

async fn an_unusable_checkpoint_is_reported_and_the_topic_replayed(kind: LogKind) {
    let (scratch, folder, clock) = (kind.scratch(2).await, TempDir::new().unwrap(), ManualClock::default());
    scratch.write(records(0, 200)).await;
    let start = || {
        let builder = builder(&scratch, Codecs::default()).checkpoint(folder.path());
        builder.checkpoint_max_age(Duration::from_secs(3600)).clock(Arc::new(clock.clone())).start()
    };
    let start_without_checkpoint = |reason: &'static str| {
        let start = start();
        async move {
            let table = start.await.unwrap();
            let unused = stats(&table).unused.map(|unused| unused.to_string());
            assert!(unused.as_deref().is_some_and(|unused| unused.contains(reason)), "{reason}: {unused:?}");
            table
        }
    };
    let fresh = scratch.table(Codecs::default()).await;
    let table = start_without_checkpoint("there is no checkpoint").await;
    // Only one table at a time can use the folder.
    let other = start_without_checkpoint("in another process, is using").await;
    assert!(stats(&other).failed.is_some());
    assert_eq!(contents(&other), contents(&fresh));
    table.stop().await;
    clock.advance(Duration::from_secs(3601));
    let table = start_without_checkpoint("old").await;
    assert_eq!(contents(&table), contents(&fresh));
    table.stop().await;
    clock.rewind(Duration::from_secs(10));
    let table = start_without_checkpoint("a clock was set").await;
    assert_eq!(contents(&table), contents(&fresh));
    table.stop().await;
    let table = start().await.unwrap();
    assert_eq!(stats(&table).loaded, 200);
    // The checkpoint is not used for a recreated topic, neither by a running table nor by one that starts.
    let with_keys = |from, count| {
        let mut records = records(from, 2 * count);
        records.retain(|record| record.key.is_some());
        records.truncate(count);
        records
    };
    scratch.recreate_topic(2).await;
    scratch.write(with_keys(1000, 50)).await;
    scratch.sync(&table).await;
    eventually_async("the checkpoint belongs to the new topic", || {
        (table.stats().generation == 2 && matches!(table.status(), Status::CaughtUp)).then_some(())
    })
    .await;
    table.stop().await;
    let table = start().await.unwrap();
    assert_eq!(stats(&table).loaded, 50);
    table.stop().await;
    scratch.recreate_topic(2).await;
    scratch.write(with_keys(2000, 30)).await;
    let table = start_without_checkpoint("identity").await;
    assert_eq!(contents(&table), contents(&scratch.table(Codecs::default()).await));
}

on_each_log! {
    a_restarted_table_reads_only_new_records,
    another_codec_is_loaded_from_the_same_records,
    an_unusable_checkpoint_is_reported_and_the_topic_replayed,
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_the_log_has_lost_are_not_loaded_from_a_checkpoint() {
    let (scratch, folder) = (LogKind::Kafka.scratch(1).await, TempDir::new().unwrap());
    scratch.write((0..100).map(|n| record(&format!("k{n}"), Some(b"1"))).collect()).await;
    start_table(&scratch, folder.path()).await.stop().await;
    let bootstrap = ktables_tests::kafka::shared();
    for below in [30, 60] {
        // Records are deleted while a table follows the topic, and before another table starts.
        let following = start_table(&scratch, folder.path()).await;
        ktables_tests::kafka::delete_records(&bootstrap, &scratch.topic.name, &[(0, below)]).await;
        let is_gone = || (following.len() == 100 - below as usize).then_some(());
        eventually_async("the entries of deleted records are gone", is_gone).await;
        following.stop().await;
        let started = start_table(&scratch, folder.path()).await;
        assert_eq!(
            (started.len(), contents(&started)),
            (100 - below as usize, contents(&scratch.table(Codecs::default()).await))
        );
        assert_eq!(stats(&started).unused, None);
        started.stop().await;
    }
    // Records that are deleted while no table runs are gone from the next one.
    ktables_tests::kafka::delete_records(&bootstrap, &scratch.topic.name, &[(0, 90)]).await;
    let table = start_table(&scratch, folder.path()).await;
    assert_eq!(contents(&table), contents(&scratch.table(Codecs::default()).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_disconnected_for_longer_than_tombstones_live_replays_its_topic() {
    let (scratch, folder, clock) = (Scratch::new(1).await, TempDir::new().unwrap(), ManualClock::default());
    scratch.put("a", Some(b"1")).await;
    let start = || {
        let builder = builder(&scratch, Codecs::default()).checkpoint(folder.path());
        builder.checkpoint_max_age(Duration::from_secs(3600)).clock(Arc::new(clock.clone())).start()
    };
    let table = start().await.unwrap();
    let created = eventually_async("the checkpoint exists", || stats(&table).as_of).await;
    clock.advance(Duration::from_secs(600));
    eventually_async("its time advances", || stats(&table).as_of.filter(|as_of| *as_of > created)).await;
    let mut watcher = table.watch(WatchStart::Now);
    clock.advance(Duration::from_secs(7200));
    let event = tokio::time::timeout(TIMEOUT, watcher.next()).await.unwrap().unwrap();
    assert!(
        matches!(&event, WatchEvent::Status(Status::Degraded(reason)) if reason.contains("did not follow")),
        "{event:?}"
    );
    eventually_async("the topic is replayed", || {
        (table.stats().generation == 2 && matches!(table.status(), Status::CaughtUp)).then_some(())
    })
    .await;
    let CheckpointStats { unused, failed, .. } = stats(&table);
    assert!(unused.is_some_and(|reason| reason.contains("did not follow")) && failed.is_none());
    assert_eq!(table.get("a").unwrap().json(), "1");
    table.stop().await;
    // After the replay, the checkpoint is usable again.
    let restarted = start().await.unwrap();
    assert_eq!((stats(&restarted).loaded, stats(&restarted).unused), (1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_was_once_too_old_stays_too_old() {
    let (scratch, folder, clock) = (Scratch::new(1).await, TempDir::new().unwrap(), ManualClock::default());
    scratch.put("a", Some(b"1")).await;
    let reason = "the setting cannot be read".to_owned();
    let unreadable = LogError::InvalidProperty { name: "delete.retention.ms".to_owned(), reason };
    let log = Arc::new(WrappedLog::new(scratch.log.clone()).with_setting_error(unreadable));
    let builder = || {
        let builder = Table::builder(log.clone(), &scratch.topic.name, Codecs::default());
        builder.checkpoint(folder.path()).clock(Arc::new(clock.clone()))
    };
    // It is unknown how long tombstones live, so the table cannot know that it was disconnected for too long.
    let table = builder().start().await.unwrap();
    let created = eventually_async("the checkpoint exists", || stats(&table).as_of).await;
    clock.advance(Duration::from_secs(7200));
    eventually_async("its time advances", || stats(&table).as_of.filter(|as_of| *as_of > created)).await;
    table.stop().await;
    let start_with_max_age =
        |hours: u64| builder().checkpoint_max_age(Duration::from_secs(hours * 3600)).start();
    assert_eq!(stats(&start_with_max_age(3).await.unwrap()).loaded, 1);
    eventually_async("the folder is unlocked", || checkpoint_is_free(folder.path().to_str().unwrap())).await;
    let unused = stats(&start_with_max_age(1).await.unwrap()).unused.unwrap();
    assert!(unused.contains("or was when a table continued it"), "{unused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_other_programs_are_not_touched() {
    let (scratch, folder) = (Scratch::new(1).await, TempDir::new().unwrap());
    let others = ["2024-01-15.log", "1-2-3.log"].map(|name| folder.path().join(name));
    others.iter().for_each(|path| std::fs::write(path, "theirs").unwrap());
    scratch.put("a", Some(b"1")).await;
    for _ in 0..2 {
        start_table(&scratch, folder.path()).await.stop().await;
    }
    assert!(others.iter().all(|path| std::fs::read(path).unwrap() == b"theirs"));
    // The draft of a table that was killed.
    std::fs::write(folder.path().join("checkpoint.draft"), "half").unwrap();
    checkpoint::remove(folder.path()).unwrap();
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(folder.path()), ["2024-01-15.log".into(), "1-2-3.log".into()].into());
}

/// Creates a checkpoint of about 300 KB in several segments. Returns its topic and the contents of a table.
async fn create_checkpoint(folder: &Path) -> (Scratch, Contents) {
    let scratch = Scratch::new(2).await;
    let value = format!("\"{}\"", "x".repeat(300));
    for _ in 0..2 {
        let records = (0..400).map(|n| record(&format!("k{}", n % 300), Some(value.as_bytes())));
        scratch.write(records.collect()).await;
        start_table(&scratch, folder).await.stop().await;
    }
    let contents = contents(&scratch.table(Codecs::default()).await);
    (scratch, contents)
}

/// Returns the paths of the files of a checkpoint, without the lock.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap() != "lock");
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_any_block_is_found_and_the_topic_replayed() {
    const BLOCK: usize = 4096;
    let folder = TempDir::new().unwrap();
    let (scratch, expected) = create_checkpoint(folder.path()).await;
    let sound: HashMap<PathBuf, Vec<u8>> =
        files(folder.path()).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    assert!(sound.values().map(Vec::len).sum::<usize>() < 1 << 20);
    let restore = || sound.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    let mut blocks = 0;
    for (path, bytes) in &sound {
        for start in (0..bytes.len()).step_by(BLOCK) {
            blocks += 1;
            let end = bytes.len().min(start + BLOCK);
            let mut damages = [bytes.clone(), bytes.clone(), bytes[..start].to_vec()];
            // A flipped bit, a block that was never written, and a truncated file.
            damages[0][start + blocks * 31 % (end - start)] ^= 1 << (blocks % 8);
            damages[1][start..end].fill(0);
            for (kind, damaged) in damages.iter().enumerate() {
                for path in files(folder.path()) {
                    std::fs::remove_file(path).unwrap();
                }
                restore();
                std::fs::write(path, damaged).unwrap();
                let table = start_table(&scratch, folder.path()).await;
                let place = format!("damage {kind} at {start} of {}", path.display());
                assert_eq!(contents(&table), expected, "{place}");
                assert!(stats(&table).unused.is_some(), "{place}");
                table.stop().await;
                // The replay wrote a sound checkpoint.
                checkpoint::inspect(folder.path()).unwrap_or_else(|error| panic!("{place}: {error}"));
            }
        }
    }
    assert!(blocks > 60, "{blocks} blocks");
    // A missing segment.
    let segment = files(folder.path())
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "log"));
    std::fs::remove_file(segment.unwrap()).unwrap();
    let table = start_table(&scratch, folder.path()).await;
    assert_eq!((contents(&table), stats(&table).unused.is_some()), (expected, true));
    FaultTally::without_errors(3 * blocks as u64 + 1).report();
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_live_records_and_saves_space() {
    let (scratch, folder) = (Scratch::new(1).await, TempDir::new().unwrap());
    let large = |n: usize| format!("\"{n}{}\"", "x".repeat(20_000));
    let table = start_table(&scratch, folder.path()).await;
    scratch.put("rejected", Some(b"1")).await;
    scratch.put("deleted", Some(b"1")).await;
    for round in 0..15 {
        let records =
            (0..100).map(|n| record(&format!("k{}", n % 50), Some(large(round * 100 + n).as_bytes())));
        scratch.write(records.collect()).await;
        if round == 5 {
            scratch.put("rejected", Some(b"{")).await;
            scratch.put("deleted", None).await;
        }
    }
    scratch.sync(&table).await;
    table.stop().await;
    let before = checkpoint::inspect(folder.path()).unwrap();
    assert_eq!(before.records, 1504);
    // When a table is complete after its start, it checks whether to compact.
    for round in 0..2 {
        let table = start_table(&scratch, folder.path()).await;
        assert_eq!(stats(&table).loaded, [1504, 52][round]);
        assert_eq!(contents(&table), contents(&scratch.table(Codecs::default()).await));
        table.stop().await;
        let after = checkpoint::inspect(folder.path()).unwrap();
        // The newest records of fifty keys, and the rejected and the accepted record of another key.
        assert_eq!(after.records, 52);
        assert!(after.bytes < before.bytes / 10, "{after:?}");
    }
    assert_eq!(files(folder.path()).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_at_any_time_leaves_a_sound_checkpoint_or_none() {
    let (scratch, folder) = (Arc::new(Scratch::new(2).await), TempDir::new().unwrap());
    let path = folder.path().join("checkpoint");
    let path = path.to_str().unwrap();
    scratch.write(records(0, 3000)).await;
    for round in 0..12_usize {
        let mut watch = RunningCommand::start(&mut scratch.ktables(&["watch", "--checkpoint", path]));
        watch.until(|line| line["event"] == "synced");
        // Some are killed while records arrive, and every fourth one is asked to stop.
        scratch.write(records(round * 40, round * 40)).await;
        match round % 4 {
            3 => {
                watch.signal("INT");
                watch.wait();
            }
            _ => watch.kill(),
        }
        let table = start_table(&scratch, Path::new(path)).await;
        assert_eq!(contents(&table), contents(&scratch.table(Codecs::default()).await), "round {round}");
        if round % 3 == 0 {
            table.stop().await;
        }
        drop(table);
        eventually_async("the folder is unlocked", || checkpoint_is_free(path)).await;
    }
    FaultTally::without_errors(12).report();
}

fn checkpoint_is_free(folder: &str) -> Option<()> {
    let lock = std::fs::File::create(Path::new(folder).join("lock")).unwrap();
    lock.try_lock().is_ok().then_some(())
}

/// A small file system, which is unmounted on drop.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(kib: u32) -> Self {
        let folder = TempDir::new().unwrap();
        let mut mount = std::process::Command::new("mount");
        let status =
            mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(folder.path()).status();
        assert!(status.unwrap().success(), "cannot mount a small disk: this test takes the right to mount");
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // OK to ignore: nothing can be done about it here.
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_checkpoint_but_not_the_table() {
    let (scratch, disk) = (Scratch::new(1).await, SmallDisk::new(256));
    let value = format!("\"{}\"", "x".repeat(1000));
    scratch.write((0..50).map(|n| record(&format!("k{n}"), Some(value.as_bytes()))).collect()).await;
    let folder = disk.0.path().join("checkpoint");
    let table = start_table(&scratch, &folder).await;
    eventually_async("the checkpoint exists", || stats(&table).as_of).await;
    for _ in 0..20 {
        scratch.write((0..50).map(|n| record(&format!("k{n}"), Some(value.as_bytes()))).collect()).await;
    }
    scratch.sync(&table).await;
    let failed = eventually_async("the disk is full", || stats(&table).failed).await;
    assert!(failed.contains("No space left"), "{failed}");
    scratch.put("later", Some(b"1")).await;
    scratch.sync(&table).await;
    assert!(matches!(table.status(), Status::CaughtUp));
    let expected = contents(&scratch.table(Codecs::default()).await);
    assert_eq!(contents(&table), expected);
    table.stop().await;
    // The checkpoint from before is sound.
    let restarted = start_table(&scratch, &folder).await;
    assert!(stats(&restarted).loaded >= 50, "{:?}", stats(&restarted));
    assert_eq!(contents(&restarted), expected);
    FaultTally::without_errors(1).report();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_starts_from_inspects_and_removes_a_checkpoint() {
    let (scratch, folder) = (Scratch::new(1).await, TempDir::new().unwrap());
    scratch.put("a", Some(b"1")).await;
    let path = folder.path().join("c");
    let path = path.to_str().unwrap();
    let status = || succeed(&mut scratch.ktables(&["status", "--checkpoint", path])).json().remove(0);
    let first = status();
    assert_eq!(first["checkpoint"]["loaded"], 0);
    assert!(first["checkpoint"]["unused"].as_str().unwrap().contains("there is no checkpoint"));
    scratch.put("a", Some(b"2")).await;
    let second = status();
    assert_eq!((&second["checkpoint"]["loaded"], &second["entries"]), (&1.into(), &1.into()));
    let inspect = || run(&mut ktables_tests::ktables(&["checkpoint", "inspect", path]));
    let info = inspect();
    let line = &info.json()[0];
    assert_eq!((&line["topic"], &line["records"]), (&"t".into(), &2.into()), "{}", info.stderr);
    let segment = files(Path::new(path))
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "log"));
    let segment = segment.unwrap();
    for damage in [Some(b"damage"), None] {
        match damage {
            Some(bytes) => std::fs::write(&segment, bytes).unwrap(),
            None => std::fs::remove_file(&segment).unwrap(),
        }
        let damaged = inspect();
        assert_eq!(damaged.code, 1, "{}", damaged.stderr);
        assert!(damaged.stderr.contains("damaged") && damaged.stderr.contains(".log"), "{}", damaged.stderr);
    }
    assert_eq!(succeed(&mut scratch.ktables(&["get", "a", "--checkpoint", path])).stdout, "2\n");
    let remove = || run(&mut ktables_tests::ktables(&["checkpoint", "remove", path]));
    assert_eq!(remove().code, 0);
    assert!(!Path::new(path).exists());
    assert_eq!((remove().code, inspect().code), (1, 1));
}
