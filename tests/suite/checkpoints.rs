//! Checkpoints: a table that starts from one is the table that replays its topic, whatever
//! has happened to either.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ktables::checkpoint;
use ktables::codec::{Codecs, LengthPrefixed, RejectKind, Utf8};
use ktables::log::{LogError, NewRecord};
use ktables::table::{CheckpointStats, Status, Table, TableBuilder, WatchEvent, WatchStart};
use ktables_tests::{
    FaultTally, HeldClock, On, PATIENCE, Running, Scratch, Wrapped, eventually_async, on_each_log, record,
    run, succeed,
};
use tempfile::TempDir;

/// Everything that a reader sees: entries with their places, and notices.
type Seen = (BTreeMap<String, (String, i32, i64)>, BTreeMap<String, (i64, RejectKind)>);

fn seen(table: &Table) -> Seen {
    let snapshot = table.snapshot();
    let entry = |entry: &ktables::table::Entry| {
        (entry.key().to_owned(), (entry.json().to_owned(), entry.partition(), entry.offset()))
    };
    let notices = snapshot.notices().map(|(key, notice)| (key.to_owned(), (notice.offset, notice.kind)));
    (snapshot.iter().map(entry).collect(), notices.collect())
}

fn builder(scratch: &Scratch, codecs: Codecs) -> TableBuilder {
    Table::builder(scratch.log.clone(), &scratch.topic.name, codecs).catchup_timeout(PATIENCE)
}

async fn kept(scratch: &Scratch, folder: &Path) -> Table {
    builder(scratch, Codecs::default()).checkpoint(folder).start().await.unwrap()
}

fn stats(table: &Table) -> CheckpointStats {
    table.stats().checkpoint.unwrap()
}

/// Some of each kind of record.
fn records(from: usize, count: usize) -> Vec<NewRecord> {
    let of = |number: usize| match number % 10 {
        7 => record(&format!("k{}", number % 97), None),
        8 => record(&format!("k{}", number % 89), Some(b"{")),
        9 => NewRecord { value: Some(b"keyless".to_vec()), ..NewRecord::default() },
        _ => record(&format!("k{}", number % 101), Some(number.to_string().as_bytes())),
    };
    (from..from + count).map(of).collect()
}

async fn a_table_that_starts_again_reads_only_what_came_since(on: On) {
    let (scratch, folder) = (on.scratch(3).await, TempDir::new().unwrap());
    let mut written = 0;
    for round in 0..4 {
        scratch.write(records(written, 500)).await;
        written += 500;
        let table = kept(&scratch, folder.path()).await;
        assert_eq!(seen(&table), seen(&scratch.table(Codecs::default()).await));
        let CheckpointStats { loaded, unused, failed, .. } = stats(&table);
        assert_eq!((loaded, unused.is_some(), failed), (round * 600, round == 0, None));
        // What comes while it lives is kept as well.
        scratch.write(records(written, 100)).await;
        written += 100;
        scratch.sync(&table).await;
        assert_eq!(seen(&table), seen(&scratch.table(Codecs::default()).await));
        table.stop().await;
        let info = checkpoint::inspect(folder.path()).unwrap();
        assert_eq!(info.records as usize, written);
        assert_eq!(info.positions.iter().map(|(_, position)| position).sum::<i64>() as usize, written);
    }
    // However often it starts, a file for each partition, and the manifest.
    assert_eq!(files(folder.path()).len(), 4);
}

