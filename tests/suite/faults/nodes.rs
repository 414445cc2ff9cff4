//! A cluster of three nodes, of which some die, sleep or come back without what they had.

use std::sync::Arc;
use std::time::Duration;

use ktables::codec::Codecs;
use ktables::table::Table;
use ktables_broker::{BrokerOptions, Cluster};
use ktables_tests::{Held, PATIENCE, Witness, kafka, record, unique};
use tokio::sync::{Mutex, MutexGuard};

/// The cluster of these tests, one at a time, all of its nodes up.
async fn cluster() -> MutexGuard<'static, Option<Cluster>> {
    static CLUSTER: Mutex<Option<Cluster>> = Mutex::const_new(None);
    let mut guard = CLUSTER.lock().await;
    tokio::task::block_in_place(|| match &mut *guard {
        Some(cluster) => cluster.heal().unwrap(),
        none => *none = Some(Cluster::start(&kafka::target(), &BrokerOptions::default(), 3).unwrap()),
    });
    guard
}

/// A topic that survives the loss of a node.
async fn topic(bootstrap: &str) -> String {
    let name = unique("replicated");
    kafka::create_on(bootstrap, &name, &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]], &[]).await;
    name
}

fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_killed_while_a_table_follows_and_others_write() {
    let mut guard = cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = topic(&cluster.bootstrap()).await;
    let witness = Witness::of(&cluster.bootstrap(), &[], &name).await;
    witness.more_acknowledged(100).await;
    for partition in 0..2 {
        let leader = blocking(|| kafka::leader(&cluster.bootstrap(), &name, partition));
        cluster.node(leader).kill().unwrap();
        // The others go on: what is acknowledged now is seen without it.
        witness.more_acknowledged(300).await;
        blocking(|| cluster.heal()).unwrap();
        witness.more_acknowledged(100).await;
    }
    witness.finish(2).await.tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_killed_while_a_table_loads() {
    let mut guard = cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = topic(&cluster.bootstrap()).await;
    let small =
        [("fetch.message.max.bytes", "10000"), ("queued.max.messages.kbytes", "64"), ("batch.size", "10000")];
    let witness = Witness::of(&cluster.bootstrap(), &small, &name).await;
    let url = format!("kafka://{}", cluster.bootstrap());
    let options = ktables::log::LogOptions {
        properties: small.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        ..ktables::log::LogOptions::default()
    };
    let log = ktables::log::open_with(&url, options).unwrap();
    let described = log.describe(&name).await.unwrap();
    let value = format!("\"{}\"", "x".repeat(500));
    for number in 0..20_000 {
        let filler = record(&format!("filler-{}", number % 5000), Some(value.as_bytes()));
        drop(log.send(&described, filler).await.unwrap());
    }
    assert_eq!(log.close(PATIENCE).await, []);
    let codec = Arc::new(Held::default());
    codec.hold();
    let codecs = Codecs { value: codec.clone(), ..Codecs::default() };
    let loading = Table::builder(log.clone(), &name, codecs).catchup_timeout(PATIENCE).open().await.unwrap();
    let leader = blocking(|| kafka::leader(&cluster.bootstrap(), &name, 0));
    cluster.node(leader).kill().unwrap();
    codec.release();
    loading.ready().await.unwrap();
    witness.more_acknowledged(100).await;
    blocking(|| cluster.heal()).unwrap();
    ktables_tests::eventually_async("the table that loaded is fresh", || {
        (loading.len() >= 5000).then_some(())
    })
    .await;
    assert!(loading.barrier(PATIENCE).await.is_fresh());
    drop(loading);
    witness.finish(1).await.tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_are_stopped_and_started() {
    let mut guard = cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = topic(&cluster.bootstrap()).await;
    let witness = Witness::of(&cluster.bootstrap(), &[], &name).await;
    witness.more_acknowledged(100).await;
    blocking(|| cluster.nodes().for_each(|node| node.kill().unwrap()));
    witness.told("unreachable since 20").await;
    assert!(!witness.table.barrier(Duration::from_millis(500)).await.is_fresh());
    witness.forget_statuses();
    blocking(|| cluster.heal()).unwrap();
    witness.told("caught_up").await;
    witness.more_acknowledged(100).await;
    witness.finish(1).await.tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_sleeps_for_twenty_seconds() {
    let mut guard = cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = topic(&cluster.bootstrap()).await;
    let witness = Witness::of(&cluster.bootstrap(), &[], &name).await;
    witness.more_acknowledged(100).await;
    let leader = blocking(|| kafka::leader(&cluster.bootstrap(), &name, 0));
    cluster.node(leader).pause().unwrap();
    // As long as this is the fault itself; others take over meanwhile.
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.node(leader).resume().unwrap();
    witness.more_acknowledged(200).await;
    witness.finish(1).await.tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_missed_the_last_records_is_elected_and_the_log_truncated() {
    let mut guard = cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = unique("unclean");
    let settings = [("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true")];
    kafka::create_on(&cluster.bootstrap(), &name, &[&[1, 2]], &settings).await;
    let witness = Witness::of(&cluster.bootstrap(), &[], &name).await;
    witness.more_acknowledged(200).await;
    witness.hold().await;
    // One node alone has what comes now, and dies with it.
    cluster.node(2).kill().unwrap();
    witness.go_on();
    witness.more_acknowledged(500).await;
    witness.hold().await;
    assert!(witness.table.barrier(PATIENCE).await.is_fresh());
    cluster.node(1).kill().unwrap();
    // The cluster was told that this may be lost.
    witness.forget();
    blocking(|| cluster.node(2).restart()).unwrap();
    blocking(|| {
        ktables_tests::eventually("the other node leads", || {
            (kafka::leader(&cluster.bootstrap(), &name, 0) == 2).then_some(())
        })
    });
    witness.go_on();
    witness.more_acknowledged(100).await;
    blocking(|| cluster.heal()).unwrap();
    witness.more_acknowledged(100).await;
    ktables_tests::eventually_async("another generation took over", || {
        (witness.generations() > 0).then_some(())
    })
    .await;
    let told = witness.told("loading the topic again").await;
    assert!(told.contains("truncated") || told.contains("not there any more"), "{told}");
    witness.finish(1).await.tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_leader_is_told_and_forgiven() {
    let mut guard = cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = unique("alone");
    kafka::create_on(&cluster.bootstrap(), &name, &[&[1], &[2]], &[("min.insync.replicas", "1")]).await;
    let witness = Witness::of(&cluster.bootstrap(), &[], &name).await;
    witness.more_acknowledged(100).await;
    witness.hold().await;
    cluster.node(2).kill().unwrap();
    // For a moment nobody may tell of the other one, either.
    ktables_tests::eventually_async("the partition without a leader is told, and no other", || {
        let reason = witness.table.status().reason()?;
        (reason.starts_with("partition 1 ") && reason.ends_with("no leader answers for it")).then_some(())
    })
    .await;
    assert!(!witness.table.barrier(Duration::from_secs(1)).await.is_fresh());
    // A table that starts meanwhile says the same, after its patience.
    let log = ktables::log::open(&format!("kafka://{}", cluster.bootstrap())).unwrap();
    let starting = Table::builder(log, &name, Codecs::default()).catchup_timeout(Duration::from_secs(1));
    let starting = starting.start().await.unwrap();
    assert_eq!(starting.status().name(), "degraded", "{}", starting.status());
    witness.forget_statuses();
    blocking(|| cluster.heal()).unwrap();
    witness.told("caught_up").await;
    witness.go_on();
    witness.more_acknowledged(100).await;
    ktables_tests::eventually_async("the other table is complete", || {
        (starting.status().name() == "caught_up").then_some(())
    })
    .await;
    assert!(starting.barrier(PATIENCE).await.is_fresh());
    drop(starting);
    witness.finish(1).await.tell();
}
