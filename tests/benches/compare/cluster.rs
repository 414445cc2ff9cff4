//! Measures what following a topic costs on a real broker: how soon a record is visible, how long a barrier
//! takes compared with the request that it consists of, how fast writes are, and what tables and clusters
//! cost while nothing happens. Each log here counts as a cluster of its own, because it has its own clients.

use std::io::{BufRead, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use futures_util::{StreamExt, stream};
use ktables::codec::Codecs;
use ktables::log::{Log, NewRecord};
use ktables::table::{Table, WatchEvent, WatchStart};
use ktables::writer::{Target, Write, Writer};
use ktables_broker::BrokerOptions;
use ktables_tests::{Interceptor, Proxy, TIMEOUT, kafka, unique};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::contender::COMMAND;
use crate::report::{Cell, Ratio, Report};
use crate::{Options, data, process, replay, say};

/// How many barriers, writes and records are timed one by one in a round.
const TIMED: usize = 200;

/// How many barriers of Python's ktables are timed in a round. Each takes a fraction of a second.
const TIMED_PYTHON: usize = 20;

/// How many writes are pipelined.
const PIPELINED: usize = 100_000;

/// For how long the requests of idle tables are counted.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) fn run(options: &Options, bootstrap: &str, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if options.wants("barrier") {
            report.add(barrier_cell(options, bootstrap).await);
        }
        if options.wants("visible") {
            report.add(visible_cell(options, bootstrap).await);
        }
        if options.wants("write") {
            report.add(write_cell(options, bootstrap).await);
        }
        if options.wants("idle") {
            report.add(idle_cell().await);
        }
    });
}

/// Times barriers while nothing happens and while others write, in turns with the end-offset request of a
/// bare client.
async fn barrier_cell(options: &Options, address: &str) -> Cell {
    let mut cell = Cell::new("barrier", format!("one partition, {TIMED} of each a round, in turns"));
    let (log, topic) = create_topic(address, 1).await;
    let raw: BaseConsumer = ClientConfig::new().set("bootstrap.servers", address).create().unwrap();
    let table = Table::builder(log, &topic, Codecs::default()).start().await.unwrap();
    let mut ends = TopicPartitionList::new();
    ends.add_partition_offset(&topic, 0, Offset::End).unwrap();
    // One request, as a barrier sends. Fetching the watermarks would send two.
    let request_ends = || raw.offsets_for_times(ends.clone(), TIMEOUT).unwrap();
    request_ends();
    assert!(table.barrier(TIMEOUT).await.is_fresh());
    for _ in 0..options.rounds {
        for (ours, theirs, peers, churn) in [
            ("barrier", "raw end offsets", "Python ktables, barrier", false),
            ("barrier, churn", "raw end offsets, churn", "Python ktables, barrier, churn", true),
        ] {
            let writing = churn.then(|| Churn::start(address, &topic));
            let (mut barriers, mut requests) = (Vec::new(), Vec::new());
            for _ in 0..TIMED {
                let start = Instant::now();
                assert!(table.barrier(TIMEOUT).await.is_fresh());
                barriers.push(start.elapsed());
                let start = Instant::now();
                tokio::task::block_in_place(request_ends);
                requests.push(start.elapsed());
            }
            add_times(&mut cell, ours, barriers);
            add_times(&mut cell, theirs, requests);
            if options.peers {
                add_times(&mut cell, peers, tokio::task::block_in_place(|| python_barriers(address, &topic)));
            }
            drop(writing);
        }
    }
    cell.add_ratio("p50 / the raw request's", "p50, ms", "raw end offsets", Ratio::Amount);
    let churn = "raw end offsets, churn";
    cell.add_ratio("p50 / the raw request's under churn", "p50, ms", churn, Ratio::Amount);
    cell
}

/// Times barriers of Python's ktables.
fn python_barriers(address: &str, topic: &str) -> Vec<Duration> {
    let mut python = replay::python("barrier.py");
    let run =
        process::run(python.args([address, topic, &TIMED_PYTHON.to_string()]), process::Memory::Ignored);
    let took = run.result["took"].as_array().unwrap().iter();
    took.map(|seconds| Duration::from_secs_f64(seconds.as_f64().unwrap())).collect()
}

