//! A cluster that names no brokers for a while, as one does that has fenced all it had: clients
//! that believe it know nobody to ask any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::messages::{ApiKey, MetadataResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use ktables::codec::Codecs;
use ktables::log::{LogError, LogOptions};
use ktables::table::Table;
use ktables_broker::BrokerOptions;
use ktables_tests::{Between, FaultTally, PATIENCE, Proxy, Scratch, eventually_async, kafka, record};

use super::status;

/// How long the cluster may be silent before tables say so.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// How soon a table is up to date after brokers are named again.
const PROMISE: Duration = Duration::from_secs(2 * 2 + 5);

/// Removes the brokers from metadata responses while it is on.
#[derive(Debug, Default)]
struct Nobody {
    is_on: AtomicBool,
    told: AtomicU64,
}

impl Between for Nobody {
    fn answer(&self, request: &[u8], answer: Vec<u8>) -> Vec<u8> {
        let (key, version) = (&request[..2], i16::from_be_bytes([request[2], request[3]]));
        if !self.is_on.load(Ordering::Relaxed) || key != (ApiKey::Metadata as i16).to_be_bytes() {
            return answer;
        }
        let mut rest = &answer[..];
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
        self.told.fetch_add(1, Ordering::Relaxed);
        changed
    }
}

/// Kafka's code for a partition that nobody leads.
const LEADER_NOT_AVAILABLE: i16 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_names_no_brokers_for_a_while() {
    let (proxy, nobody) = (Proxy::listen().await, Arc::new(Nobody::default()));
    let properties = vec![("advertised.listeners".to_owned(), format!("PLAINTEXT://{}", proxy.address()))];
    let broker = kafka::own(&BrokerOptions { properties, ..BrokerOptions::default() });
    proxy.forward(broker.bootstrap(), nobody.clone());
    let options = LogOptions { stale_after: STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::at(&proxy.address(), options, 2).await;
    scratch.put("a", Some(b"1")).await;
    let table = Table::builder(scratch.log.clone(), &scratch.topic.name, Codecs::default())
        .catchup_timeout(PATIENCE)
        .start()
        .await
        .unwrap();
    for round in 0..3_u64 {
        nobody.is_on.store(true, Ordering::Relaxed);
        let told = nobody.told.load(Ordering::Relaxed);
        // Who loses a connection asks whom to connect to.
        proxy.cut();
        eventually_async("clients are told", || (nobody.told.load(Ordering::Relaxed) > told).then_some(()))
            .await;
        status(&table, "degraded").await;
        assert_eq!(table.get("a").map(|entry| entry.json().to_owned()), Some((round + 1).to_string()));
        nobody.is_on.store(false, Ordering::Relaxed);
        let named = Instant::now();
        let value = (round + 2).to_string();
        ktables_tests::eventually_ok("it takes records again", async || {
            match scratch.log.send(&scratch.topic, record("a", Some(value.as_bytes()))).await {
                Ok(delivery) => delivery.await,
                Err(error) => Err(error),
            }
        })
        .await;
        eventually_async("the table follows on", || table.get("a").filter(|entry| entry.json() == value))
            .await;
        status(&table, "caught_up").await;
        let took = named.elapsed();
        assert!(took < 3 * PROMISE, "it took {took:?}");
    }
    FaultTally { faults: 3, acknowledged: 3, ..FaultTally::default() }.tell();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_writes_gets_no_answer_while_nobody_reads() {
    a_client_that_writes_gets_no_answer(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_writes_gets_no_answer_while_others_read() {
    a_client_that_writes_gets_no_answer(true).await;
}

async fn a_client_that_writes_gets_no_answer(is_read: bool) {
    let proxy = Proxy::listen().await;
    let properties = vec![("advertised.listeners".to_owned(), format!("PLAINTEXT://{}", proxy.address()))];
    let broker = kafka::own(&BrokerOptions { properties, ..BrokerOptions::default() });
    proxy.forward(broker.bootstrap(), Arc::new(Nobody::default()));
    let options = LogOptions { stale_after: STALE_AFTER, ..LogOptions::default() };
    // What asks and reads is connected; what is connected from now on writes.
    let scratch = Scratch::at(&proxy.address(), options, 1).await;
    let table = match is_read {
        true => Some(scratch.table(Codecs::default()).await),
        false => None,
    };
    let before = proxy.connections();
    scratch.put("a", Some(b"1")).await;
    proxy.hold_from(before);
    let held = Instant::now();
    let delivery = scratch.log.send(&scratch.topic, record("a", Some(b"2"))).await.unwrap();
    let outcome = tokio::time::timeout(PATIENCE, delivery).await.expect("it is given up");
    assert!(matches!(outcome, Err(LogError::Undelivered { .. })), "{outcome:?}");
    assert!(held.elapsed() < 3 * PROMISE, "it took {:?}", held.elapsed());
    proxy.release();
    scratch.put("a", Some(b"3")).await;
    if let Some(table) = table {
        eventually_async("the table follows on", || table.get("a").filter(|entry| entry.json() == "3")).await;
    }
    FaultTally { faults: 1, acknowledged: 2, ..FaultTally::default() }.tell();
}
