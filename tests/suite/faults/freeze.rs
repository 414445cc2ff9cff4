//! Tests a broker that is frozen for a while on a busy machine. Its cluster may fence it, and then answers
//! clients that there are no brokers at all. All tables must recover.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ktables::codec::Codecs;
use ktables::log::{Log, LogOptions};
use ktables::table::{Status, Table};
use ktables_broker::BrokerOptions;
use ktables_tests::{FaultTally, Scratch, TIMEOUT, eventually_async, kafka, record};

/// The number of tables, each with clients of its own.
const TABLES: usize = 18;

/// How long the broker may be silent before tables are degraded.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// How soon all tables should be caught up after the broker resumes.
const RECOVERY_TIME: Duration = Duration::from_secs(2 * 2 + 5);

/// Keeps two cores busy until it is dropped.
struct CpuLoad(Arc<AtomicBool>);

impl CpuLoad {
    fn start() -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            let stopped = stopped.clone();
            std::thread::spawn(move || while !stopped.load(Ordering::Relaxed) {});
        }
        Self(stopped)
    }
}

impl Drop for CpuLoad {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A duration from one to fifteen seconds, so that repeated runs differ.
fn random_duration() -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    Duration::from_millis(1000 + u64::from(nanos / 1000) % 14_000)
}

// Long because it is one story, in the order in which it happens.
#[tokio::test(flavor = "multi_thread")]
async fn many_tables_recover_after_their_broker_was_frozen() {
    let broker = kafka::start_broker(&BrokerOptions::default());
    let options = LogOptions { stale_after: STALE_AFTER, ..LogOptions::default() };
    let scratch = Scratch::on_cluster(&broker.bootstrap(), options.clone(), 2).await;
    let mut tables: Vec<Table> = Vec::new();
    for _ in 0..TABLES {
        let log = ktables::log::open_with(&scratch.url(), options.clone()).unwrap();
        let table = Table::builder(log, &scratch.topic.name, Codecs::default()).catchup_timeout(TIMEOUT);
        tables.push(table.start().await.unwrap());
    }
    // One task writes all the time. A record that is not acknowledged may have been written or not.
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing =
        tokio::spawn(write(scratch.log.clone(), scratch.topic.clone(), stop.clone(), acknowledged.clone()));
    eventually_async("some records are acknowledged", || {
        (acknowledged.load(Ordering::Relaxed) > 100).then_some(())
    })
    .await;

    let load = CpuLoad::start();
    let length = random_duration();
    broker.pause().unwrap();
    let paused = Instant::now();
    while paused.elapsed() < length {
        tokio::time::sleep(Duration::from_millis(50)).await;
        // Three times `STALE_AFTER`, because the machine is busy.
        if paused.elapsed() > 3 * STALE_AFTER {
            for table in &tables {
                assert!(matches!(table.status(), Status::Degraded(_)), "{}", table.status());
            }
        }
    }
    broker.resume().unwrap();
    let resumed = Instant::now();
    let ack = ktables_tests::eventually_ok("the broker accepts records again", async || {
        let delivery = scratch.log.send(&scratch.topic, record("last", Some(b"1"))).await;
        match delivery {
            Ok(delivery) => delivery.await,
            Err(error) => Err(error),
        }
    })
    .await;
    for table in &tables {
        eventually_async("every table has the last record", || table.get("last")).await;
        assert!(table.wait_for(&[ack], TIMEOUT).await.is_fresh());
        eventually_async("every table is caught up", || {
            matches!(table.status(), Status::CaughtUp).then_some(())
        })
        .await;
    }
    drop(load);
    let took = resumed.elapsed();
    assert!(took < 3 * RECOVERY_TIME, "recovery from {length:?} of silence took {took:?}");
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();

    // All tables equal one that replays the topic.
    let fresh = scratch.table(Codecs::default()).await;
    scratch.sync(&fresh).await;
    let expected = ktables_tests::contents(&fresh);
    let mut wrong = 0;
    for table in &tables {
        scratch.sync(table).await;
        wrong += u64::from(ktables_tests::contents(table) != expected);
    }
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    FaultTally { acknowledged, wrong, ..FaultTally::without_errors(1) }.report();
}

/// Writes one record after the other until `stop`, and counts the acknowledged ones.
async fn write(
    log: Arc<dyn Log>,
    topic: ktables::log::TopicDescription,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let record = record(&format!("k{}", number % 50), Some(number.to_string().as_bytes()));
        if let Ok(delivery) = log.send(&topic, record).await
            && delivery.await.is_ok()
        {
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}