/// A thread that writes 10,000 records a second until this is dropped.
struct Churn {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Churn {
    fn start(bootstrap: &str, topic: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (is_stopped, bootstrap, topic) = (stop.clone(), bootstrap.to_owned(), topic.to_owned());
        let write = move || {
            let producer = producer(&bootstrap);
            for n in 0.. {
                if is_stopped.load(Ordering::Relaxed) {
                    break;
                }
                let key = data::key(n % 1000);
                // OK to ignore: while the queue is full, there is enough churn.
                let _ = producer.send(BaseRecord::to(&topic).key(&key).payload("1"));
                if n % 10 == 9 {
                    producer.poll(Duration::ZERO);
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            producer.flush(TIMEOUT).unwrap();
        };
        Self { stop, thread: Some(std::thread::spawn(write)) }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn producer(bootstrap: &str) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", "500000")
        .create()
        .unwrap()
}

/// Adds the median and the 99th percentile of these times to a cell.
fn add_times(cell: &mut Cell, label: &str, mut times: Vec<Duration>) {
    times.sort();
    let millis = |part: usize| times[(times.len() - 1) * part / 1000].as_secs_f64() * 1000.0;
    cell.add_sample(label, "p50, ms", millis(500));
    cell.add_sample(label, "p99, ms", millis(990));
}

/// Times how long it takes from the call that publishes a record until a watcher of a table has the record,
/// and until a consumer in another process has it.
async fn visible_cell(options: &Options, address: &str) -> Cell {
    let mut cell = Cell::new("visible", format!("{TIMED} records a round, one at a time, of 100 B"));
    let (log, topic) = create_topic(address, 1).await;
    let table = Table::builder(log, &topic, Codecs::default()).start().await.unwrap();
    let mut watcher = table.watch(WatchStart::Now);
    // Read in a task of its own, as programs do.
    let (changes, mut seen) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(event) = watcher.next().await {
            if matches!(event, WatchEvent::Change(_)) && changes.send(process::now()).is_err() {
                break;
            }
        }
    });
    let mut raw = Command::new(std::env::current_exe().unwrap());
    let mut raw = raw
        .args([COMMAND, "follow", address, &topic])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(raw.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    let producer = producer(address);
    let value = data::json(1, 100);
    for _ in 0..options.rounds {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for n in 0..TIMED {
            // Varies, so that the writes do not fall into step with anything periodic.
            tokio::time::sleep(Duration::from_micros(2000 + (n as u64 * 7919) % 3000)).await;
            let key = data::key(n);
            let start = process::now();
            producer.send(BaseRecord::to(&topic).key(&key).payload(&value)).unwrap();
            producer.poll(Duration::ZERO);
            ours.push(Duration::from_secs_f64(seen.recv().await.unwrap() - start));
            let theirs_at: f64 = tokio::task::block_in_place(|| lines.next()).unwrap().parse().unwrap();
            theirs.push(Duration::from_secs_f64((theirs_at - start).max(0.0)));
        }
        add_times(&mut cell, "ktables, by a watcher", ours);
        add_times(&mut cell, "raw consumer, another process", theirs);
    }
    drop(raw.stdin.take());
    raw.wait().unwrap();
    cell.add_ratio("p50 / the raw consumer's", "p50, ms", "raw consumer, another process", Ratio::Amount);
    cell.add_ratio("p99 / the raw consumer's", "p99, ms", "raw consumer, another process", Ratio::Amount);
    cell
}

/// Times verified writes one by one and pipelined, and those of a bare producer.
async fn write_cell(options: &Options, address: &str) -> Cell {
    let mut cell =
        Cell::new("write", format!("{TIMED} writes one by one, {PIPELINED} pipelined, of 100 B, acks=all"));
    let (log, topic) = create_topic(address, 4).await;
    let writer = Writer::open(log, &topic, Codecs::default()).await.unwrap();
    let value = data::json(1, 100);
    let keys: Vec<String> = (0..PIPELINED).map(data::key).collect();
    writer.set("warm", "1").await.unwrap();
    let raw = producer(address);
    raw.send(BaseRecord::to(&topic).key("warm").payload("1")).unwrap();
    raw.flush(TIMEOUT).unwrap();
    for _ in 0..options.rounds {
        let mut sets = Vec::new();
        for key in &keys[..TIMED] {
            let start = Instant::now();
            writer.set(key, &value).await.unwrap();
            sets.push(start.elapsed());
        }
        add_times(&mut cell, "ktables", sets);
        let write = |key: &String| Write { target: Target::Key(key.clone()), value: Some(value.clone()) };
        let start = Instant::now();
        let answers = writer.set_many(keys.iter().map(write)).await;
        cell.add_sample("ktables", "pipelined, s", start.elapsed().as_secs_f64());
        assert!(answers.iter().all(Result::is_ok));
        let start = Instant::now();
        tokio::task::block_in_place(|| {
            for key in &keys {
                while raw.send(BaseRecord::to(&topic).key(key).payload(&value)).is_err() {
                    raw.poll(Duration::from_millis(1));
                }
            }
            raw.flush(TIMEOUT).unwrap();
        });
        cell.add_sample("raw producer", "pipelined, s", start.elapsed().as_secs_f64());
    }
    cell.add_ratio("speed / the raw producer's", "pipelined, s", "raw producer", Ratio::Speed);
    cell
}

/// The first argument of the contender that has idle tables.
pub(crate) const IDLE_TABLES: &str = "idle";

/// Measures what tables of one log and of several cost while nothing happens. All traffic goes through a
/// proxy, which counts connections and requests. The tables are in a process of their own, so that nothing of
/// the proxy counts as theirs.
async fn idle_cell() -> Cell {
    let mut cell = Cell::new("idle", format!("for {} s, tables of 4 partitions", IDLE.as_secs()));
    let proxy = Proxy::listen().await;
    let address = proxy.address();
    let properties = vec![("advertised.listeners".to_owned(), format!("PLAINTEXT://{address}"))];
    let broker = kafka::start_broker(&BrokerOptions { properties, ..BrokerOptions::default() });
    let counts = Arc::new(Counts::default());
    proxy.forward(broker.bootstrap(), counts.clone());
    let counts = &counts;
    let topics = stream::iter(0..100).map(|_| create_topic(&address, 4)).buffered(8);
    let topics: Vec<String> = topics.map(|(_, name)| name).collect().await;
    for (clusters, each) in [(1, 0), (1, 1), (1, 10), (1, 100), (2, 50), (4, 25)] {
        say(&format!("idle: {clusters} x {each} tables"));
        wait_until_connections_settle(counts).await;
        let (clusters, topics) = (clusters.to_string(), &topics[..clusters * each]);
        let mut tables = IdleTables::start(&address, &clusters, topics);
        // The loading clients are gone once the number of connections no longer changes.
        wait_until_connections_settle(counts).await;
        // Clients are closed on threads that a runtime ends after ten idle seconds.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let (requests, before) = (counts.requests.load(Ordering::Relaxed), tables.measure());
        tokio::time::sleep(IDLE).await;
        let (requests, after) = (counts.requests.load(Ordering::Relaxed) - requests, tables.measure());
        let label = format!("{clusters} clusters x {each} tables");
        cell.add_sample(&label, "threads", after.threads);
        cell.add_sample(&label, "connections", counts.open.load(Ordering::Relaxed) as f64);
        cell.add_sample(&label, "requests/s", requests as f64 / IDLE.as_secs_f64());
        cell.add_sample(&label, "CPU, % of a core", (after.cpu - before.cpu) / IDLE.as_secs_f64() * 100.0);
    }
    cell
}

/// A process with idle tables.
struct IdleTables {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// What a process with idle tables uses.
struct IdleUse {
    /// The number of its threads, without those that it began with.
    threads: f64,
    /// The seconds of CPU time that it has used.
    cpu: f64,
}

impl IdleTables {
    /// Starts tables of these topics, distributed over this many clusters, and waits until they are complete.
    fn start(address: &str, clusters: &str, topics: &[String]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([COMMAND, IDLE_TABLES, address, clusters])
            .args(topics)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        Self { child, lines }
    }

    fn measure(&mut self) -> IdleUse {
        writeln!(self.child.stdin.as_ref().unwrap()).unwrap();
        let line = self.lines.next().unwrap().unwrap();
        let (threads, cpu) = line.split_once(' ').unwrap();
        IdleUse { threads: threads.parse().unwrap(), cpu: cpu.parse().unwrap() }
    }
}

impl Drop for IdleTables {
    fn drop(&mut self) {
        // The process ends with its input.
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// The process with idle tables. Prints what it uses for each line of its input.
pub(crate) fn run_idle_tables(address: &str, clusters: &str, topics: &[&str]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let threads = count_threads();
    let clusters = clusters.parse().unwrap();
    let logs: Vec<_> =
        (0..clusters).map(|_| ktables::log::open(&format!("kafka://{address}")).unwrap()).collect();
    let start = |(n, topic): (usize, &&str)| {
        Table::builder(logs[n % clusters].clone(), *topic, Codecs::default()).start()
    };
    let start_all = stream::iter(topics.iter().enumerate().map(start)).buffered(8);
    let _tables: Vec<Table> = runtime.block_on(start_all.map(Result::unwrap).collect());
    if topics.is_empty() {
        // Without a table, a request connects. There is no such topic.
        runtime.block_on(logs[0].describe("none")).unwrap_err();
    }
    say("ready");
    for _ in std::io::stdin().lines() {
        // Not from /proc: its ticks of 10 ms would be most of what an idle table uses.
        let cpu = ProcessTime::now().as_duration().as_secs_f64();
        say(&format!("{} {cpu}", count_threads().saturating_sub(threads)));
    }
}

/// Opens a new log, and creates a topic with one record.
async fn create_topic(address: &str, partitions: i32) -> (Arc<dyn Log>, String) {
    let name = unique("bench");
    kafka::create(address, &name, partitions, &[]).await;
    let log = ktables::log::open(&format!("kafka://{address}")).unwrap();
    let topic = kafka::wait_for_topic(log.as_ref(), &name).await;
    let writer = ktables::log::open(&format!("kafka://{address}")).unwrap();
    let record = NewRecord { key: Some(b"k".to_vec()), value: Some(b"1".to_vec()), ..NewRecord::default() };
    writer.send(&topic, record).await.unwrap().await.unwrap();
    (log, name)
}

/// Waits until the number of connections has not changed for two seconds.
async fn wait_until_connections_settle(counts: &Counts) {
    let (mut open, mut since) = (u64::MAX, Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        let now = counts.open.load(Ordering::Relaxed);
        if now != open {
            (open, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the number of threads of this process.
fn count_threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Counts of what went through a proxy.
#[derive(Debug, Default)]
struct Counts {
    open: AtomicU64,
    requests: AtomicU64,
}

impl Interceptor for Counts {
    fn on_open(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    fn on_close(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn on_request(&self, _: &[u8]) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}
