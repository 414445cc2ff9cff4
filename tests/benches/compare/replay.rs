//! Times the replay of a topic to its end with everything decoded, both from the start of the process and
//! from its first record.

use std::path::PathBuf;
use std::process::Command;

use ktables_tests::kafka::target;
use ktables_tests::root;

use crate::contender::COMMAND;
use crate::data::{Values, Workload, produce};
use crate::process::{self, Memory, Run};
use crate::report::{Cell, Ratio, Report};
use crate::{Options, say};

/// A program that replays a topic.
#[derive(Debug, Clone, Copy)]
struct Contender {
    label: &'static str,
    kind: &'static str,
    codec: &'static str,
}

/// The contender that all others are compared with.
const RAW: Contender = Contender { label: "raw librdkafka loop, 512 at once", kind: "raw", codec: "bulk" };

/// A loop that polls, as programs with rdkafka do.
const POLL: Contender =
    Contender { label: "raw librdkafka loop, one by one", kind: "raw", codec: "one-by-one" };

const JSON: [Contender; 7] = [
    RAW,
    POLL,
    Contender { label: "ktables, built-in json", kind: "built-in", codec: "json" },
    Contender { label: "ktables, component json", kind: "component", codec: "json" },
    Contender { label: "ktables, native json", kind: "native", codec: "json" },
    Contender { label: "ktables, component copy", kind: "component", codec: "copy" },
    Contender { label: "ktables, native copy", kind: "native", codec: "copy" },
];

/// The peers.
const PEERS: [Contender; 5] = [
    Contender { label: "Python ktables, json.loads", kind: "python", codec: "json" },
    Contender { label: "Python ktables, pydantic", kind: "python", codec: "pydantic" },
    Contender { label: "GlobalKTable, in memory", kind: "java", codec: "memory" },
    Contender { label: "GlobalKTable, RocksDB", kind: "java", codec: "rocksdb" },
    Contender { label: "KCache", kind: "java", codec: "kcache" },
];

/// The contenders of most workloads: the reference, and the main contender of this project.
const OURS: [Contender; 2] = [RAW, JSON[3]];

const SERVICES: [Contender; 3] = [
    RAW,
    Contender { label: "ktables, component service-record", kind: "component", codec: "service-record" },
    Contender { label: "ktables, native service-record", kind: "native", codec: "service-record" },
];

const PACKAGES: [Contender; 3] = [
    RAW,
    Contender { label: "ktables, component deb822", kind: "component", codec: "deb822" },
    Contender { label: "ktables, native deb822", kind: "native", codec: "deb822" },
];

/// The main workload. The others differ from it in some fields.
pub(crate) const SMALL: Workload = Workload {
    name: "replay-100B",
    records: 1_000_000,
    keys: 100_000,
    partitions: 4,
    values: Values::Json(100),
    compression: "none",
};

/// The topics, their contenders, and whether a quick run has the cell.
const WORKLOADS: [(Workload, &[Contender], bool); 9] = [
    (SMALL, &JSON, true),
    (Workload { name: "replay-1KB", records: 200_000, values: Values::Json(1000), ..SMALL }, &JSON, false),
    (Workload { name: "replay-lz4", compression: "lz4", ..SMALL }, &OURS, false),
    (Workload { name: "replay-zstd", compression: "zstd", ..SMALL }, &OURS, false),
    (Workload { name: "replay-services", values: Values::Services, ..SMALL }, &SERVICES, true),
    (
        Workload {
            name: "replay-packages",
            records: 100_000,
            keys: 50_000,
            values: Values::Packages,
            ..SMALL
        },
        &PACKAGES,
        true,
    ),
    (Workload { name: "replay-5M-keys", records: 5_000_000, keys: 5_000_000, ..SMALL }, &OURS, false),
    (Workload { name: "replay-64-partitions", partitions: 64, ..SMALL }, &OURS, true),
    (Workload { name: "replay-10k", records: 10_000, keys: 10_000, ..SMALL }, &OURS, true),
];

/// Returns the main contender of this project: its kind and codec.
pub(crate) fn main_contender() -> (&'static str, &'static str) {
    (OURS[1].kind, OURS[1].codec)
}

