//! Measures a table while others in its process use as much of the machine as they get, and a table with many
//! watchers. The reference is the same table beside another process that uses as much.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ktables::codec::Codecs;
use ktables::log::{LogError, NewTopic, TopicDescription};
use ktables::table::{Entry, Table, WatchEvent, WatchFilter, WatchStart};
use ktables::wasm::{Engine, Limits, LoadOptions, WasmError};
use ktables_tests::{component_path, engine, engine_options, record, unique};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::contender::COMMAND;
use crate::process::{self, Memory};
use crate::report::{Cell, Ratio, Report};
use crate::{Options, say};

/// A timeout that no step reaches.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The disturbances. `disturb` starts each of them.
const DISTURBANCES: [&str; 5] = ["loop-1", "loop-4", "compile", "load", "swap"];

/// The number of records of the measured table.
const RECORDS: usize = 500_000;

/// The number of records of the large topic that is loaded beside it.
const LARGE_RECORDS: usize = 1_000_000;

/// The number of records in each topic whose records make a codec loop: more than a run has time for.
const LOOPING_RECORDS: usize = 100_000;

/// How many writes are timed.
const WRITES: usize = 400;

/// The time from one timed write to the next.
const WRITE_INTERVAL: Duration = Duration::from_millis(5);

pub(crate) fn run(options: &Options, bootstrap: &str, report: &mut Report) {
    let folder = TempDir::new().unwrap();
    let logs = [
        ("neighbours-kafka", format!("kafka://{bootstrap}")),
        ("neighbours-dir", format!("dir:{}", folder.path().display())),
    ];
    for (name, log) in logs {
        if options.wants(name) {
            report.add(neighbours_cell(options, name, &log));
        }
    }
    if options.wants("watchers") {
        report.add(watchers_cell(options));
    }
}

