//! Measures what a table costs by itself, with a log in memory: reads while it changes, snapshots that are
//! held, and memory.

use std::collections::HashMap;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use ktables::codec::{Codecs, LengthPrefixed};
use ktables::log::Ack;
use ktables::table::{Entry, Table};
use ktables_tests::MemoryLog;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::contender::COMMAND;
use crate::process::{self, Memory, settled_memory};
use crate::report::{Cell, Ratio, Report};
use crate::{Options, data, say};

/// A timeout that no step reaches.
const TIMEOUT: Duration = Duration::from_secs(600);

/// How many `get`s are timed in a run.
const READS: usize = 500_000;

/// How many reads of each other kind are timed in a run. They take longer or hardly vary.
const FEWER_READS: usize = 100_000;

/// Updates a second while reads are timed.
const UPDATES_PER_SECOND: usize = 50_000;

/// How many updates are timed with and without a held snapshot.
const TIMED_UPDATES: usize = 100_000;

/// The numbers of keys of the tables that are read, with their cells, and whether a quick run has the cell.
const SIZES: [(usize, &str, bool); 3] =
    [(1_000, "engine-1k", false), (100_000, "engine-100k", false), (1_000_000, "engine-1M", true)];

pub(crate) fn run(options: &Options, report: &mut Report) {
    for (keys, name, quick) in SIZES {
        if (quick || !options.quick) && options.wants(name) {
            report.add(reads_cell(options, keys, name));
        }
    }
    if options.wants("memory") {
        report.add(memory_cell());
    }
}

fn run_contender(args: &[&str]) -> Value {
    let mut command = Command::new(std::env::current_exe().unwrap());
    process::run(command.arg(COMMAND).args(args), Memory::Ignored).result
}

fn reads_cell(options: &Options, keys: usize, name: &'static str) -> Cell {
    let about = format!(
        "{keys} keys of 20 B, values of 100 B; reads in random order, {READS} gets at a time and {FEWER_READS} of \
         what else; the plain map holds the same rows and does not change: what updates of the table do to \
         its reads they do as neighbours"
    );
    let mut cell = Cell::new(name, about);
    for round in 0..options.rounds {
        say(&format!("{name}: round {} of {}", round + 1, options.rounds));
        let results = ["reads", "reads-of-groups"].map(|kind| run_contender(&[kind, &keys.to_string()]));
        for (label, measures) in results.iter().filter_map(Value::as_object).flatten() {
            for (measure, column) in
                [("p50", "p50, ns"), ("p99", "p99, ns"), ("p999", "p99.9, ns"), ("mean", "mean, ns")]
            {
                if let Some(value) = measures[measure].as_f64() {
                    cell.add_sample(label, column, value);
                }
            }
        }
    }
    cell.add_ratio_for("get", "p50 / the plain map's", "p50, ns", "get: plain map", Ratio::Amount);
    cell.add_ratio_for("get", "p99.9 / the plain map's", "p99.9, ns", "get: plain map", Ratio::Amount);
    cell.add_ratio_for("update", "mean / updates without", "mean, ns", "update", Ratio::Amount);
    cell
}

fn memory_cell() -> Cell {
    let about = "1000000 keys of 20 B, values of 100 B: resident memory of a process over its keys and values, \
                 when all keys were written to it, and after ten times as many overwrites";
    let mut cell = Cell::new("memory", about.to_owned());
    for kind in ["flat", "grouped"] {
        say(&format!("memory: {kind}"));
        let result = run_contender(&["memory", kind, "1000000"]);
        for (measure, column) in [("loaded", "loaded, B/key"), ("overwritten", "overwritten, B/key")] {
            cell.add_sample(kind, column, result[measure].as_f64().unwrap());
        }
    }
    cell
}

/// Runs a contender of this file. Returns `None` if the arguments name none.
pub(crate) fn run_as_contender(args: &[&str]) -> Option<Value> {
    match args {
        ["reads", keys] => Some(measure_reads(keys.parse().unwrap())),
        ["reads-of-groups", keys] => Some(measure_group_reads(keys.parse().unwrap())),
        ["memory", kind, keys] => Some(measure_memory(kind, keys.parse().unwrap())),
        _ => None,
    }
}

