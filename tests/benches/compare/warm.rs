//! Compares the start of a table from its checkpoint with a full replay, and measures what writing a
//! checkpoint costs.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ktables::codec::{Codecs, Utf8};
use ktables::table::Table;
use ktables_tests::{TOPIC, component};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::contender::COMMAND;
use crate::data::{Workload, produce};
use crate::process::{self, Memory, now};
use crate::replay::SMALL;
use crate::report::{Cell, Ratio, Report};
use crate::{Options, say};

const WORKLOAD: Workload = Workload { name: "warm", records: 5_000_000, keys: 1_000_000, ..SMALL };

/// A timeout that no start reaches.
const TIMEOUT: Duration = Duration::from_secs(600);

/// How long the size of a checkpoint must stay the same before its compaction counts as finished.
const SETTLE_TIME: Duration = Duration::from_secs(3);

/// The first argument of this file's contender.
pub(crate) const WARM: &str = "warm";

const REPLAY: &str = "full replay";
const WRITING: &str = "full replay, a checkpoint written";
const START: &str = "start from the checkpoint";
const BROKEN: &str = "start from a broken checkpoint";

pub(crate) fn run(options: &Options, bootstrap: &str, report: &mut Report) {
    if options.wants(WORKLOAD.name) {
        report.add(warm_cell(options, bootstrap));
    }
}

fn warm_cell(options: &Options, bootstrap: &str) -> Cell {
    say(&format!("{}: writing {} records", WORKLOAD.name, WORKLOAD.records));
    let topic = produce(bootstrap, &WORKLOAD);
    let mut cell = Cell::new(
        WORKLOAD.name,
        format!("{} records over {} keys, component json, tail included", WORKLOAD.records, WORKLOAD.keys),
    );
    for round in 0..options.rounds {
        say(&format!("{}: round {} of {}", WORKLOAD.name, round + 1, options.rounds));
        let folder = tempfile::TempDir::new().unwrap();
        let mut entries = Vec::new();
        for label in [REPLAY, WRITING, START, BROKEN] {
            if label == BROKEN {
                damage(folder.path());
            }
            let checkpoint = if label == REPLAY { "none" } else { folder.path().to_str().unwrap() };
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args([COMMAND, WARM, checkpoint, bootstrap, &topic]);
            let run = process::run(&mut command, Memory::Ignored);
            assert_eq!(run.number("loaded") > 0.0, label == START, "{label}: {}", run.result);
            entries.push(run.number("entries"));
            cell.add_sample(label, "from start, s", run.number("done") - run.started);
            cell.add_sample(label, "CPU, s", run.number("cpu"));
            cell.add_sample(label, "peak, MiB", run.peak as f64 / f64::from(1 << 20));
        }
        assert!(entries.iter().all(|&entries| entries as usize == WORKLOAD.keys), "{entries:?}");
    }
    cell.add_ratio("time / a full replay's", "from start, s", REPLAY, Ratio::Amount);
    cell.add_ratio("speed / a full replay's", "from start, s", REPLAY, Ratio::Speed);
    cell
}

/// Changes a byte in the middle of the largest file.
fn damage(folder: &Path) {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let largest = files.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(largest, bytes).unwrap();
}

/// Starts a table, with a checkpoint unless `folder` is `none`, and returns its measures when it is complete.
pub(crate) fn run_as_contender(folder: &str, bootstrap: &str, topic: &str) -> (Value, Table, Runtime) {
    let value = component("mirror").value_codec(TOPIC, &json!({"mode": "json"}).to_string()).unwrap();
    let codecs = Codecs { key: std::sync::Arc::new(Utf8), value, group_scheme: None };
    let log = ktables::log::open(&format!("kafka://{bootstrap}")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut builder = Table::builder(log, topic, codecs).catchup_timeout(TIMEOUT);
    if folder != "none" {
        builder = builder.checkpoint(folder);
    }
    let table = runtime.block_on(builder.start()).unwrap();
    let (done, cpu) = (now(), process::cpu(std::process::id()).as_secs_f64());
    let stats = table.stats();
    let loaded = stats.checkpoint.map_or(0, |checkpoint| checkpoint.loaded);
    let result = json!({"done": done, "cpu": cpu, "entries": stats.entries, "loaded": loaded});
    // Waits for the compaction, so that the next start finds a checkpoint as it is some seconds after the
    // table was complete.
    let bytes = || table.stats().checkpoint.map(|checkpoint| checkpoint.bytes);
    let (mut before, mut since) = (bytes(), Instant::now());
    while since.elapsed() < SETTLE_TIME && folder != "none" {
        std::thread::sleep(Duration::from_millis(100));
        if bytes() != before {
            (before, since) = (bytes(), Instant::now());
        }
    }
    runtime.block_on(table.stop());
    (result, table, runtime)
}
