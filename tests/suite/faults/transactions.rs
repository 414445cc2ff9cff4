//! Tests transactions that stay open and are then committed or aborted.

use std::time::Duration;

use ktables::codec::Codecs;
use ktables::log::LogOptions;
use ktables::table::{Status, Table};
use ktables_tests::kafka::{self, Transactional};
use ktables_tests::{FaultTally, STALE_AFTER, Scratch, TIMEOUT, eventually_async, unique};

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_reported_until_it_is_committed_or_aborted() {
    let (bootstrap, name) = (kafka::shared(), unique("t"));
    kafka::create(&bootstrap, &name, 2, &[]).await;
    let options = LogOptions { stale_after: STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::existing(&bootstrap, options, &name).await;
    scratch.put("before", Some(b"1")).await;
    let live = scratch.table(Codecs::default()).await;
    let producer = Transactional::new(&bootstrap);
    for (round, is_committed) in [true, false, true].into_iter().enumerate() {
        producer.begin();
        producer.send(&name, 0, "inside", &round.to_string());
        let after = ktables::log::NewRecord {
            partition: Some(0),
            ..ktables_tests::record("after", Some(round.to_string().as_bytes()))
        };
        scratch.write(vec![after]).await;
        let builder = Table::builder(scratch.log.clone(), &name, Codecs::default());
        let loading = builder.catchup_timeout(Duration::from_secs(1)).start().await.unwrap();
        for table in [&live, &loading] {
            let reason = eventually_async("the status reports the open transaction", || {
                table.status().reason().filter(|reason| reason.contains("a transaction is open"))
            })
            .await;
            assert!(reason.contains("partition 0 is stuck at") && reason.contains(" since 20"), "{reason}");
            assert!(!table.barrier(Duration::from_millis(200)).await.is_fresh());
            // The records after the start of the transaction are hidden.
            let expected = (round > 0).then(|| (round - 1).to_string());
            assert_eq!(table.get("after").map(|entry| entry.json().to_owned()), expected);
        }
        match is_committed {
            true => producer.commit(),
            false => producer.abort(),
        }
        for table in [&live, &loading] {
            eventually_async("the table is caught up", || {
                matches!(table.status(), Status::CaughtUp).then_some(())
            })
            .await;
            scratch.sync(table).await;
            let inside = if is_committed { round } else { round - 1 };
            assert_eq!(table.get("inside").unwrap().json(), inside.to_string());
            assert_eq!(table.get("after").unwrap().json(), round.to_string());
        }
    }
    assert!(live.barrier(TIMEOUT).await.is_fresh());
    FaultTally::without_errors(3).report();
}