/// A table and the log that feeds it.
struct FedTable {
    log: Arc<MemoryLog>,
    table: Table,
    runtime: Runtime,
    values: Vec<String>,
    keys: usize,
    key: fn(usize) -> String,
}

impl FedTable {
    fn new(keys: usize, grouped: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let log = MemoryLog::new(keys);
        let key = if grouped { grouped_key } else { data::key };
        let values = (0..1000).map(|n| data::json(n, 100)).collect();
        let scheme = grouped.then(|| Arc::new(LengthPrefixed) as _);
        let codecs = Codecs { group_scheme: scheme, ..Codecs::default() };
        let builder = Table::builder(log.clone(), "t", codecs).catchup_timeout(TIMEOUT);
        let table = runtime.block_on(builder.open()).unwrap();
        let fed = Self { log, table, runtime, values, keys, key };
        fed.write(0..keys, 0);
        fed.runtime.block_on(fed.table.wait_until_ready()).unwrap();
        fed
    }

    /// Writes a record for the key of each number. `seed` varies the values.
    fn write(&self, numbers: impl Iterator<Item = usize>, seed: usize) {
        let records: Vec<(String, &[u8])> = numbers
            .map(|n| ((self.key)(n), self.values[(n + seed) % self.values.len()].as_bytes()))
            .collect();
        self.log.append(records.iter().map(|(key, value)| (key.as_str(), *value)));
    }

    /// Waits until everything that was written is applied.
    fn sync(&self) {
        let freshness = self.runtime.block_on(
            self.table.wait_for(&[Ack { partition: 0, offset: Some(self.log.end() - 1) }], TIMEOUT),
        );
        assert!(freshness.is_fresh(), "{freshness:?}");
    }
}

/// Returns a key of 20 bytes in one of a thousand groups.
fn grouped_key(n: usize) -> String {
    format!("6:g{:05}{:012x}", n % 1000, n)
}

/// Times reads of a table and of a plain map, and updates.
fn measure_reads(keys: usize) -> Value {
    let fed = FedTable::new(keys, false);
    let names: Vec<String> = (0..keys).map(fed.key).collect();
    let snapshot = fed.table.snapshot();
    let plain: HashMap<Box<str>, Entry, RandomState> =
        snapshot.iter().map(|entry| (entry.key().into(), entry.clone())).collect();
    drop(snapshot);
    let mut result = serde_json::Map::new();
    let mut time_plain_map = |label: &str, threads| {
        let latencies = time(&names, READS, threads, |key| plain.get(key).cloned());
        result.insert(label.to_owned(), latencies);
    };
    time_plain_map("get: plain map", 1);
    run_beside_updates(&fed, || {
        time_plain_map("get: plain map, 50,000 updates/s of the table", 1);
        time_plain_map("get: plain map, 50,000 updates/s of the table, 2 threads", 2);
    });
    drop(plain);
    time_reads(&fed, &mut result, "get", &names, READS, |table, key| drop(black_box(table.get(key))));
    time_reads(&fed, &mut result, "snapshot", &names, FEWER_READS, |table, _| {
        drop(black_box(table.snapshot()));
    });
    time_reads(&fed, &mut result, "prefix, 10 rows of it", &names, FEWER_READS, |table, key| {
        black_box(total_bytes(table.snapshot().prefix(&key[..key.len() - 12])));
    });
    fed.sync();
    // The first of the two results of `update` warms up, and the last one replaces it.
    for (label, held) in [("update", false), ("update: a snapshot held", true), ("update", false)] {
        let snapshot = held.then(|| fed.table.snapshot());
        let start = Instant::now();
        fed.write((0..TIMED_UPDATES).map(|n| n * 7919 % keys), TIMED_UPDATES);
        fed.sync();
        let mean = start.elapsed().as_nanos() as f64 / TIMED_UPDATES as f64;
        drop(snapshot);
        result.insert(label.to_owned(), json!({"mean": mean}));
    }
    Value::Object(result)
}