async fn another_codec_is_loaded_from_the_same_records(on: On) {
    let (scratch, folder) = (on.scratch(2).await, TempDir::new().unwrap());
    for key in ["1:ab", "no group", "2:xyz"] {
        scratch.put(key, Some(b"text")).await;
        scratch.put(key, Some(b"1")).await;
        scratch.put(key, Some(b"more text")).await;
    }
    let grouped = Codecs { scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
    for codecs in [grouped, Codecs::new(Utf8, Utf8), Codecs::default()] {
        let table = builder(&scratch, codecs.clone()).checkpoint(folder.path()).start().await.unwrap();
        assert_eq!(seen(&table), seen(&scratch.table(codecs).await));
        table.stop().await;
    }
    let table = kept(&scratch, folder.path()).await;
    assert_eq!(stats(&table).loaded, 9);
}

async fn what_does_not_fit_is_replayed_and_the_reason_is_told(on: On) {
    let (scratch, folder, clock) = (on.scratch(2).await, TempDir::new().unwrap(), HeldClock::default());
    scratch.write(records(0, 200)).await;
    let start = || {
        let builder = builder(&scratch, Codecs::default()).checkpoint(folder.path());
        builder.checkpoint_max_age(Duration::from_secs(3600)).clock(Arc::new(clock.clone())).start()
    };
    let started = |why: &'static str| {
        let start = start();
        async move {
            let table = start.await.unwrap();
            let unused = stats(&table).unused.map(|reason| reason.to_string());
            assert!(unused.as_deref().is_some_and(|reason| reason.contains(why)), "{why}: {unused:?}");
            table
        }
    };
    let fresh = scratch.table(Codecs::default()).await;
    let table = started("there is no checkpoint").await;
    // One at a time.
    let other = started("another table").await;
    assert!(stats(&other).failed.is_some());
    assert_eq!(seen(&other), seen(&fresh));
    table.stop().await;
    clock.advance(Duration::from_secs(3601));
    let table = started("old").await;
    assert_eq!(seen(&table), seen(&fresh));
    table.stop().await;
    clock.set_back(Duration::from_secs(10));
    let table = started("a clock was set").await;
    assert_eq!(seen(&table), seen(&fresh));
    table.stop().await;
    let table = start().await.unwrap();
    assert_eq!(stats(&table).loaded, 200);
    // A topic made anew is another, while it is followed, and when a table starts.
    let with_keys = |from, count| {
        let mut records = records(from, 2 * count);
        records.retain(|record| record.key.is_some());
        records.truncate(count);
        records
    };
    scratch.make_anew(2).await;
    scratch.write(with_keys(1000, 50)).await;
    scratch.sync(&table).await;
    eventually_async("the checkpoint is of the new topic", || {
        (table.stats().generation == 2 && matches!(table.status(), Status::CaughtUp)).then_some(())
    })
    .await;
    table.stop().await;
    let table = start().await.unwrap();
    assert_eq!(stats(&table).loaded, 50);
    table.stop().await;
    scratch.make_anew(2).await;
    scratch.write(with_keys(2000, 30)).await;
    let table = started("identity").await;
    assert_eq!(seen(&table), seen(&scratch.table(Codecs::default()).await));
}

