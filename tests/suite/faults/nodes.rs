//! Tests a cluster of three nodes, some of which are killed, paused, or restarted without their last records.

use std::sync::Arc;
use std::time::Duration;

use ktables::codec::Codecs;
use ktables::table::Table;
use ktables_broker::{BrokerOptions, Cluster};
use ktables_tests::{FaultyCodec, TIMEOUT, Witness, kafka, record, unique};
use tokio::sync::{Mutex, MutexGuard};

/// Locks the cluster that these tests share, with all of its nodes running.
async fn lock_cluster() -> MutexGuard<'static, Option<Cluster>> {
    static CLUSTER: Mutex<Option<Cluster>> = Mutex::const_new(None);
    let mut guard = CLUSTER.lock().await;
    tokio::task::block_in_place(|| match &mut *guard {
        Some(cluster) => cluster.heal().unwrap(),
        none => *none = Some(Cluster::start(&kafka::target(), &BrokerOptions::default(), 3).unwrap()),
    });
    guard
}

/// Creates a topic that survives the loss of a node: its partitions have three replicas.
async fn create_topic(bootstrap: &str) -> String {
    let name = unique("replicated");
    kafka::create_with_replicas(bootstrap, &name, &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]], &[]).await;
    name
}

/// Runs work that blocks its thread.
fn run_blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_killed_while_a_table_follows_and_others_write() {
    let mut guard = lock_cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = create_topic(&cluster.bootstrap()).await;
    let witness = Witness::start(&cluster.bootstrap(), &[], &name).await;
    witness.wait_for_writes(100).await;
    for partition in 0..2 {
        let leader = run_blocking(|| kafka::wait_for_leader(&cluster.bootstrap(), &name, partition));
        cluster.node(leader).kill().unwrap();
        // The other nodes take over: writes are acknowledged without the killed one.
        witness.wait_for_writes(300).await;
        run_blocking(|| cluster.heal()).unwrap();
        witness.wait_for_writes(100).await;
    }
    witness.finish(2).await.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_killed_while_a_table_loads() {
    let mut guard = lock_cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = create_topic(&cluster.bootstrap()).await;
    let small =
        [("fetch.message.max.bytes", "10000"), ("queued.max.messages.kbytes", "64"), ("batch.size", "10000")];
    let witness = Witness::start(&cluster.bootstrap(), &small, &name).await;
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
    assert_eq!(log.close(TIMEOUT).await, []);
    let codec = Arc::new(FaultyCodec::default());
    codec.fail();
    let codecs = Codecs { value: codec.clone(), ..Codecs::default() };
    let loading = Table::builder(log.clone(), &name, codecs).catchup_timeout(TIMEOUT).open().await.unwrap();
    let leader = run_blocking(|| kafka::wait_for_leader(&cluster.bootstrap(), &name, 0));
    cluster.node(leader).kill().unwrap();
    codec.recover();
    loading.wait_until_ready().await.unwrap();
    witness.wait_for_writes(100).await;
    run_blocking(|| cluster.heal()).unwrap();
    ktables_tests::eventually_async("the loading table has all records", || {
        (loading.len() >= 5000).then_some(())
    })
    .await;
    assert!(loading.barrier(TIMEOUT).await.is_fresh());
    drop(loading);
    witness.finish(1).await.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_are_stopped_and_started() {
    let mut guard = lock_cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = create_topic(&cluster.bootstrap()).await;
    let witness = Witness::start(&cluster.bootstrap(), &[], &name).await;
    witness.wait_for_writes(100).await;
    run_blocking(|| cluster.nodes().for_each(|node| node.kill().unwrap()));
    witness.wait_for_status("unreachable since 20").await;
    assert!(!witness.table.barrier(Duration::from_millis(500)).await.is_fresh());
    witness.forget_statuses();
    run_blocking(|| cluster.heal()).unwrap();
    witness.wait_for_status("caught_up").await;
    witness.wait_for_writes(100).await;
    witness.finish(1).await.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_paused_for_twenty_seconds() {
    let mut guard = lock_cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = create_topic(&cluster.bootstrap()).await;
    let witness = Witness::start(&cluster.bootstrap(), &[], &name).await;
    witness.wait_for_writes(100).await;
    let leader = run_blocking(|| kafka::wait_for_leader(&cluster.bootstrap(), &name, 0));
    cluster.node(leader).pause().unwrap();
    // The fault is a pause of this length. The other nodes take over meanwhile.
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.node(leader).resume().unwrap();
    witness.wait_for_writes(200).await;
    witness.finish(1).await.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_missed_the_last_records_is_elected_and_the_log_truncated() {
    let mut guard = lock_cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = unique("unclean");
    let settings = [("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true")];
    kafka::create_with_replicas(&cluster.bootstrap(), &name, &[&[1, 2]], &settings).await;
    let witness = Witness::start(&cluster.bootstrap(), &[], &name).await;
    witness.wait_for_writes(200).await;
    witness.pause_writes().await;
    // Only node 1 has the records that follow, and it is killed later.
    cluster.node(2).kill().unwrap();
    witness.resume_writes();
    witness.wait_for_writes(500).await;
    witness.pause_writes().await;
    assert!(witness.table.barrier(TIMEOUT).await.is_fresh());
    cluster.node(1).kill().unwrap();
    // The topic allows unclean leader elections, so these records may be lost.
    witness.forget_writes();
    run_blocking(|| cluster.node(2).restart()).unwrap();
    run_blocking(|| {
        ktables_tests::eventually("the other node leads", || {
            (kafka::wait_for_leader(&cluster.bootstrap(), &name, 0) == 2).then_some(())
        })
    });
    witness.resume_writes();
    witness.wait_for_writes(100).await;
    run_blocking(|| cluster.heal()).unwrap();
    witness.wait_for_writes(100).await;
    ktables_tests::eventually_async("another generation took over", || {
        (witness.generations() > 0).then_some(())
    })
    .await;
    let status = witness.wait_for_status("loading the topic again").await;
    assert!(status.contains("truncated") || status.contains("does not exist any more"), "{status}");
    witness.finish(1).await.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_leader_is_reported_until_it_has_one() {
    let mut guard = lock_cluster().await;
    let cluster = guard.as_mut().unwrap();
    let name = unique("alone");
    kafka::create_with_replicas(&cluster.bootstrap(), &name, &[&[1], &[2]], &[("min.insync.replicas", "1")])
        .await;
    let witness = Witness::start(&cluster.bootstrap(), &[], &name).await;
    witness.wait_for_writes(100).await;
    witness.pause_writes().await;
    cluster.node(2).kill().unwrap();
    // For a moment, no broker may answer for partition 0, either.
    ktables_tests::eventually_async("the status reports only the partition without a leader", || {
        let reason = witness.table.status().reason()?;
        (reason.starts_with("partition 1 ") && reason.ends_with("no leader answers")).then_some(())
    })
    .await;
    assert!(!witness.table.barrier(Duration::from_secs(1)).await.is_fresh());
    // A table that starts meanwhile is degraded, too, after its catch-up timeout. On a busy machine, the first
    // answer of a cluster with a dead node may take longer than a second.
    let log = ktables::log::open(&format!("kafka://{}", cluster.bootstrap())).unwrap();
    let starting = Table::builder(log, &name, Codecs::default()).catchup_timeout(Duration::from_secs(5));
    let starting = starting.start().await.unwrap();
    assert_eq!(starting.status().name(), "degraded", "{}", starting.status());
    witness.forget_statuses();
    run_blocking(|| cluster.heal()).unwrap();
    witness.wait_for_status("caught_up").await;
    witness.resume_writes();
    witness.wait_for_writes(100).await;
    ktables_tests::eventually_async("the other table is complete", || {
        (starting.status().name() == "caught_up").then_some(())
    })
    .await;
    assert!(starting.barrier(TIMEOUT).await.is_fresh());
    drop(starting);
    witness.finish(1).await.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_about_a_partition_without_a_leader_do_not_disturb_others() {
    let mut guard = lock_cluster().await;
    let cluster = guard.as_mut().unwrap();
    let replicas: [&[i32]; 2] = [&[1], &[2]];
    let settings = [("min.insync.replicas", "1")];
    let (broken, whole) = (unique("broken"), unique("whole"));
    kafka::create_with_replicas(&cluster.bootstrap(), &broken, &replicas, &settings).await;
    kafka::create_with_replicas(&cluster.bootstrap(), &whole, &replicas[..1], &settings).await;
    let log = ktables::log::open(&format!("kafka://{}", cluster.bootstrap())).unwrap();
    let (broken, whole) = (log.describe(&broken).await.unwrap(), log.describe(&whole).await.unwrap());
    cluster.node(2).kill().unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(5);
    let requests = (0..64).map(|_| {
        let (log, broken, whole) = (log.clone(), broken.clone(), whole.clone());
        tokio::spawn(async move {
            while std::time::Instant::now() < until {
                // It is retried until it is cancelled.
                let offsets = tokio::time::timeout(Duration::from_millis(100), log.end_offsets(&broken));
                assert!(offsets.await.is_err());
                assert_eq!(log.end_offsets(&whole).await.unwrap(), [(0, 0)]);
            }
        })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
    run_blocking(|| cluster.heal()).unwrap();
    assert_eq!(log.end_offsets(&broken).await.unwrap(), [(0, 0), (1, 0)]);
}