pub(crate) fn run(options: &Options, bootstrap: &str, report: &mut Report) {
    for (workload, contenders, quick) in WORKLOADS {
        if (quick || !options.quick) && options.wants(workload.name) {
            report.add(workload_cell(options, bootstrap, &workload, contenders));
        }
    }
}

fn workload_cell(options: &Options, bootstrap: &str, workload: &Workload, contenders: &[Contender]) -> Cell {
    say(&format!("{}: writing {} records", workload.name, workload.records));
    let topic = produce(bootstrap, workload);
    let mut cell = Cell::new(
        workload.name,
        format!(
            "{} records of {:?} over {} keys, {} partitions, compression {}",
            workload.records, workload.values, workload.keys, workload.partitions, workload.compression
        ),
    );
    // Measured for large tables only: with a small one, the process itself takes most of the memory.
    let kept = if workload.keys > 1_000_000 { Memory::Measured } else { Memory::Ignored };
    for round in 0..options.rounds {
        say(&format!("{}: round {} of {}", workload.name, round + 1, options.rounds));
        let peers = options.peers && workload.name == SMALL.name;
        for contender in contenders.iter().chain(if peers { &PEERS[..] } else { &[] }) {
            let run = run_contender(contender, bootstrap, &topic, kept);
            assert_eq!(run.number("records"), workload.records as f64, "{}", contender.label);
            add_samples(&mut cell, contender.label, workload, &run);
        }
    }
    cell.add_ratio("speed, from start / raw's", "from start, s", RAW.label, Ratio::Speed);
    cell.add_ratio("speed, from first record / raw's", "from first record, s", RAW.label, Ratio::Speed);
    cell
}

/// Runs a contender's process.
fn run_contender(contender: &Contender, bootstrap: &str, topic: &str, kept: Memory) -> Run {
    let mut command = match contender.kind {
        "python" => {
            let mut python = python("replay.py");
            python.arg(contender.codec);
            python
        }
        "java" => return process::run(&mut java_peer(contender.codec, bootstrap, topic), kept),
        kind => {
            let mut ours = Command::new(std::env::current_exe().unwrap());
            ours.args([COMMAND, kind, contender.codec]);
            ours
        }
    };
    process::run(command.args([bootstrap, topic]), kept)
}

/// Returns the command of a peer in Java that replays a topic.
pub(crate) fn java_peer(kind: &str, bootstrap: &str, topic: &str) -> Command {
    let mut java = Command::new(java());
    let classes = format!("{0}/lib/*:{0}/classes", peers().display());
    java.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", &classes, "Replay"]);
    java.args([kind, bootstrap, topic]);
    java
}

/// Returns a command that runs a Python script of the peers.
pub(crate) fn python(script: &str) -> Command {
    let mut python = Command::new(peers().join("python/bin/python"));
    python.arg(root().join("tests/benches/peers").join(script));
    python
}

/// Returns the folder in which `cargo xtask bench --peers` installs the peers.
fn peers() -> PathBuf {
    target().join("tools/peers")
}

fn java() -> PathBuf {
    std::env::var_os("JAVA_HOME").map_or_else(|| "java".into(), |home| PathBuf::from(home).join("bin/java"))
}

fn add_samples(cell: &mut Cell, label: &str, workload: &Workload, run: &Run) {
    let (first, done) = (run.number("first"), run.number("done"));
    let millions = workload.records as f64 / 1e6;
    cell.add_sample(label, "from start, s", done - run.started);
    cell.add_sample(label, "from first record, s", done - first);
    cell.add_sample(label, "M records/s", millions / (done - first));
    cell.add_sample(label, "CPU, us/record", run.cpu.as_secs_f64() / millions);
    cell.add_sample(label, "peak, MiB", run.peak as f64 / f64::from(1 << 20));
    if let Some(kept) = run.kept {
        cell.add_sample(label, "kept, MiB", kept as f64 / f64::from(1 << 20));
        cell.add_sample(label, "peak / kept", run.peak as f64 / kept as f64);
    }
}
