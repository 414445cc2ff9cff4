//! A broker that stands still for a while, on a busy machine: its cluster may fence it, and clients
//! are told of no brokers at all. Whoever follows must follow on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ktables::codec::Codecs;
use ktables::log::{Log, LogOptions};
use ktables::table::{Status, Table};
use ktables_broker::BrokerOptions;
use ktables_tests::{FaultTally, PATIENCE, Scratch, eventually_async, kafka, record};

/// How many follow, each with clients of its own.
const WATCHERS: usize = 18;

/// How long the broker may be silent before tables say so.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// How soon all of them are up to date after the broker goes on.
const PROMISE: Duration = Duration::from_secs(2 * 2 + 5);

/// Keeps a core busy as long as it lives.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            let over = over.clone();
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {});
        }
        Self(over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// From one to fifteen seconds: what is repeated differs.
fn a_while() -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    Duration::from_millis(1000 + u64::from(nanos / 1000) % 14_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_stands_still_while_many_follow() {
    let broker = kafka::own(&BrokerOptions::default());
    let options = LogOptions { stale_after: STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::at(&broker.bootstrap(), options.clone(), 2).await;
    let mut tables: Vec<Table> = Vec::new();
    for _ in 0..WATCHERS {
        let log = ktables::log::open_with(&scratch.url(), options.clone()).unwrap();
        let table = Table::builder(log, &scratch.topic.name, Codecs::default()).catchup_timeout(PATIENCE);
        tables.push(table.start().await.unwrap());
    }
    // Somebody writes all the time; what is not acknowledged may be there or not.
    let (over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing =
        tokio::spawn(write(scratch.log.clone(), scratch.topic.clone(), over.clone(), acknowledged.clone()));
    eventually_async("some is written", || (acknowledged.load(Ordering::Relaxed) > 100).then_some(())).await;

    let busy = Busy::start();
    let length = a_while();
    broker.pause().unwrap();
    let stopped = Instant::now();
    while stopped.elapsed() < length {
        tokio::time::sleep(Duration::from_millis(50)).await;
        // Three times the promise.
        if stopped.elapsed() > 3 * STALE_AFTER {
            for table in &tables {
                assert!(matches!(table.status(), Status::Degraded(_)), "{}", table.status());
            }
        }
    }
    broker.resume().unwrap();
    let resumed = Instant::now();
    let ack = ktables_tests::eventually_ok("it takes records again", async || {
        let delivery = scratch.log.send(&scratch.topic, record("last", Some(b"1"))).await;
        match delivery {
            Ok(delivery) => delivery.await,
            Err(error) => Err(error),
        }
    })
    .await;
    for table in &tables {
        eventually_async("everybody has it", || table.get("last")).await;
        assert!(table.wait_for(&[ack], PATIENCE).await.is_fresh());
        eventually_async("everybody says so", || matches!(table.status(), Status::CaughtUp).then_some(()))
            .await;
    }
    drop(busy);
    let took = resumed.elapsed();
    assert!(took < 3 * PROMISE, "after {length:?} of silence it took {took:?}");
    over.store(true, Ordering::Relaxed);
    writing.await.unwrap();

    // All of them have what one has that begins anew.
    let anew = scratch.table(Codecs::default()).await;
    scratch.sync(&anew).await;
    let expected = ktables_tests::contents(&anew);
    let mut wrong = 0;
    for table in &tables {
        scratch.sync(table).await;
        wrong += u64::from(ktables_tests::contents(table) != expected);
    }
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    FaultTally { acknowledged, wrong, ..FaultTally::of(1) }.tell();
}

async fn write(
    log: Arc<dyn Log>,
    topic: ktables::log::TopicDescription,
    over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) {
    let mut number = 0_u64;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let record = record(&format!("k{}", number % 50), Some(number.to_string().as_bytes()));
        if let Ok(delivery) = log.send(&topic, record).await
            && delivery.await.is_ok()
        {
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}
