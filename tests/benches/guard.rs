//! Runs one hot path, for `cargo xtask guard`, which counts the instructions of the function [`measure`]
//! with callgrind. Everything else here is preparation and not counted, nor is the work of other threads. It
//! also prints the fuel that guests use, which wasmtime counts.

#![allow(clippy::unwrap_used, reason = "in a bench, a panic is the report")]

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use ktables::Packed;
use ktables::codec::{Codecs, Json, ValueCodec};
use ktables::log::Ack;
use ktables::table::Table;
use ktables::wasm::{Compiler, Engine, EngineOptions, LoadOptions, Metering};
use ktables_tests::{MemoryLog, TOPIC, component_path, engine_options};
use tokio::runtime::Runtime;

/// How many records or keys each path works on.
const BATCH: usize = 1000;

/// How many rows the tables have.
const ROWS: usize = 10_000;

/// A timeout that no step reaches.
const TIMEOUT: Duration = Duration::from_secs(600);

fn main() {
    let paths: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match paths.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["decode-built-in"] => decode(&Json),
        ["decode-component"] => {
            // Valgrind emulates another CPU than the one that a compiler process would compile for.
            let options = EngineOptions { compiler: Compiler::InProcess, ..engine_options() };
            let engine = Engine::new(options).unwrap();
            let mirror = engine.load(component_path("mirror"), LoadOptions::default()).unwrap();
            decode(&*mirror.value_codec(TOPIC, r#"{"mode":"copy"}"#).unwrap())
        }
        ["apply"] => apply(),
        ["get"] => get(),
        ["snapshot"] => snapshot(),
        ["fuel", guest, config] => print_fuel(guest, config),
        _ => panic!("use one of decode-built-in, decode-component, apply, get, snapshot, fuel GUEST CONFIG"),
    }
}

/// Runs a path. callgrind counts the instructions of this function only, and finds it by its name.
#[inline(never)]
fn measure(path: impl FnOnce()) {
    path();
    black_box(());
}

/// Decodes a batch, with the checks of the codec's answers.
fn decode(codec: &dyn ValueCodec) {
    let batch: Packed = (0..BATCH).map(value).collect();
    // The first run, which is not counted, does what happens only once, such as filling caches.
    for is_measured in [false, true] {
        let work = || {
            assert!(black_box(codec.decode_values(&batch, &[]).unwrap()).iter().all(|answer| answer.is_ok()))
        };
        if is_measured { measure(work) } else { work() }
    }
}

/// Prints the fuel that a guest uses for a batch. It is the same on every machine.
fn print_fuel(guest: &str, config: &str) {
    let options = EngineOptions { metering: Metering::Fuel, cache: None, ..engine_options() };
    let component =
        Engine::new(options).unwrap().load(component_path(guest), LoadOptions::default()).unwrap();
    let fuel = component.decode_fuel(config, &(0..BATCH).map(value).collect()).unwrap();
    std::io::stdout().write_all(format!("{fuel}\n").as_bytes()).unwrap();
}

/// Applies a batch of updates to a loaded table.
fn apply() {
    let (runtime, log, table) = load_table();
    for is_measured in [false, true] {
        let updates: Vec<(String, String)> = (0..BATCH).map(|n| (key(n * 7), value(n + 1))).collect();
        log.append(updates.iter().map(|(key, value)| (key.as_str(), value.as_bytes())));
        let last = log.end() - 1;
        let work = || {
            assert!(
                runtime
                    .block_on(table.wait_for(&[Ack { partition: 0, offset: Some(last) }], TIMEOUT))
                    .is_fresh()
            )
        };
        if is_measured {
            measure(work)
        } else {
            work()
        }
        assert_eq!(table.stats().rejects.len(), 0);
    }
}

fn get() {
    let (_runtime, _log, table) = load_table();
    let keys: Vec<String> = (0..BATCH).map(|n| key(n * 7)).collect();
    measure(|| assert!(keys.iter().all(|key| black_box(table.get(key)).is_some())));
}

fn snapshot() {
    let (_runtime, _log, table) = load_table();
    measure(|| (0..BATCH).for_each(|_| drop(black_box(table.snapshot()))));
}

/// Returns a table of [`ROWS`] rows. Its task runs only while the caller blocks on the runtime.
fn load_table() -> (Runtime, Arc<MemoryLog>, Table) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = MemoryLog::new(ROWS);
    let builder = Table::builder(log.clone(), TOPIC, Codecs::default()).catchup_timeout(TIMEOUT);
    let table = runtime.block_on(builder.open()).unwrap();
    let feeder = log.clone();
    let feed = std::thread::spawn(move || {
        let rows: Vec<(String, String)> = (0..ROWS).map(|n| (key(n), value(n))).collect();
        feeder.append(rows.iter().map(|(key, value)| (key.as_str(), value.as_bytes())));
    });
    runtime.block_on(table.wait_until_ready()).unwrap();
    feed.join().unwrap();
    (runtime, log, table)
}

fn key(n: usize) -> String {
    format!("key-{n:016x}")
}

fn value(n: usize) -> String {
    format!(
        r#"{{"id":1{n:06},"up":true,"weight":0.5,"tags":["eu","zone-1"],"host":"node-0123456789.example.net"}}"#
    )
}