/// Runs a contender of this file. Returns `None` if the arguments name none.
pub(crate) fn run_as_contender(args: &[&str]) -> Option<Value> {
    Some(match *args {
        ["neighbour", disturbance, log, prefix] => measure_table(disturbance, log, prefix),
        ["disturb", disturbance, log, prefix] => disturb_until_input_ends(disturbance, log, prefix),
        ["watched", watchers, seconds] => {
            measure_watched_table(watchers.parse().unwrap(), seconds.parse().unwrap())
        }
        _ => return None,
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Creates a topic, and fills it.
async fn create_and_fill(log: &str, topic: &str, count: usize, value: impl Fn(usize) -> String) {
    let log = ktables::log::open(log).unwrap();
    let topic = log.create(topic, NewTopic { partitions: Some(1), ..NewTopic::default() }).await.unwrap();
    let mut deliveries = Vec::new();
    for number in 0..count {
        let record = record(&crate::data::key(number), Some(value(number).as_bytes()));
        deliveries.push(log.send(&topic, record).await.unwrap());
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
}

fn neighbours_cell(options: &Options, name: &'static str, log: &str) -> Cell {
    let about = format!(
        "a table of {RECORDS} records of 100 B: its replay, and {WRITES} writes until they are seen; beside \
         components that loop on every record, the compilation of a component of 4 MB, the load of \
         {LARGE_RECORDS} records, swaps of its own codecs, each in the same process, and (the reference) in \
         another one: spinning threads, the same compilation, the same load, a load of its own topic"
    );
    let prefix = unique("n");
    let rt = runtime();
    rt.block_on(async {
        create_and_fill(log, &format!("{prefix}-healthy"), RECORDS, |n| crate::data::json(n, 100)).await;
        let large = if options.quick { LARGE_RECORDS / 10 } else { LARGE_RECORDS };
        create_and_fill(log, &format!("{prefix}-many"), large, |n| crate::data::json(n, 100)).await;
        for number in 0..4 {
            let topic = format!("{prefix}-loop-{number}");
            create_and_fill(log, &topic, LOOPING_RECORDS, |_| "poison:loop".to_owned()).await;
        }
    });
    let mut cell = Cell::new(name, about);
    for round in 0..options.rounds {
        say(&format!("{name}: round {} of {}", round + 1, options.rounds));
        add_samples(&mut cell, "alone", &run_contender(&["neighbour", "none", log, &prefix]));
        for disturbance in DISTURBANCES {
            let other = OtherProcess::start(disturbance, log, &prefix);
            add_samples(
                &mut cell,
                &format!("{disturbance}: another process"),
                &run_contender(&["neighbour", "none", log, &prefix]),
            );
            drop(other);
            add_samples(
                &mut cell,
                &format!("{disturbance}: this process"),
                &run_contender(&["neighbour", disturbance, log, &prefix]),
            );
        }
    }
    for disturbance in DISTURBANCES {
        let reference = format!("{disturbance}: another process");
        for (ratio, measure) in [("p50 / the other's", "p50, ms"), ("p99 / the other's", "p99, ms")] {
            cell.add_ratio_for(disturbance, ratio, measure, &reference, Ratio::Amount);
        }
        cell.add_ratio_for(disturbance, "replay speed / the other's", "replay, s", &reference, Ratio::Speed);
    }
    cell
}

fn add_samples(cell: &mut Cell, label: &str, result: &Value) {
    for (measure, name) in [("replay, s", "replay"), ("p50, ms", "p50"), ("p99, ms", "p99")] {
        cell.add_sample(label, measure, result[name].as_f64().unwrap());
    }
}

fn run_contender(args: &[&str]) -> Value {
    let mut command = Command::new(std::env::current_exe().unwrap());
    process::run(command.arg(COMMAND).args(args), Memory::Ignored).result
}

/// Another process that uses as much of the machine as it gets, until this is dropped.
struct OtherProcess(std::process::Child);

impl OtherProcess {
    fn start(disturbance: &str, log: &str, prefix: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([COMMAND, "disturb", disturbance, log, prefix]);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures a table beside a disturbance in the same process.
fn measure_table(disturbance: &str, log: &str, prefix: &str) -> Value {
    let rt = runtime();
    rt.block_on(async {
        // The disturbance runs in the runtime of the measured table, like the other tables of a program.
        let mut disturbed = match disturbance {
            "swap" => Disturbance(Vec::new()),
            disturbance => disturb(disturbance, log, prefix),
        };
        if !matches!(disturbance, "none" | "swap") {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let topic = format!("{prefix}-healthy");
        let log = ktables::log::open(log).unwrap();
        let began = Instant::now();
        let table = Table::builder(log.clone(), &topic, Codecs::default()).catchup_timeout(TIMEOUT);
        let table = table.start().await.unwrap();
        let replay = began.elapsed().as_secs_f64();
        if disturbance == "swap" {
            disturbed.0.push(tokio::spawn(swap_repeatedly(table.clone())));
        }
        let described: TopicDescription = log.describe(&topic).await.unwrap();
        let mut watcher = table.watch(WatchStart::Now).with_filter(WatchFilter::Key("probe".to_owned()));
        let mut times = Vec::with_capacity(WRITES);
        let mut ticks = tokio::time::interval(WRITE_INTERVAL);
        for number in 0..WRITES {
            ticks.tick().await;
            let began = Instant::now();
            let record = record("probe", Some(number.to_string().as_bytes()));
            let delivery = log.send(&described, record).await.unwrap();
            loop {
                if let Some(WatchEvent::Change(_)) = watcher.next().await {
                    break;
                }
            }
            times.push(began.elapsed().as_secs_f64() * 1e3);
            delivery.await.unwrap();
        }
        drop(disturbed);
        times.sort_by(f64::total_cmp);
        json!({"replay": replay, "p50": times[WRITES / 2], "p99": times[WRITES * 99 / 100]})
    })
}

/// Uses as much of the machine as it gets, until the standard input ends.
fn disturb_until_input_ends(disturbance: &str, log: &str, prefix: &str) -> Value {
    let rt = runtime();
    let spinning = disturbance.strip_prefix("loop-").map(|count| count.parse::<usize>().unwrap());
    for _ in 0..spinning.unwrap_or(0) {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    let _entered = rt.enter();
    let disturbed = spinning.is_none().then(|| disturb(disturbance, log, prefix));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(disturbed);
    json!({})
}

/// Tasks that disturb others until this is dropped.
struct Disturbance(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Disturbance {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Starts a disturbance in this process.
fn disturb(disturbance: &str, log: &str, prefix: &str) -> Disturbance {
    let (log, prefix) = (log.to_owned(), prefix.to_owned());
    Disturbance(match disturbance {
        "loop-1" => vec![tokio::spawn(run_looping_table(log, prefix, 0))],
        "loop-4" => (0..4)
            .map(|number| tokio::spawn(run_looping_table(log.clone(), prefix.clone(), number)))
            .collect(),
        "compile" => {
            // The thread ends with the process.
            std::thread::spawn(compile_repeatedly);
            Vec::new()
        }
        "load" => vec![tokio::spawn(load_repeatedly(log, format!("{prefix}-many")))],
        "swap" => vec![tokio::spawn(load_repeatedly(log, format!("{prefix}-healthy")))],
        _ => Vec::new(),
    })
}

/// Opens a table whose component loops on every record. Each number gets another component.
async fn run_looping_table(log: String, prefix: String, number: u8) {
    let mut bytes = std::fs::read(component_path("hostile")).unwrap();
    // A custom section makes each component a different file.
    bytes.extend([0, 3, 1, b'n', number]);
    let options = LoadOptions { limits: Limits::default(), ..LoadOptions::default() };
    let component = engine().load_bytes(&format!("hostile-{number}"), bytes, options).unwrap();
    let topic = format!("{prefix}-loop-{number}");
    let codecs = Codecs { value: component.value_codec(&topic, "{}").unwrap(), ..Codecs::default() };
    let log = ktables::log::open(&log).unwrap();
    let table = Table::builder(log, &topic, codecs).open().await.unwrap();
    std::future::pending::<()>().await;
    drop(table);
}

/// Compiles a component of 4 MB again and again.
fn compile_repeatedly() {
    let bytes = large_component();
    // Without a cache, every load compiles.
    let engine = Engine::new(ktables::wasm::EngineOptions { cache: None, ..engine_options() }).unwrap();
    loop {
        let loaded = engine.load_bytes("large", bytes.clone(), LoadOptions::default());
        // The component is compiled, and then refused because it exports no functions.
        assert!(matches!(loaded, Err(WasmError::Faulted { .. })), "{loaded:?}");
    }
}

/// Returns a component of some 4 MB, most of it code.
fn large_component() -> Vec<u8> {
    let step = "(local.set 0 (i32.add (i32.mul (local.get 0) (i32.const 31)) (i32.const 7)))".repeat(20);
    let function = format!("(func (param i32) (result i32) {step} local.get 0)");
    let text = format!(
        "(component (core module {}) (instance $i) (export \"ktables:codec/value-codec@0.1.0\" (instance $i)))",
        function.repeat(18_000)
    );
    wat::parse_str(text).unwrap()
}

/// Swaps the codecs of a table again and again. Each swap loads the topic again, beside the served
/// generation.
async fn swap_repeatedly(table: Table) {
    loop {
        table.swap_codecs(Codecs::default()).await.unwrap();
    }
}

/// Loads a topic again and again.
async fn load_repeatedly(log: String, topic: String) {
    let log: Result<Arc<dyn ktables::log::Log>, LogError> = ktables::log::open(&log);
    let log = log.unwrap();
    loop {
        let table = Table::builder(log.clone(), &topic, Codecs::default()).catchup_timeout(TIMEOUT);
        let table = table.start().await.unwrap();
        table.stop().await;
    }
}

fn watchers_cell(options: &Options) -> Cell {
    let seconds = if options.quick { 10 } else { 60 };
    let about = format!(
        "1,000 updates/s of 10 KB over 20,000 keys for {seconds} s on a directory log: without watchers, and with \
         1,000 of a prefix each and 10 of all, one of which is not read until the end"
    );
    let mut cell = Cell::new("watchers", about);
    for _ in 0..options.rounds.min(3) {
        for (label, count) in [("no watchers", "0"), ("1,010 watchers", "1000")] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args([COMMAND, "watched", count, &seconds.to_string()]);
            let run = process::run(&mut command, Memory::Ignored);
            cell.add_sample(label, "peak, MiB", run.peak as f64 / f64::from(1 << 20));
            cell.add_sample(label, "slowest, ms", run.number("slowest"));
            cell.add_sample(label, "wrong", run.number("wrong"));
        }
    }
    cell.add_ratio("peak / without watchers", "peak, MiB", "no watchers", Ratio::Amount);
    cell
}

/// Measures a table with watchers while records are written. Returns how long the slowest write took until it
/// was visible, and how many entries differ at the end in a watcher that was not read until then.
fn measure_watched_table(watchers: usize, seconds: usize) -> Value {
    let folder = TempDir::new().unwrap();
    runtime().block_on(async {
        let log = ktables::log::open(&format!("dir:{}", folder.path().display())).unwrap();
        let topic = log.create("t", NewTopic { partitions: Some(1), ..NewTopic::default() }).await.unwrap();
        let table = Table::builder(log.clone(), "t", Codecs::default()).start().await.unwrap();
        let mut tasks = Vec::new();
        let mut stalled = (watchers > 0).then(|| table.watch(WatchStart::Entries));
        for number in 0..watchers {
            let filter = WatchFilter::Prefix(format!("{number:03}-"));
            tasks.push(table.watch(WatchStart::Now).with_filter(filter));
        }
        tasks.extend((0..9).filter(|_| watchers > 0).map(|_| table.watch(WatchStart::Now)));
        let tasks: Vec<_> = tasks
            .into_iter()
            .map(|mut watcher| tokio::spawn(async move { while watcher.next().await.is_some() {} }))
            .collect();
        let value = |number: usize| format!("\"{number:0>9998}\"");
        let (mut slowest, mut ticks) = (Duration::ZERO, tokio::time::interval(Duration::from_millis(10)));
        for tick in 0..seconds * 100 {
            ticks.tick().await;
            let mut deliveries = Vec::new();
            let began = Instant::now();
            for number in tick * 10..tick * 10 + 10 {
                let key = format!("{:03}-{}", number % 1000, number % 20_000);
                deliveries
                    .push(log.send(&topic, record(&key, Some(value(number).as_bytes()))).await.unwrap());
            }
            let mut acks = Vec::new();
            for delivery in deliveries {
                acks.push(delivery.await.unwrap());
            }
            assert!(table.wait_for(&acks, TIMEOUT).await.is_fresh());
            slowest = slowest.max(began.elapsed());
        }
        let mut wrong = 0;
        if let Some(stalled) = &mut stalled {
            // The stalled watcher is read now, and must arrive at the contents of the table.
            let mut seen = std::collections::BTreeMap::new();
            while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(2), stalled.next()).await {
                match event {
                    WatchEvent::Restarted => seen.clear(),
                    WatchEvent::Entry(entry) => drop(seen.insert(entry.key().to_owned(), crc(&entry))),
                    WatchEvent::Change(change) => match &change.new {
                        Some(entry) => drop(seen.insert(change.key().to_owned(), crc(entry))),
                        None => drop(seen.remove(change.key())),
                    },
                    _ => {}
                }
            }
            let snapshot = table.snapshot();
            let differs = |entry: &Entry| seen.get(entry.key()) != Some(&crc(entry));
            wrong = snapshot.iter().filter(|entry| differs(entry)).count()
                + usize::from(seen.len() != table.len());
        }
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        json!({"slowest": slowest.as_secs_f64() * 1e3, "wrong": wrong})
    })
}

/// Returns a checksum that stands for an entry's value, so that the watcher needs no copy of the value.
fn crc(entry: &Entry) -> u32 {
    crc32c::crc32c(entry.json().as_bytes())
}
