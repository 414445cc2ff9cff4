//! What following costs on a real broker: how long an idle barrier takes beside the
//! request it cannot do without, and what tables and clusters cost while nothing
//! happens (each log here is a cluster of its own, as far as clients go).
//!
//! All traffic goes through a proxy that counts connections and requests.

#![allow(clippy::unwrap_used, reason = "in a bench, a panic is the report")]

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ktables::codec::Codecs;
use ktables::log::{Log, NewRecord};
use ktables::table::Table;
use ktables_broker::BrokerOptions;
use ktables_tests::{PATIENCE, kafka, unique};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How many barriers the median is of.
const BARRIERS: usize = 200;

/// For how long requests are counted.
const IDLE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() {
    let proxy = Proxy::listen().await;
    let address = format!("127.0.0.1:{}", proxy.port);
    let properties = vec![("advertised.listeners".to_owned(), format!("PLAINTEXT://{address}"))];
    let broker = kafka::own(&BrokerOptions { properties, ..BrokerOptions::default() });
    proxy.forward(broker.bootstrap());
    barriers(&address).await;
    tables(&address, &proxy.counts).await;
}

/// Idle barriers, and the end-offset request of a client that does nothing else, in
/// turns.
async fn barriers(address: &str) {
    let (log, topic) = topic(address, 1).await;
    let raw: BaseConsumer = ClientConfig::new().set("bootstrap.servers", address).create().unwrap();
    let table = Table::builder(log, &topic, Codecs::default()).start().await.unwrap();
    let ask = || raw.fetch_watermarks(&topic, 0, PATIENCE).unwrap();
    ask();
    assert!(table.barrier(PATIENCE).await.is_fresh());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..BARRIERS {
        let start = Instant::now();
        assert!(table.barrier(PATIENCE).await.is_fresh());
        ours.push(start.elapsed());
        let start = Instant::now();
        tokio::task::block_in_place(ask);
        theirs.push(start.elapsed());
    }
    say(&format!("idle barrier, one partition, {BARRIERS} of each in turns:   median      p99"));
    let [(ours, ours_p99), (theirs, theirs_p99)] = [ours, theirs].map(median_and_p99);
    say(&format!("  barrier                {ours:>30.3?} {ours_p99:>8.3?}"));
    say(&format!("  raw watermark request  {theirs:>30.3?} {theirs_p99:>8.3?}"));
    say(&format!("  ratio of the medians   {:>29.1}x", ours.as_secs_f64() / theirs.as_secs_f64()));
}

fn median_and_p99(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// What tables of one log, and of several, cost while nothing happens.
async fn tables(address: &str, counts: &Counts) {
    say("\nidle:                     threads  connections  requests/s  CPU %");
    for (clusters, each) in [(1, 0), (1, 1), (1, 10), (1, 100), (2, 50), (4, 25)] {
        settled(counts).await;
        let threads = threads();
        let mut tables = Vec::new();
        let mut logs = Vec::new();
        for _ in 0..clusters {
            let (log, _) = topic(address, 1).await;
            for _ in 0..each {
                let (_, name) = topic(address, 4).await;
                tables.push(Table::builder(log.clone(), &name, Codecs::default()).start().await.unwrap());
            }
            logs.push(log);
        }
        // The loading clients are gone when no connection goes any more.
        settled(counts).await;
        let (requests, cpu) = (counts.requests.load(Ordering::Relaxed), cpu());
        tokio::time::sleep(IDLE).await;
        let requests = counts.requests.load(Ordering::Relaxed) - requests;
        say(&format!(
            "  {:<22} {:>8} {:>12} {:>11.1} {:>6.2}",
            format!("{clusters} x {each} tables"),
            self::threads().saturating_sub(threads),
            counts.open.load(Ordering::Relaxed),
            requests as f64 / IDLE.as_secs_f64(),
            (self::cpu() - cpu).as_secs_f64() / IDLE.as_secs_f64() * 100.0,
        ));
    }
}

/// A log of its own, and a topic with a record in it.
async fn topic(address: &str, partitions: i32) -> (Arc<dyn Log>, String) {
    let name = unique("bench");
    kafka::create(address, &name, partitions, &[]).await;
    let log = ktables::log::open(&format!("kafka://{address}")).unwrap();
    let topic = kafka::seen(log.as_ref(), &name).await;
    let writer = ktables::log::open(&format!("kafka://{address}")).unwrap();
    let record = NewRecord { key: Some(b"k".to_vec()), value: Some(b"1".to_vec()), ..NewRecord::default() };
    writer.send(&topic, record).await.unwrap().await.unwrap();
    (log, name)
}

/// Waits until the number of connections has stayed the same for a while.
async fn settled(counts: &Counts) {
    let (mut open, mut since) = (u64::MAX, Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        let now = counts.open.load(Ordering::Relaxed);
        if now != open {
            (open, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// The processor time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> =
        stat.rsplit(')').next().unwrap_or("").split(' ').filter_map(|f| f.parse().ok()).collect();
    // User and system time, in hundredths of a second.
    Duration::from_millis(fields.get(10..12).map_or(0, |times| times.iter().sum::<u64>() * 10))
}

/// What went through a proxy.
#[derive(Debug, Default)]
struct Counts {
    open: AtomicU64,
    requests: AtomicU64,
}

/// Forwards connections to the broker.
struct Proxy {
    listener: Arc<TcpListener>,
    port: u16,
    counts: Arc<Counts>,
}

impl Proxy {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener: Arc::new(listener), port, counts: Arc::default() }
    }

    fn forward(&self, to: String) {
        let (listener, counts) = (self.listener.clone(), self.counts.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, counts) = (to.clone(), counts.clone());
                tokio::spawn(async move {
                    counts.open.fetch_add(1, Ordering::Relaxed);
                    // Ends when either end does.
                    let _ = relay(client, &to, &counts).await;
                    counts.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
    }
}

/// Requests one by one, answers as they come.
async fn relay(client: TcpStream, to: &str, counts: &Counts) -> std::io::Result<()> {
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async {
        loop {
            // Every request is its length and that many bytes.
            let length = from_client.read_u32().await?;
            let mut request = vec![0; length as usize + 4];
            request[..4].copy_from_slice(&length.to_be_bytes());
            from_client.read_exact(&mut request[4..]).await?;
            counts.requests.fetch_add(1, Ordering::Relaxed);
            to_server.write_all(&request).await?;
        }
    };
    tokio::select! {
        ended = requests => ended,
        ended = tokio::io::copy(&mut from_server, &mut to_client) => ended.map(drop),
    }
}

fn say(line: &str) {
    // A bench without an output has nobody to tell.
    let _ = writeln!(std::io::stdout(), "{line}");
}