/// Times reads of the members of a group.
fn measure_group_reads(keys: usize) -> Value {
    let fed = FedTable::new(keys, true);
    let groups: Vec<String> = fed.table.snapshot().groups().map(str::to_owned).collect();
    let mut result = serde_json::Map::new();
    time_reads(&fed, &mut result, "members, 10 of a group", &groups, FEWER_READS, |table, group| {
        black_box(total_bytes(table.snapshot().members(group)));
    });
    Value::Object(result)
}

/// Returns the bytes of the first ten values.
fn total_bytes<'a>(entries: impl Iterator<Item = &'a Entry>) -> usize {
    entries.take(10).map(|entry| entry.json().len()).sum()
}

/// Times a kind of read on one thread and on two, while nothing happens and while rows change.
fn time_reads(
    fed: &FedTable,
    result: &mut serde_json::Map<String, Value>,
    kind: &str,
    names: &[String],
    reads: usize,
    read: impl Fn(&Table, &str) + Sync,
) {
    let mut time_both = |state: &str| {
        for (threads, suffix) in [(1, ""), (2, ", 2 threads")] {
            let latencies = time(names, reads, threads, |name| read(&fed.table, name));
            result.insert(format!("{kind}: {state}{suffix}"), latencies);
        }
    };
    time_both("quiet");
    run_beside_updates(fed, || time_both("50,000 updates/s"));
}

/// Runs `work` while random rows change.
fn run_beside_updates(fed: &FedTable, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| keep_updating(fed, &stop));
        work();
        stop.store(true, Ordering::Relaxed);
    });
}

/// Updates random keys at an even rate until `stop` is set.
fn keep_updating(fed: &FedTable, stop: &AtomicBool) {
    let keys = fed.keys;
    let start = Instant::now();
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * UPDATES_PER_SECOND as f64) as usize;
        fed.write((written..due).map(|n| random(n) % keys), due);
        written = due;
        thread::sleep(Duration::from_millis(1));
    }
}

/// Times many reads, one by one, on this number of threads at once. Returns percentiles in nanoseconds.
fn time<T>(names: &[String], reads: usize, threads: usize, read: impl Fn(&str) -> T + Sync) -> Value {
    let time_on_thread = |thread: usize| {
        let mut latencies = Vec::with_capacity(reads);
        for n in 0..reads {
            let name = &names[random(n + thread * reads) % names.len()];
            // Loads the name into the cache, because only the read is to be measured.
            black_box(name.as_bytes()[0]);
            let start = Instant::now();
            black_box(read(name));
            latencies.push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
        latencies
    };
    let time_on_thread = &time_on_thread;
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || time_on_thread(thread))).collect();
        percentiles(threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect())
    })
}

fn percentiles(mut latencies: Vec<u32>) -> Value {
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    let mean = latencies.iter().map(|&ns| f64::from(ns)).sum::<f64>() / latencies.len() as f64;
    json!({"p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "mean": mean})
}

/// Returns a pseudo-random number for each `n`.
fn random(n: usize) -> usize {
    ((n as u64).wrapping_mul(0xD129_0D3E_3A5C_8B05).rotate_left(23).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16)
        as usize
}

/// Measures the memory of a table for each key.
fn measure_memory(kind: &str, keys: usize) -> Value {
    // The baseline is the process after a table of one key.
    drop(FedTable::new(1, kind == "grouped"));
    let empty = settled_memory(std::process::id());
    let fed = FedTable::new(1, kind == "grouped");
    for start in (0..keys).step_by(1000) {
        fed.write(start..(start + 1000).min(keys), 0);
    }
    fed.sync();
    let payload = fed.table.stats().payload_bytes as f64;
    let per_key = |resident: u64| (resident.saturating_sub(empty) as f64 - payload) / keys as f64;
    let loaded = per_key(settled_memory(std::process::id()));
    for start in (0..10 * keys).step_by(1000) {
        fed.write((start..start + 1000).map(|n| random(n) % keys), start);
    }
    fed.sync();
    json!({"loaded": loaded, "overwritten": per_key(settled_memory(std::process::id()))})
}