on_each_log! {
    a_table_that_starts_again_reads_only_what_came_since,
    another_codec_is_loaded_from_the_same_records,
    what_does_not_fit_is_replayed_and_the_reason_is_told,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_has_lost_is_not_in_a_table_from_a_checkpoint() {
    let (scratch, folder) = (On::Kafka.scratch(1).await, TempDir::new().unwrap());
    scratch.write((0..100).map(|n| record(&format!("k{n}"), Some(b"1"))).collect()).await;
    kept(&scratch, folder.path()).await.stop().await;
    let bootstrap = ktables_tests::kafka::shared();
    for below in [30, 60] {
        // Before a table starts, and while it follows.
        let follows = kept(&scratch, folder.path()).await;
        ktables_tests::kafka::delete_records(&bootstrap, &scratch.topic.name, &[(0, below)]).await;
        eventually_async("what is lost is gone", || (follows.len() == 100 - below as usize).then_some(()))
            .await;
        follows.stop().await;
        let starts = kept(&scratch, folder.path()).await;
        assert_eq!(
            (starts.len(), seen(&starts)),
            (100 - below as usize, seen(&scratch.table(Codecs::default()).await))
        );
        assert_eq!(stats(&starts).unused, None);
        starts.stop().await;
    }
    // Lost while nobody looked: the table hears of it soon.
    ktables_tests::kafka::delete_records(&bootstrap, &scratch.topic.name, &[(0, 90)]).await;
    let table = kept(&scratch, folder.path()).await;
    assert_eq!(seen(&table), seen(&scratch.table(Codecs::default()).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_away_for_longer_than_tombstones_live_replays_its_topic() {
    let (scratch, folder, clock) = (Scratch::new(1).await, TempDir::new().unwrap(), HeldClock::default());
    scratch.put("a", Some(b"1")).await;
    let start = || {
        let builder = builder(&scratch, Codecs::default()).checkpoint(folder.path());
        builder.checkpoint_max_age(Duration::from_secs(3600)).clock(Arc::new(clock.clone())).start()
    };
    let table = start().await.unwrap();
    let made = eventually_async("the checkpoint is there", || stats(&table).as_of).await;
    clock.advance(Duration::from_secs(600));
    eventually_async("it is confirmed", || stats(&table).as_of.filter(|as_of| *as_of > made)).await;
    let mut watcher = table.watch(WatchStart::Now);
    clock.advance(Duration::from_secs(7200));
    let told = tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap().unwrap();
    assert!(
        matches!(&told, WatchEvent::Status(Status::Degraded(why)) if why.contains("did not follow")),
        "{told:?}"
    );
    eventually_async("it is replayed", || {
        (table.stats().generation == 2 && matches!(table.status(), Status::CaughtUp)).then_some(())
    })
    .await;
    let CheckpointStats { unused, failed, .. } = stats(&table);
    assert!(unused.is_some_and(|why| why.contains("did not follow")) && failed.is_none());
    assert_eq!(table.get("a").unwrap().json(), "1");
    table.stop().await;
    // What was replayed is as good as new.
    let again = start().await.unwrap();
    assert_eq!((stats(&again).loaded, stats(&again).unused), (1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_was_once_too_old_is_too_old_for_ever() {
    let (scratch, folder, clock) = (Scratch::new(1).await, TempDir::new().unwrap(), HeldClock::default());
    scratch.put("a", Some(b"1")).await;
    let reason = "nobody tells".to_owned();
    let secret = LogError::Property { name: "delete.retention.ms".to_owned(), reason };
    let log = Arc::new(Wrapped::new(scratch.log.clone()).without_settings(secret));
    let builder = || {
        let builder = Table::builder(log.clone(), &scratch.topic.name, Codecs::default());
        builder.checkpoint(folder.path()).clock(Arc::new(clock.clone()))
    };
    // How long tombstones live is not known, so nobody can say that it was away for too long.
    let table = builder().start().await.unwrap();
    let made = eventually_async("the checkpoint is there", || stats(&table).as_of).await;
    clock.advance(Duration::from_secs(7200));
    eventually_async("it is confirmed", || stats(&table).as_of.filter(|as_of| *as_of > made)).await;
    table.stop().await;
    let hours = |hours: u64| builder().checkpoint_max_age(Duration::from_secs(hours * 3600)).start();
    assert_eq!(stats(&hours(3).await.unwrap()).loaded, 1);
    eventually_async("the folder is free", || checkpoint_is_free(folder.path().to_str().unwrap())).await;
    let unused = stats(&hours(1).await.unwrap()).unused.unwrap();
    assert!(unused.contains("or once was"), "{unused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_others_stay_where_they_are() {
    let (scratch, folder) = (Scratch::new(1).await, TempDir::new().unwrap());
    let others = ["2024-01-15.log", "1-2-3.log"].map(|name| folder.path().join(name));
    others.iter().for_each(|path| std::fs::write(path, "theirs").unwrap());
    scratch.put("a", Some(b"1")).await;
    for _ in 0..2 {
        kept(&scratch, folder.path()).await.stop().await;
    }
    assert!(others.iter().all(|path| std::fs::read(path).unwrap() == b"theirs"));
    // What a table was killed at.
    std::fs::write(folder.path().join("checkpoint.draft"), "half").unwrap();
    checkpoint::remove(folder.path()).unwrap();
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(folder.path()), ["2024-01-15.log".into(), "1-2-3.log".into()].into());
}

/// A checkpoint of some 300 KB in several segments, and the table that it stands for.
async fn damageable(folder: &Path) -> (Scratch, Seen) {
    let scratch = Scratch::new(2).await;
    let value = format!("\"{}\"", "x".repeat(300));
    for _ in 0..2 {
        let records = (0..400).map(|n| record(&format!("k{}", n % 300), Some(value.as_bytes())));
        scratch.write(records.collect()).await;
        kept(&scratch, folder).await.stop().await;
    }
    let seen = seen(&scratch.table(Codecs::default()).await);
    (scratch, seen)
}

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
    let (scratch, expected) = damageable(folder.path()).await;
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
            // A bit anywhere, a block that was never written, a file that ends.
            damages[0][start + blocks * 31 % (end - start)] ^= 1 << (blocks % 8);
            damages[1][start..end].fill(0);
            for (kind, damaged) in damages.iter().enumerate() {
                for stranger in files(folder.path()) {
                    std::fs::remove_file(stranger).unwrap();
                }
                restore();
                std::fs::write(path, damaged).unwrap();
                let table = kept(&scratch, folder.path()).await;
                let place = format!("damage {kind} at {start} of {}", path.display());
                assert_eq!(seen(&table), expected, "{place}");
                assert!(stats(&table).unused.is_some(), "{place}");
                table.stop().await;
                // What was replayed is kept again.
                checkpoint::inspect(folder.path()).unwrap_or_else(|error| panic!("{place}: {error}"));
            }
        }
    }
    assert!(blocks > 60, "{blocks} blocks");
    // A segment that is gone.
    let gone = files(folder.path()).into_iter().find(|path| path.extension().is_some_and(|it| it == "log"));
    std::fs::remove_file(gone.unwrap()).unwrap();
    let table = kept(&scratch, folder.path()).await;
    assert_eq!((seen(&table), stats(&table).unused.is_some()), (expected, true));
    FaultTally::of(3 * blocks as u64 + 1).tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_what_counts_and_takes_less_room() {
    let (scratch, folder) = (Scratch::new(1).await, TempDir::new().unwrap());
    let large = |n: usize| format!("\"{n}{}\"", "x".repeat(20_000));
    let table = kept(&scratch, folder.path()).await;
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
    // It is complete again when it starts, which is when it is looked at.
    for round in 0..2 {
        let table = kept(&scratch, folder.path()).await;
        assert_eq!(stats(&table).loaded, [1504, 52][round]);
        assert_eq!(seen(&table), seen(&scratch.table(Codecs::default()).await));
        table.stop().await;
        let after = checkpoint::inspect(folder.path()).unwrap();
        // The newest of fifty keys, and of the one that was rejected both.
        assert_eq!(after.records, 52);
        assert!(after.bytes < before.bytes / 10, "{after:?}");
    }
    assert_eq!(files(folder.path()).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_at_any_moment_leaves_a_sound_checkpoint_or_none() {
    let (scratch, folder) = (Arc::new(Scratch::new(2).await), TempDir::new().unwrap());
    let place = folder.path().join("checkpoint");
    let place = place.to_str().unwrap();
    scratch.write(records(0, 3000)).await;
    for round in 0..12_usize {
        let mut watch = Running::start(&mut scratch.ktables(&["watch", "--checkpoint", place]));
        watch.until(|line| line["event"] == "synced");
        // Some die at once, some while records come, one when it was asked to.
        scratch.write(records(round * 40, round * 40)).await;
        match round % 4 {
            3 => {
                watch.signal("INT");
                watch.wait();
            }
            _ => watch.kill(),
        }
        let table = kept(&scratch, Path::new(place)).await;
        assert_eq!(seen(&table), seen(&scratch.table(Codecs::default()).await), "round {round}");
        if round % 3 == 0 {
            table.stop().await;
        }
        drop(table);
        eventually_async("the folder is free", || checkpoint_is_free(place)).await;
    }
    FaultTally::of(12).tell();
}

fn checkpoint_is_free(folder: &str) -> Option<()> {
    let lock = std::fs::File::create(Path::new(folder).join("lock")).unwrap();
    lock.try_lock().is_ok().then_some(())
}

/// A file system of so many KiB, unmounted when this is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(kib: u32) -> Self {
        let folder = TempDir::new().unwrap();
        let mut mount = std::process::Command::new("mount");
        let mounted =
            mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(folder.path()).status();
        assert!(mounted.unwrap().success(), "a small disk takes the right to mount one");
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nothing can be done about it here.
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_checkpoint_and_not_the_table() {
    let (scratch, disk) = (Scratch::new(1).await, SmallDisk::new(256));
    let value = format!("\"{}\"", "x".repeat(1000));
    scratch.write((0..50).map(|n| record(&format!("k{n}"), Some(value.as_bytes()))).collect()).await;
    let folder = disk.0.path().join("checkpoint");
    let table = kept(&scratch, &folder).await;
    eventually_async("the checkpoint is there", || stats(&table).as_of).await;
    for _ in 0..20 {
        scratch.write((0..50).map(|n| record(&format!("k{n}"), Some(value.as_bytes()))).collect()).await;
    }
    scratch.sync(&table).await;
    let failed = eventually_async("the disk is full", || stats(&table).failed).await;
    assert!(failed.contains("No space left"), "{failed}");
    scratch.put("later", Some(b"1")).await;
    scratch.sync(&table).await;
    assert!(matches!(table.status(), Status::CaughtUp));
    let expected = seen(&scratch.table(Codecs::default()).await);
    assert_eq!(seen(&table), expected);
    table.stop().await;
    // What there was before is sound.
    let again = kept(&scratch, &folder).await;
    assert!(stats(&again).loaded >= 50, "{:?}", stats(&again));
    assert_eq!(seen(&again), expected);
    FaultTally::of(1).tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_begins_with_a_checkpoint_inspects_and_removes_it() {
    let (scratch, folder) = (Scratch::new(1).await, TempDir::new().unwrap());
    scratch.put("a", Some(b"1")).await;
    let place = folder.path().join("c");
    let place = place.to_str().unwrap();
    let status = || succeed(&mut scratch.ktables(&["status", "--checkpoint", place])).json().remove(0);
    let first = status();
    assert_eq!(first["checkpoint"]["loaded"], 0);
    assert!(first["checkpoint"]["unused"].as_str().unwrap().contains("there is no checkpoint"));
    scratch.put("a", Some(b"2")).await;
    let second = status();
    assert_eq!((&second["checkpoint"]["loaded"], &second["entries"]), (&1.into(), &1.into()));
    let inspect = || run(&mut ktables_tests::ktables(&["checkpoint", "inspect", place]));
    let info = inspect();
    let line = &info.json()[0];
    assert_eq!((&line["topic"], &line["records"]), (&"t".into(), &2.into()), "{}", info.stderr);
    let segment =
        files(Path::new(place)).into_iter().find(|path| path.extension().is_some_and(|it| it == "log"));
    std::fs::write(segment.unwrap(), b"damage").unwrap();
    let damaged = inspect();
    assert_eq!(damaged.code, 1);
    assert!(damaged.stderr.contains("damaged") && damaged.stderr.contains(".log"), "{}", damaged.stderr);
    assert_eq!(succeed(&mut scratch.ktables(&["get", "a", "--checkpoint", place])).stdout, "2\n");
    let remove = || run(&mut ktables_tests::ktables(&["checkpoint", "remove", place]));
    assert_eq!(remove().code, 0);
    assert!(!Path::new(place).exists());
    assert_eq!((remove().code, inspect().code), (1, 1));
}
