//! Tests a cluster whose metadata responses name no brokers for a while, as after all brokers were fenced.
//! A client that believes such a response has no broker left to ask. Also tests a producer without answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::messages::{ApiKey, MetadataResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use ktables::codec::Codecs;
use ktables::log::{LogError, LogOptions};
use ktables::table::Table;
use ktables_broker::BrokerOptions;
use ktables_tests::{FaultTally, Interceptor, Proxy, Scratch, TIMEOUT, eventually_async, kafka, record};

use super::wait_for_status;

/// How long the cluster may be silent before tables are degraded.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// How soon a table should be caught up after brokers are named again.
const RECOVERY_TIME: Duration = Duration::from_secs(2 * 2 + 5);

/// Removes the brokers from metadata responses while it is enabled.
#[derive(Debug, Default)]
struct BrokerRemover {
    is_enabled: AtomicBool,
    /// The number of changed responses.
    changed_count: AtomicU64,
}

impl Interceptor for BrokerRemover {
    fn change_response(&self, request: &[u8], response: Vec<u8>) -> Vec<u8> {
        let (key, version) = (&request[..2], i16::from_be_bytes([request[2], request[3]]));
        if !self.is_enabled.load(Ordering::Relaxed) || key != (ApiKey::Metadata as i16).to_be_bytes() {
            return response;
        }
        let mut rest = &response[..];
        let header_version = ApiKey::Metadata.response_header_version(version);
        let header = ResponseHeader::decode(&mut rest, header_version).unwrap();
        let mut metadata = MetadataResponse::decode(&mut rest, version).unwrap();
        metadata.brokers.clear();
        for partition in metadata.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            (partition.leader_id, partition.error_code) = ((-1).into(), LEADER_NOT_AVAILABLE);
        }
        let mut changed = Vec::new();
        header.encode(&mut changed, header_version).unwrap();
        metadata.encode(&mut changed, version).unwrap();
        self.changed_count.fetch_add(1, Ordering::Relaxed);
        changed
    }
}

/// Kafka's error code for a partition without a leader.
const LEADER_NOT_AVAILABLE: i16 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_table_recovers_after_metadata_that_names_no_brokers() {
    let (proxy, remover) = (Proxy::listen().await, Arc::new(BrokerRemover::default()));
    let properties = vec![("advertised.listeners".to_owned(), format!("PLAINTEXT://{}", proxy.address()))];
    let broker = kafka::start_broker(&BrokerOptions { properties, ..BrokerOptions::default() });
    proxy.forward(broker.bootstrap(), remover.clone());
    let options = LogOptions { stale_after: STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::on_cluster(&proxy.address(), options, 2).await;
    scratch.put("a", Some(b"1")).await;
    let table = Table::builder(scratch.log.clone(), &scratch.topic.name, Codecs::default())
        .catchup_timeout(TIMEOUT)
        .start()
        .await
        .unwrap();
    for round in 0..3_u64 {
        remover.is_enabled.store(true, Ordering::Relaxed);
        let before = remover.changed_count.load(Ordering::Relaxed);
        // A client that loses its connection requests metadata.
        proxy.disconnect_all();
        eventually_async("a client received metadata without brokers", || {
            (remover.changed_count.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
        wait_for_status(&table, "degraded").await;
        assert_eq!(table.get("a").map(|entry| entry.json().to_owned()), Some((round + 1).to_string()));
        remover.is_enabled.store(false, Ordering::Relaxed);
        let restored = Instant::now();
        let value = (round + 2).to_string();
        ktables_tests::eventually_ok("the broker accepts records again", async || {
            match scratch.log.send(&scratch.topic, record("a", Some(value.as_bytes()))).await {
                Ok(delivery) => delivery.await,
                Err(error) => Err(error),
            }
        })
        .await;
        eventually_async("the table has the new record", || {
            table.get("a").filter(|entry| entry.json() == value)
        })
        .await;
        wait_for_status(&table, "caught_up").await;
        let took = restored.elapsed();
        assert!(took < 3 * RECOVERY_TIME, "recovery took {took:?}");
    }
    FaultTally { faults: 3, acknowledged: 3, ..FaultTally::default() }.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_without_answers_is_given_up_while_no_table_reads() {
    check_that_a_silent_producer_is_given_up(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_without_answers_is_given_up_while_a_table_reads() {
    check_that_a_silent_producer_is_given_up(true).await;
}

/// Blocks only the connections of a producer, and checks that its record is given up and that later writes
/// succeed.
async fn check_that_a_silent_producer_is_given_up(has_table: bool) {
    let proxy = Proxy::listen().await;
    let properties = vec![("advertised.listeners".to_owned(), format!("PLAINTEXT://{}", proxy.address()))];
    let broker = kafka::start_broker(&BrokerOptions { properties, ..BrokerOptions::default() });
    proxy.forward(broker.bootstrap(), Arc::new(BrokerRemover::default()));
    let options = LogOptions { stale_after: STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::on_cluster(&proxy.address(), options, 1).await;
    let table = match has_table {
        true => Some(scratch.table(Codecs::default()).await),
        false => None,
    };
    // All other clients are connected by now, so later connections belong to the producer.
    let before = proxy.connections();
    scratch.put("a", Some(b"1")).await;
    proxy.block_from(before);
    let blocked = Instant::now();
    let delivery = scratch.log.send(&scratch.topic, record("a", Some(b"2"))).await.unwrap();
    let outcome = tokio::time::timeout(TIMEOUT, delivery).await.expect("the record is given up");
    assert!(matches!(outcome, Err(LogError::Undelivered { .. })), "{outcome:?}");
    assert!(blocked.elapsed() < 3 * RECOVERY_TIME, "giving up took {:?}", blocked.elapsed());
    proxy.unblock();
    scratch.put("a", Some(b"3")).await;
    if let Some(table) = table {
        eventually_async("the table has the new record", || {
            table.get("a").filter(|entry| entry.json() == "3")
        })
        .await;
    }
    FaultTally { faults: 1, acknowledged: 2, ..FaultTally::default() }.report();
}
