//! Swaps of codecs that load the checkpoint of their table.

use std::sync::Arc;

use ktables::checkpoint;
use ktables::codec::Codecs;
use ktables_tests::{FaultyCodec, Scratch, eventually_async, record};
use tempfile::TempDir;

use super::{contents, files, start_table};

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_loads_the_checkpoint_that_is_written_and_compacted_meanwhile() {
    const KEYS: usize = 1_700;
    let (scratch, folder) = (Scratch::new(1).await, TempDir::new().unwrap());
    let write = async |from: usize, count: usize| {
        let value = |n: usize| format!("\"{n}{}\"", "x".repeat(20_000));
        let records =
            (from..from + count).map(|n| record(&format!("k{}", n % KEYS), Some(value(n).as_bytes())));
        scratch.write(records.collect()).await;
    };
    // More than one segment.
    write(0, KEYS).await;
    start_table(&scratch, folder.path()).await.stop().await;
    let table = start_table(&scratch, folder.path()).await;
    let codec = Arc::new(FaultyCodec::default());
    codec.block();
    let preparing = tokio::spawn({
        let (table, codecs) = (table.clone(), Codecs { value: codec.clone(), ..Codecs::default() });
        async move { table.prepare_swap(codecs).await }
    });
    let is_loading = || table.stats().loading.filter(|loading| loading.total > 0);
    eventually_async("the other codecs load the checkpoint", is_loading).await;
    // 34 MB were compacted when the table was complete. The next compaction is due at twice that and 16 MiB more.
    let written = KEYS + 3_400;
    write(KEYS, written - KEYS).await;
    let is_compacted = || {
        let info = checkpoint::inspect(folder.path()).ok()?;
        (info.positions == [(0, written as i64)] && info.records < written as u64).then_some(())
    };
    eventually_async("the checkpoint is compacted", is_compacted).await;
    codec.recover();
    let prepared = preparing.await.unwrap().unwrap();
    assert_eq!(prepared.stats().unwrap().checkpoint.unwrap().loaded, KEYS as u64);
    let expected = contents(&table);
    let entries =
        || prepared.snapshot().unwrap().iter().map(|entry| entry.json().to_owned()).collect::<Vec<_>>();
    let is_equal = || entries().iter().eq(expected.0.values().map(|(json, ..)| json)).then_some(());
    eventually_async("it has the same entries", is_equal).await;
    drop(prepared);
    table.stop().await;
    // What a compaction left for the swap is removed.
    start_table(&scratch, folder.path()).await.stop().await;
    let info = checkpoint::inspect(folder.path()).unwrap();
    let bytes: u64 = files(folder.path()).iter().map(|file| std::fs::metadata(file).unwrap().len()).sum();
    assert!(bytes < info.bytes + (1 << 20), "{bytes} {info:?}");
}
