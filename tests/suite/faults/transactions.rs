//! Transactions that stay open, are committed, and are aborted.

use std::time::Duration;

use ktables::codec::Codecs;
use ktables::log::LogOptions;
use ktables::table::{Status, Table};
use ktables_tests::kafka::{self, Transactional};
use ktables_tests::{FaultTally, PATIENCE, STALE_AFTER, Scratch, eventually_async, unique};

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_told_with_its_time_committed_and_aborted() {
    let (bootstrap, name) = (kafka::shared(), unique("t"));
    kafka::create(&bootstrap, &name, 2, &[]).await;
    let options = LogOptions { stale_after: STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::of(&bootstrap, options, &name).await;
    scratch.put("before", Some(b"1")).await;
    let live = scratch.table(Codecs::default()).await;
    let producer = Transactional::new(&bootstrap);
    for (round, commits) in [true, false, true].into_iter().enumerate() {
        producer.begin();
        producer.send(&name, 0, "inside", &round.to_string());
        let behind = ktables::log::NewRecord {
            partition: Some(0),
            ..ktables_tests::record("behind", Some(round.to_string().as_bytes()))
        };
        scratch.write(vec![behind]).await;
        let builder = Table::builder(scratch.log.clone(), &name, Codecs::default());
        let loading = builder.catchup_timeout(Duration::from_secs(1)).start().await.unwrap();
        for table in [&live, &loading] {
            let reason = eventually_async("the open transaction is told", || {
                table.status().reason().filter(|reason| reason.contains("a transaction is open"))
            })
            .await;
            assert!(reason.contains("partition 0 stands at") && reason.contains(" since 20"), "{reason}");
            assert!(!table.barrier(Duration::from_millis(200)).await.is_fresh());
            // What it hides is not there, and the other partition goes on.
            let expected = (round > 0).then(|| (round - 1).to_string());
            assert_eq!(table.get("behind").map(|entry| entry.json().to_owned()), expected);
        }
        match commits {
            true => producer.commit(),
            false => producer.abort(),
        }
        for table in [&live, &loading] {
            eventually_async("the table is caught up", || {
                matches!(table.status(), Status::CaughtUp).then_some(())
            })
            .await;
            scratch.sync(table).await;
            let inside = if commits { round } else { round - 1 };
            assert_eq!(table.get("inside").unwrap().json(), inside.to_string());
            assert_eq!(table.get("behind").unwrap().json(), round.to_string());
        }
    }
    assert!(live.barrier(PATIENCE).await.is_fresh());
    FaultTally::of(3).tell();
}
